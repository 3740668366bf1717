//! Tasks at work: begun when their time has come and there is room, each in a thread and under a lease.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conversion::{Event, Observer, Source, Step};
use protocol::message::ControllerMessage;

use super::back_by::Deadline;
use super::{Run, Tasks, lock};
use crate::progress::Progress;
use crate::rcc::{AtEnd, Rcc};
use crate::schedule::{BackBy, Look, Plan, Run as DueRun};
use crate::store::{End, Lease, LogLevel, TaskRecord, TaskState};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Pause between two writes of a task's progress into the store.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// Longest pause between two looks at the clock while tasks are scheduled: it can be set in between.
const CLOCK_INTERVAL: Duration = Duration::from_secs(20);
/// Pause between two looks whether the machine of a task that is due is there.
const ABSENT_INTERVAL: Duration = Duration::from_secs(2);
/// Pause between two looks at which rate the hour has.
const RATE_INTERVAL: Duration = Duration::from_secs(5);

impl Tasks {
    /// Starts tasks when their time has come, until the controller is stopped.
    pub(super) fn follow_clock(&self) {
        let mut running = self.running();
        let mut failed = false;
        while !running.stopping {
            let now = Timestamp::now();
            running = match running.alarm {
                None => self.0.alarm_set.wait(running).unwrap_or_else(PoisonError::into_inner),
                Some(at) if at > now || failed => {
                    let left = Duration::from_millis(at.millis_since(now));
                    let pause = if failed { CLOCK_INTERVAL } else { left.min(CLOCK_INTERVAL) };
                    self.0.alarm_set.wait_timeout(running, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => running,
            };
            if running.stopping {
                return;
            }
            drop(running);
            let filled = self.fill();
            failed = filled.is_err();
            if let Err(error) = filled {
                tracing::error!("scheduled tasks cannot be started: {}", error.chain());
            }
            running = self.running();
        }
    }

    /// Starts what waits, as far as its time has come and there is room.
    pub(super) fn fill(&self) -> Result<()> {
        let limits = self.0.store.limits()?;
        let mut running = self.running();
        let mut alarm: Option<Timestamp> = None;
        for task in self.0.store.unfinished_tasks()? {
            if running.stopping {
                break;
            }
            if running.tasks.contains_key(&task.id) {
                continue;
            }
            let plan = match self.due(&task) {
                Ok(Due::Now(plan)) => plan,
                Ok(Due::Later(at)) => {
                    alarm = Some(alarm.map_or(at, |alarm| alarm.min(at)));
                    continue;
                }
                // One that cannot be understood is not in the way of the others.
                Err(error) => {
                    self.0.store.task_cannot_begin(&task.id, &error.chain())?;
                    continue;
                }
            };
            if running.tasks.len() >= limits.running as usize {
                continue;
            }
            // One that was begun before waits for its machine where it is; no other takes a place from those that can work.
            if task.state == TaskState::Queued && !is_away(&task) && self.0.sessions.kind_of(&task.machine).is_none() {
                let look = Timestamp::now().after(ABSENT_INTERVAL);
                alarm = Some(alarm.map_or(look, |alarm| alarm.min(look)));
                if running.absent.insert(task.id.clone()) {
                    let said = format!("{} is not connected: the task begins when it is", task.machine);
                    self.0.store.log_task(&task.id, LogLevel::Warning, &said)?;
                }
                continue;
            }
            running.absent.remove(&task.id);
            let steps = steps_of(&task);
            let Some(lease) = self.0.store.begin_task(&task.id, plan.as_deref(), &steps, self.0.lease)? else {
                continue;
            };
            let (tasks, run) = (self.clone(), Run::new(lease, self.0.bandwidth.task(task.bytes_per_second)));
            running.tasks.insert(task.id.clone(), run.clone());
            let (name, id) = (task.id.clone(), task.id.clone());
            let ours = run.clone();
            if let Err(e) = std::thread::Builder::new().name(name).spawn(move || tasks.run(&task, &ours)) {
                let error = Error::with(ErrorKind::Io, "no thread can be started for the task", e).chain();
                self.0.store.end_task(&run.lease, &End::Failed(&error))?;
                running.tasks.remove(&id);
            }
        }
        if running.alarm != alarm {
            running.alarm = alarm;
            self.0.alarm_set.notify_all();
        }
        Ok(())
    }

    /// Whether the time of a task has come. What changes of that is kept, and said in its log.
    fn due(&self, task: &TaskRecord) -> Result<Due> {
        let before = match task.state {
            // It was begun: no time is waited for again.
            TaskState::Running => None,
            _ => task.plan()?,
        };
        let Some(mut plan) = before.clone() else { return Ok(Due::Now(None)) };
        let now = Timestamp::now();
        match plan.look(now) {
            Look::Run(run) => {
                // Afterwards it is only room that it waits for.
                if task.due_at.is_some() {
                    self.0.store.set_due(&task.id, &plan, None, (level(&run), &describe(&run)))?;
                }
                plan.begin(&run, now);
                Ok(Due::Now(Some(Box::new(plan))))
            }
            Look::Later(at) => {
                if task.due_at != Some(at) || before.as_ref() != Some(&plan) {
                    let passed = task
                        .due_at
                        .filter(|due| *due <= now)
                        .map(|due| format!("it could have begun at {due}, when the controller was not running; "));
                    let level = if passed.is_some() { LogLevel::Warning } else { LogLevel::Info };
                    let text = format!("{}scheduled: begins at {at}", passed.unwrap_or_default());
                    self.0.store.set_due(&task.id, &plan, Some(at), (level, &text))?;
                }
                Ok(Due::Later(at))
            }
            // A plan of a task that is not over always has something left.
            Look::Underway | Look::Never => Err(Error::new(
                ErrorKind::Storage,
                format!("the schedule of task {} is over, the task is not", task.id),
            )),
        }
    }

    /// A task's thread, from begin to end.
    fn run(&self, task: &TaskRecord, run: &Run) {
        let converted = catch_unwind(AssertUnwindSafe(|| self.convert(task, run)))
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Conversion, "the conversion broke down: see the log")));
        if let Err(error) = self.end(task, run, converted) {
            // Its lease ends, and it is taken up again.
            tracing::error!(task = %task.id, "the end of the task cannot be written: {}", error.chain());
        }
        self.running().tasks.remove(&task.id);
        self.0.ended.notify_all();
        if let Err(error) = self.fill() {
            tracing::error!("waiting tasks cannot be started: {}", error.chain());
        }
    }

    fn convert(&self, task: &TaskRecord, run: &Run) -> Result<serde_json::Value> {
        let request = task.request()?;
        let rcc = task.rcc()?;
        lock(&run.returning).back_by = task.back_by()?;
        lock(&run.returning).rcc.clone_from(&rcc);
        if let Some(rcc) = &rcc {
            let (cancel, pause) = self.0.store.wanted_of(&task.id)?;
            if cancel || pause {
                run.cancel.cancel();
            }
            self.bring_into_boot_image(task, run, rcc)?;
        }
        let machine = self.0.sessions.connected_machine(&task.machine, &task.id, run.bandwidth.clone())?;
        let known = conversion::RemoteMachine::machine(&machine);
        self.check_before_copy(run, &known, &request)?;
        lock(&run.returning).begin_reading(conversion::preflight(&known, &request).bytes.0, Timestamp::now());
        let recorder = Recorder { tasks: self, task, run, written: Mutex::default() };
        // What was asked for before the thread was there.
        let (cancel, pause) = self.0.store.wanted_of(&task.id)?;
        if cancel || pause {
            run.cancel.cancel();
        }
        let source = Source::Remote(Arc::new(machine));
        let convert = || {
            self.0.converter.convert(source, &request, &recorder, &run.cancel).map_err(|e| {
                let kind = match e.kind {
                    conversion::ErrorKind::Cancelled => ErrorKind::Cancelled,
                    _ => ErrorKind::Conversion,
                };
                Error { source: e.source, ..Error::new(kind, e.context) }
            })
        };
        match &rcc {
            None => convert(),
            Some(rcc) => self.convert_and_see_back(task, run, rcc, convert),
        }
    }

    /// Converts a machine that was restarted into the boot image for it, and does not end before it is back.
    fn convert_and_see_back(
        &self,
        task: &TaskRecord,
        run: &Run,
        rcc: &Rcc,
        convert: impl FnOnce() -> Result<serde_json::Value>,
    ) -> Result<serde_json::Value> {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| self.watch_return(task, run, rcc, &is_over));
            let converted = catch_unwind(AssertUnwindSafe(convert))
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Conversion, "the conversion broke down: see the log")));
            if converted.is_ok() && !self.0.store.step_begins(&run.lease, Step::Return)? {
                run.lose();
            }
            is_over.store(true, Ordering::Release);
            match watching.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(task = %task.id, "{}", error.chain()),
                Err(_) => tracing::error!(task = %task.id, "watching for the machine's return broke down"),
            }
            converted
        })
    }

    fn end(&self, task: &TaskRecord, run: &Run, converted: Result<serde_json::Value>) -> Result<()> {
        let (outcome, failure);
        let missed = lock(&run.returning).missed.clone();
        let converted = match (converted, missed) {
            (Err(error), Some(why)) if error.kind == ErrorKind::Cancelled => {
                let context = format!(
                    "stopped, and the machine is given back: {why}; what is copied is kept: when the machine is in the boot image again, `vconverter tasks retry {}` goes on",
                    task.id
                );
                Err(Error::new(ErrorKind::Conversion, context))
            }
            (converted, _) => converted,
        };
        let (end, told) = match converted {
            Ok(value) => {
                outcome = value.to_string();
                (End::Done(&outcome), Some(ControllerMessage::Finish { text: format!("{} is converted", task.name) }))
            }
            Err(error) if error.kind == ErrorKind::Cancelled => {
                let show = |what: &str| Some(ControllerMessage::Show { text: format!("{} {what}", task.name) });
                match self.0.store.wanted_of(&task.id)? {
                    (true, _) => (End::Cancelled, show("was cancelled")),
                    (false, true) => (End::Paused, show("is paused")),
                    (false, false) if self.running().stopping => (End::Interrupted, None),
                    // A pause that was taken back before it was one.
                    (false, false) => (End::Paused, None),
                }
            }
            Err(error) => {
                failure = error.chain();
                let text = format!("{} failed; see the controller", task.name);
                (End::Failed(&failure), Some(ControllerMessage::Show { text }))
            }
        };
        if run.is_lost() || !self.0.store.end_task(&run.lease, &end)? {
            tracing::warn!(task = %task.id, "its end was not written: the lease is lost");
            return Ok(());
        }
        tracing::info!(task = %task.id, name = %task.name, how = end.as_str(), "task ended");
        if let Some(told) = told {
            self.0.sessions.tell(&task.machine, &told);
        }
        // Nobody is there to do it, whatever the end.
        match end {
            End::Interrupted => Ok(()),
            _ if run.rcc().is_some() => {
                self.0.store.revoke_tokens_of(&task.id)?;
                let rcc = run.rcc().unwrap_or_default();
                let at_end = if matches!(end, End::Done(_)) { rcc.at_end } else { AtEnd::Restart };
                self.release(run, &task.machine, &task.name, &Rcc { at_end, ..rcc })
            }
            End::Done(_) | End::Failed(_) if run.must_return() => self.give_back(run, &task.machine, &task.name),
            _ => Ok(()),
        }
    }

    /// Renews the leases of what runs and keeps to the rates of the hour, until the controller is stopped and nothing runs
    /// any more. What was lost is taken up again, if nobody else has.
    pub(super) fn keep_leases(&self) {
        let mut running = self.running();
        while !(running.stopping && running.tasks.is_empty()) {
            running = self
                .0
                .ended
                .wait_timeout(running, (self.0.lease / 3).min(RATE_INTERVAL))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            let runs: Vec<Run> = running.tasks.values().cloned().collect();
            drop(running);
            let leases: Vec<Lease> = runs.iter().map(|run| run.lease.clone()).collect();
            match self.0.store.renew(&leases, self.0.lease) {
                // A run that has just ended has no lease either.
                Ok(lost) => runs.iter().filter(|run| lost.contains(&&run.lease)).for_each(|run| self.lose(run)),
                Err(error) => tracing::error!("leases cannot be renewed: {}", error.chain()),
            }
            self.keep_deadlines(&runs, Timestamp::now());
            match self.0.store.limits() {
                Ok(limits) => self.0.bandwidth.set(limits.rate(Timestamp::now())),
                Err(error) => tracing::error!("{}", error.chain()),
            }
            if let Err(error) = self.take_over() {
                tracing::error!("tasks that nobody works on cannot be taken up: {}", error.chain());
            }
            running = self.running();
        }
    }

    /// Takes up what nobody works on any more.
    fn take_over(&self) -> Result<()> {
        let abandoned = self.0.store.abandoned_tasks()?;
        let ours = self.running_ids();
        if abandoned.iter().any(|task| !ours.contains(&task.id)) {
            self.fill()?;
        }
        Ok(())
    }

    fn lose(&self, run: &Run) {
        if self.running().tasks.get(&run.lease.task).is_some_and(|now| now.lease == run.lease) {
            run.lose();
        }
    }
}

/// Whether its machine is on its way into the boot image, or back.
fn is_away(task: &TaskRecord) -> bool {
    task.course().is_ok_and(|course| course.is_away())
}

/// The steps that a task has. What cannot be read has none, and fails when it is begun.
fn steps_of(task: &TaskRecord) -> Vec<Step> {
    let verify = task.request().is_ok_and(|request| request.verify);
    let restarts = task.rcc.is_some();
    let is_wanted = |step: &Step| match step {
        Step::Verify => verify,
        Step::Reboot | Step::Return => restarts,
        _ => true,
    };
    Step::ALL.into_iter().filter(is_wanted).collect()
}

/// A machine that must be back in its own system.
#[derive(Default)]
pub(super) struct Returning {
    /// By when, as it was said last.
    back_by: Option<BackBy>,
    /// While its disks are copied: what is to be read in all, in bytes.
    reading: Option<u64>,
    /// While its disks are copied, and it must be back.
    deadline: Option<Deadline>,
    /// Why it would not be back in time; the copy was stopped for that.
    missed: Option<String>,
    is_given_back: bool,
    /// How the machine was restarted into the boot image for this.
    rcc: Option<Rcc>,
}

impl Returning {
    fn begin_reading(&mut self, bytes: u64, now: Timestamp) {
        self.reading = Some(bytes);
        let by = self.back_by.as_ref().and_then(|back_by| back_by.next(now));
        self.deadline = by.map(|by| Deadline::new(by, bytes));
    }

    /// Nothing more is copied: the deadline is met. Whether there was one.
    fn done_with_source(&mut self) -> bool {
        self.reading = None;
        self.deadline.take().is_some()
    }
}

impl Run {
    /// Another time by which the machine must be back, or none.
    pub(super) fn set_back_by(&self, back_by: Option<BackBy>, now: Timestamp) {
        let mut returning = lock(&self.returning);
        returning.back_by = back_by;
        if let Some(bytes) = returning.reading {
            returning.begin_reading(bytes, now);
        }
    }

    pub(super) fn rcc(&self) -> Option<Rcc> {
        lock(&self.returning).rcc.clone()
    }

    fn must_return(&self) -> bool {
        lock(&self.returning).back_by.is_some()
    }

    /// Whether the machine would not be back in time, which is told once.
    pub(super) fn missed(&self, progress: &Progress, now: Timestamp) -> Option<String> {
        let mut returning = lock(&self.returning);
        let why = returning.deadline.as_mut()?.look(progress, now)?;
        returning.deadline = None;
        returning.missed = Some(why.clone());
        Some(why)
    }

    /// Notes that the machine is given back; whether it was before.
    pub(super) fn was_given_back(&self) -> bool {
        std::mem::replace(&mut lock(&self.returning).is_given_back, true)
    }
}

/// Whether the time of a task has come.
enum Due {
    /// It has; with its plan as it is once the task was begun.
    Now(Option<Box<Plan>>),
    /// Not before then.
    Later(Timestamp),
}

/// What the log says of a task whose time has come.
fn describe(run: &DueRun) -> String {
    match (run.slot, run.missed) {
        (None, _) => "begun by an operator, whatever its schedule says".into(),
        (Some(_), false) => "its time has come".into(),
        (Some(slot), true) => format!(
            "it was to begin at {slot}, when the controller was not running, or its clock was set since: begun now, once"
        ),
    }
}

fn level(run: &DueRun) -> LogLevel {
    if run.missed { LogLevel::Warning } else { LogLevel::Info }
}

/// Writes down what a conversion tells.
struct Recorder<'a> {
    tasks: &'a Tasks,
    task: &'a TaskRecord,
    run: &'a Run,
    /// When progress was written last.
    written: Mutex<Option<Instant>>,
}

impl Observer for Recorder<'_> {
    fn event(&self, event: Event) {
        let (now, lease, store) = (Instant::now(), &self.run.lease, &self.tasks.0.store);
        lock(&self.run.meter).event(&event, now);
        if self.run.is_lost() {
            return;
        }
        let kept = match &event {
            Event::Step { step } => {
                tracing::info!(task = %lease.task, %step, "step");
                let begins = store.step_begins(lease, *step);
                // From here on nothing of the machine is needed any more.
                if *step == Step::FixUp {
                    let must_return = lock(&self.run.returning).done_with_source();
                    let (machine, name) = (&self.task.machine, &self.task.name);
                    let ended = match self.run.rcc() {
                        Some(rcc) => self.tasks.release(self.run, machine, name, &rcc),
                        None if must_return => self.tasks.give_back(self.run, machine, name),
                        None => Ok(()),
                    };
                    if let Err(error) = ended {
                        tracing::error!(task = %lease.task, "{}", error.chain());
                    }
                }
                begins
            }
            Event::Progress { .. } => self.write_progress(now),
            Event::Log { message } => store.task_says(lease, LogLevel::Info, message),
            Event::Warning { message } => store.task_says(lease, LogLevel::Warning, message),
        };
        match kept {
            Ok(true) => {}
            Ok(false) => self.run.lose(),
            // A log that cannot be written does not end a conversion that works.
            Err(error) => tracing::error!(task = %lease.task, "{}", error.chain()),
        }
    }
}

impl Recorder<'_> {
    fn write_progress(&self, now: Instant) -> Result<bool> {
        let mut written = lock(&self.written);
        if written.is_some_and(|at| now.saturating_duration_since(at) < PROGRESS_INTERVAL) {
            return Ok(true);
        }
        *written = Some(now);
        let progress = lock(&self.run.meter).progress(now);
        self.tasks.0.store.task_progress(&self.run.lease, progress.done, progress.total)
    }
}
