//! Firmware RAID: sets that a mainboard's firmware makes of disks, put together for reading as the operating system sees
//! them, so that each is one disk. Nothing is written, and no kernel driver takes part.
//!
//! What cannot be put together whole and beyond doubt is refused with the reason, and its members are offered to nobody:
//! a stale half of a mirror is worse than none.

mod array;
mod ddf;
mod imsm;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use block::{BlockSource, Extent, Slice};
use machine::{ByteCount, ByteOffset};

use array::ArraySource;

/// A disk that may be a member.
pub struct Candidate {
    /// Its bytes.
    pub source: Arc<dyn BlockSource>,
    /// Its serial number, by which Intel's metadata knows it; an image file has none.
    pub serial: Option<String>,
}

/// How data is spread over members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// RAID 0.
    Striped,
    /// RAID 1.
    Mirrored,
    /// RAID 10: neighbouring slots mirror each other.
    StripedMirrors,
    /// RAID 5.
    Parity(Rotation),
}

/// Where parity goes from row to row, and data with it; names as Linux' md has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Parity from the last member to the first, data from the first member around it.
    LeftAsymmetric,
    /// The same, data from the member behind parity on.
    LeftSymmetric,
    /// Parity from the first member to the last, data from the first member around it.
    RightAsymmetric,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Striped => "RAID 0",
            Self::Mirrored => "RAID 1",
            Self::StripedMirrors => "RAID 10",
            Self::Parity(_) => "RAID 5",
        })
    }
}

/// A volume of a set: a disk for the operating system.
pub struct Array {
    /// What tells it from other arrays, whatever disks of it are here: `imsm-1a2b3c4d-Volume0`.
    pub id: String,
    /// Its name in the firmware's menu: `Volume0`.
    pub name: String,
    /// How it is made.
    pub level: Level,
    /// The disks that are read, by their places among the candidates.
    pub members: Vec<usize>,
    /// Members that are missing, failed, or being rebuilt; it can be read without them.
    pub missing: usize,
    /// Its bytes.
    pub source: Arc<dyn BlockSource>,
}

/// A set that is not put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its disks, by their places among the candidates.
    pub members: Vec<usize>,
    /// Why, and what to do.
    pub reason: String,
}

/// What the disks of a machine are.
#[derive(Default)]
pub struct Assembly {
    /// Disks that belong to no set, by their places among the candidates.
    pub plain: Vec<usize>,
    /// Arrays.
    pub arrays: Vec<Array>,
    /// Sets that are not put together. Neither they nor their members are disks of the machine.
    pub refused: Vec<Refused>,
}

/// A disk as the operating system sees it.
pub enum MachineDisk<'a> {
    /// The candidate at this place.
    Plain(usize),
    /// Several of them.
    Array(&'a Array),
}

impl Assembly {
    /// All disks, in the order of the candidates; an array stands where its first disk would.
    pub fn disks(&self) -> Vec<MachineDisk<'_>> {
        let plain = self.plain.iter().map(|&place| (place, MachineDisk::Plain(place)));
        let first = |array: &Array| array.members.iter().min().copied().unwrap_or_default();
        let arrays = self.arrays.iter().map(|array| (first(array), MachineDisk::Array(array)));
        let mut all: Vec<_> = plain.chain(arrays).collect();
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, disk)| disk).collect()
    }
}

/// A volume as its metadata describes it, in bytes.
struct Volume {
    id: String,
    name: String,
    level: Level,
    strip: u64,
    size: u64,
    /// It was not shut down: parity may be old.
    is_dirty: bool,
    /// Nothing where the member is missing, failed, or not up to date.
    slots: Vec<Option<Part>>,
}

/// A volume's part of a disk.
#[derive(Clone, Copy)]
struct Part {
    /// The disk's place among the candidates.
    disk: usize,
    start: u64,
    length: u64,
}

/// Volumes of a set, or why one is refused.
type Volumes = Vec<Result<Volume, String>>;

/// Tells members of firmware RAID from plain disks, and puts their sets together.
pub fn assemble(candidates: &[Candidate]) -> Assembly {
    let mut assembly = Assembly::default();
    let mut intel: BTreeMap<u32, Vec<(usize, imsm::Metadata)>> = BTreeMap::new();
    let mut ddf: BTreeMap<[u8; ddf::GUID], Vec<(usize, ddf::Metadata)>> = BTreeMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let source = &*candidate.source;
        let damaged = match (imsm::load(source), ddf::load(source)) {
            (Some(Ok(metadata)), _) => {
                intel.entry(metadata.family).or_default().push((index, metadata));
                continue;
            }
            (None, Some(Ok(metadata))) => {
                ddf.entry(metadata.set).or_default().push((index, metadata));
                continue;
            }
            (Some(Err(reason)), _) => format!("{}: {reason}", imsm::NAME),
            (None, Some(Err(reason))) => format!("{}: {reason}", ddf::NAME),
            (None, None) => {
                assembly.plain.push(index);
                continue;
            }
        };
        assembly.refused.push(Refused { members: vec![index], reason: damaged });
    }
    for members in intel.into_values() {
        let volumes = imsm::volumes(candidates, &members);
        assembly.take(candidates, members.iter().map(|(index, _)| *index).collect(), volumes, imsm::NAME);
    }
    for members in ddf.into_values() {
        let volumes = ddf::volumes(&members);
        assembly.take(candidates, members.iter().map(|(index, _)| *index).collect(), volumes, ddf::NAME);
    }
    assembly.plain.sort_unstable();
    assembly
}

impl Assembly {
    fn take(&mut self, candidates: &[Candidate], members: Vec<usize>, volumes: Volumes, format: &str) {
        if volumes.is_empty() {
            // A spare without a set, or disks whose set was deleted.
            self.plain.extend(members);
            return;
        }
        for volume in volumes {
            match volume.and_then(|volume| open(candidates, volume)) {
                Ok(array) => self.arrays.push(array),
                Err(reason) => {
                    self.refused.push(Refused { members: members.clone(), reason: format!("{format}: {reason}") });
                }
            }
        }
    }
}

/// Puts a volume together.
fn open(candidates: &[Candidate], volume: Volume) -> Result<Array, String> {
    let Volume { id, name, level, strip, size, is_dirty, slots } = volume;
    let refused = |why: &str| format!("volume {name:?}: {why}");
    let count = slots.len();
    let data_members = match level {
        Level::Striped => count,
        Level::Mirrored => 1,
        Level::StripedMirrors => count / 2,
        Level::Parity(_) => count.saturating_sub(1),
    };
    if level != Level::Mirrored && strip == 0 {
        return Err(refused("its strips have no length"));
    }
    let room = |length: u64| if level == Level::Mirrored { length } else { length - length % strip };
    let least = slots.iter().flatten().map(|part| room(part.length)).min();
    let least = least.ok_or_else(|| refused("none of its members is here and in order"))?;
    // Whole strips only: what is behind the last one belongs to nobody.
    if size == 0 || least.checked_mul(data_members as u64).is_none_or(|room| size > room) {
        return Err(refused("it is larger than its members"));
    }
    let slice = |part: &Part| -> Result<Arc<dyn BlockSource>, String> {
        let outside = || refused("it lies beyond the end of its disks");
        let extent = Extent::new(ByteOffset(part.start), ByteCount(part.length)).ok_or_else(outside)?;
        let source = Arc::clone(&candidates[part.disk].source);
        Ok(Arc::new(Slice::new(source, extent).map_err(|_| outside())?))
    };
    let sources = slots.iter().map(|part| part.as_ref().map(slice).transpose()).collect::<Result<Vec<_>, _>>()?;
    let members: Vec<usize> = slots.iter().flatten().map(|part| part.disk).collect();
    let missing = count - members.len();
    if matches!(level, Level::Parity(_)) && missing > 0 && is_dirty {
        return Err(refused("a member is missing and it was not shut down: its parity cannot be trusted"));
    }
    let sizes = members.iter().map(|&place| candidates[place].source.logical_sector_size());
    let sector_size = sizes.max().unwrap_or(machine::SectorSize::B512);
    let source = ArraySource { level, strip, size: ByteCount(size), sector_size, slots: sources };
    match source.missing() {
        Some(slot) => {
            Err(refused(&format!("too many of its {count} members are missing or failed, among them number {slot}")))
        }
        None => Ok(Array { id, name, level, members, missing, source: Arc::new(source) }),
    }
}

#[cfg(test)]
mod tests {
    use block::MemorySource;
    use machine::SectorSize;

    use super::*;

    const SECTORS: usize = 64;
    const DATA: u32 = 32;

    /// A set as its firmware would write it; fields are changed by each test.
    #[derive(Clone)]
    struct Set {
        level: u8,
        members: u32,
        generation: u32,
        /// Flags of the slots, over their ordinals.
        ordinals: Vec<u32>,
        statuses: Vec<u32>,
        migration: Option<u8>,
        dirty: u8,
        bad_blocks: u32,
        size: u32,
    }

    impl Set {
        fn new(level: u8, members: u32) -> Self {
            let data = match level {
                1 => 1,
                5 => members - 1,
                10 => members / 2,
                _ => members,
            };
            Self {
                level,
                members,
                generation: 7,
                ordinals: (0..members).collect(),
                statuses: vec![2; members as usize],
                migration: None,
                dirty: 0,
                bad_blocks: 0,
                size: DATA * data,
            }
        }

        fn metadata(&self) -> Vec<u8> {
            let mut bytes = vec![0; DISKS_AT];
            bytes[..24].copy_from_slice(b"Intel Raid ISM Cfg Sig. ");
            bytes[0x28..0x2c].copy_from_slice(&0xabcd_u32.to_le_bytes());
            bytes[0x2c..0x30].copy_from_slice(&self.generation.to_le_bytes());
            (bytes[0x38], bytes[0x39]) = (u8::try_from(self.members).unwrap(), 1);
            for (n, status) in self.statuses.iter().enumerate() {
                let mut disk = [0; 48];
                disk[..7].copy_from_slice(format!("SERIAL{n}").as_bytes());
                disk[24..28].copy_from_slice(&status.to_le_bytes());
                bytes.extend_from_slice(&disk);
            }
            let mut volume = [0; 112];
            volume[..7].copy_from_slice(b"Volume0");
            volume[16..20].copy_from_slice(&self.size.to_le_bytes());
            volume[88] = u8::from(self.migration.is_some());
            volume[89] = self.migration.unwrap_or_default();
            volume[90] = self.dirty;
            bytes.extend_from_slice(&volume);
            for _ in 0..1 + usize::from(self.migration.is_some()) {
                let mut map = [0; 48];
                map[4..8].copy_from_slice(&DATA.to_le_bytes());
                map[12] = 4; // sectors of a strip
                map[15] = self.level;
                map[16] = u8::try_from(self.ordinals.len()).unwrap();
                bytes.extend_from_slice(&map);
                self.ordinals.iter().for_each(|ordinal| bytes.extend_from_slice(&ordinal.to_le_bytes()));
            }
            if self.bad_blocks > 0 {
                bytes[0x48..0x4c].copy_from_slice(&8_u32.to_le_bytes());
                bytes.extend_from_slice(&0xabad_b10c_u32.to_le_bytes());
                bytes.extend_from_slice(&self.bad_blocks.to_le_bytes());
            }
            let length = u32::try_from(bytes.len()).unwrap();
            bytes[0x24..0x28].copy_from_slice(&length.to_le_bytes());
            let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
            let sum = words.fold(0, u32::wrapping_add);
            bytes[0x20..0x24].copy_from_slice(&sum.to_le_bytes());
            bytes
        }

        /// Member `n`; each of its sectors holds its own numbers.
        fn disk(&self, n: usize) -> Candidate {
            let mut bytes = vec![0; SECTORS * 512];
            for (sector, piece) in bytes.chunks_mut(512).enumerate() {
                let mirrored = if self.level == 1 || self.level == 10 { n / 2 } else { n };
                piece[0] = u8::try_from(mirrored * 64 + sector).unwrap();
            }
            let metadata = self.metadata();
            let (anchor, more) = metadata.split_at(metadata.len().min(512));
            let at = (SECTORS - 2) * 512;
            bytes[at..at + anchor.len()].copy_from_slice(anchor);
            bytes[at - 512..at - 512 + more.len()].copy_from_slice(more);
            let source = Arc::new(MemorySource::new(bytes, SectorSize::B512));
            // The firmware keeps no blanks and the end of what is long.
            Candidate { source, serial: Some(format!(" SER IAL{n}")) }
        }

        fn disks(&self) -> Vec<Candidate> {
            (0..self.members as usize).map(|n| self.disk(n)).collect()
        }
    }

    const DISKS_AT: usize = 0xd8;

    fn reason(candidates: &[Candidate]) -> String {
        let assembly = assemble(candidates);
        assert!(assembly.arrays.is_empty() && assembly.plain.is_empty());
        assembly.refused[0].reason.clone()
    }

    fn first_bytes(array: &Array, sectors: u64) -> Vec<u8> {
        let read = |sector| {
            let mut bytes = [0; 512];
            array.source.read_at(ByteOffset(sector * 512), &mut bytes).unwrap();
            bytes[0]
        };
        (0..sectors).map(read).collect()
    }

    #[test]
    fn strips_go_round_the_members_whatever_order_they_come_in() {
        let mut disks = Set::new(0, 2).disks();
        disks.reverse();
        let assembly = assemble(&disks);
        assert_eq!(first_bytes(&assembly.arrays[0], 12), [0, 1, 2, 3, 64, 65, 66, 67, 4, 5, 6, 7]);
        assert_eq!(assembly.arrays[0].source.size().0, 64 * 512);
        assert_eq!(assembly.arrays[0].id, "imsm-0000abcd-Volume0");
        let disks = Set::new(10, 4).disks();
        assert_eq!(first_bytes(&assemble(&disks).arrays[0], 9), [0, 1, 2, 3, 64, 65, 66, 67, 4]);
    }

    #[test]
    fn a_mirrors_stale_half_is_not_read() {
        let newer = Set::new(1, 2);
        let older = Set { generation: 6, ..newer.clone() };
        let assembly = assemble(&[older.disk(0), newer.disk(1)]);
        assert_eq!((assembly.arrays[0].members.as_slice(), assembly.arrays[0].missing), (&[1][..], 1));
        let rebuilding = Set { ordinals: vec![0, 1 | 1 << 24], migration: Some(1), ..newer.clone() };
        let assembly = assemble(&rebuilding.disks());
        assert_eq!((assembly.arrays[0].members.as_slice(), assembly.arrays[0].missing), (&[0][..], 1));
        let failed = Set { statuses: vec![2 | 4, 2], ..newer };
        assert_eq!(assemble(&failed.disks()).arrays[0].members, [1]);
    }

    #[test]
    fn what_is_not_beyond_doubt_is_refused_and_its_members_are_no_disks() {
        let mirror = Set::new(1, 2);
        let cases = [
            (Set { migration: Some(3), ..mirror.clone() }.disks(), "being changed"),
            (Set { bad_blocks: 1, ..mirror.clone() }.disks(), "could not be written"),
            (Set { size: DATA + 1, ..mirror.clone() }.disks(), "larger than its members"),
            (Set { size: 0, ..mirror.clone() }.disks(), "larger than its members"),
            (Set { level: 6, ..mirror.clone() }.disks(), "level 6"),
            (Set::new(0, 2).disks().split_off(1), "among them number 0"),
            (Set::new(5, 3).disks().split_off(2), "too many"),
            (Set { dirty: 1, ..Set::new(5, 3) }.disks().split_off(1), "parity cannot be trusted"),
            (Set { statuses: vec![2 | 4; 2], ..mirror.clone() }.disks(), "none of its members"),
            (vec![mirror.disk(0), mirror.disk(0)], "two disks have the serial number"),
        ];
        for (disks, expected) in cases {
            let reason = reason(&disks);
            assert!(reason.contains(expected), "{reason}");
        }
        let nameless =
            |set: &Set| set.disks().into_iter().map(|disk| Candidate { serial: None, ..disk }).collect::<Vec<_>>();
        assert!(reason(&nameless(&Set::new(0, 2))).contains("serial numbers"));
        assert_eq!(assemble(&nameless(&mirror)).arrays.len(), 1);
    }

    #[test]
    fn damaged_metadata_is_no_plain_disk_and_none_is_one() {
        let mut bytes = vec![0; SECTORS * 512];
        let plain = |bytes: &[u8]| Candidate {
            source: Arc::new(MemorySource::new(bytes.to_vec(), SectorSize::B512)),
            serial: None,
        };
        assert_eq!(assemble(&[plain(&bytes)]).plain, [0]);
        let metadata = Set::new(1, 2).metadata();
        let at = (SECTORS - 2) * 512;
        bytes[at..at + metadata.len()].copy_from_slice(&metadata);
        assert!(assemble(&[plain(&bytes)]).refused.is_empty());
        for changed in [0x24, 0x38, 0x39, 0x48, 0x100, metadata.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at + changed] ^= 0x40;
            assert!(reason(&[plain(&damaged)]).contains("damaged"), "{changed:#x}");
        }
    }

    /// A set of DDF with one volume of 32 sectors on each member; each sector holds its own number.
    fn ddf_set(level: [u8; 2], members: u32, states: &[u16], volume_state: u8) -> Vec<Candidate> {
        let mut physical = vec![0xff; 1024];
        for (n, state) in states.iter().enumerate() {
            let entry = &mut physical[64 + 64 * n..][..64];
            entry[24..28].copy_from_slice(&u32::try_from(n).unwrap().to_be_bytes());
            entry[30..32].copy_from_slice(&state.to_be_bytes());
        }
        let mut volumes = vec![0xff; 1024];
        volumes[64..88].fill(b'v');
        volumes[96] = volume_state;
        volumes[112..128].copy_from_slice(b"System          ");
        let mut records = vec![0xff; 4096];
        let record = &mut records[..1024];
        record[0] = 0;
        record[8..32].fill(b'v');
        record[32..512].fill(0);
        record[65] = u8::try_from(members).unwrap();
        (record[66], record[67], record[68], record[69]) = (2, level[0], level[1], 1);
        let data = if level[0] == 1 { 1 } else { u64::from(members) - u64::from(level[0] == 5) };
        record[72..80].copy_from_slice(&32_u64.to_be_bytes());
        record[80..88].copy_from_slice(&(32 * data).to_be_bytes());
        for n in 0..members as usize {
            record[512 + 4 * n..][..4].copy_from_slice(&u32::try_from(n).unwrap().to_be_bytes());
            record[512 + 42 * 4 + 8 * n..][..8].copy_from_slice(&8_u64.to_be_bytes());
        }
        let disk = |n: u32| {
            let mut bytes = vec![0; 64 << 10];
            for (sector, piece) in bytes.chunks_mut(512).enumerate() {
                let mirrored = if level[0] == 1 { 0 } else { n as usize };
                piece[0] = u8::try_from((mirrored * 64 + sector) % 251).unwrap();
            }
            let bytes = crate::fuzz::ddf_disk(bytes, n, &physical, &volumes, &records);
            Candidate { source: Arc::new(MemorySource::new(bytes, SectorSize::B512)), serial: None }
        };
        (0..members).map(disk).collect()
    }

    #[test]
    fn sets_of_ddf_are_read_by_the_numbers_of_their_disks() {
        let mut disks = ddf_set([0, 0], 2, &[1, 1], 0);
        disks.reverse();
        let assembly = assemble(&disks);
        assert_eq!(assembly.refused, []);
        assert_eq!(first_bytes(&assembly.arrays[0], 9), [8, 9, 10, 11, 72, 73, 74, 75, 12]);
        assert_eq!((assembly.arrays[0].name.as_str(), assembly.arrays[0].source.size().0), ("System", 64 * 512));
        let half = ddf_set([1, 0], 2, &[1, 1 | 4], 1);
        assert_eq!(assemble(&half).arrays[0].members, [0], "the other is being rebuilt");
        for (disks, expected) in [
            (ddf_set([0, 0], 2, &[1, 1], 0).split_off(1), "among them number 0"),
            (ddf_set([1, 0], 2, &[1, 1], 8), "being changed"),
            (ddf_set([1, 0], 2, &[1, 1], 3), "failed"),
            (ddf_set([5, 1], 3, &[1, 1, 1], 0), "level 0x5/1"),
            (ddf_set([5, 3], 3, &[1, 1, 1], 0x10).split_off(1), "parity cannot be trusted"),
            (ddf_set([1, 0], 2, &[3, 3], 0), "none of its members"),
        ] {
            let reason = reason(&disks);
            assert!(reason.starts_with("DDF firmware RAID") && reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn damaged_metadata_of_ddf_is_no_plain_disk() {
        let mut bytes = vec![0; SECTORS * 512];
        bytes[(SECTORS - 1) * 512..][..4].copy_from_slice(&[0xde, 0x11, 0xde, 0x11]);
        let source = Arc::new(MemorySource::new(bytes, SectorSize::B512));
        assert!(reason(&[Candidate { source, serial: None }]).contains("damaged"));
    }

    #[test]
    fn a_set_without_volumes_is_plain_disks() {
        let mut metadata = Set { ordinals: Vec::new(), ..Set::new(1, 2) }.metadata();
        metadata[0x39] = 0;
        let sum = u32::from_le_bytes(metadata[0x20..0x24].try_into().unwrap()).wrapping_sub(0x100);
        metadata[0x20..0x24].copy_from_slice(&sum.to_le_bytes());
        let mut bytes = vec![0; SECTORS * 512];
        let at = (SECTORS - 2) * 512;
        bytes[at..at + metadata.len()].copy_from_slice(&metadata);
        let source = Arc::new(MemorySource::new(bytes, SectorSize::B512));
        assert_eq!(assemble(&[Candidate { source, serial: None }]).plain, [0]);
    }
}
