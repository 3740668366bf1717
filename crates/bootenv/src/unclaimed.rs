//! Devices that no driver claimed, by bus and name, and what they lack.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kernel_modules::{IndexText, module_name, parse_index};

use crate::device_names::{self, DeviceNames, Numbers};
use crate::modules::Modules;

/// Buses whose devices are looked at; those of others (platform, ACPI, input) want no driver of an operator's.
const BUSES: [&str; 6] = ["pci", "usb", "virtio", "vmbus", "xen", "scsi"];
/// Devices that are looked at on one bus.
const DEVICES_MAX: usize = 4096;
/// PCI classes that do without a driver: memory, bridges, processors, system and signal devices, and SMBus.
const NEEDLESS: [u32; 8] = [0x05, 0x06, 0x08, 0x0b, 0x11, 0x12, 0x13, 0x40];
const SMBUS: u32 = 0x0c05;
/// Firmware files of one device that are told by name.
const FIRMWARE_TOLD: usize = 3;

/// What a device is for; what a converter needs comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Disks.
    Storage,
    /// Network.
    Network,
    /// Anything else.
    Other,
}

/// A device without a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclaimed {
    /// What it is for.
    pub purpose: Purpose,
    /// `pci`, `usb`, …
    pub bus: String,
    /// Its address there: `0000:00:04.0`.
    pub address: String,
    /// Maker and name.
    pub name: String,
    /// Numbers by which other lists know it: `1000:0060`; empty where it has none.
    pub id: String,
    /// What it lacks.
    pub lack: Lack,
}

/// Why a device has no driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Modules of this kernel that are not in the boot image.
    Module(Vec<String>),
    /// No module of this kernel serves it; what a table of server parts expects.
    Driver(Option<String>),
    /// The module is here, and of the firmware that it names nothing is.
    Firmware(String, Vec<String>),
    /// The module is here and did not take it.
    Refused(String),
}

impl Unclaimed {
    /// Bus, address, name and numbers in one line.
    pub fn title(&self) -> String {
        let id = if self.id.is_empty() { String::new() } else { format!(" [{}]", self.id) };
        format!("{} {} {}{id}", self.bus, self.address, self.name)
    }
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Module(names) => write!(f, "lacks the module {}, which this boot image has not", names.join(" or ")),
            Self::Driver(Some(module)) => write!(f, "lacks the module {module}, which this kernel has not"),
            Self::Driver(None) => write!(f, "lacks a driver: no module of this kernel serves it"),
            Self::Firmware(module, files) => {
                let told = files.iter().take(FIRMWARE_TOLD).cloned().collect::<Vec<_>>().join(", ");
                let more = files.len().saturating_sub(FIRMWARE_TOLD);
                let more = if more > 0 { format!(" or one of {more} more") } else { String::new() };
                write!(f, "lacks firmware for its module {module}: {told}{more}")
            }
            Self::Refused(module) => write!(f, "its module {module} is here and did not take it: see the log"),
        }
    }
}

/// Where devices, modules and names are looked for.
pub struct Places<'a> {
    /// `/sys/bus`
    pub buses: &'a Path,
    /// The modules of the running kernel.
    pub modules: &'a Modules,
    /// `/lib/firmware`
    pub firmware: &'a Path,
    /// Names of devices.
    pub names: &'a Path,
}

impl Places<'static> {
    /// Those of the running machine.
    pub fn running() -> Self {
        Self {
            buses: Path::new("/sys/bus"),
            modules: crate::modules::running(),
            firmware: Path::new(crate::modules::FIRMWARE),
            names: Path::new(device_names::FOLDER),
        }
    }
}

/// The devices that are there without a driver; storage first, then network.
pub fn list_unclaimed(places: &Places<'_>) -> Vec<Unclaimed> {
    let found: Vec<Device> = BUSES.iter().flat_map(|bus| devices(places.buses, bus)).collect();
    if found.is_empty() {
        return Vec::new();
    }
    let names = DeviceNames::load(places.names);
    let left_out = places.modules.read_index_file("modules.left-out");
    let left_out = parse_index(IndexText { alias: &left_out, ..IndexText::default() });
    let mut unclaimed: Vec<Unclaimed> = found
        .into_iter()
        .map(|device| {
            let (name, id, expected) = device.describe(&names);
            let serving = places.modules.serving(&device.modalias);
            let lack = match serving.first() {
                Some(_) => lack_of(&serving, places),
                None => match left_out.resolve(&device.modalias).as_slice() {
                    [] => Lack::Driver(expected),
                    modules => Lack::Module(modules.iter().map(|&name| name.to_owned()).collect()),
                },
            };
            Unclaimed { purpose: device.purpose(), bus: device.bus, address: device.address, name, id, lack }
        })
        .collect();
    unclaimed.sort_by(|a, b| (a.purpose, &a.bus, &a.address).cmp(&(b.purpose, &b.bus, &b.address)));
    unclaimed
}

/// What a device lacks whose modules `serving` are in the boot image.
fn lack_of(serving: &[String], places: &Places<'_>) -> Lack {
    for module in serving {
        let named = places.modules.firmware_of(module);
        let is_there = |file: &String| places.firmware.join(file).exists();
        if !named.is_empty() && !named.iter().any(is_there) {
            return Lack::Firmware(module.clone(), named.into_iter().collect());
        }
    }
    Lack::Refused(serving.join(" or "))
}

/// A device as the kernel shows it.
struct Device {
    bus: String,
    address: String,
    modalias: String,
    folder: PathBuf,
}

fn devices(buses: &Path, bus: &str) -> Vec<Device> {
    let entries = fs::read_dir(buses.join(bus).join("devices")).into_iter().flatten().flatten().take(DEVICES_MAX);
    let device = |entry: fs::DirEntry| {
        let folder = entry.path();
        let modalias = read(&folder, "modalias");
        if modalias.is_empty() || folder.join("driver").exists() {
            return None;
        }
        let address = entry.file_name().to_string_lossy().into_owned();
        let device = Device { bus: bus.to_owned(), address, modalias, folder };
        (!device.is_needless()).then_some(device)
    };
    entries.filter_map(device).collect()
}

impl Device {
    fn is_needless(&self) -> bool {
        match self.bus.as_str() {
            "pci" => {
                let class = self.class();
                NEEDLESS.contains(&(class >> 16)) || class >> 8 == SMBUS
            }
            // Disks and CDs; enclosures and processors do without.
            "scsi" => !matches!(read(&self.folder, "type").as_str(), "0" | "5" | "7" | "14" | "20"),
            _ => false,
        }
    }

    /// Class, subclass and interface of a PCI device.
    fn class(&self) -> u32 {
        number(&read(&self.folder, "class")).unwrap_or_default()
    }

    fn purpose(&self) -> Purpose {
        let interface = || u8::from_str_radix(&read(&self.folder, "bInterfaceClass"), 16).unwrap_or_default();
        match self.bus.as_str() {
            "pci" => match self.class() >> 8 {
                0x0100..=0x01ff | 0x0c04 => Purpose::Storage,
                0x0200..=0x02ff | 0x0c06 => Purpose::Network,
                _ => Purpose::Other,
            },
            // Virtual I/O Device (VIRTIO) Version 1.2, section 5: 1 network, 2 block, 8 SCSI host.
            "virtio" => match number(&read(&self.folder, "device")) {
                Some(2 | 8) => Purpose::Storage,
                Some(1) => Purpose::Network,
                _ => Purpose::Other,
            },
            // usb.org, "Defined Class Codes": 2 communications, 8 mass storage.
            "usb" => match interface() {
                8 => Purpose::Storage,
                2 => Purpose::Network,
                _ => Purpose::Other,
            },
            "scsi" => Purpose::Storage,
            _ => Purpose::Other,
        }
    }

    /// Name, numbers, and the module that a table expects.
    fn describe(&self, names: &DeviceNames) -> (String, String, Option<String>) {
        // A virtio device is a child of a PCI one, a USB interface one of a USB device.
        let real = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        for folder in real.ancestors().take(2) {
            let hex = |name: &str| number(&read(folder, name)).and_then(|number| u16::try_from(number).ok());
            let bare = |name: &str| u16::from_str_radix(&read(folder, name), 16).ok();
            let id = |numbers: Numbers| format!("{:04x}:{:04x}", numbers.vendor, numbers.device);
            if let (Some(by), Some(card)) = (hex("subsystem_vendor"), hex("subsystem_device"))
                && let (Some(vendor), Some(device)) = (hex("vendor"), hex("device"))
            {
                let numbers = Numbers { vendor, device, subsystem: Some((by, card)) };
                return (names.pci(numbers), id(numbers), names.module(numbers).map(str::to_owned));
            }
            if let (Some(vendor), Some(device)) = (bare("idVendor"), bare("idProduct")) {
                let numbers = Numbers { vendor, device, subsystem: None };
                return (names.usb(numbers), id(numbers), None);
            }
        }
        let told = format!("{} {}", read(&real, "vendor"), read(&real, "model"));
        let told = if told.trim().is_empty() { self.modalias.clone() } else { told.trim().to_owned() };
        (told, String::new(), None)
    }
}

/// `0x1000` of sysfs.
fn number(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The firmware files that the modules of all devices name that are there, served or not.
pub fn named_firmware(modules: &Modules, modaliases: &[String]) -> BTreeSet<String> {
    let serving: BTreeSet<String> = modaliases.iter().flat_map(|alias| modules.serving(alias)).collect();
    serving.iter().flat_map(|name| modules.firmware_of(&module_name(name))).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::modules::load_modules;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            machine.write(
                "modules/modules.alias",
                "alias pci:v000014E4d00001639sv*sd*bc*sc*i* bnx2\nalias pci:v00001000d00000072sv*sd*bc*sc*i* mpt3sas\n",
            );
            machine.write("modules/modules.dep", "kernel/bnx2.ko:\nkernel/mpt3sas.ko:\n");
            machine.write(
                "modules/modules.left-out",
                "alias pci:v00001000d00000060sv*sd*bc*sc*i* megaraid_sas\nalias virtio:d00000002v* virtio_blk\n",
            );
            machine.write("names/pci.ids", "1000  LSI\n\t0060  MegaRAID SAS 1078\n\t0072  SAS2008\n14e4  Broadcom\n\t1639  BCM5709\n1af4  Red Hat\n\t1001  Virtio block device\n");
            machine.write("names/usb.ids", "0bda  Realtek\n\t8153  RTL8153\n");
            machine.write("names/devices.tsv", "103c:323a\tHP\thpsa\t2009\tSmart Array\n");
            machine
        }

        fn write(&self, name: &str, content: impl AsRef<[u8]>) {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn pci(&self, address: &str, id: (&str, &str), class: &str) {
            let folder = format!("devices/{address}");
            let file = |name: &str, text: &str| self.write(&format!("{folder}/{name}"), format!("{text}\n"));
            file("vendor", &format!("0x{}", id.0));
            file("device", &format!("0x{}", id.1));
            file("subsystem_vendor", "0x1028");
            file("subsystem_device", "0x0001");
            file("class", class);
            let upper = |text: &str| format!("{:0>8}", text.to_uppercase());
            let alias = format!("pci:v{}d{}sv00001028sd00000001bc01sc04i00", upper(id.0), upper(id.1));
            file("modalias", &alias);
            self.link("pci", address, &folder);
        }

        fn link(&self, bus: &str, address: &str, folder: &str) {
            let links = self.0.path().join("bus").join(bus).join("devices");
            fs::create_dir_all(&links).unwrap();
            symlink(self.0.path().join(folder), links.join(address)).unwrap();
        }

        fn list(&self) -> Vec<Unclaimed> {
            let path = |name: &str| self.0.path().join(name);
            let modules = load_modules(&path("modules"));
            list_unclaimed(&Places {
                buses: &path("bus"),
                modules: &modules,
                firmware: &path("firmware"),
                names: &path("names"),
            })
        }

        fn told(&self) -> Vec<String> {
            self.list().iter().map(|device| format!("{}: {}", device.title(), device.lack)).collect()
        }
    }

    #[test]
    fn devices_are_told_by_name_with_what_they_lack_disks_first() {
        let machine = Machine::new();
        machine.pci("0000:00:03.0", ("8086", "100e"), "0x020000");
        machine.pci("0000:00:04.0", ("1000", "0060"), "0x010400");
        machine.pci("0000:00:05.0", ("103c", "323a"), "0x010400");
        machine.pci("0000:00:06.0", ("8086", "1237"), "0x060000");
        machine.pci("0000:00:07.0", ("1000", "0072"), "0x010700");
        machine.pci("0000:00:08.0", ("1af4", "1001"), "0x010000");
        machine.write("devices/0000:00:07.0/driver", "");
        machine.write("devices/0000:00:08.0/driver", "");
        machine.write("devices/0000:00:08.0/virtio0/modalias", "virtio:d00000002v00001AF4\n");
        machine.write("devices/0000:00:08.0/virtio0/device", "0x0002\n");
        machine.link("virtio", "virtio0", "devices/0000:00:08.0/virtio0");
        machine.write("devices/1-1/idVendor", "0bda\n");
        machine.write("devices/1-1/idProduct", "8153\n");
        machine.write("devices/1-1/1-1:1.0/modalias", "usb:v0BDAp8153d3100dc00dsc00dp00icFFiscFFip00in00\n");
        machine.link("usb", "1-1:1.0", "devices/1-1/1-1:1.0");
        assert_eq!(
            machine.told(),
            [
                "pci 0000:00:04.0 LSI MegaRAID SAS 1078 [1000:0060]: lacks the module megaraid_sas, which this boot image has not",
                "pci 0000:00:05.0 unknown device of maker 103c [103c:323a]: lacks the module hpsa, which this kernel has not",
                "virtio virtio0 Red Hat Virtio block device [1af4:1001]: lacks the module virtio_blk, which this boot image has not",
                "pci 0000:00:03.0 unknown device of maker 8086 [8086:100e]: lacks a driver: no module of this kernel serves it",
                "usb 1-1:1.0 Realtek RTL8153 [0bda:8153]: lacks a driver: no module of this kernel serves it",
            ]
        );
    }

    #[test]
    fn firmware_that_is_missing_is_told_by_its_files() {
        let machine = Machine::new();
        machine.pci("0000:00:03.0", ("14e4", "1639"), "0x020000");
        let strings = ["firmware=bnx2/a.fw", "firmware=bnx2/b.fw", "name=bnx2"];
        machine.write("modules/kernel/bnx2.ko", crate::modules::tests::module(&strings));
        let list = machine.list();
        assert_eq!(list[0].lack, Lack::Firmware("bnx2".into(), vec!["bnx2/a.fw".into(), "bnx2/b.fw".into()]));
        assert_eq!(list[0].lack.to_string(), "lacks firmware for its module bnx2: bnx2/a.fw, bnx2/b.fw");
        machine.write("firmware/bnx2/b.fw", "");
        assert_eq!(machine.list()[0].lack, Lack::Refused("bnx2".into()));
    }
}
