//! Names of devices for the boot image: the PCI and USB ID repositories of Debian's packages `pci.ids` and `usb.ids`,
//! without what nobody asks of a machine's own devices.
//!
//! The form stays that of the repositories: a line for each maker, its devices behind a tab, cards of them behind two.

use std::collections::HashSet;
use std::fs;

use crate::devices::{TABLE, devices};
use crate::package::find_file;

/// The files below `lib/vconverter` of the boot image, by their names. What cannot be had is told and left out: devices are
/// shown by their numbers then.
pub(crate) fn device_names(progress: &mut dyn FnMut(&str)) -> Vec<(&'static str, String)> {
    let chips: HashSet<(u16, u16)> = devices().iter().map(|device| (device.id.vendor, device.id.device)).collect();
    let mut files = vec![("devices.tsv", TABLE.to_owned())];
    for (name, cards) in [("pci.ids", &chips), ("usb.ids", &HashSet::new())] {
        let found = find_file(&format!("/usr/share/misc/{name}"), name, progress);
        let read = found.map_err(|error| error.to_string()).and_then(|path| fs::read(path).map_err(|e| e.to_string()));
        match read {
            Ok(text) => files.push((name, reduce(&String::from_utf8_lossy(&text), cards))),
            Err(why) => progress(&format!("names of devices: {why}")),
        }
    }
    files
}

/// Makers and their devices; cards only of the chips `cards`, whose makers' names for them are those that people know.
fn reduce(repository: &str, cards: &HashSet<(u16, u16)>) -> String {
    let number = |text: &str| u16::from_str_radix(text.get(..4)?, 16).ok();
    let (mut vendor, mut device) = (None, None);
    let mut reduced = String::new();
    // Comments stand between the devices of a maker too.
    for line in repository.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let is_wanted = match (line.strip_prefix("\t\t"), line.strip_prefix('\t')) {
            (Some(_), _) => vendor.zip(device).is_some_and(|chip| cards.contains(&chip)),
            (None, Some(rest)) => {
                device = number(rest);
                vendor.is_some() && device.is_some()
            }
            (None, None) => {
                // Other lists (classes, languages) begin with a word of another form.
                vendor = number(line).filter(|_| line.get(4..6) == Some("  "));
                vendor.is_some()
            }
        };
        if is_wanted {
            reduced.push_str(line.trim_end());
            reduced.push('\n');
        }
    }
    reduced
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# comment\n\n1000  Broadcom / LSI\n\t0060  MegaRAID SAS 1078\n\t\t1028 1f0a  PERC 6/E\n\
        # nee LSI\n\t0072  SAS2008\n\t\t1028 1f1c  PERC H200\n14e4  Broadcom\n\t1639  BCM5709\n\nC 01  Mass storage controller\n\
        \t04  RAID bus controller\nHID 21  HID\nAT 0100  Streaming\n";

    #[test]
    fn makers_and_devices_stay_and_cards_of_known_chips() {
        let reduced = reduce(TEXT, &HashSet::from([(0x1000, 0x0072)]));
        assert_eq!(
            reduced,
            "1000  Broadcom / LSI\n\t0060  MegaRAID SAS 1078\n\t0072  SAS2008\n\t\t1028 1f1c  PERC H200\n\
             14e4  Broadcom\n\t1639  BCM5709\n"
        );
    }

    #[test]
    fn the_repositories_of_the_packages_are_read() {
        let files = device_names(&mut |line| println!("{line}"));
        let sizes: Vec<_> = files.iter().map(|(name, text)| (*name, text.len())).collect();
        println!("{sizes:?}");
        let text = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, text)| text.as_str());
        let pci = text("pci.ids").expect("install the package pci.ids");
        assert!(pci.contains("\n\t0060  MegaRAID SAS 1078\n") && pci.contains("1f16  PERC H700 Adapter\n"));
        assert!(text("usb.ids").expect("install the package usb.ids").contains("\n0bda  Realtek"));
        assert!(sizes.iter().map(|(_, size)| size).sum::<usize>() < 2 << 20, "{sizes:?}");
    }
}
