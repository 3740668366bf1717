//! What is taken of a disk beside and against its map: swap that is kept, volumes that are left out.

use std::sync::Arc;

use machine::{ByteCount, ByteOffset, SectorSize};

use crate::{AllocationMap, BlockSource, Extent, ExtentIter, GRAIN, Result, grains};

/// Ranges of a disk, ascending, neither overlapping nor touching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Arc<[Extent]>);

impl Ranges {
    /// These, in whatever order they come.
    pub fn new(mut extents: Vec<Extent>) -> Self {
        extents.retain(|extent| !extent.is_empty());
        extents.sort_by_key(|extent| extent.start());
        let mut joined: Vec<Extent> = Vec::with_capacity(extents.len());
        for extent in extents {
            match joined.last_mut() {
                Some(last) if extent.start() <= last.end() => {
                    *last = Extent::between(last.start(), last.end().max(extent.end()));
                }
                _ => joined.push(extent),
            }
        }
        Self(joined.into())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.0.iter().copied()
    }

    /// The bytes in them.
    pub fn length(&self) -> ByteCount {
        self.iter().map(|extent| extent.length()).sum()
    }

    /// Those that have a byte in `within`, not clipped.
    fn near(&self, within: Extent) -> &[Extent] {
        let first = self.0.partition_point(|extent| extent.end() <= within.start());
        let last = self.0.partition_point(|extent| extent.start() < within.end()).max(first);
        &self.0[first..last]
    }
}

/// A map with ranges that are used whatever it says, and ranges that are not.
#[derive(Clone)]
pub struct Scoped {
    map: Arc<dyn AllocationMap>,
    added: Ranges,
    removed: Ranges,
}

impl Scoped {
    /// What is in `map` or in `added`, and not in `removed`.
    pub fn new(map: Arc<dyn AllocationMap>, added: Ranges, removed: Ranges) -> Self {
        Self { map, added, removed }
    }
}

impl AllocationMap for Scoped {
    fn extents(&self, within: Extent) -> ExtentIter<'_> {
        let mut used = self.map.extents(within).peekable();
        let mut added = self.added.near(within).iter().map(move |extent| extent.intersection(within)).peekable();
        let both = std::iter::from_fn(move || match (used.peek(), added.peek()) {
            (Some(Ok(mapped)), Some(extent)) if extent.start() < mapped.start() => added.next().map(Ok),
            (None, Some(_)) => added.next().map(Ok),
            _ => used.next(),
        });
        let removed = self.removed.near(within);
        let left = both.flat_map(move |extent| Without::new(extent, removed));
        grains(left, ByteCount(1), ByteCount(within.end().0))
    }
}

/// The pieces of one extent that are in none of some ranges.
struct Without<'a> {
    /// What is left to be looked at; an error is passed on once.
    rest: Option<Result<Extent>>,
    removed: &'a [Extent],
}

impl<'a> Without<'a> {
    fn new(extent: Result<Extent>, removed: &'a [Extent]) -> Self {
        let first = match &extent {
            Ok(extent) => removed.partition_point(|range| range.end() <= extent.start()),
            Err(_) => 0,
        };
        Self { rest: Some(extent), removed: &removed[first..] }
    }
}

impl Iterator for Without<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = match self.rest.take()? {
                Ok(rest) if rest.is_empty() => return None,
                Ok(rest) => rest,
                Err(error) => return Some(Err(error)),
            };
            let Some((range, behind)) = self.removed.split_first().filter(|(range, _)| range.start() < rest.end())
            else {
                return Some(Ok(rest));
            };
            self.removed = behind;
            let before = Extent::between(rest.start(), range.start().max(rest.start()));
            self.rest = Some(Ok(Extent::between(range.end().clamp(rest.start(), rest.end()), rest.end())));
            if !before.is_empty() {
                return Some(Ok(before));
            }
        }
    }
}

/// A source whose `hidden` ranges read as zeros. Where they are made of whole grains that is the source itself: a map
/// without them never lets them be read. Else the reader's grains reach over their edges, and what is read there could
/// still be taken for a filesystem: its superblock lies at its beginning.
pub fn hide(source: Arc<dyn BlockSource>, hidden: &Ranges) -> Arc<dyn BlockSource> {
    let end = Extent::first(source.size()).end();
    let whole = |at: ByteOffset| at.0.is_multiple_of(GRAIN.0) || at >= end;
    match hidden.iter().all(|extent| whole(extent.start()) && whole(extent.end())) {
        true => source,
        false => Arc::new(Hidden { source, hidden: hidden.clone() }),
    }
}

struct Hidden {
    source: Arc<dyn BlockSource>,
    hidden: Ranges,
}

impl BlockSource for Hidden {
    fn size(&self) -> ByteCount {
        self.source.size()
    }

    fn logical_sector_size(&self) -> SectorSize {
        self.source.logical_sector_size()
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        self.source.read_at(offset, buffer)?;
        let Some(read) = Extent::new(offset, buffer.len().into()) else { return Ok(()) };
        for range in self.hidden.near(read) {
            let part = range.intersection(read);
            let place = |at: ByteOffset| (at - offset).to_usize().unwrap_or(buffer.len()).min(buffer.len());
            let (start, end) = (place(part.start()), place(part.end()));
            buffer[start..end].fill(0);
        }
        Ok(())
    }

    fn allocated(&self, within: Extent) -> ExtentIter<'_> {
        self.source.allocated(within)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Everything, MemorySource};

    fn extent(start: u64, end: u64) -> Extent {
        Extent::between(ByteOffset(start), ByteOffset(end))
    }

    fn ranges(pairs: &[(u64, u64)]) -> Ranges {
        Ranges::new(pairs.iter().map(|&(start, length)| extent(start, start + length)).collect())
    }

    /// A map of a few ranges.
    struct Few(Ranges);

    impl AllocationMap for Few {
        fn extents(&self, within: Extent) -> ExtentIter<'_> {
            let parts: Vec<_> = self.0.near(within).iter().map(|extent| Ok(extent.intersection(within))).collect();
            Box::new(parts.into_iter())
        }
    }

    proptest! {
        #[test]
        fn a_byte_is_used_if_it_is_in_the_map_or_added_and_not_removed(
            map in prop::collection::vec((0u64..90, 0u64..20), 0..6),
            added in prop::collection::vec((0u64..90, 0u64..20), 0..4),
            removed in prop::collection::vec((0u64..90, 0u64..20), 0..4),
            from in 0u64..60, length in 0u64..60,
        ) {
            let within = extent(from, from + length);
            let scoped = Scoped::new(Arc::new(Few(ranges(&map))), ranges(&added), ranges(&removed));
            let found: Vec<Extent> = scoped.extents(within).collect::<Result<_>>().unwrap();
            prop_assert!(found.windows(2).all(|pair| pair[0].end() < pair[1].start()), "{:?}", found);
            let holds = |list: &[(u64, u64)], at: u64| list.iter().any(|&(start, n)| (start..start + n).contains(&at));
            for at in 0..150 {
                let expected = (from..from + length).contains(&at)
                    && (holds(&map, at) || holds(&added, at))
                    && !holds(&removed, at);
                let is = found.iter().any(|e| (e.start().0..e.end().0).contains(&at));
                prop_assert_eq!(is, expected, "byte {} in {:?}", at, found);
            }
        }
    }

    #[test]
    fn what_is_hidden_reads_as_zeros_and_its_neighbours_do_not() {
        let disk: Arc<dyn BlockSource> = Arc::new(MemorySource::new(vec![7; 4 << 16], SectorSize::B512));
        let hidden = hide(Arc::clone(&disk), &ranges(&[(1000, 2000), (3 << 16, 1 << 16)]));
        let mut buffer = vec![1; 4000];
        hidden.read_at(ByteOffset(500), &mut buffer).unwrap();
        let zeros: Vec<usize> = buffer.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at).collect();
        assert_eq!((zeros.first(), zeros.last(), zeros.len()), (Some(&500), Some(&2499), 2000));
        let whole = hide(Arc::clone(&disk), &ranges(&[(1 << 16, 1 << 16), (3 << 16, 1 << 16)]));
        assert!(Arc::ptr_eq(&whole, &disk), "whole grains are kept from being read by the map");
        let used = Scoped::new(Arc::new(Everything), Ranges::default(), ranges(&[(0, 4 << 16)]));
        assert_eq!(used.extents(Extent::first(disk.size())).count(), 0);
    }
}
