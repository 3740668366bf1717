//! Mapping pairs: where the clusters of a value lie, as pairs of a length and a distance from the run before, each of as
//! many bytes as a nibble tells. A run without a distance is a hole.

use crate::error::{Error, Result};

/// Runs of one value that are read.
const RUNS_MAX: usize = 1 << 20;

/// Clusters of a value that lie in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClusterRun {
    /// The first one, counted within the value.
    pub first: u64,
    /// Where it lies in the volume; `None` in a hole.
    pub place: Option<u64>,
    pub count: u64,
}

impl ClusterRun {
    pub(crate) fn end(&self) -> u64 {
        self.first + self.count
    }

    /// The clusters of the volume: the first, and one past the last; `None` of a hole.
    pub(crate) fn places(&self) -> Option<(u64, u64)> {
        self.place.map(|place| (place, place + self.count))
    }
}

/// Reads the pairs of a part of a value, which begins with cluster `first` of it, and puts them to `runs`. `clusters` is the
/// size of the volume, `at` is where the record was read.
///
/// # Errors
/// [`Malformed`](crate::ErrorKind::Malformed) for a pair that does not fit, a run that is empty or outside of the volume, or a
/// part that does not continue what is there.
pub(crate) fn parse_runs(pairs: &[u8], first: u64, clusters: u64, at: u64, runs: &mut Vec<ClusterRun>) -> Result<()> {
    let wrong = |what: String| Error::malformed(at, format!("ntfs: runs: {what}"));
    let expected = runs.last().map_or(first, ClusterRun::end);
    if first != expected {
        return Err(wrong(format!("expected a part that begins with cluster {expected}, found {first}")));
    }
    let (mut rest, mut next, mut place) = (pairs, first, 0i64);
    loop {
        let Some((&head, tail)) = rest.split_first() else { return Err(wrong("they do not end".into())) };
        if head == 0 {
            return Ok(());
        }
        let (count_bytes, place_bytes) = (usize::from(head & 15), usize::from(head >> 4));
        if count_bytes == 0 || count_bytes > 8 || place_bytes > 8 || tail.len() < count_bytes + place_bytes {
            return Err(wrong(format!("found a pair of {count_bytes} and {place_bytes} bytes")));
        }
        let (count, tail) = tail.split_at(count_bytes);
        let (distance, tail) = tail.split_at(place_bytes);
        rest = tail;
        let end = u64::try_from(signed(count)).ok().filter(|&n| n > 0).and_then(|count| next.checked_add(count));
        // A hole may be larger than the volume, but no value is larger than what a cluster's number can tell.
        let end = end.filter(|&end| end <= i64::MAX as u64);
        let end = end.ok_or_else(|| wrong(format!("a run of {} clusters", signed(count))))?;
        let placed = if place_bytes == 0 {
            None
        } else {
            place = place.wrapping_add(signed(distance));
            let inside =
                u64::try_from(place).ok().filter(|&p| p.checked_add(end - next).is_some_and(|e| e <= clusters));
            Some(inside.ok_or_else(|| wrong(format!("expected clusters below {clusters}, found {place}")))?)
        };
        if runs.len() >= RUNS_MAX {
            return Err(wrong(format!("more than {RUNS_MAX}")));
        }
        runs.push(ClusterRun { first: next, place: placed, count: end - next });
        next = end;
    }
}

/// A little-endian number of one to eight bytes with its sign.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    for (to, from) in all.iter_mut().zip(bytes) {
        *to = *from;
    }
    i64::from_le_bytes(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pairs: &[u8]) -> Result<Vec<(u64, Option<u64>, u64)>> {
        let mut runs = Vec::new();
        parse_runs(pairs, 0, 0x10_0000, 0, &mut runs)?;
        Ok(runs.iter().map(|run| (run.first, run.place, run.count)).collect())
    }

    /// The example of the Linux-NTFS documentation, and a hole.
    #[test]
    fn distances_are_signed_and_count_from_the_run_before() {
        let pairs = [0x21, 0x18, 0x34, 0x56, 0x11, 0x10, 0xf0, 0x01, 0x20, 0x21, 0x08, 0x10, 0x00, 0];
        let expected =
            vec![(0, Some(0x5634), 0x18), (0x18, Some(0x5624), 0x10), (0x28, None, 0x20), (0x48, Some(0x5634), 8)];
        assert_eq!(parsed(&pairs).unwrap(), expected);
        assert_eq!(parsed(&[0]).unwrap(), []);
    }

    #[test]
    fn a_pair_that_does_not_fit_is_refused() {
        for pairs in [
            &[0x11, 1][..],
            &[0x11, 1, 1],
            &[0x10, 1, 0],
            &[0x11, 0, 1, 0],
            &[0x11, 0xff, 1, 0],
            &[0x11, 1, 0xff, 0],
            &[0x31, 2, 0xff, 0xff, 0x0f, 0],
            &[0x19, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 1, 0],
        ] {
            let error = parsed(pairs).unwrap_err();
            println!("{pairs:x?}: {error}");
            assert_eq!(error.kind, crate::ErrorKind::Malformed);
        }
    }
}
