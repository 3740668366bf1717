//! Where the clusters of an image that is only appended to come to lie: a pure function of the guest clusters written,
//! in ascending order, so that it can be derived again from a journal.
//!
//! File: one cluster for the header; then data clusters in the order of the disk, each region's L2 table behind its
//! last data cluster; behind everything the L1 table, the refcount table and the refcount blocks. Every cluster up to
//! the end is in use once, so the refcounts are one run.
#![allow(clippy::cast_possible_truncation)] // lengths and indexes are bounded by a buffer, a cluster or the L1 table

use super::writer::{CLUSTER, ENTRIES};

/// Entry flag: exactly one reference, so it may be written in place.
const COPIED: u64 = 1 << 63;

/// An L2 table that is complete, and where it belongs.
pub(crate) struct FinishedTable {
    /// Cluster of the file.
    pub(crate) host: u64,
    /// Its entries, big-endian on disk.
    pub(crate) entries: Vec<u64>,
}

/// The growing image.
pub(crate) struct Layout {
    /// First cluster of the file that is not taken.
    pub(crate) end: u64,
    /// One entry a region of [`ENTRIES`] guest clusters.
    pub(crate) l1: Vec<u64>,
    region: Option<(u64, Vec<u64>)>,
}

impl Layout {
    /// An image of `regions` L2 tables that holds nothing but its header.
    pub(crate) fn new(regions: usize) -> Self {
        Self { end: 1, l1: vec![0; regions], region: None }
    }

    /// Turns to the region of `guest` (a cluster of the disk); returns the table of the region that is left by it.
    pub(crate) fn enter(&mut self, guest: u64) -> Option<FinishedTable> {
        let index = guest / ENTRIES;
        if self.region.as_ref().is_some_and(|(current, _)| *current == index) {
            return None;
        }
        let finished = self.leave();
        self.region = Some((index, vec![0; ENTRIES as usize]));
        finished
    }

    /// Completes the current region, if there is one.
    pub(crate) fn leave(&mut self) -> Option<FinishedTable> {
        let (index, entries) = self.region.take()?;
        let host = self.end;
        self.end += 1;
        // The index was made from a cluster of a disk whose regions `l1` has.
        self.l1[usize::try_from(index).expect("an index of a vector")] = (host * CLUSTER) | COPIED;
        Some(FinishedTable { host, entries })
    }

    /// Clusters of the current region from `guest` to its end.
    pub(crate) fn room(guest: u64) -> u64 {
        ENTRIES - guest % ENTRIES
    }

    /// Gives `count` clusters of the entered region, from `guest` on, the next places in the file; returns the first.
    pub(crate) fn append(&mut self, guest: u64, count: u64) -> u64 {
        let host = self.end;
        let (index, entries) = self.region.as_mut().expect("a region was entered");
        assert!(guest / ENTRIES == *index && count <= Self::room(guest), "append stays in its region");
        let first = (guest % ENTRIES) as usize;
        for (entry, cluster) in entries[first..first + count as usize].iter_mut().zip(host..) {
            *entry = (cluster * CLUSTER) | COPIED;
        }
        self.end += count;
        host
    }
}
