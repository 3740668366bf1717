//! Whether compressing pays, by what was measured.
//!
//! Sending a byte stored takes 1/L, compressed 1/Z + r/L (link and compressor in bytes a second, r what is left of a
//! byte). The sum rather than the larger of the two: on a machine with one processor both wait for each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::message::Compress;

/// How fast the link takes bytes; written by the sender, read by the compressor.
#[derive(Debug, Default)]
pub(crate) struct LinkRate {
    /// Bits of an `f64` in bytes a second; 0 before anything was measured.
    rate: AtomicU64,
}

/// The sender's side of a [`LinkRate`].
#[derive(Debug)]
pub(crate) struct LinkMeter<'a> {
    shared: &'a LinkRate,
    bytes: f64,
    seconds: f64,
}

/// Bytes that count fully in the rate of a link; older ones fade.
const WINDOW_BYTES: f64 = 8e6;

impl LinkRate {
    fn get(&self) -> Option<f64> {
        Some(f64::from_bits(self.rate.load(Ordering::Relaxed))).filter(|rate| *rate > 0.0)
    }

    /// A meter that writes it.
    pub(crate) fn meter(&self) -> LinkMeter<'_> {
        LinkMeter { shared: self, bytes: 0.0, seconds: 0.0 }
    }
}

impl LinkMeter<'_> {
    /// That many bytes took that long.
    pub(crate) fn sent(&mut self, bytes: usize, took: Duration) {
        self.bytes += bytes as f64;
        self.seconds += took.as_secs_f64();
        if self.bytes < WINDOW_BYTES {
            return;
        }
        self.shared.rate.store((self.bytes / self.seconds.max(1e-9)).to_bits(), Ordering::Relaxed);
        self.bytes /= 2.0;
        self.seconds /= 2.0;
    }
}

/// The compressor's judgement.
#[derive(Debug)]
pub(crate) struct Pace {
    mode: Compress,
    /// Bytes a second, and what is left of a byte; both fade. `None` before the first trial.
    compressor: Option<(f64, f64)>,
    since_trial: u32,
}

/// Contents that are stored between two trials, while compressing does not pay.
const TRIAL_PAUSE: u32 = 64;
/// No compressor is faster: bytes a second.
const COMPRESSOR_MAX: f64 = 1.5e9;

impl Pace {
    /// As the controller wishes.
    pub(crate) fn new(mode: Compress) -> Self {
        Self { mode, compressor: None, since_trial: 0 }
    }

    /// Whether to try to compress the next content.
    pub(crate) fn try_next(&mut self, link: &LinkRate) -> bool {
        let link = match (self.mode, link.get()) {
            (Compress::Always, _) => return true,
            (Compress::Never, _) | (_, None) => return false,
            (Compress::WhenItPays, Some(link)) => link,
        };
        let pays = match self.compressor {
            None => link < COMPRESSOR_MAX,
            Some((rate, left)) => 1.0 / rate + left / link < 1.0 / link,
        };
        self.since_trial += 1;
        // A trial tells whether other contents shrink better, but not on a link that nothing can beat.
        let trial = self.since_trial > TRIAL_PAUSE && self.compressor.is_some_and(|(rate, _)| link < rate);
        if pays || trial {
            self.since_trial = 0;
        }
        pays || trial
    }

    /// A content of `raw` bytes became `sent` bytes (as many, if it is stored) in that time.
    pub(crate) fn learn(&mut self, raw: usize, sent: usize, took: Duration) {
        let now = (raw as f64 / took.as_secs_f64().max(1e-9), sent as f64 / raw.max(1) as f64);
        let (rate, left) = self.compressor.unwrap_or(now);
        self.compressor = Some((rate * 0.75 + now.0 * 0.25, left * 0.75 + now.1 * 0.25));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed_share(link: f64, compressor: f64, left: f64) -> f64 {
        let rate = LinkRate::default();
        rate.meter().sent(8_000_000, Duration::from_secs_f64(8e6 / link));
        let mut pace = Pace::new(Compress::WhenItPays);
        let mut tried = 0;
        for _ in 0..1000 {
            if pace.try_next(&rate) {
                tried += 1;
                pace.learn(
                    1_000_000,
                    if left < 1.0 { 400_000 } else { 1_000_000 },
                    Duration::from_secs_f64(1e6 / compressor),
                );
            }
        }
        f64::from(tried) / 1000.0
    }

    #[test]
    fn a_slow_link_gets_compressed_contents_and_a_fast_one_does_not() {
        assert!(compressed_share(100e6, 600e6, 0.4) > 0.99, "gigabit");
        assert!(compressed_share(1000e6, 600e6, 0.4) < 0.01, "ten gigabit");
        assert!(compressed_share(3000e6, 600e6, 0.4) == 0.0, "loopback");
    }

    #[test]
    fn contents_that_do_not_shrink_are_tried_seldom() {
        let share = compressed_share(100e6, 600e6, 1.0);
        assert!(share > 0.0 && share < 0.05, "{share}");
    }

    #[test]
    fn nothing_is_compressed_before_the_link_is_known_or_against_the_operators_wish() {
        let unknown = LinkRate::default();
        assert!(!Pace::new(Compress::WhenItPays).try_next(&unknown));
        assert!(Pace::new(Compress::Always).try_next(&unknown));
        unknown.meter().sent(9_000_000, Duration::from_secs(9));
        assert!(!Pace::new(Compress::Never).try_next(&unknown));
    }
}
