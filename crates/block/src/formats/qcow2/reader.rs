//! A qcow2 image as a source. Memory is bounded: the L1 table (at most 32 MiB, 1 MiB for 64 TiB), some slices of L2
//! tables and a few unpacked clusters.
#![forbid(unsafe_code)]
#![allow(clippy::cast_possible_truncation)] // lengths and indexes are bounded by a buffer, a cluster or the L1 table

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use machine::{ByteCount, ByteOffset, SectorSize};

use super::cluster::{Entry, Mapping, decompress, map_entry};
use super::header::{HEADER_READ_MAX, Header, parse_header};
use crate::{BlockSource, Error, Extent, ExtentIter, Result, check_bounds};

const L1_OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Bytes of an L2 table that are read and kept together.
const SLICE_SIZE: u64 = 4096;
/// L2 slices kept: 1 MiB.
const SLICES_MAX: usize = 256;
/// Bytes of unpacked clusters kept; at least four clusters.
const UNPACKED_MAX: usize = 1 << 20;

/// An open image.
pub(crate) struct Qcow2Source {
    file: Arc<dyn BlockSource>,
    header: Header,
    l1: Vec<u64>,
    backing: Option<Arc<dyn BlockSource>>,
    slices: Mutex<Recent<Arc<Vec<Entry>>>>,
    unpacked: Mutex<Recent<Arc<Vec<u8>>>>,
}

impl Qcow2Source {
    /// Reads the header of the image in `file`.
    pub(crate) fn load_header(file: &dyn BlockSource) -> Result<Header> {
        let length = file.size().0.min(HEADER_READ_MAX as u64) as usize;
        let mut bytes = vec![0; length];
        file.read_at(ByteOffset::ZERO, &mut bytes)?;
        parse_header(&bytes)
    }

    /// Opens the image in `file`, whose header and backing file are these.
    pub(crate) fn new(
        file: Arc<dyn BlockSource>,
        header: Header,
        backing: Option<Arc<dyn BlockSource>>,
    ) -> Result<Self> {
        let l1 = load_l1(&*file, &header)?;
        let unpacked = (UNPACKED_MAX as u64 / header.cluster_size()).max(4) as usize;
        Ok(Self {
            file,
            header,
            l1,
            backing,
            slices: Mutex::new(Recent::new(SLICES_MAX)),
            unpacked: Mutex::new(Recent::new(unpacked)),
        })
    }

    /// Where the byte at `offset` is and how many bytes from there on are alike; `offset` is on the disk.
    fn map(&self, offset: u64) -> Result<(Mapping, u64)> {
        let header = &self.header;
        let cluster = header.cluster_size();
        let (guest, within) = (offset / cluster, offset % cluster);
        let (l1_index, l2_index) = (guest / header.l2_entries(), guest % header.l2_entries());
        let table = self.l1.get(l1_index as usize).copied().unwrap_or(0) & L1_OFFSET_MASK;
        if table == 0 {
            let rest = (header.l2_entries() - l2_index) * cluster - within;
            return Ok((Mapping::Backing, rest));
        }
        if !table.is_multiple_of(cluster) {
            let context = format!("qcow2 L1 entry {l1_index}: expected the start of a cluster, found {table:#x}");
            return Err(Error::malformed(header.l1_offset + ByteCount(l1_index * 8), context));
        }
        let per_slice = SLICE_SIZE.min(cluster) / header.entry_size();
        let slice = self.slice(table + l2_index / per_slice * per_slice * header.entry_size())?;
        let entry = slice[(l2_index % per_slice) as usize];
        let (mapping, mut length) = map_entry(header, entry, within)?;
        if matches!(mapping, Mapping::Compressed { .. }) || within + length < cluster {
            return Ok((mapping, length));
        }
        // Neighbours that go on in the same way, up to the end of the slice.
        for next in &slice[(l2_index % per_slice) as usize + 1..] {
            let expected = match mapping {
                Mapping::Data(host) => Mapping::Data(host + ByteCount(length)),
                other => other,
            };
            match map_entry(header, *next, 0) {
                Ok((mapping, more)) if mapping == expected => {
                    length += more;
                    if more < cluster {
                        break;
                    }
                }
                _ => break,
            }
        }
        Ok((mapping, length))
    }

    /// The L2 entries at `at` in the file, which lies in an L2 table.
    fn slice(&self, at: u64) -> Result<Arc<Vec<Entry>>> {
        if let Some(found) = lock(&self.slices).get(at) {
            return Ok(found);
        }
        let mut bytes = vec![0; SLICE_SIZE.min(self.header.cluster_size()) as usize];
        self.file.read_at(ByteOffset(at), &mut bytes).map_err(|e| in_image("an L2 table", e))?;
        let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u64::from_be_bytes(*word));
        let entries = bytes
            .chunks_exact(self.header.entry_size() as usize)
            .map(|entry| Entry { descriptor: word(entry), bitmap: entry.get(8..).map_or(0, word) })
            .collect();
        let entries = Arc::new(entries);
        lock(&self.slices).put(at, Arc::clone(&entries));
        Ok(entries)
    }

    /// The unpacked cluster that lies compressed at `at`.
    fn unpack(&self, at: ByteOffset, length: usize) -> Result<Arc<Vec<u8>>> {
        if let Some(found) = lock(&self.unpacked).get(at.0) {
            return Ok(found);
        }
        // The count is in sectors, the file may end within the last.
        let length = length.min(usize::try_from(self.file.size().0.saturating_sub(at.0)).unwrap_or(usize::MAX));
        let mut packed = vec![0; length];
        self.file.read_at(at, &mut packed).map_err(|e| in_image("a compressed cluster", e))?;
        let mut cluster = vec![0; self.header.cluster_size() as usize];
        decompress(self.header.compression, &packed, &mut cluster)
            .map_err(|reason| Error::malformed(at, format!("qcow2 compressed cluster: {reason}")))?;
        let cluster = Arc::new(cluster);
        lock(&self.unpacked).put(at.0, Arc::clone(&cluster));
        Ok(cluster)
    }

    fn read_run(&self, offset: u64, mapping: Mapping, buffer: &mut [u8]) -> Result<()> {
        match mapping {
            Mapping::Zero => buffer.fill(0),
            Mapping::Backing => self.read_backing(offset, buffer)?,
            Mapping::Data(host) => self.read_data(host, buffer)?,
            Mapping::Compressed { at, length } => {
                let within = (offset % self.header.cluster_size()) as usize;
                buffer.copy_from_slice(&self.unpack(at, length)?[within..within + buffer.len()]);
            }
        }
        Ok(())
    }

    /// Zeros behind the end of a shorter backing file.
    fn read_backing(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let Some(backing) = &self.backing else {
            buffer.fill(0);
            return Ok(());
        };
        let there = backing.size().0.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (present, missing) = buffer.split_at_mut(there);
        missing.fill(0);
        if present.is_empty() { Ok(()) } else { backing.read_at(ByteOffset(offset), present) }
    }

    /// Data clusters; the last of a file may be cut off, what is missing reads as zeros.
    fn read_data(&self, host: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        let length = self.file.size();
        let last = ByteOffset(host.0 + (buffer.len() as u64).saturating_sub(1));
        if last.round_down(ByteCount(self.header.cluster_size())).0 >= length.0 {
            return Err(Error::malformed(
                host,
                format!("qcow2 data cluster beyond the end of the file ({} bytes)", length.0),
            ));
        }
        let there = length.0.saturating_sub(host.0).min(buffer.len() as u64) as usize;
        let (present, missing) = buffer.split_at_mut(there);
        missing.fill(0);
        if present.is_empty() {
            Ok(())
        } else {
            self.file.read_at(host, present).map_err(|e| in_image("a data cluster", e))
        }
    }
}

impl BlockSource for Qcow2Source {
    fn size(&self) -> ByteCount {
        self.header.size
    }

    fn logical_sector_size(&self) -> SectorSize {
        self.file.logical_sector_size()
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        check_bounds(offset, buffer, self.size())?;
        let mut done = 0;
        while done < buffer.len() {
            let at = offset.0 + done as u64;
            let (mapping, length) = self.map(at)?;
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len() - done);
            self.read_run(at, mapping, &mut buffer[done..done + length])?;
            done += length;
        }
        Ok(())
    }

    fn allocated(&self, within: Extent) -> ExtentIter<'_> {
        let within = within.intersection(Extent::first(self.size()));
        Box::new(AllocatedExtents { image: self, rest: within, backing: None, failed: false })
    }
}

/// Walks the tables as it is asked for extents.
struct AllocatedExtents<'a> {
    image: &'a Qcow2Source,
    rest: Extent,
    /// What the backing file has in a part that the image leaves to it.
    backing: Option<ExtentIter<'a>>,
    failed: bool,
}

impl AllocatedExtents<'_> {
    fn advance(&mut self) -> Result<Option<Extent>> {
        let mut found: Option<Extent> = None;
        loop {
            if let Some(extents) = &mut self.backing {
                match extents.next().transpose()? {
                    Some(extent) => return Ok(Some(extent)),
                    None => self.backing = None,
                }
            }
            if self.rest.is_empty() {
                return Ok(found);
            }
            let (mapping, length) = match self.image.map(self.rest.start().0) {
                Ok(run) => run,
                // What was found before the damage is told first.
                Err(_) if found.is_some() => return Ok(found),
                Err(error) => return Err(error),
            };
            let run = Extent::between(self.rest.start(), ByteOffset(self.rest.start().0.saturating_add(length)));
            let run = run.intersection(self.rest);
            match mapping {
                Mapping::Data(_) | Mapping::Compressed { .. } => {
                    found = Some(Extent::between(found.map_or(run.start(), Extent::start), run.end()));
                }
                Mapping::Zero | Mapping::Backing if found.is_some() => return Ok(found),
                Mapping::Zero => {}
                Mapping::Backing => {
                    let part = |backing: &Arc<dyn BlockSource>| run.intersection(Extent::first(backing.size()));
                    self.backing = self.image.backing.as_ref().map(|backing| backing.allocated(part(backing)));
                }
            }
            self.rest = Extent::between(run.end(), self.rest.end());
        }
    }
}

impl Iterator for AllocatedExtents<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

/// The entries of the L1 table that the disk needs; their number was bounded by the header's parser.
fn load_l1(file: &dyn BlockSource, header: &Header) -> Result<Vec<u64>> {
    let table = Extent::new(header.l1_offset, ByteCount(header.l1_entries * 8));
    if !table.is_some_and(|table| Extent::first(file.size()).contains(table)) {
        let context = format!("qcow2 L1 table of {} entries: expected it within the file", header.l1_entries);
        return Err(Error::malformed(header.l1_offset, context));
    }
    let mut bytes = vec![0; (header.l1_entries * 8) as usize];
    file.read_at(header.l1_offset, &mut bytes).map_err(|e| in_image("the L1 table", e))?;
    Ok(bytes.chunks_exact(8).filter_map(|entry| entry.first_chunk()).map(|entry| u64::from_be_bytes(*entry)).collect())
}

/// The same error, telling what of the image was read.
fn in_image(what: &str, error: Error) -> Error {
    Error { context: format!("qcow2: {what}: {}", error.context), ..error }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A few values, the latest first out of mind being the oldest put in.
struct Recent<T> {
    values: std::collections::HashMap<u64, T>,
    order: VecDeque<u64>,
    keep: usize,
}

impl<T: Clone> Recent<T> {
    fn new(keep: usize) -> Self {
        Self { values: std::collections::HashMap::new(), order: VecDeque::new(), keep }
    }

    fn get(&self, key: u64) -> Option<T> {
        self.values.get(&key).cloned()
    }

    fn put(&mut self, key: u64, value: T) {
        if self.values.insert(key, value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > self.keep {
            self.order.pop_front().map(|oldest| self.values.remove(&oldest));
        }
    }
}
