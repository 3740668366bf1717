//! Network interfaces with an IPv4 address, by getifaddrs(3), which asks the kernel by netlink: the files under /sys tell
//! of another network namespace than that of this process when it was moved to one.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::{Error, ErrorKind, Result};
use machine::MacAddress;

/// `ARPHRD_ETHER` of linux/if_arp.h.
const ETHERNET: u16 = 1;

/// An interface that the service can work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name: `eth0`.
    pub name: String,
    /// Its first IPv4 address, by which clients reach us.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: MacAddress,
    /// Whether its cable is plugged in.
    pub has_link: bool,
}

/// The interfaces named, or all that are up with an IPv4 address where none is.
///
/// # Errors
/// [`ErrorKind::NoInterface`], with the reason for each that cannot be used.
pub fn load_interfaces(wanted: &[String]) -> Result<Vec<Interface>> {
    let links = load_links().map_err(|e| Error::io("ask the kernel for network interfaces", e))?;
    let names: Vec<String> = links.keys().cloned().collect();
    let (mut found, mut reasons) = (Vec::new(), Vec::new());
    for name in if wanted.is_empty() { &names } else { wanted } {
        match links.get(name).map(|link| link.interface(name)) {
            None => reasons.push(format!("there is no interface {name}; there are {}", names.join(", "))),
            Some(Ok(interface)) => found.push(interface),
            Some(Err(reason)) => reasons.push(format!("{name}: {reason}")),
        }
    }
    if found.is_empty() || (!wanted.is_empty() && !reasons.is_empty()) {
        let context = format!("no network interface that can be used: {}", reasons.join("; "));
        return Err(Error::new(ErrorKind::NoInterface, context));
    }
    Ok(found)
}

/// What the kernel says of an interface.
#[derive(Debug)]
struct Link {
    flags: InterfaceFlags,
    /// Where it is Ethernet.
    mac: Option<MacAddress>,
    address: Option<Ipv4Addr>,
}

impl Link {
    fn interface(&self, name: &str) -> std::result::Result<Interface, &'static str> {
        let mac = self.mac.ok_or("it is no Ethernet")?;
        if !self.flags.contains(InterfaceFlags::IFF_UP) {
            return Err("it is down");
        }
        let address = self.address.ok_or("it has no IPv4 address")?;
        let has_link = self.flags.contains(InterfaceFlags::IFF_LOWER_UP);
        Ok(Interface { name: name.to_owned(), address, mac, has_link })
    }
}

/// By name; each address of an interface comes as an entry of its own.
fn load_links() -> io::Result<BTreeMap<String, Link>> {
    let mut links: BTreeMap<String, Link> = BTreeMap::new();
    for entry in getifaddrs()? {
        // An address with a label (`eth0:1`) comes under that.
        let name = entry.interface_name.split(':').next().unwrap_or_default().to_owned();
        let link = links.entry(name).or_insert(Link { flags: entry.flags, mac: None, address: None });
        let Some(address) = entry.address else { continue };
        if let Some(hardware) = address.as_link_addr().filter(|hardware| hardware.hatype() == ETHERNET) {
            link.mac = hardware.addr().map(MacAddress);
        } else if let Some(address) = address.as_sockaddr_in() {
            link.address.get_or_insert(address.ip());
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_cannot_be_used_is_named_with_the_reason() {
        let error = load_interfaces(&["nowhere0".into()]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoInterface);
        assert!(error.context.contains("there is no interface nowhere0") && error.context.contains("lo"), "{error}");
        let error = load_interfaces(&["lo".into()]).unwrap_err();
        assert!(error.context.contains("lo: it is no Ethernet"), "{error}");
    }
}
