//! Whether a machine can be back in its own system in time, while it is copied.

use std::time::Duration;

use crate::{Result, Timestamp};

use super::Run;
use crate::progress::Progress;
use crate::store::LogLevel;
use crate::tasks::Tasks;

/// What a machine takes from its restart until it serves again, at most as far as one knows.
pub(super) const RETURN: Duration = Duration::from_secs(5 * 60);
/// A rate of less than this is no forecast.
const FORECAST_AFTER: Duration = Duration::from_secs(3 * 60);
/// Looks in a row that must miss: a link has its moments.
const MISSES: u32 = 6;

/// Watches one copy.
#[derive(Clone, Debug)]
pub(super) struct Deadline {
    /// When the machine must be back.
    by: Timestamp,
    /// What is to be read in all, as far as the machine reported it.
    bytes: u64,
    /// Since when something is copied, and how much was there then.
    begun: Option<(Timestamp, u64)>,
    done: u64,
    misses: u32,
}

impl Deadline {
    pub(super) fn new(by: Timestamp, bytes: u64) -> Self {
        Self { by, bytes, begun: None, done: 0, misses: 0 }
    }

    /// Looks at how far the copy is. Where the machine will not be back in time, says why.
    pub(super) fn look(&mut self, progress: &Progress, now: Timestamp) -> Option<String> {
        let latest = Timestamp(self.by.0.saturating_sub(millis(RETURN)));
        if now >= latest {
            return Some(format!("it must be back by {}, and needs its time to start", self.by));
        }
        // What is compared or copied anew counts from its beginning.
        let (began, before) = match self.begun {
            Some(begun) if progress.done >= self.done => begun,
            _ => *self.begun.insert((now, progress.done)),
        };
        self.done = progress.done;
        let elapsed = now.millis_since(began);
        if u128::from(elapsed) < FORECAST_AFTER.as_millis() {
            return None;
        }
        let left = self.bytes.max(progress.total).saturating_sub(progress.done);
        let moved = progress.done.saturating_sub(before);
        let millis_left = match moved {
            0 => u64::MAX,
            moved => u64::try_from(u128::from(left) * u128::from(elapsed) / u128::from(moved)).unwrap_or(u64::MAX),
        };
        let end = now.after(Duration::from_millis(millis_left.min(i64::MAX.cast_unsigned() / 4)));
        self.misses = if end > latest { self.misses + 1 } else { 0 };
        (self.misses >= MISSES).then(|| match moved {
            0 => format!("nothing came in {} min, and it must be back by {}", elapsed / 60_000, self.by),
            _ => format!("its copy would end at {end}, and it must be back by {}", self.by),
        })
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Tasks {
    /// Stops copies whose machines would not be back in time.
    pub(super) fn keep_deadlines(&self, runs: &[Run], now: Timestamp) {
        for run in runs {
            let progress = super::lock(&run.meter).progress(std::time::Instant::now());
            if let Some(why) = run.missed(&progress, now) {
                tracing::warn!(task = %run.lease.task, "{why}");
                run.cancel.cancel();
            }
        }
    }

    /// Starts the machine's own system again, where it stands in the boot image.
    pub(super) fn give_back(&self, run: &Run, machine: &str, name: &str) -> Result<()> {
        if run.was_given_back() || !self.0.sessions.is_ready(machine) {
            return Ok(());
        }
        let text = format!("{name}: this machine is given back to its own system");
        let asked = self.0.sessions.end_machine(machine, protocol::message::PowerAction::Restart, text);
        let (level, says) = match asked {
            Ok(_) => (LogLevel::Info, "the machine is given back: it starts its own system".to_owned()),
            Err(error) => (LogLevel::Warning, format!("the machine cannot be given back: {}", error.chain())),
        };
        self.0.store.log_task(&run.lease.task, level, &says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// Looks every 5 seconds from 22:00 on at a copy of 100 GiB that must be over by 6 in the morning; returns the minute of the
    /// end and why.
    fn watch(rate: impl Fn(u64) -> u64) -> Option<(u64, String)> {
        let start = Timestamp(1_796_162_400_000);
        let mut deadline = Deadline::new(start.after(Duration::from_secs(8 * 3600)), 100 * GIB);
        let mut done = 0;
        for second in (0..8 * 3600).step_by(5) {
            done += rate(second) * 5;
            if done >= 100 * GIB {
                return None;
            }
            // The disk that was begun is all that the copy itself knows of.
            let progress = Progress { done, total: 20 * GIB, ..Progress::default() };
            if let Some(why) = deadline.look(&progress, start.after(Duration::from_secs(second))) {
                return Some((second / 60, why));
            }
        }
        panic!("it went on for too long");
    }

    #[test]
    fn a_copy_that_ends_in_time_is_left_alone_and_another_stopped_as_soon_as_one_knows() {
        assert_eq!(watch(|_| 5 << 20), None, "20,480 s of 28,500");
        let (minute, why) = watch(|_| 2 << 20).unwrap();
        println!("{minute} min: {why}");
        assert_eq!(minute, 3);
        let (minute, why) = watch(|_| 0).unwrap();
        println!("{minute} min: {why}");
        assert!(minute == 3 && why.contains("nothing came"));
        // A link that slept for two minutes and is fast again.
        assert_eq!(watch(|second| if (600..720).contains(&second) { 0 } else { 8 << 20 }), None);
        // One that breaks for good is noticed while there is time, at the latest when the machine must start.
        let (minute, why) = watch(|second| if second < 5 * 3600 { 5 << 20 } else { 0 }).unwrap();
        println!("{minute} min: {why}");
        assert!((300..=475).contains(&minute), "{minute}");
    }
}
