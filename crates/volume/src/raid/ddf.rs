//! Metadata of the SNIA Common RAID Disk Data Format (DDF 2.0), as mainboard and controller firmware of several makers
//! write it: an anchor in the last sector, which leads to a header and its sections. Numbers are big-endian; positions
//! and lengths count in blocks of 512 bytes. A disk is known by a number of its own in its own metadata.

use std::collections::BTreeMap;

use block::BlockSource;

use super::{Level, Part, Rotation, Volumes};
use crate::checksum::crc32;
use crate::field::{array, be16, be32, be64, peek};

/// What it is called.
pub(super) const NAME: &str = "DDF firmware RAID";
/// Bytes of a globally unique identifier.
pub(super) const GUID: usize = 24;

const BLOCK: u64 = 512;
const HEADER: u32 = 0xde11_de11;
const PHYSICAL_DISKS: u32 = 0x2222_2222;
const VIRTUAL_DISKS: u32 = 0xdddd_dddd;
const VIRTUAL_DISK: u32 = 0xeeee_eeee;
const DISK_DATA: u32 = 0x3333_3333;
/// Bytes of a section; 4 095 disks take 256 KiB.
const SECTION_MAX: u64 = 1 << 20;
/// Disks of a set. Firmware counts tens.
const DISKS_MAX: usize = 4096;
/// Volumes of a set, and a disk's parts in them.
const VOLUMES_MAX: usize = 256;
/// Members of a volume.
const MEMBERS_MAX: usize = 256;

const ONLINE: u16 = 1;
/// Failed, rebuilding, in transition, missing.
const OUT_OF_ORDER: u16 = 2 | 4 | 8 | 64;

/// What one member says of its set.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    /// Identifier of the set.
    pub(super) set: [u8; GUID],
    /// Counts up with each change: the highest is right.
    sequence: u32,
    /// Number of this disk.
    disk: u32,
    /// Each disk's number and state.
    disks: Vec<(u32, u16)>,
    volumes: Vec<Named>,
    /// This disk's parts in volumes.
    parts: Vec<Configuration>,
}

#[derive(Clone, Debug)]
struct Named {
    guid: [u8; GUID],
    state: u8,
    name: String,
}

/// A group of members that make a volume, or one of several such groups.
#[derive(Clone, Debug)]
struct Configuration {
    guid: [u8; GUID],
    sequence: u32,
    strip: u64,
    level: u8,
    qualifier: u8,
    groups: u8,
    group: u8,
    group_level: u8,
    /// Blocks on each member.
    length: u64,
    /// Blocks of the volume.
    size: u64,
    /// Number of each disk, and its first block.
    members: Vec<(u32, u64)>,
}

/// Reads a member's metadata; `None` where there is none, an error where it is damaged.
pub(super) fn load(source: &dyn BlockSource) -> Option<Result<Metadata, String>> {
    // The second is where Adaptec puts it.
    [1, 257].into_iter().find_map(|blocks| {
        let anchor = peek(source, source.size().0.checked_sub(blocks * BLOCK)?, 512)?;
        (be32(&anchor, 0) == HEADER).then(|| {
            let found = [96, 104].into_iter().find_map(|at| load_at(source, be64(&anchor, at), &anchor));
            found.ok_or_else(|| "its metadata is damaged, or of a kind that is not known".into())
        })
    })
}

/// A structure whose checksum, at 4, is right; the field itself counts as ones. It is a CRC-32 from zero and as it is, as
/// mdadm writes it; the usual one, from ones and inverted, is taken too.
fn is_sound(bytes: &[u8], magic: u32) -> bool {
    let Some((head, rest)) = bytes.split_at_checked(8) else { return false };
    let crc = |start: u32| crc32(crc32(crc32(start, &head[..4]), &[0xff; 4]), rest);
    be32(bytes, 0) == magic && [crc(0), !crc(!0)].contains(&be32(bytes, 4))
}

fn load_at(source: &dyn BlockSource, block: u64, anchor: &[u8]) -> Option<Metadata> {
    let base = block.checked_mul(BLOCK)?;
    let header = peek(source, base, 512)?;
    if !is_sound(&header, HEADER) || header[8..32] != anchor[8..32] {
        return None;
    }
    let section = |at: usize| -> Option<Vec<u8>> {
        let (offset, length) = (u64::from(be32(&header, at)) * BLOCK, u64::from(be32(&header, at + 4)) * BLOCK);
        let length = usize::try_from(Some(length).filter(|&length| length <= SECTION_MAX)?).ok()?;
        peek(source, base.checked_add(offset)?, length)
    };
    let (record_blocks, members_max) = (usize::from(be16(&header, 134)), usize::from(be16(&header, 136)));
    let physical = section(200).filter(|section| is_sound(section, PHYSICAL_DISKS))?;
    let virtual_disks = section(208).filter(|section| is_sound(section, VIRTUAL_DISKS))?;
    let data = section(224).filter(|section| section.len() >= 512 && is_sound(&section[..512], DISK_DATA))?;
    let disks = physical[64.min(physical.len())..].chunks_exact(64);
    let disks = disks.map(|entry| (be32(entry, 24), be16(entry, 30))).filter(|(number, _)| *number != u32::MAX);
    let disks = at_most(DISKS_MAX, disks)?;
    let named = |entry: &[u8]| Named {
        guid: array(entry, 0),
        state: entry[32],
        name: String::from_utf8_lossy(&entry[48..64]).trim_matches(|c: char| c == ' ' || c.is_control()).to_owned(),
    };
    let volumes = virtual_disks[64.min(virtual_disks.len())..].chunks_exact(64);
    let volumes = volumes.filter(|entry| entry[..GUID].iter().any(|&byte| byte != 0xff)).map(named);
    let volumes = at_most(VOLUMES_MAX, volumes)?;
    let records = section(216)?;
    let record_bytes = record_blocks.checked_mul(512).filter(|&bytes| bytes > 512)?;
    let records = records.chunks_exact(record_bytes).filter(|record| is_sound(record, VIRTUAL_DISK));
    let parts = at_most(VOLUMES_MAX, records.map(|record| parse_record(record, members_max)))?;
    let parts = parts.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Metadata { set: array(&header, 8), sequence: be32(&header, 40), disk: be32(&data, 32), disks, volumes, parts })
}

/// All of them, if they are not more.
fn at_most<T>(count: usize, items: impl Iterator<Item = T>) -> Option<Vec<T>> {
    let items: Vec<T> = items.take(count + 1).collect();
    (items.len() <= count).then_some(items)
}

fn parse_record(record: &[u8], members_max: usize) -> Option<Configuration> {
    let count = usize::from(be16(record, 64));
    let starts = 512 + members_max.checked_mul(4)?;
    if count > members_max.min(MEMBERS_MAX) || starts.checked_add(members_max.checked_mul(8)?)? > record.len() {
        return None;
    }
    let member = |n: usize| (be32(record, 512 + 4 * n), be64(record, starts + 8 * n));
    Some(Configuration {
        guid: array(record, 8),
        sequence: be32(record, 36),
        // A mirror has none, and md writes 255 there.
        strip: BLOCK.checked_shl(u32::from(record[66])).filter(|&strip| strip <= 1 << 30).unwrap_or(0),
        level: record[67],
        qualifier: record[68],
        groups: record[69],
        group: record[70],
        group_level: record[71],
        length: be64(record, 72),
        size: be64(record, 80),
        members: (0..count).map(member).collect(),
    })
}

/// The volumes of a set, from what its members say; none where it has none.
pub(super) fn volumes(members: &[(usize, Metadata)]) -> Volumes {
    let Some((_, newest)) = members.iter().max_by_key(|(_, metadata)| metadata.sequence) else { return Vec::new() };
    let current: Vec<&(usize, Metadata)> =
        members.iter().filter(|(_, metadata)| metadata.sequence == newest.sequence).collect();
    let describe =
        |volume: &Named| describe(newest, volume, &current).map_err(|why| format!("volume {:?}: {why}", volume.name));
    newest.volumes.iter().map(describe).collect()
}

fn describe(newest: &Metadata, volume: &Named, current: &[&(usize, Metadata)]) -> Result<super::Volume, String> {
    match (volume.state & 7, volume.state & 8) {
        (_, 8) => return Err("its level or its members are being changed: let that come to its end first".into()),
        (0 | 1 | 5, _) => {}
        _ => return Err("the firmware says that it failed, or that members are missing".into()),
    }
    // Each disk holds the groups that it is in; all of the newest sequence belong together.
    let all = current.iter().flat_map(|(_, metadata)| &metadata.parts).filter(|part| part.guid == volume.guid);
    let sequence = all.clone().map(|part| part.sequence).max().ok_or("none of its members is here")?;
    let mut groups: BTreeMap<u8, &Configuration> = BTreeMap::new();
    for part in all.filter(|part| part.sequence == sequence) {
        groups.entry(part.group).or_insert(part);
    }
    let first = *groups.values().next().ok_or("none of its members is here")?;
    let level = level_of(first)?;
    if groups.len() != usize::from(first.groups.max(1))
        || groups.values().any(|group| group.members.len() != first.members.len())
    {
        return Err("a group of its members is missing".into());
    }
    if groups.len() * first.members.len() > MEMBERS_MAX {
        return Err("it has more members than any firmware makes".into());
    }
    let mut slots = Vec::new();
    for (number, start) in groups.values().flat_map(|group| &group.members) {
        let mut fitting = current.iter().filter(|(_, metadata)| metadata.disk == *number);
        let found = fitting.next();
        if fitting.next().is_some() {
            return Err(format!("two disks have the number {number:#010x}"));
        }
        let state = newest.disks.iter().find(|(disk, _)| disk == number).map_or(0, |(_, state)| *state);
        let is_in_order = state & ONLINE != 0 && state & OUT_OF_ORDER == 0;
        let bytes = |blocks: u64| blocks.checked_mul(BLOCK).ok_or("it lies beyond its disks");
        let (start, length) = (bytes(*start)?, bytes(first.length)?);
        slots.push(found.filter(|_| is_in_order).map(|(disk, _)| Part { disk: *disk, start, length }));
    }
    let guid: String = volume.guid.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(super::Volume {
        id: format!("ddf-{guid}"),
        name: volume.name.clone(),
        level,
        strip: first.strip,
        size: first.size.checked_mul(BLOCK).ok_or("it lies beyond its disks")?,
        is_dirty: volume.state & 0x10 != 0,
        slots,
    })
}

fn level_of(part: &Configuration) -> Result<Level, String> {
    let count = part.members.len();
    match (part.level, part.qualifier, part.groups, part.group_level) {
        (0, 0, 0 | 1, _) if count >= 1 => Ok(Level::Striped),
        (1, _, 0 | 1, _) if count >= 2 => Ok(Level::Mirrored),
        // Mirrors that are striped, or spanned strip by strip, which is the same for groups of one size.
        (1, 0, 2.., 0 | 3) if count == 2 => Ok(Level::StripedMirrors),
        (5, 0, 0 | 1, _) if count >= 3 => Ok(Level::Parity(Rotation::RightAsymmetric)),
        (5, 2, 0 | 1, _) if count >= 3 => Ok(Level::Parity(Rotation::LeftAsymmetric)),
        (5, 3, 0 | 1, _) if count >= 3 => Ok(Level::Parity(Rotation::LeftSymmetric)),
        (level, qualifier, groups, over) => Err(format!(
            "level {level:#x}/{qualifier} of {count} members in {groups} groups (over them {over}) is not known"
        )),
    }
}
