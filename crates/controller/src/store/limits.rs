//! Limits of what runs.

use rusqlite::{OptionalExtension, params};

use super::tasks::one;
use super::{LogLevel, Store, from_json, storage, to_json};
use crate::limits::Limits;
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
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is over, [`ErrorKind::Storage`].
    pub fn set_task_rate(&self, id: &str, rate: Option<u64>, actor: &str) -> Result<()> {
        let context = "task cannot be written";
        self.write(context, |transaction| {
            let task = one(transaction, id)?;
            if task.state.is_final() {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("task {id} is {}: nothing comes in for it", task.state),
                ));
            }
            let sql = "UPDATE tasks SET bytes_per_second = ?2 WHERE id = ?1";
            transaction.execute(sql, params![id, rate.map(u64::cast_signed)]).map_err(|e| storage(context, e))?;
            let said =
                rate.map_or_else(|| "as fast as it goes".into(), |rate| format!("at most {rate} bytes a second"));
            super::logs::write_audit(transaction, Timestamp::now(), actor, "task's bandwidth set", id, &said)?;
            super::logs::write_task_log(transaction, id, LogLevel::Info, &format!("{said}, says {actor}"))?;
            Ok(())
        })
    }
}
