//! Dynamic disks of Windows (Logical Disk Manager) and pools of Storage Spaces, by the types of their partitions, and which
//! kinds of volumes a group of dynamic disks has, by its database; no more is read of it.
//!
//! The database (Linux-NTFS project, "LDM Documentation"; Linux `block/partitions/ldm.h`) lies in the last megabyte of an MBR
//! disk, or in a partition of its own: a private header names where its configuration is, a table of contents in there where its
//! records are. Numbers are big-endian; those in records have a byte of length before them.

use std::collections::BTreeMap;

use block::BlockSource;
use machine::Condition;

use crate::field::{be16, be32, be64, peek};
use crate::table::{Partition, Table};

const MBR_TYPE: &str = "42";
const METADATA_TYPE: &str = "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3";
const DATA_TYPE: &str = "AF9B60A0-1431-4F62-BC68-3311714A69AD";
const STORAGE_SPACES_TYPE: &str = "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D";
/// Where the private header lies on an MBR disk.
const HEADER_SECTOR: u64 = 6;
/// Records of one database; Windows has room for about 8000.
const RECORDS_MAX: u32 = 16_384;
/// Size of a record: 128 is usual.
const RECORD_BYTES_MAX: u32 = 4096;
const RECORD_COMPONENT: u8 = 2;
const COMPONENT_STRIPED: u8 = 1;
const COMPONENT_PLAIN: u8 = 2;
const COMPONENT_RAID5: u8 = 3;

/// Whether a partition is none on its own: what it holds may go on elsewhere.
pub(crate) fn is_shared(partition: &Partition) -> bool {
    [MBR_TYPE, METADATA_TYPE, DATA_TYPE, STORAGE_SPACES_TYPE].contains(&partition.type_id.as_str())
}

/// What is to be said of such a partition of `disk`.
pub(crate) fn conditions(disk: &dyn BlockSource, table: &Table, partition: &Partition) -> Vec<Condition> {
    if partition.type_id == STORAGE_SPACES_TYPE {
        return vec![Condition::StorageSpaces];
    }
    let sector = table.sector_size.map_or(512, |size| u64::from(size.bytes()));
    let metadata = table.partitions.iter().find(|partition| partition.type_id == METADATA_TYPE);
    let header = match metadata {
        Some(metadata) => metadata.extent.end().0.checked_sub(sector),
        None => Some(HEADER_SECTOR * sector),
    };
    match header.and_then(|header| kinds(disk, header, sector)).filter(|kinds| !kinds.is_empty()) {
        Some(kinds) => kinds,
        None => vec![Condition::DynamicDisk],
    }
}

/// The kinds of volumes that the database has whose private header is at byte `header`; it counts in sectors.
fn kinds(disk: &dyn BlockSource, header: u64, sector_bytes: u64) -> Option<Vec<Condition>> {
    let header = peek(disk, header, 512).filter(|header| header.starts_with(b"PRIVHEAD"))?;
    let (start, size) = (be64(&header, 0x12b), be64(&header, 0x133));
    let byte = |sector: u64| start.checked_add(sector)?.checked_mul(sector_bytes);
    // There are two tables of contents at the front, and two at the back.
    let contents = [1, 2].into_iter().find_map(|sector| {
        let table = peek(disk, byte(sector)?, 512).filter(|table| table.starts_with(b"TOCBLOCK"))?;
        (table.get(0x24..0x2a) == Some(b"config")).then(|| be64(&table, 0x2e))
    })?;
    let database = byte(contents).filter(|_| contents < size)?;
    let head = peek(disk, database, 512).filter(|head| head.starts_with(b"VMDB"))?;
    let (count, length, first) = (be32(&head, 4).min(RECORDS_MAX), be32(&head, 8), be32(&head, 12));
    if !(64..=RECORD_BYTES_MAX).contains(&length) {
        return None;
    }
    // Of each volume its components: type and number of parts.
    let mut volumes: BTreeMap<u64, Vec<(u8, u64)>> = BTreeMap::new();
    for n in 0..count {
        let at = database.checked_add(u64::from(first))?.checked_add(u64::from(n) * u64::from(length))?;
        let Some(record) = peek(disk, at, length as usize) else { break };
        // A record in several pieces, which a component never needs, is passed over.
        if record.starts_with(b"VBLK") && be16(&record, 14) == 1 && record[19] & 15 == RECORD_COMPONENT {
            let (volume, component) = parse_component(&record)?;
            volumes.entry(volume).or_default().push(component);
        }
    }
    let mut kinds: Vec<Condition> = volumes.values().map(|components| kind(components)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    Some(kinds)
}

/// The volume of a component, its type and how many parts it has.
fn parse_component(record: &[u8]) -> Option<(u64, (u8, u64))> {
    // Number, name and state, each with its length before it.
    let mut at = 24usize;
    for _ in 0..3 {
        at = at.checked_add(1 + usize::from(*record.get(at)?))?;
    }
    let kind = *record.get(at)?;
    let parts = at.checked_add(5)?;
    let (parts, behind) = number(record, parts)?;
    // A commit number and unused bytes lie between.
    let (volume, _) = number(record, behind.checked_add(16)?)?;
    Some((volume, (kind, parts)))
}

/// A number with its length before it, and what lies behind.
fn number(record: &[u8], at: usize) -> Option<(u64, usize)> {
    let length = usize::from(*record.get(at)?);
    let bytes = record.get(at + 1..at + 1 + length).filter(|bytes| bytes.len() <= 8)?;
    Some((bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)), at + 1 + length))
}

fn kind(components: &[(u8, u64)]) -> Condition {
    match components {
        [_, _, ..] => Condition::DynamicMirrored,
        [(COMPONENT_STRIPED, _)] => Condition::DynamicStriped,
        [(COMPONENT_RAID5, _)] => Condition::DynamicRaid5,
        [(COMPONENT_PLAIN, 1)] => Condition::DynamicSimple,
        [(COMPONENT_PLAIN, _)] => Condition::DynamicSpanned,
        _ => Condition::DynamicDisk,
    }
}

#[cfg(test)]
mod tests {
    use block::{Extent, MemorySource};
    use machine::{ByteCount, ByteOffset, SectorSize};

    use super::*;
    use crate::table::TableKind;

    /// A record of a component, as the documentation has it.
    fn component(number: u8, kind: u8, parts: u8, volume: u16) -> Vec<u8> {
        let mut record = vec![0; 24];
        record[..4].copy_from_slice(b"VBLK");
        (record[15], record[19]) = (1, 0x32);
        record.extend([1, number, 9]);
        record.extend(b"Volume1-0");
        record.extend([6, b'A', b'C', b'T', b'I', b'V', b'E', kind, 0, 0, 0, 0, 1, parts]);
        record.extend([0; 16]);
        record.push(2);
        record.extend(volume.to_be_bytes());
        record.resize(128, 0);
        record
    }

    /// A disk with a database of these records, and one partition of this type.
    fn dynamic(records: &[Vec<u8>], type_id: &str) -> (MemorySource, Table) {
        let mut disk = vec![0; 1 << 20];
        let mut put = |at: usize, bytes: &[u8]| disk[at..at + bytes.len()].copy_from_slice(bytes);
        put(6 * 512, b"PRIVHEAD");
        put(6 * 512 + 0x12b, &1024u64.to_be_bytes());
        put(6 * 512 + 0x133, &1024u64.to_be_bytes());
        put(1025 * 512, b"TOCBLOCK");
        put(1025 * 512 + 0x24, b"config");
        put(1025 * 512 + 0x2e, &17u64.to_be_bytes());
        put(1041 * 512, b"VMDB");
        put(1041 * 512 + 4, &u32::try_from(4 + records.len()).unwrap().to_be_bytes());
        put(1041 * 512 + 8, &128u32.to_be_bytes());
        put(1041 * 512 + 12, &512u32.to_be_bytes());
        records.iter().zip((1042 * 512..).step_by(128)).for_each(|(record, at)| put(at, record));
        let extent = Extent::new(ByteOffset(63 * 512), ByteCount(64 << 10)).unwrap();
        let partition = Partition { number: 1, extent, type_id: type_id.into(), uuid: None, active: false };
        let table = Table { kind: TableKind::Mbr, partitions: vec![partition], ..Table::default() };
        (MemorySource::new(disk, SectorSize::B512), table)
    }

    #[test]
    fn volumes_of_dynamic_disks_are_told_by_their_components() {
        use Condition::{
            DynamicDisk, DynamicMirrored, DynamicRaid5, DynamicSimple, DynamicSpanned, DynamicStriped, StorageSpaces,
        };
        let found = |records: &[Vec<u8>], type_id| {
            let (disk, table) = dynamic(records, type_id);
            assert!(is_shared(&table.partitions[0]));
            conditions(&disk, &table, &table.partitions[0])
        };
        assert_eq!(found(&[component(2, 2, 1, 300)], "42"), [DynamicSimple]);
        assert_eq!(found(&[component(2, 2, 3, 300)], "42"), [DynamicSpanned]);
        assert_eq!(found(&[component(2, 1, 2, 300), component(3, 3, 3, 301)], "42"), [DynamicStriped, DynamicRaid5]);
        let mirrored = [component(2, 2, 1, 300), component(3, 2, 1, 300), component(4, 2, 1, 301)];
        assert_eq!(found(&mirrored, "42"), [DynamicSimple, DynamicMirrored]);
        assert_eq!(found(&[], "42"), [DynamicDisk], "a database without volumes tells nothing");
        assert_eq!(found(&[component(2, 2, 1, 300)[..20].to_vec()], "42"), [DynamicDisk]);
        assert_eq!(found(&[], STORAGE_SPACES_TYPE), [StorageSpaces]);
    }
}
