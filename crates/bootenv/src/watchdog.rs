//! The watchdog of a pushed boot image: what resets a machine that hangs, so that its own system starts.
//!
//! It is armed as soon as its driver is there, and fed by the loop that watches the deadline, as long as the main loop is alive too;
//! a boot image in which nothing moves any more is reset by it. It is disarmed right before an orderly end, for a timer in a BMC
//! goes on counting and would reset the machine's own system.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oneshot::watchdog::Armed;

use crate::console::log;
use crate::modules;

/// Drivers of the timer in a BMC, which no device of the machine asks for.
const BMC_DRIVERS: [&str; 2] = ["ipmi_si", "ipmi_devintf"];
/// It is fed so many times within its time.
const FEEDS: u32 = 4;
/// And at least so often.
const FEED_MAX: Duration = Duration::from_secs(10);
/// The main loop answers keys at least every second; without a sign of life for so long it hangs.
const SIGN_MAX: Duration = Duration::from_secs(60);

static WATCHDOG: Mutex<Option<Watchdog>> = Mutex::new(None);

struct Watchdog {
    armed: Armed,
    fed: Instant,
    every: Duration,
    /// Whether the last feeding failed, which is said once.
    failed: bool,
}

/// Arms the machine's watchdog, which resets the machine `seconds` after it was last fed. Without one the machine does without.
pub fn arm(seconds: u32) {
    for driver in BMC_DRIVERS {
        if let Err(error) = modules::load(&[driver]) {
            log(error.chain());
        }
    }
    match oneshot::watchdog::arm(seconds) {
        Ok(armed) => {
            let seconds = armed.seconds();
            log(format!("watchdog: armed, it resets the machine after {seconds} s of silence"));
            let every = (Duration::from_secs(seconds.into()) / FEEDS).min(FEED_MAX);
            *lock() = Some(Watchdog { armed, fed: Instant::now(), every, failed: false });
        }
        Err(error) => log(format!("watchdog: {}; a machine that hangs needs one power cycle", error.chain())),
    }
}

/// Feeds it where it is time, unless the main loop has been silent for too long.
pub fn feed(silent: Duration) {
    let mut watchdog = lock();
    let Some(watchdog) = watchdog.as_mut().filter(|watchdog| is_due(watchdog.fed.elapsed(), watchdog.every, silent))
    else {
        return;
    };
    match watchdog.armed.feed() {
        Ok(()) => (watchdog.fed, watchdog.failed) = (Instant::now(), false),
        Err(error) if !watchdog.failed => {
            log(format!("watchdog: {}", error.chain()));
            watchdog.failed = true;
        }
        Err(_) => {}
    }
}

fn is_due(since_fed: Duration, every: Duration, silent: Duration) -> bool {
    since_fed >= every && silent <= SIGN_MAX
}

/// Stops it, for the machine is about to be ended in order.
pub fn disarm() {
    let Some(watchdog) = lock().take() else { return };
    match watchdog.armed.disarm() {
        Ok(()) => log("watchdog: disarmed"),
        Err(error) => log(format!("watchdog: {}", error.chain())),
    }
}

fn lock() -> MutexGuard<'static, Option<Watchdog>> {
    WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_in_time_and_not_while_the_main_loop_hangs() {
        let seconds = Duration::from_secs;
        assert!(is_due(seconds(10), seconds(10), seconds(1)));
        assert!(!is_due(seconds(9), seconds(10), seconds(1)));
        assert!(is_due(seconds(99), seconds(10), SIGN_MAX));
        assert!(!is_due(seconds(99), seconds(10), SIGN_MAX + seconds(1)));
    }
}
