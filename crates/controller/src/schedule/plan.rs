//! What is to be run next: a schedule and what happened so far.
//!
//! A task that syncs has one initial step, and syncs after it, each of which has a *slot*: the moment for which it was
//! planned. A conversion is an initial step and nothing more. These are the rules:
//!
//! - The next slot is fixed when a run begins, and kept. A changed interval counts from that slot on.
//! - Slots that passed while nobody looked (the controller was not running, the clock was set forward, the window was closed,
//!   an earlier run took longer) are made up for by one run.
//! - When the clock was set back by less than three hours, slots that were run already are not run again; by more, the
//!   clock was wrong before, and slots are counted from what it says now. (So does cron of Debian, for the same reasons.)

use serde::{Deserialize, Serialize};

use super::grid::Grid;
use super::window::open_from;
use super::{Schedule, StartAt, Zone};
use crate::Timestamp;

/// A clock that was set back by less than this does not repeat what was run.
const SET_BACK_MAX_MS: u64 = 3 * 60 * 60 * 1000;
/// Slots that were run lately and are remembered; intervals are a minute at least.
const DONE_MAX: usize = 200;
/// What begins later than this after it could have begun was missed.
const LATE_MS: u64 = 60_000;

/// A schedule and what happened so far. Kept as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    schedule: Schedule,
    /// Whether syncs follow the initial step.
    syncs: bool,
    created_at: Timestamp,
    /// Whether the initial step was begun.
    initial_begun: bool,
    /// What runs.
    underway: Option<Step>,
    /// An operator asked for a run that waits for nothing.
    asked: bool,
    /// Whether what runs was asked for so.
    was_asked: bool,
    /// The slots of syncs; `None` while there is no interval.
    grid: Option<Grid>,
    /// The slot of the next sync.
    next: Option<Timestamp>,
    /// When the clock was looked at last to fix what is next.
    fixed_at: Timestamp,
    /// Slots that were run lately, in no order.
    done: Vec<Timestamp>,
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The first one, which a task has once.
    Initial,
    /// What follows.
    Sync,
}

/// What there is to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// To begin this.
    Run(Run),
    /// Nothing before then.
    Later(Timestamp),
    /// To wait for the end of what runs.
    Underway,
    /// Nothing more.
    Never,
}

/// A run that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it does.
    pub step: Step,
    /// For when it was planned; `None` where an operator asked for it to be now.
    pub slot: Option<Timestamp>,
    /// Whether it could have begun earlier and nobody looked then: the controller was not running, or its clock was set.
    pub missed: bool,
    /// Later slots that passed too and get no run of their own.
    pub passed_over: u64,
}

impl Plan {
    /// Nothing happened yet.
    pub fn new(schedule: Schedule, syncs: bool, now: Timestamp) -> Self {
        Self {
            schedule,
            syncs,
            created_at: now,
            initial_begun: false,
            underway: None,
            asked: false,
            was_asked: false,
            grid: None,
            next: None,
            fixed_at: now,
            done: Vec::new(),
        }
    }

    /// The schedule as it was set last.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Whether the initial step was begun.
    pub fn initial_begun(&self) -> bool {
        self.initial_begun
    }

    /// What there is to do. The plan is changed, and is to be kept then, where the clock was set back.
    pub fn look(&mut self, now: Timestamp) -> Look {
        if self.underway.is_some() {
            return Look::Underway;
        }
        self.follow_clock(now);
        let step = if self.initial_begun { Step::Sync } else { Step::Initial };
        if step == Step::Sync && !self.syncs {
            return Look::Never;
        }
        if self.asked {
            return Look::Run(Run { step, slot: None, missed: false, passed_over: 0 });
        }
        let slot = match step {
            Step::Initial => Some(self.schedule.start_at.as_ref().map_or(self.created_at, StartAt::instant)),
            Step::Sync => self.next,
        };
        let Some(slot) = slot else { return Look::Never };
        // A clock that was set back over the task's making delays no task that waits for nothing.
        let slot_is_now = step == Step::Initial && self.schedule.start_at.is_none();
        let wanted = if slot_is_now { now } else { slot.max(now) };
        match open_from(&self.schedule.windows, wanted) {
            Some(open) if open <= now => Look::Run(self.due(step, slot, now)),
            Some(open) => Look::Later(open),
            None => Look::Never,
        }
    }

    fn due(&self, step: Step, slot: Timestamp, now: Timestamp) -> Run {
        // An earlier run, or the schedule's making, was in its way until then.
        let free = slot.max(self.fixed_at).min(now);
        let could = open_from(&self.schedule.windows, free).unwrap_or(now);
        let grid = match step {
            Step::Initial => self.first_grid(),
            Step::Sync => self.grid_from(slot),
        };
        let passed_over = grid.and_then(|grid| Some(grid.until(now)?.0 - grid.until(slot)?.0)).unwrap_or(0);
        let passed_over = u64::try_from(passed_over).unwrap_or(0);
        Run { step, slot: Some(slot), missed: now.millis_since(could) > LATE_MS, passed_over }
    }

    /// What was found to be due is begun. To be kept before it is.
    pub fn begin(&mut self, run: &Run, now: Timestamp) {
        self.underway = Some(run.step);
        self.was_asked = std::mem::take(&mut self.asked);
        self.fixed_at = now;
        match run.step {
            Step::Initial => {
                self.initial_begun = true;
                self.next = None;
                self.grid = self.first_grid();
                if let Some(start_at) = self.schedule.start_at.clone().filter(|_| self.syncs) {
                    match start_at.instant() > now {
                        true => self.next = Some(start_at.instant()),
                        false => {
                            self.remember(start_at.instant());
                            self.fix_next(now);
                        }
                    }
                }
            }
            Step::Sync => {
                // Without a slot it is one between others, which stay.
                let Some(slot) = run.slot else { return };
                self.grid = self.grid_from(slot);
                self.remember(slot);
                self.next = None;
                self.fix_next(now);
            }
        }
    }

    /// What ran is over.
    pub fn end(&mut self, now: Timestamp) {
        let ended = self.underway.take();
        self.fixed_at = now;
        if ended == Some(Step::Initial) && self.syncs && self.grid.is_none() && self.next.is_none() {
            // Without a time to start at, syncs are counted from the end of the initial step.
            self.count_from(now);
        }
    }

    /// What ran failed, or was ended. An initial step is due again.
    pub fn fail(&mut self, now: Timestamp) {
        let failed = self.underway.take();
        self.fixed_at = now;
        if failed == Some(Step::Initial) {
            // What was asked for to be now is not to wait for its schedule the second time.
            let asked = self.was_asked;
            *self = Self { asked, ..Self::new(self.schedule.clone(), self.syncs, now) };
        }
    }

    /// An operator asks for a run now, whatever the schedule says. What is planned stays planned.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// An operator sets another schedule.
    pub fn change(&mut self, schedule: Schedule, now: Timestamp) {
        let earlier = std::mem::replace(&mut self.schedule, schedule);
        self.asked = false;
        if !self.initial_begun {
            self.created_at = now;
            self.fixed_at = now;
            return;
        }
        if !self.syncs {
            return;
        }
        let start_at = self.schedule.start_at.clone();
        match start_at.filter(|at| earlier.start_at.as_ref() != Some(at) && at.instant() > now) {
            Some(start_at) => {
                self.grid = self.schedule.every.map(|every| Grid::new(&start_at, every));
                self.next = Some(start_at.instant());
                self.fixed_at = now;
            }
            // What is fixed stays; only where nothing is, the new interval is counted from here.
            None if self.next.is_none() && self.underway != Some(Step::Initial) => {
                self.fixed_at = now;
                self.count_from(now);
            }
            None => {}
        }
    }

    /// The slots of a schedule that was not begun.
    fn first_grid(&self) -> Option<Grid> {
        let start_at = self.schedule.start_at.as_ref().filter(|_| self.syncs)?;
        self.schedule.every.map(|every| Grid::new(start_at, every))
    }

    /// The grid with the interval that the schedule has by now, which counts from `slot` on.
    fn grid_from(&self, slot: Timestamp) -> Option<Grid> {
        let every = self.schedule.every?;
        match &self.grid {
            Some(grid) if grid.every() == every => Some(grid.clone()),
            Some(grid) => grid.with(every, slot),
            None => Grid::through(slot, &self.zone(), every),
        }
    }

    fn zone(&self) -> Zone {
        let start_at = self.schedule.start_at.as_ref().map(|at| &at.zone);
        start_at.or(self.schedule.windows.first().map(|window| window.zone())).cloned().unwrap_or(Zone::UTC)
    }

    fn count_from(&mut self, now: Timestamp) {
        self.grid = self.schedule.every.and_then(|every| Grid::through(now, &self.zone(), every));
        self.fix_next(now);
    }

    /// The next slot after `after` that was not run.
    fn fix_next(&mut self, after: Timestamp) {
        let Some(grid) = &self.grid else { return };
        let mut next = grid.after(after);
        for _ in 0..self.done.len() {
            match next {
                Some((_, slot)) if self.done.contains(&slot) => next = grid.after(slot),
                _ => break,
            }
        }
        self.next = next.map(|(_, slot)| slot);
    }

    fn remember(&mut self, slot: Timestamp) {
        self.done.retain(|done| slot.millis_since(*done) <= SET_BACK_MAX_MS && *done != slot);
        if self.done.len() >= DONE_MAX {
            self.done.remove(0);
        }
        self.done.push(slot);
    }

    /// Fixes the next slot anew where the clock was set back over the moment at which it was fixed.
    fn follow_clock(&mut self, now: Timestamp) {
        let back = self.fixed_at.millis_since(now);
        if back == 0 {
            return;
        }
        self.fixed_at = now;
        if back >= SET_BACK_MAX_MS {
            self.done.clear();
        }
        if self.next.is_none() || self.grid.is_none() {
            return;
        }
        // What the operator said to start at is not begun before that.
        let start_at = self.schedule.start_at.as_ref().map(StartAt::instant).filter(|at| *at > now);
        self.fix_next(start_at.map_or(now, |at| Timestamp(at.0 - 1)));
    }
}
