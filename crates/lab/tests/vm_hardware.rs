//! The boot image on each storage controller and network card that QEMU has: it comes up, and the controller sees the
//! disk by its serial number and the card by its driver. Needs root.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use lab::Site;
use qemu::DiskBus::{Ahci, Ide, Nvme, Scsi, Virtio};
use qemu::HbaModel::{Lsi53c895a, MegaSas, MptSas1068};
use qemu::{Disk, DiskBus, Firmware, Hardware, Image, MachineType, Nic, NicBackend, NicModel, SerialPort};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(180);
const DISK: u64 = 64 << 20;

struct Row {
    bus: DiskBus,
    nic: NicModel,
    /// The kernel's driver of the card.
    driver: &'static str,
    uefi: bool,
    /// Another card, before the one that works, has no cable.
    dead_nic: bool,
}

/// A row with BIOS and one card.
fn row(bus: DiskBus, nic: NicModel, driver: &'static str) -> Row {
    Row { bus, nic, driver, uefi: false, dead_nic: false }
}

fn reported(site: &Site, serial: &str) -> Option<Value> {
    let machines = site.json(&["machines"]).unwrap();
    let is_this = |machine: &&Value| machine["report"]["smbios"]["serial"] == serial;
    machines.as_array()?.iter().find(is_this).cloned()
}

/// The boot image comes up on the hardware, in 512 MiB, and the controller sees disk and card.
fn is_seen(row: &Row) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(folder.path()).unwrap();
    let iso = site.boot_image().unwrap();
    let image = folder.path().join("disk.raw");
    std::fs::File::create(&image).unwrap().set_len(DISK).unwrap();
    let is_q35 = row.uefi || matches!(row.bus, Nvme);
    let mut hardware = Hardware::new(if is_q35 { MachineType::Q35 } else { MachineType::Pc });
    if row.uefi {
        hardware.firmware = Firmware::Uefi { secure_boot: false, variables: None };
    }
    hardware.memory_mib = 512;
    hardware.smbios.serial = Some("VCROW".into());
    hardware.smbios.uuid = Some("4c4c4544-0042-3510-8052-b4c04f4e3100".into());
    let mut disk = Disk::new(Image::new(&image, "raw"), row.bus);
    disk.serial = Some("DISK-1".into());
    hardware.disks.push(disk);
    hardware.cdrom = Some(iso.clone());
    hardware.boot_from_cdrom = true;
    hardware.serial_ports.push(SerialPort::default());
    if row.dead_nic {
        hardware.nics.push(Nic::new(row.nic, "52:54:00:00:66:ff", NicBackend::Unplugged));
    }
    let mac = "52:54:00:00:66:01";
    hardware.nics.push(Nic::new(row.nic, mac, NicBackend::Unplugged));
    let plugged = hardware.nics.len() - 1;
    site.lan().plug(&mut hardware, plugged).unwrap();
    let (vm, begun) = (hardware.start().unwrap(), Instant::now());
    if let Err(error) = site.approve(&vm) {
        panic!("{error}\n{}\n{}", vm.text_screen().unwrap(), vm.serial(0).text());
    }
    let mut first_report = None;
    // A disk that came late is reported anew.
    let machine = loop {
        if let Some(machine) = reported(&site, "VCROW") {
            first_report.get_or_insert_with(|| begun.elapsed().as_secs());
            if machine["report"]["disks"].as_array().is_some_and(|disks| !disks.is_empty()) {
                break machine;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "no report with a disk\n{}", vm.serial(0).text());
        std::thread::sleep(Duration::from_millis(500));
    };
    let (disks, nics) = (&machine["report"]["disks"], &machine["report"]["nics"]);
    let serial = vm.serial(0).text();
    println!("{}", serial.lines().find(|line| line.contains("vconverter: memory: ")).expect("a line about memory"));
    println!("ready after {first_report:?} s, disk after {} s; {disks} {nics}", begun.elapsed().as_secs());
    assert_eq!(disks.as_array().unwrap().len(), 1, "{disks}");
    assert_eq!(disks[0]["virtual_size"], DISK);
    assert_eq!(disks[0]["identity"]["serial"], "DISK-1", "{disks}");
    let nic = nics.as_array().unwrap().iter().find(|nic| nic["mac"] == mac).expect("the card");
    assert_eq!((&nic["driver"], &nic["link_up"]), (&row.driver.into(), &true.into()), "{nics}");
    assert_eq!(nics.as_array().unwrap().len(), hardware.nics.len(), "{nics}");
}

#[test]
#[ignore = "full row"]
fn ide_and_e1000() {
    is_seen(&row(Ide, NicModel::E1000, "e1000"));
}

#[test]
#[ignore = "full row"]
fn ahci_and_e1000e_by_uefi() {
    is_seen(&Row { uefi: true, ..row(Ahci, NicModel::E1000e, "e1000e") });
}

#[test]
#[ignore = "full row"]
fn nvme_and_rtl8139() {
    is_seen(&row(Nvme, NicModel::Rtl8139, "8139cp"));
}

#[test]
#[ignore = "full row"]
fn megasas_and_vmxnet3() {
    is_seen(&row(Scsi(MegaSas), NicModel::Vmxnet3, "vmxnet3"));
}

#[test]
#[ignore = "full row"]
fn mptsas1068_and_virtio_net() {
    is_seen(&row(Scsi(MptSas1068), NicModel::Virtio, "virtio_net"));
}

#[test]
#[ignore = "full row"]
fn lsi53c895a_and_e1000_beside_a_dead_card() {
    is_seen(&Row { dead_nic: true, ..row(Scsi(Lsi53c895a), NicModel::E1000, "e1000") });
}

#[test]
#[ignore = "full row"]
fn virtio_by_uefi() {
    is_seen(&Row { uefi: true, ..row(Virtio, NicModel::Virtio, "virtio_net") });
}
