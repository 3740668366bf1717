//! Master Boot Record with logical partitions: four entries of 16 bytes at 0x1be of the first sector; an extended
//! partition holds a chain of such sectors (EBR), each with one logical partition, relative to its own sector, and one
//! link, relative to the extended partition.
//!
//! Refused: chains that loop or leave their extended partition, entries that overlap or end beyond the disk.

use std::collections::BTreeSet;

use block::{BlockSource, Extent};
use machine::{ByteCount, ByteOffset, SectorSize};

use super::{Partition, Table, TableKind, check};
use crate::Error;
use crate::error::Result;
use crate::field::le32;

/// Logical partitions that are read; Linux knows 255 partitions on a disk.
const LOGICAL_MAX: usize = 256;

#[derive(Clone, Copy)]
struct Entry {
    flag: u8,
    kind: u8,
    start: u64,
    sectors: u64,
}

impl Entry {
    fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85) && self.sectors > 0
    }

    fn is_used(self) -> bool {
        self.kind != 0 && self.sectors > 0
    }
}

fn entries(sector: &[u8]) -> [Entry; 4] {
    [0x1be, 0x1ce, 0x1de, 0x1ee].map(|at| Entry {
        flag: sector.get(at).copied().unwrap_or(0),
        kind: sector.get(at + 4).copied().unwrap_or(0),
        start: le32(sector, at + 8).into(),
        sectors: le32(sector, at + 12).into(),
    })
}

/// Whether the sector ends with 0x55 0xaa.
pub(super) fn has_signature(sector: &[u8]) -> bool {
    sector.get(510..512) == Some(&[0x55, 0xaa])
}

/// Whether an entry stands for a GPT, alone (protective) or beside others (hybrid).
pub(super) fn is_protective(sector: &[u8]) -> bool {
    entries(sector).iter().any(|e| e.kind == 0xee)
}

/// Whether each boot flag is one that a partition table can have; boot code in its place hardly ever is.
pub(super) fn flags_are_valid(sector: &[u8]) -> bool {
    entries(sector).iter().all(|e| e.flag & 0x7f == 0)
}

/// Whether there is code in front of the table that a BIOS could run.
pub(super) fn has_boot_code(sector: &[u8]) -> bool {
    sector.get(..440).is_some_and(|code| code.iter().any(|&b| b != 0))
}

/// Reads the table whose first sector is `sector`.
pub(super) fn load(disk: &dyn BlockSource, sector: &[u8]) -> Result<Table> {
    let sector_size = disk.logical_sector_size();
    let id = format!("{:08x}", le32(sector, 440));
    let mut table = Table {
        kind: TableKind::Mbr,
        id: Some(id.clone()),
        sector_size: Some(sector_size),
        boot_code: has_boot_code(sector),
        ..Table::default()
    };
    let mut extended = Vec::new();
    for (entry, number) in entries(sector).into_iter().zip(1..) {
        let at = 0x1be + 16 * (number as u64 - 1);
        match entry {
            e if e.is_extended() => extended.push((number, extent(e.start, e.sectors, sector_size, at)?)),
            e if e.is_used() => table.partitions.push(partition(&id, number, e, 0, sector_size, at)?),
            _ => {}
        }
    }
    // Primary and extended partitions share one space: an extended one takes part in the check, then makes room.
    let mut top = table.partitions.clone();
    top.extend(extended.iter().map(|&(number, extent)| Partition {
        number,
        extent,
        type_id: "05".into(),
        uuid: None,
        active: false,
    }));
    check(&mut top, disk.size().0)?;
    let mut number = 5;
    for (_, container) in extended {
        number = load_chain(disk, &mut table, container, number)?;
    }
    check(&mut table.partitions, disk.size().0)?;
    Ok(table)
}

/// Follows the chain of EBRs in `container`, numbering from `number`; returns the next free number.
fn load_chain(disk: &dyn BlockSource, table: &mut Table, container: Extent, mut number: u32) -> Result<u32> {
    let sector_size = disk.logical_sector_size();
    let id = table.id.clone().unwrap_or_default();
    let mut visited = BTreeSet::new();
    let mut next = Some(container.start());
    while let Some(at) = next.take() {
        if !visited.insert(at) {
            return Err(Error::malformed(at.0, "extended partition: the chain of logical partitions loops"));
        }
        if visited.len() > LOGICAL_MAX {
            return Err(Error::malformed(at.0, format!("extended partition: over {LOGICAL_MAX} logical partitions")));
        }
        let mut sector = [0; 512];
        disk.read_at(at, &mut sector).map_err(|e| Error::read("extended boot record", e))?;
        if !has_signature(&sector) {
            if at == container.start() {
                table.warnings.push(format!("the extended partition at {at} has no logical partitions"));
                return Ok(number);
            }
            let found = format!("{:02x}{:02x}", sector[510], sector[511]);
            return Err(Error::malformed(at.0 + 510, format!("extended boot record: expected 55aa, found {found}")));
        }
        let base = at.0 / u64::from(sector_size.bytes());
        for (entry, slot) in entries(&sector).into_iter().zip(0u64..) {
            let field = at.0 + 0x1be + 16 * slot;
            if entry.is_extended() {
                if next.is_none() {
                    let link = extent(entry.start, 1, sector_size, field)?;
                    let link = Extent::new(container.start(), ByteCount(link.start().0))
                        .and_then(|e| Extent::new(e.end(), sector_size.count()))
                        .filter(|&link| container.contains(link));
                    next = Some(link.map(Extent::start).ok_or_else(|| {
                        Error::malformed(field, "extended boot record: the link leaves its extended partition")
                    })?);
                }
            } else if entry.is_used() {
                let logical = partition(&id, number, entry, base, sector_size, field)?;
                if !container.contains(logical.extent) || logical.extent.start() <= at && at < logical.extent.end() {
                    let context = format!(
                        "logical partition {number} ({}) is not behind its boot record within its extended partition ({container})",
                        logical.extent
                    );
                    return Err(Error::malformed(field, context));
                }
                table.partitions.push(logical);
                number += 1;
            }
        }
    }
    // A boot record inside a logical partition would be that partition's data.
    let covered = |at: &ByteOffset| table.partitions.iter().find(|p| p.extent.start() <= *at && *at < p.extent.end());
    match visited.iter().find_map(|at| covered(at).map(|p| (at, p))) {
        Some((at, p)) => {
            Err(Error::malformed(at.0, format!("extended boot record inside logical partition {}", p.number)))
        }
        None => Ok(number),
    }
}

fn extent(start: u64, sectors: u64, sector_size: SectorSize, at: u64) -> Result<Extent> {
    let bytes = u64::from(sector_size.bytes());
    let (start, length) = (start.checked_mul(bytes), sectors.checked_mul(bytes));
    start
        .zip(length)
        .and_then(|(start, length)| Extent::new(ByteOffset(start), ByteCount(length)))
        .ok_or_else(|| Error::malformed(at, "partition entry: ends beyond 2^64"))
}

fn partition(id: &str, number: u32, entry: Entry, base: u64, size: SectorSize, at: u64) -> Result<Partition> {
    let extent = extent(base.saturating_add(entry.start), entry.sectors, size, at)?;
    if extent.start().0 == 0 {
        return Err(Error::malformed(at, format!("partition {number} begins at the partition table itself")));
    }
    Ok(Partition {
        number,
        extent,
        type_id: format!("{:x}", entry.kind),
        uuid: Some(format!("{id}-{number:02x}")),
        active: entry.flag == 0x80,
    })
}
