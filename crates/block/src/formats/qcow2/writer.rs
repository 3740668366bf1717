//! Writes an uncompressed qcow2 version 3 in one sequential append; what is replaced later is written in place, or appended.
#![allow(clippy::cast_possible_truncation)] // lengths and indexes are bounded by a buffer, a cluster or the L1 table

use std::collections::BTreeMap;
use std::ops::Range;

use machine::{ByteCount, ByteOffset};

use super::MAGIC;
use super::layout::{FinishedTable, Layout};
use crate::grain::GrainSink;
use crate::output::Output;
use crate::{BUFFER_SIZE, Buffer, Error, ErrorKind, Extent, GRAIN, Placed, PlacedIter, Pool, Result};

/// Bytes in a cluster: the engine's grain.
pub(crate) const CLUSTER: u64 = GRAIN.0;
/// Entries of an L2 table, which fills one cluster.
pub(crate) const ENTRIES: u64 = CLUSTER / 8;
/// Clusters that one block of 16-bit refcounts counts.
const COUNTED: u64 = CLUSTER / 2;
/// The largest L1 table that QEMU opens is 32 MiB.
const SIZE_MAX: ByteCount = ByteCount((32 << 20) / 8 * ENTRIES * CLUSTER);

/// An image being appended to.
pub(crate) struct Qcow2Writer {
    output: Output,
    size: ByteCount,
    layout: Layout,
    /// Clusters of the disk that got their place in the file out of the order of the disk; their tables are written when the
    /// image is finished.
    replaced: BTreeMap<u64, u64>,
    /// The table that was looked up last, with its place.
    table: Option<(u64, Vec<u64>)>,
    pool: Pool,
    /// Every cluster of the disk gets its place in the file, written or not.
    full: bool,
    /// Clusters of the disk that have one; only where all get one.
    placed: u64,
}

impl Qcow2Writer {
    /// Refuses a disk that a qcow2 with such clusters cannot hold.
    pub(crate) fn check_size(size: ByteCount) -> Result<()> {
        if size > SIZE_MAX {
            let context = format!("qcow2 with 64 KiB clusters holds at most {SIZE_MAX}: the disk has {size}");
            return Err(Error::new(ErrorKind::Unsupported, context));
        }
        Ok(())
    }

    pub(crate) fn create(output: Output, size: ByteCount, full: bool) -> Result<Self> {
        let mut writer = Self::empty(output, size, full)?;
        writer.allocate()?;
        Ok(writer)
    }

    fn empty(output: Output, size: ByteCount, full: bool) -> Result<Self> {
        Self::check_size(size)?;
        let regions = size.0.div_ceil(ENTRIES * CLUSTER).max(1);
        Ok(Self {
            output,
            size,
            layout: Layout::new(regions as usize),
            replaced: BTreeMap::new(),
            table: None,
            pool: Pool::new(2),
            full,
            placed: 0,
        })
    }

    /// Sets room aside for the whole file, where it is to have it.
    fn allocate(&mut self) -> Result<()> {
        if !self.full {
            return Ok(());
        }
        let regions = self.layout.l1.len() as u64;
        let behind_l1 = 1 + self.clusters() + regions + (regions * 8).div_ceil(CLUSTER);
        self.output.allocate(ByteCount(Refcounts::behind(behind_l1).clusters * CLUSTER))
    }

    /// Of the disk.
    fn clusters(&self) -> u64 {
        self.size.0.div_ceil(CLUSTER)
    }

    /// Gives the clusters before `guest` their places, where all get one; they read as zeros, as the room set aside does.
    fn place_until(
        &mut self,
        guest: u64,
        table: &mut dyn FnMut(&mut Self, &FinishedTable) -> Result<()>,
    ) -> Result<()> {
        while self.full && self.placed < guest {
            if let Some(finished) = self.layout.enter(self.placed) {
                table(self, &finished)?;
            }
            let count = Layout::room(self.placed).min(guest - self.placed);
            self.layout.append(self.placed, count);
            self.placed += count;
        }
        Ok(())
    }

    /// The writer and the end of what is kept of the disk.
    pub(crate) fn resume(
        output: Output,
        size: ByteCount,
        full: bool,
        placed: PlacedIter<'_>,
    ) -> Result<(Self, ByteOffset)> {
        let mut writer = Self::empty(output, size, full)?;
        let mut end = ByteOffset::ZERO;
        // The finished tables are in the file already.
        let in_file = &mut |_: &mut Self, _: &FinishedTable| Ok(());
        for placed in placed {
            let extent = match placed? {
                Placed::Written(extent) => extent,
                Placed::Replaced(extent) if full => {
                    writer.place_until(clusters(extent).end, in_file)?;
                    continue;
                }
                Placed::Replaced(extent) => {
                    for guest in clusters(extent) {
                        let host = writer.layout.take();
                        writer.replaced.insert(guest, host);
                    }
                    continue;
                }
            };
            let clusters = clusters(extent);
            // A grain that two extents share got its place with the first.
            let mut guest = clusters.start.max(end.0.div_ceil(CLUSTER));
            writer.place_until(guest, in_file)?;
            while guest < clusters.end {
                let count = Layout::room(guest).min(clusters.end - guest);
                writer.layout.enter(guest);
                writer.layout.append(guest, count);
                guest += count;
            }
            writer.placed = clusters.end;
            end = ByteOffset(clusters.end * CLUSTER).min(Extent::first(size).end());
        }
        let (kept, length) = (writer.layout.end * CLUSTER, writer.output.length()?);
        if length.0 < kept && end > ByteOffset::ZERO {
            let context = format!("qcow2 has {} bytes: expected at least {kept} as its journal says", length.0);
            return Err(Error::new(ErrorKind::Malformed, context));
        }
        writer.output.set_length(ByteCount(kept))?;
        writer.allocate()?;
        Ok((writer, end))
    }

    /// Writes `data` from cluster `host` on, the end of what was written so far.
    fn append(&mut self, host: u64, data: Buffer) -> Result<()> {
        let offset = ByteOffset(host * CLUSTER);
        self.output.reserve((offset + data.len().into()).0)?;
        self.output.write(offset, data)
    }

    /// Where a cluster of the disk lies in the file.
    fn find(&mut self, guest: u64) -> Result<Option<u64>> {
        if let Some(host) = self.replaced.get(&guest) {
            return Ok(Some(*host));
        }
        if let Some(entry) = self.layout.entry(guest) {
            return Ok(entry);
        }
        let Some(host) = self.layout.table(guest / ENTRIES) else { return Ok(None) };
        if self.table.as_ref().is_none_or(|(known, _)| *known != host) {
            self.table = Some((host, self.read_table(host)?));
        }
        let entries = self.table.as_ref().map_or(&[][..], |(_, entries)| entries);
        Ok(entries.get((guest % ENTRIES) as usize).copied().and_then(super::layout::place))
    }

    fn read_table(&mut self, host: u64) -> Result<Vec<u64>> {
        let mut bytes = vec![0; CLUSTER as usize];
        self.output.read(ByteOffset(host * CLUSTER), &mut bytes)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
    }

    /// Puts what was replaced into the tables of its regions.
    fn complete_tables(&mut self) -> Result<()> {
        let mut replaced = std::mem::take(&mut self.replaced);
        self.table = None;
        while let Some(region) = replaced.first_key_value().map(|(guest, _)| guest / ENTRIES) {
            let later = replaced.split_off(&((region + 1) * ENTRIES));
            let clusters = std::mem::replace(&mut replaced, later);
            if self.layout.amend(region, &clusters) {
                continue;
            }
            let found = self.layout.table(region);
            let mut entries = match found {
                Some(host) => self.read_table(host)?,
                None => vec![0; ENTRIES as usize],
            };
            super::layout::enter_all(&mut entries, &clusters);
            let host = found.unwrap_or_else(|| self.layout.new_table(region));
            self.put_table(&FinishedTable { host, entries })?;
        }
        Ok(())
    }

    fn put_table(&mut self, table: &FinishedTable) -> Result<()> {
        self.put_entries(table.host, &table.entries)
    }

    /// Writes big-endian entries from cluster `host` on, padded to whole clusters.
    fn put_entries(&mut self, mut host: u64, entries: &[u64]) -> Result<()> {
        for part in entries.chunks(BUFFER_SIZE / 8) {
            let mut bytes = self.pool.take();
            for (to, entry) in bytes.chunks_exact_mut(8).zip(part) {
                to.copy_from_slice(&entry.to_be_bytes());
            }
            let length = (part.len() * 8).next_multiple_of(CLUSTER as usize);
            bytes[part.len() * 8..length].fill(0);
            self.append(host, bytes.freeze(length))?;
            host += length as u64 / CLUSTER;
        }
        Ok(())
    }

    /// Writes the refcounts of a file in which each of `clusters` is used once, into blocks from cluster `host` on.
    fn put_refcounts(&mut self, host: u64, clusters: u64) -> Result<()> {
        let mut ones = self.pool.take();
        for count in ones.chunks_exact_mut(2) {
            count.copy_from_slice(&1u16.to_be_bytes());
        }
        let ones = ones.freeze(BUFFER_SIZE);
        let mut host = host;
        let mut rest = clusters * 2;
        while rest > 0 {
            let buffer = if rest >= ones.len() as u64 {
                ones.clone()
            } else {
                let (used, length) = (rest as usize, (rest as usize).next_multiple_of(CLUSTER as usize));
                let mut last = self.pool.take();
                last[..used].copy_from_slice(&ones[..used]);
                last[used..length].fill(0);
                last.freeze(length)
            };
            let length = buffer.len() as u64;
            self.append(host, buffer)?;
            host += length / CLUSTER;
            rest = rest.saturating_sub(length);
        }
        Ok(())
    }
}

impl GrainSink for Qcow2Writer {
    fn put(&mut self, offset: ByteOffset, mut data: Buffer) -> Result<()> {
        let mut guest = offset.0 / CLUSTER;
        self.place_until(guest, &mut Self::put_table)?;
        self.placed = guest + data.len() as u64 / CLUSTER;
        while !data.is_empty() {
            if let Some(table) = self.layout.enter(guest) {
                self.put_table(&table)?;
            }
            let count = Layout::room(guest).min(data.len() as u64 / CLUSTER);
            let host = self.layout.append(guest, count);
            let bytes = (count * CLUSTER) as usize;
            self.append(host, data.slice(0..bytes))?;
            data = data.slice(bytes..data.len());
            guest += count;
        }
        Ok(())
    }

    fn get(&mut self, offset: ByteOffset, grain: &mut [u8]) -> Result<()> {
        match self.find(offset.0 / CLUSTER)? {
            Some(host) => self.output.read(ByteOffset(host * CLUSTER), grain),
            None => {
                grain.fill(0);
                Ok(())
            }
        }
    }

    fn replace(&mut self, offset: ByteOffset, data: Buffer) -> Result<bool> {
        let guest = offset.0 / CLUSTER;
        let placed = self.placed;
        self.place_until(guest + 1, &mut Self::put_table)?;
        match self.find(guest)? {
            Some(host) => {
                // The same place may have been written a moment ago.
                self.output.drain()?;
                self.output.write(ByteOffset(host * CLUSTER), data)?;
                Ok(self.placed > placed)
            }
            None if data.iter().all(|byte| *byte == 0) => Ok(false),
            None => {
                let host = self.layout.take();
                self.append(host, data)?;
                self.replaced.insert(guest, host);
                Ok(true)
            }
        }
    }

    fn sync(&mut self) -> Result<()> {
        self.output.sync()
    }

    fn finish(mut self) -> Result<ByteCount> {
        self.place_until(self.clusters(), &mut Self::put_table)?;
        self.complete_tables()?;
        if let Some(table) = self.layout.leave() {
            self.put_table(&table)?;
        }
        let l1 = std::mem::take(&mut self.layout.l1);
        let l1_host = self.layout.end;
        let behind_l1 = l1_host + (l1.len() as u64 * 8).div_ceil(CLUSTER);
        let refcounts = Refcounts::behind(behind_l1);
        self.put_entries(l1_host, &l1)?;
        let blocks: Vec<u64> = (0..refcounts.blocks).map(|n| (behind_l1 + refcounts.table + n) * CLUSTER).collect();
        self.put_entries(behind_l1, &blocks)?;
        self.put_refcounts(behind_l1 + refcounts.table, refcounts.clusters)?;
        let length = ByteCount(refcounts.clusters * CLUSTER);
        self.output.sync()?;
        // The header comes last: without it the file is no image.
        let mut cluster = self.pool.take();
        cluster[..CLUSTER as usize].fill(0);
        let header = header(self.size, l1.len(), l1_host, behind_l1, refcounts.table);
        cluster[..header.len()].copy_from_slice(&header);
        self.output.write(ByteOffset::ZERO, cluster.freeze(CLUSTER as usize))?;
        self.output.set_length(length)?;
        self.output.sync()?;
        Ok(length)
    }

    fn bytes_written(&self) -> ByteCount {
        self.output.bytes_written()
    }
}

/// The clusters of the disk that `extent` touches.
fn clusters(extent: Extent) -> Range<u64> {
    extent.start().0 / CLUSTER..extent.end().0.div_ceil(CLUSTER)
}

/// How many clusters the refcounts take when they count themselves too.
struct Refcounts {
    table: u64,
    blocks: u64,
    /// All clusters of the file.
    clusters: u64,
}

impl Refcounts {
    fn behind(used: u64) -> Self {
        let mut found = Self { table: 1, blocks: 1, clusters: used + 2 };
        loop {
            let blocks = found.clusters.div_ceil(COUNTED);
            let table = (blocks * 8).div_ceil(CLUSTER);
            if (table, blocks) == (found.table, found.blocks) {
                return found;
            }
            found = Self { table, blocks, clusters: used + table + blocks };
        }
    }
}

/// The version 3 header (specification, section "Header"), 112 bytes, and an empty header extension.
fn header(size: ByteCount, l1_entries: usize, l1_host: u64, refcount_host: u64, refcount_clusters: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(120);
    let mut put = |field: &[u8]| bytes.extend_from_slice(field);
    put(&MAGIC);
    put(&3u32.to_be_bytes()); // version
    put(&[0; 12]); // no backing file: offset, length
    put(&GRAIN.0.trailing_zeros().to_be_bytes()); // cluster_bits
    put(&size.0.to_be_bytes());
    put(&0u32.to_be_bytes()); // not encrypted
    put(&u32::try_from(l1_entries).expect("the L1 table was bounded").to_be_bytes());
    put(&(l1_host * CLUSTER).to_be_bytes());
    put(&(refcount_host * CLUSTER).to_be_bytes());
    put(&u32::try_from(refcount_clusters).expect("bounded by the size").to_be_bytes());
    put(&[0; 12]); // no snapshots: count, offset
    put(&[0; 24]); // features: incompatible, compatible, autoclear
    put(&4u32.to_be_bytes()); // refcount_order: 16 bits
    put(&112u32.to_be_bytes()); // header_length
    put(&[0; 8]); // compression type zlib, padding
    put(&[0; 8]); // end of header extensions
    bytes
}
