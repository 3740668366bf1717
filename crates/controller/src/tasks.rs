//! Tasks: conversions that are kept, run, resumed after a crash, and cancelled.
//!
//! A task that was running when the controller died is begun again with the same request; the working folder beside its
//! result says what is done already, so it goes on where it was.
//!
//! One with a schedule is begun at its time. Whenever tasks are started, each is asked when that is ([`Plan::look`]), and a
//! thread wakes up at the earliest of these moments; the clock is looked at often, since it can be set meanwhile.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conversion::{Cancel, Event, Observer, Request, Source};
use protocol::message::{AgentKind, ControllerMessage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::progress::{Meter, Progress};
use crate::schedule::{Look, Plan, Run as DueRun, Schedule, WINDOWS_MAX};
use crate::sessions::Sessions;
use crate::store::{LogLevel, NewTask, Store, TaskRecord, TaskState};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Tasks that run at the same time; the others wait in the order in which they were asked for.
const RUNNING_MAX: usize = 4;
/// Pause between two writes of a task's progress into the store.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// Longest pause between two looks at the clock while tasks are scheduled: it can be set in between.
const CLOCK_INTERVAL: Duration = Duration::from_secs(20);
/// How long a stop waits for tasks to come to a safe point. What is durable stays anyway.
const STOP_WAIT: Duration = Duration::from_secs(20);

/// What makes a VM out of a source: `conversion`, or a test's own.
pub trait Converter: Send + Sync {
    /// Converts, and returns what came out of it as JSON.
    ///
    /// # Errors
    /// Those of `conversion`.
    fn convert(
        &self,
        source: Source,
        request: &Request,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> conversion::Result<serde_json::Value>;
}

/// A conversion that is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Id of the machine.
    pub machine: String,
    /// What is to be made of it.
    pub request: Request,
    /// Where the machine is not Cold Cloning Ready: to wait until it is, and for an operator's yes then.
    pub wait: bool,
    /// When it is to be begun, where that is not as soon as there is room.
    pub schedule: Option<Schedule>,
}

/// Tasks of one kind that were asked for together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `b-` and eight hexadecimal digits.
    pub id: String,
    /// Of what kind.
    pub kind: BatchKind,
    /// Their ids.
    pub tasks: Vec<String>,
}

/// How the machines of a batch are converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BatchKind {
    /// In the boot image, now or when they are there.
    ColdCloningReady,
    /// While their own system runs.
    Live,
}

/// A wish that can be fulfilled.
struct Checked {
    name: String,
    machine: String,
    output: String,
    json: String,
    waits: bool,
    is_cold: bool,
    plan: Option<Plan>,
}

impl Checked {
    fn as_new(&self) -> NewTask<'_> {
        NewTask {
            name: &self.name,
            machine: &self.machine,
            output: &self.output,
            request: &self.json,
            waits: self.waits,
            plan: self.plan.as_ref(),
        }
    }
}

/// The tasks of a controller; clones share them.
#[derive(Clone)]
pub struct Tasks(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    sessions: Sessions,
    converter: Arc<dyn Converter>,
    running: Mutex<Running>,
    /// Goes with `running`: a task ended.
    ended: Condvar,
    /// Goes with `running`: the next look at the clock is at another time.
    alarm_set: Condvar,
}

#[derive(Default)]
struct Running {
    tasks: HashMap<String, Run>,
    stopping: bool,
    /// When the earliest of the scheduled tasks is due.
    alarm: Option<Timestamp>,
}

#[derive(Clone, Default)]
struct Run {
    cancel: Cancel,
    meter: Arc<Mutex<Meter>>,
}

impl Tasks {
    /// None running yet.
    pub fn new(store: Arc<Store>, sessions: Sessions, converter: Arc<dyn Converter>) -> Self {
        let (ended, alarm_set) = (Condvar::new(), Condvar::new());
        Self(Arc::new(Shared { store, sessions, converter, running: Mutex::default(), ended, alarm_set }))
    }

    /// Keeps a conversion of a machine as a task and starts it as soon as there is room. Returns its id; it is on disk.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the machine, [`ErrorKind::Invalid`] for an output folder that is none and for a time
    /// that has passed,
    /// [`ErrorKind::Conflict`] for a busy name and for a machine that is not there and not waited for,
    /// [`ErrorKind::Storage`].
    pub fn create(&self, wish: &Wish, actor: &str) -> Result<String> {
        let checked = self.check(wish)?;
        let id = self.0.store.create_task(&checked.as_new(), actor)?;
        self.begin(std::slice::from_ref(&checked))?;
        Ok(id)
    }

    /// Keeps conversions of several machines, all or none: those in the boot image are one batch, and those that run their
    /// own system another.
    ///
    /// # Errors
    /// Those of [`Tasks::create`], with [`ErrorKind::Conflict`] for two of one name.
    pub fn create_batches(&self, wishes: &[Wish], actor: &str) -> Result<Vec<Batch>> {
        let checked: Vec<Checked> = wishes.iter().map(|wish| self.check(wish)).collect::<Result<_>>()?;
        let (cold, live): (Vec<&Checked>, Vec<&Checked>) = checked.iter().partition(|one| one.is_cold);
        let kinds = [(BatchKind::ColdCloningReady, cold), (BatchKind::Live, live)];
        let kinds: Vec<_> = kinds.into_iter().filter(|(_, tasks)| !tasks.is_empty()).collect();
        let new: Vec<Vec<NewTask<'_>>> =
            kinds.iter().map(|(_, tasks)| tasks.iter().map(|one| one.as_new()).collect()).collect();
        let created = self.0.store.create_batches(&new, actor)?;
        self.begin(&checked)?;
        let batch = |((kind, _), (id, tasks)): ((BatchKind, _), _)| Batch { id, kind, tasks };
        Ok(kinds.into_iter().zip(created).map(batch).collect())
    }

    /// What is wished, if it can be done.
    fn check(&self, wish: &Wish) -> Result<Checked> {
        let machine = &wish.machine;
        if self.0.store.machine(machine)?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, format!("no machine {machine}")));
        }
        let kind = self.0.sessions.kind_of(machine);
        if kind.is_none() && !wish.wait {
            let context = format!(
                "machine {machine} is not connected: start it from the boot image, or let the task wait for it (--wait)"
            );
            return Err(Error::new(ErrorKind::Conflict, context));
        }
        let plan = wish.schedule.clone().map(plan_of).transpose()?;
        let output = output_folder(&wish.request)?;
        let request = Request { output: output.clone().into(), ..wish.request.clone() };
        let json = serde_json::to_string(&request)
            .map_err(|e| Error::with(ErrorKind::Invalid, "request cannot be written as JSON", e))?;
        let is_ready = kind == Some(AgentKind::BootImage);
        Ok(Checked {
            name: request.name,
            machine: machine.clone(),
            output,
            json,
            waits: wish.wait && !is_ready,
            is_cold: is_ready || wish.wait,
            plan,
        })
    }

    /// Starts what was kept just now. A machine may have come while its task was written.
    fn begin(&self, kept: &[Checked]) -> Result<()> {
        for one in kept.iter().filter(|one| one.waits) {
            self.0.sessions.tell_waiting_tasks(&one.machine)?;
        }
        self.fill()
    }

    /// An operator says yes: the machine that this task has waited for, and that is Cold Cloning Ready now, is converted.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it does not wait for that, [`ErrorKind::Storage`].
    pub fn confirm(&self, id: &str, actor: &str) -> Result<()> {
        self.0.store.confirm_task(id, actor)?;
        self.fill()
    }

    /// Another time for a task that was not begun.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it was begun, [`ErrorKind::Invalid`] for a time that has
    /// passed, [`ErrorKind::Storage`].
    pub fn schedule(&self, id: &str, schedule: Schedule, actor: &str) -> Result<()> {
        check_schedule(&schedule)?;
        let detail = serde_json::to_string(&schedule)
            .map_err(|e| Error::with(ErrorKind::Invalid, "schedule cannot be written as JSON", e))?;
        let change = |plan: &mut Plan| plan.change(schedule, Timestamp::now());
        self.change_plan(id, change, ("task scheduled", &detail), actor)
    }

    /// An operator wants a task that was not begun to be begun now, whatever its schedule says.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it was begun, [`ErrorKind::Storage`].
    pub fn start_now(&self, id: &str, actor: &str) -> Result<()> {
        self.change_plan(id, Plan::ask, ("task asked to begin now", ""), actor)
    }

    fn change_plan(&self, id: &str, change: impl FnOnce(&mut Plan), told: (&str, &str), actor: &str) -> Result<()> {
        {
            // Nobody is between looking at the plan and beginning the task meanwhile.
            let _running = self.running();
            self.0.store.change_plan(id, change, told, actor)?;
        }
        self.fill()
    }

    /// Goes on with what was running when the last controller ended, then with what was waiting. From here on, the clock
    /// is looked at too.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`], [`ErrorKind::Io`].
    pub fn resume(&self) -> Result<()> {
        // Nobody is connected yet: who comes is found again by the tasks that wait.
        self.0.store.machine_has_left(None)?;
        for task in self.0.store.unfinished_tasks()?.iter().filter(|task| task.state == TaskState::Running) {
            if task.cancel_requested {
                self.0.store.end_task(&task.id, TaskState::Cancelled, None, None)?;
            } else {
                self.0.store.log_task(&task.id, LogLevel::Info, "the controller was started again: going on")?;
            }
        }
        self.fill()?;
        let tasks = self.clone();
        let spawned = std::thread::Builder::new().name("schedule".into()).spawn(move || tasks.follow_clock());
        spawned.map(drop).map_err(|e| Error::io("no thread for schedules", e))
    }

    /// Starts tasks when their time has come, until the controller is stopped.
    fn follow_clock(&self) {
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

    /// Ends a task at its next safe point; what is durable is kept.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is over, [`ErrorKind::Storage`].
    pub fn cancel(&self, id: &str, actor: &str) -> Result<()> {
        self.0.store.request_cancel(id, actor)?;
        if let Some(run) = self.running().tasks.get(id) {
            run.cancel.cancel();
        }
        Ok(())
    }

    /// Begins a failed or cancelled task again; it goes on from what is durable.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`], [`ErrorKind::Storage`].
    pub fn retry(&self, id: &str, actor: &str) -> Result<()> {
        let task = self.0.store.task(id)?;
        let is_ready = task.as_ref().is_some_and(|task| self.0.sessions.is_ready(&task.machine));
        self.0.store.retry_task(id, is_ready, actor)?;
        if let Some(task) = task {
            self.0.sessions.tell_waiting_tasks(&task.machine)?;
        }
        self.fill()
    }

    /// How far a task is: live where it runs, else as it was written last.
    pub fn progress(&self, task: &TaskRecord) -> Progress {
        let run = self.running().tasks.get(&task.id).cloned();
        match run {
            Some(run) => lock(&run.meter).progress(Instant::now()),
            None => Progress { done: task.done_bytes, total: task.total_bytes, ..Progress::default() },
        }
    }

    /// Ids of the tasks that run.
    pub fn running_ids(&self) -> HashSet<String> {
        self.running().tasks.keys().cloned().collect()
    }

    /// Brings running tasks to a safe point for the controller's own end. They stay running in the store, and go on with
    /// the next controller.
    pub fn stop(&self) {
        let mut running = self.running();
        running.stopping = true;
        self.0.alarm_set.notify_all();
        for run in running.tasks.values() {
            run.cancel.cancel();
        }
        let deadline = Instant::now() + STOP_WAIT;
        while !running.tasks.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                tracing::warn!("{} tasks did not come to a safe point in time", running.tasks.len());
                return;
            };
            running = self.0.ended.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Starts what waits, as far as its time has come and there is room.
    fn fill(&self) -> Result<()> {
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
                    self.0.store.end_task(&task.id, TaskState::Failed, Some(&error.chain()), None)?;
                    continue;
                }
            };
            if running.tasks.len() >= RUNNING_MAX || !self.0.store.begin_task(&task.id, plan.as_deref())? {
                continue;
            }
            let (tasks, run, id) = (self.clone(), Run::default(), task.id.clone());
            let spawned = std::thread::Builder::new().name(task.id.clone()).spawn({
                let run = run.clone();
                move || tasks.run(&task, &run)
            });
            match spawned {
                Ok(_) => drop(running.tasks.insert(id, run)),
                Err(e) => {
                    let error = Error::with(ErrorKind::Io, "no thread can be started for the task", e).chain();
                    self.0.store.end_task(&id, TaskState::Failed, Some(&error), None)?;
                }
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
        if let Err(error) = self.end(task, converted) {
            // It stays running in the store, and is begun again with the next controller.
            tracing::error!(task = %task.id, "the end of the task cannot be written: {}", error.chain());
        }
        self.running().tasks.remove(&task.id);
        self.0.ended.notify_all();
        if let Err(error) = self.fill() {
            tracing::error!("waiting tasks cannot be started: {}", error.chain());
        }
    }

    fn convert(&self, task: &TaskRecord, run: &Run) -> Result<serde_json::Value> {
        let request: Request = serde_json::from_str(&task.request)
            .map_err(|e| Error::with(ErrorKind::Storage, "the task's request cannot be understood", e))?;
        let machine = self.0.sessions.connected_machine(&task.machine, &task.id)?;
        let recorder = Recorder { store: &self.0.store, task: &task.id, run, written: Mutex::default() };
        // A cancel that came before the thread was there.
        if self.0.store.task(&task.id)?.is_some_and(|task| task.cancel_requested) {
            run.cancel.cancel();
        }
        self.0.converter.convert(Source::Remote(Arc::new(machine)), &request, &recorder, &run.cancel).map_err(|e| {
            let kind = match e.kind {
                conversion::ErrorKind::Cancelled => ErrorKind::Cancelled,
                _ => ErrorKind::Conversion,
            };
            Error { kind, context: e.context, source: e.source }
        })
    }

    fn end(&self, task: &TaskRecord, converted: Result<serde_json::Value>) -> Result<()> {
        let store = &self.0.store;
        let (state, told) = match converted {
            Ok(outcome) => {
                store.end_task(&task.id, TaskState::Done, None, Some(&outcome.to_string()))?;
                (TaskState::Done, ControllerMessage::Finish { text: format!("{} is converted", task.name) })
            }
            Err(error) if error.kind == ErrorKind::Cancelled => {
                let asked = store.task(&task.id)?.is_some_and(|task| task.cancel_requested);
                if !asked {
                    store.log_task(&task.id, LogLevel::Info, "interrupted by the end of the controller")?;
                    return Ok(());
                }
                store.end_task(&task.id, TaskState::Cancelled, None, None)?;
                (TaskState::Cancelled, ControllerMessage::Show { text: format!("{} was cancelled", task.name) })
            }
            Err(error) => {
                store.end_task(&task.id, TaskState::Failed, Some(&error.chain()), None)?;
                let text = format!("{} failed; see the controller", task.name);
                (TaskState::Failed, ControllerMessage::Show { text })
            }
        };
        tracing::info!(task = %task.id, name = %task.name, %state, "task ended");
        self.0.sessions.tell(&task.machine, &told);
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        lock(&self.0.running)
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

fn plan_of(schedule: Schedule) -> Result<Plan> {
    check_schedule(&schedule)?;
    Ok(Plan::new(schedule, false, Timestamp::now()))
}

fn check_schedule(schedule: &Schedule) -> Result<()> {
    if let Some(start_at) = schedule.start_at.as_ref().filter(|at| at.instant() <= Timestamp::now()) {
        let context = format!("time {start_at} has passed: leave it out for a start as soon as there is room");
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    if schedule.every.is_some() {
        return Err(Error::new(ErrorKind::Invalid, "interval: a conversion is made once and not repeated"));
    }
    if schedule.windows.len() > WINDOWS_MAX {
        let found = schedule.windows.len();
        return Err(Error::new(ErrorKind::Invalid, format!("windows: expected at most {WINDOWS_MAX}, found {found}")));
    }
    Ok(())
}

/// Writes down what a conversion tells.
struct Recorder<'a> {
    store: &'a Store,
    task: &'a str,
    run: &'a Run,
    /// When progress was written last.
    written: Mutex<Option<Instant>>,
}

impl Observer for Recorder<'_> {
    fn event(&self, event: Event) {
        let now = Instant::now();
        lock(&self.run.meter).event(&event, now);
        let kept = match &event {
            Event::Step { step } => {
                let step = step.to_string();
                tracing::info!(task = self.task, %step, "step");
                self.store
                    .task_progress(self.task, Some(&step), 0, 0)
                    .and_then(|_| self.store.log_task(self.task, LogLevel::Info, &step))
            }
            Event::Progress { .. } => self.write_progress(now),
            Event::Log { message } => self.store.log_task(self.task, LogLevel::Info, message),
            Event::Warning { message } => self.store.log_task(self.task, LogLevel::Warning, message),
        };
        // A log that cannot be written does not end a conversion that works.
        if let Err(error) = kept {
            tracing::error!(task = self.task, "{}", error.chain());
        }
    }
}

impl Recorder<'_> {
    fn write_progress(&self, now: Instant) -> Result<()> {
        let mut written = lock(&self.written);
        if written.is_some_and(|at| now.saturating_duration_since(at) < PROGRESS_INTERVAL) {
            return Ok(());
        }
        *written = Some(now);
        let progress = lock(&self.run.meter).progress(now);
        self.store.task_progress(self.task, None, progress.done, progress.total).map(drop)
    }
}

/// The canonical path of the output folder, if the result's name is free in it.
fn output_folder(request: &Request) -> Result<String> {
    let shown = request.output.display();
    if !request.output.is_absolute() {
        return Err(Error::new(ErrorKind::Invalid, format!("output folder {shown}: expected an absolute path")));
    }
    let output = request
        .output
        .canonicalize()
        .map_err(|e| Error::with(ErrorKind::Invalid, format!("output folder {shown} cannot be found"), e))?;
    if !output.is_dir() {
        return Err(Error::new(ErrorKind::Invalid, format!("output folder {shown} is no folder")));
    }
    let is_file_name = Path::new(&request.name).file_name() == Some(request.name.as_ref());
    if !is_file_name {
        return Err(Error::new(ErrorKind::Invalid, format!("name {:?}: expected a file name", request.name)));
    }
    if output.join(&request.name).symlink_metadata().is_ok() {
        let context = format!("{} exists already: choose another name", output.join(&request.name).display());
        return Err(Error::new(ErrorKind::Conflict, context));
    }
    output
        .into_os_string()
        .into_string()
        .map_err(|_| Error::new(ErrorKind::Invalid, format!("output folder {shown}: expected a name in UTF-8")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
