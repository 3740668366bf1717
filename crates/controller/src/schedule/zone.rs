//! A time zone by its IANA name.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::{Error, ErrorKind, Result, Timestamp};

/// Longest name of a zone in bytes; the longest that exists has 32.
const NAME_BYTES_MAX: usize = 64;

/// A time zone with a name: `Europe/Berlin`, `UTC`.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// That of the machine this runs on; universal time where it has none with a name.
    pub fn of_this_host() -> Self {
        let zone = TimeZone::system();
        if zone.iana_name().is_some() { Self(zone) } else { Self::UTC }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// When its clocks show `civil`: the first time where they show it twice, and as much later as they skip where they
    /// skip it (the rule of RFC 5545, 3.3.5). `None` outside of the years that can be told.
    pub(super) fn instant(&self, civil: DateTime) -> Option<Timestamp> {
        let moment = self.0.to_ambiguous_timestamp(civil).compatible().ok()?;
        Some(Timestamp(moment.as_millisecond()))
    }

    /// What its clocks show.
    pub(super) fn civil(&self, at: Timestamp) -> Option<DateTime> {
        jiff::Timestamp::from_millisecond(at.0).ok().map(|moment| self.0.to_datetime(moment))
    }
}

impl FromStr for Zone {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_name = |c: u8| c.is_ascii_alphanumeric() || b"/_+-".contains(&c);
        let unknown = || {
            let shown: String = text.chars().take(NAME_BYTES_MAX).collect();
            Error::new(ErrorKind::Invalid, format!("time zone {shown:?}: expected a name such as Europe/Berlin or UTC"))
        };
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(is_name) {
            return Err(unknown());
        }
        let zone = TimeZone::get(text).map_err(|_| unknown())?;
        zone.iana_name().is_some().then_some(Self(zone)).ok_or_else(unknown)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A type that is text in JSON, as it is typed and shown.
macro_rules! text_in_json {
    ($type:ty, $description:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $description })
            }
        }
    };
}
pub(super) use text_in_json;

text_in_json!(Zone, "An IANA time zone: Europe/Berlin.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_names_and_nothing_else_is_one() {
        assert_eq!("Europe/Berlin".parse::<Zone>().unwrap().name(), "Europe/Berlin");
        assert_eq!("UTC".parse::<Zone>().unwrap().name(), "UTC");
        for wrong in ["", "Europe/Atlantis", "../../etc/passwd", "+01:00", "Europe/Berlin ", &"x".repeat(1000)] {
            let error = wrong.parse::<Zone>().unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
            assert!(error.to_string().len() < 200, "{error}");
        }
    }

    #[test]
    fn a_time_that_is_skipped_comes_later_and_one_that_comes_twice_is_the_first() {
        let berlin: Zone = "Europe/Berlin".parse().unwrap();
        let at = |text: &str| berlin.instant(text.parse().unwrap()).unwrap().to_string();
        assert_eq!(at("2026-03-29T02:30"), "2026-03-29T01:30:00Z", "shown as 03:30");
        assert_eq!(at("2026-10-25T02:30"), "2026-10-25T00:30:00Z", "still summer time");
        assert_eq!(at("2026-12-01T22:00"), "2026-12-01T21:00:00Z");
    }
}
