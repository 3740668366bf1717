//! The free cells of a hive.

use std::collections::{BTreeMap, BTreeSet};

use super::super::bins::{Bins, CellOffset};
use super::super::field::to_u32;
use super::super::malformed;
use crate::{Error, ErrorKind, Result};

/// Free cells by place and by size; sizes are those of whole cells.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    by_place: BTreeMap<u32, u32>,
    by_size: BTreeSet<(u32, u32)>,
}

impl Space {
    pub(super) fn of(bins: &Bins) -> Result<Self> {
        let mut space = Self::default();
        for span in bins.spans() {
            let span = span?;
            if !span.in_use {
                space.add(span.at.0, span.size);
            }
        }
        Ok(space)
    }

    fn add(&mut self, at: u32, size: u32) {
        self.by_place.insert(at, size);
        self.by_size.insert((size, at));
    }

    fn remove(&mut self, at: u32) -> Option<u32> {
        let size = self.by_place.remove(&at)?;
        self.by_size.remove(&(size, at));
        Some(size)
    }

    /// A cell in use for `length` bytes, zeros in it.
    pub(super) fn allocate(&mut self, bins: &mut Bins, length: usize) -> Result<CellOffset> {
        let Some(size) =
            u32::try_from(length).ok().and_then(|length| length.checked_add(4)?.checked_next_multiple_of(8))
        else {
            return Err(Error::new(ErrorKind::TooLarge, format!("a cell of {length} bytes")));
        };
        let (found, at) = match self.by_size.range((size, 0)..).next() {
            Some(&fitting) => fitting,
            None => {
                let span = bins.grow(size)?;
                self.add(span.at.0, span.size);
                (span.size, span.at.0)
            }
        };
        self.remove(at);
        if found > size {
            bins.write((at + size) as usize, &(found - size).to_le_bytes())?;
            self.add(at + size, found - size);
        }
        bins.write(at as usize, &0u32.wrapping_sub(size).to_le_bytes())?;
        bins.write(at as usize + 4, &vec![0; size as usize - 4])?;
        Ok(CellOffset(at))
    }

    /// A cell in use with `bytes` in it.
    pub(super) fn store(&mut self, bins: &mut Bins, bytes: &[u8]) -> Result<CellOffset> {
        let at = self.allocate(bins, bytes.len())?;
        bins.write_cell(at, 0, bytes)?;
        Ok(at)
    }

    /// The cell at `at` with room for `length` bytes: itself, or a longer one with what was in it.
    pub(super) fn widen(&mut self, bins: &mut Bins, at: CellOffset, length: usize) -> Result<CellOffset> {
        let old = bins.cell(at)?;
        if old.len() >= length {
            return Ok(at);
        }
        let old = old.to_vec();
        let new = self.allocate(bins, length)?;
        bins.write_cell(new, 0, &old)?;
        self.release(bins, at)?;
        Ok(new)
    }

    /// Frees a cell that is in use, and joins it with free ones beside it. Bins' headers keep cells of two bins apart.
    pub(super) fn release(&mut self, bins: &mut Bins, at: CellOffset) -> Result<()> {
        let span = bins.span(at)?;
        if !span.in_use {
            return Err(malformed(at.position(), "cell: expected one in use, found a free one"));
        }
        let (mut start, mut size) = (at.0, span.size);
        if let Some(after) = self.remove(start + size) {
            size += after;
        }
        let before = self.by_place.range(..start).next_back().map(|(&at, &size)| (at, size));
        if let Some((before, length)) = before
            && before + length == start
        {
            self.remove(before);
            (start, size) = (before, size + length);
        }
        bins.write(start as usize, &size.to_le_bytes())?;
        self.add(start, size);
        Ok(())
    }
}

/// Room for a list that grows: half as much again, so that it does not move with each element.
pub(super) fn roomy(length: usize) -> usize {
    length + to_u32(length / 2).min(2048) as usize
}
