//! Reading again where a medium failed: in ever smaller pieces, down to one logical sector.

use std::fs::File;
use std::os::unix::fs::FileExt;

use machine::ByteOffset;

use crate::{BlockSource, Error, ErrorKind, Extent, OnUnreadable, ReadOptions, Result};

/// How to reach the medium: past the page cache where possible, because the cache reads whole pages and would take the
/// neighbours of a bad sector for bad.
pub(crate) struct Recovery<'a> {
    pub(crate) source: &'a dyn BlockSource,
    pub(crate) direct: Option<&'a File>,
    pub(crate) options: &'a ReadOptions,
}

impl Recovery<'_> {
    /// Fills `buffer` from `extent` as far as it can be read, zeros elsewhere; returns the extents (of whole sectors,
    /// ascending, not touching) that cannot. `buffer` has the extent's length.
    ///
    /// # Errors
    /// The first bad sector's, where reading is to stop at it; any error that is not about the medium.
    pub(crate) fn read(&self, extent: Extent, buffer: &mut [u8]) -> Result<Vec<Extent>> {
        let mut bad = Vec::new();
        self.split(extent, buffer, self.options.retries + 1, &mut bad)?;
        Ok(bad)
    }

    fn split(&self, extent: Extent, buffer: &mut [u8], attempts: u32, bad: &mut Vec<Extent>) -> Result<()> {
        let error = match self.attempt(extent, buffer, attempts) {
            Err(error) if error.kind == ErrorKind::Unreadable => error,
            other => return other,
        };
        let sector = self.source.logical_sector_size().count();
        if extent.length() <= sector {
            if self.options.on_unreadable == OnUnreadable::Stop {
                return Err(
                    Error { context: format!("unreadable sector ({})", error.context), ..error }.at(extent.start())
                );
            }
            buffer.fill(0);
            match bad.last_mut() {
                Some(last) if last.end() == extent.start() => *last = Extent::between(last.start(), extent.end()),
                _ => bad.push(extent),
            }
            return Ok(());
        }
        let sector = sector.to_usize().expect("a sector fits in memory");
        let half = (buffer.len() / 2).next_multiple_of(sector).min(buffer.len());
        let middle = extent.start() + half.into();
        let (left, right) = buffer.split_at_mut(half);
        // Only the whole and the single sector are worth several attempts.
        let attempts = |part: Extent| if part.length() <= sector.into() { self.options.retries + 1 } else { 1 };
        let (before, behind) = (Extent::between(extent.start(), middle), Extent::between(middle, extent.end()));
        self.split(before, left, attempts(before), bad)?;
        match behind.is_empty() {
            true => Ok(()),
            false => self.split(behind, right, attempts(behind), bad),
        }
    }

    fn attempt(&self, extent: Extent, buffer: &mut [u8], attempts: u32) -> Result<()> {
        let mut outcome = self.read_once(extent.start(), buffer);
        for _ in 1..attempts {
            match &outcome {
                Err(error) if error.kind == ErrorKind::Unreadable => outcome = self.read_once(extent.start(), buffer),
                _ => break,
            }
        }
        outcome
    }

    fn read_once(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        if let Some(direct) = self.direct {
            match direct.read_exact_at(buffer, offset.0) {
                Ok(()) => return Ok(()),
                Err(e) => {
                    let error = Error::io("cannot read", e).at(offset);
                    if error.kind == ErrorKind::Unreadable {
                        return Err(error);
                    }
                    // Misaligned for this filesystem, or at the end of the file: the plain way tells.
                }
            }
        }
        self.source.read_at(offset, buffer)
    }
}
