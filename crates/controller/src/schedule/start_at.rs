//! When something is to start: a time of a zone's clocks.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;

use super::zone::{Zone, text_in_json};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Years that can be meant; others are typing errors.
const YEARS: std::ops::RangeInclusive<i16> = 2000..=2199;
/// Longest text in bytes.
const TEXT_BYTES_MAX: usize = 128;

/// A time of a zone's clocks, such as `2026-12-01T22:00[Europe/Berlin]`. One with `Z` or an offset instead of a name is a
/// moment, and shown as one of UTC. Whatever its government does to the zone until then, its clocks will show this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartAt {
    pub(super) civil: DateTime,
    pub(super) zone: Zone,
    instant: Timestamp,
}

impl StartAt {
    /// `None` where it is in no year that can be meant.
    pub(super) fn new(civil: DateTime, zone: Zone) -> Option<Self> {
        let instant = zone.instant(civil).filter(|_| YEARS.contains(&civil.year()))?;
        Some(Self { civil, zone, instant })
    }

    /// The moment: the first where the clocks show the time twice, later where they skip it.
    pub fn instant(&self) -> Timestamp {
        self.instant
    }
}

impl FromStr for StartAt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let shown: String = text.chars().take(TEXT_BYTES_MAX).collect();
        let invalid = |expected: &str| Error::new(ErrorKind::Invalid, format!("time {shown:?}: expected {expected}"));
        let form = "2026-12-01T22:00[Europe/Berlin] or 2026-12-01T21:00Z";
        if text.len() > TEXT_BYTES_MAX || !text.is_ascii() {
            return Err(invalid(form));
        }
        let text = text.trim();
        let has_offset = |text: &str| {
            let time = text.split_once(['T', 't', ' ']).map_or("", |(_, time)| time);
            time.contains(['Z', 'z', '+', '-'])
        };
        let (civil, zone) = match text.split_once('[') {
            Some((civil, zone)) => {
                let zone = zone.strip_suffix(']').ok_or_else(|| invalid(form))?.parse()?;
                if has_offset(civil) {
                    return Err(invalid("a zone's name or an offset, not both"));
                }
                (civil.parse::<DateTime>().map_err(|_| invalid(form))?, zone)
            }
            None if has_offset(text) => {
                let moment: jiff::Timestamp = text.parse().map_err(|_| invalid(form))?;
                (jiff::tz::TimeZone::UTC.to_datetime(moment), Zone::UTC)
            }
            None => return Err(invalid(&format!("its zone too: {form}"))),
        };
        // A date alone parses as midnight, which nobody meant who forgot the time.
        if !text.contains(':') || civil.subsec_nanosecond() != 0 {
            return Err(invalid(form));
        }
        Self::new(civil, zone).ok_or_else(|| invalid("a year from 2000 to 2199"))
    }
}

impl fmt::Display for StartAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = if self.civil.second() == 0 { "%Y-%m-%dT%H:%M" } else { "%Y-%m-%dT%H:%M:%S" };
        f.pad(&format!("{}[{}]", self.civil.strftime(form), self.zone))
    }
}

text_in_json!(StartAt, "A moment: 2026-12-01T22:00[Europe/Berlin], or with an offset.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_a_zone_or_moments() {
        for (text, shown, instant) in [
            ("2026-12-01T22:00[Europe/Berlin]", "2026-12-01T22:00[Europe/Berlin]", "2026-12-01T21:00:00Z"),
            ("2026-07-01T22:00:30[America/New_York]", "2026-07-01T22:00:30[America/New_York]", "2026-07-02T02:00:30Z"),
            ("2026-12-01T21:00Z", "2026-12-01T21:00[UTC]", "2026-12-01T21:00:00Z"),
            ("2026-10-25T02:30+01:00", "2026-10-25T01:30[UTC]", "2026-10-25T01:30:00Z"),
            ("2026-03-29T02:30[Europe/Berlin]", "2026-03-29T02:30[Europe/Berlin]", "2026-03-29T01:30:00Z"),
        ] {
            let at: StartAt = text.parse().unwrap();
            assert_eq!((at.to_string().as_str(), at.instant().to_string().as_str()), (shown, instant));
            let json = serde_json::to_string(&at).unwrap();
            assert_eq!(serde_json::from_str::<StartAt>(&json).unwrap(), at);
        }
    }

    #[test]
    fn times_that_leave_something_open_are_refused() {
        for wrong in [
            "",
            "22:00",
            "2026-12-01",
            "2026-12-01[UTC]",
            "2026-12-01T22:00",
            "2026-12-01T25:00[UTC]",
            "2026-02-29T22:00[UTC]",
            "2026-12-01T22:00[Mars]",
            "2026-12-01T22:00[UTC",
            "2026-12-01T22:00+01:00[Europe/Berlin]",
            "2026-12-01T22:00Z[Europe/Berlin]",
            "1026-12-01T22:00Z",
            "9999-12-31T23:59[UTC]",
            "2026-12-01T22:00:00.5[UTC]",
            &"2".repeat(5000),
        ] {
            let error = wrong.parse::<StartAt>().unwrap_err();
            println!("{error}");
            assert_eq!(error.kind, ErrorKind::Invalid, "{wrong}");
        }
    }
}
