//! Block groups: where descriptors lie, what they say, and which blocks of a group its own metadata needs.

use super::superblock::{Geometry, Superblock};
use crate::checksum::{crc16, crc32c};
use crate::field::{le16, le32};

const BLOCK_UNINIT: u16 = 2;

/// One group's descriptor.
#[derive(Clone, Debug)]
pub(super) struct Descriptor {
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: u64,
    /// In clusters.
    pub free_clusters: u64,
    /// The bitmap was never written: nothing but metadata is used.
    pub uninitialized: bool,
    checksum: u16,
    bitmap_checksum: u32,
    /// Whether the bitmap's checksum has its upper half.
    wide: bool,
}

impl Descriptor {
    /// Reads the descriptor of `group` from its bytes.
    ///
    /// # Errors
    /// What does not add up: its checksum, or a block that the filesystem does not have.
    pub(super) fn parse(bytes: &[u8], group: u64, superblock: &Superblock, geo: &Geometry) -> Result<Self, String> {
        let wide = bytes.len() >= 64;
        let block = |low: usize, high: usize| {
            u64::from(le32(bytes, low)) | if wide { u64::from(le32(bytes, high)) << 32 } else { 0 }
        };
        let half = |low: usize, high: usize| {
            u32::from(le16(bytes, low)) | if wide { u32::from(le16(bytes, high)) << 16 } else { 0 }
        };
        let descriptor = Self {
            block_bitmap: block(0, 32),
            inode_bitmap: block(4, 36),
            inode_table: block(8, 40),
            free_clusters: half(12, 44).into(),
            uninitialized: le16(bytes, 18) & BLOCK_UNINIT != 0
                && (superblock.has_gdt_csum() || superblock.has_metadata_csum()),
            checksum: le16(bytes, 30),
            bitmap_checksum: half(24, 56),
            wide,
        };
        descriptor.check_sum(bytes, group, superblock)?;
        let inside = |start: u64, length: u64| {
            start >= geo.first_data_block && start.checked_add(length).is_some_and(|end| end <= geo.blocks)
        };
        let blocks = [
            ("block bitmap", descriptor.block_bitmap, 1),
            ("inode bitmap", descriptor.inode_bitmap, 1),
            ("inode table", descriptor.inode_table, geo.inode_table_blocks),
        ];
        match blocks.into_iter().find(|&(_, start, length)| !inside(start, length)) {
            Some((what, start, _)) => Err(format!("its {what} lies at block {start}, outside of the filesystem")),
            None => Ok(descriptor),
        }
    }

    fn check_sum(&self, bytes: &[u8], group: u64, superblock: &Superblock) -> Result<(), String> {
        let number = u32::try_from(group).unwrap_or(u32::MAX).to_le_bytes();
        let found = if superblock.has_metadata_csum() {
            let crc = crc32c(crc32c(superblock.checksum_seed(), &number), &bytes[..30]);
            let crc = crc32c(crc32c(crc, &[0, 0]), &bytes[32..]);
            le16(&crc.to_le_bytes(), 0)
        } else if superblock.has_gdt_csum() {
            let crc = crc16(crc16(crc16(!0, superblock.raw_uuid()), &number), &bytes[..30]);
            crc16(crc, &bytes[32..])
        } else {
            return Ok(());
        };
        if found == self.checksum {
            Ok(())
        } else {
            Err(format!("descriptor checksum: expected {:04x}, found {found:04x}", self.checksum))
        }
    }

    /// Compares the checksum of the bitmap in `bitmap` (one block).
    pub(super) fn check_bitmap(&self, bitmap: &[u8], superblock: &Superblock, geo: &Geometry) -> Result<(), String> {
        if !superblock.has_metadata_csum() {
            return Ok(());
        }
        let length = usize::try_from(geo.blocks_per_group / geo.cluster_blocks / 8).unwrap_or(usize::MAX);
        let crc = crc32c(superblock.checksum_seed(), &bitmap[..length.min(bitmap.len())]);
        let found = if self.wide { crc } else { crc & 0xffff };
        if found == self.bitmap_checksum {
            Ok(())
        } else {
            Err(format!("bitmap checksum: expected {:08x}, found {found:08x}", self.bitmap_checksum))
        }
    }
}

impl Geometry {
    /// First block of a group.
    pub(super) fn group_start(&self, group: u64) -> u64 {
        self.first_data_block + group * self.blocks_per_group
    }

    /// Blocks of a group; the last one may be shorter.
    pub(super) fn group_blocks(&self, group: u64) -> u64 {
        self.blocks_per_group.min(self.blocks.saturating_sub(self.group_start(group)))
    }

    /// The group that a block lies in.
    pub(super) fn group_of(&self, block: u64) -> u64 {
        block.saturating_sub(self.first_data_block) / self.blocks_per_group
    }

    pub(super) fn descriptors_per_block(&self) -> u64 {
        self.block_size / self.descriptor_size
    }

    fn uses_meta_bg(&self, superblock: &Superblock, descriptor_block: u64) -> bool {
        superblock.has_meta_bg() && descriptor_block >= superblock.first_meta_group()
    }

    /// Block of the primary superblock: with bigalloc the first group begins before it even at 1 KiB.
    fn superblock_block(&self) -> u64 {
        u64::from(self.block_size == 1024)
    }

    /// The block that holds the `index`th block of descriptors.
    pub(crate) fn descriptor_block(&self, superblock: &Superblock, index: u64) -> u64 {
        if !self.uses_meta_bg(superblock, index) {
            return self.superblock_block() + 1 + index;
        }
        let group = index * self.descriptors_per_block();
        let odd_first = group == 0 && self.block_size == 1024 && self.first_data_block == 0;
        self.group_start(group) + u64::from(superblock.has_copy(group)) + u64::from(odd_first)
    }

    /// Ranges of blocks (start, length) at the head of a group that superblock and descriptor copies take.
    pub(super) fn head_blocks(&self, superblock: &Superblock, group: u64) -> Vec<(u64, u64)> {
        let start = self.group_start(group);
        let copy = superblock.has_copy(group);
        let offset = if group == 0 { self.superblock_block() - self.first_data_block } else { 0 };
        let per_block = self.descriptors_per_block();
        let all = self.groups.div_ceil(per_block);
        let plain = if superblock.has_meta_bg() { all.min(superblock.first_meta_group()) } else { all };
        let mut ranges = Vec::new();
        if copy {
            ranges.push((start, offset + 1));
        }
        let meta_index = group / per_block;
        if self.uses_meta_bg(superblock, meta_index) {
            let within = group % per_block;
            if within <= 1 || within == per_block - 1 {
                ranges.push((start + offset + u64::from(copy), 1));
            }
        } else if copy {
            ranges.push((start + offset + 1, plain + self.reserved_descriptor_blocks));
        }
        ranges
    }
}
