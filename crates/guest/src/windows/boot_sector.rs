//! What a BIOS starts Windows from: the disk's signature in its first sector, and the geometry in the boot sector of the
//! partition; read, and changed as raw patches.
//!
//! Boot code of Windows before Vista reads NTLDR by heads and sectors of that geometry as long as the sectors are within
//! reach of a BIOS' old functions, and adds the hidden sectors to every sector of the partition. Both are those of the disk
//! and place where the partition was formatted. Bootmgr (Vista and later) reads the partition's place from the partition
//! table and uses the BIOS' extended functions; its sectors are right with the same values, too.
//!
//! Sources: Microsoft's FAT specification 1.03, "Boot Sector and BPB"; the same fields of NTFS in "How NTFS Works"
//! (Windows Server 2003 Technical Reference); "BIOS Enhanced Disk Drive Specification" 1.1, LBA-assisted translation, for
//! what heads a BIOS shows.

use std::fmt;

use machine::{ByteOffset, SectorSize};
use serde::Serialize;

use crate::plan::RawPatch;
use crate::{Error, ErrorKind, Result};

/// Bytes of a boot sector that are looked at.
const LENGTH: usize = 512;

/// Offsets within a master boot record.
mod mbr {
    /// The disk signature; boot code ends here.
    pub(super) const SIGNATURE: usize = 0x1b8;
}

/// Offsets within a boot sector.
mod at {
    pub(super) const SYSTEM: usize = 0x03;
    pub(super) const SECTOR_SIZE: usize = 0x0b;
    pub(super) const SECTORS_PER_TRACK: usize = 0x18;
    pub(super) const HIDDEN: usize = 0x1c;
    pub(super) const NTFS_SECTORS: usize = 0x28;
    pub(super) const FAT_TYPE: usize = 0x36;
    pub(super) const FAT32_TYPE: usize = 0x52;
    pub(super) const MARK: usize = 0x1fe;
}

/// Sectors of a track that every BIOS shows of a disk without cylinders of its own.
const TRACK: u16 = 63;

/// How a boot sector says a disk is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Geometry {
    /// Sectors of a track.
    pub sectors_per_track: u16,
    /// Heads.
    pub heads: u16,
    /// Sectors of the disk before the partition.
    pub hidden: u32,
}

impl Geometry {
    /// What a BIOS with LBA-assisted translation shows of a disk of so many sectors, for a partition that begins at sector
    /// `start`; `None` where that is beyond 32 bits.
    pub fn of_bios(disk_sectors: u64, start: u64) -> Option<Self> {
        const CYLINDERS_MAX: u64 = 1024;
        let fits = |heads: &u16| disk_sectors <= CYLINDERS_MAX * u64::from(*heads) * u64::from(TRACK);
        let heads = [16, 32, 64, 128].into_iter().find(fits).unwrap_or(255);
        Some(Self { sectors_per_track: TRACK, heads, hidden: u32::try_from(start).ok()? })
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sectors_per_track, heads, hidden } = self;
        write!(f, "{heads} heads, {sectors_per_track} sectors per track, {hidden} hidden sectors")
    }
}

/// Whose boot sector it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Filesystem {
    /// NTFS.
    Ntfs,
    /// FAT12, FAT16 or FAT32.
    Fat,
}

/// The boot sector of a partition, as far as its place on the disk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct BootSector {
    /// Whose.
    pub filesystem: Filesystem,
    /// Bytes of a sector.
    pub sector_size: u16,
    /// How the disk is addressed.
    pub geometry: Geometry,
}

impl BootSector {
    /// The boot sector in `sector`, the first bytes of a partition.
    ///
    /// # Errors
    /// `Malformed` for what is none of NTFS or FAT.
    pub fn parse(sector: &[u8]) -> Result<Self> {
        let wrong = |at: usize, what: &str| Error::new(ErrorKind::Malformed, format!("boot sector at {at:#x}: {what}"));
        if sector.len() < LENGTH {
            return Err(wrong(sector.len(), &format!("expected {LENGTH} bytes, found its end")));
        }
        let le16 = |at: usize| u16::from_le_bytes([sector[at], sector[at + 1]]);
        if le16(at::MARK) != 0xaa55 {
            return Err(wrong(at::MARK, &format!("expected 0xaa55, found {:#06x}", le16(at::MARK))));
        }
        let is_fat = |at: usize| sector[at..].starts_with(b"FAT");
        let filesystem = if sector[at::SYSTEM..].starts_with(b"NTFS    ") {
            Filesystem::Ntfs
        } else if is_fat(at::FAT_TYPE) || is_fat(at::FAT32_TYPE) {
            Filesystem::Fat
        } else {
            let found = sector[at::SYSTEM..at::SYSTEM + 8].escape_ascii();
            return Err(wrong(at::SYSTEM, &format!("expected NTFS or FAT, found {found}")));
        };
        let sector_size = le16(at::SECTOR_SIZE);
        if SectorSize::try_from(u32::from(sector_size)).is_err() {
            return Err(wrong(at::SECTOR_SIZE, &format!("expected the size of a sector, found {sector_size}")));
        }
        let hidden = u32::from(le16(at::HIDDEN)) | u32::from(le16(at::HIDDEN + 2)) << 16;
        let geometry =
            Geometry { sectors_per_track: le16(at::SECTORS_PER_TRACK), heads: le16(at::SECTORS_PER_TRACK + 2), hidden };
        Ok(Self { filesystem, sector_size, geometry })
    }
}

impl fmt::Display for BootSector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.filesystem {
            Filesystem::Ntfs => "NTFS",
            Filesystem::Fat => "FAT",
        };
        write!(f, "{name}, sectors of {} bytes, {}", self.sector_size, self.geometry)
    }
}

/// Where NTFS has the copy of its boot sector, in bytes from the first one: behind the last sector that it tells of; `None` for another
/// filesystem.
pub fn copy_offset(sector: &[u8]) -> Option<u64> {
    let found = BootSector::parse(sector).ok().filter(|found| found.filesystem == Filesystem::Ntfs)?;
    let sectors = u64::from_le_bytes(sector[at::NTFS_SECTORS..at::NTFS_SECTORS + 8].try_into().ok()?);
    sectors.checked_mul(u64::from(found.sector_size))
}

/// The patch after which the boot sector in `sector`, which lies at `offset` of disk `disk`, says `wanted`; `None` where it
/// does. The copy that NTFS has in the partition's last sector is patched the same way, with its own offset.
///
/// # Errors
/// As [`BootSector::parse`].
pub fn plan_geometry(disk: usize, offset: ByteOffset, sector: &[u8], wanted: Geometry) -> Result<Option<RawPatch>> {
    let found = BootSector::parse(sector)?;
    let mut new = Vec::with_capacity(8);
    new.extend(wanted.sectors_per_track.to_le_bytes());
    new.extend(wanted.heads.to_le_bytes());
    new.extend(wanted.hidden.to_le_bytes());
    let reason = format!("boot sector: {} becomes {wanted}", found.geometry);
    Ok(RawPatch::of((disk, offset), sector, at::SECTORS_PER_TRACK, &new, reason))
}

/// The disk signature in the first sector of a disk; `None` where that is no master boot record.
pub fn disk_signature(first_sector: &[u8]) -> Option<u32> {
    let bytes = first_sector.get(mbr::SIGNATURE..mbr::SIGNATURE + 4)?;
    let is_mbr = first_sector.get(at::MARK..LENGTH) == Some(&[0x55, 0xaa]);
    is_mbr.then(|| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// The patch after which disk `disk` has this signature; `None` where it has it.
///
/// # Errors
/// `Malformed` where `first_sector` is no master boot record.
pub fn plan_signature(disk: usize, first_sector: &[u8], signature: u32) -> Result<Option<RawPatch>> {
    let Some(found) = disk_signature(first_sector) else {
        let context = format!("master boot record at {:#x}: expected 0xaa55, found another disk", at::MARK);
        return Err(Error::new(ErrorKind::Malformed, context));
    };
    let reason = format!("disk signature: {found:08x} becomes {signature:08x}");
    Ok(RawPatch::of((disk, ByteOffset::ZERO), first_sector, mbr::SIGNATURE, &signature.to_le_bytes(), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bios_shows_as_many_heads_as_its_1024_cylinders_need() {
        // (MiB of the disk, heads): the bounds of the EDD specification are 504 MiB, 1008 MiB, 2016 MiB and 4032 MiB.
        for (size, heads) in
            [(64, 16), (504, 16), (505, 32), (1008, 32), (2016, 64), (4032, 128), (4033, 255), (1 << 21, 255)]
        {
            let geometry = Geometry::of_bios(size * 2048, 63).unwrap();
            assert_eq!((geometry.heads, geometry.sectors_per_track, geometry.hidden), (heads, 63, 63), "{size} MiB");
        }
        assert_eq!(Geometry::of_bios(1 << 40, 1 << 32), None);
    }

    #[test]
    fn what_is_no_boot_sector_is_refused_with_its_position() {
        let mut sector = vec![0; 512];
        let said = |sector: &[u8]| BootSector::parse(sector).unwrap_err().to_string();
        assert_eq!(said(&sector[..100]), "boot sector at 0x64: expected 512 bytes, found its end");
        assert_eq!(said(&sector), "boot sector at 0x1fe: expected 0xaa55, found 0x0000");
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector[3..11].copy_from_slice(b"EXFAT   ");
        assert_eq!(said(&sector), "boot sector at 0x3: expected NTFS or FAT, found EXFAT   ");
        sector[3..11].copy_from_slice(b"NTFS    ");
        assert_eq!(said(&sector), "boot sector at 0xb: expected the size of a sector, found 0");
        assert!(plan_signature(0, &[0; 512], 1).is_err());
    }
}
