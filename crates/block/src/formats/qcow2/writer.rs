//! Writes an uncompressed qcow2 version 3 in one sequential append.
#![allow(clippy::cast_possible_truncation)] // lengths and indexes are bounded by a buffer, a cluster or the L1 table

use machine::{ByteCount, ByteOffset};

use super::MAGIC;
use super::layout::{FinishedTable, Layout};
use crate::grain::GrainSink;
use crate::output::Output;
use crate::{BUFFER_SIZE, Buffer, Error, ErrorKind, ExtentIter, GRAIN, Pool, Result};

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
        Ok(Self { output, size, layout: Layout::new(regions as usize), pool: Pool::new(2), full, placed: 0 })
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
        written: ExtentIter<'_>,
    ) -> Result<(Self, ByteOffset)> {
        let mut writer = Self::empty(output, size, full)?;
        let mut end = ByteOffset::ZERO;
        for extent in written {
            let extent = extent?;
            let clusters = extent.start().0 / CLUSTER..extent.end().0.div_ceil(CLUSTER);
            let mut guest = clusters.start;
            writer.place_until(guest, &mut |_, _| Ok(()))?; // the finished tables are in the file already
            while guest < clusters.end {
                let count = Layout::room(guest).min(clusters.end - guest);
                writer.layout.enter(guest);
                writer.layout.append(guest, count);
                guest += count;
            }
            writer.placed = clusters.end;
            end = extent.end();
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

    fn sync(&mut self) -> Result<()> {
        self.output.sync()
    }

    fn finish(mut self) -> Result<ByteCount> {
        self.place_until(self.clusters(), &mut Self::put_table)?;
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
