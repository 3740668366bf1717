//! When a machine must have its own system again.

use std::fmt;
use std::str::FromStr;

use super::window::{parse_time, time_on};
use super::zone::{Zone, text_in_json};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Longest text in bytes.
const TEXT_BYTES_MAX: usize = 128;

/// A time of day by a zone's clocks: `06:00 Europe/Berlin`. Without a zone it is the controller's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackBy {
    /// Minutes after midnight, less than a day.
    minutes: u16,
    zone: Zone,
}

impl BackBy {
    /// The first such moment after `at`; `None` outside of the years that can be told.
    pub fn next(&self, at: Timestamp) -> Option<Timestamp> {
        let mut date = self.zone.civil(at)?.date().yesterday().ok()?;
        for _ in 0..4 {
            let moment = self.zone.instant(time_on(date, self.minutes)?)?;
            if moment > at {
                return Some(moment);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }
}

impl FromStr for BackBy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let shown: String = text.chars().take(TEXT_BYTES_MAX).collect();
            let context = format!("time of day {shown:?}: expected one such as 06:00 or 06:00 Europe/Berlin");
            Error::new(ErrorKind::Invalid, context)
        };
        let mut words = text.split_ascii_whitespace();
        let minutes = words.next().and_then(parse_time).filter(|minutes| *minutes < 24 * 60).ok_or_else(wrong)?;
        let zone = match words.next() {
            Some(zone) => zone.parse()?,
            None => Zone::of_this_host(),
        };
        match words.next() {
            None if text.len() <= TEXT_BYTES_MAX => Ok(Self { minutes, zone }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for BackBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:02}:{:02} {}", self.minutes / 60, self.minutes % 60, self.zone))
    }
}

text_in_json!(BackBy, "A time of day of a zone's clocks: 06:00 Europe/Berlin.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_morning_is_meant_by_the_clocks_of_the_zone() {
        let back_by: BackBy = "06:00 Europe/Berlin".parse().unwrap();
        assert_eq!(back_by.to_string().parse::<BackBy>().unwrap(), back_by);
        let next = |at: &str| back_by.next(Timestamp(at.parse::<jiff::Timestamp>().unwrap().as_millisecond())).unwrap();
        for (at, morning) in [
            ("2026-12-01T21:00:00Z", "2026-12-02T05:00:00Z"),
            ("2026-12-02T04:59:59Z", "2026-12-02T05:00:00Z"),
            ("2026-12-02T05:00:00Z", "2026-12-03T05:00:00Z"),
            // The clocks are changed in this night.
            ("2026-10-24T20:00:00Z", "2026-10-25T05:00:00Z"),
            ("2026-03-28T21:00:00Z", "2026-03-29T04:00:00Z"),
        ] {
            assert_eq!(next(at).to_string(), morning, "after {at}");
        }
        let skipped: BackBy = "02:30 Europe/Berlin".parse().unwrap();
        let at = Timestamp("2026-03-28T21:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond());
        assert_eq!(skipped.next(at).unwrap().to_string(), "2026-03-29T01:30:00Z", "shown as 03:30");
        assert!("05:00".parse::<BackBy>().is_ok(), "by the controller's own clocks");
    }

    #[test]
    fn what_is_no_time_of_day_is_refused() {
        for wrong in ["", "6", "24:00", "06:00 Mars", "06:00 UTC now", "6:00", "-1:00", &"0".repeat(5000)] {
            let error = wrong.parse::<BackBy>().unwrap_err();
            println!("{error}");
            assert_eq!(error.kind, ErrorKind::Invalid, "{wrong}");
        }
    }
}
