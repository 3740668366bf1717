//! Tasks: each conversion, its state and its end.

use conversion::Request;
use rusqlite::{Connection, Row, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Store, containing, from_json, new_id, storage, to_json};
use crate::rcc::{Course, Rcc};
use crate::schedule::{BackBy, Plan};
use crate::{Error, ErrorKind, Result, Timestamp};

const COLUMNS: &str = "id, name, machine, output, request, state, cancel_requested, step, done_bytes, total_bytes, error, \
     outcome, created_at, started_at, finished_at, waits_for, batch, plan, due_at, paused, bytes_per_second, back_by, rcc, \
     course";

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
    /// An operator paused it; it goes on from what is durable when one says so.
    Paused,
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
    /// Bytes a second that may come in for it.
    pub bytes_per_second: Option<u64>,
    /// When its machine must have its own system again.
    pub back_by: Option<&'a BackBy>,
    /// How its live machine is restarted into the boot image, where that is wanted.
    pub rcc: Option<&'a Rcc>,
    /// Whether it is paused from the start: it begins when an operator says so.
    pub held: bool,
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
    /// Whether an operator asked for a pause while it was running.
    pub pause_requested: bool,
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
    /// Bytes a second that may come in for it; as fast as it goes without.
    pub bytes_per_second: Option<u64>,
    /// When its machine must have its own system again: [`BackBy`] as text.
    pub back_by: Option<String>,
    /// How its live machine is restarted into the boot image: [`Rcc`] as JSON.
    pub rcc: Option<String>,
    /// How that went: [`Course`] as JSON.
    pub course: Option<String>,
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

    /// When its machine must have its own system again.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn back_by(&self) -> Result<Option<BackBy>> {
        self.back_by.as_deref().map(str::parse).transpose().map_err(|e| {
            Error::with(ErrorKind::Storage, format!("task {}: when its machine is to be back", self.id), e)
        })
    }

    /// How its live machine is restarted into the boot image, where that was asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn rcc(&self) -> Result<Option<Rcc>> {
        self.rcc.as_deref().map(|text| from_json(&format!("restart of task {}", self.id), text)).transpose()
    }

    /// How that went so far.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn course(&self) -> Result<Course> {
        let text = self.course.as_deref();
        Ok(text.map(|text| from_json(&format!("course of task {}", self.id), text)).transpose()?.unwrap_or_default())
    }

    /// What was asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn request(&self) -> Result<Request> {
        from_json(&format!("request of task {}", self.id), &self.request)
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
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// From the columns `state`, `waits_for` and `due_at`.
    fn parse(state: &str, waits_for: Option<&str>, is_due_later: bool, is_paused: bool) -> Self {
        match (state, waits_for) {
            ("queued", _) if is_paused => Self::Paused,
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
        self.write(context, |transaction| {
            let id = insert(transaction, task, None, actor)?;
            Ok(id)
        })
    }

    /// Keeps batches of new tasks, all of them or none. Returns, for each, its id and those of its tasks.
    ///
    /// # Errors
    /// Those of [`Store::create_task`].
    pub fn create_batches(&self, batches: &[Vec<NewTask<'_>>], actor: &str) -> Result<Vec<(String, Vec<String>)>> {
        let context = "tasks cannot be written";
        self.write(context, |transaction| {
            let mut created = Vec::new();
            for tasks in batches {
                let batch = new_id("b")?;
                let ids: Result<Vec<String>> =
                    tasks.iter().map(|task| insert(transaction, task, Some(&batch), actor)).collect();
                created.push((batch, ids?));
            }
            Ok(created)
        })
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
        let filter =
            "(state = 'queued' AND NOT paused OR state = 'running') AND waits_for IS NULL ORDER BY created_at, rowid";
        query(&self.connection(), filter, [])
    }

    /// The task with this id.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn task(&self, id: &str) -> Result<Option<TaskRecord>> {
        Ok(query(&self.connection(), "id = ?1", [id])?.pop())
    }

    /// The task with this id, which must be there.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Storage`].
    pub fn existing_task(&self, id: &str) -> Result<TaskRecord> {
        one(&self.connection(), id)
    }

    /// The task that is not over and makes this result: there is one at most.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn maker_of(&self, output: &str, name: &str) -> Result<Option<TaskRecord>> {
        let filter = "output = ?1 AND name = ?2 AND state IN ('queued', 'running')";
        Ok(query(&self.connection(), filter, [output, name])?.pop())
    }
}

fn insert(connection: &Connection, task: &NewTask<'_>, batch: Option<&str>, actor: &str) -> Result<String> {
    let context = "task cannot be written";
    let (id, now) = (new_id("t")?, Timestamp::now());
    let plan = task.plan.map(|plan| to_json("schedule", plan)).transpose()?;
    let rcc = task.rcc.map(|rcc| to_json("restart", rcc)).transpose()?;
    connection
        .execute(
            "INSERT INTO tasks (id, name, machine, output, request, state, created_at, waits_for, batch, plan,
             bytes_per_second, back_by, rcc, paused) VALUES (?1, ?2, ?3, ?4, ?5, 'queued', ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                id,
                task.name,
                task.machine,
                task.output,
                task.request,
                now.0,
                task.waits.then_some("machine"),
                batch,
                plan,
                task.bytes_per_second.map(u64::cast_signed),
                task.back_by.map(BackBy::to_string),
                rcc,
                task.held
            ],
        )
        .map_err(|e| taken(e, task.name, task.output, context))?;
    super::logs::write_audit(connection, now, actor, "task created", &id, task.request)?;
    Ok(id)
}

pub(super) fn taken(error: rusqlite::Error, name: &str, output: &str, context: &str) -> Error {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
        && error.to_string().contains("UNIQUE")
    {
        Error::new(ErrorKind::Conflict, format!("another task makes {name:?} in {output} already"))
    } else {
        storage(context, error)
    }
}

pub(super) fn one(connection: &Connection, id: &str) -> Result<TaskRecord> {
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
        state: TaskState::parse(&state, waits_for.as_deref(), due_at.is_some(), row.get(19)?),
        pause_requested: row.get::<_, bool>(19)? && state == "running",
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
        bytes_per_second: row.get::<_, Option<i64>>(20)?.map(i64::cast_unsigned),
        back_by: row.get(21)?,
        rcc: row.get(22)?,
        course: row.get(23)?,
    })
}
