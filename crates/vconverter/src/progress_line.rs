//! Progress for people on standard error: one line that changes on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use controller::progress::Progress;
use machine::ByteCount;

/// Pause between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
/// Pause between two changes of the line on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);

/// Shows progress.
pub(crate) struct ProgressLine {
    terminal: bool,
    /// A line without its end is on the screen.
    open: bool,
    shown: Option<Instant>,
}

impl ProgressLine {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), open: false, shown: None }
    }

    /// Shows where a step is, if it is time.
    pub(crate) fn update(&mut self, step: &str, progress: &Progress) {
        if progress.total > 0 {
            self.show(&describe(step, progress));
        }
    }

    /// Shows how far something is, if it is time.
    pub(crate) fn show(&mut self, text: &str) {
        let now = Instant::now();
        let pause = if self.terminal { TERMINAL_INTERVAL } else { PLAIN_INTERVAL };
        if self.shown.is_some_and(|shown| now.duration_since(shown) < pause) {
            return;
        }
        self.shown = Some(now);
        let mut error = std::io::stderr().lock();
        // Nothing can be done where nobody reads.
        let _ = match self.terminal {
            true => write!(error, "\r\x1b[K{text}").and_then(|()| error.flush()),
            false => writeln!(error, "{text}"),
        };
        self.open = self.terminal;
    }

    /// Shows a line that stays.
    pub(crate) fn say(&mut self, text: &str) {
        self.close();
        self.shown = None;
        let _ = writeln!(std::io::stderr().lock(), "{}", crate::table::plain(text));
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.close();
    }
}

fn describe(step: &str, progress: &Progress) -> String {
    let percent = progress.percent().map(|percent| format!("{percent:3} %  ")).unwrap_or_default();
    let rate = progress.bytes_per_second.map(|rate| format!(", {}/s", ByteCount(rate))).unwrap_or_default();
    let left = progress.seconds_left.map(|seconds| format!(", {} left", duration(seconds))).unwrap_or_default();
    format!("{step}  {percent}{} of {}{rate}{left}", ByteCount(progress.done), ByteCount(progress.total))
}

/// `0:07`, `12:30`, `3:05:00`.
pub(crate) fn duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_percentage_rate_and_time_left() {
        let progress = Progress {
            done: 1 << 30,
            total: 4 << 30,
            bytes_per_second: Some(100 << 20),
            seconds_left: Some(31),
            ..Progress::default()
        };
        assert_eq!(describe("copy", &progress), "copy   25 %  1.0 GiB of 4.0 GiB, 100.0 MiB/s, 0:31 left");
        assert_eq!(duration(11_100), "3:05:00");
    }
}
