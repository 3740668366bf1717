//! Transaction logs: what a hive's last writes would have written, replayed in memory before anything is read.
//!
//! Follows M. Suhanov's "Windows registry file format specification", sections "Format of transaction log files" and
//! "Dirty state of a hive". Two formats: the old one (`DIRT`, until Windows 8) holds the pages of one write, the new one
//! (`HvLE`, Windows 8.1 and later) a chain of entries by sequence number, which may go on from one file to the other. A
//! log that does not belong to the hive, or not any more, is left alone, as Windows leaves it.

use super::base_block::{BASE_BLOCK_SIZE, BaseBlock, FileType, SECTOR};
use super::bins::{HIVE_MAX, PAGE};
use super::field::{le32, le64, to_u32};
use super::{Filetime, Replay, marvin32};

/// Head of an `HvLE` entry, before the references to its pages.
const ENTRY_HEAD: usize = 40;

/// Bytes by which logs may make a hive longer beyond those that they hold themselves. Windows logs a new bin as a whole, so none
/// would do; a log of a few bytes must not take memory for the largest hive that there can be.
const GROWTH_MAX: usize = 16 << 20;

/// A hive's file while logs are replayed into it.
pub(super) struct Image {
    pub(super) base: BaseBlock,
    /// Everything after the base block, the tail included.
    pub(super) bins: Vec<u8>,
}

impl Image {
    /// Writes pages; what lies beyond the end makes the file longer. Nothing where that would be too long.
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at.saturating_add(bytes.len());
        if (end + BASE_BLOCK_SIZE) as u64 > HIVE_MAX {
            return;
        }
        if self.bins.len() < end {
            self.bins.resize(end, 0);
        }
        self.bins[at..end].copy_from_slice(bytes);
    }

    /// The most bytes that its bins can have once `logs` are replayed.
    fn bins_max(&self, logs: &[Log]) -> usize {
        self.bins.len() + logs.iter().map(|log| log.bytes.len()).sum::<usize>() + GROWTH_MAX
    }

    /// When the hive was written last, by the first bin where the base block is broken.
    fn written(&self) -> Filetime {
        if self.base.is_checksum_right() { self.base.written() } else { Filetime(le64(&self.bins, 20)) }
    }
}

/// A log whose head is whole.
struct Log<'l> {
    base: BaseBlock,
    bytes: &'l [u8],
}

/// Replays what belongs to a hive that is dirty; `None` where no log holds anything of it.
pub(super) fn replay(image: &mut Image, logs: &[Vec<u8>]) -> Option<Replay> {
    let mut logs: Vec<Log> = logs.iter().filter_map(|bytes| open(bytes)).collect();
    if let Some(log) = logs.iter().find(|log| log.base.file_type() == FileType::OldLog && log_is_of(log, image))
        && let Some(replay) = replay_pages(image, log)
    {
        return Some(replay);
    }
    logs.retain(|log| log.base.file_type() == FileType::NewLog);
    logs.sort_by_key(|log| log.base.sequences().0);
    if image.base.is_checksum_right() {
        return replay_entries(image, &logs);
    }
    // Without a base block of its own the hive has that of the log with the latest entries, and those alone.
    let latest = logs.pop()?;
    let mut healed = Image { base: latest.base.clone(), bins: std::mem::take(&mut image.bins) };
    let replay = replay_entries(&mut healed, &[latest]);
    match replay {
        Some(_) => *image = healed,
        None => image.bins = healed.bins,
    }
    replay
}

fn open(bytes: &[u8]) -> Option<Log<'_>> {
    let base = BaseBlock::parse(bytes.get(..SECTOR)?).ok()?;
    let (primary, secondary) = base.sequences();
    (base.is_checksum_right() && primary == secondary).then_some(Log { base, bytes })
}

fn log_is_of(log: &Log, image: &Image) -> bool {
    log.base.written() == image.written()
}

/// The old format: a bit for each 512 bytes of the bins, and the pages whose bits are set. Nothing is written unless
/// the log holds all of them.
fn replay_pages(image: &mut Image, log: &Log) -> Option<Replay> {
    let sector = log.base.log_sector();
    let size = log.base.bins_size() as usize;
    if size == 0
        || !size.is_multiple_of(PAGE)
        || size as u64 > HIVE_MAX
        || size > image.bins_max(std::slice::from_ref(log))
        || log.bytes.get(sector..sector + 4) != Some(b"DIRT")
    {
        return None;
    }
    let bitmap = log.bytes.get(sector + 4..sector + 4 + (size / SECTOR).div_ceil(8))?;
    let first = (sector + 4 + bitmap.len()).next_multiple_of(sector);
    let dirty: Vec<usize> = (0..size / SECTOR).filter(|&page| bitmap[page / 8] & (1 << (page % 8)) != 0).collect();
    let pages = log.bytes.get(first..first + dirty.len() * SECTOR)?;
    if dirty.is_empty() || !begins_a_bin(&dirty, pages) {
        return None;
    }
    if image.bins.len() < size {
        image.bins.resize(size, 0);
    }
    for (&page, bytes) in dirty.iter().zip(pages.chunks_exact(SECTOR)) {
        image.write(page * SECTOR, bytes);
    }
    let sequence = image.base.sequences().0.max(log.base.sequences().0);
    let mut base = log.base.clone();
    if image.base.is_checksum_right() {
        // The log has the first sector of it.
        let mut bytes = log.base.bytes()[..SECTOR].to_vec();
        bytes.extend_from_slice(&image.base.bytes()[SECTOR..]);
        base = BaseBlock::parse(&bytes).ok()?;
    }
    image.base = base;
    finish(image, sequence, size);
    Some(Replay { entries: 1, pages: dirty.len(), sequence })
}

/// Whether the first page, which begins a bin, says that it does.
fn begins_a_bin(dirty: &[usize], pages: &[u8]) -> bool {
    dirty.first() != Some(&0) || &pages[..4] == b"hbin" && le32(pages, 4) == 0
}

/// An entry of the new format that is whole.
struct Entry<'l> {
    flags: u32,
    sequence: u32,
    bins_size: usize,
    length: usize,
    /// Where in the bins, and what.
    pages: Vec<(usize, &'l [u8])>,
}

fn replay_entries(image: &mut Image, logs: &[Log]) -> Option<Replay> {
    let bins_max = image.bins_max(logs);
    let mut expected = None;
    let (mut entries, mut pages) = (0, 0);
    for log in logs {
        let mut at = SECTOR;
        while let Some(entry) = read_entry(log.bytes.get(at..).unwrap_or_default()) {
            let is_next = match expected {
                Some(expected) => entry.sequence == expected,
                None => entry.sequence == log.base.sequences().0 && entry.sequence >= image.base.sequences().1,
            };
            if !is_next || entry.bins_size > bins_max {
                break;
            }
            if image.bins.len() < entry.bins_size {
                image.bins.resize(entry.bins_size, 0);
            }
            for &(offset, bytes) in &entry.pages {
                image.write(offset, bytes);
            }
            image.base.set_locked(entry.flags & 1 != 0);
            image.base.set_bins_size(to_u32(entry.bins_size));
            (entries, pages) = (entries + 1, pages + entry.pages.len());
            expected = Some(entry.sequence.wrapping_add(1));
            at += entry.length;
        }
    }
    let sequence = expected?.wrapping_sub(1);
    let size = image.base.bins_size() as usize;
    finish(image, sequence, size);
    Some(Replay { entries, pages, sequence })
}

fn read_entry(bytes: &[u8]) -> Option<Entry<'_>> {
    let head = bytes.get(..ENTRY_HEAD)?;
    let (length, count) = (le32(head, 4) as usize, le32(head, 20) as usize);
    let bins_size = le32(head, 16) as usize;
    let is_possible = &head[..4] == b"HvLE"
        && length.is_multiple_of(SECTOR)
        && bins_size.is_multiple_of(PAGE)
        && (bins_size + BASE_BLOCK_SIZE) as u64 <= HIVE_MAX
        && ENTRY_HEAD + count.checked_mul(8)? <= length;
    let entry = bytes.get(..length).filter(|_| is_possible)?;
    if le64(head, 24) != marvin32::hash(&entry[ENTRY_HEAD..]) || le64(head, 32) != marvin32::hash(&head[..32]) {
        return None;
    }
    let mut data = ENTRY_HEAD + count * 8;
    let mut pages = Vec::with_capacity(count);
    for reference in entry[ENTRY_HEAD..data].chunks_exact(8) {
        let (offset, size) = (le32(reference, 0) as usize, le32(reference, 4) as usize);
        if offset.checked_add(size)? > bins_size {
            return None;
        }
        pages.push((offset, entry.get(data..data.checked_add(size)?)?));
        data += size;
    }
    Some(Entry { flags: le32(head, 8), sequence: le32(head, 12), bins_size, length, pages })
}

/// The base block of a hive that is clean again.
fn finish(image: &mut Image, sequence: u32, size: usize) {
    image.base.set_primary();
    image.base.set_sequence(sequence);
    image.base.set_bins_size(to_u32(size));
    image.base.set_checksum();
}

/// The highest sequence number that a log speaks of, so that what is written later is newer than all of them.
pub(super) fn latest_sequence(logs: &[Vec<u8>]) -> u32 {
    let of = |log: Log| {
        let mut latest = log.base.sequences().0;
        let mut at = SECTOR;
        while let Some(entry) = read_entry(log.bytes.get(at..).unwrap_or_default()) {
            latest = latest.max(entry.sequence);
            at += entry.length;
        }
        latest
    };
    logs.iter().filter_map(|bytes| open(bytes)).map(of).max().unwrap_or(0)
}
