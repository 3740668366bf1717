//! Partition tables: which one a disk has, and its partitions.
//!
//! A table that is damaged, or whose partitions overlap or reach beyond the disk, is refused as a whole: nothing that it
//! says could be trusted. A disk that begins with a filesystem's own boot sector has no table, whatever its last bytes
//! look like.

mod gpt;
mod mbr;

use block::{BlockSource, Extent};
use machine::SectorSize;

pub use machine::PartitionTable as TableKind;

use crate::error::Result;
use crate::field::peek;
use crate::{Error, probe};

/// A partition table and its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Kind of table.
    pub kind: TableKind,
    /// GPT disk GUID, lower case, or MBR disk signature as 8 hexadecimal digits.
    pub id: Option<String>,
    /// Size of the sectors that the table counts in; `None` without a table.
    pub sector_size: Option<SectorSize>,
    /// Partitions that can hold data, by offset; extended partitions are not among them.
    pub partitions: Vec<Partition>,
    /// Whether the first sector holds boot code that a BIOS would run.
    pub boot_code: bool,
    /// What was odd but could be lived with.
    pub warnings: Vec<String>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Number as the operating system counts: GPT entry, MBR slot, logical partitions from 5.
    pub number: u32,
    /// Where it lies, in bytes.
    pub extent: Extent,
    /// GUID, upper case, or hexadecimal byte, lower case.
    pub type_id: String,
    /// What `PARTUUID=` names.
    pub uuid: Option<String>,
    /// Marked as the one that a BIOS boots.
    pub active: bool,
}

/// Reads the partition table of a disk.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind) for a damaged table, or one with overlapping or truncated partitions;
/// [`ErrorKind::Read`](crate::ErrorKind) where its sectors cannot be read.
pub fn load_table(disk: &dyn BlockSource) -> Result<Table> {
    let mut sector = [0; 512];
    if disk.size().0 < 512 {
        return Ok(Table::default());
    }
    disk.read_at(machine::ByteOffset(0), &mut sector).map_err(|e| Error::read("partition table", e))?;
    if !mbr::has_signature(&sector) {
        return Ok(Table { warnings: gpt::without_protective_mbr(disk), ..Table::default() });
    }
    if mbr::is_protective(&sector) {
        let table = gpt::load(disk)?;
        return Ok(Table { boot_code: mbr::has_boot_code(&sector), ..table });
    }
    if !mbr::flags_are_valid(&sector) || is_boot_sector(disk, &sector) {
        return Ok(Table::default());
    }
    mbr::load(disk, &sector)
}

/// Whether the first sector belongs to a filesystem that fills the disk ("superfloppy").
fn is_boot_sector(disk: &dyn BlockSource, sector: &[u8]) -> bool {
    let oem_id = &sector[3..11];
    [b"NTFS    ", b"EXFAT   ", b"-FVE-FS-", b"ReFS\0\0\0\0"].iter().any(|id| oem_id == *id)
        || probe::is_fat(disk, &peek(disk, 0, 512).unwrap_or_default())
}

/// Sorts partitions and refuses those that overlap or reach beyond `size` bytes.
fn check(partitions: &mut [Partition], size: u64) -> Result<()> {
    partitions.sort_by_key(|p| (p.extent.start(), p.number));
    for pair in partitions.windows(2) {
        if pair[0].extent.end() > pair[1].extent.start() {
            let context = format!(
                "partition table: partition {} ({}) overlaps partition {} ({})",
                pair[0].number, pair[0].extent, pair[1].number, pair[1].extent
            );
            return Err(Error::malformed(pair[1].extent.start().0, context));
        }
    }
    match partitions.iter().find(|p| p.extent.end().0 > size) {
        Some(p) => {
            let context = format!(
                "partition table: partition {} ends at byte {}, the disk at {size}; the disk or image is truncated",
                p.number,
                p.extent.end().0
            );
            Err(Error::malformed(p.extent.start().0, context))
        }
        None => Ok(()),
    }
}
