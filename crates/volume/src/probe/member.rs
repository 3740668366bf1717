//! Members of RAID sets, of volume groups, caches and encrypted volumes.

use block::BlockSource;

use super::Found;
use crate::field::{array, be32, be64, le32, le64, peek, text, uuid};
use crate::lvm::PhysicalVolume;

const MD_MAGIC: u32 = 0xa92b_4efc;

/// Linux software RAID (`include/uapi/linux/raid/md_p.h`), superblock 0.90 and 1.x.
pub(super) fn linux_raid(source: &dyn BlockSource) -> Option<Found> {
    let size = source.size().0;
    let version_1 = [(size & !0xfff).checked_sub(0x2000), Some(0), Some(0x1000)];
    for at in version_1.into_iter().flatten() {
        let Some(superblock) = peek(source, at, 256) else { continue };
        if le32(&superblock, 0) == MD_MAGIC && le32(&superblock, 4) == 1 && le64(&superblock, 144) == at >> 9 {
            return Found::new("linux_raid_member", text(&superblock[32..64]), uuid(&superblock, 16));
        }
    }
    // Version 0.90 lies in the last whole 64 KiB but one, in the byte order of its machine.
    let superblock = peek(source, (size & !0xffff).checked_sub(0x1_0000)?, 4096)?;
    let word: fn(&[u8], usize) -> u32 = match (le32(&superblock, 0), be32(&superblock, 0)) {
        (MD_MAGIC, _) => le32,
        (_, MD_MAGIC) => be32,
        _ => return None,
    };
    let mut id = [0; 16];
    for (field, at) in id.chunks_exact_mut(4).zip([20, 52, 56, 60]) {
        // Before 0.90.0 there was only the first word.
        let value = if at == 20 || word(&superblock, 8) >= 90 { word(&superblock, at) } else { 0 };
        field.copy_from_slice(&value.to_be_bytes());
    }
    (word(&superblock, 4) == 0).then(|| Found { kind: "linux_raid_member", label: None, uuid: uuid(&id, 0) })
}

/// SNIA Common RAID Disk Data Format: an anchor in the last sector, or where Adaptec puts it.
pub(super) fn ddf(source: &dyn BlockSource) -> Option<Found> {
    [1, 257].into_iter().find_map(|sectors: u64| {
        let anchor = peek(source, source.size().0.checked_sub(sectors * 512)?, 512)?;
        let primary_sector = match anchor[..4] {
            [0xde, 0x11, 0xde, 0x11] => be64(&anchor, 96),
            [0x11, 0xde, 0x11, 0xde] => le64(&anchor, 96),
            _ => return None,
        };
        let primary = peek(source, primary_sector.checked_mul(512)?, 512)?;
        (primary[..4] == anchor[..4]).then(|| Found {
            kind: "ddf_raid_member",
            label: None,
            uuid: text(&anchor[8..32]),
        })
    })
}

/// Intel Matrix RAID: a signature in the last sector but one.
pub(super) fn intel(source: &dyn BlockSource) -> Option<Found> {
    let sector = u64::from(source.logical_sector_size().bytes());
    [sector, 512, 4096].into_iter().find_map(|sector| {
        let at = (source.size().0 / sector).checked_sub(2)? * sector;
        let signature = peek(source, at, 24)?;
        (signature == b"Intel Raid ISM Cfg Sig. ").then(|| Found { kind: "isw_raid_member", ..Found::default() })
    })
}

/// bcache and bcachefs (`include/uapi/linux/bcache.h`).
pub(super) fn bcache(source: &dyn BlockSource) -> Option<Found> {
    let superblock = peek(source, 4096, 256)?;
    let magic: [u8; 16] = array(&superblock, 24);
    match magic {
        [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81] => {
            (le64(&superblock, 8) == 8).then(|| Found {
                kind: "bcache",
                label: text(&superblock[72..104]),
                uuid: uuid(&superblock, 40),
            })
        }
        [0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef] => {
            Found::new("bcachefs", text(&superblock[72..104]), uuid(&superblock, 56))
        }
        _ => None,
    }
}

/// A physical volume of LVM2.
pub(super) fn lvm2(source: &dyn BlockSource) -> Option<Found> {
    Found::new("LVM2_member", None, Some(PhysicalVolume::load(source)?.uuid))
}

/// LUKS, versions 1 and 2; version 2 has a second header, which counts when the first is lost.
pub(super) fn luks(source: &dyn BlockSource) -> Option<Found> {
    let found = |header: &[u8]| {
        let label = if header[7] == 2 { text(&header[24..72]) } else { None };
        Found { kind: "crypto_LUKS", label, uuid: text(&header[168..208]) }
    };
    let first = peek(source, 0, 512)?;
    if first.starts_with(b"LUKS\xba\xbe") && first[6] == 0 && matches!(first[7], 1 | 2) {
        return Some(found(&first));
    }
    (0..9).find_map(|shift| {
        let at = 0x4000u64 << shift;
        let second = peek(source, at, 512)?;
        let valid = second.starts_with(b"SKUL\xba\xbe\0\x02") && be64(&second, 256) == at;
        valid.then(|| found(&second))
    })
}

/// A device of a VMware datastore.
pub(super) fn vmfs_volume(source: &dyn BlockSource) -> Option<Found> {
    let header = peek(source, 0x10_0000, 512)?;
    if le32(&header, 0) == 0xc001_d00d { Found::new("VMFS_volume_member", None, None) } else { None }
}
