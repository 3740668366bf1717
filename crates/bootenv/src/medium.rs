//! The medium that the boot image came from: a USB stick with it is no disk of the machine.
//!
//! The builder writes one name into the initramfs' configuration and into the ISO, as its volume set identifier (ECMA-119,
//! section 8.4.19). Only a disk that bears the same name is left out; a CD is none of the machine's disks anyway.

use std::fs;
use std::io::{Read, Seek, SeekFrom};

use crate::disks::device_path;

/// The word on the kernel's command line by which a boot loader says what it came from: the configurations that the
/// builder and the PXE service give their loaders have it.
const WORD: &str = "vconverter.boot=";

/// Where the builder puts the name.
const NAME: &str = "/vconverter.medium";
/// The primary volume descriptor lies in sector 16 of 2048 bytes.
const DESCRIPTOR_OFFSET: u64 = 16 * 2048;
const VOLUME_SET: std::ops::Range<usize> = 190..318;

/// What the boot loader says that it came from: `iso`, `pxe`, or `push` where a running system was started into it.
pub fn started_from() -> Option<&'static str> {
    said(&fs::read_to_string("/proc/cmdline").unwrap_or_default())
}

/// The last word counts, as for the kernel itself; one that is not known says nothing.
fn said(command_line: &str) -> Option<&'static str> {
    let word = command_line.split_ascii_whitespace().filter_map(|word| word.strip_prefix(WORD)).next_back()?;
    ["iso", "pxe", "push"].into_iter().find(|known| *known == word)
}

/// Whether disk `name` is the medium that we came from. What cannot be read is none.
pub fn is_own(name: &str) -> bool {
    let own = fs::read_to_string(NAME).unwrap_or_default();
    let mut descriptor = [0; 2048];
    let read = fs::File::open(device_path(name)).and_then(|mut disk| {
        disk.seek(SeekFrom::Start(DESCRIPTOR_OFFSET))?;
        disk.read_exact(&mut descriptor)
    });
    read.is_ok() && bears(&descriptor, own.trim())
}

/// Whether a primary volume descriptor bears the name `own` of a boot image.
fn bears(descriptor: &[u8; 2048], own: &str) -> bool {
    let set = &descriptor[VOLUME_SET];
    let end = set.iter().rposition(|&b| b != b' ' && b != 0).map_or(0, |last| last + 1);
    descriptor[..6] == *b"\x01CD001" && own.len() >= 16 && set[..end] == *own.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_loader_says_what_it_came_from() {
        assert_eq!(said("console=tty0 vconverter.boot=iso loglevel=5\n"), Some("iso"));
        assert_eq!(said("vconverter.boot=iso vconverter.boot=pxe"), Some("pxe"));
        assert_eq!(said("panic=10 oops=panic vconverter.boot=push"), Some("push"));
        assert_eq!([said(""), said("vconverter.boot=toaster"), said("xvconverter.boot=iso")], [None; 3]);
    }

    #[test]
    fn only_the_same_name_is_the_own_medium() {
        let mut descriptor = [0; 2048];
        descriptor[..6].copy_from_slice(b"\x01CD001");
        descriptor[VOLUME_SET].fill(b' ');
        descriptor[VOLUME_SET][..16].copy_from_slice(b"0123456789abcdef");
        assert!(bears(&descriptor, "0123456789abcdef"));
        assert!(!bears(&descriptor, "0123456789abcdee") && !bears(&descriptor, ""));
        descriptor[VOLUME_SET.start + 16] = b'x';
        assert!(!bears(&descriptor, "0123456789abcdef"));
        assert!(!bears(&[0; 2048], "0123456789abcdef") && !bears(&[b' '; 2048], ""));
    }
}
