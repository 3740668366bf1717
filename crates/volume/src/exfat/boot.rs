//! The boot sector (section 3.1), and the root directory's entries about the volume itself (sections 7.1 to 7.3).

use block::BlockSource;

use crate::field::{le16, le32, le64, peek, utf16};

/// Entries of the root directory that are looked through.
const ENTRIES_MAX: usize = 65_536;
const ENTRY_BYTES: usize = 32;
/// Bytes of a directory that are read at once.
const READ_BYTES_MAX: u64 = 64 << 10;
/// Sectors of a boot region that its checksum covers; the next one holds the checksum.
const CHECKED_SECTORS: usize = 11;
const FLAG_SECOND_FAT: u16 = 1;
const FLAG_DIRTY: u16 = 2;
const ENTRY_BITMAP: u8 = 0x81;
const ENTRY_UPCASE: u8 = 0x82;
const ENTRY_LABEL: u8 = 0x83;

/// What the boot sector tells; positions in bytes from the volume's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    pub sector_bytes: u64,
    pub cluster_bytes: u64,
    /// End of the filesystem by its own sector count.
    pub total_bytes: u64,
    pub fat_start: u64,
    pub fat_bytes: u64,
    pub fat_count: u8,
    /// Cluster 2.
    pub heap_start: u64,
    pub clusters: u32,
    pub root_cluster: u32,
    pub flags: u16,
    /// `XXXX-XXXX`.
    pub serial: String,
}

/// A file that the root directory names by its first cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Special {
    pub cluster: u32,
    /// Size in bytes.
    pub size: u64,
}

/// What the root directory says of the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RootDirectory {
    /// Which clusters are allocated.
    pub bitmap: Option<Special>,
    /// Upper-case letters.
    pub upcase: Option<Special>,
    pub label: Option<String>,
}

impl Boot {
    /// Reads a boot sector of 512 bytes; `None` where it is none.
    pub(crate) fn parse(sector: &[u8]) -> Option<Self> {
        if sector.get(3..11) != Some(b"EXFAT   ") || sector.get(510..512) != Some(&[0x55, 0xaa]) {
            return None;
        }
        let (sector_shift, cluster_shift) = (u32::from(sector[108]), u32::from(sector[109]));
        if !(9..=12).contains(&sector_shift) || sector_shift + cluster_shift > 25 {
            return None;
        }
        let position = |at: usize| u64::from(le32(sector, at)) << sector_shift;
        let serial = le32(sector, 100);
        Some(Self {
            sector_bytes: 1 << sector_shift,
            cluster_bytes: 1 << (sector_shift + cluster_shift),
            total_bytes: le64(sector, 72).checked_mul(1 << sector_shift)?,
            fat_start: position(80),
            fat_bytes: position(84),
            fat_count: sector[110],
            heap_start: position(88),
            clusters: le32(sector, 92),
            root_cluster: le32(sector, 96),
            flags: le16(sector, 106),
            serial: format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff),
        })
    }

    /// End of the last cluster.
    pub(crate) fn heap_end(&self) -> u64 {
        self.heap_start + u64::from(self.clusters) * self.cluster_bytes
    }

    /// Why the filesystem's structures are in doubt.
    pub(crate) fn doubt(&self, source: &dyn BlockSource) -> Option<String> {
        if self.total_bytes > source.size().0 {
            return Some("it ends beyond its volume".into());
        }
        let entries = (u64::from(self.clusters) + 2) * 4;
        let fits = self.fat_bytes >= entries
            && self.fat_start >= self.sector_bytes * 24
            && self.fat_start + self.fat_bytes * u64::from(self.fat_count) <= self.heap_start
            && self.heap_end() <= self.total_bytes;
        if !fits || self.clusters == 0 {
            return Some("its allocation table and clusters do not fit into it".into());
        }
        if self.fat_count != 1 || self.flags & FLAG_SECOND_FAT != 0 {
            return Some(format!("expected one allocation table, found {}", self.fat_count));
        }
        if self.flags & FLAG_DIRTY != 0 {
            return Some("it was not cleanly unmounted".into());
        }
        let sector = usize::try_from(self.sector_bytes).unwrap_or(0);
        let Some(region) = peek(source, 0, (CHECKED_SECTORS + 1) * sector) else {
            return Some("its boot region cannot be read".into());
        };
        let (checked, kept) = region.split_at(CHECKED_SECTORS * sector);
        let sum = checksum(checked);
        let found = le32(kept, 0);
        (sum != found).then(|| format!("checksum of its boot region: expected {sum:08x}, found {found:08x}"))
    }

    /// Where a cluster begins; `None` where there is none of that number.
    pub(crate) fn cluster_offset(&self, cluster: u32) -> Option<u64> {
        let index = cluster.checked_sub(2).filter(|&index| index < self.clusters)?;
        Some(self.heap_start + u64::from(index) * self.cluster_bytes)
    }

    /// The cluster behind `cluster` in its chain; `None` at the chain's end, or where it cannot be read.
    pub(crate) fn next_cluster(&self, source: &dyn BlockSource, cluster: u32) -> Option<u32> {
        let next = le32(&peek(source, self.fat_start + u64::from(cluster) * 4, 4)?, 0);
        self.cluster_offset(next).map(|_| next)
    }

    /// The label, as blkid finds it.
    pub(crate) fn label(&self, source: &dyn BlockSource) -> Option<String> {
        self.root_directory(source).label
    }

    /// Looks through the root directory, as far as it can be read.
    pub(crate) fn root_directory(&self, source: &dyn BlockSource) -> RootDirectory {
        let mut found = RootDirectory::default();
        let (mut cluster, mut seen) = (Some(self.root_cluster), 0);
        while let Some(at) = cluster.and_then(|cluster| self.cluster_offset(cluster)) {
            let mut inside = 0;
            while inside < self.cluster_bytes {
                let length = (self.cluster_bytes - inside).min(READ_BYTES_MAX);
                let bytes = usize::try_from(length).ok().and_then(|length| peek(source, at + inside, length));
                for entry in bytes.iter().flat_map(|bytes| bytes.chunks_exact(ENTRY_BYTES)) {
                    let special = Special { cluster: le32(entry, 20), size: le64(entry, 24) };
                    match entry[0] {
                        0 => return found,
                        // The lowest bit of its flags tells which of two tables it goes with.
                        ENTRY_BITMAP if entry[1] & 1 == 0 => found.bitmap = found.bitmap.or(Some(special)),
                        ENTRY_UPCASE => found.upcase = found.upcase.or(Some(special)),
                        ENTRY_LABEL if found.label.is_none() => {
                            found.label = utf16(&entry[2..2 + 2 * usize::from(entry[1].min(11))], le16)
                        }
                        _ => {}
                    }
                    seen += 1;
                }
                if bytes.is_none() || seen >= ENTRIES_MAX {
                    return found;
                }
                inside += length;
            }
            cluster = cluster.and_then(|cluster| self.next_cluster(source, cluster));
        }
        found
    }
}

/// The checksum of a boot region (section 3.4): flags and how full the volume is are not covered.
fn checksum(region: &[u8]) -> u32 {
    let covered = region.iter().enumerate().filter(|(at, _)| !matches!(at, 106 | 107 | 112));
    covered.fold(0u32, |sum, (_, &byte)| sum.rotate_right(1).wrapping_add(byte.into()))
}
