//! How far a conversion is: sums over its disks, rate and time left.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use conversion::{CopyProgress, Event, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The rate is that of the last this long.
const WINDOW: Duration = Duration::from_secs(15);
/// Pause between two samples of the window.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);
/// A rate over less than this is noise.
const RATE_AFTER: Duration = Duration::from_millis(900);
/// Disks that are counted; a machine has fewer.
const DISKS_MAX: usize = 4096;

/// How far a task is. Counts are bytes over all disks that were begun in this step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Position of the disk that moved last, from 0.
    pub disk: Option<usize>,
    /// Used bytes that are dealt with.
    pub done: u64,
    /// Used bytes in all; 0 while not known.
    pub total: u64,
    /// Bytes that crossed the network.
    pub sent: u64,
    /// Bytes written into the replicas.
    pub written: u64,
    /// Bytes that could not be read.
    pub unreadable: u64,
    /// Bytes of `done` a second, over the last seconds; `None` while not known.
    pub bytes_per_second: Option<u64>,
    /// Seconds until `done` is `total`, at this rate.
    pub seconds_left: Option<u64>,
}

impl Progress {
    /// Whole percent of the step; `None` while the total is not known.
    pub fn percent(&self) -> Option<u64> {
        let percent = u128::from(self.done.min(self.total)) * 100 / u128::from(self.total.max(1));
        (self.total > 0).then(|| u64::try_from(percent).unwrap_or(100))
    }
}

/// Adds up what a conversion tells.
#[derive(Debug, Default)]
pub struct Meter {
    step: Option<Step>,
    disk: Option<usize>,
    disks: BTreeMap<usize, CopyProgress>,
    /// Moments and what was done then, oldest first.
    samples: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// Takes an event that happened `now`.
    pub fn event(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Step { step } => self.begin(*step),
            Event::Progress { step, progress } => {
                if self.step != Some(*step) {
                    self.begin(*step);
                }
                if self.disks.len() < DISKS_MAX || self.disks.contains_key(&progress.disk) {
                    let is_new = self.disks.insert(progress.disk, *progress).is_none();
                    self.disk = Some(progress.disk);
                    self.sample(now, is_new);
                }
            }
            Event::Log { .. } | Event::Warning { .. } => {}
        }
    }

    fn begin(&mut self, step: Step) {
        *self = Self { step: Some(step), ..Self::default() };
    }

    /// What a new disk brings with its first event was done before, in an earlier run: it is no part of the rate.
    fn sample(&mut self, now: Instant, is_new_disk: bool) {
        let done = self.sum(|disk| disk.done.0);
        if is_new_disk {
            self.samples.clear();
        }
        let due = self.samples.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= SAMPLE_INTERVAL);
        if due {
            self.samples.push_back((now, done));
        }
        while self.samples.len() > 2
            && self.samples.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// The step that runs.
    pub fn step(&self) -> Option<Step> {
        self.step
    }

    /// Where things stand `now`. A copy that stands still gets slower and slower.
    pub fn progress(&self, now: Instant) -> Progress {
        let (done, total) = (self.sum(|disk| disk.done.0), self.sum(|disk| disk.total.0));
        let rate = self.samples.front().and_then(|(start, before)| {
            let elapsed = now.saturating_duration_since(*start);
            let moved = u128::from(done.saturating_sub(*before));
            (elapsed >= RATE_AFTER)
                .then(|| u64::try_from(moved * 1000 / elapsed.as_millis().max(1)).unwrap_or(u64::MAX))
        });
        let left = rate.filter(|rate| *rate > 0).map(|rate| total.saturating_sub(done).div_ceil(rate));
        Progress {
            disk: self.disk,
            done,
            total,
            sent: self.sum(|disk| disk.sent.0),
            written: self.sum(|disk| disk.written.0),
            unreadable: self.sum(|disk| disk.unreadable.0),
            bytes_per_second: rate,
            seconds_left: left,
        }
    }

    fn sum(&self, field: impl Fn(&CopyProgress) -> u64) -> u64 {
        self.disks.values().map(field).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use machine::ByteCount;

    use super::*;

    fn copied(disk: usize, done: u64, total: u64) -> Event {
        let progress = CopyProgress { disk, done: ByteCount(done), total: ByteCount(total), ..CopyProgress::default() };
        Event::Progress { step: Step::Copy, progress }
    }

    #[test]
    fn rate_and_time_left_follow_the_last_seconds() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        for second in 0..60 {
            // 100 bytes a second for half a minute, then 10.
            let done = if second < 30 { 100 * second } else { 3000 + 10 * (second - 30) };
            meter.event(&copied(0, done, 10_000), start + Duration::from_secs(second));
        }
        let progress = meter.progress(start + Duration::from_secs(59));
        assert_eq!((progress.bytes_per_second, progress.done, progress.percent()), (Some(10), 3290, Some(32)));
        assert_eq!(progress.seconds_left, Some(671));
    }

    #[test]
    fn what_an_earlier_run_copied_is_no_part_of_the_rate() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.event(&copied(0, 5000, 10_000), start);
        meter.event(&copied(0, 5100, 10_000), start + Duration::from_secs(1));
        assert_eq!(meter.progress(start + Duration::from_secs(1)).bytes_per_second, Some(100));
        meter.event(&copied(1, 7000, 20_000), start + Duration::from_secs(2));
        let progress = meter.progress(start + Duration::from_secs(3));
        assert_eq!((progress.bytes_per_second, progress.done, progress.total), (Some(0), 12_100, 30_000));
        assert_eq!(progress.seconds_left, None);
    }

    #[test]
    fn a_new_step_begins_at_nothing() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.event(&copied(0, 10, 10), start);
        meter.event(&Event::Step { step: Step::FixUp }, start);
        assert_eq!((meter.step(), meter.progress(start).percent()), (Some(Step::FixUp), None));
    }
}
