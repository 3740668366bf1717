//! Allocation maps put together from others: what is inside a region is as its own map says, what is in no region is
//! used. A forgotten byte is thereby always copied.

use std::sync::Arc;

use block::{AllocationMap, Everything, Extent, ExtentIter, grains};
use machine::{ByteCount, ByteOffset};

/// A range of a disk or volume whose use another map knows.
#[derive(Clone)]
pub(crate) struct Region {
    /// Where, in the composed map.
    pub extent: Extent,
    /// What is used of it.
    pub usage: Usage,
}

/// What is used of a [`Region`].
#[derive(Clone)]
pub(crate) enum Usage {
    /// Nothing: physical extents of a volume group that no volume has.
    Free,
    /// What `map` says, in which the region begins at `offset`.
    Mapped {
        /// The map of the volume inside.
        map: Arc<dyn AllocationMap>,
        /// Where in that map the region begins.
        offset: ByteOffset,
    },
}

/// A map made of regions; what is in none of them is used.
#[derive(Clone)]
pub(crate) struct Composite {
    size: ByteCount,
    regions: Vec<Region>,
}

impl Composite {
    /// The map of `size` bytes with `regions`. A region that overlaps an earlier one or the end is left out, so that
    /// all of it counts as used.
    pub(crate) fn new(size: ByteCount, mut regions: Vec<Region>) -> Self {
        regions.sort_by_key(|r| r.extent.start());
        let mut end = ByteOffset::ZERO;
        regions.retain(|r| {
            let fits = r.extent.start() >= end && r.extent.end().0 <= size.0 && !r.extent.is_empty();
            end = if fits { r.extent.end() } else { end };
            fits
        });
        Self { size, regions }
    }
}

impl AllocationMap for Composite {
    fn extents(&self, within: Extent) -> ExtentIter<'_> {
        let within = within.intersection(Extent::first(self.size));
        let first = self.regions.partition_point(|r| r.extent.end() <= within.start());
        let last = self.regions.partition_point(|r| r.extent.start() < within.end()).max(first);
        let inside = &self.regions[first..last];
        let mut position = within.start();
        let pieces = inside.iter().map(Some).chain([None]).flat_map(move |region| {
            let gap = Extent::between(position, region.map_or(within.end(), |r| r.extent.start()));
            let part = region.map(|r| (r, r.extent.intersection(within)));
            position = part.map_or(within.end(), |(_, part)| part.end());
            Everything.extents(gap).chain(part.into_iter().flat_map(|(region, part)| region.used(part)))
        });
        grains(pieces, ByteCount(1), self.size)
    }
}

impl Region {
    /// The used extents of `part`, which is inside the region, where the region is.
    fn used(&self, part: Extent) -> ExtentIter<'_> {
        let Usage::Mapped { map, offset } = &self.usage else { return Box::new(std::iter::empty()) };
        let start = self.extent.start();
        let Some(inner) = offset.checked_add(part.start() - start).and_then(|at| Extent::new(at, part.length())) else {
            return Everything.extents(part);
        };
        let shift = move |e: Extent| {
            let e = e.intersection(inner);
            Extent::between(part.start() + (e.start() - inner.start()), part.start() + (e.end() - inner.start()))
        };
        Box::new(map.extents(inner).map(move |e| e.map(shift)))
    }
}

/// Adds up what `map` says is used within `within`.
///
/// # Errors
/// As the map's own iteration.
pub(crate) fn used_bytes(map: &dyn AllocationMap, within: Extent) -> block::Result<ByteCount> {
    map.extents(within).try_fold(ByteCount::ZERO, |sum, extent| Ok(sum + extent?.length()))
}
