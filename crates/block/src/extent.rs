//! A range of bytes on a disk.

use std::fmt;

use machine::{ByteCount, ByteOffset};

/// A non-wrapping range of bytes: `start + length` never exceeds 2⁶⁴ − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    start: ByteOffset,
    length: ByteCount,
}

impl Extent {
    /// The extent of `length` bytes at `start`, or `None` if its end would pass 2⁶⁴.
    pub fn new(start: ByteOffset, length: ByteCount) -> Option<Self> {
        start.checked_add(length).map(|_| Self { start, length })
    }

    /// From `start` up to and without `end`; empty where `end` lies before `start`.
    pub fn between(start: ByteOffset, end: ByteOffset) -> Self {
        Self { start, length: end.saturating_since(start) }
    }

    /// From the start of a disk, `length` bytes.
    pub fn first(length: ByteCount) -> Self {
        Self { start: ByteOffset::ZERO, length }
    }

    /// First byte.
    pub fn start(self) -> ByteOffset {
        self.start
    }

    /// Length in bytes.
    pub fn length(self) -> ByteCount {
        self.length
    }

    /// One past the last byte.
    pub fn end(self) -> ByteOffset {
        self.start + self.length
    }

    /// Whether it holds no byte.
    pub fn is_empty(self) -> bool {
        self.length.is_zero()
    }

    /// What both hold; empty (at the later start) where they do not meet.
    pub fn intersection(self, other: Self) -> Self {
        Self::between(self.start.max(other.start), self.end().min(other.end()))
    }

    /// Whether every byte of `other` is in this one.
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", self.start, self.length.0)
    }
}
