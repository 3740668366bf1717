//! From one run to the next.

use std::fmt;
use std::str::FromStr;

use super::zone::text_in_json;
use crate::{Error, ErrorKind, Result};

/// Longest interval in days.
const DAYS_MAX: u32 = 366;

/// An interval: `5m`, `1h` (so much later, whatever the clocks show), `1d`, `1w` (the same time of day, so many days later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Every {
    /// Minutes, at least one.
    Minutes(u32),
    /// Days of the calendar, at least one.
    Days(u32),
}

impl FromStr for Every {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number = number.parse::<u32>().ok().filter(|number| (1..=DAYS_MAX * 24 * 60).contains(number));
        let every = match (number, unit) {
            (Some(number), "m") => Some(Self::Minutes(number)),
            (Some(number), "h") if number <= DAYS_MAX * 24 => Some(Self::Minutes(number * 60)),
            (Some(number), "d") if number <= DAYS_MAX => Some(Self::Days(number)),
            (Some(number), "w") if number <= DAYS_MAX / 7 => Some(Self::Days(number * 7)),
            _ => None,
        };
        every.ok_or_else(|| {
            let shown: String = text.chars().take(32).collect();
            Error::new(ErrorKind::Invalid, format!("interval {shown:?}: expected 5m, 1h, 1d or 1w, up to 366 days"))
        })
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::Minutes(minutes) if minutes % 60 == 0 => format!("{}h", minutes / 60),
            Self::Minutes(minutes) => format!("{minutes}m"),
            Self::Days(days) if days % 7 == 0 => format!("{}w", days / 7),
            Self::Days(days) => format!("{days}d"),
        };
        f.pad(&text)
    }
}

text_in_json!(Every, "An interval.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_numbers_with_a_unit() {
        for (text, every) in [("5m", Every::Minutes(5)), ("1h", Every::Minutes(60)), ("2w", Every::Days(14))] {
            assert_eq!(text.parse::<Every>().unwrap(), every);
            assert_eq!(every.to_string(), text);
        }
        assert_eq!("366d".parse::<Every>().unwrap(), Every::Days(366));
        for wrong in ["", "5", "m", "0m", "-5m", "5 m", "1y", "367d", "99999999999h", "5mm", "1.5h", "²d"] {
            assert_eq!(wrong.parse::<Every>().unwrap_err().kind, ErrorKind::Invalid, "{wrong}");
        }
    }
}
