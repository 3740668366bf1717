//! Which machines and tasks were written since somebody looked last, for those who watch.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::Action;

use super::{Store, TaskRecord};
use crate::Result;
use crate::store::KnownMachine;

/// Rows that are remembered of each table. Who finds more looks at everything.
const ROWS_MAX: usize = 4096;

/// Rows that were written, by SQLite's `rowid`.
#[derive(Debug, Default)]
pub(super) struct Changes {
    machines: BTreeSet<i64>,
    tasks: BTreeSet<i64>,
    overflowed: bool,
}

/// What was written.
#[derive(Debug, Default)]
pub struct Changed {
    /// Machines as they are now.
    pub machines: Vec<KnownMachine>,
    /// Tasks as they are now.
    pub tasks: Vec<TaskRecord>,
    /// More than can be named: look at everything.
    pub overflowed: bool,
}

/// Has `connection` write down what it writes. Some of it may be rolled back: then nothing is different.
pub(super) fn watch(connection: &Connection) -> Arc<Mutex<Changes>> {
    let changes = Arc::new(Mutex::new(Changes::default()));
    let seen = Arc::clone(&changes);
    connection.update_hook(Some(move |action: Action, _: &str, table: &str, row: i64| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = match table {
            "machines" => &mut seen.machines,
            "tasks" => &mut seen.tasks,
            // Who shows groups reads them all.
            "machine_groups" => {
                seen.overflowed = true;
                return;
            }
            _ => return,
        };
        rows.insert(row);
        // A machine that is forgotten is not there to be named.
        let is_forgotten = table == "machines" && action == Action::SQLITE_DELETE;
        seen.overflowed |= is_forgotten || rows.len() > ROWS_MAX;
        if seen.overflowed {
            (seen.machines, seen.tasks) = Default::default();
        }
    }));
    changes
}

impl Store {
    /// What was written since this was asked last.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub fn take_changes(&self) -> Result<Changed> {
        let connection = self.connection();
        let taken = std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner));
        let list = |rows: &BTreeSet<i64>| {
            let rows: Vec<i64> = rows.iter().copied().collect();
            serde_json::to_string(&rows).unwrap_or_default()
        };
        let among = "rowid IN (SELECT value FROM json_each(?1))";
        let mut changed = Changed { overflowed: taken.overflowed, ..Changed::default() };
        if !taken.machines.is_empty() {
            changed.machines = super::machines::query(&connection, among, [list(&taken.machines)])?;
        }
        if !taken.tasks.is_empty() {
            changed.tasks = super::tasks::query(&connection, among, [list(&taken.tasks)])?;
        }
        Ok(changed)
    }
}
