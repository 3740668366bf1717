//! How much runs at once, and how fast; changeable while it runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schedule::{WINDOWS_MAX, Window, is_open};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Tasks that may be allowed to run at once.
const RUNNING_MAX: u32 = 64;

/// How much runs at once, and how fast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Tasks that run at the same time, 1 to 64; the others wait in the order in which they were asked for.
    #[schemars(range(min = 1, max = 64))]
    pub running: u32,
    /// Bytes a second that come in for all tasks together; as fast as it goes without it.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub bytes_per_second: Option<u64>,
    /// Other rates while a window is open; of several that are open the lowest counts.
    #[serde(default)]
    pub windows: Vec<RateWindow>,
}

/// A rate at times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateWindow {
    /// When: `Mon-Fri 08:00-18:00 Europe/Berlin`.
    pub window: Window,
    /// Bytes a second.
    #[schemars(range(min = 1))]
    pub bytes_per_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { running: 4, bytes_per_second: None, windows: Vec::new() }
    }
}

impl Limits {
    /// # Errors
    /// [`ErrorKind::Invalid`] for what cannot be.
    pub fn check(&self) -> Result<()> {
        let invalid = |context: String| Err(Error::new(ErrorKind::Invalid, context));
        if !(1..=RUNNING_MAX).contains(&self.running) {
            return invalid(format!("running: expected 1 to {RUNNING_MAX}, found {}", self.running));
        }
        let rates = self.windows.iter().map(|window| window.bytes_per_second).chain(self.bytes_per_second);
        if rates.into_iter().any(|rate| rate == 0) {
            return invalid("a rate of 0 bytes a second stops everything: pause the tasks instead".into());
        }
        if self.windows.len() > WINDOWS_MAX {
            return invalid(format!("windows: expected at most {WINDOWS_MAX}, found {}", self.windows.len()));
        }
        Ok(())
    }

    /// Bytes a second at a moment; `None` is as fast as it goes.
    pub fn rate(&self, at: Timestamp) -> Option<u64> {
        let open = self.windows.iter().filter(|rate| is_open(&rate.window, at));
        open.map(|rate| rate.bytes_per_second).min().or(self.bytes_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_its_own_rate_while_it_is_open() {
        let window = |text: &str, bytes_per_second| RateWindow { window: text.parse().unwrap(), bytes_per_second };
        let limits = Limits {
            bytes_per_second: Some(100),
            windows: vec![
                window("Mon-Fri 08:00-18:00 Europe/Berlin", 10),
                window("daily 12:00-13:00 Europe/Berlin", 500),
            ],
            ..Limits::default()
        };
        limits.check().unwrap();
        let at = |text: &str| limits.rate(text.parse::<crate::schedule::StartAt>().unwrap().instant());
        assert_eq!(at("2026-11-23T07:59[Europe/Berlin]"), Some(100));
        assert_eq!(at("2026-11-23T08:00[Europe/Berlin]"), Some(10));
        assert_eq!(at("2026-11-23T12:30[Europe/Berlin]"), Some(10), "the lowest of two");
        assert_eq!(at("2026-11-22T12:30[Europe/Berlin]"), Some(500), "on a Sunday");
        assert_eq!(Limits::default().rate(Timestamp(0)), None);
        for wrong in [
            Limits { running: 0, ..Limits::default() },
            Limits { running: 65, ..Limits::default() },
            Limits { bytes_per_second: Some(0), ..Limits::default() },
        ] {
            assert_eq!(wrong.check().unwrap_err().kind, ErrorKind::Invalid);
        }
    }
}
