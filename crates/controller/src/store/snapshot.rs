//! A copy of the database as it is at one moment, made beside a controller that works on it; and what such a copy holds.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{MIGRATIONS, storage};
use crate::{Error, ErrorKind, Result};

/// What a database is, without bringing its schema up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Examined {
    /// Version of its schema.
    pub(crate) schema: u32,
    /// Tasks that a controller goes on with or begins at their time.
    pub(crate) unfinished_tasks: u64,
}

/// The schema that this program writes.
pub(crate) fn schema_known() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// Copies `database` into the empty file `into`: one read transaction, whatever is being written meanwhile.
///
/// # Errors
/// [`ErrorKind::NewerSchema`], [`ErrorKind::Locked`], [`ErrorKind::ReadOnly`], [`ErrorKind::Storage`].
pub(crate) fn snapshot(database: &Path, into: &Path) -> Result<Examined> {
    let context = || format!("database {}: cannot be copied", database.display());
    let connection = open(database)?;
    let target = into.to_str().ok_or_else(|| Error::new(ErrorKind::Invalid, "a path that is no UTF-8"))?;
    connection.execute("VACUUM INTO ?1", [target]).map_err(|e| storage(context(), e))?;
    drop(connection);
    examine(into)
}

/// Reads every page of a database that nobody works on, and what it is.
///
/// # Errors
/// [`ErrorKind::NewerSchema`]; [`ErrorKind::Storage`] for what is damaged, or no database of ours.
pub(crate) fn examine(database: &Path) -> Result<Examined> {
    let shown = database.display();
    let connection = open(database)?;
    let failed = |e| storage(format!("database {shown}: cannot be read"), e);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let known = schema_known();
    let schema = match u32::try_from(found) {
        Ok(0) | Err(_) => {
            let context = format!("database {shown}: expected one of vconverter, found schema version {found}");
            return Err(Error::new(ErrorKind::Storage, context));
        }
        Ok(found) if found > known => {
            let context = format!(
                "database {shown}: expected schema version {known} or older, found {found}: it was written by a newer \
                 vconverter"
            );
            return Err(Error::new(ErrorKind::NewerSchema, context));
        }
        Ok(found) => found,
    };
    let said: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if said != "ok" {
        return Err(Error::new(ErrorKind::Storage, format!("database {shown}: damaged: {said}")));
    }
    let over = "SELECT count(*) FROM tasks WHERE state NOT IN ('done', 'failed', 'cancelled')";
    let unfinished: i64 = connection.query_row(over, [], |row| row.get(0)).map_err(failed)?;
    Ok(Examined { schema, unfinished_tasks: u64::try_from(unfinished).unwrap_or(0) })
}

fn open(database: &Path) -> Result<Connection> {
    let context = || format!("database {}: cannot be opened", database.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags).map_err(|e| storage(context(), e))?;
    connection
        .busy_timeout(Duration::from_secs(5))
        .and_then(|()| connection.pragma_update(None, "trusted_schema", false))
        .map_err(|e| storage(context(), e))?;
    Ok(connection)
}
