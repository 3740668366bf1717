//! The boot sector: sizes of sectors, clusters and file records, and where the master file table begins.
//!
//! A copy of it lies in the sector behind the filesystem, the last one of the partition. The copy is read where the first
//! is an NTFS boot sector no more whole, or tells of a filesystem that is larger than its partition or has no table where
//! it says. A volume that does not say itself that it is NTFS is not taken for one, whatever lies at its end: that may be
//! left from what was there before.

use block::BlockSource;

use crate::field::{le16, le32, le64, peek};

/// Largest cluster (Windows 10 1709 and later; 64 KiB before).
const CLUSTER_BYTES_MAX: u64 = 2 << 20;
/// Largest file record and index block.
const RECORD_BYTES_MAX: u64 = 65_536;

/// What the boot sector tells; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    pub sector_bytes: u64,
    pub cluster_bytes: u64,
    /// Sectors of the filesystem, without the copy of the boot sector behind them.
    pub sectors: u64,
    /// Whole clusters in them.
    pub clusters: u64,
    /// Byte at which the master file table begins.
    pub table: u64,
    /// Size of a file record.
    pub record_bytes: usize,
    /// Serial number, as blkid prints it.
    pub serial: String,
    /// Why the copy behind the filesystem was read instead.
    pub damage: Option<String>,
}

impl Boot {
    /// Reads the boot sector of a volume, or its copy; `None` where the volume is no NTFS, or both are damaged.
    pub(crate) fn load(source: &dyn BlockSource) -> Option<Self> {
        let first = peek(source, 0, 512).filter(|sector| Self::has_magic(sector))?;
        let first = Self::parse(&first);
        let damage = match &first {
            Ok(boot) if !boot.has_table(source) => "there is no master file table where it says".to_owned(),
            Ok(boot) if boot.total_bytes() > source.size().0 => format!(
                "it says that the filesystem has {} bytes, its volume has {}",
                boot.total_bytes(),
                source.size().0
            ),
            Ok(boot) => return Some(boot.clone()),
            Err(reason) => reason.clone(),
        };
        let copy = [512, 4096, 1024, 2048].into_iter().find_map(|sector_bytes: u64| {
            let at = (source.size().0 / sector_bytes).checked_sub(1)? * sector_bytes;
            let boot = Self::parse(&peek(source, at, 512).filter(|sector| Self::has_magic(sector))?).ok()?;
            // It lies behind the filesystem that it tells of, or it is another's.
            (boot.sector_bytes == sector_bytes && boot.total_bytes() == at && boot.has_table(source)).then_some(boot)
        });
        let damage = format!("its boot sector is damaged ({damage}), the copy in its last sector is used");
        let copy = copy.map(|boot| Self { damage: Some(damage), ..boot });
        copy.or(first.ok().filter(|boot| boot.has_table(source)))
    }

    fn has_magic(sector: &[u8]) -> bool {
        &sector[3..11] == b"NTFS    "
    }

    /// Reads a boot sector of 512 bytes.
    ///
    /// # Errors
    /// What was expected and found.
    pub(crate) fn parse(sector: &[u8]) -> Result<Self, String> {
        let sector_bytes = u64::from(le16(sector, 11));
        if !sector_bytes.is_power_of_two() || !(256..=4096).contains(&sector_bytes) {
            return Err(format!("bytes of a sector: expected 256 to 4096, found {sector_bytes}"));
        }
        let cluster_sectors = match sector.get(13).copied().unwrap_or(0) {
            n @ (1 | 2 | 4 | 8 | 16 | 32 | 64 | 128) => u64::from(n),
            // A negative number is the logarithm: clusters of more than 128 sectors.
            n @ 0xf0..=0xff => 1 << (256 - u32::from(n)),
            n => return Err(format!("sectors of a cluster: found {n:#x}")),
        };
        let cluster_bytes = sector_bytes * cluster_sectors;
        if cluster_bytes > CLUSTER_BYTES_MAX {
            return Err(format!("bytes of a cluster: expected at most {CLUSTER_BYTES_MAX}, found {cluster_bytes}"));
        }
        // Fields of FAT that are zero here: reserved sectors, tables, root entries, sectors, sectors of a table.
        let foreign = le16(sector, 14) != 0
            || sector.get(16) != Some(&0)
            || le32(sector, 17) != 0
            || le16(sector, 22) != 0
            || le32(sector, 32) != 0;
        if foreign {
            return Err("fields that only FAT has are set".into());
        }
        let record_bytes = match sector.get(64).copied().unwrap_or(0) {
            n @ 1..=127 => u64::from(n) * cluster_bytes,
            n @ 0xe1..=0xff => 1 << (256 - u32::from(n)),
            n => return Err(format!("size of a file record: found {n:#x}")),
        };
        let valid = (512..=RECORD_BYTES_MAX).contains(&record_bytes) && record_bytes.is_power_of_two();
        let record_bytes = usize::try_from(record_bytes).ok().filter(|_| valid);
        let record_bytes = record_bytes.ok_or("size of a file record: expected 512 to 65536, a power of two")?;
        let sectors = le64(sector, 40);
        let clusters = sectors / cluster_sectors;
        if clusters == 0 || sectors.checked_mul(sector_bytes).is_none_or(|bytes| bytes > i64::MAX as u64) {
            return Err(format!("sectors of the filesystem: found {sectors}"));
        }
        let table = le64(sector, 48);
        if table >= clusters {
            return Err(format!("master file table: expected a cluster below {clusters}, found {table}"));
        }
        let serial = format!("{:016X}", le64(sector, 72));
        let table = table * cluster_bytes;
        Ok(Self { sector_bytes, cluster_bytes, sectors, clusters, table, record_bytes, serial, damage: None })
    }

    /// Bytes of the filesystem, without the copy of the boot sector.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.sectors * self.sector_bytes
    }

    /// Bytes that its clusters take.
    pub(crate) fn clusters_bytes(&self) -> u64 {
        self.clusters * self.cluster_bytes
    }

    /// Whether there are the first four file records: the table, its mirror, the log and the volume's own.
    fn has_table(&self, source: &dyn BlockSource) -> bool {
        [0, 3].iter().all(|n| {
            let record = peek(source, self.table + n * self.record_bytes as u64, self.record_bytes);
            record.is_some_and(|record| record.starts_with(b"FILE"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(sector_bytes: u16, cluster: u8, record: u8) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[3..11].copy_from_slice(b"NTFS    ");
        sector[11..13].copy_from_slice(&sector_bytes.to_le_bytes());
        sector[13] = cluster;
        sector[40..48].copy_from_slice(&0x10_0000u64.to_le_bytes());
        sector[48] = 4;
        sector[64] = record;
        sector
    }

    #[test]
    fn sizes_are_numbers_or_negative_logarithms() {
        let sizes = |sector_bytes, cluster, record| {
            Boot::parse(&sector(sector_bytes, cluster, record)).map(|boot| (boot.cluster_bytes, boot.record_bytes))
        };
        assert_eq!(sizes(512, 1, 2), Ok((512, 1024)));
        assert_eq!(sizes(512, 8, 0xf6), Ok((4096, 1024)));
        assert_eq!(sizes(512, 0x80, 0xf6), Ok((65_536, 1024)));
        assert_eq!(sizes(512, 0xf8, 0xf6), Ok((128 << 10, 1024)));
        assert_eq!(sizes(512, 0xf4, 0xf6), Ok((2 << 20, 1024)));
        assert_eq!(sizes(4096, 0xf7, 0xf4), Ok((2 << 20, 4096)));
        assert_eq!(sizes(4096, 1, 1), Ok((4096, 4096)));
        for (sector_bytes, cluster, record) in
            [(512, 0xf3, 0xf6), (4096, 0xf6, 0xf6), (512, 3, 0xf6), (512, 0x81, 0xf6), (500, 8, 0xf6), (512, 8, 0x80)]
        {
            let found = sizes(sector_bytes, cluster, record);
            println!("{sector_bytes} {cluster:#x} {record:#x}: {found:?}");
            assert!(found.is_err());
        }
    }
}
