//! A machine's own network as settings of its boot image: the same addresses and routes, on the same cards by their MAC.
//!
//! Where the machine has addresses, nothing is asked of a DHCP server, and cards that it does not use are left alone. What the
//! boot image would refuse (a name with an underscore, an MTU below IPv6's) is left out: it is none of what the way to the
//! controller needs.

use std::net::IpAddr;

use machine::push::{NetworkIdentity, NetworkLink, Route};
use toml::{Table, Value};

use crate::network::Network;

/// As many cards, VLANs and bonds, and name servers, as the boot image reads of each.
const ENTRIES_MAX: usize = 64;
/// As many addresses, and routes, of one link.
const PER_LINK_MAX: usize = 256;
/// Packet sizes that the boot image sets, in bytes.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 1280..=9710;
/// VLANs that there are (IEEE 802.1Q, 9.6).
const VLAN_RANGE: std::ops::RangeInclusive<u16> = 1..=4094;

impl Network {
    /// The settings by which a boot image has the network that its machine has; DHCP on every card where it has no address.
    pub fn from_identity(identity: &NetworkIdentity) -> Self {
        let (mut all, mut nics, mut bonds) = (Table::new(), Vec::new(), Vec::new());
        if is_hostname(&identity.hostname) {
            all.insert("hostname".into(), identity.hostname.clone().into());
        }
        if !identity.dns.is_empty() {
            all.insert("dns".into(), texts(identity.dns.iter().take(ENTRIES_MAX)));
        }
        for link in places(&identity.links) {
            let list = if is_bond(&link) { &mut bonds } else { &mut nics };
            if list.len() < ENTRIES_MAX {
                list.push(Value::Table(settings(&link)));
            }
        }
        if !(nics.is_empty() && bonds.is_empty()) {
            all.insert("mode".into(), "off".into());
        }
        for (name, list) in [("nic", nics), ("bond", bonds)] {
            if !list.is_empty() {
                all.insert(name.into(), Value::Array(list));
            }
        }
        Self::from(all)
    }
}

/// The links, one for each card or bond and VLAN: what several interfaces have there (a bridge and its port) is together.
fn places(links: &[NetworkLink]) -> Vec<NetworkLink> {
    let mut places: Vec<NetworkLink> = Vec::new();
    for link in links {
        let mut link = link.clone();
        link.vlan = link.vlan.filter(|vlan| VLAN_RANGE.contains(vlan));
        link.addresses.retain(|net| (1..=longest(net.address)).contains(&net.prefix_length));
        if link.macs.is_empty() || link.macs.len() > ENTRIES_MAX || link.addresses.is_empty() {
            continue;
        }
        let shares = |other: &&mut NetworkLink| {
            is_bond(other) == is_bond(&link) && other.macs.iter().any(|mac| link.macs.contains(mac))
        };
        let mut sharing: Vec<&mut NetworkLink> = places.iter_mut().filter(shares).collect();
        // A card is in one bond, which has one policy.
        match sharing.first() {
            Some(first) if first.macs != link.macs => continue,
            Some(first) => link.bond.clone_from(&first.bond),
            None => {}
        }
        match sharing.iter_mut().find(|other| other.vlan == link.vlan) {
            Some(other) => {
                other.addresses.append(&mut link.addresses);
                other.routes.append(&mut link.routes);
            }
            None => places.push(link),
        }
    }
    places
}

fn longest(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_bond(link: &NetworkLink) -> bool {
    link.bond.is_some() || link.macs.len() > 1
}

fn settings(link: &NetworkLink) -> Table {
    let mut table = Table::new();
    if is_bond(link) {
        table.insert("policy".into(), policy(link.bond.as_deref().unwrap_or_default()).into());
        table.insert("members".into(), texts(&link.macs));
    } else {
        table.insert("mac".into(), link.macs.first().map(ToString::to_string).unwrap_or_default().into());
    }
    table.insert("mode".into(), "static".into());
    table.insert("addresses".into(), texts(link.addresses.iter().take(PER_LINK_MAX)));
    if let Some(vlan) = link.vlan {
        table.insert("vlan".into(), i64::from(vlan).into());
    }
    if let Some(mtu) = link.mtu.filter(|mtu| MTU_RANGE.contains(mtu)) {
        table.insert("mtu".into(), i64::from(mtu).into());
    }
    // The way to everywhere else is not what is left out where there are too many.
    let mut routes: Vec<&Route> = link.routes.iter().filter(|route| is_route(route)).collect();
    routes.sort_by_key(|route| route.destination.prefix_length);
    let routes: Vec<Value> =
        routes.into_iter().take(PER_LINK_MAX).map(|route| Value::Table(route_table(route))).collect();
    if !routes.is_empty() {
        table.insert("routes".into(), Value::Array(routes));
    }
    table
}

fn route_table(route: &Route) -> Table {
    let mut table = Table::new();
    table.insert("to".into(), route.destination.to_string().into());
    table.insert("via".into(), route.gateway.to_string().into());
    if route.metric != 0 {
        table.insert("metric".into(), i64::from(route.metric).into());
    }
    table
}

/// Of both ends one kind, and the length of a prefix of that kind.
fn is_route(route: &Route) -> bool {
    route.destination.address.is_ipv4() == route.gateway.is_ipv4()
        && route.destination.prefix_length <= longest(route.destination.address)
        && !route.gateway.is_unspecified()
        && !matches!(route.gateway, IpAddr::V4(gateway) if gateway.is_broadcast())
}

/// The boot image's policy for one of the kernel's (Documentation/networking/bonding.rst), by what the switch expects.
/// `balance-tlb` and `balance-alb` need nothing of it, and so does `active-backup`. The others send on all members to a switch
/// that takes them as one: `balance-xor` does so, too, without the packets out of order of `balance-rr`.
fn policy(kernels: &str) -> &'static str {
    match kernels {
        "802.3ad" => "802.3ad",
        "balance-rr" | "balance-xor" | "broadcast" => "balance-xor",
        _ => "active-backup",
    }
}

/// Whether the boot image takes a name (RFC 1035, 2.3.1).
fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Value {
    Value::Array(values.into_iter().map(|value| Value::String(value.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use machine::IpNet;

    use super::*;

    fn net(text: &str) -> IpNet {
        let (address, length) = text.split_once('/').unwrap();
        IpNet { address: address.parse().unwrap(), prefix_length: length.parse().unwrap() }
    }

    fn link(macs: &[&str], addresses: &[&str]) -> NetworkLink {
        NetworkLink {
            macs: macs.iter().map(|mac| mac.parse().unwrap()).collect(),
            bond: None,
            vlan: None,
            mtu: None,
            addresses: addresses.iter().map(|text| net(text)).collect(),
            routes: Vec::new(),
        }
    }

    #[test]
    fn a_machine_s_addresses_and_routes_are_settings() {
        let mut first = link(&["52:54:00:12:34:56"], &["192.0.2.7/24", "2001:db8::7/64"]);
        first.mtu = Some(9000);
        let route = |to: &str, via: &str, metric| Route { destination: net(to), gateway: via.parse().unwrap(), metric };
        first.routes = vec![
            route("198.51.100.0/24", "192.0.2.2", 0),
            route("0.0.0.0/0", "192.0.2.1", 100),
            route("::/0", "fe80::1", 1024),
            route("::/0", "192.0.2.1", 1),
        ];
        let second =
            NetworkLink { vlan: Some(12), mtu: Some(100), ..link(&["52:54:00:12:34:56"], &["203.0.113.7/24"]) };
        let bond = NetworkLink {
            bond: Some("balance-rr".into()),
            ..link(&["52:54:00:12:34:01", "52:54:00:12:34:02"], &["198.51.100.7/24"])
        };
        let none = link(&["52:54:00:12:34:99"], &[]);
        let identity = NetworkIdentity {
            hostname: "web1".into(),
            dns: vec!["192.0.2.53".parse().unwrap()],
            links: vec![first, second, bond, none],
        };
        let text = toml::to_string(&Network::from_identity(&identity)).unwrap();
        println!("{text}");
        let table: Table = text.parse().unwrap();
        assert_eq!((table["hostname"].as_str(), table["mode"].as_str()), (Some("web1"), Some("off")));
        let nic = table["nic"].as_array().unwrap();
        assert_eq!(nic.len(), 2, "the one without an address is left alone");
        assert_eq!(nic[0]["routes"].as_array().unwrap().len(), 3);
        assert_eq!(nic[0]["routes"][0]["to"].as_str(), Some("0.0.0.0/0"));
        assert_eq!(nic[0]["routes"][0]["metric"].as_integer(), Some(100));
        assert_eq!((nic[1]["vlan"].as_integer(), nic[1].get("mtu")), (Some(12), None));
        assert_eq!(table["bond"][0]["policy"].as_str(), Some("balance-xor"));
    }

    #[test]
    fn a_machine_without_addresses_asks_a_dhcp_server() {
        assert!(Network::from_identity(&NetworkIdentity::default()).is_empty());
        let named = NetworkIdentity { hostname: "web_1".into(), ..NetworkIdentity::default() };
        assert!(Network::from_identity(&named).is_empty(), "a name that the boot image would refuse is left out");
    }

    #[test]
    fn policies_are_told_by_what_the_switch_expects() {
        let known =
            ["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"];
        let expected =
            ["balance-xor", "active-backup", "balance-xor", "balance-xor", "802.3ad", "active-backup", "active-backup"];
        assert_eq!(known.map(policy), expected);
    }
}
