//! The superblock: geometry, features, identity.

use block::BlockSource;

use super::SUPERBLOCK_OFFSET;
use crate::checksum::crc32c;
use crate::field::{le16, le32, peek, text, uuid};

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const INCOMPAT_COMPRESSION: u32 = 0x1;
const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
/// Those whose block allocation is as documented: filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode,
/// csum_seed, largedir, inline_data, encrypt, casefold.
const INCOMPAT_KNOWN: u32 =
    0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x3_0000;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_GDT_CSUM: u32 = 0x10;
const RO_COMPAT_HAS_SNAPSHOT: u32 = 0x80;
const RO_COMPAT_BIGALLOC: u32 = 0x200;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
const RO_COMPAT_SHARED_BLOCKS: u32 = 0x4000;
/// What ext2 and ext3 know: filetype, recover, meta_bg; sparse_super, large_file, btree_dir.
const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x10;
const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;
const FLAG_TEST_FILESYSTEM: u32 = 0x4;
const STATE_CLEAN: u16 = 1;
const STATE_ERRORS: u16 = 2;

/// A superblock whose checksum is right, where it has one.
#[derive(Clone, Debug)]
pub(crate) struct Superblock {
    bytes: Vec<u8>,
}

/// Numbers that every structure of the filesystem is found by, checked against each other.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    pub block_size: u64,
    pub blocks: u64,
    pub first_data_block: u64,
    pub blocks_per_group: u64,
    /// Blocks that one bit of a bitmap stands for.
    pub cluster_blocks: u64,
    pub inode_table_blocks: u64,
    pub groups: u64,
    pub descriptor_size: u64,
    /// Blocks at and behind the superblock that hold group descriptors, or are reserved for more of them.
    pub reserved_descriptor_blocks: u64,
}

impl Superblock {
    /// Reads the superblock; `None` where there is none that blkid would accept.
    pub(crate) fn load(source: &dyn BlockSource) -> Option<Self> {
        Self::parse(peek(source, SUPERBLOCK_OFFSET, 1024)?)
    }

    /// Takes the 1024 bytes of a superblock.
    pub(crate) fn parse(bytes: Vec<u8>) -> Option<Self> {
        let superblock = Self { bytes };
        if superblock.bytes.len() != 1024 || le16(&superblock.bytes, 56) != 0xef53 {
            return None;
        }
        let valid =
            !superblock.has_metadata_csum() || crc32c(!0, &superblock.bytes[..1020]) == le32(&superblock.bytes, 1020);
        valid.then_some(superblock)
    }

    fn compat(&self) -> u32 {
        le32(&self.bytes, 92)
    }

    fn incompat(&self) -> u32 {
        le32(&self.bytes, 96)
    }

    fn ro_compat(&self) -> u32 {
        le32(&self.bytes, 100)
    }

    /// `ext2`, `ext3`, `ext4`, or `jbd` for a journal device.
    pub(crate) fn kind(&self) -> &'static str {
        let plain = self.incompat() & !EXT3_INCOMPAT == 0 && self.ro_compat() & !EXT3_RO_COMPAT == 0;
        if self.incompat() & INCOMPAT_JOURNAL_DEV != 0 {
            "jbd"
        } else if le32(&self.bytes, 352) & FLAG_TEST_FILESYSTEM != 0 && !plain {
            "ext4dev"
        } else if !plain {
            "ext4"
        } else if self.compat() & COMPAT_HAS_JOURNAL != 0 {
            "ext3"
        } else {
            "ext2"
        }
    }

    pub(crate) fn label(&self) -> Option<String> {
        text(&self.bytes[120..136])
    }

    pub(crate) fn uuid(&self) -> Option<String> {
        uuid(&self.bytes, 104)
    }

    pub(crate) fn has_metadata_csum(&self) -> bool {
        self.ro_compat() & RO_COMPAT_METADATA_CSUM != 0
    }

    pub(crate) fn has_gdt_csum(&self) -> bool {
        self.ro_compat() & RO_COMPAT_GDT_CSUM != 0
    }

    pub(crate) fn has_meta_bg(&self) -> bool {
        self.incompat() & INCOMPAT_META_BG != 0
    }

    /// First group whose descriptors lie as meta_bg has them.
    pub(crate) fn first_meta_group(&self) -> u64 {
        le32(&self.bytes, 260).into()
    }

    /// Identity as group descriptor checksums count it.
    pub(crate) fn raw_uuid(&self) -> &[u8] {
        &self.bytes[104..120]
    }

    /// Seed of the metadata checksums.
    pub(crate) fn checksum_seed(&self) -> u32 {
        match self.incompat() & INCOMPAT_CSUM_SEED {
            0 => crc32c(!0, self.raw_uuid()),
            _ => le32(&self.bytes, 0x270),
        }
    }

    /// Free blocks by the superblock's own count.
    pub(crate) fn free_blocks(&self) -> u64 {
        u64::from(le32(&self.bytes, 12)) | self.high(344) << 32
    }

    /// The upper half of a block count, which only 64bit filesystems have.
    fn high(&self, at: usize) -> u64 {
        if self.incompat() & INCOMPAT_64BIT != 0 { le32(&self.bytes, at).into() } else { 0 }
    }

    /// Inodes of a group, and bytes of one.
    pub(crate) fn inodes(&self) -> (u64, u64) {
        let size = if le32(&self.bytes, 76) == 0 { 128 } else { u64::from(le16(&self.bytes, 88)) };
        (u64::from(le32(&self.bytes, 40)).max(1), size)
    }

    /// Whether directories tell the kind of each file.
    pub(crate) fn has_filetype(&self) -> bool {
        self.incompat() & INCOMPAT_FILETYPE != 0
    }

    /// Why its files cannot be read here; `None` if they can.
    pub(crate) fn unreadable(&self) -> Option<String> {
        let unknown = self.incompat() & !INCOMPAT_KNOWN;
        (unknown != 0).then(|| format!("it has features that are not known here ({unknown:#x})"))
    }

    /// Why the bitmaps on the disk may not tell everything that is used; `None` if they do.
    pub(crate) fn doubt(&self) -> Option<String> {
        let state = le16(&self.bytes, 58);
        let unknown = self.incompat() & !INCOMPAT_KNOWN;
        let no_journal = self.compat() & COMPAT_HAS_JOURNAL == 0;
        if self.incompat() & (INCOMPAT_JOURNAL_DEV | INCOMPAT_COMPRESSION) != 0 || unknown != 0 {
            return Some(format!("it has features that are not known here ({unknown:#x})"));
        }
        if self.ro_compat() & (RO_COMPAT_HAS_SNAPSHOT | RO_COMPAT_SHARED_BLOCKS) != 0 {
            return Some("its blocks may be shared in ways that are not known here".into());
        }
        if self.incompat() & INCOMPAT_RECOVER != 0 {
            return Some("its journal has not been replayed, so its bitmaps may be out of date".into());
        }
        if state & STATE_ERRORS != 0 {
            return Some("it is marked as having errors".into());
        }
        if no_journal && state & STATE_CLEAN == 0 {
            return Some("it was not cleanly unmounted and has no journal".into());
        }
        None
    }

    /// The filesystem's geometry, if its numbers agree with each other and with a volume of `volume_bytes`.
    ///
    /// # Errors
    /// The number that does not add up.
    pub(crate) fn geometry(&self, volume_bytes: u64) -> Result<Geometry, String> {
        let log_block_size = le32(&self.bytes, 24);
        if log_block_size > 6 {
            return Err(format!("block size: expected 2^10 to 2^16, found 2^{}", u64::from(log_block_size) + 10));
        }
        let block_size = 1024u64 << log_block_size;
        let bigalloc = self.ro_compat() & RO_COMPAT_BIGALLOC != 0;
        let log_cluster_size = le32(&self.bytes, 28);
        let cluster_blocks = match log_cluster_size.checked_sub(log_block_size) {
            _ if !bigalloc => 1,
            Some(log) if log_cluster_size <= 19 => 1u64 << log,
            _ => return Err(format!("cluster size: found 2^{}", u64::from(log_cluster_size) + 10)),
        };
        let blocks_per_group = u64::from(le32(&self.bytes, 32));
        let clusters_per_group = blocks_per_group / cluster_blocks;
        let fits_bitmap = clusters_per_group > 0 && clusters_per_group <= block_size * 8;
        if !fits_bitmap || clusters_per_group % 8 != 0 || blocks_per_group % cluster_blocks != 0 {
            return Err(format!("blocks per group: found {blocks_per_group}"));
        }
        if bigalloc && u64::from(le32(&self.bytes, 36)) != clusters_per_group {
            return Err(format!("clusters per group: expected {clusters_per_group}, found {}", le32(&self.bytes, 36)));
        }
        let blocks = u64::from(le32(&self.bytes, 4)) | self.high(336) << 32;
        let first_data_block = u64::from(le32(&self.bytes, 20));
        if first_data_block != u64::from(block_size == 1024 && !bigalloc) {
            return Err(format!("first data block: found {first_data_block}"));
        }
        if blocks <= first_data_block || blocks.checked_mul(block_size).is_none_or(|size| size > volume_bytes) {
            return Err(format!("it has {blocks} blocks of {block_size} bytes, its volume {volume_bytes} bytes"));
        }
        let groups = (blocks - first_data_block).div_ceil(blocks_per_group);
        let (inodes_per_group, inode_size) = self.inodes();
        if inodes_per_group > block_size * 8 || groups * inodes_per_group != u64::from(le32(&self.bytes, 0)) {
            return Err(format!("{} inodes in {groups} groups of {inodes_per_group}", le32(&self.bytes, 0)));
        }
        if !inode_size.is_power_of_two() || !(128..=block_size).contains(&inode_size) {
            return Err(format!("inode size: found {inode_size}"));
        }
        let descriptor_size = if self.incompat() & INCOMPAT_64BIT != 0 { le16(&self.bytes, 254).into() } else { 32 };
        let descriptor_min = if self.incompat() & INCOMPAT_64BIT != 0 { 64 } else { 32 };
        if !u64::is_power_of_two(descriptor_size) || !(descriptor_min..=1024).contains(&descriptor_size) {
            return Err(format!("group descriptor size: found {descriptor_size}"));
        }
        Ok(Geometry {
            block_size,
            blocks,
            first_data_block,
            blocks_per_group,
            cluster_blocks,
            inode_table_blocks: (inodes_per_group * inode_size).div_ceil(block_size),
            groups,
            descriptor_size,
            reserved_descriptor_blocks: le16(&self.bytes, 206).into(),
        })
    }

    /// Whether a group holds a copy of the superblock and, without meta_bg, of the descriptors.
    pub(crate) fn has_copy(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat() & COMPAT_SPARSE_SUPER2 != 0 {
            return [588, 592].iter().any(|&at| u64::from(le32(&self.bytes, at)) == group);
        }
        let power_of = |base: u64| {
            let mut n = group;
            while n.is_multiple_of(base) {
                n /= base;
            }
            n == 1
        };
        self.ro_compat() & RO_COMPAT_SPARSE_SUPER == 0 || group == 1 || [3, 5, 7].into_iter().any(power_of)
    }
}
