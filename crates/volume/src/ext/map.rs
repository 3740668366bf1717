//! The allocation map of ext2/3/4, read group by group as it is iterated.
//!
//! A group is wholly used when anything about it does not add up: its descriptor's or bitmap's checksum, its count of
//! free clusters, a bitmap that marks metadata free, a pointer out of range. The whole filesystem is when its journal
//! has not been replayed, its state or geometry is in doubt, or its own count of free blocks differs from its groups'.
//! Never is less used than the bitmaps say.

use std::collections::BTreeSet;
use std::sync::Arc;

use block::{AllocationMap, BlockSource, Everything, Extent, ExtentIter, grains};
use machine::{ByteCount, ByteOffset};

use super::group::Descriptor;
use super::superblock::{Geometry, Superblock};
use crate::bits::Bits;
use crate::field::peek;

/// Doubtful groups that are remembered one by one; with more, the whole filesystem is in doubt.
const DOUBTFUL_GROUPS_MAX: usize = 4096;
/// Bitmaps kept while metadata in other groups is checked: flex_bg puts it all in one or two.
const BITMAPS_KEPT: usize = 4;

/// The allocation map of one filesystem.
#[derive(Clone)]
pub(crate) struct ExtMap {
    source: Arc<dyn BlockSource>,
    superblock: Superblock,
    geometry: Geometry,
    doubtful: Arc<BTreeSet<u64>>,
}

/// What a walk over all groups found.
pub(crate) struct Findings {
    /// Bytes in use, from the filesystem's start to its end.
    pub used: ByteCount,
    /// Groups that count as wholly used, with the reason for each of the first few.
    pub warnings: Vec<String>,
}

/// Reads descriptors, a block of them at a time.
#[derive(Default)]
struct DescriptorBlock {
    index: Option<u64>,
    bytes: Option<Vec<u8>>,
}

impl ExtMap {
    /// Opens the map and walks all groups once.
    ///
    /// # Errors
    /// The reason why every byte of the volume must count as used.
    pub(crate) fn open(source: Arc<dyn BlockSource>, superblock: Superblock) -> Result<(Self, Findings), String> {
        if let Some(doubt) = superblock.doubt() {
            return Err(doubt);
        }
        let geometry = superblock.geometry(source.size().0)?;
        let mut map = Self { source, superblock, geometry, doubtful: Arc::default() };
        let (doubtful, findings) = map.walk()?;
        map.doubtful = Arc::new(doubtful);
        Ok((map, findings))
    }

    fn descriptor(&self, group: u64, cache: &mut DescriptorBlock) -> Result<Descriptor, String> {
        let per_block = self.geometry.descriptors_per_block();
        let index = group / per_block;
        if cache.index != Some(index) {
            let block = self.geometry.descriptor_block(&self.superblock, index);
            cache.index = Some(index);
            cache.bytes = self.read_block(block);
        }
        let bytes = cache.bytes.as_ref().ok_or("its descriptor cannot be read")?;
        let size = usize::try_from(self.geometry.descriptor_size).unwrap_or(usize::MAX);
        let at = usize::try_from(group % per_block).unwrap_or(usize::MAX).saturating_mul(size);
        let bytes = at.checked_add(size).and_then(|end| bytes.get(at..end)).ok_or("its descriptor cannot be read")?;
        Descriptor::parse(bytes, group, &self.superblock, &self.geometry)
    }

    fn read_block(&self, block: u64) -> Option<Vec<u8>> {
        let at = block.checked_mul(self.geometry.block_size)?;
        peek(&*self.source, at, usize::try_from(self.geometry.block_size).ok()?)
    }

    /// The used clusters of a group, or why they cannot be known.
    fn bits(&self, group: u64, descriptor: &Descriptor) -> Result<Bits, String> {
        let clusters = self.geometry.group_blocks(group).div_ceil(self.geometry.cluster_blocks);
        let bits = if descriptor.uninitialized {
            let length = usize::try_from(clusters.div_ceil(8)).unwrap_or(0);
            let mut bits = Bits { bytes: vec![0; length], clusters };
            for (cluster, _) in self.own_metadata(group, descriptor) {
                bits.set(cluster);
            }
            bits
        } else {
            let bytes = self.read_block(descriptor.block_bitmap).ok_or("its bitmap cannot be read")?;
            descriptor.check_bitmap(&bytes, &self.superblock, &self.geometry)?;
            Bits { bytes, clusters }
        };
        let free = clusters - bits.used();
        if free != descriptor.free_clusters {
            return Err(format!("free clusters: expected {}, found {free}", descriptor.free_clusters));
        }
        match self.own_metadata(group, descriptor).find(|&(cluster, _)| !bits.get(cluster)) {
            Some((_, block)) => Err(format!("its bitmap marks block {block} free, which holds metadata")),
            None => Ok(bits),
        }
    }

    /// Clusters of a group, each with one of its blocks, that its superblock and descriptor copies, bitmaps and inode
    /// table lie in.
    fn own_metadata(&self, group: u64, descriptor: &Descriptor) -> impl Iterator<Item = (u64, u64)> {
        let (start, length) = (self.geometry.group_start(group), self.geometry.group_blocks(group));
        let cluster_blocks = self.geometry.cluster_blocks;
        let mut ranges = self.geometry.head_blocks(&self.superblock, group);
        ranges.extend(self.metadata(descriptor));
        ranges.into_iter().flat_map(move |(first, count)| {
            let (first, end) = (first.max(start), (first + count).min(start + length));
            let clusters = if first < end {
                (first - start) / cluster_blocks..(end - 1 - start) / cluster_blocks + 1
            } else {
                0..0
            };
            clusters.map(move |cluster| (cluster, start + cluster * cluster_blocks))
        })
    }

    /// Ranges of blocks (start, length) of a group's bitmaps and inode table, wherever they lie.
    fn metadata(&self, descriptor: &Descriptor) -> [(u64, u64); 3] {
        let table = self.geometry.inode_table_blocks;
        [(descriptor.block_bitmap, 1), (descriptor.inode_bitmap, 1), (descriptor.inode_table, table)]
    }

    fn walk(&self) -> Result<(BTreeSet<u64>, Findings), String> {
        let geo = &self.geometry;
        let mut doubtful = BTreeSet::new();
        let mut reasons = Vec::new();
        let mut doubt = |group: u64, reason: String| {
            if doubtful.insert(group) && reasons.len() < 3 {
                reasons.push(format!("group {group} is copied whole: {reason}"));
            }
            if doubtful.len() > DOUBTFUL_GROUPS_MAX {
                Err(format!("too many groups in doubt; {reason}"))
            } else {
                Ok(())
            }
        };
        let (mut cache, mut other) = (DescriptorBlock::default(), DescriptorBlock::default());
        let mut kept: Vec<(u64, Option<Bits>)> = Vec::new();
        let (mut used, mut free_clusters, mut all_known) = (0, 0, true);
        for group in 0..geo.groups {
            let descriptor = match self.descriptor(group, &mut cache) {
                Ok(descriptor) => descriptor,
                Err(reason) => {
                    doubt(group, reason)?;
                    used += geo.group_blocks(group);
                    all_known = false;
                    continue;
                }
            };
            free_clusters += descriptor.free_clusters;
            match self.bits(group, &descriptor) {
                Ok(bits) => used += self.blocks_of(group, &bits),
                Err(reason) => {
                    doubt(group, reason)?;
                    used += geo.group_blocks(group);
                }
            }
            // With flex_bg a group's metadata lies in another group: that one must call it used.
            for (first, count) in self.metadata(&descriptor) {
                let mut block = first;
                while block < first + count {
                    let home = geo.group_of(block);
                    let end = (first + count).min(geo.group_start(home) + geo.blocks_per_group);
                    if home != group {
                        if !kept.iter().any(|(kept, _)| *kept == home) {
                            let bits = self.descriptor(home, &mut other).and_then(|d| self.bits(home, &d)).ok();
                            kept.truncate(BITMAPS_KEPT - 1);
                            kept.insert(0, (home, bits));
                        }
                        // One whose bits are not known is in doubt already, or will be when it is reached.
                        let bits = kept.iter().find(|(kept, _)| *kept == home).and_then(|(_, bits)| bits.as_ref());
                        let cluster = |block: u64| (block - geo.group_start(home)) / geo.cluster_blocks;
                        if bits.is_some_and(|bits| (cluster(block)..=cluster(end - 1)).any(|c| !bits.get(c))) {
                            doubt(home, format!("its bitmap marks metadata of group {group} free"))?;
                        }
                    }
                    block = end;
                }
            }
        }
        let (expected, found) = (self.superblock.free_blocks(), free_clusters * geo.cluster_blocks);
        if all_known && expected != found {
            return Err(format!("free blocks: the superblock has {expected}, its groups {found}"));
        }
        if doubtful.len() > reasons.len() {
            reasons.push(format!("{} groups in all are copied whole", doubtful.len()));
        }
        // Blocks in front of the first group hold the boot sector.
        let mut used = ByteCount((geo.first_data_block + used) * geo.block_size);
        if !doubtful.is_empty() {
            let map = Self { doubtful: Arc::new(doubtful.clone()), ..self.clone() };
            let all = Extent::first(ByteCount(geo.blocks * geo.block_size));
            used = crate::map::used_bytes(&map, all).unwrap_or(all.length());
        }
        Ok((doubtful, Findings { used, warnings: reasons }))
    }

    /// Used blocks of a group; the last cluster of the filesystem may be cut.
    fn blocks_of(&self, group: u64, bits: &Bits) -> u64 {
        let geo = &self.geometry;
        let (blocks, whole) = (geo.group_blocks(group), bits.clusters * geo.cluster_blocks);
        let cut = if bits.get(bits.clusters.saturating_sub(1)) { whole - blocks } else { 0 };
        bits.used() * geo.cluster_blocks - cut
    }

    /// The used extents of a group, in bytes from the volume's start.
    fn group_extents(&self, group: u64, cache: &mut DescriptorBlock) -> Vec<Extent> {
        let geo = &self.geometry;
        let start = geo.group_start(group);
        let end = start + geo.group_blocks(group);
        let extent = |first: u64, last: u64| {
            Extent::between(ByteOffset(first * geo.block_size), ByteOffset(last.min(end) * geo.block_size))
        };
        let bits = match self.doubtful.contains(&group) {
            true => None,
            false => self.descriptor(group, cache).and_then(|d| self.bits(group, &d)).ok(),
        };
        match bits {
            Some(bits) => {
                let cluster = |n: u64| start + n * geo.cluster_blocks;
                bits.runs().into_iter().map(|(first, last)| extent(cluster(first), cluster(last))).collect()
            }
            None => vec![extent(start, end)],
        }
    }
}

impl AllocationMap for ExtMap {
    fn extents(&self, within: Extent) -> ExtentIter<'_> {
        let geo = &self.geometry;
        let offset = |block: u64| ByteOffset(block * geo.block_size);
        let (start, end) = (offset(geo.first_data_block), offset(geo.blocks));
        let head = Extent::between(ByteOffset(0), start).intersection(within);
        let body = Extent::between(start, end).intersection(within);
        // What lies behind the filesystem is used: it could be another system's metadata.
        let tail = Extent::between(end, within.end().max(end)).intersection(within);
        let group = |at: ByteOffset| geo.group_of(at.0 / geo.block_size);
        let groups = match body.is_empty() {
            true => 0..0,
            false => group(body.start())..group(ByteOffset(body.end().0 - 1)) + 1,
        };
        let mut cache = DescriptorBlock::default();
        let used = groups
            .flat_map(move |group| self.group_extents(group, &mut cache))
            .map(move |e| e.intersection(body))
            .filter(|e| !e.is_empty())
            .map(Ok);
        let all = Everything.extents(head).chain(used).chain(Everything.extents(tail));
        grains(all, ByteCount(1), ByteCount(within.end().0))
    }
}
