//! FAT, exFAT, NTFS, ReFS, BitLocker.

use block::BlockSource;

use super::Found;
use crate::fat::{Geometry, label};
use crate::field::{guid, le64, peek};
use crate::{exfat, ntfs};

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

/// exFAT.
pub(super) fn exfat(source: &dyn BlockSource) -> Option<Found> {
    let boot = exfat::Boot::parse(&peek(source, 0, 512)?)?;
    Found::new("exfat", boot.label(source), Some(boot.serial))
}

/// NTFS.
pub(super) fn ntfs(source: &dyn BlockSource) -> Option<Found> {
    let boot = ntfs::Boot::load(source)?;
    Found::new("ntfs", ntfs::label(source, &boot), Some(boot.serial))
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
