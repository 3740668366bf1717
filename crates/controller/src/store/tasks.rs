//! Tasks: each conversion, its state and its end.

use rusqlite::{Connection, Row, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogLevel, Store, containing, from_json, new_id, storage, to_json};
use crate::schedule::{Plan, Schedule};
use crate::{Error, ErrorKind, Result, Timestamp};

const COLUMNS: &str = "id, name, machine, output, request, state, cancel_requested, step, done_bytes, total_bytes, error, \
     outcome, created_at, started_at, finished_at, waits_for, batch, plan, due_at";

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Waits until its machine is Cold Cloning Ready.
    Waiting,
    /// Its machine is Cold Cloning Ready; waits for an operator's yes to that.
    Unconfirmed,
    /// Waits for its time.
    Scheduled,
    /// Waits for a free place.
    Queued,
    /// Works, or goes on by itself when the controller is started again.
    Running,
    /// Ended well.
    Done,
    /// Ended with an error; it can be tried again.
    Failed,
    /// Ended by an operator.
    Cancelled,
}

/// A task as it is to be kept.
#[derive(Clone, Debug)]
pub struct NewTask<'a> {
    /// Name of the VM.
    pub name: &'a str,
    /// Id of the machine.
    pub machine: &'a str,
    /// Absolute path of the folder that will hold the result.
    pub output: &'a str,
    /// The request as JSON.
    pub request: &'a str,
    /// Whether it waits until its machine is Cold Cloning Ready, and for an operator's yes then.
    pub waits: bool,
    /// When it is to be begun, where that is not as soon as there is room.
    pub plan: Option<&'a Plan>,
}

/// A task as it is kept.
#[derive(Clone, Debug)]
pub struct TaskRecord {
    /// `t-` and eight hexadecimal digits.
    pub id: String,
    /// Name of the VM.
    pub name: String,
    /// Id of the machine.
    pub machine: String,
    /// Absolute path of the folder that will hold the result.
    pub output: String,
    /// The request as JSON.
    pub request: String,
    /// Where it stands.
    pub state: TaskState,
    /// Whether an operator asked for its end while it was running.
    pub cancel_requested: bool,
    /// The step it is in or ended in.
    pub step: Option<String>,
    /// Bytes of that step that are done, as last written.
    pub done_bytes: u64,
    /// Bytes of that step; 0 while not known.
    pub total_bytes: u64,
    /// Why it failed, the whole chain.
    pub error: Option<String>,
    /// What came out of it, as JSON.
    pub outcome: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was begun first.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Which others it was asked for together with, `b-` and eight hexadecimal digits.
    pub batch: Option<String>,
    /// When it is to be begun: [`Plan`] as JSON. Without one, as soon as there is room.
    pub plan: Option<String>,
    /// While it is scheduled: when it is looked at again, and not begun before.
    pub due_at: Option<Timestamp>,
}

impl TaskRecord {
    /// When it is to be begun, and what happened of that so far.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn plan(&self) -> Result<Option<Plan>> {
        let what = || format!("schedule of task {}", self.id);
        self.plan.as_deref().map(|text| from_json(&what(), text)).transpose()
    }
}

impl TaskState {
    /// Whether nothing more happens by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Unconfirmed => "unconfirmed",
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// From the columns `state`, `waits_for` and `due_at`.
    fn parse(state: &str, waits_for: Option<&str>, is_due_later: bool) -> Self {
        match (state, waits_for) {
            ("queued", Some("machine")) => Self::Waiting,
            ("queued", Some(_)) => Self::Unconfirmed,
            ("queued", None) if is_due_later => Self::Scheduled,
            ("queued", None) => Self::Queued,
            ("running", _) => Self::Running,
            ("done", _) => Self::Done,
            ("cancelled", _) => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl Store {
    /// Keeps a new task, with its line in the audit log. Returns its id.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where an unfinished task writes the same result, [`ErrorKind::Storage`].
    pub fn create_task(&self, task: &NewTask<'_>, actor: &str) -> Result<String> {
        let context = "task cannot be written";
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(|e| storage(context, e))?;
        let id = insert(&transaction, task, None, actor)?;
        transaction.commit().map_err(|e| storage(context, e))?;
        Ok(id)
    }

    /// Keeps batches of new tasks, all of them or none. Returns, for each, its id and those of its tasks.
    ///
    /// # Errors
    /// Those of [`Store::create_task`].
    pub fn create_batches(&self, batches: &[Vec<NewTask<'_>>], actor: &str) -> Result<Vec<(String, Vec<String>)>> {
        let context = "tasks cannot be written";
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(|e| storage(context, e))?;
        let mut created = Vec::new();
        for tasks in batches {
            let batch = new_id("b")?;
            let ids: Result<Vec<String>> =
                tasks.iter().map(|task| insert(&transaction, task, Some(&batch), actor)).collect();
            created.push((batch, ids?));
        }
        transaction.commit().map_err(|e| storage(context, e))?;
        Ok(created)
    }

    /// A machine is Cold Cloning Ready: tasks that waited for it wait for an operator's yes now. Returns their ids.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn machine_is_ready(&self, machine: &str) -> Result<Vec<String>> {
        let context = "task cannot be written";
        let now = Timestamp::now();
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(|e| storage(context, e))?;
        let tasks = query(&transaction, "state = 'queued' AND waits_for = 'machine' AND machine = ?1", [machine])?;
        for task in &tasks {
            let set = "UPDATE tasks SET waits_for = 'operator' WHERE id = ?1";
            transaction.execute(set, [&task.id]).map_err(|e| storage(context, e))?;
            let message = format!("{machine} is Cold Cloning Ready: vconverter tasks resume {}", task.id);
            super::logs::write_task_log(&transaction, &task.id, LogLevel::Info, &message)?;
            super::logs::write_audit(&transaction, now, "controller", "task found its machine", &task.id, machine)?;
        }
        transaction.commit().map_err(|e| storage(context, e))?;
        Ok(tasks.into_iter().map(|task| task.id).collect())
    }

    /// The machine has left, or nothing is known of any (`None`): tasks that wait for a yes to it wait for it again.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn machine_has_left(&self, machine: Option<&str>) -> Result<()> {
        let context = "task cannot be written";
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(|e| storage(context, e))?;
        let waiting = "state = 'queued' AND waits_for = 'operator' AND machine = coalesce(?1, machine)";
        for task in query(&transaction, waiting, [machine])? {
            let set = "UPDATE tasks SET waits_for = 'machine' WHERE id = ?1";
            transaction.execute(set, [&task.id]).map_err(|e| storage(context, e))?;
            let message = format!("{} has left: waiting for it again", task.machine);
            super::logs::write_task_log(&transaction, &task.id, LogLevel::Info, &message)?;
        }
        transaction.commit().map_err(|e| storage(context, e))
    }

    /// An operator says yes to the machine that a task has waited for; with a line in the audit log. From here on the
    /// task is queued.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it does not wait for that, [`ErrorKind::Storage`].
    pub fn confirm_task(&self, id: &str, actor: &str) -> Result<()> {
        let context = "task cannot be confirmed";
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(|e| storage(context, e))?;
        let task = one(&transaction, id)?;
        match task.state {
            TaskState::Unconfirmed => {}
            TaskState::Waiting => {
                let machine = &task.machine;
                let context = format!(
                    "task {id} waits for {machine}, which is not Cold Cloning Ready yet: start it from the boot image"
                );
                return Err(Error::new(ErrorKind::Conflict, context));
            }
            state => {
                let context = format!("task {id} is {state}: only one that waits for a yes to its machine is resumed");
                return Err(Error::new(ErrorKind::Conflict, context));
            }
        }
        transaction
            .execute("UPDATE tasks SET waits_for = NULL WHERE id = ?1", [id])
            .map_err(|e| storage(context, e))?;
        super::logs::write_audit(&transaction, Timestamp::now(), actor, "task confirmed", id, &task.machine)?;
        super::logs::write_task_log(&transaction, id, LogLevel::Info, &format!("confirmed by {actor}"))?;
        transaction.commit().map_err(|e| storage(context, e))
    }

    /// All tasks, the newest first.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn tasks(&self) -> Result<Vec<TaskRecord>> {
        query(&self.connection(), "1 ORDER BY created_at DESC, rowid DESC", [])
    }

    /// At most `limit` tasks that are older than the one with the id `after`, the newest first; only those that have the text
    /// `search` in id, name, machine, output, batch or state.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn tasks_page(&self, after: Option<&str>, limit: usize, search: Option<&str>) -> Result<Vec<TaskRecord>> {
        let filter = r"(?1 IS NULL OR rowid < (SELECT rowid FROM tasks WHERE id = ?1))
             AND (?2 IS NULL OR id || char(10) || name || char(10) || machine || char(10) || output || char(10)
                  || coalesce(batch, '') || char(10) || state LIKE ?2 ESCAPE '\')
             ORDER BY rowid DESC LIMIT ?3";
        query(&self.connection(), filter, params![after, search.map(containing), limit])
    }

    /// Tasks that are running, or may be begun now or at their time, the oldest first.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn unfinished_tasks(&self) -> Result<Vec<TaskRecord>> {
        let filter = "state IN ('queued', 'running') AND waits_for IS NULL ORDER BY created_at, rowid";
        query(&self.connection(), filter, [])
    }

    /// The task with this id.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn task(&self, id: &str) -> Result<Option<TaskRecord>> {
        Ok(query(&self.connection(), "id = ?1", [id])?.pop())
    }

    /// Marks a queued or interrupted task as running, with what its plan is by that. `false` where it is over by now.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn begin_task(&self, id: &str, plan: Option<&Plan>) -> Result<bool> {
        let plan = plan.map(|plan| to_json("schedule", plan)).transpose()?;
        let sql = "UPDATE tasks SET state = 'running', started_at = coalesce(started_at, ?2), error = NULL,
                   plan = coalesce(?3, plan), due_at = NULL
                   WHERE id = ?1 AND state IN ('queued', 'running') AND waits_for IS NULL";
        self.change(sql, params![id, Timestamp::now().0, plan])
    }

    /// Keeps when a task that may be begun is looked at again, or that its time has come (`None`), with its plan and a line
    /// in its log.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn set_due(&self, id: &str, plan: &Plan, due_at: Option<Timestamp>, told: (LogLevel, &str)) -> Result<()> {
        let context = "task cannot be written";
        let plan = to_json("schedule", plan)?;
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(|e| storage(context, e))?;
        let sql = "UPDATE tasks SET plan = ?2, due_at = ?3 WHERE id = ?1 AND state = 'queued' AND waits_for IS NULL";
        let changed = transaction.execute(sql, params![id, plan, due_at.map(|at| at.0)]);
        if changed.map_err(|e| storage(context, e))? == 1 {
            super::logs::write_task_log(&transaction, id, told.0, told.1)?;
        }
        transaction.commit().map_err(|e| storage(context, e))
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
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(|e| storage(context, e))?;
        let task = one(&transaction, id)?;
        if task.state == TaskState::Running || task.state.is_final() {
            let context = format!("task {id} is {}: only one that was not begun has a time to change", task.state);
            return Err(Error::new(ErrorKind::Conflict, context));
        }
        let mut plan = task.plan()?.unwrap_or_else(|| Plan::new(Schedule::default(), false, task.created_at));
        change(&mut plan);
        let plan = to_json("schedule", &plan)?;
        let sql = "UPDATE tasks SET plan = ?2, due_at = NULL WHERE id = ?1";
        transaction.execute(sql, params![id, plan]).map_err(|e| storage(context, e))?;
        super::logs::write_audit(&transaction, now, actor, action, id, detail)?;
        super::logs::write_task_log(&transaction, id, LogLevel::Info, &format!("{action} by {actor}"))?;
        transaction.commit().map_err(|e| storage(context, e))
    }

    /// Keeps where a running task is.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn task_progress(&self, id: &str, step: Option<&str>, done: u64, total: u64) -> Result<bool> {
        let sql = "UPDATE tasks SET step = coalesce(?2, step), done_bytes = ?3, total_bytes = ?4
                   WHERE id = ?1 AND state = 'running'";
        self.change(sql, params![id, step, done.cast_signed(), total.cast_signed()])
    }

    /// Ends a task in a final state, and logs it.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn end_task(&self, id: &str, state: TaskState, error: Option<&str>, outcome: Option<&str>) -> Result<bool> {
        let sql = "UPDATE tasks SET state = ?2, error = ?3, outcome = ?4, finished_at = ?5
                   WHERE id = ?1 AND state IN ('queued', 'running')";
        let context = "task cannot be written";
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(|e| storage(context, e))?;
        let values = params![id, state.as_str(), error, outcome, Timestamp::now().0];
        let changed = transaction.execute(sql, values).map_err(|e| storage(context, e))? == 1;
        if changed {
            let level = if state == TaskState::Failed { LogLevel::Error } else { LogLevel::Info };
            super::logs::write_task_log(&transaction, id, level, error.unwrap_or(state.as_str()))?;
        }
        transaction.commit().map_err(|e| storage(context, e))?;
        Ok(changed)
    }

    /// Asks for the end of a task that is not over, with a line in the audit log. A queued one is over with that.
    /// Returns its state before.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is over already, [`ErrorKind::Storage`].
    pub fn request_cancel(&self, id: &str, actor: &str) -> Result<TaskState> {
        let context = "task cannot be cancelled";
        let now = Timestamp::now();
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(|e| storage(context, e))?;
        let before = one(&transaction, id)?.state;
        if before.is_final() {
            return Err(Error::new(ErrorKind::Conflict, format!("task {id} is over already: {before}")));
        }
        transaction
            .execute(
                "UPDATE tasks SET cancel_requested = 1,
                 finished_at = CASE state WHEN 'queued' THEN ?2 ELSE finished_at END,
                 state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END WHERE id = ?1",
                params![id, now.0],
            )
            .map_err(|e| storage(context, e))?;
        super::logs::write_audit(&transaction, now, actor, "task cancelled", id, "")?;
        transaction.commit().map_err(|e| storage(context, e))?;
        Ok(before)
    }

    /// Queues a failed or cancelled task again, with a line in the audit log. One that waited for its machine when it was
    /// cancelled waits for it again, unless that `is_ready`: to ask for the task is a yes.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is not over, ended well, or another writes the same
    /// result by now, [`ErrorKind::Storage`].
    pub fn retry_task(&self, id: &str, is_ready: bool, actor: &str) -> Result<()> {
        let context = "task cannot be queued again";
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(|e| storage(context, e))?;
        let task = one(&transaction, id)?;
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
                "UPDATE tasks SET state = 'queued', cancel_requested = 0, finished_at = NULL, error = NULL, plan = ?3,
                 due_at = NULL,
                 waits_for = CASE WHEN ?2 OR waits_for IS NULL THEN NULL ELSE 'machine' END WHERE id = ?1",
                params![id, is_ready, plan],
            )
            .map_err(|e| taken(e, &task.name, &task.output, context))?;
        super::logs::write_audit(&transaction, Timestamp::now(), actor, "task tried again", id, "")?;
        transaction.commit().map_err(|e| storage(context, e))
    }

    fn change(&self, sql: &str, values: impl rusqlite::Params) -> Result<bool> {
        self.connection().execute(sql, values).map(|rows| rows == 1).map_err(|e| storage("task cannot be written", e))
    }
}

fn insert(connection: &Connection, task: &NewTask<'_>, batch: Option<&str>, actor: &str) -> Result<String> {
    let context = "task cannot be written";
    let (id, now) = (new_id("t")?, Timestamp::now());
    let plan = task.plan.map(|plan| to_json("schedule", plan)).transpose()?;
    connection
        .execute(
            "INSERT INTO tasks (id, name, machine, output, request, state, created_at, waits_for, batch, plan)
             VALUES (?1, ?2, ?3, ?4, ?5, 'queued', ?6, ?7, ?8, ?9)",
            params![
                id,
                task.name,
                task.machine,
                task.output,
                task.request,
                now.0,
                task.waits.then_some("machine"),
                batch,
                plan
            ],
        )
        .map_err(|e| taken(e, task.name, task.output, context))?;
    super::logs::write_audit(connection, now, actor, "task created", &id, task.request)?;
    Ok(id)
}

fn taken(error: rusqlite::Error, name: &str, output: &str, context: &str) -> Error {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
        && error.to_string().contains("UNIQUE")
    {
        Error::new(ErrorKind::Conflict, format!("another task makes {name:?} in {output} already"))
    } else {
        storage(context, error)
    }
}

fn one(connection: &Connection, id: &str) -> Result<TaskRecord> {
    query(connection, "id = ?1", [id])?.pop().ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no task {id}")))
}

pub(super) fn query(connection: &Connection, filter: &str, values: impl rusqlite::Params) -> Result<Vec<TaskRecord>> {
    let context = "tasks cannot be read";
    let mut statement = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM tasks WHERE {filter}"))
        .map_err(|e| storage(context, e))?;
    let rows = statement.query_map(values, record).map_err(|e| storage(context, e))?;
    rows.collect::<rusqlite::Result<_>>().map_err(|e| storage(context, e))
}

fn record(row: &Row<'_>) -> rusqlite::Result<TaskRecord> {
    let (state, waits_for): (String, Option<String>) = (row.get(5)?, row.get(15)?);
    let due_at = row.get::<_, Option<i64>>(18)?.map(Timestamp);
    Ok(TaskRecord {
        id: row.get(0)?,
        name: row.get(1)?,
        machine: row.get(2)?,
        output: row.get(3)?,
        request: row.get(4)?,
        state: TaskState::parse(&state, waits_for.as_deref(), due_at.is_some()),
        cancel_requested: row.get(6)?,
        step: row.get(7)?,
        done_bytes: row.get::<_, i64>(8)?.cast_unsigned(),
        total_bytes: row.get::<_, i64>(9)?.cast_unsigned(),
        error: row.get(10)?,
        outcome: row.get(11)?,
        created_at: Timestamp(row.get(12)?),
        started_at: row.get::<_, Option<i64>>(13)?.map(Timestamp),
        finished_at: row.get::<_, Option<i64>>(14)?.map(Timestamp),
        batch: row.get(16)?,
        plan: row.get(17)?,
        due_at,
    })
}

#[cfg(test)]
mod tests {
    use machine::Machine;

    use super::*;
    use crate::store::{Sighting, temporary_store};

    fn store_with_machine() -> (tempfile::TempDir, Store, String) {
        let (folder, store) = temporary_store();
        let report = Machine::default();
        let sighting =
            Sighting { key: "aa", report: &report, booted: "boot-image", agent_version: "0.1.0", boot_medium: None };
        store.approve_key("aa", "", "uid 0").unwrap();
        let machine = store.machine_reported(&sighting).unwrap();
        (folder, store, machine)
    }

    #[test]
    fn two_unfinished_tasks_never_make_the_same_result() {
        let (_folder, store, machine) = store_with_machine();
        let new = NewTask { name: "web", machine: &machine, output: "/vm", request: "{}", waits: false, plan: None };
        let first = store.create_task(&new, "uid 0").unwrap();
        assert_eq!(store.create_task(&new, "uid 0").unwrap_err().kind, ErrorKind::Conflict);
        assert!(store.end_task(&first, TaskState::Failed, Some("disk full"), None).unwrap());
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
        let new = NewTask { name: "web", machine: &machine, output: "/vm", request: "{}", waits: true, plan: None };
        let id = store.create_task(&new, "uid 0").unwrap();
        let state = || store.task(&id).unwrap().unwrap().state;
        assert_eq!(state(), TaskState::Waiting);
        assert!(!store.begin_task(&id, None).unwrap() && store.unfinished_tasks().unwrap().is_empty());
        assert_eq!(store.confirm_task(&id, "uid 0").unwrap_err().kind, ErrorKind::Conflict);
        assert_eq!(store.create_task(&new, "uid 0").unwrap_err().kind, ErrorKind::Conflict, "its name is taken");

        assert_eq!(store.machine_is_ready("m-another").unwrap(), Vec::<String>::new());
        assert_eq!(state(), TaskState::Waiting);
        assert_eq!(store.machine_is_ready(&machine).unwrap(), std::slice::from_ref(&id));
        assert_eq!(state(), TaskState::Unconfirmed);
        assert_eq!(store.machine_is_ready(&machine).unwrap(), Vec::<String>::new(), "told once");
        assert!(!store.begin_task(&id, None).unwrap());
        store.machine_has_left(Some("m-another")).unwrap();
        assert_eq!(state(), TaskState::Unconfirmed);
        store.machine_has_left(None).unwrap();
        assert_eq!(state(), TaskState::Waiting);

        store.machine_is_ready(&machine).unwrap();
        store.confirm_task(&id, "uid 7").unwrap();
        assert_eq!(state(), TaskState::Queued);
        store.machine_has_left(Some(&machine)).unwrap();
        assert!(store.begin_task(&id, None).unwrap());
        let audit: Vec<_> = store.audit(10).unwrap().into_iter().map(|line| (line.actor, line.action)).collect();
        let line = |actor: &str, action: &str| (actor.to_owned(), action.to_owned());
        assert_eq!(audit[0], line("uid 7", "task confirmed"));
        assert_eq!(audit[1], line("controller", "task found its machine"));
    }

    #[test]
    fn a_waiting_task_is_cancelled_and_tried_again_as_it_was() {
        let (_folder, store, machine) = store_with_machine();
        let new = NewTask { name: "web", machine: &machine, output: "/vm", request: "{}", waits: true, plan: None };
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
        let new = |name| NewTask { name, machine: &machine, output: "/vm", request: "{}", waits: false, plan: None };
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
        let new = NewTask { name: "web", machine: &machine, output: "/vm", request: "{}", waits: false, plan: None };
        let id = store.create_task(&new, "uid 0").unwrap();
        assert!(store.begin_task(&id, None).unwrap());
        assert!(store.task_progress(&id, Some("copy"), 1 << 40, 1 << 41).unwrap());
        assert_eq!(store.request_cancel(&id, "uid 0").unwrap(), TaskState::Running);
        assert!(store.task(&id).unwrap().unwrap().cancel_requested);
        assert!(store.end_task(&id, TaskState::Cancelled, None, None).unwrap());
        assert!(!store.end_task(&id, TaskState::Done, None, Some("{}")).unwrap());
        assert!(!store.begin_task(&id, None).unwrap());
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
        let new =
            NewTask { name: "web", machine: &machine, output: "/vm", request: "{}", waits: false, plan: Some(&plan) };
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
        assert!(store.begin_task(&id, Some(&plan)).unwrap());
        assert_eq!((task().state, task().due_at), (TaskState::Running, None));
        let refused = store.change_plan(&id, Plan::ask, ("task asked to begin", ""), "uid 7").unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Conflict);
    }
}
