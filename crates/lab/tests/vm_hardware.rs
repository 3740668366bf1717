//! The boot image on each storage controller and network card that QEMU has: it comes up, and the controller sees the
//! disk by its serial number and the card by its driver. Needs root.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use lab::Site;
use qemu::DiskBus::{Ahci, Ide, Nvme, Scsi, Virtio};
use qemu::HbaModel::{Lsi53c895a, MegaSas, MptSas1068};
use qemu::{Disk, DiskBus, Firmware, Hardware, Image, MachineType, Nic, NicBackend, NicModel, SerialPort};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(900);
const DISK: u64 = 64 << 20;

struct Row {
    bus: DiskBus,
    nic: NicModel,
    /// The kernel's driver of the card.
    driver: &'static str,
    memory_mib: u32,
    uefi: bool,
    /// Another card, before the one that works, has no cable.
    dead_nic: bool,
}

const ROWS: [Row; 7] = [
    Row { bus: Ide, nic: NicModel::E1000, driver: "e1000", memory_mib: 512, uefi: false, dead_nic: false },
    Row { bus: Ahci, nic: NicModel::E1000e, driver: "e1000e", memory_mib: 512, uefi: true, dead_nic: false },
    Row { bus: Nvme, nic: NicModel::Rtl8139, driver: "8139cp", memory_mib: 512, uefi: false, dead_nic: false },
    Row {
        bus: Scsi(MegaSas),
        nic: NicModel::Vmxnet3,
        driver: "vmxnet3",
        memory_mib: 512,
        uefi: false,
        dead_nic: false,
    },
    Row {
        bus: Scsi(MptSas1068),
        nic: NicModel::Virtio,
        driver: "virtio_net",
        memory_mib: 512,
        uefi: false,
        dead_nic: false,
    },
    Row { bus: Scsi(Lsi53c895a), nic: NicModel::E1000, driver: "e1000", memory_mib: 512, uefi: false, dead_nic: true },
    Row { bus: Virtio, nic: NicModel::Virtio, driver: "virtio_net", memory_mib: 512, uefi: true, dead_nic: false },
];

fn reported(site: &Site, serial: &str) -> Option<Value> {
    let machines = site.json(&["machines"]).unwrap();
    let is_this = |machine: &&Value| machine["report"]["smbios"]["serial"] == serial;
    machines.as_array()?.iter().find(is_this).cloned()
}

#[test]
#[ignore = "full row"]
fn each_storage_controller_and_network_card_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(folder.path()).unwrap();
    let iso = site.boot_image().unwrap();
    let image = folder.path().join("disk.raw");
    std::fs::File::create(&image).unwrap().set_len(DISK).unwrap();
    for (number, row) in ROWS.iter().enumerate() {
        let what = format!("{:?}, {:?}", row.bus, row.nic);
        let is_q35 = row.uefi || matches!(row.bus, Nvme);
        let mut hardware = Hardware::new(if is_q35 { MachineType::Q35 } else { MachineType::Pc });
        if row.uefi {
            hardware.firmware = Firmware::Uefi { secure_boot: false, variables: None };
        }
        hardware.memory_mib = row.memory_mib;
        let serial = format!("VCROW{number}");
        hardware.smbios.serial = Some(serial.clone());
        hardware.smbios.uuid = Some(format!("4c4c4544-0042-3510-8052-b4c04f4e310{number}"));
        let mut disk = Disk::new(Image::new(&image, "raw"), row.bus);
        disk.serial = Some(format!("DISK-{number}"));
        hardware.disks.push(disk);
        hardware.cdrom = Some(iso.clone());
        hardware.boot_from_cdrom = true;
        hardware.serial_ports.push(SerialPort::default());
        if row.dead_nic {
            hardware.nics.push(Nic::new(row.nic, "52:54:00:00:66:ff", NicBackend::Unplugged));
        }
        let mac = format!("52:54:00:00:66:0{number}");
        hardware.nics.push(Nic::new(row.nic, mac.as_str(), NicBackend::Unplugged));
        let plugged = hardware.nics.len() - 1;
        site.lan().plug(&mut hardware, plugged).unwrap();
        let (vm, begun) = (hardware.start().unwrap(), Instant::now());
        if let Err(error) = site.approve(&vm) {
            panic!("{what}: {error}\n{}\n{}", vm.text_screen().unwrap(), vm.serial(0).text());
        }
        let machine = loop {
            if let Some(machine) = reported(&site, &serial) {
                break machine;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: no report\n{}", vm.serial(0).text());
            std::thread::sleep(Duration::from_millis(500));
        };
        let (disks, nics) = (&machine["report"]["disks"], &machine["report"]["nics"]);
        println!("{what}: ready after {} s; {disks} {nics}", begun.elapsed().as_secs());
        assert_eq!(disks.as_array().unwrap().len(), 1, "{what}: {disks}");
        assert_eq!(disks[0]["virtual_size"], DISK, "{what}");
        assert_eq!(disks[0]["identity"]["serial"], format!("DISK-{number}"), "{what}: {disks}");
        let nic = nics.as_array().unwrap().iter().find(|nic| nic["mac"] == mac.as_str()).expect("the card");
        assert_eq!((&nic["driver"], &nic["link_up"]), (&row.driver.into(), &true.into()), "{what}: {nics}");
        assert_eq!(nics.as_array().unwrap().len(), hardware.nics.len(), "{what}: {nics}");
    }
}
