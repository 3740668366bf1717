//! Tasks: conversions that are kept, run, resumed after a crash, and cancelled.
//!
//! A task that was running when the controller died is begun again with the same request; the working folder beside its
//! result says what is done already, so it goes on where it was.
//!
//! One with a schedule is begun at its time. Whenever tasks are started, each is asked when that is ([`Plan::look`]), and a
//! thread wakes up at the earliest of these moments; the clock is looked at often, since it can be set meanwhile.

mod back_by;
mod forecast;
mod preflight;
mod rcc;
mod run;
mod settings;
mod wish;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conversion::{Cancel, Observer, Request, Source};

use crate::bandwidth::{Bandwidth, TaskBandwidth};
use crate::limits::Limits;
use crate::progress::{Meter, Progress};
use crate::schedule::{BackBy, Plan, Schedule};
use crate::sessions::Sessions;
use crate::store::{Lease, LogLevel, NewTask, Store, TaskRecord, TaskState};
use crate::{Error, ErrorKind, Result, Timestamp};

pub use forecast::Forecast;
pub use rcc::{PushFiles, PushNeeds};
use run::Returning;
pub use settings::Settings;
pub use wish::{Batch, BatchKind, Wish};
use wish::{Checked, check_rate, check_schedule};

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

    /// Makes the boot image that is pushed to one machine.
    ///
    /// # Errors
    /// Those of `conversion`.
    fn build_push(&self, needs: &PushNeeds<'_>) -> conversion::Result<PushFiles>;
}

/// The tasks of a controller; clones share them.
#[derive(Clone)]
pub struct Tasks(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    sessions: Sessions,
    converter: Arc<dyn Converter>,
    lease: Duration,
    /// What may come in for all tasks.
    bandwidth: Bandwidth,
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
    /// Tasks that are due and whose machine is not there, which was said in their log.
    absent: HashSet<String>,
}

/// A task at work.
#[derive(Clone)]
struct Run {
    cancel: Cancel,
    meter: Arc<Mutex<Meter>>,
    bandwidth: TaskBandwidth,
    lease: Lease,
    /// The lease was lost: nothing is written for it any more.
    is_lost: Arc<AtomicBool>,
    /// Of a machine that must be back in its own system by some time.
    returning: Arc<Mutex<Returning>>,
}

impl Run {
    fn new(lease: Lease, bandwidth: TaskBandwidth) -> Self {
        Self {
            cancel: Cancel::default(),
            meter: Arc::default(),
            bandwidth,
            lease,
            is_lost: Arc::default(),
            returning: Arc::default(),
        }
    }

    /// Somebody else may work on the task by now: this run ends as soon as it can, and silently.
    fn lose(&self) {
        if !self.is_lost.swap(true, Ordering::AcqRel) {
            tracing::warn!(task = %self.lease.task, "its lease is lost: the controller stood still for too long");
        }
        self.cancel.cancel();
    }

    fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }
}

impl Tasks {
    /// None running yet. Who stands still for longer than `lease` loses what it works on.
    pub fn new(store: Arc<Store>, sessions: Sessions, converter: Arc<dyn Converter>, lease: Duration) -> Self {
        let (ended, alarm_set) = (Condvar::new(), Condvar::new());
        Self(Arc::new(Shared {
            store,
            sessions,
            converter,
            lease,
            bandwidth: Bandwidth::default(),
            running: Mutex::default(),
            ended,
            alarm_set,
        }))
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
        let kinds = [BatchKind::ColdCloningReady, BatchKind::RemoteColdCloning, BatchKind::Live];
        let of = |kind| (kind, checked.iter().filter(|one| one.kind == kind).collect::<Vec<&Checked>>());
        let kinds: Vec<_> = kinds.into_iter().map(of).filter(|(_, tasks)| !tasks.is_empty()).collect();
        let new: Vec<Vec<NewTask<'_>>> =
            kinds.iter().map(|(_, tasks)| tasks.iter().map(|one| one.as_new()).collect()).collect();
        let created = self.0.store.create_batches(&new, actor)?;
        self.begin(&checked)?;
        let batch = |((kind, _), (id, tasks)): ((BatchKind, _), _)| Batch { id, kind, tasks };
        Ok(kinds.into_iter().zip(created).map(batch).collect())
    }

    /// Starts what was kept just now. A machine may have come while its task was written.
    fn begin(&self, kept: &[Checked]) -> Result<()> {
        for one in kept.iter().filter(|one| one.waits) {
            self.0.sessions.tell_waiting_tasks(&one.machine)?;
        }
        self.fill()
    }

    /// An operator says that a task goes on: one that is paused, or whose machine is Cold Cloning Ready now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it does not wait for that, [`ErrorKind::Storage`].
    pub fn resume(&self, id: &str, actor: &str) -> Result<()> {
        self.0.store.resume_task(id, actor)?;
        self.fill()
    }

    /// Pauses a task: a running one at its next safe point; what is durable is kept.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where there is nothing to pause, [`ErrorKind::Storage`].
    pub fn pause(&self, id: &str, actor: &str) -> Result<()> {
        self.0.store.pause_task(id, actor)?;
        self.interrupt(id);
        Ok(())
    }

    /// The same for another VM: a new task with the settings of one that is there, whatever became of it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the task, and those of [`Tasks::create`].
    pub fn clone_task(&self, id: &str, name: &str, actor: &str) -> Result<String> {
        let task = self.0.store.existing_task(id)?;
        let wait = self.0.sessions.kind_of(&task.machine).is_none();
        let request = Request { name: name.to_owned(), ..task.request()? };
        let (bytes_per_second, back_by) = (task.bytes_per_second, task.back_by()?);
        let rcc = task.rcc()?;
        let wait = wait && rcc.is_none();
        let machine = task.machine;
        self.create(
            &Wish { machine, request, wait, schedule: None, bytes_per_second, back_by, rcc, held: false },
            actor,
        )
    }

    /// Forgets a task that is over. With `discard`, what it left half-made goes too; a result that is whole stays.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is not over, [`ErrorKind::Io`] where something cannot be
    /// removed (the task is kept then), [`ErrorKind::Storage`].
    pub fn delete(&self, id: &str, discard: bool, actor: &str) -> Result<()> {
        let task = self.0.store.existing_task(id)?;
        if discard
            && task.state.is_final()
            && task.state != TaskState::Done
            && self.0.store.maker_of(&task.output, &task.name)?.is_none()
        {
            conversion::discard(&task.request()?)
                .map_err(|e| Error::with(ErrorKind::Io, format!("what task {id} left cannot be removed"), e))?;
        }
        self.0.store.delete_task(id, actor)
    }

    /// Limits what runs, from now on. What runs beyond a lower number goes on.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], [`ErrorKind::Storage`].
    pub fn set_limits(&self, limits: &Limits, actor: &str) -> Result<()> {
        limits.check()?;
        self.0.store.set_limits(limits, actor)?;
        self.0.bandwidth.set(limits.rate(Timestamp::now()));
        self.fill()
    }

    /// Limits what comes in for a task, from now on; `None` is as fast as it goes.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Invalid`], [`ErrorKind::Conflict`] where it is done, [`ErrorKind::Storage`].
    pub fn set_rate(&self, id: &str, rate: Option<u64>, actor: &str) -> Result<()> {
        check_rate(rate)?;
        self.0.store.set_task_rate(id, rate, actor)?;
        if let Some(run) = self.running().tasks.get(id) {
            run.bandwidth.set(rate);
        }
        Ok(())
    }

    /// Another time by which a task's machine must be back in its own system, from now on; `None` is as long as it takes.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is done, [`ErrorKind::Storage`].
    pub fn set_back_by(&self, id: &str, back_by: Option<&BackBy>, actor: &str) -> Result<()> {
        self.0.store.set_task_back_by(id, back_by, actor)?;
        if let Some(run) = self.running().tasks.get(id) {
            run.set_back_by(back_by.cloned(), Timestamp::now());
        }
        Ok(())
    }

    fn interrupt(&self, id: &str) {
        if let Some(run) = self.running().tasks.get(id) {
            run.cancel.cancel();
        }
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
    /// is looked at too, and leases are renewed.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`], [`ErrorKind::Io`].
    pub fn take_up(&self) -> Result<()> {
        // Nobody is connected yet: who comes is found again by the tasks that wait.
        self.0.store.machine_has_left(None)?;
        // The data directory is ours alone: whoever worked on a task is gone.
        self.0.store.end_foreign_leases()?;
        for task in self.0.store.abandoned_tasks()? {
            self.0.store.log_task(&task.id, LogLevel::Info, "the controller was started again: going on")?;
        }
        self.fill()?;
        for (name, work) in [("schedule", Self::follow_clock as fn(&Self)), ("leases", Self::keep_leases)] {
            let tasks = self.clone();
            let spawned = std::thread::Builder::new().name(name.into()).spawn(move || work(&tasks));
            spawned.map_err(|e| Error::io(format!("no thread for {name}"), e))?;
        }
        Ok(())
    }

    /// Ends a task at its next safe point; what is durable is kept.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is over, [`ErrorKind::Storage`].
    pub fn cancel(&self, id: &str, actor: &str) -> Result<()> {
        self.0.store.request_cancel(id, actor)?;
        self.interrupt(id);
        Ok(())
    }

    /// Begins a failed or cancelled task again; it goes on from what is durable.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`], [`ErrorKind::Storage`].
    pub fn retry(&self, id: &str, actor: &str) -> Result<()> {
        let task = self.0.store.existing_task(id)?;
        self.0.store.retry_task(id, self.0.sessions.is_ready(&task.machine), actor)?;
        self.0.sessions.tell_waiting_tasks(&task.machine)?;
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
        self.0.ended.notify_all();
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

    fn running(&self) -> MutexGuard<'_, Running> {
        lock(&self.0.running)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
