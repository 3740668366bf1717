//! PCI parts by name: a table of what servers have been built with since 2008, for people who ask before they start one.
//!
//! The table knows names and says which module is expected; which module serves a device is always decided by the
//! aliases of the modules themselves, and a test holds the two together.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::{Error, ErrorKind, Result};

/// The table as it stands.
pub(crate) const TABLE: &str = include_str!("devices.tsv");

/// A PCI device by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciId {
    /// Who made the chip.
    pub vendor: u16,
    /// Which chip.
    pub device: u16,
    /// Who made the card, and which; `None` for any.
    pub subsystem: Option<(u16, u16)>,
}

impl FromStr for PciId {
    type Err = Error;

    /// Reads `14e4:1639` or `1000:005b:1028:1f35`.
    fn from_str(text: &str) -> Result<Self> {
        let numbers: Option<Vec<u16>> = text
            .split(':')
            .map(|part| u16::from_str_radix(part, 16).ok().filter(|_| part.len() == 4 && !part.starts_with('+')))
            .collect();
        match numbers.as_deref() {
            Some(&[vendor, device]) => Ok(Self { vendor, device, subsystem: None }),
            Some(&[vendor, device, by, card]) => Ok(Self { vendor, device, subsystem: Some((by, card)) }),
            _ => Err(Error::new(
                ErrorKind::InvalidConfiguration,
                format!("{text:?}: expected a PCI device as 14e4:1639 or, with its subsystem, 1000:005b:1028:1f35"),
            )),
        }
    }
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)?;
        match self.subsystem {
            Some((by, card)) => write!(f, ":{by:04x}:{card:04x}"),
            None => Ok(()),
        }
    }
}

impl PciId {
    /// Whether a module with the alias `pattern` (`pci:v000014E4d00001639sv*sd*bc*sc*i*`) serves this device, whatever
    /// its class. Patterns that name no device, only a class, are not meant: they serve any maker's.
    pub(crate) fn is_served_by(&self, pattern: &str) -> bool {
        let fields = || {
            let (vendor, rest) = pattern.strip_prefix("pci:v0000")?.split_at_checked(4)?;
            let (device, rest) = rest.strip_prefix("d0000")?.split_at_checked(4)?;
            let (by, rest) = subsystem_field(rest.strip_prefix("sv")?)?;
            let (card, _) = subsystem_field(rest.strip_prefix("sd")?)?;
            let number = |text: &str| u16::from_str_radix(text, 16).ok();
            Some((number(vendor)?, number(device)?, by, card))
        };
        let Some((vendor, device, by, card)) = fields() else { return false };
        let agrees = |wanted: Option<u16>, own: Option<u16>| wanted.is_none() || own.is_none() || wanted == own;
        (vendor, device) == (self.vendor, self.device)
            && agrees(by, self.subsystem.map(|(by, _)| by))
            && agrees(card, self.subsystem.map(|(_, card)| card))
    }
}

/// `*` or eight digits at the start of `text`, and what is behind.
fn subsystem_field(text: &str) -> Option<(Option<u16>, &str)> {
    if let Some(rest) = text.strip_prefix('*') {
        return Some((None, rest));
    }
    let (digits, rest) = text.split_at_checked(8)?;
    Some((Some(u16::try_from(u32::from_str_radix(digits, 16).ok()?).ok()?), rest))
}

/// A part of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its numbers; with a subsystem where a maker of servers sold the chip under another name.
    pub id: PciId,
    /// Who sold it.
    pub maker: &'static str,
    /// The kernel module that drives it.
    pub module: &'static str,
    /// About the year in which it was first sold.
    pub since: Option<u16>,
    /// Its name in the PCI ID repository.
    pub name: &'static str,
}

/// All parts of the table, in the order of their numbers.
pub fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| TABLE.lines().filter_map(parse_line).collect())
}

fn parse_line(line: &'static str) -> Option<Device> {
    let mut fields = line.split('\t');
    let mut field = || fields.next();
    let (id, maker, module) = (field()?.parse().ok()?, field()?, field()?);
    Some(Device { id, maker, module, since: field()?.parse().ok(), name: field()? })
}

/// The parts that `module` drives.
pub fn devices_of(module: &str) -> Vec<&'static Device> {
    devices().iter().filter(|device| device.module == module).collect()
}

/// The part with exactly these numbers, else the one that is told without its subsystem.
pub fn find_device(id: PciId) -> Option<&'static Device> {
    let exactly = |wanted: PciId| devices().iter().find(|device| device.id == wanted);
    exactly(id).or_else(|| exactly(PciId { subsystem: None, ..id }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn every_line_of_the_table_is_read_and_stands_once_in_order() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(devices().len(), lines);
        assert!(lines >= 150, "{lines}");
        for pair in devices().windows(2) {
            assert!(pair[0].id < pair[1].id, "{} {}", pair[0].id, pair[1].id);
        }
        assert!(devices().iter().all(|d| d.since.is_none_or(|year| (2002..=2025).contains(&year))));
        for maker in ["Dell", "HP", "IBM", "Lenovo", "Fujitsu", "Broadcom", "QLogic", "LSI", "Adaptec"] {
            assert!(devices().iter().any(|device| device.maker == maker), "{maker}");
        }
    }

    /// Name of each PCI device and subsystem, by the lines of pci.ids(5).
    fn repository(text: &str) -> HashMap<String, String> {
        let (mut vendor, mut device, mut names) = ("", "", HashMap::new());
        for line in text.lines().take_while(|line| !line.starts_with("C ")).filter(|line| !line.starts_with('#')) {
            let Some((ids, name)) = line.trim_start().split_once("  ") else { continue };
            match line.bytes().take_while(|&b| b == b'\t').count() {
                0 => vendor = ids,
                1 => {
                    device = ids;
                    names.insert(format!("{vendor}:{device}"), name.trim().to_owned());
                }
                _ => {
                    names.insert(format!("{vendor}:{device}:{}", ids.replace(' ', ":")), name.trim().to_owned());
                }
            }
        }
        names
    }

    #[test]
    fn names_are_those_of_the_pci_id_repository() {
        let path = "/usr/share/misc/pci.ids";
        let text = std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}: install the package pci.ids"));
        let names = repository(&String::from_utf8_lossy(&text));
        for device in devices() {
            assert_eq!(names.get(&device.id.to_string()).map(String::as_str), Some(device.name), "{}", device.id);
        }
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for text in ["14e4:1639", "1000:005b:1028:1f35"] {
            assert_eq!(text.parse::<PciId>().unwrap().to_string(), text);
        }
        for wrong in ["", "14e4", "14e4:", "14e4:16390", "14e4:163g", "14e4:1639:1028", "+4e4:1639", "a:b"] {
            assert_eq!(wrong.parse::<PciId>().unwrap_err().kind, ErrorKind::InvalidConfiguration, "{wrong}");
        }
    }

    #[test]
    fn an_alias_serves_its_device_and_its_subsystem() {
        let serves = |pattern: &str, id: &str| id.parse::<PciId>().unwrap().is_served_by(pattern);
        assert!(serves("pci:v000014E4d00001639sv*sd*bc*sc*i*", "14e4:1639"));
        assert!(serves("pci:v000014E4d00001639sv*sd*bc*sc*i*", "14e4:1639:1028:0001"));
        assert!(!serves("pci:v000014E4d0000163Asv*sd*bc*sc*i*", "14e4:1639"));
        let smart_array = "pci:v0000103Cd0000323Asv0000103Csd00003243bc*sc*i*";
        assert!(serves(smart_array, "103c:323a") && serves(smart_array, "103c:323a:103c:3243"));
        assert!(!serves(smart_array, "103c:323a:103c:3245"));
        assert!(serves("pci:v00009005d0000028Fsv00001028sd*bc*sc*i*", "9005:028f:1028:1234"));
        assert!(!serves("pci:v*d*sv*sd*bc01sc06i01*", "14e4:1639") && !serves("usb:v14E4p1639", "14e4:1639"));
    }

    #[test]
    fn a_card_is_found_by_its_own_name_first() {
        let name = |id: &str| find_device(id.parse().unwrap()).map(|device| device.name);
        assert_eq!(name("14e4:1639"), Some("NetXtreme II BCM5709 Gigabit Ethernet"));
        assert_eq!(name("14e4:1639:1028:0235"), Some("NetXtreme II BCM5709 Gigabit Ethernet"));
        assert_eq!(name("1000:0079:1028:1f16"), Some("PERC H700 Adapter"));
        assert_eq!(name("ffff:ffff"), None);
        assert!(devices_of("hpsa").len() > 10);
    }
}
