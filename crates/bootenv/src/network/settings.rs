//! What the network is told to be: by the configuration file, and by whoever stands in front of the Network Configurator.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use machine::{IpNet, MacAddress};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Largest VLAN identifier (IEEE 802.1Q, 9.6; 4095 is reserved).
const VLAN_MAX: u16 = 4094;
/// Smallest MTU that IPv6 allows (RFC 8200, 5), and the largest of any Ethernet card.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 1280..=9710;
/// Per-NIC tables, members of a bond and name servers that a file may hold.
const ENTRIES_MAX: usize = 64;
/// Addresses and routes that a link may have.
const PER_LINK_MAX: usize = 256;
/// Longest name of a computer (RFC 1035, 2.3.4).
const LABEL_LENGTH_MAX: usize = 63;

/// The section `[network]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The computer's name, told to DHCP servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Name servers, before those of DHCP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Only the interface of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Only the interface with this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// For every interface that has no settings of its own.
    #[serde(flatten)]
    pub all: LinkSettings,
    /// Settings of single interfaces, `[[network.nic]]`; several of one interface are in different VLANs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nic: Vec<NicSettings>,
    /// Several interfaces as one, `[network.bond]`; where there is more than one, `[[network.bond]]`. Several of the same members are
    /// one in different VLANs.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "one_or_many")]
    pub bond: Vec<Bond>,
}

/// Settings of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicSettings {
    /// Which one.
    pub mac: MacAddress,
    /// Its settings.
    #[serde(flatten)]
    pub link: LinkSettings,
}

/// Several interfaces as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    /// How its members share the work.
    pub policy: BondPolicy,
    /// MAC addresses of its members.
    pub members: Vec<MacAddress>,
    /// Settings of the bond.
    #[serde(flatten)]
    pub link: LinkSettings,
}

/// How the members of a bond share the work; names as the kernel's bonding documentation has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BondPolicy {
    /// One works, the others wait; needs nothing of the switch.
    #[default]
    #[serde(rename = "active-backup")]
    ActiveBackup,
    /// IEEE 802.3ad (LACP); the switch is set up for it.
    #[serde(rename = "802.3ad")]
    Lacp,
    /// All work, for a switch that takes their ports as one without LACP.
    #[serde(rename = "balance-xor")]
    BalanceXor,
}

/// How a link gets its addresses, and what else is set on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSettings {
    /// DHCP or static, for IPv4. IPv6 addresses are also taken from routers' announcements.
    #[serde(default)]
    pub mode: Mode,
    /// Static: `192.0.2.7/24`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Static: default gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// An IPv6 address in addition: `2001:db8::7/64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address6: Option<String>,
    /// Default gateway for IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    /// Identifier of the 802.1Q VLAN in which all this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Largest packet in bytes; the driver's own where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Speed and duplex, `100/full`; negotiated where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
    /// Static: further addresses of either kind, or all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Static: routes through gateways, default ones too, beside those of `gateway` and `gateway6`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSettings>,
}

/// A route through a gateway. One that is in none of the link's networks is on the link all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSettings {
    /// Where to: `198.51.100.0/24`; `0.0.0.0/0` is everywhere.
    pub to: String,
    /// The gateway.
    pub via: IpAddr,
    /// Of two routes to one place the one with the smaller metric is taken.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub metric: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl RouteSettings {
    /// Where to.
    ///
    /// # Errors
    /// A text that says no network, or one of another kind than the gateway.
    pub fn destination(&self) -> Result<IpNet> {
        let net = self.to.trim().split_once('/').and_then(|(address, prefix)| {
            let address: IpAddr = address.parse().ok()?;
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let prefix_length = prefix.parse().ok().filter(|bits| *bits <= longest)?;
            Some(IpNet { address, prefix_length })
        });
        net.filter(|net| net.address.is_ipv4() == self.via.is_ipv4()).ok_or_else(|| {
            Error::new(format!(
                "routes: expected a network of the kind of its gateway {} as 198.51.100.0/24, found {:?}",
                self.via, self.to
            ))
        })
    }
}

/// Where IPv4 addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A DHCP server.
    #[default]
    Dhcp,
    /// The settings.
    Static,
    /// Nowhere: the interface is left alone.
    Off,
}

/// Speed and duplex of a link that does not negotiate them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSpeed {
    /// Megabits a second.
    pub megabits: u16,
    /// Both directions at once.
    pub full_duplex: bool,
}

impl FromStr for LinkSpeed {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::new(format!("speed: expected one as 100/full or 10/half, found {text:?}"));
        let (speed, duplex) = text.trim().split_once('/').ok_or_else(wrong)?;
        let full_duplex = match duplex.trim() {
            "full" => true,
            "half" => false,
            _ => return Err(wrong()),
        };
        match speed.trim().parse() {
            Ok(megabits @ (10 | 100 | 1000)) => Ok(Self { megabits, full_duplex }),
            _ => Err(wrong()),
        }
    }
}

impl LinkSettings {
    /// The static addresses.
    ///
    /// # Errors
    /// The first setting that is of no use, by its name.
    pub fn static_addresses(&self) -> Result<Vec<IpNet>> {
        let mut addresses = Vec::new();
        if self.mode == Mode::Static {
            let text = self.address.as_deref().unwrap_or_default();
            // Whoever has IPv6 only needs no IPv4 address.
            if !(text.is_empty() && (self.address6.is_some() || !self.addresses.is_empty())) {
                addresses.push(parse_net("address", text, false)?);
            }
            for text in &self.addresses {
                addresses.push(parse_net("addresses", text, false)?);
            }
        }
        if let Some(text) = &self.address6 {
            addresses.push(parse_net("address6", text, true)?);
        }
        Ok(addresses)
    }

    /// The default gateways of the static addresses.
    pub fn gateways(&self) -> Vec<IpAddr> {
        let first = self.gateway.filter(|_| self.mode == Mode::Static);
        first.into_iter().chain(self.gateway6.map(IpAddr::V6)).collect()
    }

    /// Speed and duplex, if they are not negotiated.
    ///
    /// # Errors
    /// A text that says neither.
    pub fn speed(&self) -> Result<Option<LinkSpeed>> {
        self.speed.as_deref().map(str::parse).transpose()
    }

    /// Looks through all settings.
    ///
    /// # Errors
    /// The first one that is of no use, by its name.
    pub fn check(&self) -> Result<()> {
        for (what, count) in [("addresses", self.addresses.len()), ("routes", self.routes.len())] {
            if count > PER_LINK_MAX {
                return Err(Error::new(format!("{what}: expected at most {PER_LINK_MAX}, found {count}")));
            }
        }
        self.routes.iter().try_for_each(|route| route.destination().map(drop))?;
        let addresses = self.static_addresses()?;
        for gateway in self.gateways() {
            let reachable = addresses.iter().any(|net| contains(net, gateway));
            let link_local = matches!(gateway, IpAddr::V6(address) if address.is_unicast_link_local());
            if !reachable && !link_local && !addresses.is_empty() {
                return Err(Error::new(format!(
                    "gateway: {gateway} is not in the network of {}",
                    addresses.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ")
                )));
            }
        }
        if let Some(id) = self.vlan.filter(|id| !(1..=VLAN_MAX).contains(id)) {
            return Err(Error::new(format!("vlan: expected a number from 1 to {VLAN_MAX}, found {id}")));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| !MTU_RANGE.contains(mtu)) {
            let (least, most) = (MTU_RANGE.start(), MTU_RANGE.end());
            return Err(Error::new(format!("mtu: expected a number from {least} to {most}, found {mtu}")));
        }
        self.speed().map(drop)
    }
}

impl Network {
    /// The settings of an interface; `None` where it is to be left alone, or is a bond's member.
    pub fn settings_of(&self, name: &str, mac: MacAddress) -> Option<&LinkSettings> {
        self.links_of(name, mac).into_iter().next()
    }

    /// All settings of an interface, each in another VLAN.
    pub fn links_of(&self, name: &str, mac: MacAddress) -> Vec<&LinkSettings> {
        if self.bond.iter().any(|bond| bond.members.contains(&mac)) {
            return Vec::new();
        }
        let mut own: Vec<&LinkSettings> = self.nic.iter().filter(|nic| nic.mac == mac).map(|nic| &nic.link).collect();
        let wanted =
            self.interface.as_ref().is_none_or(|wanted| wanted == name) && self.mac.is_none_or(|wanted| wanted == mac);
        if own.is_empty() && wanted {
            own.push(&self.all);
        }
        own.retain(|link| link.mode != Mode::Off);
        own
    }

    /// The bonds, each with its settings in all of its VLANs.
    pub fn bonds(&self) -> Vec<(&Bond, Vec<&LinkSettings>)> {
        let mut bonds: Vec<(&Bond, Vec<&LinkSettings>)> = Vec::new();
        for bond in &self.bond {
            match bonds.iter_mut().find(|(other, _)| other.members == bond.members) {
                Some((_, links)) => links.push(&bond.link),
                None => bonds.push((bond, vec![&bond.link])),
            }
        }
        for (_, links) in &mut bonds {
            links.retain(|link| link.mode != Mode::Off);
        }
        bonds
    }

    /// The settings for another machine, whose interfaces have other addresses: where one was set here, every one is to be
    /// set so there. The name is this computer's own.
    pub fn for_next_machine(&self) -> Self {
        let mut next = Self { hostname: None, ..self.clone() };
        if let ([only], []) = (self.nic.as_slice(), self.bond.as_slice()) {
            next.all = only.link.clone();
            next.nic.clear();
            (next.interface, next.mac) = (None, None);
        }
        next
    }

    /// What to think of before another machine uses these.
    pub fn caution_for_next_machine(&self) -> Option<&'static str> {
        if !self.bond.is_empty() || !self.nic.is_empty() {
            return Some("what is set for a bond or a single interface is for these cards only");
        }
        (self.all.mode == Mode::Static || self.all.address6.is_some())
            .then_some("it takes the same address, so this machine must be off by then")
    }

    /// Looks through all settings.
    ///
    /// # Errors
    /// The first one that is of no use, by its name.
    pub fn check(&self) -> Result<()> {
        let named = |e: Error| Error::new(format!("network.{}", e.context));
        if let Some(name) = &self.hostname {
            check_hostname(name).map_err(named)?;
        }
        let members = self.bond.iter().map(|bond| bond.members.len()).max().unwrap_or(0);
        let counts =
            [("dns", self.dns.len()), ("nic", self.nic.len()), ("bond", self.bond.len()), ("bond.members", members)];
        for (what, count) in counts {
            if count > ENTRIES_MAX {
                return Err(Error::new(format!("network.{what}: expected at most {ENTRIES_MAX}, found {count}")));
            }
        }
        self.all.check().map_err(named)?;
        for nic in &self.nic {
            nic.link.check().map_err(|e| Error::new(format!("network.nic {}: {}", nic.mac, e.context)))?;
        }
        for bond in &self.bond {
            if bond.members.is_empty() {
                return Err(Error::new("network.bond.members: expected MAC addresses, found none"));
            }
            bond.link.check().map_err(|e| Error::new(format!("network.bond.{}", e.context)))?;
        }
        self.check_apart()
    }

    /// What has one place is said once: a VLAN of an interface or a bond, the members and the policy of a bond.
    fn check_apart(&self) -> Result<()> {
        for (at, nic) in self.nic.iter().enumerate() {
            if self.nic.iter().take(at).any(|other| other.mac == nic.mac && other.link.vlan == nic.link.vlan) {
                let what = format!("network.nic {}: expected each of its settings in another vlan", nic.mac);
                return Err(Error::new(what));
            }
        }
        for (at, bond) in self.bond.iter().enumerate() {
            let shares = |other: &&Bond| other.members.iter().any(|mac| bond.members.contains(mac));
            for other in self.bond.iter().take(at).filter(shares) {
                if other.members != bond.members || other.policy != bond.policy {
                    let what =
                        "network.bond: expected bonds that share members to be one, with the same members and policy";
                    return Err(Error::new(what));
                }
                if other.link.vlan == bond.link.vlan {
                    return Err(Error::new("network.bond: expected each of its settings in another vlan"));
                }
            }
        }
        Ok(())
    }
}

/// One value as a table, several as a list of tables.
mod one_or_many {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Bond;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        One(Bond),
        Many(Vec<Bond>),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bond>, D::Error> {
        Ok(match Given::deserialize(deserializer)? {
            Given::One(bond) => vec![bond],
            Given::Many(bonds) => bonds,
        })
    }

    pub(super) fn serialize<S: Serializer>(bonds: &[Bond], serializer: S) -> Result<S::Ok, S::Error> {
        match bonds {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

/// Checks a computer's name.
///
/// # Errors
/// What is wrong with it, for the screen.
pub fn check_hostname(name: &str) -> Result<()> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_LENGTH_MAX
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(());
    }
    Err(Error::new(format!("hostname: expected letters, digits and hyphens, found {name:?}")))
}

/// Reads `address/prefix`.
fn parse_net(what: &str, text: &str, only_v6: bool) -> Result<IpNet> {
    let parsed = text.trim().split_once('/').and_then(|(address, prefix)| {
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix_length = prefix.parse().ok().filter(|bits| (1..=longest).contains(bits))?;
        (!only_v6 || address.is_ipv6()).then_some(IpNet { address, prefix_length })
    });
    let example = if only_v6 { "2001:db8::7/64" } else { "192.0.2.7/24" };
    parsed.ok_or_else(|| {
        Error::new(format!(
            "{what}: expected an address with the length of its network's prefix as {example}, found {text:?}"
        ))
    })
}

/// Whether an address lies in a network.
pub(crate) fn contains(net: &IpNet, address: IpAddr) -> bool {
    let bits = u32::from(net.prefix_length);
    match (net.address, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            u32::from(net) & mask == u32::from(address) & mask
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            u128::from(net) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

/// The route to everywhere else.
pub(crate) fn everywhere(like: IpAddr) -> IpNet {
    let address = if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    IpNet { address, prefix_length: 0 }
}

/// The settings that are wanted, which an operator may change at any time.
#[derive(Debug, Default)]
pub struct Wanted {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    number: u64,
    network: Network,
    in_force: Option<u64>,
}

impl Wanted {
    /// Begins with these.
    pub fn new(network: Network) -> Self {
        Self { state: Mutex::new(State { network, ..State::default() }) }
    }

    /// Sets others; every interface is configured anew.
    pub fn set(&self, network: Network) {
        let mut state = self.lock();
        state.number += 1;
        state.network = network;
    }

    /// The settings and their number, which grows with each change.
    pub fn get(&self) -> (u64, Network) {
        let state = self.lock();
        (state.number, state.network.clone())
    }

    /// The number alone.
    pub fn number(&self) -> u64 {
        self.lock().number
    }

    /// From now on the settings of this number are what interfaces go by; nothing of earlier ones is left.
    pub fn take_effect(&self, number: u64) {
        self.lock().in_force = Some(number);
    }

    /// Whether the settings of this number have taken effect.
    pub fn is_in_force(&self, number: u64) -> bool {
        self.lock().in_force == Some(number)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn each_interface_has_its_own_settings_or_those_of_all() {
        let network = network(
            "dns = [\"192.0.2.53\"]\nhostname = \"web1\"\n[[nic]]\nmac = \"52:54:00:12:34:56\"\nmode = \"static\"\n\
             address = \"192.0.2.7/24\"\ngateway = \"192.0.2.1\"\nvlan = 12\nmtu = 9000\nspeed = \"100/full\"\n\
             [bond]\npolicy = \"802.3ad\"\nmembers = [\"52:54:00:12:34:01\", \"52:54:00:12:34:02\"]\n",
        );
        network.check().unwrap();
        let mac = |text: &str| text.parse().unwrap();
        let own = network.settings_of("eth0", mac("52:54:00:12:34:56")).unwrap();
        assert_eq!(
            (own.vlan, own.mtu, own.static_addresses().unwrap()[0].to_string()),
            (Some(12), Some(9000), "192.0.2.7/24".into())
        );
        assert_eq!(own.speed().unwrap(), Some(LinkSpeed { megabits: 100, full_duplex: true }));
        assert_eq!(network.settings_of("eth1", mac("52:54:00:12:34:57")).unwrap().mode, Mode::Dhcp);
        assert_eq!(network.settings_of("eth2", mac("52:54:00:12:34:02")), None, "a member of the bond");
        let own = NicSettings { mac: mac("52:54:00:12:34:02"), link: LinkSettings::default() };
        let both = Network { nic: vec![own], ..network.clone() };
        assert_eq!(both.settings_of("eth2", mac("52:54:00:12:34:02")), None, "a member, whatever else is said of it");
        let again: Network = toml::from_str(&toml::to_string(&network).unwrap()).unwrap();
        assert_eq!(again, network, "what is saved is what is read");
    }

    #[test]
    fn settings_of_no_use_are_named() {
        for (text, wanted) in [
            ("mode = \"static\"", "network.address: expected"),
            ("mode = \"static\"\naddress = \"192.0.2.7\"", "network.address: expected"),
            ("mode = \"static\"\naddress = \"192.0.2.7/33\"", "network.address: expected"),
            (
                "mode = \"static\"\naddress = \"192.0.2.7/24\"\ngateway = \"198.51.100.1\"",
                "network.gateway: 198.51.100.1 is not in",
            ),
            ("address6 = \"192.0.2.7/24\"", "network.address6: expected"),
            ("vlan = 4095", "network.vlan: expected"),
            ("mtu = 100", "network.mtu: expected"),
            ("speed = \"fast\"", "network.speed: expected"),
            ("hostname = \"-x\"", "network.hostname: expected"),
            ("[bond]\npolicy = \"active-backup\"\nmembers = []", "network.bond.members"),
            ("[[nic]]\nmac = \"52:54:00:12:34:56\"\nvlan = 0", "network.nic 52:54:00:12:34:56: vlan"),
        ] {
            let error = network(text).check().unwrap_err();
            assert!(error.context.starts_with(wanted), "{text}: {}", error.context);
        }
    }

    #[test]
    fn an_interface_may_be_in_several_vlans_and_a_bond_too() {
        let members = "members = [\"52:54:00:12:34:01\", \"52:54:00:12:34:02\"]\nmode = \"static\"\n";
        let network = network(&format!(
            "mode = \"off\"\n\
             [[nic]]\nmac = \"52:54:00:12:34:56\"\nmode = \"static\"\naddresses = [\"192.0.2.7/24\", \"2001:db8::7/64\"]\n\
             [[nic.routes]]\nto = \"0.0.0.0/0\"\nvia = \"192.0.2.1\"\nmetric = 100\n\
             [[nic]]\nmac = \"52:54:00:12:34:56\"\nvlan = 12\nmode = \"static\"\naddresses = [\"198.51.100.7/24\"]\n\
             [[bond]]\npolicy = \"balance-xor\"\n{members}address = \"203.0.113.7/24\"\n\
             [[bond]]\npolicy = \"balance-xor\"\n{members}addresses = [\"203.0.113.130/25\"]\nvlan = 7\n\
             [[bond]]\npolicy = \"active-backup\"\nmembers = [\"52:54:00:12:34:03\"]\n",
        ));
        network.check().unwrap();
        let mac = |text: &str| text.parse().unwrap();
        let links = network.links_of("eth0", mac("52:54:00:12:34:56"));
        assert_eq!(links.iter().map(|link| link.vlan).collect::<Vec<_>>(), [None, Some(12)]);
        assert_eq!(links[0].static_addresses().unwrap().len(), 2);
        assert_eq!(links[0].routes[0].destination().unwrap().prefix_length, 0);
        assert_eq!(network.settings_of("eth1", mac("52:54:00:12:34:57")), None, "the others are left alone");
        let bonds: Vec<_> = network.bonds().iter().map(|(bond, links)| (bond.members.len(), links.len())).collect();
        assert_eq!(bonds, [(2, 2), (1, 1)]);
        let again: Network = toml::from_str(&toml::to_string(&network).unwrap()).unwrap();
        assert_eq!(again, network, "what is saved is what is read");
    }

    #[test]
    fn what_has_one_place_is_said_once() {
        let bond = |policy: &str, members: &str, vlan: u16| {
            format!("[[bond]]\npolicy = \"{policy}\"\nmembers = [{members}]\nvlan = {vlan}\n")
        };
        let (one, two) = ("\"52:54:00:12:34:01\"", "\"52:54:00:12:34:02\"");
        let nic = "[[nic]]\nmac = \"52:54:00:12:34:56\"\nvlan = 1\n";
        let route = |to: &str| format!("[[routes]]\nto = \"{to}\"\nvia = \"192.0.2.1\"\n");
        for (text, wanted) in [
            (nic.repeat(2), "network.nic 52:54:00:12:34:56: expected each"),
            (bond("802.3ad", one, 1) + &bond("802.3ad", one, 1), "network.bond: expected each"),
            (bond("802.3ad", one, 1) + &bond("active-backup", one, 2), "network.bond: expected bonds"),
            (bond("802.3ad", one, 1) + &bond("802.3ad", &format!("{one}, {two}"), 2), "network.bond: expected bonds"),
            (route("198.51.100.0"), "network.routes: expected a network"),
            (route("198.51.100.0/33"), "network.routes: expected a network"),
            (route("::/0"), "network.routes: expected a network of the kind of its gateway"),
            (route("198.51.100.0/24").repeat(257), "network.routes: expected at most 256"),
            ("mode = \"static\"\naddresses = [\"192.0.2.7\"]".into(), "network.addresses: expected"),
        ] {
            let error = network(&text).check().unwrap_err();
            assert!(error.context.starts_with(wanted), "{text}: {}", error.context);
        }
        network(&(bond("802.3ad", one, 1) + &bond("802.3ad", one, 2) + &bond("802.3ad", two, 1))).check().unwrap();
    }

    #[test]
    fn the_next_machine_has_other_interfaces() {
        let nic = "[[nic]]\nmac = \"52:54:00:12:34:56\"\nmode = \"static\"\naddress = \"192.0.2.7/24\"\nvlan = 12\n";
        let one = network(&format!("hostname = \"web1\"\ndns = [\"192.0.2.53\"]\n{nic}"));
        let next = one.for_next_machine();
        let settings = next.settings_of("eth0", "52:54:00:99:99:99".parse().unwrap()).unwrap();
        assert_eq!((settings, &next.hostname, &next.dns), (&one.nic[0].link, &None, &one.dns));
        assert!(next.caution_for_next_machine().unwrap().contains("the same address"));
        assert_eq!(network("vlan = 12").for_next_machine().caution_for_next_machine(), None);
        let two = network(&format!("{nic}{}", nic.replace("34:56", "34:57")));
        assert_eq!(two.for_next_machine(), two, "nobody knows which of them is which there");
        assert!(two.caution_for_next_machine().unwrap().contains("these cards only"));
    }

    #[test]
    fn an_ipv6_machine_needs_no_ipv4_address() {
        let network = network("mode = \"static\"\naddress6 = \"2001:db8::7/64\"\ngateway6 = \"fe80::1\"");
        network.check().unwrap();
        assert_eq!(network.all.static_addresses().unwrap().len(), 1);
        assert_eq!(network.all.gateways(), ["fe80::1".parse::<IpAddr>().unwrap()]);
    }
}
