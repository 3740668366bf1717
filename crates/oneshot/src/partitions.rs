//! The partition that a block device is: from sysfs, and from the partition table of its disk (UEFI specification 2.10, sections 5.2.1 and
//! 5.3), which is read here because sysfs does not tell types.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::efi::HardDrive;
use crate::record::to_hex;
use crate::system::System;

/// sysfs counts in these, whatever the disk's own blocks are.
const SYSFS_SECTOR: u64 = 512;
const ESP: [u8; 16] = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
const EXTENDED_BOOT: [u8; 16] = *b"\xff\xc2\x13\xbc\xe6\x59\x62\x42\xa3\x52\xb2\x75\xfd\x6f\x71\x72";
const MBR_ESP: u8 = 0xef;
const MBR_PROTECTIVE: u8 = 0xee;
/// Most entries of a GPT, and the largest of them in bytes.
const GPT_ENTRIES_MAX: u32 = 4096;
const GPT_ENTRY_BYTES_MAX: u32 = 4096;
/// Disks that are made of other devices, or of files: what is on them is not where firmware and boot loaders see it.
const STACKED: [&str; 9] = ["dm-", "md", "bcache", "loop", "nbd", "zram", "ram", "drbd", "rbd"];

/// A partition directly on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// As the kernel calls it: `sda1`.
    pub(crate) name: String,
    /// Its disk: `sda`.
    pub(crate) disk: String,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// Where it begins on the disk, in bytes.
    pub(crate) start_bytes: u64,
    /// As its partition table has it, if that could be read.
    pub(crate) entry: Option<Entry>,
}

/// An entry of a partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What the firmware is told.
    pub(crate) drive: HardDrive,
    /// What it is for.
    pub(crate) kind: Kind,
}

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// EFI system partition.
    Esp,
    /// `XBOOTLDR` of the Boot Loader Specification.
    ExtendedBoot,
    /// Anything else.
    Other,
}

impl Entry {
    /// As `PARTUUID` has it.
    pub(crate) fn uuid(&self) -> String {
        let signature = &self.drive.signature;
        if self.drive.is_gpt {
            guid(signature)
        } else {
            let disk = u32::from_le_bytes([signature[0], signature[1], signature[2], signature[3]]);
            format!("{disk:08x}-{:02x}", self.drive.number)
        }
    }
}

/// A GUID as it is printed: the first three groups are little endian.
pub(crate) fn guid(bytes: &[u8; 16]) -> String {
    let reversed = |range: std::ops::Range<usize>| to_hex(&bytes[range].iter().rev().copied().collect::<Vec<_>>());
    let (a, b, c) = (reversed(0..4), reversed(4..6), reversed(6..8));
    format!("{a}-{b}-{c}-{}-{}", to_hex(&bytes[8..10]), to_hex(&bytes[10..16]))
}

/// The partition with this device number.
///
/// # Errors
/// A sentence that says why it is none that firmware and boot loaders see as the kernel does.
pub(crate) fn load(system: &System, device: &str) -> Result<Partition, String> {
    let place = std::fs::canonicalize(system.path(Path::new("/sys/dev/block").join(device)))
        .map_err(|_| format!("block device {device} is not in sysfs: it is no disk of this machine"))?;
    let name = name_of(&place);
    let number = |file: &str| crate::system::read_text(&place.join(file))?.trim().parse::<u64>().ok();
    let Some(partition) = number("partition").and_then(|n| u32::try_from(n).ok()) else {
        return Err(match stacked(&name) {
            Some(what) => format!("{name} is {what}, not a partition of a disk"),
            None => format!("{name} has no partition table around it"),
        });
    };
    let disk_place = place.parent().map(Path::to_owned).unwrap_or_default();
    let disk = name_of(&disk_place);
    if let Some(what) = stacked(&disk) {
        return Err(format!("{name} lies on {disk}, which is {what}, not a disk"));
    }
    let (Some(start), Some(size)) = (number("start"), number("size")) else {
        return Err(format!("sysfs does not say where {name} lies"));
    };
    let block = crate::system::read_text(&disk_place.join("queue/logical_block_size"));
    let block =
        block.and_then(|text| text.trim().parse::<u64>().ok()).filter(|n| (512..=65_536).contains(n)).unwrap_or(512);
    let bytes =
        |sectors: u64| sectors.checked_mul(SYSFS_SECTOR).ok_or(format!("sysfs says that {name} ends beyond any disk"));
    let (start_bytes, bytes) = (bytes(start)?, bytes(size)?);
    let entry = File::open(node(system, &disk)).and_then(|disk| read_entry(&disk, block, partition)).ok().flatten();
    // A table that says otherwise is not the one that the kernel read.
    let entry = entry.filter(|e| e.drive.start.checked_mul(block) == Some(start_bytes));
    Ok(Partition { name, disk, bytes, start_bytes, entry })
}

/// The device node of a block device.
pub(crate) fn node(system: &System, name: &str) -> PathBuf {
    system.path(Path::new("/dev").join(name))
}

/// sysfs writes `!` for the slash in names like `cciss/c0d0`.
fn name_of(place: &Path) -> String {
    place.file_name().unwrap_or_default().to_string_lossy().replace('!', "/")
}

/// What a device is that is made of others.
pub(crate) fn stacked(name: &str) -> Option<&'static str> {
    let kind = STACKED.iter().find(|kind| {
        name.strip_prefix(**kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '_'))
    })?;
    Some(match *kind {
        "dm-" => "a device-mapper device (LVM, encryption or multipath)",
        "md" => "an MD array",
        "bcache" => "a cached device",
        "loop" => "a file",
        _ => "a device of another kind",
    })
}

fn read_entry(disk: &File, block: u64, number: u32) -> io::Result<Option<Entry>> {
    let mut mbr = [0_u8; 512];
    disk.read_exact_at(&mut mbr, 0)?;
    if mbr[510..] != [0x55, 0xaa] {
        return Ok(None);
    }
    let is_protective = (0..4).any(|at| mbr[446 + 16 * at + 4] == MBR_PROTECTIVE);
    if !is_protective {
        return Ok(parse_mbr(&mbr, number));
    }
    let mut header = [0_u8; 92];
    disk.read_exact_at(&mut header, block)?;
    let Some((at, size)) = gpt_entry_place(&header, block, number) else { return Ok(None) };
    let mut entry = vec![0; size];
    disk.read_exact_at(&mut entry, at)?;
    Ok(parse_gpt_entry(&entry, number))
}

fn parse_mbr(mbr: &[u8; 512], number: u32) -> Option<Entry> {
    let at = 446 + 16 * usize::try_from(number.checked_sub(1).filter(|n| *n < 4)?).ok()?;
    let entry = &mbr[at..at + 16];
    let word = |at: usize| u64::from(u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]));
    let mut signature = [0; 16];
    signature[..4].copy_from_slice(&mbr[440..444]);
    let drive = HardDrive { number, start: word(8), blocks: word(12), signature, is_gpt: false };
    let kind = if entry[4] == MBR_ESP { Kind::Esp } else { Kind::Other };
    Some(Entry { drive, kind })
}

/// Where an entry lies on the disk, and its size, both in bytes.
fn gpt_entry_place(header: &[u8; 92], block: u64, number: u32) -> Option<(u64, usize)> {
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let first = u64::from(word(72)) | u64::from(word(76)) << 32;
    let (count, size) = (word(80), word(84));
    let is_sound =
        header.starts_with(b"EFI PART") && count <= GPT_ENTRIES_MAX && (128..=GPT_ENTRY_BYTES_MAX).contains(&size);
    let index = number.checked_sub(1).filter(|index| is_sound && *index < count)?;
    let at = first.checked_mul(block)?.checked_add(u64::from(index) * u64::from(size))?;
    Some((at, usize::try_from(size).ok()?))
}

fn parse_gpt_entry(entry: &[u8], number: u32) -> Option<Entry> {
    let kind: [u8; 16] = entry.get(..16)?.try_into().ok()?;
    let word = |at: usize| entry.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let (start, last) = (word(32)?, word(40)?);
    let drive = HardDrive {
        number,
        start,
        blocks: last.checked_sub(start)?.checked_add(1)?,
        signature: entry.get(16..32)?.try_into().ok()?,
        is_gpt: true,
    };
    let kind = match kind {
        ESP => Kind::Esp,
        EXTENDED_BOOT => Kind::ExtendedBoot,
        _ => Kind::Other,
    };
    Some(Entry { drive, kind })
}

/// For the fuzzer: the beginning of a disk with blocks of 512 bytes.
pub fn fuzz_partition_entry(bytes: &[u8]) {
    let number = u32::from(bytes.first().copied().unwrap_or(0));
    if let Some(mbr) = bytes.first_chunk::<512>() {
        let _ = parse_mbr(mbr, number);
    }
    if let Some(header) = bytes.get(512..).and_then(<[u8]>::first_chunk::<92>) {
        let place = gpt_entry_place(header, 512, number);
        assert!(place.is_none_or(|(_, size)| size <= GPT_ENTRY_BYTES_MAX as usize));
    }
    let _ = parse_gpt_entry(bytes, number);
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// A disk with a table that sfdisk makes.
    fn disk(table: &str) -> tempfile::NamedTempFile {
        use std::io::Write;
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(64 << 20).unwrap();
        let mut sfdisk =
            Command::new("sfdisk").arg("-q").arg(disk.path()).stdin(Stdio::piped()).spawn().expect("sfdisk (fdisk)");
        sfdisk.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
        assert!(sfdisk.wait().unwrap().success());
        disk
    }

    #[test]
    fn an_esp_is_found_as_sfdisk_made_it() {
        let uuid = "5a0b1c2d-3e4f-4051-8263-748596a7b8c9";
        let table = format!("label: gpt\nsize=8M\nsize=16M,type=U,uuid={uuid}\n");
        let disk = disk(&table);
        let entry = read_entry(disk.as_file(), 512, 2).unwrap().unwrap();
        println!("{entry:?}");
        assert_eq!((entry.kind, entry.uuid().as_str(), entry.drive.blocks), (Kind::Esp, uuid, 32_768));
        assert_eq!(entry.drive.start, 2048 + 16_384);
        assert_eq!(read_entry(disk.as_file(), 512, 1).unwrap().unwrap().kind, Kind::Other);
        assert_eq!(read_entry(disk.as_file(), 512, 4000).unwrap(), None);
    }

    #[test]
    fn an_esp_on_an_mbr_disk_is_found() {
        let disk = disk("label: dos\nlabel-id: 0x1a2b3c4d\nsize=16M,type=ef\n");
        let entry = read_entry(disk.as_file(), 512, 1).unwrap().unwrap();
        assert_eq!((entry.kind, entry.uuid().as_str(), entry.drive.start), (Kind::Esp, "1a2b3c4d-01", 2048));
        assert_eq!(read_entry(disk.as_file(), 512, 5).unwrap(), None);
    }

    #[test]
    fn devices_that_are_made_of_others_are_known() {
        for name in ["dm-3", "md0", "md_d1", "md127", "loop7", "bcache0"] {
            assert!(stacked(name).is_some(), "{name}");
        }
        for name in ["sda", "nvme0n1", "vda", "cciss/c0d0", "mmcblk0", "xvda", "rssda"] {
            assert_eq!(stacked(name), None, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..1024)) {
            fuzz_partition_entry(&bytes);
            let mut header = bytes;
            header.resize(1024, 0);
            header[512..520].copy_from_slice(b"EFI PART");
            fuzz_partition_entry(&header);
        }
    }
}
