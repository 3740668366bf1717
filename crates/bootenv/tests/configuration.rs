//! The configuration that the builder writes is the one that the boot image reads: our program checks it for the builder.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use bootenv::configuration::{CHECK, parse_configuration};
use bootimage::{Configuration, Network};

/// The text of the file, and what the program says of it.
fn check(network: &str) -> (String, Result<(), String>) {
    let network = Network::from_argument(network).unwrap();
    let controller = Some("192.0.2.10:7770".into());
    let rescue_key = Some("ssh-ed25519 AAAA admin".into());
    let configuration =
        Configuration { controller, keymap: Some("de-latin1".into()), rescue_key, network, ..Configuration::default() };
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
    let bond = read.network.bond.unwrap();
    assert_eq!((bond.members.len(), bond.link.vlan, bond.link.addresses().unwrap().len()), (1, Some(12), 1));
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
