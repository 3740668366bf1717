//! Maintenance windows: on which days of the week, from when to when, by which clocks.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Weekday};

use super::zone::{Zone, text_in_json};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Windows that a schedule may have.
pub const WINDOWS_MAX: usize = 32;
/// Longest text in bytes.
const TEXT_BYTES_MAX: usize = 160;
const MINUTES_OF_DAY: u16 = 24 * 60;
const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// A maintenance window: `Sat 22:00-06:00 Europe/Berlin`, `Mon-Fri 20:00-24:00 UTC`, `daily 01:00-05:00 UTC`. One that ends
/// before it begins ends on the day after; the days are those on which it begins. What the clocks show counts: a night of
/// 22:00-06:00 is an hour shorter or longer when they are changed. One that they skip altogether is open for its length
/// after the gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Whether it opens on Monday, and so on.
    days: [bool; 7],
    /// Minutes after midnight, less than a day.
    from: u16,
    /// Minutes after the same midnight, after `from` and at most a day later.
    to: u16,
    zone: Zone,
}

/// When a window is open: from, and up to but without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Window {
    /// Its zone.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The opening that `at` is in, else the next one.
    pub(super) fn opening(&self, at: Timestamp) -> Option<Opening> {
        let mut date = self.zone.civil(at)?.date();
        // The one of yesterday may still be open, and of a day that was skipped longer.
        for _ in 0..2 {
            date = date.yesterday().ok()?;
        }
        for _ in 0..=10 {
            if self.days[usize::from(date.weekday().to_monday_zero_offset().unsigned_abs())]
                && let Some(opening) = self.opening_on(date).filter(|opening| at < opening.to)
            {
                return Some(opening);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn opening_on(&self, date: Date) -> Option<Opening> {
        let from = self.zone.instant(time_on(date, self.from)?)?;
        let to = self.zone.instant(time_on(date, self.to)?)?;
        let length = i64::from(self.to - self.from) * 60_000;
        Some(Opening { from, to: if from < to { to } else { Timestamp(from.0.saturating_add(length)) } })
    }
}

/// Whether a window is open at a moment.
pub fn is_open(window: &Window, at: Timestamp) -> bool {
    open_from(std::slice::from_ref(window), at) == Some(at)
}

/// The first moment from `at` on at which one of the windows is open; `at` itself where there are none.
pub(super) fn open_from(windows: &[Window], at: Timestamp) -> Option<Timestamp> {
    if windows.is_empty() {
        return Some(at);
    }
    windows.iter().filter_map(|window| window.opening(at)).map(|opening| opening.from.max(at)).min()
}

pub(super) fn time_on(date: Date, minutes: u16) -> Option<DateTime> {
    let date = if minutes < MINUTES_OF_DAY { date } else { date.tomorrow().ok()? };
    let minutes = minutes % MINUTES_OF_DAY;
    Some(date.at(i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?, 0, 0))
}

fn parse_days(text: &str) -> Option<[bool; 7]> {
    if text.eq_ignore_ascii_case("daily") {
        return Some([true; 7]);
    }
    let number = |text: &str| DAYS.iter().position(|(name, _)| name.eq_ignore_ascii_case(text));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (number(first)?, number(last)?);
        days[day] = true;
        while day != last {
            day = (day + 1) % 7;
            days[day] = true;
        }
    }
    Some(days)
}

/// `HH:MM` as minutes after midnight; 24:00 is the day's end.
pub(super) fn parse_time(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| match text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u16>().ok(),
        false => None,
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= MINUTES_OF_DAY).then_some(hours * 60 + minutes)
}

impl FromStr for Window {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let shown: String = text.chars().take(TEXT_BYTES_MAX).collect();
        let invalid = |expected: &str| Error::new(ErrorKind::Invalid, format!("window {shown:?}: expected {expected}"));
        let form = "days, times and a zone, such as Sat 22:00-06:00 Europe/Berlin";
        let words: Vec<&str> = text.split_ascii_whitespace().take(4).collect();
        let [days, times, zone] = words[..] else { return Err(invalid(form)) };
        if text.len() > TEXT_BYTES_MAX {
            return Err(invalid(form));
        }
        let days = parse_days(days).ok_or_else(|| invalid("days such as Sat, Mon-Fri, Sat,Sun or daily"))?;
        let times = times.split_once('-').and_then(|(from, to)| Some((parse_time(from)?, parse_time(to)?)));
        let (from, to) = times.ok_or_else(|| invalid("times such as 22:00-06:00"))?;
        if from == to || from == MINUTES_OF_DAY {
            return Err(invalid("two different times, the first before 24:00; a whole day is 00:00-24:00"));
        }
        let to = if to < from { to + MINUTES_OF_DAY } else { to };
        Ok(Self { days, from, to, zone: zone.parse()? })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut days: Vec<String> = Vec::new();
        let mut day = 0;
        while day < 7 {
            let length = self.days[day..].iter().take_while(|opens| **opens).count();
            match length {
                0 => {}
                1 | 2 => days.extend(DAYS[day..day + length].iter().map(|(name, _)| name.to_string())),
                _ => days.push(format!("{}-{}", DAYS[day].0, DAYS[day + length - 1].0)),
            }
            day += length.max(1);
        }
        let days = if self.days == [true; 7] { "daily".to_owned() } else { days.join(",") };
        let to = if self.to > MINUTES_OF_DAY { self.to - MINUTES_OF_DAY } else { self.to };
        let (from, zone) = (self.from, &self.zone);
        f.pad(&format!("{days} {:02}:{:02}-{:02}:{:02} {zone}", from / 60, from % 60, to / 60, to % 60))
    }
}

text_in_json!(Window, "A maintenance window: Sat 22:00-06:00 Europe/Berlin.");

#[cfg(test)]
mod tests {
    use super::*;

    fn openings(window: &str, from: &str, count: usize) -> Vec<String> {
        let window: Window = window.parse().unwrap();
        let mut at = from.parse::<super::super::StartAt>().unwrap().instant();
        let mut shown = Vec::new();
        for _ in 0..count {
            let opening = window.opening(at).unwrap();
            assert_eq!(window.opening(opening.from), Some(opening), "it is open when it opens");
            assert_eq!(window.opening(Timestamp(opening.to.0 - 1)), Some(opening), "up to its end");
            shown.push(format!("{} {}", opening.from, opening.to));
            at = opening.to;
        }
        shown
    }

    #[test]
    fn a_window_may_cross_midnight_and_the_changes_of_the_clocks() {
        let nights = openings("Sat 22:00-06:00 Europe/Berlin", "2026-03-21T12:00Z", 2);
        assert_eq!(nights, ["2026-03-21T21:00:00Z 2026-03-22T05:00:00Z", "2026-03-28T21:00:00Z 2026-03-29T04:00:00Z"]);
        let autumn = openings("Sat 22:00-06:00 Europe/Berlin", "2026-10-25T03:00Z", 2);
        assert_eq!(autumn, ["2026-10-24T20:00:00Z 2026-10-25T05:00:00Z", "2026-10-31T21:00:00Z 2026-11-01T05:00:00Z"]);
        let whole = openings("Sun 00:00-24:00 UTC", "2026-11-22T12:00Z", 1);
        assert_eq!(whole, ["2026-11-22T00:00:00Z 2026-11-23T00:00:00Z"]);
    }

    #[test]
    fn a_window_that_the_clocks_skip_is_open_after_the_gap() {
        let skipped = openings("daily 02:00-03:00 Europe/Berlin", "2026-03-28T12:00Z", 2);
        assert_eq!(skipped, ["2026-03-29T01:00:00Z 2026-03-29T02:00:00Z", "2026-03-30T00:00:00Z 2026-03-30T01:00:00Z"]);
        let twice = openings("daily 02:15-02:45 Europe/Berlin", "2026-10-24T12:00Z", 2);
        assert_eq!(twice, ["2026-10-25T00:15:00Z 2026-10-25T00:45:00Z", "2026-10-26T01:15:00Z 2026-10-26T01:45:00Z"]);
    }

    #[test]
    fn the_first_of_several_windows_counts() {
        let windows: Vec<Window> =
            ["Sat 22:00-06:00 UTC", "Mon-Fri 20:00-21:00 UTC"].iter().map(|text| text.parse().unwrap()).collect();
        let from = |text: &str| {
            open_from(&windows, text.parse::<super::super::StartAt>().unwrap().instant()).unwrap().to_string()
        };
        assert_eq!(from("2026-11-23T12:00Z"), "2026-11-23T20:00:00Z");
        assert_eq!(from("2026-11-27T21:00Z"), "2026-11-28T22:00:00Z");
        assert_eq!(from("2026-11-29T05:59Z"), "2026-11-29T05:59:00Z");
        assert_eq!(from("2026-11-29T06:00Z"), "2026-11-30T20:00:00Z");
    }

    #[test]
    fn windows_are_shown_as_they_are_typed() {
        for (text, shown) in [
            ("Sat 22:00-06:00 Europe/Berlin", "Sat 22:00-06:00 Europe/Berlin"),
            ("fri-mon 20:00-24:00 UTC", "Mon,Fri-Sun 20:00-24:00 UTC"),
            ("Mon,Tue,Wed,Thu,Fri,Sat,Sun 00:00-24:00 UTC", "daily 00:00-24:00 UTC"),
            (" daily\t22:00-00:00  UTC ", "daily 22:00-24:00 UTC"),
        ] {
            let window: Window = text.parse().unwrap();
            assert_eq!(window.to_string(), shown);
            assert_eq!(shown.parse::<Window>().unwrap(), window);
            assert_eq!(serde_json::from_str::<Window>(&serde_json::to_string(&window).unwrap()).unwrap(), window);
        }
        for wrong in [
            "",
            "Sat",
            "Sat 22:00-06:00",
            "Sat 22:00 UTC",
            "Sat 22:00-22:00 UTC",
            "Sat 24:00-06:00 UTC",
            "Sat 22:00-24:01 UTC",
            "Sat 22:60-23:00 UTC",
            "Sat 2:00-6:00 UTC",
            "Sat +2:00-06:00 UTC",
            "Caturday 22:00-06:00 UTC",
            "Sat, 22:00-06:00 UTC",
            "Sat 22:00-06:00 Mars",
            "Sat 22:00-06:00 UTC now",
            &"Sat,".repeat(5000),
        ] {
            assert_eq!(wrong.parse::<Window>().unwrap_err().kind, ErrorKind::Invalid, "{wrong}");
        }
    }
}
