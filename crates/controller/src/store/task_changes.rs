//! What operators, machines and the clock change of tasks.

use rusqlite::params;

use super::tasks::{one, query, taken};
use super::{LogLevel, Store, TaskState, storage, to_json};
use crate::schedule::{Plan, Schedule};
use crate::{Error, ErrorKind, Result, Timestamp};

impl Store {
    /// A machine is Cold Cloning Ready: tasks that waited for it wait for an operator's yes now. Returns their ids.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn machine_is_ready(&self, machine: &str) -> Result<Vec<String>> {
        let context = "task cannot be written";
        let now = Timestamp::now();
        self.write(context, |transaction| {
            let tasks = query(transaction, "state = 'queued' AND waits_for = 'machine' AND machine = ?1", [machine])?;
            for task in &tasks {
                let set = "UPDATE tasks SET waits_for = 'operator' WHERE id = ?1";
                transaction.execute(set, [&task.id]).map_err(|e| storage(context, e))?;
                let message = format!("{machine} is Cold Cloning Ready: vconverter tasks resume {}", task.id);
                super::logs::write_task_log(transaction, &task.id, LogLevel::Info, &message)?;
                super::logs::write_audit(transaction, now, "controller", "task found its machine", &task.id, machine)?;
            }
            Ok(tasks.into_iter().map(|task| task.id).collect())
        })
    }

    /// The machine has left, or nothing is known of any (`None`): tasks that wait for a yes to it wait for it again.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn machine_has_left(&self, machine: Option<&str>) -> Result<()> {
        let context = "task cannot be written";
        self.write(context, |transaction| {
            let waiting = "state = 'queued' AND waits_for = 'operator' AND machine = coalesce(?1, machine)";
            for task in query(transaction, waiting, [machine])? {
                let set = "UPDATE tasks SET waits_for = 'machine' WHERE id = ?1";
                transaction.execute(set, [&task.id]).map_err(|e| storage(context, e))?;
                let message = format!("{} has left: waiting for it again", task.machine);
                super::logs::write_task_log(transaction, &task.id, LogLevel::Info, &message)?;
            }
            Ok(())
        })
    }

    /// An operator says that a task may go on: one that is paused, or whose machine is Cold Cloning Ready now; with a line in
    /// the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it waits for no such word, [`ErrorKind::Storage`].
    pub fn resume_task(&self, id: &str, actor: &str) -> Result<()> {
        let context = "task cannot be resumed";
        self.write(context, |transaction| {
            let task = one(transaction, id)?;
            let (set, action) = match task.state {
                TaskState::Paused => ("paused = 0", "task resumed"),
                TaskState::Running if task.pause_requested => ("paused = 0", "task resumed"),
                TaskState::Unconfirmed => ("waits_for = NULL", "task confirmed"),
                TaskState::Waiting => {
                    let machine = &task.machine;
                    let context = format!(
                        "task {id} waits for {machine}, which is not Cold Cloning Ready yet: start it from the boot image"
                    );
                    return Err(Error::new(ErrorKind::Conflict, context));
                }
                state => {
                    let context = format!(
                        "task {id} is {state}: only one that is paused, or waits for a yes to its machine, is resumed"
                    );
                    return Err(Error::new(ErrorKind::Conflict, context));
                }
            };
            transaction.execute(&format!("UPDATE tasks SET {set} WHERE id = ?1"), [id]).map_err(|e| storage(context, e))?;
            super::logs::write_audit(transaction, Timestamp::now(), actor, action, id, &task.machine)?;
            let said = action.trim_start_matches("task ");
            super::logs::write_task_log(transaction, id, LogLevel::Info, &format!("{said} by {actor}"))?;
            Ok(())
        })
    }

    /// Pauses a task that is not over, with a line in the audit log. A running one comes to a safe point first; what is
    /// durable is kept.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is over, ending or paused already, [`ErrorKind::Storage`].
    pub fn pause_task(&self, id: &str, actor: &str) -> Result<()> {
        let context = "task cannot be paused";
        self.write(context, |transaction| {
            let task = one(transaction, id)?;
            if task.state.is_final() || task.state == TaskState::Paused || task.pause_requested || task.cancel_requested
            {
                let how = if task.cancel_requested && !task.state.is_final() {
                    "being cancelled"
                } else {
                    task.state.as_str()
                };
                return Err(Error::new(ErrorKind::Conflict, format!("task {id} is {how}: there is nothing to pause")));
            }
            transaction.execute("UPDATE tasks SET paused = 1 WHERE id = ?1", [id]).map_err(|e| storage(context, e))?;
            super::logs::write_audit(transaction, Timestamp::now(), actor, "task paused", id, &task.machine)?;
            super::logs::write_task_log(transaction, id, LogLevel::Info, &format!("{actor} asked for a pause"))?;
            Ok(())
        })
    }

    /// Forgets a task that is over, its log and its steps, with a line in the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is not over, [`ErrorKind::Storage`].
    pub fn delete_task(&self, id: &str, actor: &str) -> Result<()> {
        let context = "task cannot be deleted";
        self.write(context, |transaction| {
            let task = one(transaction, id)?;
            if !task.state.is_final() {
                let context = format!("task {id} is {}: cancel it before it is deleted", task.state);
                return Err(Error::new(ErrorKind::Conflict, context));
            }
            transaction.execute("DELETE FROM tasks WHERE id = ?1", [id]).map_err(|e| storage(context, e))?;
            let detail = format!("{} of {}: {}", task.name, task.machine, task.state);
            super::logs::write_audit(transaction, Timestamp::now(), actor, "task deleted", id, &detail)?;
            Ok(())
        })
    }

    /// Keeps when a task that may be begun is looked at again, or that its time has come (`None`), with its plan and a line
    /// in its log.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn set_due(&self, id: &str, plan: &Plan, due_at: Option<Timestamp>, told: (LogLevel, &str)) -> Result<()> {
        let context = "task cannot be written";
        let plan = to_json("schedule", plan)?;
        self.write(context, |transaction| {
            let sql =
                "UPDATE tasks SET plan = ?2, due_at = ?3 WHERE id = ?1 AND state = 'queued' AND waits_for IS NULL";
            let changed = transaction.execute(sql, params![id, plan, due_at.map(|at| at.0)]);
            if changed.map_err(|e| storage(context, e))? == 1 {
                super::logs::write_task_log(transaction, id, told.0, told.1)?;
            }
            Ok(())
        })
    }

    /// Changes when a task that was not begun is to be, with a line in the audit log. It is queued until somebody looks when
    /// that is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it was begun or is over, [`ErrorKind::Storage`].
    pub fn change_plan(&self, id: &str, change: impl FnOnce(&mut Plan), told: (&str, &str), actor: &str) -> Result<()> {
        let context = "task cannot be written";
        let now = Timestamp::now();
        let (action, detail) = told;
        self.write(context, |transaction| {
            let task = one(transaction, id)?;
            if task.state == TaskState::Running || task.state.is_final() {
                let context = format!("task {id} is {}: only one that was not begun has a time to change", task.state);
                return Err(Error::new(ErrorKind::Conflict, context));
            }
            let mut plan = task.plan()?.unwrap_or_else(|| Plan::new(Schedule::default(), false, task.created_at));
            change(&mut plan);
            let plan = to_json("schedule", &plan)?;
            let sql = "UPDATE tasks SET plan = ?2, due_at = NULL WHERE id = ?1";
            transaction.execute(sql, params![id, plan]).map_err(|e| storage(context, e))?;
            super::logs::write_audit(transaction, now, actor, action, id, detail)?;
            super::logs::write_task_log(transaction, id, LogLevel::Info, &format!("{action} by {actor}"))?;
            Ok(())
        })
    }

    /// Asks for the end of a task that is not over, with a line in the audit log. A queued one is over with that.
    /// Returns its state before.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is over already, [`ErrorKind::Storage`].
    pub fn request_cancel(&self, id: &str, actor: &str) -> Result<TaskState> {
        let context = "task cannot be cancelled";
        let now = Timestamp::now();
        self.write(context, |transaction| {
            let before = one(transaction, id)?.state;
            if before.is_final() {
                return Err(Error::new(ErrorKind::Conflict, format!("task {id} is over already: {before}")));
            }
            transaction
                .execute(
                    "UPDATE tasks SET cancel_requested = 1,
                     finished_at = CASE state WHEN 'queued' THEN ?2 ELSE finished_at END, paused = paused AND state <> 'queued',
                     state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END WHERE id = ?1",
                    params![id, now.0],
                )
                .map_err(|e| storage(context, e))?;
            super::logs::write_audit(transaction, now, actor, "task cancelled", id, "")?;
            Ok(before)
        })
    }

    /// Queues a failed or cancelled task again, with a line in the audit log. One that waited for its machine when it was
    /// cancelled waits for it again, unless that `is_ready`: to ask for the task is a yes.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is not over, ended well, or another writes the same
    /// result by now, [`ErrorKind::Storage`].
    pub fn retry_task(&self, id: &str, is_ready: bool, actor: &str) -> Result<()> {
        let context = "task cannot be queued again";
        self.write(context, |transaction| {
            let task = one(transaction, id)?;
            if !matches!(task.state, TaskState::Failed | TaskState::Cancelled) {
                let context = format!("task {id} is {}: only a failed or cancelled one is tried again", task.state);
                return Err(Error::new(ErrorKind::Conflict, context));
            }
            let mut plan = task.plan()?;
            if let Some(plan) = &mut plan {
                plan.fail(Timestamp::now());
            }
            let plan = plan.map(|plan| to_json("schedule", &plan)).transpose()?;
            transaction
                .execute(
                    "UPDATE tasks SET state = 'queued', cancel_requested = 0, finished_at = NULL, error = NULL, plan = ?3, paused = 0,
                     due_at = NULL,
                     waits_for = CASE WHEN ?2 OR waits_for IS NULL THEN NULL ELSE 'machine' END WHERE id = ?1",
                    params![id, is_ready, plan],
                )
                .map_err(|e| taken(e, &task.name, &task.output, context))?;
            super::logs::write_audit(transaction, Timestamp::now(), actor, "task tried again", id, "")?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::tests::{STEPS, begin, new_task, store_with_machine};
    use crate::store::{End, Lease, NewTask, Store};

    #[test]
    fn two_unfinished_tasks_never_make_the_same_result() {
        let (_folder, store, machine) = store_with_machine();
        let new = new_task(&machine);
        let first = store.create_task(&new, "uid 0").unwrap();
        assert_eq!(store.create_task(&new, "uid 0").unwrap_err().kind, ErrorKind::Conflict);
        let lease = begin(&store, &first).unwrap();
        assert!(store.end_task(&lease, &End::Failed("disk full")).unwrap());
        let second = store.create_task(&new, "uid 0").unwrap();
        assert_eq!(store.retry_task(&first, false, "uid 0").unwrap_err().kind, ErrorKind::Conflict);
        assert_eq!(store.request_cancel(&second, "uid 0").unwrap(), TaskState::Queued);
        assert_eq!(store.task(&second).unwrap().unwrap().state, TaskState::Cancelled);
        store.retry_task(&first, false, "uid 0").unwrap();
        assert_eq!(store.task(&first).unwrap().unwrap().state, TaskState::Queued);
        assert_eq!(store.task_log(&first, 0, 10).unwrap()[0].message, "disk full");
    }

    #[test]
    fn a_task_waits_for_its_machine_and_then_for_a_yes_and_is_not_begun_before() {
        let (_folder, store, machine) = store_with_machine();
        let new = NewTask { waits: true, ..new_task(&machine) };
        let id = store.create_task(&new, "uid 0").unwrap();
        let state = || store.task(&id).unwrap().unwrap().state;
        assert_eq!(state(), TaskState::Waiting);
        assert!(begin(&store, &id).is_none() && store.unfinished_tasks().unwrap().is_empty());
        assert_eq!(store.resume_task(&id, "uid 0").unwrap_err().kind, ErrorKind::Conflict);
        assert_eq!(store.create_task(&new, "uid 0").unwrap_err().kind, ErrorKind::Conflict, "its name is taken");

        assert_eq!(store.machine_is_ready("m-another").unwrap(), Vec::<String>::new());
        assert_eq!(state(), TaskState::Waiting);
        assert_eq!(store.machine_is_ready(&machine).unwrap(), std::slice::from_ref(&id));
        assert_eq!(state(), TaskState::Unconfirmed);
        assert_eq!(store.machine_is_ready(&machine).unwrap(), Vec::<String>::new(), "told once");
        assert!(begin(&store, &id).is_none());
        store.machine_has_left(Some("m-another")).unwrap();
        assert_eq!(state(), TaskState::Unconfirmed);
        store.machine_has_left(None).unwrap();
        assert_eq!(state(), TaskState::Waiting);

        store.machine_is_ready(&machine).unwrap();
        store.resume_task(&id, "uid 7").unwrap();
        assert_eq!(state(), TaskState::Queued);
        store.machine_has_left(Some(&machine)).unwrap();
        assert!(begin(&store, &id).is_some());
        let audit: Vec<_> = store.audit(10).unwrap().into_iter().map(|line| (line.actor, line.action)).collect();
        let line = |actor: &str, action: &str| (actor.to_owned(), action.to_owned());
        assert_eq!(audit[0], line("uid 7", "task confirmed"));
        assert_eq!(audit[1], line("controller", "task found its machine"));
    }

    #[test]
    fn a_waiting_task_is_cancelled_and_tried_again_as_it_was() {
        let (_folder, store, machine) = store_with_machine();
        let new = NewTask { waits: true, ..new_task(&machine) };
        let id = store.create_task(&new, "uid 0").unwrap();
        assert_eq!(store.request_cancel(&id, "uid 0").unwrap(), TaskState::Waiting);
        assert_eq!(store.task(&id).unwrap().unwrap().state, TaskState::Cancelled);
        store.retry_task(&id, false, "uid 0").unwrap();
        assert_eq!(store.task(&id).unwrap().unwrap().state, TaskState::Waiting, "it is what it was");
        store.request_cancel(&id, "uid 0").unwrap();
        store.retry_task(&id, true, "uid 0").unwrap();
        assert_eq!(store.task(&id).unwrap().unwrap().state, TaskState::Queued, "its machine is there");
    }

    #[test]
    fn batches_are_kept_whole_or_not_at_all() {
        let (_folder, store, machine) = store_with_machine();
        let new = |name| NewTask { name, ..new_task(&machine) };
        let twice = [vec![new("a")], vec![new("b"), new("a")]];
        assert_eq!(store.create_batches(&twice, "uid 0").unwrap_err().kind, ErrorKind::Conflict);
        assert!(store.tasks().unwrap().is_empty());
        let batches = store.create_batches(&[vec![new("a"), new("b")], vec![new("c")]], "uid 0").unwrap();
        let of = |name: &str| store.tasks().unwrap().into_iter().find(|task| task.name == name).unwrap().batch;
        assert_eq!([of("a"), of("b"), of("c")], [0, 0, 1].map(|n: usize| Some(batches[n].0.clone())));
        assert_ne!(batches[0].0, batches[1].0);
    }

    #[test]
    fn a_task_ends_once() {
        let (_folder, store, machine) = store_with_machine();
        let new = new_task(&machine);
        let id = store.create_task(&new, "uid 0").unwrap();
        let lease = begin(&store, &id).unwrap();
        assert!(store.task_progress(&lease, 1 << 40, 1 << 41).unwrap());
        assert_eq!(store.request_cancel(&id, "uid 0").unwrap(), TaskState::Running);
        assert!(store.task(&id).unwrap().unwrap().cancel_requested);
        assert!(store.end_task(&lease, &End::Cancelled).unwrap());
        assert!(!store.end_task(&lease, &End::Done("{}")).unwrap());
        assert!(begin(&store, &id).is_none());
        let task = store.task(&id).unwrap().unwrap();
        assert_eq!((task.state, task.done_bytes, task.outcome), (TaskState::Cancelled, 1 << 40, None));
        assert_eq!(store.request_cancel(&id, "uid 0").unwrap_err().kind, ErrorKind::Conflict);
        assert_eq!(store.request_cancel("t-0", "uid 0").unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn a_scheduled_task_is_kept_with_its_plan_and_changed_only_before_it_begins() {
        let (_folder, store, machine) = store_with_machine();
        let (now, due) = (Timestamp::now(), Timestamp(Timestamp::now().0 + 3_600_000));
        let plan = Plan::new(Schedule::default(), false, now);
        let new = NewTask { plan: Some(&plan), ..new_task(&machine) };
        let id = store.create_task(&new, "uid 0").unwrap();
        let task = || store.task(&id).unwrap().unwrap();
        assert_eq!((task().state, task().plan().unwrap()), (TaskState::Queued, Some(plan.clone())));
        store.set_due(&id, &plan, Some(due), (LogLevel::Info, "begins later")).unwrap();
        assert_eq!((task().state, task().due_at), (TaskState::Scheduled, Some(due)));
        assert_eq!(store.unfinished_tasks().unwrap().len(), 1);
        assert_eq!(store.create_task(&new, "uid 0").unwrap_err().kind, ErrorKind::Conflict, "its name is taken");

        store.change_plan(&id, Plan::ask, ("task asked to begin", ""), "uid 7").unwrap();
        assert_eq!((task().state, store.audit(1).unwrap()[0].actor.as_str()), (TaskState::Queued, "uid 7"));
        store.set_due(&id, &plan, Some(due), (LogLevel::Info, "begins later")).unwrap();
        assert_eq!(store.request_cancel(&id, "uid 0").unwrap(), TaskState::Scheduled);
        assert_eq!(task().state, TaskState::Cancelled);
        let refused = store.change_plan(&id, Plan::ask, ("task asked to begin", ""), "uid 7").unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Conflict);
        store.set_due(&id, &plan, None, (LogLevel::Info, "its time has come")).unwrap();
        assert_eq!(task().state, TaskState::Cancelled);

        store.retry_task(&id, false, "uid 0").unwrap();
        assert!(store.begin_task(&id, Some(&plan), &STEPS, std::time::Duration::from_secs(60)).unwrap().is_some());
        assert_eq!((task().state, task().due_at), (TaskState::Running, None));
        let refused = store.change_plan(&id, Plan::ask, ("task asked to begin", ""), "uid 7").unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Conflict);
    }

    /// What operators, machines and the controller may do, in any order.
    #[derive(Clone, Copy, Debug)]
    enum Action {
        Begin,
        Step,
        EndDone,
        EndFailed,
        /// The run comes to a safe point, as it was asked to.
        Stop,
        /// The controller is killed and started again.
        Restart,
        Cancel,
        Pause,
        Resume,
        Retry,
        MachineCame,
        MachineLeft,
        Delete,
    }

    /// The simple model: where a task is, and what is wanted of it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Model {
        state: TaskState,
        cancel: bool,
        pause: bool,
        /// What it is in when it is not paused.
        under_pause: TaskState,
    }

    impl Model {
        /// What becomes of it; `None` where the action is to be refused, or does nothing.
        fn after(&self, action: Action) -> Option<Self> {
            use TaskState::*;
            let is = |state| Some(Self { state, cancel: false, pause: false, under_pause: state });
            let over = matches!(self.state, Done | Failed | Cancelled);
            match (action, self.state) {
                (Action::Begin, Queued) => is(Running),
                (Action::Step, Running) => Some(self.clone()),
                (Action::EndDone, Running) => Some(Self { cancel: self.cancel, ..is(Done)? }),
                (Action::EndFailed, Running) => Some(Self { cancel: self.cancel, ..is(Failed)? }),
                (Action::Stop, Running) if self.cancel => Some(Self { cancel: true, ..is(Cancelled)? }),
                (Action::Stop, Running) if self.pause => Some(Self { under_pause: Queued, ..is(Paused)? }),
                (Action::Restart, _) => Some(self.clone()),
                (Action::Cancel, Running) => Some(Self { cancel: true, ..self.clone() }),
                (Action::Cancel, _) if !over => Some(Self { cancel: true, ..is(Cancelled)? }),
                (Action::Pause, Running) if !self.cancel && !self.pause => Some(Self { pause: true, ..self.clone() }),
                (Action::Pause, Waiting | Unconfirmed | Queued) => {
                    Some(Self { state: Paused, under_pause: self.state, cancel: false, pause: false })
                }
                (Action::Resume, Paused) => is(self.under_pause),
                (Action::Resume, Running) if self.pause => Some(Self { pause: false, ..self.clone() }),
                (Action::Resume, Unconfirmed) => is(Queued),
                (Action::Retry, Failed | Cancelled) => is(Queued),
                (Action::MachineCame, Waiting) => is(Unconfirmed),
                (Action::MachineCame, Paused) if self.under_pause == Waiting => {
                    Some(Self { under_pause: Unconfirmed, ..self.clone() })
                }
                (Action::MachineLeft, Unconfirmed) => is(Waiting),
                (Action::MachineLeft, Paused) if self.under_pause == Unconfirmed => {
                    Some(Self { under_pause: Waiting, ..self.clone() })
                }
                (Action::MachineCame | Action::MachineLeft, _) => Some(self.clone()),
                (Action::Delete, _) if over => Some(self.clone()),
                _ => None,
            }
        }
    }

    fn action() -> impl Strategy<Value = Action> {
        use Action::*;
        prop::sample::select(vec![
            Begin,
            Begin,
            Step,
            EndDone,
            EndFailed,
            Stop,
            Restart,
            Cancel,
            Pause,
            Resume,
            Retry,
            MachineCame,
            MachineLeft,
            Delete,
        ])
    }

    fn end_of(store: &Store, lease: Option<&Lease>, end: &End<'_>) -> bool {
        lease.is_some_and(|lease| store.end_task(lease, end).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Random actions leave a task where a simple model says, and are refused where it says so.
        #[test]
        fn random_actions_lead_where_the_model_says(
            actions in prop::collection::vec(action(), 1..40), waits in any::<bool>(),
        ) {
            let (folder, mut store, machine) = store_with_machine();
            let new = NewTask { waits, ..new_task(&machine) };
            let id = store.create_task(&new, "uid 0").unwrap();
            let state = if waits { TaskState::Waiting } else { TaskState::Queued };
            let mut model = Model { state, cancel: false, pause: false, under_pause: state };
            let mut lease: Option<Lease> = None;
            for action in actions {
                let expected = model.after(action);
                let done = match action {
                    Action::Begin => {
                        let begun = begin(&store, &id);
                        let is_begun = begun.is_some();
                        lease = begun.or(lease);
                        is_begun
                    }
                    Action::Step => lease.as_ref().is_some_and(|lease| store.step_begins(lease, STEPS[1]).unwrap()),
                    Action::EndDone => end_of(&store, lease.as_ref(), &End::Done("{}")),
                    Action::EndFailed => end_of(&store, lease.as_ref(), &End::Failed("no")),
                    Action::Stop => match store.wanted_of(&id).unwrap() {
                        (true, _) => end_of(&store, lease.as_ref(), &End::Cancelled),
                        (false, true) => end_of(&store, lease.as_ref(), &End::Paused),
                        (false, false) => false,
                    },
                    Action::Restart => {
                        store = Store::open(&folder.path().join("controller.db")).unwrap();
                        store.end_foreign_leases().unwrap();
                        if model.state == TaskState::Running {
                            let old = lease.replace(begin(&store, &id).unwrap()).unwrap();
                            prop_assert!(!store.task_progress(&old, 1, 1).unwrap());
                        }
                        true
                    }
                    Action::Cancel => store.request_cancel(&id, "uid 0").is_ok(),
                    Action::Pause => store.pause_task(&id, "uid 0").is_ok(),
                    Action::Resume => store.resume_task(&id, "uid 0").is_ok(),
                    Action::Retry => store.retry_task(&id, true, "uid 0").is_ok(),
                    Action::MachineCame => store.machine_is_ready(&machine).is_ok(),
                    Action::MachineLeft => store.machine_has_left(Some(&machine)).is_ok(),
                    Action::Delete => store.delete_task(&id, "uid 0").is_ok(),
                };
                prop_assert_eq!(done, expected.is_some(), "{:?} in {:?}", action, model);
                if matches!(action, Action::Delete) && done {
                    prop_assert!(store.task(&id).unwrap().is_none() && store.task_steps(&id).unwrap().is_empty());
                    break;
                }
                model = expected.unwrap_or(model);
                let task = store.task(&id).unwrap().unwrap();
                prop_assert_eq!(task.state, model.state, "{:?}", action);
                prop_assert_eq!(task.pause_requested, model.pause);
                prop_assert_eq!(task.finished_at.is_some(), task.state.is_final());
                prop_assert_eq!(task.error.is_some(), task.state == TaskState::Failed);
                let working = store.task_steps(&id).unwrap().iter().any(|step| step.state == crate::store::StepState::Running);
                prop_assert!(!working || task.state == TaskState::Running);
            }
        }
    }
}
