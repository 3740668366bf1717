//! The bytes of an array, put together from those of its members while they are read.

use std::sync::Arc;

use block::{BlockSource, check_bounds};
use machine::{ByteCount, ByteOffset, SectorSize};

use super::{Level, Rotation};

/// An array as a disk.
pub(super) struct ArraySource {
    pub(super) level: Level,
    /// Bytes of a strip; of no meaning for mirrors.
    pub(super) strip: u64,
    pub(super) size: ByteCount,
    pub(super) sector_size: SectorSize,
    /// Each slot's part of its disk, or nothing where the member is missing or not up to date.
    pub(super) slots: Vec<Option<Arc<dyn BlockSource>>>,
}

/// Where a strip lies: any of the slots at this offset, or the parity of all the others.
struct Place {
    slots: std::ops::Range<usize>,
    offset: u64,
    /// Bytes from here to the end of the strip.
    left: u64,
}

impl ArraySource {
    /// Slots that a copy of any byte is on.
    fn copies(&self) -> usize {
        match self.level {
            Level::Striped | Level::Parity(_) => 1,
            Level::Mirrored => self.slots.len(),
            Level::StripedMirrors => 2,
        }
    }

    /// Members without which a strip cannot be read, as slots.
    pub(super) fn missing(&self) -> Option<usize> {
        let absent = |slot: &usize| self.slots.get(*slot).is_none_or(Option::is_none);
        let absent_count = (0..self.slots.len()).filter(absent).count();
        match self.level {
            Level::Parity(_) => (0..self.slots.len()).find(absent).filter(|_| absent_count > 1),
            _ => (0..self.slots.len())
                .step_by(self.copies())
                .find(|&first| (first..first + self.copies()).all(|s| absent(&s))),
        }
    }

    fn place(&self, offset: u64) -> Place {
        let count = self.slots.len() as u64;
        if self.level == Level::Mirrored {
            return Place { slots: 0..self.slots.len(), offset, left: self.size.0 - offset };
        }
        let (strip, inside) = (offset / self.strip, offset % self.strip);
        let (row, slot) = match self.level {
            Level::Parity(rotation) => {
                let (row, data) = (strip / (count - 1), strip % (count - 1));
                let parity = match rotation {
                    Rotation::LeftAsymmetric | Rotation::LeftSymmetric => count - 1 - row % count,
                    Rotation::RightAsymmetric => row % count,
                };
                let slot = match rotation {
                    Rotation::LeftSymmetric => (parity + 1 + data) % count,
                    _ if data < parity => data,
                    _ => data + 1,
                };
                (row, slot)
            }
            Level::StripedMirrors => (strip / (count / 2), strip % (count / 2) * 2),
            Level::Striped | Level::Mirrored => (strip / count, strip % count),
        };
        let first = usize::try_from(slot).unwrap_or(usize::MAX);
        Place { slots: first..first + self.copies(), offset: row * self.strip + inside, left: self.strip - inside }
    }

    fn read_place(&self, place: &Place, buffer: &mut [u8]) -> block::Result<()> {
        let at = ByteOffset(place.offset);
        let mut failure = None;
        for source in self.slots[place.slots.clone()].iter().flatten() {
            match source.read_at(at, buffer) {
                Ok(()) => return Ok(()),
                Err(error) => failure = Some(error),
            }
        }
        if matches!(self.level, Level::Parity(_)) {
            return self.read_others(place.slots.start, at, buffer);
        }
        Err(failure.unwrap_or_else(|| {
            block::Error::new(block::ErrorKind::Unreadable, "no member of the array is left").at(at)
        }))
    }

    /// What a member should hold, from all the others.
    fn read_others(&self, slot: usize, at: ByteOffset, buffer: &mut [u8]) -> block::Result<()> {
        buffer.fill(0);
        let mut other = vec![0; buffer.len()];
        for (index, source) in self.slots.iter().enumerate().filter(|(index, _)| *index != slot) {
            let missing = || {
                block::Error::new(block::ErrorKind::Unreadable, format!("member {index} of the array is missing"))
                    .at(at)
            };
            source.as_ref().ok_or_else(missing)?.read_at(at, &mut other)?;
            buffer.iter_mut().zip(&other).for_each(|(byte, other)| *byte ^= other);
        }
        Ok(())
    }
}

impl BlockSource for ArraySource {
    fn size(&self) -> ByteCount {
        self.size
    }

    fn logical_sector_size(&self) -> SectorSize {
        self.sector_size
    }

    fn read_at(&self, offset: ByteOffset, mut buffer: &mut [u8]) -> block::Result<()> {
        check_bounds(offset, buffer, self.size)?;
        let mut offset = offset.0;
        while !buffer.is_empty() {
            let place = self.place(offset);
            let length = usize::try_from(place.left).unwrap_or(usize::MAX).min(buffer.len());
            let (head, rest) = buffer.split_at_mut(length);
            self.read_place(&place, head)?;
            offset += length as u64;
            buffer = rest;
        }
        Ok(())
    }
}
