//! FAT, exFAT, NTFS, ReFS, BitLocker.

use block::BlockSource;

use super::Found;
use crate::fat::{Geometry, label};
use crate::field::{guid, le16, le32, le64, peek, utf16};

/// Attributes of the $Volume file, and directory entries of exFAT, that are looked through.
const ENTRIES_MAX: usize = 10_000;
const BITLOCKER_GUID: &str = "4967d63b-2e29-4ad8-8399-f6a339e3d001";

/// FAT12, FAT16, FAT32.
pub(super) fn fat(source: &dyn BlockSource) -> Option<Found> {
    let geometry = Geometry::parse(&peek(source, 0, 512)?)?;
    if geometry.fs_info != 0 {
        // A FAT32 whose second structure is something else is none; blkid and Linux accept an empty one.
        let info = peek(source, geometry.fs_info, 512)?;
        let signed = (&info[..4] == b"RRaA" || &info[..4] == b"RRdA") && &info[484..488] == b"rrAa";
        if !signed && (info[..4] != [0; 4] || info[484..488] != [0; 4]) {
            return None;
        }
    }
    Found::new("vfat", label(source, &geometry), geometry.serial)
}

/// exFAT (Microsoft's exFAT specification, section 3 and 7.3).
pub(super) fn exfat(source: &dyn BlockSource) -> Option<Found> {
    let boot = peek(source, 0, 512).filter(|boot| &boot[3..11] == b"EXFAT   ")?;
    let (sector_shift, cluster_shift) = (u32::from(boot[108]), u32::from(boot[109]));
    if !(9..=12).contains(&sector_shift) || sector_shift + cluster_shift > 25 || boot[510..512] != [0x55, 0xaa] {
        return None;
    }
    let sector = |at: usize| u64::from(le32(&boot, at)) << sector_shift;
    let (fat, heap, clusters) = (sector(80), sector(88), le32(&boot, 92));
    let serial = le32(&boot, 100);
    let mut cluster = le32(&boot, 96);
    let mut label = None;
    let mut seen = 0;
    'chain: while cluster >= 2 && cluster - 2 < clusters && seen < ENTRIES_MAX {
        let at = heap + (u64::from(cluster - 2) << (sector_shift + cluster_shift));
        // Not more of a cluster than is looked at.
        let Some(bytes) = peek(source, at, (1usize << (sector_shift + cluster_shift)).min(ENTRIES_MAX * 32)) else {
            break;
        };
        for entry in bytes.chunks_exact(32) {
            seen += 1;
            match entry[0] {
                0 => break 'chain,
                0x83 => {
                    label = utf16(&entry[2..2 + 2 * usize::from(entry[1].min(11))], le16);
                    break 'chain;
                }
                _ => {}
            }
        }
        cluster = match peek(source, fat + u64::from(cluster) * 4, 4) {
            Some(next) => le32(&next, 0),
            None => break,
        };
    }
    Found::new("exfat", label, Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)))
}

/// NTFS; the label is an attribute of the file $Volume, the fourth record of the master file table.
pub(super) fn ntfs(source: &dyn BlockSource) -> Option<Found> {
    let boot = peek(source, 0, 512).filter(|boot| &boot[3..11] == b"NTFS    ")?;
    let sector = u64::from(le16(&boot, 11));
    if !sector.is_power_of_two() || !(256..=4096).contains(&sector) {
        return None;
    }
    let cluster_sectors = match boot[13] {
        n @ (1 | 2 | 4 | 8 | 16 | 32 | 64 | 128) => u64::from(n),
        n @ 240..=249 => 1 << (256 - u64::from(n)),
        _ => return None,
    };
    // Fields of FAT that must be zero here.
    if le16(&boot, 14) != 0 || boot[16] != 0 || le32(&boot, 17) != 0 || le16(&boot, 22) != 0 || le32(&boot, 32) != 0 {
        return None;
    }
    let cluster = sector * cluster_sectors;
    let record = match boot[64] {
        n @ 1..=127 => u64::from(n) * cluster,
        n @ 0xe1..=0xff => 1u64 << (256 - u32::from(n)),
        _ => return None,
    };
    let record = usize::try_from(record).ok().filter(|r| (512..=65536).contains(r))?;
    let table = le64(&boot, 48).checked_mul(cluster)?;
    peek(source, table, record).filter(|r| r.starts_with(b"FILE"))?;
    let volume = peek(source, table.checked_add(3 * record as u64)?, record).filter(|r| r.starts_with(b"FILE"))?;
    let mut at = usize::from(le16(&volume, 20));
    let mut label = None;
    for _ in 0..ENTRIES_MAX {
        let Some(attribute) = volume.get(at..).filter(|a| a.len() >= 24) else { break };
        let (kind, length) = (le32(attribute, 0), le32(attribute, 4) as usize);
        if kind == u32::MAX || length < 24 {
            break;
        }
        if kind == 0x60 {
            let start = usize::from(le16(attribute, 20));
            let size = le32(attribute, 16) as usize;
            label = start.checked_add(size).and_then(|end| attribute.get(start..end)).and_then(|v| utf16(v, le16));
            break;
        }
        at = at.saturating_add(length);
    }
    Found::new("ntfs", label, Some(format!("{:016X}", le64(&boot, 72))))
}

/// ReFS.
pub(super) fn refs(source: &dyn BlockSource) -> Option<Found> {
    let boot = peek(source, 0, 512)?;
    if boot[..8] == *b"\0\0\0ReFS\0" { Found::new("ReFS", None, None) } else { None }
}

/// BitLocker: Vista's form, the one since Windows 7, and "to go" behind a FAT boot sector.
pub(super) fn bitlocker(source: &dyn BlockSource) -> Option<Found> {
    let boot = peek(source, 0, 512)?;
    match &boot[..11] {
        b"\xeb\x52\x90-FVE-FS-" => Found::new("BitLocker", None, None),
        b"\xeb\x58\x90-FVE-FS-" if guid(&boot, 160) == BITLOCKER_GUID => metadata(source, le64(&boot, 176)),
        b"\xeb\x58\x90MSWIN4.1" if guid(&boot, 424) == BITLOCKER_GUID => metadata(source, le64(&boot, 440)),
        _ => None,
    }
}

/// The metadata block at `at` has to be there.
fn metadata(source: &dyn BlockSource, at: u64) -> Option<Found> {
    let header = peek(source, at, 112)?;
    if header.starts_with(b"-FVE-FS-") { Found::new("BitLocker", None, None) } else { None }
}
