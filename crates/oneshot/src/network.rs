//! The machine's network as it works now, from the kernel alone: sysfs, `/proc/net`, and two calls for what these do not show.
//!
//! Only links that lead to a physical Ethernet adapter count: itself, or a bond, VLAN or bridge over it. What the kernel does not tell
//! there (teams of libteam, Open vSwitch, routing rules) is left out.

mod addresses;
mod routes;

use std::net::IpAddr;
use std::path::Path;

use machine::push::{NetworkIdentity, NetworkLink};
use machine::{IpNet, MacAddress};

use crate::system::System;

const CLASS: &str = "/sys/class/net";
/// Most interfaces, members of one, and addresses of one.
const LINKS_MAX: usize = 256;
const MEMBERS_MAX: usize = 64;
const ADDRESSES_MAX: usize = 64;
/// Most name servers.
const DNS_MAX: usize = 8;
/// A VLAN over a bond over an adapter, under a bridge.
const DEPTH_MAX: usize = 6;
/// `ARPHRD_ETHER`.
const ETHERNET: &str = "1";
/// Where programs that answer for others keep the servers that they ask.
const RESOLVERS: [&str; 3] =
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// What an interface leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wire {
    /// Names of the adapters.
    adapters: Vec<String>,
    bond: Option<String>,
    vlan: Option<u16>,
}

/// The network of this machine.
pub(crate) fn load_identity(system: &System) -> NetworkIdentity {
    let mut addresses = addresses::load_ipv6(system);
    if system.is_running() {
        addresses.extend(addresses::load_ipv4());
    }
    identity(system, &addresses)
}

/// Adapters that the machine is reached by.
pub(crate) fn physical_nics(system: &System) -> Vec<String> {
    let mut addresses = addresses::load_ipv6(system);
    if system.is_running() {
        addresses.extend(addresses::load_ipv4());
    }
    let mut names: Vec<String> =
        addresses.iter().filter_map(|(name, _)| wire(system, name, 0)).flat_map(|w| w.adapters).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn identity(system: &System, addresses: &[(String, IpNet)]) -> NetworkIdentity {
    let hostname = system.text("/proc/sys/kernel/hostname").unwrap_or_default();
    let hostname = hostname.trim().split('.').next().unwrap_or_default().to_owned();
    let routes = routes::load(system);
    let links = system.list(CLASS).into_iter().take(LINKS_MAX).filter_map(|name| {
        let own = addresses.iter().filter(|(other, _)| *other == name).map(|(_, net)| *net);
        let own: Vec<IpNet> = own.take(ADDRESSES_MAX).collect();
        let wire = wire(system, &name, 0).filter(|_| !own.is_empty())?;
        let macs: Vec<MacAddress> = wire.adapters.iter().filter_map(|adapter| mac(system, adapter)).collect();
        let mtu = read(system, &name, "mtu").and_then(|text| text.parse().ok());
        let routes = routes.iter().filter(|(other, _)| *other == name).map(|(_, route)| route.clone()).collect();
        let link = NetworkLink { macs, bond: wire.bond, vlan: wire.vlan, mtu, addresses: own, routes };
        (!link.macs.is_empty()).then_some(link)
    });
    NetworkIdentity { hostname, dns: dns(system), links: links.collect() }
}

fn read(system: &System, name: &str, file: &str) -> Option<String> {
    system.text(Path::new(CLASS).join(name).join(file)).map(|text| text.trim().to_owned())
}

/// What an interface leads to; `None` where it leads nowhere outside.
fn wire(system: &System, name: &str, depth: usize) -> Option<Wire> {
    let has = |what: &str| system.path(Path::new(CLASS).join(name).join(what)).exists();
    if depth >= DEPTH_MAX || read(system, name, "type").as_deref() != Some(ETHERNET) {
        return None;
    }
    if has("bonding") {
        let members = read(system, name, "bonding/slaves")?;
        let members = members.split_whitespace().take(MEMBERS_MAX).filter(|member| is_adapter(system, member));
        let adapters: Vec<String> = members.map(str::to_owned).collect();
        let mode = read(system, name, "bonding/mode")?.split_whitespace().next()?.to_owned();
        return (!adapters.is_empty()).then_some(Wire { adapters, bond: Some(mode), vlan: None });
    }
    if has("bridge") {
        let ports = system.list(Path::new(CLASS).join(name).join("brif"));
        return ports.iter().take(LINKS_MAX).find_map(|port| wire(system, port, depth + 1));
    }
    if let Some((parent, id)) = vlan_parent(system, name) {
        // A VLAN within a VLAN is more than a link can say.
        return wire(system, &parent, depth + 1)
            .filter(|wire| wire.vlan.is_none())
            .map(|wire| Wire { vlan: Some(id), ..wire });
    }
    is_adapter(system, name).then(|| Wire { adapters: vec![name.to_owned()], bond: None, vlan: None })
}

fn is_adapter(system: &System, name: &str) -> bool {
    system.path(Path::new(CLASS).join(name).join("device")).exists()
}

/// `eth0.5 | 5 | eth0`
fn vlan_parent(system: &System, name: &str) -> Option<(String, u16)> {
    let text = system.text("/proc/net/vlan/config")?;
    text.lines().find_map(|line| {
        let mut fields = line.split('|').map(str::trim);
        let (own, id, parent) = (fields.next()?, fields.next()?, fields.next()?);
        (own == name).then(|| Some((parent.to_owned(), id.parse().ok()?)))?
    })
}

/// The address that an adapter was made with.
fn mac(system: &System, name: &str) -> Option<MacAddress> {
    let permanent = system.is_running().then(|| addresses::permanent_mac(name)).flatten();
    // A member of a bond wears the bond's address.
    let kept = || read(system, name, "bonding_slave/perm_hwaddr")?.parse().ok();
    permanent.or_else(kept).or_else(|| read(system, name, "address")?.parse().ok())
}

/// Name servers that can be asked from elsewhere.
fn dns(system: &System) -> Vec<IpAddr> {
    let found = RESOLVERS.iter().map(|path| {
        let text = system.text(path).unwrap_or_default();
        let servers =
            text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
        servers.filter(|server| !server.is_loopback()).take(DNS_MAX).collect::<Vec<_>>()
    });
    found.into_iter().find(|servers| !servers.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
