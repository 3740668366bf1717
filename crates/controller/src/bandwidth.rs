//! How fast data may come in: for a task, and for all of them together.
//!
//! A leaky bucket for each. What came in fills it, it leaks at the rate that is allowed, and who finds it too full waits
//! until it is not; the sender is slowed down by TCP. A rate that is changed counts at once, also for who waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conversion::Cancel;

/// What may come in at once without a wait, as a time at the rate.
const BURST: Duration = Duration::from_millis(100);
/// Longest pause before a look whether the rate was changed, or the wait cancelled.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes that came in and did not leak away yet.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Bytes a second; `None` is as fast as it goes.
    rate: Option<u64>,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { rate: None, level: 0.0, at: now }
    }

    fn leak(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = self.rate.map_or(0.0, |rate| (self.level - passed * rate as f64).max(0.0));
        self.at = now;
    }

    fn set(&mut self, rate: Option<u64>, now: Instant) {
        self.leak(now);
        self.rate = rate;
    }

    fn fill(&mut self, bytes: u64, now: Instant) {
        self.leak(now);
        self.level += bytes as f64;
    }

    /// How long it is too full.
    fn wait(&mut self, now: Instant) -> Duration {
        self.leak(now);
        match self.rate {
            Some(rate) => Duration::try_from_secs_f64(self.level / (rate.max(1) as f64))
                .unwrap_or(Duration::MAX)
                .saturating_sub(BURST),
            None => Duration::ZERO,
        }
    }
}

/// What may come in for all tasks together; clones share it.
#[derive(Clone, Debug)]
pub struct Bandwidth {
    total: Arc<Mutex<Bucket>>,
}

/// What may come in for a task, within that; clones share it.
#[derive(Clone, Debug)]
pub struct TaskBandwidth {
    total: Arc<Mutex<Bucket>>,
    own: Arc<Mutex<Bucket>>,
}

impl Default for Bandwidth {
    fn default() -> Self {
        Self { total: Arc::new(Mutex::new(Bucket::new(Instant::now()))) }
    }
}

impl Bandwidth {
    /// Bytes a second for all tasks together from now on; `None` is as fast as it goes.
    pub fn set(&self, rate: Option<u64>) {
        lock(&self.total).set(rate, Instant::now());
    }

    /// For one more task.
    pub fn task(&self, rate: Option<u64>) -> TaskBandwidth {
        let own = Bucket { rate, ..Bucket::new(Instant::now()) };
        TaskBandwidth { total: Arc::clone(&self.total), own: Arc::new(Mutex::new(own)) }
    }
}

impl TaskBandwidth {
    /// Bytes a second of the task from now on; `None` is as fast as it goes.
    pub fn set(&self, rate: Option<u64>) {
        lock(&self.own).set(rate, Instant::now());
    }

    /// Counts bytes that came in, and waits until more may. Ends early when it is cancelled.
    pub fn count(&self, bytes: u64, cancel: &Cancel) {
        let now = Instant::now();
        lock(&self.total).fill(bytes, now);
        lock(&self.own).fill(bytes, now);
        loop {
            let now = Instant::now();
            let wait = lock(&self.total).wait(now).max(lock(&self.own).wait(now));
            if wait.is_zero() || cancel.is_cancelled() {
                return;
            }
            std::thread::sleep(wait.min(PAUSE));
        }
    }
}

fn lock(bucket: &Mutex<Bucket>) -> MutexGuard<'_, Bucket> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that come in within `seconds` by a clock of our own, when as much is offered as is let in.
    fn let_in(bucket: &mut Bucket, from: Instant, seconds: u64) -> u64 {
        let (mut now, mut bytes) = (from, 0);
        while now < from + Duration::from_secs(seconds) {
            bucket.fill(16 << 10, now);
            bytes += 16 << 10;
            now += bucket.wait(now).max(Duration::from_micros(10));
        }
        bytes
    }

    #[test]
    fn what_comes_in_keeps_to_the_rate_and_follows_its_changes() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        for (seconds, rate) in [(0, 1_000_000), (100, 50_000), (200, 20_000_000)] {
            let from = start + Duration::from_secs(seconds);
            bucket.set(Some(rate), from);
            let bytes = let_in(&mut bucket, from, 60);
            let found = bytes as f64 / 60.0 / rate as f64;
            println!("{rate} bytes a second allowed, {:.0} found", bytes as f64 / 60.0);
            assert!((0.97..1.03).contains(&found), "{found}");
        }
    }

    #[test]
    fn who_waits_at_a_rate_that_is_lifted_goes_on_at_once() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        bucket.set(Some(1), start);
        bucket.fill(1 << 30, start);
        assert!(bucket.wait(start) > Duration::from_secs(1 << 29));
        bucket.set(None, start);
        assert_eq!(bucket.wait(start), Duration::ZERO);
        bucket.set(Some(1), start);
        assert_eq!(bucket.wait(start), Duration::ZERO, "what came in without a rate is no debt");
    }

    #[test]
    fn a_cancelled_wait_ends() {
        let (cancel, task) = (Cancel::default(), Bandwidth::default().task(Some(1)));
        cancel.cancel();
        task.count(1 << 40, &cancel);
    }
}
