//! Filesystems of Linux and other Unix systems.

use block::BlockSource;

use super::Found;
use crate::checksum::crc32c;
use crate::ext::Superblock;
use crate::field::{array, be16, be32, le16, le32, le64, peek, text, utf16, uuid};
use crate::swap::Swap;

/// Swap areas; `swsuspend` when the machine hibernated into it.
pub(super) fn swap(source: &dyn BlockSource) -> Option<Found> {
    let swap = Swap::load(source)?;
    Found::new(if swap.hibernated { "swsuspend" } else { "swap" }, swap.label, swap.uuid)
}

/// ext2, ext3, ext4 and their journal devices.
pub(super) fn ext(source: &dyn BlockSource) -> Option<Found> {
    let superblock = Superblock::load(source)?;
    Found::new(superblock.kind(), superblock.label(), superblock.uuid())
}

/// XFS (xfsprogs, "XFS Algorithms & Data Structures", superblocks).
pub(super) fn xfs(source: &dyn BlockSource) -> Option<Found> {
    let sb = peek(source, 0, 512).filter(|sb| sb.starts_with(b"XFSB"))?;
    let is_log = |size: u32, log: u8| 1u32.checked_shl(log.into()) == Some(size);
    let valid = is_log(be32(&sb, 4), sb[120])
        && (9..=16).contains(&sb[120])
        && is_log(be16(&sb, 102).into(), sb[121])
        && is_log(be16(&sb, 104).into(), sb[122])
        && be32(&sb, 84) > 0
        && be32(&sb, 88) > 0;
    if valid { Found::new("xfs", text(&sb[108..120]), uuid(&sb, 32)) } else { None }
}

/// btrfs (`include/uapi/linux/btrfs_tree.h`, struct btrfs_super_block).
pub(super) fn btrfs(source: &dyn BlockSource) -> Option<Found> {
    let sb = peek(source, 0x1_0000, 4096).filter(|sb| &sb[64..72] == b"_BHRfS_M")?;
    // Checksum type 0 is CRC-32C.
    let valid = le16(&sb, 196) != 0 || !crc32c(!0, &sb[32..]) == le32(&sb, 0);
    if valid { Found::new("btrfs", text(&sb[299..555]), uuid(&sb, 32)) } else { None }
}

/// ReiserFS 3.5, 3.6 and with a relocated journal.
pub(super) fn reiserfs(source: &dyn BlockSource) -> Option<Found> {
    [0x1_0000, 0x2000].into_iter().find_map(|at| {
        let sb = peek(source, at, 256)?;
        let modern = sb[52..].starts_with(b"ReIsEr2Fs") || sb[52..].starts_with(b"ReIsEr3Fs");
        match &sb[52..60] {
            b"ReIsErFs" => Found::new("reiserfs", None, None),
            _ if modern => Found::new("reiserfs", text(&sb[100..116]), uuid(&sb, 84)),
            _ => None,
        }
    })
}

/// JFS.
pub(super) fn jfs(source: &dyn BlockSource) -> Option<Found> {
    let sb = peek(source, 0x8000, 256).filter(|sb| sb.starts_with(b"JFS1"))?;
    let valid = 1u32.checked_shl(le16(&sb, 28).into()) == Some(le32(&sb, 24));
    if valid { Found::new("jfs", text(&sb[152..168]), uuid(&sb, 136)) } else { None }
}

/// OCFS2.
pub(super) fn ocfs2(source: &dyn BlockSource) -> Option<Found> {
    [1024, 2048, 4096, 8192].into_iter().find_map(|at| {
        let sb = peek(source, at, 512).filter(|sb| sb.starts_with(b"OCFSV2"))?;
        Found::new("ocfs2", text(&sb[0x110..0x150]), uuid(&sb, 0x150))
    })
}

/// GFS2.
pub(super) fn gfs2(source: &dyn BlockSource) -> Option<Found> {
    let sb = peek(source, 0x1_0000, 512).filter(|sb| be32(sb, 0) == 0x0116_1970 && be32(sb, 4) == 1)?;
    let formats = (1800..=1802).contains(&be32(&sb, 24)) && be32(&sb, 28) == 1900;
    if formats { Found::new("gfs2", text(&sb[160..224]), uuid(&sb, 256)) } else { None }
}

/// F2FS.
pub(super) fn f2fs(source: &dyn BlockSource) -> Option<Found> {
    let sb = peek(source, 1024, 1148).filter(|sb| le32(sb, 0) == 0xf2f5_2010)?;
    if le16(&sb, 4) == 1 && le16(&sb, 6) == 0 {
        return Found::new("f2fs", None, None);
    }
    Found::new("f2fs", utf16(&sb[124..], le16), uuid(&sb, 108))
}

/// NILFS2.
pub(super) fn nilfs2(source: &dyn BlockSource) -> Option<Found> {
    let sb = peek(source, 1024, 1024).filter(|sb| le16(sb, 6) == 0x3434)?;
    let length = usize::from(le16(&sb, 8));
    if !(20..=1024).contains(&length) {
        return None;
    }
    let seed = le32(&sb, 12);
    let mut covered = sb[..length].to_vec();
    covered[16..20].fill(0);
    let valid = crate::checksum::crc32(seed, &covered) == le32(&sb, 16);
    if valid { Found::new("nilfs2", text(&sb[168..248]), uuid(&sb, 152)) } else { None }
}

/// SquashFS; versions before 4 are named apart.
pub(super) fn squashfs(source: &dyn BlockSource) -> Option<Found> {
    let sb = peek(source, 0, 96)?;
    match &sb[..4] {
        b"hsqs" if le16(&sb, 28) >= 4 => Found::new("squashfs", None, None),
        b"hsqs" => Found::new("squashfs3", None, None),
        b"sqsh" if be16(&sb, 28) < 4 => Found::new("squashfs3", None, None),
        _ => None,
    }
}

/// EROFS.
pub(super) fn erofs(source: &dyn BlockSource) -> Option<Found> {
    let sb = peek(source, 1024, 128).filter(|sb| le32(sb, 0) == 0xe0f5_e1e2)?;
    Found::new("erofs", text(&sb[64..80]), uuid(&sb, 48))
}

/// A VMware datastore by itself.
pub(super) fn vmfs(source: &dyn BlockSource) -> Option<Found> {
    let sb = peek(source, 0x20_0000, 256).filter(|sb| le32(sb, 0) == 0x2fab_f15e)?;
    let tail: String = sb[19..25].iter().map(|b| format!("{b:02x}")).collect();
    let uuid = format!("{:08x}-{:08x}-{:04x}-{tail}", le32(&sb, 9), le32(&sb, 13), le16(&sb, 17));
    Found::new("VMFS", text(&sb[29..157]), Some(uuid))
}

/// VxFS, in either byte order.
pub(super) fn vxfs(source: &dyn BlockSource) -> Option<Found> {
    let is_little = peek(source, 1024, 4).is_some_and(|sb| le32(&sb, 0) == 0xa501_fcf5);
    let is_big = peek(source, 8192, 4).is_some_and(|sb| be32(&sb, 0) == 0xa501_fcf5);
    if is_little || is_big { Found::new("vxfs", None, None) } else { None }
}

/// zonefs.
pub(super) fn zonefs(source: &dyn BlockSource) -> Option<Found> {
    let sb = peek(source, 0, 88).filter(|sb| sb.starts_with(b"SFOZ"))?;
    Found::new("zonefs", text(&sb[8..72]), None)
}

/// HFS+ and HFSX, not inside an HFS wrapper. Their UUID is a digest that blkid computes and that is left out.
pub(super) fn hfs_plus(source: &dyn BlockSource) -> Option<Found> {
    let header = peek(source, 1024, 512)?;
    match &header[..4] {
        b"H+\0\x04" | b"HX\0\x05" => Found::new("hfsplus", None, None),
        _ => None,
    }
}

/// ZFS: four valid uberblocks in one of the labels; name and GUID of the pool from the label's list of pairs.
pub(super) fn zfs(source: &dyn BlockSource) -> Option<Found> {
    const LABEL: u64 = 256 << 10;
    let size = source.size().0 & !(LABEL - 1);
    let labels = [Some(0), Some(LABEL), size.checked_sub(2 * LABEL), size.checked_sub(LABEL)];
    labels.into_iter().flatten().find_map(|label| {
        let uberblocks = peek(source, label + (128 << 10), 128 << 10)?;
        let valid = uberblocks
            .chunks_exact(1024)
            .filter(|u| le64(u, 0) == 0x00ba_b10c || array::<8>(u, 0) == 0x00ba_b10cu64.to_be_bytes());
        if valid.count() < 4 {
            return None;
        }
        let pairs = peek(source, label + (16 << 10), 112 << 10)?;
        let (name, guid) = pool(&pairs);
        Found::new("zfs_member", name, guid.map(|guid| guid.to_string()))
    })
}

/// Pool name and GUID from an XDR name-value list: each pair has its encoded size, decoded size, name, type, count, value.
fn pool(list: &[u8]) -> (Option<String>, Option<u64>) {
    let (mut name, mut guid) = (None, None);
    let mut at = 12;
    while let Some(pair) = list.get(at..) {
        let length = be32(pair, 0) as usize;
        let Some(pair) = pair.get(..length).filter(|_| length >= 20) else { break };
        let name_length = be32(pair, 8) as usize;
        let value_at = name_length.checked_next_multiple_of(4).and_then(|n| n.checked_add(12));
        let key = name_length.checked_add(12).and_then(|end| pair.get(12..end));
        if let (Some(key), Some(value)) = (key, value_at.and_then(|at| pair.get(at..))) {
            match (key, be32(value, 0)) {
                (b"name", 9) => {
                    let length = be32(value, 8) as usize;
                    name = length.checked_add(12).and_then(|end| value.get(12..end)).and_then(text);
                }
                (b"pool_guid", 8) => guid = Some(u64::from_be_bytes(array(value, 8))),
                _ => {}
            }
        }
        at += length;
    }
    (name, guid)
}
