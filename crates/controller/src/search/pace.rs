//! How often something may be begun: evenly, and what was missed is not made up for.

use std::time::Duration;

/// Gives out moments on a clock that begins anywhere.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Duration,
}

impl Pace {
    /// At most `per_second` in any second; at least one.
    pub(super) fn new(per_second: u32) -> Self {
        // Rounded up, so that a second never holds one more.
        let nanos = 1_000_000_000_u64.div_ceil(u64::from(per_second.max(1)));
        Self { interval: Duration::from_nanos(nanos), next: Duration::ZERO }
    }

    /// When the next may be begun.
    pub(super) fn take(&mut self, now: Duration) -> Duration {
        let slot = self.next.max(now);
        self.next = slot + self.interval;
        slot
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_second_holds_more_than_the_rate(rate in 1_u32..=1000, pauses in proptest::collection::vec(0_u64..3_000_000_000, 1..400)) {
            let mut pace = Pace::new(rate);
            let mut now = Duration::ZERO;
            let mut begun = Vec::new();
            for (number, pause) in pauses.into_iter().enumerate() {
                // Mostly at once, now and then after a standstill.
                now = pace.take(now);
                begun.push(now);
                if number % 16 == 0 {
                    now += Duration::from_nanos(pause);
                }
            }
            for (first, start) in begun.iter().enumerate() {
                let within = begun[first..].iter().take_while(|at| **at < *start + Duration::from_secs(1)).count();
                prop_assert!(within <= rate as usize, "{within} in a second at {rate}");
            }
        }
    }
}
