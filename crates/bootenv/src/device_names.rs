//! Names of PCI and USB devices, from the repositories that the builder put into the boot image.
//!
//! Read when somebody asks, and not kept: a boot image lives in the memory of the machine.

use std::fs;
use std::path::Path;

/// Where the builder puts them.
pub const FOLDER: &str = "/lib/vconverter";

/// The numbers of a PCI device, or of a USB one, which has no subsystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Who made the chip.
    pub vendor: u16,
    /// Which chip.
    pub device: u16,
    /// Who made the card, and which.
    pub subsystem: Option<(u16, u16)>,
}

/// The repositories' text.
#[derive(Debug, Default)]
pub struct DeviceNames {
    /// `pci.ids`
    pub pci: String,
    /// `usb.ids`
    pub usb: String,
    /// `devices.tsv`: numbers, maker, module, …, of parts of servers.
    pub table: String,
}

impl DeviceNames {
    /// Reads them from `folder`; what is not there knows no names.
    pub fn load(folder: &Path) -> Self {
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        Self { pci: read("pci.ids"), usb: read("usb.ids"), table: read("devices.tsv") }
    }

    /// Maker and name of a PCI device, with the numbers where a name is not known.
    pub fn pci(&self, numbers: Numbers) -> String {
        name(&self.pci, numbers)
    }

    /// The same of a USB device.
    pub fn usb(&self, numbers: Numbers) -> String {
        name(&self.usb, numbers)
    }

    /// The module that drives a PCI device, as far as the table knows.
    pub fn module(&self, numbers: Numbers) -> Option<&str> {
        let chip = format!("{:04x}:{:04x}", numbers.vendor, numbers.device);
        let card = numbers.subsystem.map(|(by, card)| format!("{chip}:{by:04x}:{card:04x}"));
        let module_of = |id: &str| {
            let line = self.table.lines().find(|line| line.strip_prefix(id).is_some_and(|rest| rest.starts_with('\t')));
            line.and_then(|line| line.split('\t').nth(2))
        };
        card.and_then(|card| module_of(&card)).or_else(|| module_of(&chip))
    }
}

fn name(repository: &str, numbers: Numbers) -> String {
    let vendor = format!("{:04x}  ", numbers.vendor);
    let mut lines = repository.lines().skip_while(|line| !line.starts_with(&vendor));
    let Some(maker) = lines.next().map(|line| &line[vendor.len()..]) else {
        return format!("unknown device of maker {:04x}", numbers.vendor);
    };
    let own = lines.take_while(|line| line.starts_with('\t'));
    let device = format!("\t{:04x}  ", numbers.device);
    let mut own = own.skip_while(|line| !line.starts_with(&device));
    let Some(chip) = own.next().map(|line| &line[device.len()..]) else {
        return format!("{maker}, unknown device {:04x}", numbers.device);
    };
    let card = numbers.subsystem.and_then(|(by, card)| {
        let wanted = format!("\t\t{by:04x} {card:04x}  ");
        own.take_while(|line| line.starts_with("\t\t")).find_map(|line| line.strip_prefix(&wanted))
    });
    match card {
        Some(card) => format!("{maker} {chip} ({card})"),
        None => format!("{maker} {chip}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> DeviceNames {
        DeviceNames {
            pci: "1000  Broadcom / LSI\n\t0060  MegaRAID SAS 1078\n\t0079  SAS 2108\n\t\t1028 1f16  PERC H700\n\
                  14e4  Broadcom\n\t1639  BCM5709\n"
                .into(),
            usb: "0bda  Realtek\n\t8153  RTL8153\n".into(),
            table: "# comment\n1000:0079\tLSI\tmegaraid_sas\t2009\tSAS\n1000:0079:1028:1f16\tDell\tother\t\tPERC\n"
                .into(),
        }
    }

    fn numbers(vendor: u16, device: u16, subsystem: Option<(u16, u16)>) -> Numbers {
        Numbers { vendor, device, subsystem }
    }

    #[test]
    fn a_device_is_called_by_its_makers_names() {
        let names = names();
        assert_eq!(names.pci(numbers(0x1000, 0x60, None)), "Broadcom / LSI MegaRAID SAS 1078");
        let perc = numbers(0x1000, 0x79, Some((0x1028, 0x1f16)));
        assert_eq!(names.pci(perc), "Broadcom / LSI SAS 2108 (PERC H700)");
        assert_eq!(names.pci(numbers(0x1000, 0x79, Some((0x1028, 1)))), "Broadcom / LSI SAS 2108");
        assert_eq!(names.pci(numbers(0x1000, 0x1639, None)), "Broadcom / LSI, unknown device 1639");
        assert_eq!(names.pci(numbers(0xabcd, 1, None)), "unknown device of maker abcd");
        assert_eq!(names.usb(numbers(0x0bda, 0x8153, None)), "Realtek RTL8153");
        assert_eq!(
            (names.module(perc), names.module(numbers(0x1000, 0x79, None))),
            (Some("other"), Some("megaraid_sas"))
        );
        assert_eq!(names.module(numbers(0x1000, 0x60, None)), None);
    }
}
