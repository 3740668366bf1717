//! The log: a line each, with the time in UTC, appended to a file that stays.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Past this length, in bytes, nothing is appended.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// An open log; without a file the lines go to standard error alone.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
}

impl Log {
    /// Appends to the file at `path`.
    pub(crate) fn open(path: &Path) -> Self {
        let file = OpenOptions::new().append(true).create(true).open(path);
        if let Err(error) = &file {
            eprintln!("{}: {error}", path.display());
        }
        Self { file: file.ok() }
    }

    /// A line, or several with one time.
    pub(crate) fn line(&mut self, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut lines = String::new();
        for (number, line) in text.lines().enumerate() {
            let margin = if number == 0 { time_text(now) } else { " ".repeat(20) };
            lines.push_str(&format!("{margin} {}\r\n", line.trim_end()));
        }
        eprint!("{lines}");
        let Some(file) = &mut self.file else { return };
        if file.metadata().is_ok_and(|metadata| metadata.len() < LOG_BYTES_MAX) {
            // Nobody could be told that the log cannot be written.
            let _ = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
        }
    }
}

/// `2026-11-23T18:40:00Z` of seconds since 1970, by the days of the proleptic Gregorian calendar.
fn time_text(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(is_leap(year)) && year < 9999 {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let months = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while month < 11 && day >= months[month] {
        day -= months[month];
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judged by GNU date: `date -u -d @N +%FT%TZ`.
    #[test]
    fn times_are_those_of_the_calendar() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_795_459_199, "2026-11-23T18:39:59Z"),
        ];
        for (seconds, text) in known {
            assert_eq!(time_text(seconds), text);
        }
    }

    #[test]
    fn lines_are_appended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        Log::open(&path).line("one\ntwo");
        Log::open(&path).line("three");
        let text = std::fs::read_to_string(path).unwrap();
        let words: Vec<&str> = text.split("\r\n").map(|line| line.get(21..).unwrap_or_default()).collect();
        assert_eq!(words, ["one", "two", "three", ""]);
    }
}
