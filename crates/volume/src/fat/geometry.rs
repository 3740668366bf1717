//! The BIOS parameter block: where FATs, root directory and clusters lie.

use block::BlockSource;

use crate::field::{le16, le32, peek};

/// Which width its table entries have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FatKind {
    Fat12,
    Fat16,
    Fat32,
}

/// A FAT filesystem's layout; all positions in bytes from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub kind: FatKind,
    /// First FAT.
    pub fat_start: u64,
    /// Size of one FAT.
    pub fat_bytes: u64,
    pub fat_count: u64,
    /// FAT12/16: the root directory between FATs and clusters.
    pub root_start: u64,
    /// FAT32: first cluster of the root directory.
    pub root_cluster: u32,
    /// Cluster 2.
    pub data_start: u64,
    pub cluster_bytes: u64,
    /// Number of data clusters; they are numbered from 2.
    pub clusters: u32,
    /// End of the filesystem by its own sector count.
    pub total_bytes: u64,
    /// `XXXX-XXXX`.
    pub serial: Option<String>,
    /// FAT32: sector of the FSInfo structure, in bytes; zero where there is none.
    pub fs_info: u64,
    /// FAT32: flags; bit 7 set means that only one FAT is maintained.
    pub mirroring_off: bool,
    /// The "dirty" bit that Linux and Windows keep in the boot sector.
    pub dirty: bool,
}

impl Geometry {
    /// Reads the boot sector in `sector` (512 bytes); `None` when it is none. The checks are those that Linux and blkid
    /// make, so that what is mounted as FAT is known as FAT and an MBR is not.
    pub(crate) fn parse(sector: &[u8]) -> Option<Self> {
        if sector.len() < 512 || !Self::has_magic(sector) {
            return None;
        }
        let sector_bytes = u64::from(le16(sector, 11));
        let cluster_sectors = u64::from(sector[13]);
        let reserved = u64::from(le16(sector, 14));
        let fat_count = u64::from(sector[16]);
        let root_entries = u64::from(le16(sector, 17));
        let media = sector[21];
        let valid = sector_bytes.is_power_of_two()
            && (512..=4096).contains(&sector_bytes)
            && cluster_sectors.is_power_of_two()
            && reserved != 0
            && (1..=2).contains(&fat_count)
            && (media == 0xf0 || media >= 0xf8);
        if !valid {
            return None;
        }
        let sectors = match le16(sector, 19) {
            0 => u64::from(le32(sector, 32)),
            n => u64::from(n),
        };
        let short_fat = u64::from(le16(sector, 22));
        let is_fat32 = short_fat == 0;
        let fat_sectors = if is_fat32 { u64::from(le32(sector, 36)) } else { short_fat };
        let root_sectors = (root_entries * 32).div_ceil(sector_bytes);
        let data_sector = reserved + fat_count * fat_sectors + root_sectors;
        if fat_sectors == 0 || sectors <= data_sector || is_fat32 != (root_entries == 0) {
            return None;
        }
        let clusters = (sectors - data_sector) / cluster_sectors;
        let kind = match clusters {
            _ if is_fat32 => FatKind::Fat32,
            0..=4084 => FatKind::Fat12,
            _ => FatKind::Fat16,
        };
        let clusters_max = match kind {
            FatKind::Fat12 => 0xff4,
            FatKind::Fat16 => 0xfff4,
            FatKind::Fat32 => 0x0fff_fff6,
        };
        let entry_bits = match kind {
            FatKind::Fat12 => 12,
            FatKind::Fat16 => 16,
            FatKind::Fat32 => 32,
        };
        // Clusters that have no entry in the table cannot exist.
        let entries = fat_sectors * sector_bytes * 8 / entry_bits;
        let clusters = u32::try_from(clusters).ok().filter(|&n| n <= clusters_max && u64::from(n) + 2 <= entries)?;
        let (serial_at, state_at) = if is_fat32 { (67, 65) } else { (39, 37) };
        let serial = (is_fat32 || matches!(sector[38], 0x28 | 0x29)).then(|| {
            let number = le32(sector, serial_at);
            format!("{:04X}-{:04X}", number >> 16, number & 0xffff)
        });
        Some(Self {
            kind,
            fat_start: reserved * sector_bytes,
            fat_bytes: fat_sectors * sector_bytes,
            fat_count,
            root_start: (reserved + fat_count * fat_sectors) * sector_bytes,
            root_cluster: if is_fat32 { le32(sector, 44) } else { 0 },
            data_start: data_sector * sector_bytes,
            cluster_bytes: cluster_sectors * sector_bytes,
            clusters,
            total_bytes: sectors * sector_bytes,
            serial,
            fs_info: if is_fat32 { u64::from(le16(sector, 48)) * sector_bytes } else { 0 },
            mirroring_off: is_fat32 && le16(sector, 40) & 0x80 != 0,
            dirty: sector[state_at] & 1 != 0,
        })
    }

    /// What Linux requires of one: a jump or a FAT name, and not the sign of another system.
    fn has_magic(sector: &[u8]) -> bool {
        let named = &sector[54..59] == b"FAT12"
            || &sector[54..59] == b"FAT16"
            || &sector[82..87] == b"FAT32"
            || &sector[54..62] == b"FAT     "
            || &sector[54..59] == b"MSDOS"
            || &sector[82..87] == b"MSWIN";
        let jump = matches!(sector[0], 0xeb | 0xe9) || sector[510..512] == [0x55, 0xaa];
        let foreign = &sector[3..11] == b"NTFS    " || &sector[3..11] == b"EXFAT   " || &sector[3..11] == b"-FVE-FS-";
        (named || jump) && !foreign
    }

    /// Whether `cluster` is one of the data clusters.
    pub(crate) fn has_cluster(&self, cluster: u32) -> bool {
        cluster >= 2 && cluster - 2 < self.clusters
    }

    /// Where a data cluster begins.
    pub(crate) fn cluster_offset(&self, cluster: u32) -> Option<u64> {
        self.has_cluster(cluster).then(|| self.data_start + u64::from(cluster - 2) * self.cluster_bytes)
    }

    /// The cluster behind `cluster` in its chain, from the first FAT; `None` at the chain's end.
    pub(crate) fn next_cluster(&self, source: &dyn BlockSource, cluster: u32) -> Option<u32> {
        let n = u64::from(cluster);
        let next = match self.kind {
            FatKind::Fat12 => {
                let pair = le16(&peek(source, self.fat_start + n * 3 / 2, 2)?, 0);
                u32::from(if n % 2 == 0 { pair & 0xfff } else { pair >> 4 })
            }
            FatKind::Fat16 => le16(&peek(source, self.fat_start + n * 2, 2)?, 0).into(),
            FatKind::Fat32 => le32(&peek(source, self.fat_start + n * 4, 4)?, 0) & 0x0fff_ffff,
        };
        self.has_cluster(next).then_some(next)
    }
}
