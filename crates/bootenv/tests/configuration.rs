//! The configuration that the builder writes is the one that the boot image reads: our program checks it for the builder.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use bootenv::configuration::{CHECK, parse_configuration};
use bootimage::{Configuration, Network, PushSettings};
use machine::push::{NetworkIdentity, NetworkLink, Route};
use machine::{IpNet, MacAddress};
use proptest::prelude::*;

/// The text of the file, and what the program says of it.
fn check(network: &str) -> (String, Result<(), String>) {
    check_network(Network::from_argument(network).unwrap())
}

fn check_network(network: Network) -> (String, Result<(), String>) {
    let controller = Some("192.0.2.10:7770".into());
    let rescue_key = Some("ssh-ed25519 AAAA admin".into());
    let push = Some(PushSettings { task: "task-7".into(), contact_seconds: 900, watchdog_seconds: Some(300) });
    let keymap = Some("de-latin1".into());
    let configuration = Configuration { controller, keymap, rescue_key, push, network, ..Configuration::default() };
    let text = configuration.to_toml().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vconverter.toml");
    std::fs::write(&file, &text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vconverter-bootenv")).arg(CHECK).arg(&file).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap().trim().to_owned();
    (text, if output.status.success() { Ok(()) } else { Err(said) })
}

#[test]
fn every_setting_of_the_short_form_is_read() {
    for network in [
        "dhcp",
        "dhcp,dns=192.0.2.53+2001:db8::53,hostname=web1,interface=eth1",
        "address=192.0.2.7/24,gateway=192.0.2.1,address6=2001:db8::7/64,gateway6=fe80::1,mac=52:54:00:12:34:56",
        "vlan=12,mtu=9000,speed=100/full",
        "bond=802.3ad:52:54:00:12:34:56+52:54:00:12:34:57,address=192.0.2.7/24,vlan=12",
    ] {
        let (text, checked) = check(network);
        assert_eq!(checked, Ok(()), "{text}");
        let read = parse_configuration(&text).unwrap();
        assert_eq!((read.keymap.as_deref(), read.rescue_key.is_some()), (Some("de-latin1"), true));
    }
    let read =
        parse_configuration(&check("bond=active-backup:52:54:00:12:34:56,address=192.0.2.7/24,vlan=12").0).unwrap();
    let bond = &read.network.bond[0];
    assert_eq!((bond.members.len(), bond.link.vlan, bond.link.static_addresses().unwrap().len()), (1, Some(12), 1));
}

#[test]
fn what_the_boot_image_would_not_take_the_builder_does_not_either() {
    for (network, named) in [
        ("address=192.0.2.7", "network.address: expected"),
        ("address=192.0.2.7/24,gateway=198.51.100.1", "network.gateway: 198.51.100.1 is not in"),
        ("vlan=4095", "network.vlan: expected"),
        ("mtu=100", "network.mtu: expected"),
        ("dns=nowhere", "configuration: "),
        ("bond=roundrobin:52:54:00:12:34:56", "configuration: "),
        ("bond=802.3ad:52:54:00:12:34:56,vlan=0", "network.bond.vlan: expected"),
    ] {
        let (text, checked) = check(network);
        let said = checked.unwrap_err();
        assert!(said.starts_with(named) && said.lines().count() == 1, "{text}\n{said}");
    }
}

#[test]
fn a_machines_own_network_is_read_as_it_was_told() {
    let net = |text: &str| {
        let (address, length) = text.split_once('/').unwrap();
        IpNet { address: address.parse().unwrap(), prefix_length: length.parse().unwrap() }
    };
    let link = |mac: &str, vlan, addresses: &[&str]| NetworkLink {
        macs: vec![mac.parse().unwrap()],
        bond: None,
        vlan,
        mtu: Some(1500),
        addresses: addresses.iter().map(|text| net(text)).collect(),
        routes: vec![Route { destination: net("0.0.0.0/0"), gateway: "192.0.2.1".parse().unwrap(), metric: 100 }],
    };
    let mut bond = link("52:54:00:12:34:01", Some(7), &["203.0.113.7/24"]);
    bond.macs.push("52:54:00:12:34:02".parse().unwrap());
    bond.bond = Some("balance-alb".into());
    let links = vec![
        link("52:54:00:12:34:56", None, &["192.0.2.7/24", "192.0.2.8/32", "2001:db8::7/64"]),
        link("52:54:00:12:34:56", Some(12), &["198.51.100.7/31"]),
        bond,
    ];
    let identity = NetworkIdentity { hostname: "web1".into(), dns: vec!["2001:db8::53".parse().unwrap()], links };
    let (text, checked) = check_network(Network::from_identity(&identity));
    assert_eq!(checked, Ok(()), "{text}");
    let configuration = parse_configuration(&text).unwrap();
    assert_eq!(configuration.push.unwrap().contact_seconds, 900);
    let network = configuration.network;
    assert_eq!((network.hostname.as_deref(), network.dns.len()), (Some("web1"), 1));
    let mac: MacAddress = "52:54:00:12:34:56".parse().unwrap();
    let links = network.links_of("eth0", mac);
    assert_eq!(links.iter().map(|link| (link.vlan, link.routes.len())).collect::<Vec<_>>(), [(None, 1), (Some(12), 1)]);
    assert_eq!(links[0].static_addresses().unwrap(), identity.links[0].addresses);
    assert!(network.links_of("eth1", "52:54:00:99:99:99".parse().unwrap()).is_empty());
    assert_eq!(network.bonds()[0].1[0].vlan, Some(7));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever an agent tells of its machine's network, the boot image takes what is made of it.
    #[test]
    fn no_network_of_a_machine_is_refused(
        hostname in ".{0,70}",
        links in prop::collection::vec(
            (
                prop::collection::vec(0_u8..6, 0..3),
                prop::option::of(prop::sample::select(vec!["active-backup", "802.3ad", "balance-rr", "team"])),
                prop::option::of(0_u16..20),
                prop::option::of(any::<u32>()),
                prop::collection::vec((any::<std::net::IpAddr>(), 0_u8..140), 0..4),
                prop::collection::vec((any::<std::net::IpAddr>(), any::<u8>(), any::<std::net::IpAddr>(), any::<u32>()), 0..4),
            ),
            0..6,
        ),
    ) {
        let links = links.into_iter().map(|(macs, bond, vlan, mtu, addresses, routes)| NetworkLink {
            macs: macs.into_iter().map(|last| MacAddress([0x52, 0x54, 0, 0, 0, last])).collect(),
            bond: bond.map(str::to_owned),
            vlan,
            mtu,
            addresses: addresses.into_iter().map(|(address, prefix_length)| IpNet { address, prefix_length }).collect(),
            routes: routes
                .into_iter()
                .map(|(address, prefix_length, gateway, metric)| Route { destination: IpNet { address, prefix_length }, gateway, metric })
                .collect(),
        });
        let network = Network::from_identity(&NetworkIdentity { hostname, dns: Vec::new(), links: links.collect() });
        let text = Configuration { network, ..Configuration::default() }.to_toml().unwrap();
        let read = parse_configuration(&text);
        prop_assert!(read.is_ok(), "{}\n{}", text, read.unwrap_err());
    }
}
