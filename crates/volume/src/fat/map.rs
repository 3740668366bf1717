//! Which clusters of a FAT filesystem are used: a cluster is free when its table entry is zero.
//!
//! Wholly used instead, with the reason: a filesystem that ends beyond its volume, was not cleanly unmounted, has
//! differing copies of its table, or chains that point nowhere.

use std::sync::Arc;

use block::{AllocationMap, BlockSource, Everything, Extent, ExtentIter, grains};
use machine::{ByteCount, ByteOffset};

use super::{FatKind, Geometry};

/// Bytes of the table that are read at once; a multiple of three, so that no FAT12 entry is torn.
const CHUNK: u64 = 3 * 32 * 1024;

/// The allocation map of a FAT filesystem; reads its table as it is iterated.
pub(crate) struct FatMap {
    source: Arc<dyn BlockSource>,
    geometry: Geometry,
}

impl FatMap {
    /// Checks the table as a whole.
    ///
    /// # Errors
    /// The reason why every byte must count as used.
    pub(crate) fn open(source: Arc<dyn BlockSource>, geometry: Geometry) -> Result<Self, String> {
        if geometry.total_bytes > source.size().0 {
            return Err("it ends beyond its volume".into());
        }
        if geometry.mirroring_off {
            return Err("its allocation tables are not mirrored".into());
        }
        let map = Self { source, geometry };
        let entries = map.entries(0).ok_or("its allocation table cannot be read")?;
        let second = entries.get(1).copied().unwrap_or(0);
        // The second entry has "clean" and "no I/O error" bits; FAT12 has none.
        let clean = match map.geometry.kind {
            FatKind::Fat12 => true,
            FatKind::Fat16 => second & 0xc000 == 0xc000,
            FatKind::Fat32 => second & 0x0c00_0000 == 0x0c00_0000,
        };
        if !clean || map.geometry.dirty {
            return Err("it was not cleanly unmounted".into());
        }
        map.check()?;
        Ok(map)
    }

    /// Where chunk `index` of the first table lies and how long it is; `None` behind its end.
    fn chunk(&self, index: u64) -> Option<(u64, usize)> {
        let start = index.checked_mul(CHUNK).filter(|&start| start < self.table_bytes())?;
        Some((self.geometry.fat_start + start, usize::try_from(CHUNK.min(self.table_bytes() - start)).ok()?))
    }

    /// Bytes of the table that hold entries of clusters.
    fn table_bytes(&self) -> u64 {
        let entries = u64::from(self.geometry.clusters) + 2;
        match self.geometry.kind {
            FatKind::Fat12 => (entries * 3).div_ceil(2),
            FatKind::Fat16 => entries * 2,
            FatKind::Fat32 => entries * 4,
        }
    }

    fn chunk_entries(&self) -> u64 {
        match self.geometry.kind {
            FatKind::Fat12 => CHUNK * 2 / 3,
            FatKind::Fat16 => CHUNK / 2,
            FatKind::Fat32 => CHUNK / 4,
        }
    }

    /// The entries of chunk `index`, those of clusters 0 and 1 included; `None` behind the end or where it is unreadable.
    fn entries(&self, index: u64) -> Option<Vec<u32>> {
        let (at, length) = self.chunk(index)?;
        let bytes = crate::field::peek(&*self.source, at, length)?;
        let left = (u64::from(self.geometry.clusters) + 2).checked_sub(index * self.chunk_entries())?;
        let count = usize::try_from(left.min(self.chunk_entries())).ok()?;
        let entry = |n: usize| match self.geometry.kind {
            FatKind::Fat12 => {
                let pair = crate::field::le16(&bytes, n * 3 / 2);
                // The last entry's pair may end behind the table's bytes.
                let pair = if n * 3 / 2 + 1 < bytes.len() { pair } else { bytes[n * 3 / 2].into() };
                u32::from(if n.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 })
            }
            FatKind::Fat16 => crate::field::le16(&bytes, n * 2).into(),
            FatKind::Fat32 => crate::field::le32(&bytes, n * 4) & 0x0fff_ffff,
        };
        Some((0..count).map(entry).collect())
    }

    /// Compares the copies and checks that each entry points to a cluster, is free, bad or an end.
    fn check(&self) -> Result<(), String> {
        let special = match self.geometry.kind {
            FatKind::Fat12 => 0xff0,
            FatKind::Fat16 => 0xfff0,
            FatKind::Fat32 => 0x0fff_fff0,
        };
        let mut root_used = self.geometry.kind != FatKind::Fat32;
        let mut index = 0;
        while let Some((at, length)) = self.chunk(index) {
            let unreadable = || format!("its allocation table cannot be read at {at:#x}");
            let first = crate::field::peek(&*self.source, at, length).ok_or_else(unreadable)?;
            for copy in 1..self.geometry.fat_count {
                let other = crate::field::peek(&*self.source, at + copy * self.geometry.fat_bytes, length)
                    .ok_or_else(unreadable)?;
                if other != first {
                    return Err("the copies of its allocation table differ".into());
                }
            }
            let base = index * self.chunk_entries();
            for (entry, n) in self.entries(index).ok_or_else(unreadable)?.into_iter().zip(base..) {
                if n >= 2 && entry != 0 && entry < special && !self.geometry.has_cluster(entry) {
                    return Err(format!("cluster {n} points to cluster {entry}, which does not exist"));
                }
                root_used |= n == u64::from(self.geometry.root_cluster) && entry != 0;
            }
            index += 1;
        }
        if root_used { Ok(()) } else { Err("its allocation table marks the root directory free".into()) }
    }

    /// The used extents of the clusters in chunk `index`; all of them where it cannot be read.
    fn chunk_extents(&self, index: u64) -> Vec<Extent> {
        let base = index * self.chunk_entries();
        let last = u64::from(self.geometry.clusters) + 2;
        let offset = |n: u64| ByteOffset(self.geometry.data_start + (n.max(2) - 2) * self.geometry.cluster_bytes);
        let Some(entries) = self.entries(index) else {
            return vec![Extent::between(offset(base), offset((base + self.chunk_entries()).min(last)))];
        };
        let mut extents: Vec<Extent> = Vec::new();
        for (entry, n) in entries.into_iter().zip(base..) {
            if entry == 0 || n < 2 {
                continue;
            }
            match extents.last_mut() {
                Some(e) if e.end() == offset(n) => *e = Extent::between(e.start(), offset(n + 1)),
                _ => extents.push(Extent::between(offset(n), offset(n + 1))),
            }
        }
        extents
    }
}

impl AllocationMap for FatMap {
    fn extents(&self, within: Extent) -> ExtentIter<'_> {
        let geometry = &self.geometry;
        let data_end = geometry.data_start + u64::from(geometry.clusters) * geometry.cluster_bytes;
        let head = Extent::between(ByteOffset(0), ByteOffset(geometry.data_start)).intersection(within);
        let tail = Extent::between(ByteOffset(data_end), within.end().max(ByteOffset(data_end))).intersection(within);
        let data = Extent::between(ByteOffset(geometry.data_start), ByteOffset(data_end)).intersection(within);
        let cluster = |at: u64| at.saturating_sub(geometry.data_start) / geometry.cluster_bytes + 2;
        let first = cluster(data.start().0) / self.chunk_entries();
        let chunks = if data.is_empty() { 0..0 } else { first..cluster(data.end().0 - 1) / self.chunk_entries() + 1 };
        let clusters = chunks
            .flat_map(move |index| self.chunk_extents(index))
            .map(move |e| e.intersection(data))
            .filter(|e| !e.is_empty())
            .map(Ok);
        let all = Everything.extents(head).chain(clusters).chain(Everything.extents(tail));
        grains(all, ByteCount(1), ByteCount(within.end().0))
    }
}
