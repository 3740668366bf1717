//! Partitions as Windows knows them, in its boot configuration and for its drive letters: by the disk's signature and the
//! partition's offset on MBR disks, by GUIDs on GPT disks.

use std::fmt;

use machine::{ByteOffset, Disk, PartitionTable, Volume};
use serde::{Deserialize, Serialize};

use super::Guid;

/// What names a partition to Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "snake_case")]
pub enum Partition {
    /// On a disk with a master boot record.
    Mbr {
        /// Signature of the disk: the four bytes at 0x1b8 of its first sector.
        signature: u32,
        /// First byte of the partition, from the start of the disk.
        offset: ByteOffset,
    },
    /// On a disk with a GUID partition table.
    Gpt {
        /// Disk GUID.
        disk: Guid,
        /// Unique partition GUID.
        partition: Guid,
    },
}

impl Partition {
    /// What names `volume` of `disk`; `None` without a partition table, or where its ids are not known.
    pub fn of(disk: &Disk, volume: &Volume) -> Option<Self> {
        let id = disk.layout.partition_table_id.as_deref()?;
        match disk.layout.partition_table {
            PartitionTable::Mbr => {
                let signature = u32::from_str_radix(id.trim_start_matches("0x"), 16).ok()?;
                Some(Self::Mbr { signature, offset: volume.offset })
            }
            PartitionTable::Gpt => {
                let partition = volume.partition_uuid.as_deref()?.parse().ok()?;
                Some(Self::Gpt { disk: id.parse().ok()?, partition })
            }
            PartitionTable::None => None,
        }
    }

    /// Those of all volumes, with the place of their disk in `disks`.
    pub(super) fn of_all(disks: &[Disk]) -> Vec<(usize, Self)> {
        let mut all = Vec::new();
        for (at, disk) in disks.iter().enumerate() {
            all.extend(disk.layout.volumes.iter().filter_map(|volume| Some((at, Self::of(disk, volume)?))));
        }
        all
    }
}

impl fmt::Display for Partition {
    /// Of the disk first: `signature 4bf3c1a2, offset 1048576`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mbr { signature, offset } => write!(f, "signature {signature:08x}, offset {}", offset.0),
            Self::Gpt { disk, partition } => write!(f, "disk {disk}, partition {partition}"),
        }
    }
}

/// A partition that has another name by now: its disk got another signature or GUID, or it lies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartitionMove {
    /// What named it.
    pub from: Partition,
    /// What names it.
    pub to: Partition,
}
