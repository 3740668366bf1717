//! The bins of a hive: everything after the base block, in memory, and the cells that fill them.
//!
//! Every bin's header is verified before anything is read, and each cell when it is read: a cell lies in one bin, begins
//! at a multiple of eight and says that it is in use. While an edit is under way the pages that it changes are kept as
//! they were, at most [`CHANGED_MAX`] bytes of them, so that it can be taken back as a whole.

use std::collections::BTreeMap;

use super::field::{le32, to_u32};
use super::malformed;
use crate::{Error, ErrorKind, Result};

/// Unit of a bin's size.
pub(super) const PAGE: usize = 4096;

/// Header of a bin.
pub(super) const BIN_HEADER: usize = 32;

/// Longest hive read or written, in bytes; the format's own end is 2 GiB.
pub const HIVE_MAX: u64 = 1 << 30;

/// Bytes that one edit may change, in whole pages: they are kept twice until it ends.
pub const CHANGED_MAX: usize = 256 << 20;

const NO_BIN: u32 = u32::MAX;

/// A cell's place: bytes from the start of the bins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellOffset(pub u32);

impl CellOffset {
    /// Points nowhere.
    pub const NONE: Self = Self(u32::MAX);

    /// Bytes from the start of the file.
    pub fn position(self) -> u64 {
        u64::from(self.0) + super::BASE_BLOCK_SIZE as u64
    }

    fn at(self) -> usize {
        self.0 as usize
    }
}

/// A cell as it lies in its bin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: CellOffset,
    /// With the four bytes of its size.
    pub(super) size: u32,
    pub(super) in_use: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Bins {
    bytes: Vec<u8>,
    /// Where the bin of each page begins.
    starts: Vec<u32>,
    before: Option<Before>,
}

/// What an edit changed, as it was.
#[derive(Clone, Debug)]
struct Before {
    pages: BTreeMap<usize, Box<[u8]>>,
    length: usize,
}

impl Bins {
    /// The bins in `bytes`, whose length is that of the base block.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self> {
        let mut bins = Self { starts: vec![NO_BIN; bytes.len() / PAGE], bytes, before: None };
        let mut at = 0;
        while at < bins.bytes.len() {
            at += bins.note_bin(at)?;
        }
        Ok(bins)
    }

    /// The bins that are whole; what is wrong with the others, which are as good as absent.
    pub(super) fn parse_whole_ones(bytes: Vec<u8>) -> (Self, Vec<Error>) {
        let mut bins = Self { starts: vec![NO_BIN; bytes.len() / PAGE], bytes, before: None };
        let (mut at, mut wrong) = (0, Vec::new());
        while at + PAGE <= bins.bytes.len() {
            match bins.note_bin(at) {
                Ok(size) => at += size,
                Err(error) => {
                    wrong.push(error);
                    at += PAGE;
                }
            }
        }
        (bins, wrong)
    }

    /// Verifies the bin at `at`; its size.
    fn note_bin(&mut self, at: usize) -> Result<usize> {
        let wrong = |what: String| malformed(at as u64 + super::BASE_BLOCK_SIZE as u64, format!("bin: {what}"));
        let header = self.bytes.get(at..at + BIN_HEADER).ok_or_else(|| wrong("cut off".into()))?;
        if &header[..4] != b"hbin" {
            return Err(wrong(format!("expected hbin, found {}", header[..4].escape_ascii())));
        }
        let (offset, size) = (le32(header, 4) as usize, le32(header, 8) as usize);
        if offset != at {
            return Err(wrong(format!("expected offset {at:#x}, found {offset:#x}")));
        }
        if size == 0 || !size.is_multiple_of(PAGE) || size > self.bytes.len() - at {
            let room = self.bytes.len() - at;
            return Err(wrong(format!("expected a size of up to {room:#x} in pages, found {size:#x}")));
        }
        self.starts[at / PAGE..(at + size) / PAGE].fill(to_u32(at));
        Ok(size)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Start and end of the bin around `at`.
    pub(super) fn bin_around(&self, at: usize) -> Option<(usize, usize)> {
        let start = *self.starts.get(at / PAGE)?;
        if start == NO_BIN {
            return None;
        }
        let start = start as usize;
        Some((start, start + le32(&self.bytes, start + 8) as usize))
    }

    /// The first page that is in no bin.
    pub(super) fn gap(&self) -> Option<CellOffset> {
        let page = self.starts.iter().position(|&start| start == NO_BIN)?;
        Some(CellOffset(to_u32(page * PAGE)))
    }

    /// The cell at `offset`, whether in use or not.
    pub(super) fn span(&self, offset: CellOffset) -> Result<Span> {
        let wrong = |what: String| malformed(offset.position(), format!("cell: {what}"));
        let at = offset.at();
        let Some((start, end)) = self.bin_around(at) else { return Err(wrong("in no bin".into())) };
        if !at.is_multiple_of(8) || at < start + BIN_HEADER {
            return Err(wrong("expected at a multiple of 8 after its bin's header".into()));
        }
        // `i32::MIN` has no absolute value; the length of a bin bounds it anyway.
        let said = le32(&self.bytes, at).cast_signed();
        let size = said.unsigned_abs();
        if size < 8 || !size.is_multiple_of(8) || size as usize > end - at {
            let room = end - at;
            return Err(wrong(format!("expected a size of 8 to {room} in steps of 8, found {said}")));
        }
        Ok(Span { at: offset, size, in_use: said < 0 })
    }

    /// What is in the cell at `offset`, which must be in use.
    pub(super) fn cell(&self, offset: CellOffset) -> Result<&[u8]> {
        let span = self.span(offset)?;
        if !span.in_use {
            return Err(malformed(offset.position(), "cell: expected one in use, found a free one"));
        }
        Ok(&self.bytes[offset.at() + 4..offset.at() + span.size as usize])
    }

    /// The cells of all bins in order; after a wrong one, the rest of its bin is left out.
    pub(super) fn spans(&self) -> impl Iterator<Item = Result<Span>> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                if at >= self.bytes.len() {
                    return None;
                }
                let Some((start, end)) = self.bin_around(at) else {
                    at += PAGE - at % PAGE;
                    continue;
                };
                if at == start {
                    at += BIN_HEADER;
                }
                let span = self.span(CellOffset(to_u32(at)));
                at = span.as_ref().map_or(end, |span| at + span.size as usize);
                return Some(span);
            }
        })
    }

    /// From here on, changes can be taken back.
    pub(super) fn begin(&mut self) {
        self.before = Some(Before { pages: BTreeMap::new(), length: self.bytes.len() });
    }

    /// Changes since [`begin`](Self::begin) stay.
    pub(super) fn keep(&mut self) {
        self.before = None;
    }

    /// Everything as it was at [`begin`](Self::begin).
    pub(super) fn take_back(&mut self) {
        let Some(before) = self.before.take() else { return };
        self.bytes.truncate(before.length);
        self.starts.truncate(before.length / PAGE);
        for (page, old) in before.pages {
            self.bytes[page * PAGE..(page + 1) * PAGE].copy_from_slice(&old);
        }
    }

    /// Whether anything differs from what was at [`begin`](Self::begin).
    pub(super) fn is_changed(&self) -> bool {
        self.before.as_ref().is_some_and(|before| {
            let differs = |page: usize, old: &[u8]| &self.bytes[page * PAGE..(page + 1) * PAGE] != old;
            before.length != self.bytes.len() || before.pages.iter().any(|(&page, old)| differs(page, old))
        })
    }

    /// Writes within the bins, cell sizes included.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = at + bytes.len();
        let room = self.bytes.len();
        if end > room {
            return Err(malformed(at as u64, format!("{} bytes do not fit into bins of {room}", bytes.len())));
        }
        if let Some(before) = &mut self.before {
            for page in at / PAGE..=(end - 1) / PAGE {
                if page * PAGE < before.length && !before.pages.contains_key(&page) {
                    if (before.pages.len() + 1) * PAGE > CHANGED_MAX {
                        let context = format!("one edit of more than {CHANGED_MAX} bytes of a hive");
                        return Err(Error::new(ErrorKind::TooLarge, context));
                    }
                    before.pages.insert(page, self.bytes[page * PAGE..(page + 1) * PAGE].into());
                }
            }
        }
        self.bytes[at..end].copy_from_slice(bytes);
        Ok(())
    }

    /// Writes into the cell at `offset`, from `at` within what is in it.
    pub(super) fn write_cell(&mut self, offset: CellOffset, at: usize, bytes: &[u8]) -> Result<()> {
        let room = self.cell(offset)?.len();
        if at + bytes.len() > room {
            return Err(malformed(offset.position(), format!("cell: {} bytes at {at} do not fit", bytes.len())));
        }
        self.write(offset.at() + 4 + at, bytes)
    }

    /// Adds a bin with one free cell of at least `size` bytes.
    pub(super) fn grow(&mut self, size: u32) -> Result<Span> {
        let at = self.bytes.len();
        let length = (size as usize + BIN_HEADER).next_multiple_of(PAGE);
        if (at + length + super::BASE_BLOCK_SIZE) as u64 > HIVE_MAX {
            return Err(Error::new(ErrorKind::TooLarge, format!("a hive of more than {HIVE_MAX} bytes")));
        }
        if let Some(before) = &self.before
            && at + length - before.length > CHANGED_MAX
        {
            return Err(Error::new(ErrorKind::TooLarge, format!("one edit that adds more than {CHANGED_MAX} bytes")));
        }
        self.bytes.resize(at + length, 0);
        self.starts.resize((at + length) / PAGE, to_u32(at));
        let span = Span { at: CellOffset(to_u32(at + BIN_HEADER)), size: to_u32(length - BIN_HEADER), in_use: false };
        self.write(at, b"hbin")?;
        self.write(at + 4, &to_u32(at).to_le_bytes())?;
        self.write(at + 8, &to_u32(length).to_le_bytes())?;
        self.write(at + BIN_HEADER, &span.size.to_le_bytes())?;
        Ok(span)
    }
}
