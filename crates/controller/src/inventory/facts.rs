//! What is different between two reports of one machine, for its history.
//!
//! Coarse on purpose: what an operator would want to know before a conversion. A disk is known by its identity and a network
//! card by its MAC, for names change between a machine's own system and the boot image.

use std::collections::BTreeSet;

use machine::{Disk, FirmwareKind, Machine, Nic};

/// Lines for one report.
const LINES_MAX: usize = 20;
/// Characters of a line.
const LINE_CHARS_MAX: usize = 200;
/// Disks and network cards that are looked at.
const PARTS_MAX: usize = 256;

/// A line for each thing that changed. `comparable`: both reports come from the same kind of system, so that a network card
/// that is missing was not merely without a driver.
pub fn changed_facts(before: &Machine, after: &Machine, comparable: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut differ = |what: &str, before: Option<String>, after: Option<String>| {
        // What became unknown did not change.
        if let (Some(before), Some(after)) = (before, after)
            && before != after
        {
            lines.push(format!("{what}: {before} → {after}"));
        }
    };
    differ("host name", before.guest.hostname.clone(), after.guest.hostname.clone());
    differ("system", system(before), system(after));
    differ("firmware", firmware(before), firmware(after));
    let secure_boot = |machine: &Machine| machine.firmware.secure_boot.map(|on| if on { "on" } else { "off" }.into());
    differ("Secure Boot", secure_boot(before), secure_boot(after));
    differ("processors", processors(before), processors(after));
    let memory = |machine: &Machine| (machine.memory.0 > 0).then(|| machine.memory.to_string());
    differ("memory", memory(before), memory(after));
    disks(&before.disks, &after.disks, &mut lines);
    nics(&before.nics, &after.nics, comparable, &mut lines);
    if lines.len() > LINES_MAX {
        let more = lines.len() - LINES_MAX + 1;
        lines.truncate(LINES_MAX - 1);
        lines.push(format!("and {more} more"));
    }
    lines.iter().map(|line| line.chars().filter(|c| !c.is_control()).take(LINE_CHARS_MAX).collect()).collect()
}

fn system(machine: &Machine) -> Option<String> {
    let product = machine.guest.product.clone()?;
    Some(match machine.guest.version.as_deref() {
        Some(version) if !product.contains(version) => format!("{product} {version}"),
        _ => product,
    })
}

fn firmware(machine: &Machine) -> Option<String> {
    match machine.firmware.kind {
        FirmwareKind::Bios => Some("BIOS".into()),
        FirmwareKind::Uefi => Some("UEFI".into()),
        FirmwareKind::Unknown => None,
    }
}

fn processors(machine: &Machine) -> Option<String> {
    let cpu = &machine.cpu;
    let threads = u64::from(cpu.sockets)
        .saturating_mul(u64::from(cpu.cores_per_socket))
        .saturating_mul(u64::from(cpu.threads_per_core));
    (threads > 0).then(|| format!("{threads} threads of {}", cpu.model))
}

fn disks(before: &[Disk], after: &[Disk], lines: &mut Vec<String>) {
    let (before, after) = (&before[..before.len().min(PARTS_MAX)], &after[..after.len().min(PARTS_MAX)]);
    for disk in after {
        match before.iter().find(|other| is_same_disk(disk, other)) {
            None => lines.push(format!("disk {} was added", describe(disk))),
            Some(other) if other.virtual_size != disk.virtual_size => {
                lines.push(format!("disk {}: {} → {}", disk.path, other.virtual_size, disk.virtual_size));
            }
            Some(_) => {}
        }
    }
    for disk in before.iter().filter(|disk| !after.iter().any(|other| is_same_disk(disk, other))) {
        lines.push(format!("disk {} is gone", describe(disk)));
    }
}

/// By WWN, else by serial number, else by path: as much as both of them say.
fn is_same_disk(one: &Disk, other: &Disk) -> bool {
    let (a, b) = (&one.identity, &other.identity);
    match (a.wwn.as_ref().zip(b.wwn.as_ref()), a.serial.as_ref().zip(b.serial.as_ref())) {
        (Some((a, b)), _) | (None, Some((a, b))) => a == b,
        (None, None) => one.path == other.path,
    }
}

fn describe(disk: &Disk) -> String {
    let identity = [&disk.identity.model, &disk.identity.serial];
    let identity: Vec<&str> = identity.into_iter().flatten().map(|text| text.trim()).collect();
    format!("{} of {} ({})", disk.path, disk.virtual_size, identity.join(" "))
}

fn nics(before: &[Nic], after: &[Nic], comparable: bool, lines: &mut Vec<String>) {
    let (before, after) = (&before[..before.len().min(PARTS_MAX)], &after[..after.len().min(PARTS_MAX)]);
    for nic in after {
        match before.iter().find(|other| other.mac == nic.mac) {
            None if comparable => lines.push(format!("network card {} {} was added", nic.name, nic.mac)),
            None => {}
            Some(other) => {
                let (had, has) = (addresses(other), addresses(nic));
                // A card without an address just now has a cable out, or its system is not up yet.
                if !had.is_empty() && !has.is_empty() && had != has {
                    let list = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join(", ");
                    lines.push(format!("address of {} {}: {} → {}", nic.name, nic.mac, list(had), list(has)));
                }
            }
        }
    }
    for nic in before.iter().filter(|nic| comparable && !after.iter().any(|other| other.mac == nic.mac)) {
        lines.push(format!("network card {} {} is gone", nic.name, nic.mac));
    }
}

/// IPv4 only: temporary IPv6 addresses are new every day (RFC 8981).
fn addresses(nic: &Nic) -> BTreeSet<String> {
    let is_lasting = |ip: std::net::Ipv4Addr| !ip.is_link_local() && !ip.is_loopback();
    let own = nic.addresses.iter().filter_map(|net| match net.address {
        std::net::IpAddr::V4(ip) if is_lasting(ip) => Some(format!("{ip}/{}", net.prefix_length)),
        _ => None,
    });
    own.take(PARTS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use machine::{ByteCount, DiskIdentity, DiskLayout, IpNet, MacAddress, SectorSize};

    use super::*;

    fn disk(path: &str, serial: &str, gib: u64) -> Disk {
        Disk {
            path: path.into(),
            format: "raw".into(),
            virtual_size: ByteCount::gib(gib),
            logical_sector_size: SectorSize::B512,
            identity: DiskIdentity { serial: Some(serial.into()), ..DiskIdentity::default() },
            layout: DiskLayout::default(),
        }
    }

    fn nic(last: u8, address: &str) -> Nic {
        let address = IpNet { address: address.parse().unwrap(), prefix_length: 24 };
        let temporary = IpNet { address: format!("2001:db8::{last}").parse().unwrap(), prefix_length: 64 };
        let mac = MacAddress([0x52, 0x54, 0, 0, 0, last]);
        Nic { name: "eth0".into(), mac, addresses: vec![address, temporary], driver: None, link_up: true }
    }

    fn machine() -> Machine {
        let mut machine = Machine {
            disks: vec![disk("/dev/sda", "A", 10), disk("/dev/sdb", "B", 20)],
            nics: vec![nic(1, "192.0.2.10")],
            memory: ByteCount::gib(8),
            ..Machine::default()
        };
        machine.guest.product = Some("Debian GNU/Linux 11 (bullseye)".into());
        machine.guest.hostname = Some("web1".into());
        machine
    }

    #[test]
    fn what_an_operator_should_know_is_told() {
        let mut after = machine();
        after.disks = vec![disk("/dev/nvme0n1", "A", 10), disk("/dev/sdc", "C", 2048)];
        after.nics = vec![nic(1, "192.0.2.11"), nic(2, "198.51.100.1")];
        after.memory = ByteCount::gib(16);
        after.guest.product = Some("Debian GNU/Linux 12 (bookworm)".into());
        after.guest.hostname = None;
        let lines = changed_facts(&machine(), &after, true);
        println!("{lines:#?}");
        assert_eq!(
            lines,
            [
                "system: Debian GNU/Linux 11 (bullseye) → Debian GNU/Linux 12 (bookworm)",
                "memory: 8.0 GiB → 16.0 GiB",
                "disk /dev/sdc of 2.0 TiB (C) was added",
                "disk /dev/sdb of 20.0 GiB (B) is gone",
                "address of eth0 52:54:00:00:00:01: 192.0.2.10/24 → 192.0.2.11/24",
                "network card eth0 52:54:00:00:00:02 was added",
            ]
        );
        assert!(changed_facts(&machine(), &after, false).iter().all(|line| !line.contains("network card")));
        assert!(changed_facts(&machine(), &machine(), true).is_empty());
    }

    #[test]
    fn a_report_that_is_quite_another_takes_no_more_than_its_lines() {
        let mut after = machine();
        after.guest.hostname = Some(format!("\u{1b}[2J{}", "x".repeat(10_000)));
        after.disks = (0..5000).map(|number| disk("/dev/sdz", &number.to_string(), 1)).collect();
        let lines = changed_facts(&machine(), &after, true);
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(lines.last().map(String::as_str), Some("and 240 more"));
        assert!(lines.iter().all(|line| line.chars().count() <= LINE_CHARS_MAX && !line.contains('\u{1b}')));
    }
}
