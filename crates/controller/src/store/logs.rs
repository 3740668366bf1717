//! The log of each task, and the audit log of what operators did and what was refused.

use std::fmt;

use rusqlite::{Connection, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Store, storage};
use crate::{Result, Timestamp};

/// Lines kept of one task; a conversion writes some dozens, so this only bounds what a broken one could.
const TASK_LOG_LINES_MAX: i64 = 10_000;
/// Bytes kept of one message.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// How much a line of a task's log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// A step was begun or done.
    Info,
    /// The result is good and something should be looked at.
    Warning,
    /// Something failed.
    Error,
}

/// A line of a task's log.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LogEntry {
    /// Number that grows along the log; `after` of the next query.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub level: LogLevel,
    /// What happened.
    pub message: String,
}

/// A line of the audit log.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who: `uid 0`, or `controller`.
    pub actor: String,
    /// What was done or refused.
    pub action: String,
    /// Machine or task.
    pub subject: String,
    /// More about it.
    pub detail: String,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl LogLevel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "info" => Self::Info,
            "warning" => Self::Warning,
            _ => Self::Error,
        }
    }
}

impl Store {
    /// Adds a line to a task's log. Past the bound of lines the newest are left out.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind).
    pub fn log_task(&self, task: &str, level: LogLevel, message: &str) -> Result<()> {
        write_task_log(&self.connection(), task, level, message)
    }

    /// Lines of a task's log after the one with id `after` (0 for all), at most `limit`, oldest first.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind).
    pub fn task_log(&self, task: &str, after: i64, limit: u32) -> Result<Vec<LogEntry>> {
        let context = "task log cannot be read";
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(
                "SELECT id, at, level, message FROM task_log WHERE task = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
            )
            .map_err(|e| storage(context, e))?;
        let rows = statement
            .query_map(params![task, after, limit], |row| {
                let level: String = row.get(2)?;
                Ok(LogEntry {
                    id: row.get(0)?,
                    at: Timestamp(row.get(1)?),
                    level: LogLevel::parse(&level),
                    message: row.get(3)?,
                })
            })
            .map_err(|e| storage(context, e))?;
        rows.collect::<rusqlite::Result<_>>().map_err(|e| storage(context, e))
    }

    /// Adds a line to the audit log.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind).
    pub fn write_audit(&self, actor: &str, action: &str, subject: &str, detail: &str) -> Result<()> {
        write_audit(&self.connection(), Timestamp::now(), actor, action, subject, detail)
    }

    /// The last `limit` lines of the audit log, newest first.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind).
    pub fn audit(&self, limit: u32) -> Result<Vec<AuditEntry>> {
        let context = "audit log cannot be read";
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT at, actor, action, subject, detail FROM audit_log ORDER BY id DESC LIMIT ?1")
            .map_err(|e| storage(context, e))?;
        let rows = statement
            .query_map([limit], |row| {
                Ok(AuditEntry {
                    at: Timestamp(row.get(0)?),
                    actor: row.get(1)?,
                    action: row.get(2)?,
                    subject: row.get(3)?,
                    detail: row.get(4)?,
                })
            })
            .map_err(|e| storage(context, e))?;
        rows.collect::<rusqlite::Result<_>>().map_err(|e| storage(context, e))
    }
}

pub(super) fn write_task_log(connection: &Connection, task: &str, level: LogLevel, message: &str) -> Result<()> {
    connection
        .execute(
            "INSERT INTO task_log (task, at, level, message) SELECT ?1, ?2, ?3, ?4
             WHERE (SELECT count(*) FROM task_log WHERE task = ?1) < ?5",
            params![task, Timestamp::now().0, level.as_str(), cut(message), TASK_LOG_LINES_MAX],
        )
        .map(drop)
        .map_err(|e| storage("task log cannot be written", e))
}

pub(super) fn write_audit(
    connection: &Connection,
    at: Timestamp,
    actor: &str,
    action: &str,
    subject: &str,
    detail: &str,
) -> Result<()> {
    connection
        .execute(
            "INSERT INTO audit_log (at, actor, action, subject, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![at.0, actor, action, subject, cut(detail)],
        )
        .map(drop)
        .map_err(|e| storage("audit log cannot be written", e))
}

fn cut(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}
