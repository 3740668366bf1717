//! Cutovers: which source gave its place to its VM.

use rusqlite::{OptionalExtension, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tasks::one;
use super::{LogLevel, Store, storage};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Where a cutover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CutoverState {
    /// The source is switched off, its VM defined, connected and started.
    Running,
    /// The VM has the source's place.
    Done,
    /// The VM is stopped and disconnected, the source woken.
    Undoing,
    /// The source may have its place again.
    Undone,
    /// It did not get to its end; it can be asked for again, and undone.
    Failed,
}

/// A cutover as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cutover {
    /// The task whose VM it is.
    pub task: String,
    /// Where it is.
    pub state: CutoverState,
    /// Where the VM is, as libvirt names it: `qemu:///system`.
    pub connection: String,
    /// Why it failed.
    pub error: Option<String>,
    /// Since when it is there.
    pub changed_at: Timestamp,
}

impl CutoverState {
    const ALL: [Self; 5] = [Self::Running, Self::Done, Self::Undoing, Self::Undone, Self::Failed];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::Failed => "failed",
        }
    }

    /// Whether something is at work.
    pub fn is_busy(self) -> bool {
        matches!(self, Self::Running | Self::Undoing)
    }
}

impl Store {
    /// The cutover of a task, where one was asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn cutover(&self, task: &str) -> Result<Option<Cutover>> {
        let sql = "SELECT state, connection, error, changed_at FROM cutovers WHERE task = ?1";
        let found = self.connection().query_row(sql, [task], |row| {
            let state: String = row.get(0)?;
            let known = CutoverState::ALL.into_iter().find(|one| one.as_str() == state);
            Ok(Cutover {
                task: task.to_owned(),
                state: known.unwrap_or(CutoverState::Failed),
                connection: row.get(1)?,
                error: row.get(2)?,
                changed_at: Timestamp(row.get(3)?),
            })
        });
        found.optional().map_err(|e| storage("cutover cannot be read", e))
    }

    /// Begins a cutover, or its undoing, with a line in the task's log and the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the task; [`ErrorKind::Conflict`] where one is at work; [`ErrorKind::Storage`].
    pub fn begin_cutover(&self, task: &str, state: CutoverState, connection: &str, actor: &str) -> Result<()> {
        let context = "cutover cannot be written";
        self.write(context, |transaction| {
            one(transaction, task)?;
            let sql = "INSERT INTO cutovers VALUES (?1, ?2, ?3, NULL, ?4) ON CONFLICT (task) DO UPDATE
                       SET state = ?2, connection = ?3, error = NULL, changed_at = ?4
                       WHERE state NOT IN ('running', 'undoing')";
            let now = Timestamp::now();
            let values = params![task, state.as_str(), connection, now.0];
            if transaction.execute(sql, values).map_err(|e| storage(context, e))? == 0 {
                return Err(Error::new(ErrorKind::Conflict, format!("the cutover of task {task} is at work")));
            }
            let what = if state == CutoverState::Undoing { "cutover undone" } else { "cutover" };
            super::logs::write_audit(transaction, now, actor, what, task, connection)?;
            super::logs::write_task_log(transaction, task, LogLevel::Info, &format!("{what} asked for by {actor}"))
        })
    }

    /// Notes where a cutover got to.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn end_cutover(&self, task: &str, state: CutoverState, error: Option<&str>) -> Result<()> {
        let context = "cutover cannot be written";
        self.write(context, |transaction| {
            let sql = "UPDATE cutovers SET state = ?2, error = ?3, changed_at = ?4 WHERE task = ?1";
            let values = params![task, state.as_str(), error, Timestamp::now().0];
            transaction.execute(sql, values).map_err(|e| storage(context, e))?;
            let (level, said) = match error {
                Some(error) => (LogLevel::Error, format!("cutover failed: {error}")),
                None => (LogLevel::Info, format!("cutover {}", state.as_str())),
            };
            super::logs::write_task_log(transaction, task, level, &said)
        })
    }

    /// Ends those that a controller which is gone had at work. Returns how many.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn end_interrupted_cutovers(&self) -> Result<usize> {
        let sql = "UPDATE cutovers SET state = 'failed', changed_at = ?1, error =
                   'the controller ended in the midst of it: ask for it again, or undo it'
                   WHERE state IN ('running', 'undoing')";
        let ended = self.connection().execute(sql, [Timestamp::now().0]);
        ended.map_err(|e| storage("cutovers cannot be ended", e))
    }
}
