//! What was done, over restarts: a synchronous function from state and event to the next action.
//!
//! The state is written before a step is begun and after it ended, so that a machine that stops in between knows of it. Our
//! own steps can be done twice and are; an operator's script cannot be known to, and is not. A restart is counted before it is asked for.

use machine::firstboot::{StepReport, StepResult};
use serde::{Deserialize, Serialize};

use crate::steps::{Phase, Step};
use crate::{Error, ErrorKind, Result};

/// Largest state, in bytes.
pub const STATE_BYTES_MAX: usize = 4 << 20;
/// How often a step of our own is begun before it counts as failed.
pub const ATTEMPTS_MAX: u32 = 3;
/// Longest word about a step, in characters.
const DETAIL_MAX: usize = 300;

/// What was done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps that ended, in the order of the plan.
    pub ended: Vec<StepReport>,
    /// How often the step that comes next was begun.
    pub attempts: u32,
    /// Whether a step asked for a restart that was not made yet.
    pub restart_wanted: bool,
    /// Restarts that were asked for.
    pub reboots: u32,
    /// Whether the report was written.
    pub reported: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The program was started, at whichever start of the machine.
    Started,
    /// The step that was run ended.
    Ended {
        /// How.
        result: StepResult,
        /// One line about it.
        detail: String,
        /// Whether the machine must be restarted for it.
        restart: bool,
    },
    /// The report was written, or could not be.
    Reported,
}

/// What to do next, after the state was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the step at this place.
    Run(usize),
    /// Restart the machine.
    Restart,
    /// Write the report.
    Report,
    /// Take away program, service and keys.
    Remove,
}

impl Progress {
    /// The state in `bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |text: String| Error::new(ErrorKind::Malformed, format!("state: {text}"));
        if bytes.len() > STATE_BYTES_MAX {
            return Err(wrong(format!("expected at most {STATE_BYTES_MAX} bytes, found {}", bytes.len())));
        }
        serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))
    }

    /// What `event` leads to, of `steps` with at most `reboots_max` restarts.
    pub fn on(&mut self, event: Event, steps: &[Step], reboots_max: u32) -> Action {
        match event {
            Event::Started => self.give_up_what_cannot_be_repeated(steps),
            Event::Ended { result, detail, restart } => {
                self.end(steps, result, detail);
                self.restart_wanted |= restart;
            }
            Event::Reported => self.reported = true,
        }
        self.next(steps, reboots_max)
    }

    /// A step that was begun and did not end before the program did.
    fn give_up_what_cannot_be_repeated(&mut self, steps: &[Step]) {
        let Some(step) = steps.get(self.ended.len()) else { return };
        let most = if step.can_be_repeated() { ATTEMPTS_MAX } else { 1 };
        if self.attempts >= most {
            let detail = format!("the machine or the program stopped while it ran, {} times", self.attempts);
            self.end(steps, StepResult::Failed, detail);
        }
    }

    fn end(&mut self, steps: &[Step], result: StepResult, detail: String) {
        if let Some(step) = steps.get(self.ended.len()) {
            let detail = detail.chars().take(DETAIL_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
            self.ended.push(StepReport { step: step.name(), result, detail });
        }
        self.attempts = 0;
    }

    fn next(&mut self, steps: &[Step], reboots_max: u32) -> Action {
        let step = steps.get(self.ended.len());
        let phase_before = self.ended.len().checked_sub(1).and_then(|last| steps.get(last)).map(Step::phase);
        let phase_ends = step.is_none_or(|step| Some(step.phase()) != phase_before || step.phase() == Phase::Scripts);
        if self.restart_wanted && phase_ends {
            self.restart_wanted = false;
            if self.reboots < reboots_max {
                self.reboots += 1;
                return Action::Restart;
            }
        }
        match step {
            Some(_) => {
                self.attempts += 1;
                Action::Run(self.ended.len())
            }
            None if !self.reported => Action::Report,
            None => Action::Remove,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::firstboot::{Script, StagedDriver};
    use proptest::prelude::*;

    fn steps(drivers: usize, scripts: usize) -> Vec<Step> {
        let drivers = (0..drivers).map(|n| Step::Driver(StagedDriver { inf: format!("{n}.inf") }));
        let scripts = (0..scripts).map(|n| Step::Script(Script { file: format!("{n}.cmd"), timeout_s: 1 }));
        drivers.chain(scripts).collect()
    }

    fn done(restart: bool) -> Event {
        Event::Ended { result: StepResult::Done, detail: String::new(), restart }
    }

    #[test]
    fn a_driver_that_asks_restarts_the_machine_behind_the_last_driver() {
        let (steps, mut progress) = (steps(2, 1), Progress::default());
        let mut on = |event| progress.on(event, &steps, 3);
        assert_eq!(on(Event::Started), Action::Run(0));
        assert_eq!(on(done(true)), Action::Run(1));
        assert_eq!(on(done(false)), Action::Restart);
        assert_eq!(on(Event::Started), Action::Run(2));
        assert_eq!(on(done(false)), Action::Report);
        assert_eq!(on(Event::Reported), Action::Remove);
        assert_eq!(progress.reboots, 1);
    }

    #[test]
    fn a_script_that_asks_restarts_the_machine_before_the_next_script() {
        let (steps, mut progress) = (steps(0, 2), Progress::default());
        let actions: Vec<Action> = [Event::Started, done(true), Event::Started, done(true), Event::Started]
            .into_iter()
            .map(|event| progress.on(event, &steps, 1))
            .collect();
        // The second restart is one too many.
        assert_eq!(actions, [Action::Run(0), Action::Restart, Action::Run(1), Action::Report, Action::Report]);
    }

    #[test]
    fn a_script_is_never_begun_twice_and_a_driver_three_times() {
        let (steps, mut progress) = (steps(1, 1), Progress::default());
        let actions: Vec<Action> = (0..6).map(|_| progress.on(Event::Started, &steps, 9)).collect();
        let (driver, script) = (Action::Run(0), Action::Run(1));
        assert_eq!(actions, [driver, driver, driver, script, Action::Report, Action::Report]);
        assert!(progress.ended.iter().all(|step| step.result == StepResult::Failed), "{:?}", progress.ended);
    }

    #[test]
    fn a_machine_that_stopped_before_it_was_taken_away_does_so_at_its_next_start() {
        let mut progress = Progress { reported: true, ..Progress::default() };
        assert_eq!(progress.on(Event::Started, &[], 0), Action::Remove);
    }

    proptest! {
        /// Whatever steps answer and whenever the machine stops: it ends, each step ends once, scripts run once.
        #[test]
        fn it_ends(drivers in 0..4_usize, scripts in 0..4_usize, max in 0..4_u32, answers in proptest::collection::vec(0..4_u8, 40)) {
            let steps = steps(drivers, scripts);
            let (mut progress, mut runs, mut restarts) = (Progress::default(), vec![0; steps.len()], 0);
            let mut event = Event::Started;
            let mut answers = answers.into_iter();
            for round in 0.. {
                prop_assert!(round < 100);
                // What is written is all that is known after a restart.
                progress = Progress::parse(&serde_json::to_vec(&progress).unwrap()).unwrap();
                event = match progress.on(event, &steps, max) {
                    Action::Run(step) => {
                        runs[step] += 1;
                        match answers.next() {
                            Some(0) => Event::Started,
                            Some(1) => done(true),
                            Some(2) => Event::Ended { result: StepResult::Failed, detail: "x\n".repeat(900), restart: false },
                            _ => done(false),
                        }
                    }
                    Action::Restart => {
                        restarts += 1;
                        Event::Started
                    }
                    Action::Report => Event::Reported,
                    Action::Remove => break,
                };
            }
            prop_assert!(restarts <= max && progress.reboots == restarts);
            prop_assert_eq!(progress.ended.len(), steps.len());
            prop_assert!(runs[..drivers].iter().all(|runs| (1..=ATTEMPTS_MAX).contains(runs)), "{:?}", runs);
            prop_assert!(runs[drivers..].iter().all(|runs| *runs == 1), "{:?}", runs);
            prop_assert!(progress.ended.iter().all(|step| step.detail.len() <= DETAIL_MAX && !step.detail.contains('\n')));
        }

        #[test]
        fn any_state_comes_to_its_end(ended in 0..5_usize, attempts: u32, wanted: bool, reboots: u32, reported: bool) {
            let ended = vec![StepReport::default(); ended];
            let mut progress = Progress { ended, attempts, restart_wanted: wanted, reboots, reported };
            let steps = steps(2, 1);
            let mut event = Event::Started;
            let actions: Vec<Action> = std::iter::repeat_with(|| {
                let action = progress.on(event.clone(), &steps, 2);
                event = if action == Action::Report { Event::Reported } else { Event::Started };
                action
            })
            .take(20)
            .collect();
            prop_assert_eq!(actions.last(), Some(&Action::Remove));
            prop_assert!(actions.iter().filter(|action| **action == Action::Restart).count() <= 2);
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Progress::parse(&bytes);
        }
    }
}
