//! Offsets, lengths and sector numbers as types of their own, so that none can be taken for another.
//!
//! Arithmetic that can overflow on untrusted input has a `checked_*` form; the operators are for values that were
//! checked before and panic on overflow in every build, because a wrapped offset would be written somewhere.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// A position in bytes from the start of a disk, image or volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct ByteOffset(pub u64);

/// A length or size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct ByteCount(pub u64);

/// A logical block address: a position in logical sectors from the start of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Lba(pub u64);

impl ByteOffset {
    /// The start of a disk.
    pub const ZERO: Self = Self(0);

    /// This offset moved forward, or `None` past 2⁶⁴.
    pub fn checked_add(self, count: ByteCount) -> Option<Self> {
        self.0.checked_add(count.0).map(Self)
    }

    /// The distance from `earlier` to here; zero if `earlier` lies behind.
    pub fn saturating_since(self, earlier: Self) -> ByteCount {
        ByteCount(self.0.saturating_sub(earlier.0))
    }

    /// The nearest multiple of `unit` at or before this offset. `unit` is in bytes and not zero.
    pub fn round_down(self, unit: ByteCount) -> Self {
        Self(self.0 - self.0 % unit.0)
    }

    /// The nearest multiple of `unit` at or behind this offset, or `None` past 2⁶⁴.
    pub fn checked_round_up(self, unit: ByteCount) -> Option<Self> {
        self.0.checked_next_multiple_of(unit.0).map(Self)
    }
}

impl ByteCount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `n` × 1024 bytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` × 1024² bytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` × 1024³ bytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// Whether there is nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` past 2⁶⁴.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// As a length in memory, or `None` where it does not fit the address space.
    pub fn to_usize(self) -> Option<usize> {
        usize::try_from(self.0).ok()
    }
}

impl Lba {
    /// The byte position of this sector, or `None` past 2⁶⁴.
    pub fn checked_offset(self, sector_size: SectorSize) -> Option<ByteOffset> {
        self.0.checked_mul(u64::from(sector_size.bytes())).map(ByteOffset)
    }
}

impl Add<ByteCount> for ByteOffset {
    type Output = Self;
    fn add(self, count: ByteCount) -> Self {
        self.checked_add(count).expect("byte offset within 2^64")
    }
}

impl AddAssign<ByteCount> for ByteOffset {
    fn add_assign(&mut self, count: ByteCount) {
        *self = *self + count;
    }
}

impl Sub for ByteOffset {
    type Output = ByteCount;
    fn sub(self, earlier: Self) -> ByteCount {
        ByteCount(self.0.checked_sub(earlier.0).expect("earlier offset is not behind the later one"))
    }
}

impl Add for ByteCount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.checked_add(other).expect("byte count within 2^64")
    }
}

impl AddAssign for ByteCount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for ByteCount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.checked_sub(other.0).expect("smaller count is taken from a larger one"))
    }
}

impl std::iter::Sum for ByteCount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl From<usize> for ByteCount {
    fn from(n: usize) -> Self {
        Self(n as u64)
    }
}

impl fmt::Display for ByteOffset {
    /// Hexadecimal, as on-disk structures are discussed: `0x3420`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for ByteCount {
    /// In the largest binary unit that leaves a readable number: `3.0 GiB`, `512 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {}", self.0)
    }
}

/// The size of one logical sector in bytes: a power of two from 512 to 65536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "u32", into = "u32")]
pub struct SectorSize(u32);

/// A number that is no logical sector size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("logical sector size: expected a power of two from 512 to 65536, found {0}")]
pub struct SectorSizeError(pub u32);

impl SectorSize {
    /// 512 bytes.
    pub const B512: Self = Self(512);
    /// 4096 bytes ("4Kn").
    pub const B4096: Self = Self(4096);

    /// In bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// As a length.
    pub const fn count(self) -> ByteCount {
        ByteCount(self.0 as u64)
    }
}

impl TryFrom<u32> for SectorSize {
    type Error = SectorSizeError;
    fn try_from(bytes: u32) -> Result<Self, SectorSizeError> {
        if bytes.is_power_of_two() && (512..=65536).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(SectorSizeError(bytes))
        }
    }
}

impl From<SectorSize> for u32 {
    fn from(size: SectorSize) -> u32 {
        size.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_print_in_the_largest_readable_unit() {
        let printed: Vec<String> =
            [0, 1023, 1024, 1536, 1 << 20, (1 << 30) - 1, 3 << 30, u64::MAX].map(|n| ByteCount(n).to_string()).into();
        assert_eq!(printed, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 GiB", "3.0 GiB", "16.0 EiB"]);
    }

    #[test]
    fn sector_sizes_are_powers_of_two_from_512() {
        assert_eq!(SectorSize::try_from(4096), Ok(SectorSize::B4096));
        for wrong in [0, 256, 520, 131_072] {
            assert_eq!(SectorSize::try_from(wrong), Err(SectorSizeError(wrong)));
        }
    }

    #[test]
    fn offsets_round_to_units() {
        assert_eq!(ByteOffset(70_000).round_down(ByteCount::kib(64)), ByteOffset(65_536));
        assert_eq!(ByteOffset(70_000).checked_round_up(ByteCount::kib(64)), Some(ByteOffset(131_072)));
        assert_eq!(ByteOffset(u64::MAX).checked_round_up(ByteCount::kib(64)), None);
    }
}
