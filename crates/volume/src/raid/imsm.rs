//! Metadata of Intel's firmware RAID (IMSM; "Rapid Storage Technology", "Matrix RAID"), as Linux' md reads it from the
//! end of each member: an anchor in the last sector but one, what is longer before it. All numbers are little-endian;
//! positions and lengths count in sectors of the disk.

use block::BlockSource;

use super::{Candidate, Level, Part, Rotation, Volumes};
use crate::field::{array, le16, le32, peek, text};

/// What it is called.
pub(super) const NAME: &str = "Intel firmware RAID";

const SIGNATURE: &[u8] = b"Intel Raid ISM Cfg Sig. ";
/// Longest metadata: what the firmware reserves at a disk's end for it, in bytes.
const LENGTH_MAX: usize = 1 << 20;
/// Volumes of one set; firmware knows two.
const VOLUMES_MAX: usize = 16;

const DISKS: usize = 0xd8;
const DISK_LENGTH: usize = 48;
const DISK_SPARE: u32 = 1;
const DISK_CONFIGURED: u32 = 2;
const DISK_FAILED: u32 = 4;
const VOLUME_HEAD: usize = 80;
const MIGRATION_HEAD: usize = 32;
const MAP_HEAD: usize = 48;
/// The slot is being rebuilt: what lies there is not yet what should.
const REBUILD: u32 = 1 << 24;
const ORDINAL: u32 = REBUILD - 1;
const BAD_BLOCKS_SIGNATURE: u32 = 0xabad_b10c;

/// What one member says of its set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// The same on all members of a set.
    pub(super) family: u32,
    /// Counts up with each change: the highest is right.
    generation: u32,
    /// Bytes of the disk's sector.
    sector: u64,
    disks: Vec<Disk>,
    volumes: Vec<Volume>,
    /// Blocks of members that hold something old, which a mirror or parity has to be asked for.
    has_bad_blocks: bool,
}

/// A member, as the set knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Disk {
    /// The last 16 characters of its serial number, without blanks.
    serial: String,
    status: u32,
}

impl Disk {
    fn is_in_use(&self) -> bool {
        self.status & DISK_CONFIGURED != 0 && self.status & (DISK_FAILED | DISK_SPARE) == 0
    }
}

/// A volume: what the operating system sees as a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Volume {
    name: String,
    /// Sectors.
    size: u64,
    /// Its level or its number of members is being changed: data lies in two ways.
    is_migrating: bool,
    /// It was not shut down: parity may be old.
    is_dirty: bool,
    map: Map,
}

/// Where a volume lies on its members.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Map {
    /// First sector on each member.
    start: u64,
    /// Sectors on each member.
    length: u64,
    /// Sectors of a strip.
    strip: u64,
    /// 0, 1, 5 or 10 as written; mirrors of four and more are 10 there, or 1.
    level: u8,
    has_failed: bool,
    slots: Vec<Slot>,
}

/// A member's place in a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    /// Index in [`Metadata::disks`].
    disk: usize,
    is_rebuilt: bool,
}

/// A serial number as the metadata has it: without blanks and what cannot be printed, `:` as `;`, its last 16 characters.
fn serial_of(text: &str) -> String {
    let plain: Vec<char> =
        text.chars().filter(char::is_ascii_graphic).map(|c| if c == ':' { ';' } else { c }).collect();
    plain[plain.len().saturating_sub(16)..].iter().collect()
}

/// Reads a member's metadata; `None` where there is none, an error where it is damaged.
pub(super) fn load(source: &dyn BlockSource) -> Option<Result<Metadata, String>> {
    let logical = u64::from(source.logical_sector_size().bytes());
    // An image does not tell the sector size of the disk it was.
    [logical, 512, 4096].into_iter().find_map(|sector| {
        let at = (source.size().0 / sector).checked_sub(2)? * sector;
        let anchor = peek(source, at, usize::try_from(sector).ok()?)?;
        anchor.starts_with(SIGNATURE).then(|| load_at(source, at, sector, anchor))
    })
}

fn load_at(source: &dyn BlockSource, at: u64, sector: u64, anchor: Vec<u8>) -> Result<Metadata, String> {
    let damaged = || "its metadata is damaged".to_owned();
    let length = usize::try_from(le32(&anchor, 0x24)).map_err(|_| damaged())?;
    if !(DISKS..=LENGTH_MAX).contains(&length) {
        return Err(damaged());
    }
    let mut bytes = anchor;
    if let Some(more) = length.checked_sub(bytes.len()).filter(|&more| more > 0) {
        let more = (more as u64).next_multiple_of(sector);
        let before = at.checked_sub(more).ok_or_else(damaged)?;
        let more = usize::try_from(more).map_err(|_| damaged())?;
        bytes.extend(peek(source, before, more).ok_or_else(damaged)?);
    }
    bytes.truncate(length);
    parse(&bytes, sector).ok_or_else(damaged)
}

/// Reads metadata of its full length.
fn parse(bytes: &[u8], sector: u64) -> Option<Metadata> {
    let sum = bytes.chunks_exact(4).fold(0_u32, |sum, word| sum.wrapping_add(le32(word, 0)));
    if sum.wrapping_sub(le32(bytes, 0x20)) != le32(bytes, 0x20) {
        return None;
    }
    let [disk_count, volume_count] = [0x38, 0x39].map(|at| usize::from(bytes[at]));
    let bad_blocks = usize::try_from(le32(bytes, 0x48)).ok()?;
    let mut at = DISKS;
    let mut disks = Vec::new();
    for _ in 0..disk_count {
        let disk = bytes.get(at..at + DISK_LENGTH)?;
        disks.push(Disk { serial: text(&disk[..16]).unwrap_or_default(), status: le32(disk, 24) });
        at += DISK_LENGTH;
    }
    if volume_count > VOLUMES_MAX {
        return None;
    }
    let mut volumes = Vec::new();
    for _ in 0..volume_count {
        let (volume, behind) = parse_volume(bytes, at, disks.len())?;
        volumes.push(volume);
        at = behind;
    }
    let log = bytes.len().checked_sub(bad_blocks).filter(|&start| start >= at)?;
    let has_bad_blocks = bad_blocks >= 8 && le32(bytes, log) == BAD_BLOCKS_SIGNATURE && le32(bytes, log + 4) != 0;
    Some(Metadata { family: le32(bytes, 0x28), generation: le32(bytes, 0x2c), sector, disks, volumes, has_bad_blocks })
}

/// A volume at `at`, and where the next begins.
fn parse_volume(bytes: &[u8], at: usize, disk_count: usize) -> Option<(Volume, usize)> {
    let head = bytes.get(at..at + VOLUME_HEAD + MIGRATION_HEAD)?;
    let migration = &head[VOLUME_HEAD..];
    let (is_changing, kind) = (migration[8] != 0, migration[9]);
    let (mut map, mut end) = parse_map(bytes, at + VOLUME_HEAD + MIGRATION_HEAD, disk_count)?;
    if is_changing {
        // The second map is the one before: a member that either says to be rebuilt is.
        let (before, behind) = parse_map(bytes, end, disk_count)?;
        end = behind;
        for slot in &mut map.slots {
            slot.is_rebuilt |= before.slots.iter().any(|other| other.disk == slot.disk && other.is_rebuilt);
        }
    }
    let volume = Volume {
        name: text(&head[..16]).unwrap_or_default(),
        size: u64::from(le32(head, 16)) | u64::from(le32(head, 20)) << 32,
        // Initialising (0), rebuilding (1), verifying (2) and repairing (5) leave data where it is.
        is_migrating: is_changing && !matches!(kind, 0 | 1 | 2 | 5),
        is_dirty: migration[10] & 1 != 0,
        map,
    };
    Some((volume, end))
}

fn parse_map(bytes: &[u8], at: usize, disk_count: usize) -> Option<(Map, usize)> {
    let head: [u8; MAP_HEAD] = array(bytes.get(at..at + MAP_HEAD)?, 0);
    let members = usize::from(head[16]);
    let mut slots = Vec::new();
    let mut at = at + MAP_HEAD;
    for _ in 0..members {
        let ordinal = le32(bytes.get(at..at + 4)?, 0);
        let disk = usize::try_from(ordinal & ORDINAL).ok().filter(|&disk| disk < disk_count)?;
        slots.push(Slot { disk, is_rebuilt: ordinal & REBUILD != 0 });
        at += 4;
    }
    let wide = |low: usize, high: usize| u64::from(le32(&head, low)) | u64::from(le32(&head, high)) << 32;
    let map = Map {
        start: wide(0, 20),
        length: wide(4, 24),
        strip: u64::from(le16(&head, 12)),
        level: head[15],
        has_failed: head[14] == 3,
        slots,
    };
    Some((map, at))
}

/// The volumes of a set, from what its members say; none where it has none.
pub(super) fn volumes(candidates: &[Candidate], members: &[(usize, Metadata)]) -> Volumes {
    let Some((_, newest)) = members.iter().max_by_key(|(_, metadata)| metadata.generation) else { return Vec::new() };
    let is_current = |(_, metadata): &&(usize, Metadata)| metadata.generation == newest.generation;
    let current: Vec<usize> = members.iter().filter(is_current).map(|(index, _)| *index).collect();
    let describe = |volume: &Volume| {
        describe(candidates, newest, volume, &current).map_err(|why| format!("volume {:?}: {why}", volume.name))
    };
    newest.volumes.iter().map(describe).collect()
}

fn level_of(map: &Map) -> Result<Level, String> {
    let count = map.slots.len();
    match map.level {
        0 if count >= 1 => Ok(Level::Striped),
        1 if count == 2 => Ok(Level::Mirrored),
        1 | 10 if count >= 4 && count.is_multiple_of(2) => Ok(Level::StripedMirrors),
        5 if count >= 3 => Ok(Level::Parity(Rotation::LeftAsymmetric)),
        level => Err(format!("level {level} of {count} members is not known")),
    }
}

/// A volume of the candidates in `current`, which agree on what the set is.
fn describe(
    candidates: &[Candidate],
    metadata: &Metadata,
    volume: &Volume,
    current: &[usize],
) -> Result<super::Volume, String> {
    let map = &volume.map;
    let level = level_of(map)?;
    if volume.is_migrating {
        return Err("its level or its members are being changed: let that come to its end first".into());
    }
    if map.has_failed {
        return Err("the firmware says that it failed".into());
    }
    if metadata.has_bad_blocks {
        return Err("members have blocks that could not be written: repair the set first".into());
    }
    let bytes = |sectors: u64| sectors.checked_mul(metadata.sector).ok_or("it lies beyond its disks");
    let (start, length, size, strip) = (bytes(map.start)?, bytes(map.length)?, bytes(volume.size)?, bytes(map.strip)?);
    let disks = find_members(candidates, metadata, map, level, current)?;
    Ok(super::Volume {
        id: format!("imsm-{:08x}-{}", metadata.family, volume.name),
        name: volume.name.clone(),
        level,
        strip,
        size,
        is_dirty: volume.is_dirty,
        slots: disks.into_iter().map(|disk| disk.map(|disk| Part { disk, start, length })).collect(),
    })
}

/// The candidate in each slot; nothing where it is missing, failed, or not up to date.
fn find_members(
    candidates: &[Candidate],
    metadata: &Metadata,
    map: &Map,
    level: Level,
    current: &[usize],
) -> Result<Vec<Option<usize>>, String> {
    let serial = |place: usize| candidates[place].serial.as_deref().map(serial_of).filter(|serial| !serial.is_empty());
    if current.iter().any(|&place| serial(place).is_none()) {
        // Which disk is which is only in their serial numbers. Halves of a mirror are the same.
        let is_whole = map.slots.iter().all(|slot| !slot.is_rebuilt && metadata.disks[slot.disk].is_in_use());
        if level != Level::Mirrored || !is_whole || current.len() > map.slots.len() {
            return Err("the serial numbers of its disks, which tell their order, are not known here".into());
        }
        let mut places: Vec<Option<usize>> = current.iter().copied().map(Some).collect();
        places.resize(map.slots.len(), None);
        return Ok(places);
    }
    let mut places = Vec::new();
    for slot in &map.slots {
        let disk = &metadata.disks[slot.disk];
        let mut fitting = current.iter().copied().filter(|&place| serial(place).as_ref() == Some(&disk.serial));
        let found = fitting.next();
        if fitting.next().is_some() {
            return Err(format!("two disks have the serial number {:?}", disk.serial));
        }
        places.push(found.filter(|_| !slot.is_rebuilt && disk.is_in_use()));
    }
    Ok(places)
}
