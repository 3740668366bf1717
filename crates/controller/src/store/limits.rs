//! Limits of what runs.

use rusqlite::{OptionalExtension, ToSql, params};

use super::tasks::{TaskState, one};
use super::{LogLevel, Store, from_json, storage, to_json};
use crate::limits::Limits;
use crate::schedule::BackBy;
use crate::{Error, ErrorKind, Result, Timestamp};

impl Store {
    /// The limits that were set last, else those of a new controller.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn limits(&self) -> Result<Limits> {
        let found: Option<String> = self
            .connection()
            .query_row("SELECT value FROM limits", [], |row| row.get(0))
            .optional()
            .map_err(|e| storage("limits cannot be read", e))?;
        found.map_or_else(|| Ok(Limits::default()), |text| from_json("limits", &text))
    }

    /// Sets the limits, with a line in the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn set_limits(&self, limits: &Limits, actor: &str) -> Result<()> {
        let context = "limits cannot be written";
        let value = to_json("limits", limits)?;
        self.write(context, |transaction| {
            let sql = "INSERT INTO limits VALUES (1, ?1) ON CONFLICT DO UPDATE SET value = ?1";
            transaction.execute(sql, [&value]).map_err(|e| storage(context, e))?;
            super::logs::write_audit(transaction, Timestamp::now(), actor, "limits set", "", &value)?;
            Ok(())
        })
    }

    /// Sets how many bytes a second may come in for a task, with lines in its log and the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is done, [`ErrorKind::Storage`].
    pub fn set_task_rate(&self, id: &str, rate: Option<u64>, actor: &str) -> Result<()> {
        let said = rate.map_or_else(|| "as fast as it goes".into(), |rate| format!("at most {rate} bytes a second"));
        let value = rate.map(u64::cast_signed);
        self.limit_task(id, "bytes_per_second", &value, "task's bandwidth set", &said, actor)
    }

    /// Sets by when a task's machine must be back in its own system, with lines in its log and the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is done, [`ErrorKind::Storage`].
    pub fn set_task_back_by(&self, id: &str, back_by: Option<&BackBy>, actor: &str) -> Result<()> {
        let said = back_by.map_or_else(
            || "the machine stays for as long as it takes".into(),
            |back_by| format!("the machine must be back by {back_by}"),
        );
        let value = back_by.map(BackBy::to_string);
        self.limit_task(id, "back_by", &value, "task's return set", &said, actor)
    }

    /// Writes `column` of a task. One that failed or was cancelled may be begun again, within other limits.
    fn limit_task(
        &self,
        id: &str,
        column: &'static str,
        value: &dyn ToSql,
        what: &str,
        said: &str,
        actor: &str,
    ) -> Result<()> {
        let context = "task cannot be written";
        self.write(context, |transaction| {
            if one(transaction, id)?.state == TaskState::Done {
                return Err(Error::new(ErrorKind::Conflict, format!("task {id} is done: nothing comes in for it")));
            }
            let sql = format!("UPDATE tasks SET {column} = ?2 WHERE id = ?1");
            transaction.execute(&sql, params![id, value]).map_err(|e| storage(context, e))?;
            super::logs::write_audit(transaction, Timestamp::now(), actor, what, id, said)?;
            super::logs::write_task_log(transaction, id, LogLevel::Info, &format!("{said}, says {actor}"))?;
            Ok(())
        })
    }
}
