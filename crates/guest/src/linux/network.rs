//! Interface names: the VM keeps the source's MAC addresses, so each interface keeps the name that the guest's
//! configuration uses, and with it its addresses, whatever slot it sits in.
//!
//! A name is bound to its MAC address by a systemd.link(5) file, which holds with and without `net.ifnames=0`; systems
//! older than that (Debian 8, Ubuntu 14.04) get a udev rule. Which name belongs to which address is taken, in this
//! order, from the guest's own rules and link files, its configuration, the inventory, and the order of the hardware.

mod configuration;

use std::collections::BTreeMap;

use machine::{MacAddress, Machine};

use crate::identify;
use crate::plan::{Change, Fixup};
use crate::{FileTree, Result};
use configuration::Configured;

/// Rules that udev wrote for the source's network cards.
const PERSISTENT_RULES: &str = "/etc/udev/rules.d/70-persistent-net.rules";

/// Written for systems that read no link files.
const OWN_RULES: &str = "/etc/udev/rules.d/69-network-names.rules";

/// Plans the fix-up `network-names`.
pub(super) fn plan(tree: &dyn FileTree, machine: &Machine, warnings: &mut Vec<String>) -> Result<Vec<Fixup>> {
    let configured = configuration::read(tree)?;
    let macs: Vec<MacAddress> = machine.nics.iter().map(|nic| nic.mac).collect();
    let (names, guessed) = assign(&configured, machine);
    if guessed {
        let list: Vec<String> = names.iter().map(|(mac, name)| format!("{name} is {mac}")).collect();
        warnings.push(format!(
            "which network card had which name is not written anywhere; by the order of the hardware {}",
            list.join(", ")
        ));
    }
    for name in configured.keys() {
        if !names.values().any(|assigned| assigned == name) && !macs.is_empty() {
            warnings.push(format!(
                "network interface {name} is configured, and no network card of the source is known for it"
            ));
        }
    }
    let mut changes = Vec::new();
    let links = reads_link_files(tree);
    if links {
        for (mac, name) in &names {
            if configured.get(name).is_some_and(|c| c.linked && c.mac == Some(*mac)) {
                continue;
            }
            let text = format!(
                "# Keeps the name of this interface on other hardware.\n[Match]\nMACAddress={mac}\nType=ether\n\n[Link]\nName={name}\n"
            );
            changes.extend(Change::write(
                tree,
                &format!("/etc/systemd/network/10-{name}.link"),
                text.as_bytes(),
                0o644,
            )?);
        }
    } else if !names.is_empty() {
        let mut text = "# Keep the names of interfaces on other hardware.\n".to_owned();
        for (mac, name) in &names {
            text.push_str(&format!(
                "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{{address}}==\"{mac}\", ATTR{{type}}==\"1\", NAME=\"{name}\"\n"
            ));
        }
        changes.extend(Change::write(tree, OWN_RULES, text.as_bytes(), 0o644)?);
    }
    // Where the cards are not known, the rules are the only thing that still names them.
    if tree.exists(PERSISTENT_RULES)? && !macs.is_empty() {
        changes.push(Change::Remove { path: PERSISTENT_RULES.to_owned() });
    }
    let reason = "a network card in another slot gets another name, and its configured addresses would be lost";
    Ok(vec![Fixup::new("network-names", "interface names bound to MAC addresses", reason, changes)])
}

/// Interface name of each network card; whether some were told apart only by the order of the hardware.
fn assign(configured: &BTreeMap<String, Configured>, machine: &Machine) -> (BTreeMap<MacAddress, String>, bool) {
    let mut names: BTreeMap<MacAddress, String> = BTreeMap::new();
    let mut open: Vec<&str> = Vec::new();
    let known = |mac: &MacAddress| machine.nics.iter().any(|nic| nic.mac == *mac);
    for (name, interface) in configured {
        // enx with the address in it, as systemd names USB cards.
        let by_name = name.strip_prefix("enx").and_then(|hex| {
            let pairs: Vec<&str> = (0..6).filter_map(|i| hex.get(i * 2..i * 2 + 2)).collect();
            pairs.join(":").parse().ok().filter(|_| hex.len() == 12)
        });
        match interface.mac.or(by_name).filter(known) {
            Some(mac) if !names.contains_key(&mac) => {
                names.insert(mac, name.clone());
            }
            _ => open.push(name),
        }
    }
    // Addresses that the inventory saw on a card and that are configured on one interface.
    open.retain(|name| {
        let matches = |nic: &&machine::Nic| {
            !names.contains_key(&nic.mac)
                && nic.addresses.iter().any(|seen| configured[*name].addresses.contains(&seen.address))
        };
        match machine.nics.iter().find(matches) {
            Some(nic) => {
                names.insert(nic.mac, (*name).to_owned());
                false
            }
            None => true,
        }
    });
    let rest: Vec<&machine::Nic> = machine.nics.iter().filter(|nic| !names.contains_key(&nic.mac)).collect();
    let mut rest = rest;
    // The name that the running kernel gave: what a live agent saw is the truth, a boot image's names are a hint.
    let by_inventory = open.iter().all(|name| rest.iter().any(|nic| nic.name == **name));
    let guessed = rest.len() > 1 && !open.is_empty();
    open.sort_by(|a, b| super::version::compare(a, b));
    for name in open {
        let at = if by_inventory { rest.iter().position(|nic| nic.name == name) } else { Some(0) };
        if let Some(at) = at.filter(|at| *at < rest.len()) {
            names.insert(rest.remove(at).mac, name.to_owned());
        }
    }
    (names, guessed)
}

/// Whether udev of this guest names interfaces by link files (it does since systemd 209; Debian since 9).
fn reads_link_files(tree: &dyn FileTree) -> bool {
    let guest = identify(tree);
    let debian = guest.product.as_deref().is_some_and(|product| product.starts_with("Debian"));
    let major = guest.version.as_deref().and_then(|v| v.split('.').next()?.parse::<u32>().ok());
    match major {
        Some(major) if debian => major >= 9,
        Some(major) => major >= 15,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use machine::Nic;

    use super::*;
    use crate::MemoryTree;

    fn machine(macs: &[&str]) -> Machine {
        let nic = |(i, mac): (usize, &&str)| Nic {
            name: format!("eth{i}"),
            mac: mac.parse().unwrap(),
            addresses: vec![],
            driver: None,
            link_up: true,
        };
        Machine { nics: macs.iter().enumerate().map(nic).collect(), ..Machine::default() }
    }

    fn written(tree: &MemoryTree, machine: &Machine) -> (BTreeMap<String, String>, Vec<String>) {
        let mut warnings = Vec::new();
        let mut fixup = plan(tree, machine, &mut warnings).unwrap();
        let files = fixup.remove(0).changes.into_iter().map(|change| match change {
            Change::Write { path, contents, .. } => (path, String::from_utf8(contents.unwrap().to_vec()).unwrap()),
            other => (other.path().to_owned(), "removed".to_owned()),
        });
        (files.collect(), warnings)
    }

    #[test]
    fn the_only_card_gets_the_only_configured_name() {
        let tree = MemoryTree::new().with(
            "/etc/network/interfaces",
            "auto lo enp3s0\niface lo inet loopback\niface enp3s0 inet static\n address 192.0.2.7/24\n gateway 192.0.2.1\n",
        );
        let (files, warnings) = written(&tree, &machine(&["52:54:00:00:00:01"]));
        let text = &files["/etc/systemd/network/10-enp3s0.link"];
        assert!(text.contains("MACAddress=52:54:00:00:00:01\nType=ether\n") && text.contains("Name=enp3s0"), "{text}");
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn rules_of_the_source_tell_which_card_is_which_and_are_dropped() {
        let tree =
            MemoryTree::new().with("/etc/network/interfaces", "iface eth0 inet dhcp\niface eth1 inet static\n").with(
                PERSISTENT_RULES,
                "SUBSYSTEM==\"net\", ATTR{address}==\"52:54:00:00:00:02\", KERNEL==\"eth*\", NAME=\"eth0\"\n\
                 SUBSYSTEM==\"net\", ATTR{address}==\"52:54:00:00:00:01\", KERNEL==\"eth*\", NAME=\"eth1\"\n",
            );
        let (files, warnings) = written(&tree, &machine(&["52:54:00:00:00:01", "52:54:00:00:00:02"]));
        assert!(files["/etc/systemd/network/10-eth0.link"].contains("52:54:00:00:00:02"));
        assert!(files["/etc/systemd/network/10-eth1.link"].contains("52:54:00:00:00:01"));
        assert_eq!(files[PERSISTENT_RULES], "removed");
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn names_in_netplan_networkmanager_and_networkd_are_found() {
        let netplan = "network:\n  version: 2\n  ethernets:\n    eno1:\n      dhcp4: true\n    lan:\n      match:\n        \
                       macaddress: 52:54:00:00:00:02\n      set-name: lan\n  bridges:\n    br0:\n      interfaces: [eno1]\n";
        let tree = MemoryTree::new()
            .with("/etc/netplan/01.yaml", netplan)
            .with(
                "/etc/NetworkManager/system-connections/x.nmconnection",
                "[connection]\nid=x\ntype=ethernet\ninterface-name=eno3\n[ethernet]\nmac-address=52:54:00:00:00:03\n",
            )
            .with("/etc/systemd/network/a.network", "[Match]\nName=eno4\n[Network]\nAddress=192.0.2.9/24\n");
        let mut machine =
            machine(&["52:54:00:00:00:04", "52:54:00:00:00:03", "52:54:00:00:00:02", "52:54:00:00:00:01"]);
        machine.nics[0].addresses = vec![machine::IpNet { address: "192.0.2.9".parse().unwrap(), prefix_length: 24 }];
        let (files, _) = written(&tree, &machine);
        let mac = |name: &str| files[&format!("/etc/systemd/network/10-{name}.link")].clone();
        assert!(mac("eno1").contains("00:00:01") && mac("lan").contains("00:00:02"));
        assert!(mac("eno3").contains("00:00:03") && mac("eno4").contains("00:00:04"));
    }

    #[test]
    fn a_link_file_of_the_guest_is_already_so_and_old_systems_get_rules() {
        let link = "[Match]\nMACAddress=52:54:00:00:00:01\n[Link]\nName=lan0\n";
        let tree = MemoryTree::new()
            .with("/etc/network/interfaces", "iface lan0 inet dhcp\n")
            .with("/etc/systemd/network/50-lan.link", link);
        assert!(written(&tree, &machine(&["52:54:00:00:00:01"])).0.is_empty());
        let old = MemoryTree::new()
            .with("/etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 8 (jessie)\"\nVERSION_ID=\"8\"\n")
            .with("/etc/network/interfaces", "iface eth0 inet dhcp\n");
        assert!(written(&old, &machine(&["52:54:00:00:00:01"])).0[OWN_RULES].contains("NAME=\"eth0\""));
    }
}
