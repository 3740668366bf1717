//! Upper case, as the volume has it: `$UpCase` has a 16-bit unit for each, and orders and finds names by them.

use super::attribute::kind;
use super::{NtfsVolume, file};
use crate::field::le16;

const UNITS: usize = 1 << 16;

/// The volume's table of upper-case units.
pub(crate) struct UpCase {
    units: Vec<u16>,
}

impl UpCase {
    /// Reads the table; where it cannot be read, letters are those of Unicode.
    pub(crate) fn load(volume: &NtfsVolume) -> Self {
        let table = volume.record(file::UPCASE).and_then(|record| volume.stream(&record, kind::DATA, ""));
        let bytes = table.ok().flatten().and_then(|table| volume.load(&table, UNITS * 2).ok());
        let units = match bytes.filter(|bytes| bytes.len() == UNITS * 2) {
            Some(bytes) => (0..UNITS).map(|n| le16(&bytes, n * 2)).collect(),
            None => (0..=u16::MAX).map(unicode).collect(),
        };
        Self { units }
    }

    /// A unit in upper case.
    pub(crate) fn upper(&self, unit: u16) -> u16 {
        self.units[usize::from(unit)]
    }

    /// How two names are ordered, without regard to case.
    pub(crate) fn compare(&self, one: &[u16], other: &[u16]) -> std::cmp::Ordering {
        let upper = |name: &[u16]| name.iter().map(|&unit| self.upper(unit)).collect::<Vec<u16>>();
        upper(one).cmp(&upper(other))
    }
}

fn unicode(unit: u16) -> u16 {
    let upper = char::from_u32(unit.into()).map(char::to_uppercase);
    let mut upper = upper.into_iter().flatten();
    let single = upper.next().filter(|_| upper.next().is_none());
    single.and_then(|upper| u16::try_from(u32::from(upper)).ok()).unwrap_or(unit)
}
