//! What happened to each machine: coarse, bounded, for people.
//!
//! Tasks are not written down again: a machine's history shows those that there are. A link that was cut for some minutes,
//! or a controller that was started again, leaves no line.

use rusqlite::{Connection, OptionalExtension, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Store, storage};
use crate::{Error, ErrorKind, Result, Timestamp};

/// An absence that is shorter is none.
const ABSENCE_MS: i64 = 10 * 60 * 1000;
/// Characters of a line.
const DETAIL_CHARS_MAX: usize = 500;

/// What happened to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryEvent {
    /// An operator added it by its address.
    Added,
    /// An agent of it was approved.
    Approved,
    /// It and one that was added are one machine.
    Joined,
    /// Its agent came.
    Connected,
    /// Its agent left, and did not come back soon.
    Left,
    /// Its agent reports something else than before.
    Changed,
    /// An operator said something else of it.
    Edited,
    /// A conversion of it was asked for.
    TaskCreated,
    /// A conversion of it ended well.
    TaskDone,
    /// A conversion of it failed.
    TaskFailed,
    /// A conversion of it was cancelled.
    TaskCancelled,
}

/// A line of a machine's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: HistoryEvent,
    /// More about it.
    pub detail: String,
}

impl HistoryEvent {
    const ALL: [Self; 11] = [
        Self::Added,
        Self::Approved,
        Self::Joined,
        Self::Connected,
        Self::Left,
        Self::Changed,
        Self::Edited,
        Self::TaskCreated,
        Self::TaskDone,
        Self::TaskFailed,
        Self::TaskCancelled,
    ];

    /// As it is kept and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Approved => "approved",
            Self::Joined => "joined",
            Self::Connected => "connected",
            Self::Left => "left",
            Self::Changed => "changed",
            Self::Edited => "edited",
            Self::TaskCreated => "task-created",
            Self::TaskDone => "task-done",
            Self::TaskFailed => "task-failed",
            Self::TaskCancelled => "task-cancelled",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|one| one.as_str() == text);
        known.ok_or_else(|| Error::new(ErrorKind::Storage, format!("a machine's history holds the event {text:?}")))
    }
}

impl Store {
    /// The last `limit` lines of a machine's history, the newest first.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn machine_history(&self, machine: &str, limit: u32) -> Result<Vec<HistoryEntry>> {
        let context = "history cannot be read";
        let connection = self.connection();
        // Of one millisecond: the machine came before its task was asked for, and that before the task ended.
        let sql = "SELECT at, event, detail, 0, id FROM machine_history WHERE machine = ?1
             UNION ALL SELECT created_at, 'task-created', name || ' (' || id || ')', 1, 0 FROM tasks WHERE machine = ?1
             UNION ALL SELECT finished_at, 'task-' || state, name || ' (' || id || ')' || coalesce(': ' || error, ''), 2, 0
                FROM tasks WHERE machine = ?1 AND finished_at IS NOT NULL AND state IN ('done', 'failed', 'cancelled')
             ORDER BY 1 DESC, 4 DESC, 5 DESC LIMIT ?2";
        let mut statement = connection.prepare_cached(sql).map_err(|e| storage(context, e))?;
        let rows = statement
            .query_map(params![machine, limit], |row| {
                Ok((Timestamp(row.get(0)?), row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            })
            .map_err(|e| storage(context, e))?;
        rows.map(|row| {
            let (at, event, detail) = row.map_err(|e| storage(context, e))?;
            Ok(HistoryEntry { at, event: HistoryEvent::parse(&event)?, detail: short(&detail) })
        })
        .collect()
    }

    /// The agent of a machine left.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn machine_left(&self, machine: &str) -> Result<()> {
        self.write("history cannot be written", |transaction| {
            let now = Timestamp::now();
            transaction
                .execute("UPDATE machines SET last_seen = ?2 WHERE id = ?1", params![machine, now.0])
                .map_err(|e| storage("machine cannot be updated", e))?;
            match last_presence(transaction, machine)? {
                Some(last) if last.event == HistoryEvent::Connected.as_str() => {
                    write(transaction, machine, now, HistoryEvent::Left, "")
                }
                _ => Ok(()),
            }
        })
    }
}

/// Adds a line to the history of a machine that there is.
pub(super) fn write(
    connection: &Connection,
    machine: &str,
    at: Timestamp,
    event: HistoryEvent,
    detail: &str,
) -> Result<()> {
    connection
        .execute(
            "INSERT INTO machine_history (machine, at, event, detail) VALUES (?1, ?2, ?3, ?4)",
            params![machine, at.0, event.as_str(), short(detail)],
        )
        .map(drop)
        .map_err(|e| storage("history cannot be written", e))
}

/// The agent of a machine came, `detail` says how; `last_seen` is when it was heard before.
pub(super) fn connected(
    connection: &Connection,
    machine: &str,
    now: Timestamp,
    last_seen: Timestamp,
    detail: &str,
) -> Result<()> {
    let Some(last) = last_presence(connection, machine)? else {
        return write(connection, machine, now, HistoryEvent::Connected, detail);
    };
    let is_soon = |since: i64| now.0.saturating_sub(since) < ABSENCE_MS;
    if last.event == HistoryEvent::Left.as_str() {
        if is_soon(last.at) && last.came_by.as_deref() == Some(detail) {
            // As if it had not left.
            return connection
                .execute("DELETE FROM machine_history WHERE id = ?1", [last.id])
                .map(drop)
                .map_err(|e| storage("history cannot be written", e));
        }
        return write(connection, machine, now, HistoryEvent::Connected, detail);
    }
    if !is_soon(last_seen.0) {
        // Nobody was there to see it leave.
        write(connection, machine, last_seen, HistoryEvent::Left, "the controller did not run")?;
    } else if last.came_by.as_deref() == Some(detail) {
        return Ok(());
    }
    write(connection, machine, now, HistoryEvent::Connected, detail)
}

/// The last line about a machine's coming and going.
struct Presence {
    id: i64,
    at: i64,
    event: String,
    /// How it came last.
    came_by: Option<String>,
}

fn last_presence(connection: &Connection, machine: &str) -> Result<Option<Presence>> {
    connection
        .query_row(
            "SELECT id, at, event, (SELECT detail FROM machine_history AS came
                 WHERE came.machine = ?1 AND came.event = 'connected' ORDER BY came.id DESC LIMIT 1)
             FROM machine_history WHERE machine = ?1 AND event IN ('connected', 'left') ORDER BY id DESC LIMIT 1",
            [machine],
            |row| Ok(Presence { id: row.get(0)?, at: row.get(1)?, event: row.get(2)?, came_by: row.get(3)? }),
        )
        .optional()
        .map_err(|e| storage("history cannot be read", e))
}

fn short(detail: &str) -> String {
    detail.chars().filter(|c| !c.is_control()).take(DETAIL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{store_with_machine, store_with_task};
    use super::*;

    fn told(store: &Store, machine: &str) -> Vec<String> {
        let history = store.machine_history(machine, 1000).unwrap();
        history.into_iter().rev().map(|entry| format!("{} {}", entry.event.as_str(), entry.detail)).collect()
    }

    /// What the history says of comings and goings at these minutes: `+` comes live, `*` from the boot image, `-` leaves, and `!`
    /// comes without having left.
    fn presence(moves: &[(i64, char)]) -> Vec<String> {
        let (_folder, store, machine) = store_with_machine();
        let connection = store.connection();
        connection.execute("DELETE FROM machine_history", []).unwrap();
        let mut seen = 0;
        for (minute, what) in moves {
            let now = Timestamp(minute * 60_000);
            match what {
                '-' => write(&connection, &machine, now, HistoryEvent::Left, "").unwrap(),
                '*' => connected(&connection, &machine, now, Timestamp(seen), "boot image").unwrap(),
                _ => connected(&connection, &machine, now, Timestamp(seen), "live").unwrap(),
            }
            seen = now.0;
        }
        drop(connection);
        let lines = store.machine_history(&machine, 100).unwrap();
        lines
            .iter()
            .rev()
            .map(|line| format!("{} {} {}", line.at.0 / 60_000, line.event.as_str(), line.detail))
            .collect()
    }

    #[test]
    fn a_machine_that_is_back_soon_was_not_away() {
        assert_eq!(presence(&[(1, '+'), (5, '-'), (9, '+'), (20, '-')]), ["1 connected live", "20 left "]);
        assert_eq!(presence(&[(1, '+'), (5, '-'), (15, '+')]), ["1 connected live", "5 left ", "15 connected live"]);
        let other_system = ["1 connected live", "5 left ", "6 connected boot image"];
        assert_eq!(presence(&[(1, '+'), (5, '-'), (6, '*')]), other_system, "it was started from something else");
        assert_eq!(presence(&[(1, '+'), (3, '!')]), ["1 connected live"], "the controller was started again");
        let unseen = ["1 connected live", "1 left the controller did not run", "90 connected live"];
        assert_eq!(presence(&[(1, '+'), (90, '!')]), unseen);
    }

    #[test]
    fn the_newest_lines_are_kept_and_tasks_are_among_them() {
        let (_folder, store, task) = store_with_task();
        let machine = store.task(&task).unwrap().unwrap().machine;
        store.request_cancel(&task, "uid 0").unwrap();
        println!("{:#?}", told(&store, &machine));
        let last: Vec<String> = told(&store, &machine).into_iter().rev().take(2).collect();
        assert_eq!(last, [format!("task-cancelled web ({task})"), format!("task-created web ({task})")]);
        let connection = store.connection();
        for number in 0..1000 {
            let long = format!("\u{1b}[2J{number} {}", "x".repeat(1000));
            write(&connection, &machine, Timestamp(number), HistoryEvent::Changed, &long).unwrap();
        }
        drop(connection);
        let lines = store.machine_history(&machine, 10_000).unwrap();
        assert_eq!(lines.len(), 502, "five hundred and those of the task");
        assert!(
            lines.iter().all(|line| line.detail.chars().count() <= DETAIL_CHARS_MAX && !line.detail.contains('\u{1b}'))
        );
        assert!(
            lines.iter().any(|line| line.detail.starts_with("[2J999 "))
                && !lines.iter().any(|line| line.detail.starts_with("[2J499 "))
        );
        assert_eq!(store.machine_history(&machine, 3).unwrap().len(), 3);
    }
}
