//! Which clusters of an exFAT filesystem are used: its allocation bitmap says it (section 7.1), the allocation table does
//! not. Boot regions and allocation table are used.
//!
//! Wholly used instead, with the reason: a filesystem that ends beyond its volume, was not cleanly unmounted, has two
//! tables, whose boot region's checksum is wrong, or whose bitmap is too short or calls clusters free in which the root
//! directory, the bitmap itself or the table of letters lie.

use std::sync::Arc;

use block::{AllocationMap, BlockSource, Everything, Extent, ExtentIter, grains};
use machine::{ByteCount, ByteOffset};

use super::Boot;
use super::boot::Special;
use crate::bits::Bits;
use crate::field::peek;

/// Bytes of the bitmap that are read at once.
const CHUNK: u64 = 64 << 10;
const CHUNK_CLUSTERS: u64 = CHUNK * 8;
/// Clusters of one of the volume's own files; a bitmap of 2³² clusters of 512 bytes has as many.
const CHAIN_MAX: usize = 1 << 20;

/// The allocation map of an exFAT filesystem; reads its bitmap as it is iterated.
pub(crate) struct ExfatMap {
    source: Arc<dyn BlockSource>,
    boot: Boot,
    /// Where the bitmap lies, cluster by cluster.
    bitmap: Vec<u64>,
}

impl ExfatMap {
    /// Finds the bitmap and checks it.
    ///
    /// # Errors
    /// The reason why every byte must count as used.
    pub(crate) fn open(source: Arc<dyn BlockSource>, boot: Boot) -> Result<Self, String> {
        if let Some(doubt) = boot.doubt(&*source) {
            return Err(doubt);
        }
        let root = boot.root_directory(&*source);
        let special = root.bitmap.ok_or("its root directory names no bitmap")?;
        let needed = u64::from(boot.clusters).div_ceil(8);
        if special.size < needed {
            return Err(format!("its bitmap has {} bytes, its clusters need {needed}", special.size));
        }
        let bitmap = chain(&*source, &boot, Special { size: needed, ..special }, "bitmap")?;
        let root_directory = vec![boot.cluster_offset(boot.root_cluster).ok_or("it has no root directory")?];
        let letters = match root.upcase {
            Some(special) => chain(&*source, &boot, special, "table of letters")?,
            None => return Err("its root directory names no table of letters".into()),
        };
        let map = Self { source, boot, bitmap };
        for chunk in 0..u64::from(map.boot.clusters).div_ceil(CHUNK_CLUSTERS) {
            let bits = map.bits(chunk).ok_or("its bitmap cannot be read")?;
            let base = chunk * CHUNK_CLUSTERS;
            let places = map.bitmap.iter().chain(&root_directory).chain(&letters);
            let inside = places.map(|place| (place - map.boot.heap_start) / map.boot.cluster_bytes);
            let mut inside = inside.filter(|index| (base..base + bits.clusters).contains(index));
            if let Some(free) = inside.find(|index| !bits.get(index - base)) {
                return Err(format!("its bitmap marks cluster {} free, which holds metadata", free + 2));
            }
        }
        Ok(map)
    }

    /// The bits of one piece of the bitmap; `None` where it cannot be read.
    fn bits(&self, chunk: u64) -> Option<Bits> {
        let left = u64::from(self.boot.clusters).checked_sub(chunk * CHUNK_CLUSTERS)?;
        let clusters = left.min(CHUNK_CLUSTERS);
        let (start, end) = (chunk * CHUNK, chunk * CHUNK + clusters.div_ceil(8));
        let mut bytes = Vec::new();
        let mut position = start;
        while position < end {
            let inside = position % self.boot.cluster_bytes;
            let place = self.bitmap.get(usize::try_from(position / self.boot.cluster_bytes).ok()?)?;
            let length = (self.boot.cluster_bytes - inside).min(end - position);
            bytes.extend(peek(&*self.source, place + inside, usize::try_from(length).ok()?)?);
            position += length;
        }
        Some(Bits { bytes, clusters })
    }

    /// The used extents of a piece; all of it where it cannot be read any more.
    fn chunk_extents(&self, chunk: u64) -> Vec<Extent> {
        let boot = &self.boot;
        let offset = |n: u64| ByteOffset(boot.heap_start + n.min(boot.clusters.into()) * boot.cluster_bytes);
        let base = chunk * CHUNK_CLUSTERS;
        match self.bits(chunk) {
            Some(bits) => {
                let runs = bits.runs().into_iter();
                runs.map(|(first, end)| Extent::between(offset(base + first), offset(base + end))).collect()
            }
            None => vec![Extent::between(offset(base), offset(base + CHUNK_CLUSTERS))],
        }
    }
}

/// Where the clusters of a file of the volume's own lie.
fn chain(source: &dyn BlockSource, boot: &Boot, special: Special, what: &str) -> Result<Vec<u64>, String> {
    let count = usize::try_from(special.size.div_ceil(boot.cluster_bytes)).ok().filter(|&count| count <= CHAIN_MAX);
    let count = count.ok_or_else(|| format!("its {what} has {} bytes", special.size))?;
    let mut cluster = Some(special.cluster);
    let mut places = Vec::new();
    while places.len() < count {
        let at = cluster.and_then(|cluster| boot.cluster_offset(cluster));
        places.push(at.ok_or_else(|| format!("its {what} ends after {} of {count} clusters", places.len()))?);
        cluster = cluster.filter(|_| places.len() < count).and_then(|cluster| boot.next_cluster(source, cluster));
    }
    Ok(places)
}

impl AllocationMap for ExfatMap {
    fn extents(&self, within: Extent) -> ExtentIter<'_> {
        let boot = &self.boot;
        let (start, end) = (ByteOffset(boot.heap_start), ByteOffset(boot.heap_end()));
        let head = Extent::between(ByteOffset(0), start).intersection(within);
        let body = Extent::between(start, end).intersection(within);
        let tail = Extent::between(end, within.end().max(end)).intersection(within);
        let chunk = |at: ByteOffset| (at.0 - boot.heap_start) / boot.cluster_bytes / CHUNK_CLUSTERS;
        let chunks = match body.is_empty() {
            true => 0..0,
            false => chunk(body.start())..chunk(ByteOffset(body.end().0 - 1)) + 1,
        };
        let used = chunks
            .flat_map(move |chunk| self.chunk_extents(chunk))
            .map(move |e| e.intersection(body))
            .filter(|e| !e.is_empty())
            .map(Ok);
        let all = Everything.extents(head).chain(used).chain(Everything.extents(tail));
        grains(all, ByteCount(1), ByteCount(within.end().0))
    }
}
