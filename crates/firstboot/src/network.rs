//! What gives an adapter the settings of another one: netsh's commands, and values of the registry for what netsh cannot set.
//!
//! netsh is on every release, and its context `interface ipv4` and `interface ipv6` have had these forms since Windows
//! Vista (Microsoft Learn, "Netsh commands for Interface (IPv4 and IPv6)"). A sequence can be done twice: the first `set`
//! replaces what is there, and what is added is deleted before.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use machine::IpNet;
use machine::firstboot::{AdapterSettings, IpSettings, NetbiosMode, Route};

use crate::adapters::{MatchedBy, Pairing, Rename};
use crate::command::CommandLine;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A program is run.
    Run {
        /// With its arguments.
        command: CommandLine,
        /// Whether it may fail: it takes away what need not be there.
        may_fail: bool,
    },
    /// A value of the registry is written; it is in force at the next start.
    Set(RegistryValue),
}

/// A value below `HKEY_LOCAL_MACHINE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryValue {
    /// Its key.
    pub key: String,
    /// Its name.
    pub name: &'static str,
    /// What is in it.
    pub data: RegistryData,
}

/// What is in a value of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryData {
    /// REG_SZ.
    Text(String),
    /// REG_DWORD.
    Number(u32),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run { command, .. } => command.fmt(f),
            Self::Set(RegistryValue { key, name, data: RegistryData::Text(text) }) => {
                write!(f, "HKLM\\{key}: {name} = {text:?}")
            }
            Self::Set(RegistryValue { key, name, data: RegistryData::Number(number) }) => {
                write!(f, "HKLM\\{key}: {name} = {number}")
            }
        }
    }
}

/// Family of addresses, by the name of netsh's context.
#[derive(Clone, Copy)]
enum Context {
    Ipv4,
    Ipv6,
}

impl Context {
    fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// The command that gives a connection its name.
pub fn rename_command(rename: &Rename) -> CommandLine {
    let words = ["interface", "set", "interface"].map(str::to_owned);
    CommandLine::new(
        "netsh.exe",
        words.into_iter().chain([format!("name={}", rename.from), format!("newname={}", rename.to)]),
    )
}

/// What gives the new adapter of `pairing`, whose connection is called `name` by now, the settings of the old one.
pub fn plan_settings(pairing: &Pairing<'_>, name: &str) -> Vec<Change> {
    let Some(new) = pairing.new.filter(|_| pairing.by != MatchedBy::Interface) else { return Vec::new() };
    let mut changes = Vec::new();
    plan_ipv4(pairing.old, new.dhcp, name, &mut changes);
    plan_ipv6(&pairing.old.ipv6, name, &mut changes);
    plan_names(pairing.old, &new.interface, name, &mut changes);
    for settings in [&pairing.old.ipv4, &pairing.old.ipv6] {
        for route in &settings.routes {
            changes.extend(route_changes(route, name));
        }
    }
    changes
}

/// What sets `routes` that name no adapter: each at the one whose static network holds its next hop. Those that fit none
/// come back.
pub fn plan_routes(routes: &[Route], pairings: &[Pairing<'_>]) -> (Vec<Change>, Vec<Route>) {
    let (mut changes, mut left) = (Vec::new(), Vec::new());
    for route in routes {
        let holds = |pairing: &&Pairing<'_>| {
            let settings = if route.next_hop.is_ipv4() { &pairing.old.ipv4 } else { &pairing.old.ipv6 };
            pairing.new.is_some() && settings.addresses.iter().any(|network| contains(*network, route.next_hop))
        };
        match pairings.iter().find(holds) {
            Some(pairing) if pairing.by == MatchedBy::Interface => {}
            Some(pairing) => changes.extend(route_changes(route, &pairing.old.name)),
            None => left.push(*route),
        }
    }
    (changes, left)
}

fn plan_ipv4(old: &AdapterSettings, has_dhcp: bool, name: &str, changes: &mut Vec<Change>) {
    let settings = &old.ipv4;
    let of = |words: &str| netsh(Context::Ipv4, words, "name", name);
    let mut addresses = settings.addresses.iter().filter(|net| net.address.is_ipv4());
    let mut gateways = settings.gateways.iter().filter(|gateway| gateway.address.is_ipv4());
    let gateway_words = |gateway: &machine::firstboot::Gateway| {
        let metric = gateway.metric.filter(|metric| *metric != 0).map(|metric| format!("gwmetric={metric}"));
        [Some(format!("gateway={}", gateway.address)), metric].into_iter().flatten()
    };
    if settings.automatic {
        // On an adapter that has it, netsh refuses to switch DHCP on.
        if !has_dhcp {
            changes.push(run(of("set address"), ["source=dhcp".to_owned()]));
        }
    } else if let Some(first) = addresses.next() {
        let words =
            ["source=static".to_owned(), format!("address={}", first.address), format!("mask={}", mask(*first))];
        let gateway = gateways.next().into_iter().flat_map(gateway_words);
        changes.push(run(of("set address"), words.into_iter().chain(gateway)));
        for more in addresses {
            let words = [format!("address={}", more.address), format!("mask={}", mask(*more))];
            changes.push(run(of("add address"), words));
        }
        for more in gateways {
            changes.push(run(of("add address"), gateway_words(more)));
        }
    }
    plan_dns(Context::Ipv4, settings, old.dns_registration, name, changes);
    for (server, place) in old.wins.iter().zip(1_u32..) {
        if place == 1 {
            changes.push(run(of("set winsservers"), ["source=static".to_owned(), format!("address={server}")]));
        } else {
            changes.push(run(of("add winsservers"), [format!("address={server}"), format!("index={place}")]));
        }
    }
    if let Some(metric) = settings.metric {
        changes.push(run(netsh(Context::Ipv4, "set interface", "interface", name), [format!("metric={metric}")]));
    }
    if let Some(mtu) = old.mtu {
        let words = [format!("mtu={mtu}"), "store=persistent".to_owned()];
        changes.push(run(netsh(Context::Ipv4, "set subinterface", "interface", name), words));
    }
}

fn plan_ipv6(settings: &IpSettings, name: &str, changes: &mut Vec<Change>) {
    let of = |words: &str| netsh(Context::Ipv6, words, "interface", name);
    let addresses: Vec<&IpNet> = settings.addresses.iter().filter(|net| net.address.is_ipv6()).collect();
    // A machine that has static addresses alone does not listen to routers.
    if !settings.automatic && !addresses.is_empty() {
        changes
            .push(run(of("set interface"), ["routerdiscovery=disabled", "managedaddress=disabled"].map(str::to_owned)));
    }
    for net in addresses {
        changes.push(remove(of("delete address"), [format!("address={}", net.address)]));
        changes.push(run(of("add address"), [format!("address={net}"), "store=persistent".to_owned()]));
    }
    for gateway in settings.gateways.iter().filter(|gateway| gateway.address.is_ipv6()) {
        let everywhere = IpNet { address: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), prefix_length: 0 };
        let route = Route { destination: everywhere, next_hop: gateway.address, metric: gateway.metric };
        changes.extend(route_changes(&route, name));
    }
    plan_dns(Context::Ipv6, settings, None, name, changes);
    if let Some(metric) = settings.metric {
        changes.push(run(of("set interface"), [format!("metric={metric}")]));
    }
}

fn plan_dns(context: Context, settings: &IpSettings, register: Option<bool>, name: &str, changes: &mut Vec<Change>) {
    let of = |words: &str| netsh(context, words, "name", name);
    let is_of_family = |server: &&IpAddr| server.is_ipv4() == matches!(context, Context::Ipv4);
    let register = register.map(|on| if on { "register=primary" } else { "register=none" }.to_owned());
    let mut servers = settings.dns.iter().filter(is_of_family).zip(1_u32..);
    // A server that does not answer yet is no reason to leave it out: the network may not be connected.
    let unasked = "validate=no".to_owned();
    match servers.next() {
        Some((first, _)) => {
            let words = ["source=static".to_owned(), format!("address={first}")];
            changes.push(run(of("set dnsservers"), words.into_iter().chain(register).chain([unasked.clone()])));
        }
        None if register.as_deref() == Some("register=none") => {
            let source = if settings.automatic { "source=dhcp" } else { "source=static" };
            let none = (!settings.automatic).then(|| "address=none".to_owned());
            changes.push(run(of("set dnsservers"), [source.to_owned()].into_iter().chain(none).chain(register)));
        }
        None => {}
    }
    for (server, place) in servers {
        changes
            .push(run(of("add dnsservers"), [format!("address={server}"), format!("index={place}"), unasked.clone()]));
    }
}

/// What netsh has no word for.
fn plan_names(old: &AdapterSettings, interface: &str, _name: &str, changes: &mut Vec<Change>) {
    if let Some(suffix) = old.dns_suffix.as_ref().filter(|suffix| !suffix.is_empty()) {
        let key = format!(r"SYSTEM\CurrentControlSet\Services\Tcpip\Parameters\Interfaces\{{{interface}}}");
        changes.push(Change::Set(RegistryValue { key, name: "Domain", data: RegistryData::Text(suffix.clone()) }));
    }
    let netbios = match old.netbios {
        NetbiosMode::FromDhcp => return,
        NetbiosMode::On => 1,
        NetbiosMode::Off => 2,
    };
    let key = format!(r"SYSTEM\CurrentControlSet\Services\NetBT\Parameters\Interfaces\Tcpip_{{{interface}}}");
    changes.push(Change::Set(RegistryValue { key, name: "NetbiosOptions", data: RegistryData::Number(netbios) }));
}

/// Taken away where it is there, and added: `add` alone fails on what is there, `set` on what is not.
fn route_changes(route: &Route, name: &str) -> [Change; 2] {
    let context = Context::of(route.destination.address);
    let prefix = format!("prefix={}", route.destination);
    let hop = (!route.next_hop.is_unspecified()).then(|| format!("nexthop={}", route.next_hop));
    let metric = route.metric.filter(|metric| *metric != 0).map(|metric| format!("metric={metric}"));
    let of = |words: &str| {
        let mut command = netsh(context, words, "interface", name);
        command.arguments.insert(4, prefix.clone());
        command
    };
    [
        remove(of("delete route"), hop.clone()),
        run(of("add route"), hop.into_iter().chain(metric).chain(["store=persistent".to_owned()])),
    ]
}

/// `netsh interface ipv4 set address name=…`: verb and object are `words`, the connection is given as `tag`.
fn netsh(context: Context, words: &str, tag: &str, name: &str) -> CommandLine {
    let words = words.split(' ').map(str::to_owned);
    let start = ["interface".to_owned(), context.name().to_owned()];
    CommandLine::new("netsh.exe", start.into_iter().chain(words).chain([format!("{tag}={name}")]))
}

fn run(mut command: CommandLine, words: impl IntoIterator<Item = String>) -> Change {
    command.arguments.extend(words);
    Change::Run { command, may_fail: false }
}

fn remove(mut command: CommandLine, words: impl IntoIterator<Item = String>) -> Change {
    command.arguments.extend(words);
    Change::Run { command, may_fail: true }
}

/// The mask of an IPv4 network: `255.255.255.0` of `/24`.
fn mask(net: IpNet) -> Ipv4Addr {
    let bits = u32::from(net.prefix_length.min(32));
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - bits).unwrap_or(0))
}

fn contains(net: IpNet, address: IpAddr) -> bool {
    let same = |a: u128, b: u128, bits: u8, width: u8| {
        let bits = bits.min(width);
        bits == 0 || (a ^ b) >> (width - bits) == 0
    };
    match (net.address, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), net.prefix_length, 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), net.prefix_length, 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::Adapter;
    use machine::firstboot::Gateway;

    fn net(text: &str) -> IpNet {
        let (address, length) = text.split_once('/').unwrap();
        IpNet { address: address.parse().unwrap(), prefix_length: length.parse().unwrap() }
    }

    fn shown(old: &AdapterSettings, new: &Adapter) -> Vec<String> {
        let pairing = Pairing { old, new: Some(new), by: MatchedBy::Mac };
        plan_settings(&pairing, &old.name).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_setting_has_its_command() {
        let old = AdapterSettings {
            name: "Local Area Connection 2".into(),
            ipv4: IpSettings {
                addresses: vec![net("192.0.2.7/24"), net("192.0.2.8/24"), net("198.51.100.7/25")],
                gateways: vec![
                    Gateway { address: [192, 0, 2, 1].into(), metric: None },
                    Gateway { address: [192, 0, 2, 2].into(), metric: Some(20) },
                ],
                dns: vec![[192, 0, 2, 53].into(), [192, 0, 2, 54].into()],
                routes: vec![Route {
                    destination: net("10.0.0.0/8"),
                    next_hop: [192, 0, 2, 9].into(),
                    metric: Some(5),
                }],
                metric: Some(15),
                ..Default::default()
            },
            ipv6: IpSettings {
                automatic: true,
                addresses: vec![net("2001:db8::7/64")],
                gateways: vec![Gateway { address: "fe80::1".parse().unwrap(), metric: Some(256) }],
                dns: vec!["2001:db8::53".parse().unwrap()],
                ..Default::default()
            },
            dns_suffix: Some("corp.example".into()),
            dns_registration: Some(false),
            wins: vec![[192, 0, 2, 60].into(), [192, 0, 2, 61].into()],
            netbios: NetbiosMode::Off,
            mtu: Some(1400),
            ..Default::default()
        };
        let new =
            Adapter { interface: "00000000-0000-0000-0000-00000000000a".into(), dhcp: true, ..Default::default() };
        let expected = r#"
netsh.exe interface ipv4 set address name="Local Area Connection 2" source=static address=192.0.2.7 mask=255.255.255.0 gateway=192.0.2.1
netsh.exe interface ipv4 add address name="Local Area Connection 2" address=192.0.2.8 mask=255.255.255.0
netsh.exe interface ipv4 add address name="Local Area Connection 2" address=198.51.100.7 mask=255.255.255.128
netsh.exe interface ipv4 add address name="Local Area Connection 2" gateway=192.0.2.2 gwmetric=20
netsh.exe interface ipv4 set dnsservers name="Local Area Connection 2" source=static address=192.0.2.53 register=none validate=no
netsh.exe interface ipv4 add dnsservers name="Local Area Connection 2" address=192.0.2.54 index=2 validate=no
netsh.exe interface ipv4 set winsservers name="Local Area Connection 2" source=static address=192.0.2.60
netsh.exe interface ipv4 add winsservers name="Local Area Connection 2" address=192.0.2.61 index=2
netsh.exe interface ipv4 set interface interface="Local Area Connection 2" metric=15
netsh.exe interface ipv4 set subinterface interface="Local Area Connection 2" mtu=1400 store=persistent
netsh.exe interface ipv6 delete address interface="Local Area Connection 2" address=2001:db8::7
netsh.exe interface ipv6 add address interface="Local Area Connection 2" address=2001:db8::7/64 store=persistent
netsh.exe interface ipv6 delete route prefix=::/0 interface="Local Area Connection 2" nexthop=fe80::1
netsh.exe interface ipv6 add route prefix=::/0 interface="Local Area Connection 2" nexthop=fe80::1 metric=256 store=persistent
netsh.exe interface ipv6 set dnsservers name="Local Area Connection 2" source=static address=2001:db8::53 validate=no
HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters\Interfaces\{00000000-0000-0000-0000-00000000000a}: Domain = "corp.example"
HKLM\SYSTEM\CurrentControlSet\Services\NetBT\Parameters\Interfaces\Tcpip_{00000000-0000-0000-0000-00000000000a}: NetbiosOptions = 2
netsh.exe interface ipv4 delete route prefix=10.0.0.0/8 interface="Local Area Connection 2" nexthop=192.0.2.9
netsh.exe interface ipv4 add route prefix=10.0.0.0/8 interface="Local Area Connection 2" nexthop=192.0.2.9 metric=5 store=persistent"#;
        assert_eq!(shown(&old, &new).join("\n"), expected.trim_start());
    }

    #[test]
    fn an_adapter_that_asks_dhcp_is_left_alone() {
        let automatic = IpSettings { automatic: true, ..Default::default() };
        let old = AdapterSettings { ipv4: automatic.clone(), ipv6: automatic, ..Default::default() };
        assert_eq!(shown(&old, &Adapter { dhcp: true, ..Default::default() }), [""; 0]);
        let switched_on = shown(&AdapterSettings { name: "LAN".into(), ..old }, &Adapter::default());
        assert_eq!(switched_on, ["netsh.exe interface ipv4 set address name=LAN source=dhcp"]);
    }

    #[test]
    fn nothing_known_changes_nothing() {
        assert_eq!(shown(&AdapterSettings::default(), &Adapter::default()), [""; 0]);
    }

    #[test]
    fn dns_that_was_set_beside_dhcp_stays_beside_it() {
        let ipv4 = IpSettings { automatic: true, dns: vec![[192, 0, 2, 53].into()], ..Default::default() };
        let old = AdapterSettings { name: "LAN".into(), ipv4, ..Default::default() };
        let expected =
            ["netsh.exe interface ipv4 set dnsservers name=LAN source=static address=192.0.2.53 validate=no"];
        assert_eq!(shown(&old, &Adapter { dhcp: true, ..Default::default() }), expected);
    }

    #[test]
    fn static_ipv6_without_routers_stays_without_them() {
        let ipv6 = IpSettings { addresses: vec![net("2001:db8::7/64")], ..Default::default() };
        let old = AdapterSettings { name: "LAN".into(), ipv6, ..Default::default() };
        let first = shown(&old, &Adapter::default()).remove(0);
        assert_eq!(
            first,
            "netsh.exe interface ipv6 set interface interface=LAN routerdiscovery=disabled managedaddress=disabled"
        );
    }

    #[test]
    fn a_route_goes_where_its_next_hop_is() {
        let settings = |name: &str, address: &str| AdapterSettings {
            name: name.into(),
            ipv4: IpSettings { addresses: vec![net(address)], ..Default::default() },
            ..Default::default()
        };
        let (lan, san, new) = (settings("LAN", "192.0.2.7/25"), settings("SAN", "192.0.2.200/25"), Adapter::default());
        let pairings = [&lan, &san].map(|old| Pairing { old, new: Some(&new), by: MatchedBy::Mac });
        let route = |hop: [u8; 4]| Route { destination: net("10.0.0.0/8"), next_hop: hop.into(), metric: None };
        let (changes, left) = plan_routes(&[route([192, 0, 2, 129]), route([203, 0, 113, 1])], &pairings);
        assert!(changes[1].to_string().contains("interface=SAN nexthop=192.0.2.129"), "{}", changes[1]);
        assert_eq!((changes.len(), left), (2, vec![route([203, 0, 113, 1])]));
    }

    #[test]
    fn masks_follow_prefixes() {
        let masks: Vec<String> =
            [0, 1, 24, 32].iter().map(|bits| mask(net(&format!("192.0.2.1/{bits}"))).to_string()).collect();
        assert_eq!(masks, ["0.0.0.0", "128.0.0.0", "255.255.255.0", "255.255.255.255"]);
    }
}
