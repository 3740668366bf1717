//! Which bytes of a disk matter, as ordered iterators of extents: never a collected list, so that memory does not grow
//! with the disk.

use machine::{ByteCount, ByteOffset};

use crate::{Extent, Result};

/// Extents in ascending order that neither overlap nor touch; an error ends the iteration.
pub type ExtentIter<'a> = Box<dyn Iterator<Item = Result<Extent>> + Send + 'a>;

/// Something that knows which of its bytes are in use: a filesystem's bitmap, a sparse file, an image format.
pub trait AllocationMap: Send + Sync {
    /// The used extents inside `within`, clipped to it, ascending, never overlapping.
    ///
    /// A map may begin anywhere in constant or logarithmic time, so that a resumed or partial copy does not walk the
    /// disk from its start.
    fn extents(&self, within: Extent) -> ExtentIter<'_>;
}

/// The map of something whose allocation is not known: every byte counts.
#[derive(Clone, Copy, Debug)]
pub struct Everything;

impl AllocationMap for Everything {
    fn extents(&self, within: Extent) -> ExtentIter<'_> {
        Box::new((!within.is_empty()).then_some(Ok(within)).into_iter())
    }
}

/// Cuts extents to `within` and drops what becomes empty.
pub fn clip<'a>(extents: impl Iterator<Item = Result<Extent>> + Send + 'a, within: Extent) -> ExtentIter<'a> {
    Box::new(
        extents
            .map(move |extent| extent.map(|e| e.intersection(within)))
            .filter(|e| !matches!(e, Ok(e) if e.is_empty())),
    )
}

/// Widens each extent to whole grains of `grain` bytes, joins what then touches or overlaps, and cuts at `size`.
///
/// This is the gap joining of the copy engine: gaps shorter than a grain disappear, and what is written afterwards is
/// made of whole clusters.
pub fn grains<'a>(
    extents: impl Iterator<Item = Result<Extent>> + Send + 'a,
    grain: ByteCount,
    size: ByteCount,
) -> ExtentIter<'a> {
    let disk = Extent::first(size);
    let widened = extents.filter(|extent| !matches!(extent, Ok(e) if e.is_empty())).map(move |extent| {
        extent.map(|e| {
            let end = e.end().checked_round_up(grain).unwrap_or(ByteOffset(u64::MAX));
            Extent::between(e.start().round_down(grain), end).intersection(disk)
        })
    });
    Box::new(Join { inner: widened, pending: None })
}

/// Joins neighbours that touch or overlap; its input is ascending by start.
struct Join<I> {
    inner: I,
    pending: Option<Extent>,
}

impl<I: Iterator<Item = Result<Extent>>> Iterator for Join<I> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.inner.next() {
                None => return self.pending.take().map(Ok),
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(extent)) if extent.is_empty() => {}
                Some(Ok(extent)) => match self.pending {
                    None => self.pending = Some(extent),
                    Some(previous) if extent.start() <= previous.end() => {
                        self.pending = Some(Extent::between(previous.start(), previous.end().max(extent.end())));
                    }
                    Some(previous) => {
                        self.pending = Some(extent);
                        return Some(Ok(previous));
                    }
                },
            }
        }
    }
}

/// What two ascending sequences of extents have in common.
pub fn intersect<'a>(
    left: impl Iterator<Item = Result<Extent>> + Send + 'a,
    right: impl Iterator<Item = Result<Extent>> + Send + 'a,
) -> ExtentIter<'a> {
    Box::new(Intersect { left, right, current: (None, None) })
}

struct Intersect<L, R> {
    left: L,
    right: R,
    current: (Option<Extent>, Option<Extent>),
}

impl<L, R> Iterator for Intersect<L, R>
where
    L: Iterator<Item = Result<Extent>>,
    R: Iterator<Item = Result<Extent>>,
{
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let left = match self.current.0.take().map(Ok).or_else(|| self.left.next())? {
                Ok(extent) => extent,
                Err(error) => return Some(Err(error)),
            };
            let right = match self.current.1.take().map(Ok).or_else(|| self.right.next())? {
                Ok(extent) => extent,
                Err(error) => return Some(Err(error)),
            };
            // Whoever ends first is done; the other may still meet its successor.
            match left.end() < right.end() {
                true => self.current.1 = Some(right),
                false => self.current.0 = Some(left),
            }
            let common = left.intersection(right);
            if !common.is_empty() {
                return Some(Ok(common));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(list: &[(u64, u64)]) -> impl Iterator<Item = Result<Extent>> + Send + use<> {
        list.iter()
            .map(|&(start, end)| Ok(Extent::between(ByteOffset(start), ByteOffset(end))))
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn pairs(iter: ExtentIter<'_>) -> Vec<(u64, u64)> {
        iter.map(|e| e.map(|e| (e.start().0, e.end().0)).unwrap()).collect()
    }

    #[test]
    fn grains_join_small_gaps_and_end_with_the_disk() {
        let joined =
            grains(extents(&[(5, 6), (100, 130), (200, 200), (260, 300), (990, 1000)]), ByteCount(64), ByteCount(1000));
        assert_eq!(pairs(joined), [(0, 192), (256, 320), (960, 1000)]);
    }

    #[test]
    fn intersection_agrees_with_a_bit_by_bit_oracle() {
        let (left, right) = ([(0, 10), (12, 20), (30, 31)], [(3, 4), (6, 15), (18, 40)]);
        let inside = |list: &[(u64, u64)], at| list.iter().any(|&(start, end)| (start..end).contains(&at));
        let common = pairs(intersect(extents(&left), extents(&right)));
        for at in 0..50 {
            assert_eq!(inside(&common, at), inside(&left, at) && inside(&right, at), "byte {at}");
        }
    }

    #[test]
    fn everything_is_one_extent_and_nothing_is_none() {
        assert_eq!(pairs(Everything.extents(Extent::first(ByteCount(7)))), [(0, 7)]);
        assert_eq!(pairs(Everything.extents(Extent::first(ByteCount(0)))), []);
    }
}
