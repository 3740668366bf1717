//! The deadline of a pushed boot image: nobody stands in front of the machine, so it goes back to its own system by itself where
//! nothing comes of it.
//!
//! It does when there has been no contact with the controller for the time that the push brought (from the start, or since the
//! connection was lost), and when nothing has been copied for twice that time, however often the connection came and went. A
//! controller that has reasons says that the machine is to stay; so can somebody in front of it. What is decided is a pure function
//! of time and of what the agent says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::system::RebootCommand;

use crate::console::{self, log};
use crate::status::Status;
use crate::{conversation, watchdog};

const TICK: Duration = Duration::from_secs(1);
/// The log counts down at these times before the end, in seconds.
const TOLD_SECONDS: [u64; 5] = [600, 300, 120, 60, 10];

/// Somebody at the machine wants it to stay.
static STAYS: AtomicBool = AtomicBool::new(false);

/// How the machine stands with its controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not connected, or not taken in.
    Apart,
    /// Connected, and nothing is copied.
    Idle,
    /// Disks are read.
    Working,
    /// The controller wants the machine here.
    Staying,
}

/// By the status of the agent.
pub fn standing(status: &str) -> Standing {
    match status {
        "copying" | "verifying" => Standing::Working,
        "staying" => Standing::Staying,
        "ready" | "failed" | "message" | "finished" => Standing::Idle,
        _ => Standing::Apart,
    }
}

/// Why the machine goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The controller was not reached, or did not take the machine in.
    NoContact,
    /// The controller had nothing to do here.
    Idle,
}

impl Reason {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoContact => "no contact with the controller",
            Self::Idle => "nothing is copied",
        }
    }
}

/// What is left of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The machine is needed here.
    Unbounded,
    /// So long, and why it ends then; zero is the end.
    Time(Duration, Reason),
}

/// The deadline; all times count from one moment.
#[derive(Clone, Debug)]
pub struct Deadline {
    contact: Duration,
    in_contact: Duration,
    worked: Duration,
}

impl Deadline {
    /// Begins at `now`; without contact for `contact` it is over.
    pub fn new(contact: Duration, now: Duration) -> Self {
        Self { contact, in_contact: now, worked: now }
    }

    /// What is left at `now`, when the machine stands so.
    pub fn look(&mut self, now: Duration, standing: Standing) -> Left {
        if standing != Standing::Apart {
            self.in_contact = now;
        }
        if matches!(standing, Standing::Working | Standing::Staying) {
            self.worked = now;
            return Left::Unbounded;
        }
        let idle = (self.worked + 2 * self.contact).saturating_sub(now);
        let contact = (self.in_contact + self.contact).saturating_sub(now);
        match standing {
            Standing::Apart if contact <= idle => Left::Time(contact, Reason::NoContact),
            _ => Left::Time(idle, Reason::Idle),
        }
    }
}

/// Has the machine stay until somebody restarts it.
pub fn stay() {
    if !STAYS.swap(true, Ordering::Relaxed) {
        log("deadline: taken back, by somebody at the machine; it stays in the boot image");
    }
}

/// Watches the deadline and feeds the watchdog, until the machine is restarted; for a thread of its own.
pub fn run(contact_seconds: u32, status: &Arc<Status>) -> ! {
    log(format!(
        "deadline: the machine's own system is started after {contact_seconds} s without the controller, and after \
         {} s without work",
        u64::from(contact_seconds) * 2
    ));
    let started = Instant::now();
    let mut deadline = Deadline::new(Duration::from_secs(contact_seconds.into()), Duration::ZERO);
    let mut told = None;
    loop {
        // Whoever holds the picture for ever hangs, and so does this loop then: the watchdog is not fed.
        let standing = standing(&status.picture().agent.status);
        watchdog::feed(status.silent());
        let left = match STAYS.load(Ordering::Relaxed) {
            true => Left::Unbounded,
            false => deadline.look(started.elapsed(), standing),
        };
        if let Left::Time(Duration::ZERO, reason) = left {
            log(format!("deadline: over: {}; the machine's own system is started", reason.as_str()));
            status.update(|picture| picture.deadline = Some("is started now".into()));
            console::drain(Duration::from_secs(2));
            conversation::end(status, "restarting", RebootCommand::Restart);
        }
        let text = describe(left);
        status.update(|picture| picture.deadline = text.clone());
        if let Some(line) = to_log(left, &mut told) {
            log(format!("deadline: {line}"));
        }
        std::thread::sleep(TICK);
    }
}

/// For the screen.
fn describe(left: Left) -> Option<String> {
    match left {
        Left::Unbounded => None,
        Left::Time(time, reason) => {
            let seconds = time.as_secs();
            Some(format!("is started in {}:{:02}: {}; S stays here", seconds / 60, seconds % 60, reason.as_str()))
        }
    }
}

/// A line for the log where the reason is another, or one of the told times is reached; `told` is what was told last.
fn to_log(left: Left, told: &mut Option<(Reason, u64)>) -> Option<String> {
    let Left::Time(time, reason) = left else {
        return told.take().map(|_| "none while the machine is needed here".to_owned());
    };
    let seconds = time.as_secs();
    // The smallest of the told times that is not below what is left.
    let step = TOLD_SECONDS.into_iter().filter(|step| seconds <= *step).min().unwrap_or(u64::MAX);
    if *told == Some((reason, step)) {
        return None;
    }
    *told = Some((reason, step));
    Some(format!("{seconds} s: {}", reason.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn deadline() -> Deadline {
        Deadline::new(seconds(900), Duration::ZERO)
    }

    #[test]
    fn without_a_controller_it_is_over_in_time() {
        let mut deadline = deadline();
        assert_eq!(deadline.look(seconds(0), Standing::Apart), Left::Time(seconds(900), Reason::NoContact));
        assert_eq!(deadline.look(seconds(899), Standing::Apart), Left::Time(seconds(1), Reason::NoContact));
        assert_eq!(deadline.look(seconds(900), Standing::Apart), Left::Time(Duration::ZERO, Reason::NoContact));
    }

    #[test]
    fn a_lost_connection_begins_the_time_anew_and_work_ends_it() {
        let mut deadline = deadline();
        deadline.look(seconds(800), Standing::Idle);
        assert_eq!(deadline.look(seconds(1000), Standing::Working), Left::Unbounded);
        assert_eq!(deadline.look(seconds(90_000), Standing::Working), Left::Unbounded);
        assert_eq!(deadline.look(seconds(90_001), Standing::Apart), Left::Time(seconds(899), Reason::NoContact));
        assert_eq!(deadline.look(seconds(90_900), Standing::Apart), Left::Time(Duration::ZERO, Reason::NoContact));
    }

    #[test]
    fn idle_is_over_after_twice_the_time_however_often_the_connection_is_lost() {
        let mut deadline = deadline();
        assert_eq!(deadline.look(seconds(10), Standing::Idle), Left::Time(seconds(1790), Reason::Idle));
        for minute in 1..30 {
            let standing = if minute % 2 == 0 { Standing::Idle } else { Standing::Apart };
            let left = deadline.look(seconds(60 * minute), standing);
            assert!(matches!(left, Left::Time(time, _) if !time.is_zero()), "{minute}: {left:?}");
        }
        assert_eq!(deadline.look(seconds(1800), Standing::Idle), Left::Time(Duration::ZERO, Reason::Idle));
    }

    #[test]
    fn a_machine_that_is_to_stay_stays_and_has_its_time_afterwards() {
        let mut deadline = deadline();
        assert_eq!(deadline.look(seconds(50_000), Standing::Staying), Left::Unbounded);
        assert_eq!(deadline.look(seconds(50_001), Standing::Idle), Left::Time(seconds(1799), Reason::Idle));
    }

    #[test]
    fn whom_nobody_took_in_is_apart() {
        for status in
            ["", "starting", "connecting", "waiting_for_approval", "waiting_for_confirmation", "agent stopped"]
        {
            assert_eq!(standing(status), Standing::Apart, "{status}");
        }
        assert_eq!([standing("ready"), standing("failed")], [Standing::Idle; 2]);
        assert_eq!(standing("copying"), Standing::Working);
    }

    #[test]
    fn the_log_counts_down_and_the_screen_says_why() {
        let mut told = None;
        let mut lines = Vec::new();
        for left in (0..=900).rev() {
            lines.extend(to_log(Left::Time(seconds(left), Reason::NoContact), &mut told));
        }
        let numbers: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(numbers, ["900", "600", "300", "120", "60", "10"]);
        assert_eq!(to_log(Left::Unbounded, &mut told).as_deref(), Some("none while the machine is needed here"));
        assert_eq!(to_log(Left::Unbounded, &mut told), None);
        let text = describe(Left::Time(seconds(125), Reason::Idle)).unwrap();
        assert_eq!(text, "is started in 2:05: nothing is copied; S stays here");
    }

    proptest! {
        /// Whatever the agent says: without work for twice the time, or contact for the time, it is over, and never before.
        #[test]
        fn it_is_over_when_it_should_be_and_never_before(steps in prop::collection::vec((1_u64..600, 0_u8..4), 1..60)) {
            let mut deadline = deadline();
            let (mut now, mut contact, mut work) = (0, 0, 0);
            for (pause, standing) in steps {
                now += pause;
                let standing = [Standing::Apart, Standing::Idle, Standing::Working, Standing::Staying][usize::from(standing)];
                let is_over = matches!(deadline.look(seconds(now), standing), Left::Time(Duration::ZERO, _));
                let needed = matches!(standing, Standing::Working | Standing::Staying);
                let apart = standing == Standing::Apart;
                prop_assert_eq!(is_over, !needed && (now - work >= 1800 || apart && now - contact >= 900));
                if !apart {
                    contact = now;
                }
                if needed {
                    work = now;
                }
            }
        }
    }
}
