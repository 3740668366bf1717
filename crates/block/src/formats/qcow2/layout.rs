//! Where the clusters of an image that is only appended to come to lie: a pure function of the guest clusters written,
//! in ascending order, so that it can be derived again from a journal.
//!
//! File: one cluster for the header; then data clusters in the order of the disk, each region's L2 table behind its
//! last data cluster; behind everything the L1 table, the refcount table and the refcount blocks. Every cluster up to
//! the end is in use once, so the refcounts are one run.
#![allow(clippy::cast_possible_truncation)] // lengths and indexes are bounded by a buffer, a cluster or the L1 table

use std::collections::BTreeMap;

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

/// The cluster of the file that an entry names, if it names one.
pub(crate) fn place(entry: u64) -> Option<u64> {
    let host = (entry & !COPIED) / CLUSTER;
    (host > 0).then_some(host)
}

/// Enters clusters of one region and their places into its table.
pub(crate) fn enter_all(entries: &mut [u64], clusters: &BTreeMap<u64, u64>) {
    for (guest, host) in clusters {
        entries[(guest % ENTRIES) as usize] = (host * CLUSTER) | COPIED;
    }
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

    /// Gives one cluster that comes out of order the next place in the file.
    pub(crate) fn take(&mut self) -> u64 {
        self.end += 1;
        self.end - 1
    }

    /// Where a cluster of the current region lies, if it has a place; `None` for one of another region.
    pub(crate) fn entry(&self, guest: u64) -> Option<Option<u64>> {
        let (index, entries) = self.region.as_ref()?;
        (guest / ENTRIES == *index).then(|| place(entries[(guest % ENTRIES) as usize]))
    }

    /// Where the table of a region that was left lies.
    pub(crate) fn table(&self, region: u64) -> Option<u64> {
        self.l1.get(region as usize).copied().and_then(place)
    }

    /// Gives a region that has no table one; returns its place.
    pub(crate) fn new_table(&mut self, region: u64) -> u64 {
        let host = self.take();
        self.l1[region as usize] = (host * CLUSTER) | COPIED;
        host
    }

    /// Enters clusters and their places into the current region; `false` where it is another.
    pub(crate) fn amend(&mut self, region: u64, clusters: &BTreeMap<u64, u64>) -> bool {
        match &mut self.region {
            Some((current, entries)) if *current == region => {
                enter_all(entries, clusters);
                true
            }
            _ => false,
        }
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
