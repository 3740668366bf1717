//! What is written for a task while it runs: only by its owner, only in its epoch, only while the lease holds.
//!
//! A controller that was stopped for longer than its lease writes nothing when it is woken: another may have taken its
//! tasks over, and if none has, it takes them up again in a new epoch.

use std::time::Duration;

use conversion::Step;
use rusqlite::{Connection, OptionalExtension, params};

use super::tasks::{one, query};
use super::{LogLevel, Store, TaskState, steps, storage, to_json};
use crate::schedule::Plan;
use crate::{Result, Timestamp};

/// The right to work on a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The task.
    pub task: String,
    /// Counts who held it.
    epoch: i64,
}

/// How a task ended, or why it does not go on for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End<'a> {
    /// Well; what came out of it, as JSON.
    Done(&'a str),
    /// With an error, the whole chain.
    Failed(&'a str),
    /// An operator ended it.
    Cancelled,
    /// An operator paused it.
    Paused,
    /// The controller ends. The task stays running, for the next controller.
    Interrupted,
}

impl End<'_> {
    /// As it is written.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::Paused => "paused",
            Self::Interrupted => "interrupted by the end of the controller",
        }
    }
}

const HELD: &str = "id = ?1 AND epoch = ?2 AND owner = ?3 AND lease_until > ?4 AND state = 'running'";

impl Store {
    /// Takes a task up that may be begun, or that nobody works on any more, with what its plan is by that. Its steps are
    /// those of `steps` from now on. `None` where it is over by now, paused, or somebody else's.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn begin_task(&self, id: &str, plan: Option<&Plan>, steps: &[Step], lease: Duration) -> Result<Option<Lease>> {
        let context = "task cannot be begun";
        let plan = plan.map(|plan| to_json("schedule", plan)).transpose()?;
        let now = Timestamp::now();
        self.write(context, |transaction| {
            let sql = "UPDATE tasks SET state = 'running', started_at = coalesce(started_at, ?2), error = NULL,
                       plan = coalesce(?3, plan), due_at = NULL, owner = ?4, epoch = epoch + 1, lease_until = ?5
                       WHERE id = ?1 AND waits_for IS NULL
                       AND (state = 'queued' AND NOT paused OR state = 'running' AND coalesce(lease_until, 0) <= ?2)
                       RETURNING epoch";
            let until = now.after(lease).0;
            let epoch: Option<i64> = transaction
                .query_row(sql, params![id, now.0, plan, self.instance, until], |row| row.get(0))
                .optional()
                .map_err(|e| storage(context, e))?;
            let Some(epoch) = epoch else { return Ok(None) };
            steps::plan(transaction, id, steps)?;
            Ok(Some(Lease { task: id.to_owned(), epoch }))
        })
    }

    /// Makes leases that still hold end `lease` from now. Returns those that were lost.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn renew<'a>(&self, leases: &'a [Lease], lease: Duration) -> Result<Vec<&'a Lease>> {
        let context = "leases cannot be renewed";
        let now = Timestamp::now();
        self.write(context, |transaction| {
            let mut lost = Vec::new();
            for held in leases {
                let sql = format!("UPDATE tasks SET lease_until = ?5 WHERE {HELD}");
                let until = now.after(lease).0;
                let values = params![held.task, held.epoch, self.instance, now.0, until];
                if transaction.execute(&sql, values).map_err(|e| storage(context, e))? == 0 {
                    lost.push(held);
                }
            }
            Ok(lost)
        })
    }

    /// Ends all leases of controllers before this one. Only for who holds the data directory alone.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn end_foreign_leases(&self) -> Result<()> {
        self.connection()
            .execute(
                "UPDATE tasks SET lease_until = NULL WHERE owner <> ?1 AND lease_until IS NOT NULL",
                [&self.instance],
            )
            .map(drop)
            .map_err(|e| storage("leases cannot be ended", e))
    }

    /// A step begins. `false` where the lease is lost and nothing was written.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn step_begins(&self, lease: &Lease, step: Step) -> Result<bool> {
        let text = step.to_string();
        let sql = format!("UPDATE tasks SET step = ?5, done_bytes = 0, total_bytes = 0 WHERE {HELD}");
        self.under(lease, &sql, &[&text], |connection| {
            steps::begin(connection, &lease.task, step)?;
            super::logs::write_task_log(connection, &lease.task, LogLevel::Info, &text)
        })
    }

    /// Keeps where a running task is. `false` where the lease is lost and nothing was written.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn task_progress(&self, lease: &Lease, done: u64, total: u64) -> Result<bool> {
        let sql = format!("UPDATE tasks SET done_bytes = ?5, total_bytes = ?6 WHERE {HELD}");
        self.under(lease, &sql, &[&done.cast_signed(), &total.cast_signed()], |_| Ok(()))
    }

    /// A line of a running task's log. `false` where the lease is lost and nothing was written.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn task_says(&self, lease: &Lease, level: LogLevel, message: &str) -> Result<bool> {
        let sql = format!("UPDATE tasks SET step = step WHERE {HELD}");
        self.under(lease, &sql, &[], |connection| super::logs::write_task_log(connection, &lease.task, level, message))
    }

    /// Ends a task, or its being worked on, and logs it. An operator's wish to end or to pause it is kept, whatever the end.
    /// `false` where the lease is lost and nothing was written.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn end_task(&self, lease: &Lease, end: &End<'_>) -> Result<bool> {
        let (state, error, outcome) = match end {
            End::Done(outcome) => (TaskState::Done.as_str(), None, Some(*outcome)),
            End::Failed(error) => (TaskState::Failed.as_str(), Some(*error), None),
            End::Cancelled => (TaskState::Cancelled.as_str(), None, None),
            End::Paused => ("queued", None, None),
            End::Interrupted => ("running", None, None),
        };
        let over = matches!(end, End::Done(_) | End::Failed(_) | End::Cancelled);
        let finished_at = over.then(|| Timestamp::now().0);
        let sql = format!(
            "UPDATE tasks SET state = ?5, error = ?6, outcome = ?7, finished_at = ?8, lease_until = NULL,
             paused = paused AND NOT ?9 WHERE {HELD}"
        );
        let values: [&dyn rusqlite::ToSql; 5] = [&state, &error, &outcome, &finished_at, &over];
        self.under(lease, &sql, &values, |connection| {
            let (level, said) = match end {
                End::Failed(error) => (LogLevel::Error, *error),
                end => (LogLevel::Info, end.as_str()),
            };
            steps::end(connection, &lease.task, end)?;
            super::logs::write_task_log(connection, &lease.task, level, said)
        })
    }

    /// Ends a task that cannot even be begun.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn task_cannot_begin(&self, id: &str, error: &str) -> Result<()> {
        let context = "task cannot be written";
        self.write(context, |transaction| {
            let sql = "UPDATE tasks SET state = 'failed', error = ?2, finished_at = ?3
                       WHERE id = ?1 AND (state = 'queued' OR state = 'running' AND coalesce(lease_until, 0) <= ?3)";
            if transaction.execute(sql, params![id, error, Timestamp::now().0]).map_err(|e| storage(context, e))? == 1 {
                super::logs::write_task_log(transaction, id, LogLevel::Error, error)?;
            }
            Ok(())
        })
    }

    /// Tasks that run in the store and that nobody works on: those of a controller that was killed, or that slept.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn abandoned_tasks(&self) -> Result<Vec<super::TaskRecord>> {
        let filter = "state = 'running' AND coalesce(lease_until, 0) <= ?1 ORDER BY created_at, rowid";
        query(&self.connection(), filter, [Timestamp::now().0])
    }

    /// What an operator wants of a running task by now: whether to end it, and whether to pause it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn wanted_of(&self, id: &str) -> Result<(bool, bool)> {
        let task = one(&self.connection(), id)?;
        Ok((task.cancel_requested, task.pause_requested))
    }

    /// Runs `sql`, whose first four parameters are those of [`HELD`], and where it found the task, `then`, in one
    /// transaction.
    fn under(
        &self,
        lease: &Lease,
        sql: &str,
        values: &[&dyn rusqlite::ToSql],
        then: impl FnOnce(&Connection) -> Result<()>,
    ) -> Result<bool> {
        let context = "task cannot be written";
        let now = Timestamp::now().0;
        self.write(context, |transaction| {
            let held: [&dyn rusqlite::ToSql; 4] = [&lease.task, &lease.epoch, &self.instance, &now];
            let all: Vec<&dyn rusqlite::ToSql> = held.iter().chain(values).copied().collect();
            if transaction.execute(sql, all.as_slice()).map_err(|e| storage(context, e))? == 0 {
                return Ok(false);
            }
            then(transaction)?;
            Ok(true)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{STEPS, store_with_task};

    const LEASE: Duration = Duration::from_secs(30);

    #[test]
    fn who_stood_still_for_longer_than_the_lease_writes_nothing() {
        let (folder, store, id) = store_with_task();
        let lease = store.begin_task(&id, None, &STEPS, Duration::ZERO).unwrap().unwrap();
        assert!(!store.step_begins(&lease, Step::Copy).unwrap(), "it ended before it began");
        assert_eq!(store.renew(std::slice::from_ref(&lease), LEASE).unwrap(), [&lease]);

        let another = Store::open(&folder.path().join("controller.db")).unwrap();
        assert_eq!(another.abandoned_tasks().unwrap().len(), 1);
        let theirs = another.begin_task(&id, None, &STEPS, LEASE).unwrap().unwrap();
        assert_eq!(store.begin_task(&id, None, &STEPS, LEASE).unwrap(), None, "somebody works on it");
        assert!(another.step_begins(&theirs, Step::Copy).unwrap() && another.task_progress(&theirs, 7, 9).unwrap());

        let log = another.task_log(&id, 0, 100).unwrap().len();
        assert!(!store.step_begins(&lease, Step::FixUp).unwrap());
        assert!(!store.task_progress(&lease, 1, 1).unwrap());
        assert!(!store.task_says(&lease, LogLevel::Info, "I was away").unwrap());
        assert!(!store.end_task(&lease, &End::Failed("I was away")).unwrap());
        let task = another.task(&id).unwrap().unwrap();
        assert_eq!((task.state, task.done_bytes, task.step.as_deref()), (TaskState::Running, 7, Some("copy")));
        assert_eq!(another.task_log(&id, 0, 100).unwrap().len(), log);
        assert!(another.end_task(&theirs, &End::Done("{}")).unwrap());
        assert!(!another.end_task(&theirs, &End::Failed("too late")).unwrap(), "it ends once");
    }

    #[test]
    fn leases_of_a_controller_that_is_gone_are_ended_by_the_next() {
        let (folder, store, id) = store_with_task();
        let old = store.begin_task(&id, None, &STEPS, LEASE).unwrap().unwrap();
        let next = Store::open(&folder.path().join("controller.db")).unwrap();
        assert_eq!(next.begin_task(&id, None, &STEPS, LEASE).unwrap(), None);
        next.end_foreign_leases().unwrap();
        assert!(next.begin_task(&id, None, &STEPS, LEASE).unwrap().is_some());
        assert!(!store.end_task(&old, &End::Done("{}")).unwrap());
    }
}
