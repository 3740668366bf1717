//! The store: the only place with SQL.
//!
//! One SQLite database in WAL mode, one connection behind a mutex: statements here take well under a millisecond, and one
//! writer is all that SQLite has. What a method returns as done is on disk (`synchronous = FULL`): an operator's action
//! that was acknowledged survives a SIGKILL and a power cut. The schema's version is SQLite's `user_version`; each
//! migration is a numbered file and runs in a transaction together with the change of version.

mod agent_keys;
mod api_tokens;
mod changes;
mod counts;
mod courses;
mod credentials;
mod cutovers;
mod enrolment_tokens;
mod groups;
mod history;
mod leases;
mod limits;
mod logs;
mod machines;
mod mails;
mod particulars;
mod profiles;
mod pxe;
mod snapshot;
mod steps;
mod task_changes;
mod tasks;
mod users;
mod web_sessions;

use std::fs::OpenOptions;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::metrics::Latency;
use crate::{Error, ErrorKind, Result};

pub use agent_keys::{AgentKey, KeyStanding};
pub use api_tokens::{ApiToken, NewApiToken};
pub use changes::Changed;
pub use credentials::{SealedCredential, VaultLock};
pub use cutovers::{Cutover, CutoverState};
pub use enrolment_tokens::{Bound, Enrolling, EnrolmentRecord, NewEnrolmentToken, TokenRefusal};
pub use groups::MachineGroup;
pub use history::{HistoryEntry, HistoryEvent};
pub use leases::{End, Lease};
pub use logs::{AuditEntry, LogEntry, LogLevel};
pub(crate) use machines::NO_AGENT_REMEDY;
pub use machines::{KnownMachine, Sighting};
pub use mails::QueuedMail;
pub use particulars::{Adding, Addition, Candidate, FaultyRow, KnownRow};
pub use profiles::Profile;
pub use pxe::{PxePolicy, PxeRule};
pub(crate) use snapshot::{Examined, examine, schema_known, snapshot};
pub use steps::{StepState, TaskStep};
pub use tasks::{NewTask, TaskRecord, TaskState};
pub use users::{NewUser, User, UserChange};
pub use web_sessions::{NewSession, SessionBounds};

/// All migrations in order; the number of the last is the schema's version.
const MIGRATIONS: &[(&str, &str)] = &[
    ("first light", include_str!("migrations/0001_first_light.sql")),
    ("PXE policies", include_str!("migrations/0002_pxe.sql")),
    ("Cold Cloning Ready", include_str!("migrations/0003_ready.sql")),
    ("schedules", include_str!("migrations/0004_schedules.sql")),
    ("trust", include_str!("migrations/0005_trust.sql")),
    ("steps", include_str!("migrations/0006_steps.sql")),
    ("limits", include_str!("migrations/0007_limits.sql")),
    ("mail", include_str!("migrations/0008_mail.sql")),
    ("enrolment", include_str!("migrations/0009_enrolment.sql")),
    ("inventory", include_str!("migrations/0010_inventory.sql")),
    ("back by", include_str!("migrations/0011_back_by.sql")),
    ("cutovers", include_str!("migrations/0012_cutovers.sql")),
    ("machine facts", include_str!("migrations/0013_machine_facts.sql")),
    ("automated RCC", include_str!("migrations/0014_rcc.sql")),
];

/// The controller's memory. Every method may block for a write to disk.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
    changes: Arc<Mutex<changes::Changes>>,
    /// Under which name leases are taken: another one each time that the store is opened.
    instance: String,
    latency: Latency,
}

/// The connection, and since when somebody wanted it.
struct Held<'a> {
    connection: MutexGuard<'a, Connection>,
    latency: &'a Latency,
    since: Instant,
}

impl Deref for Held<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.latency.observe(self.since.elapsed());
    }
}

impl Store {
    /// Opens the database at `path`, made with mode 0600 where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::NewerSchema`] (nothing was changed), [`ErrorKind::Locked`] where another
    /// process holds it, [`ErrorKind::Storage`] for a file that is no database of ours.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        // Made here and not by SQLite, which knows nothing of modes; its -wal and -shm files take the mode over.
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| Error::io(format!("database {shown}: cannot be opened for writing"), e))?;
        let mut connection =
            Connection::open(path).map_err(|e| storage(format!("database {shown}: cannot be opened"), e))?;
        prepare(&mut connection).map_err(|e| storage(format!("database {shown}: cannot be prepared"), e))?;
        migrate(&mut connection, MIGRATIONS).map_err(|e| match e.kind {
            ErrorKind::NewerSchema => Error { context: format!("database {shown}: {}", e.context), ..e },
            _ => Error::with(e.kind, format!("database {shown}: schema cannot be brought up to date"), e),
        })?;
        let changes = changes::watch(&connection);
        let (instance, latency) = (new_id("i")?, Latency::default());
        Ok(Self { connection: Mutex::new(connection), changes, instance, latency })
    }

    /// The connection; a panic of another thread under the lock left no transaction open, for dropping one rolls back.
    fn connection(&self) -> Held<'_> {
        let since = Instant::now();
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        Held { connection, latency: &self.latency, since }
    }

    /// Does all of `work`, or nothing of it where it fails. `context` says what could not be done.
    fn write<T>(&self, context: &str, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.connection();
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| storage(context, e))?;
        let done = work(&transaction)?;
        transaction.commit().map_err(|e| storage(context, e))?;
        Ok(done)
    }

    /// How long its callers waited for it and worked with it.
    pub(crate) fn latency(&self) -> &Latency {
        &self.latency
    }
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)
}

fn migrate(connection: &mut Connection, migrations: &[(&str, &str)]) -> Result<()> {
    let known = migrations.len() as i64;
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|e| storage("schema version cannot be read", e))?;
    let found: i64 = transaction
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|e| storage("schema version cannot be read", e))?;
    if found > known {
        let context =
            format!("expected schema version {known} or older, found {found}: it was written by a newer vconverter");
        return Err(Error::new(ErrorKind::NewerSchema, context));
    }
    let foreign: Option<String> = transaction
        .query_row("SELECT name FROM sqlite_schema LIMIT 1", [], |row| row.get(0))
        .optional()
        .map_err(|e| storage("schema cannot be read", e))?;
    if found < 0 || (found == 0 && foreign.is_some()) {
        return Err(Error::new(ErrorKind::Storage, "expected an empty database or one of vconverter"));
    }
    for (number, (name, sql)) in migrations.iter().enumerate().skip(usize::try_from(found).unwrap_or(0)) {
        let number = number + 1;
        transaction.execute_batch(sql).map_err(|e| storage(format!("migration {number} ({name}) failed"), e))?;
    }
    transaction
        .pragma_update(None, "user_version", known)
        .and_then(|()| transaction.commit())
        .map_err(|e| storage("schema version cannot be written", e))
}

/// An error of SQLite with the kind that it means to an operator.
fn storage(context: impl Into<String>, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
        let context = format!("{}: no space left for the database: make room, and ask again", context.into());
        return Error::with(ErrorKind::Storage, context, error);
    }
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => ErrorKind::ReadOnly,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Locked,
        _ => ErrorKind::Storage,
    };
    Error::with(kind, context, error)
}

/// Text of the store that must be JSON of `T`.
fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|e| Error::with(ErrorKind::Storage, format!("{what} in the database cannot be understood"), e))
}

fn to_json<T: serde::Serialize>(what: &str, value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Error::with(ErrorKind::Storage, format!("{what} cannot be written as JSON"), e))
}

/// A pattern of SQL's `LIKE ... ESCAPE '\'` for texts that have `text` in them.
fn containing(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

/// A new id: `prefix` and 32 random bits.
fn new_id(prefix: &str) -> Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|e| Error::with(ErrorKind::Io, "no random numbers from the operating system", e.to_string()))?;
    Ok(format!("{prefix}-{:08x}", u32::from_le_bytes(random)))
}

/// A new store in a folder that goes with it.
#[cfg(test)]
pub(crate) fn temporary_store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("controller.db")).unwrap();
    (folder, store)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use conversion::Step;

    use super::*;

    /// The steps of a task in tests.
    pub(super) const STEPS: [Step; 5] = [Step::Check, Step::Copy, Step::FixUp, Step::Define, Step::Prove];

    /// Begins a task for long.
    pub(super) fn begin(store: &Store, id: &str) -> Option<Lease> {
        store.begin_task(id, None, &STEPS, Duration::from_secs(60)).unwrap()
    }

    pub(super) fn store_with_machine() -> (tempfile::TempDir, Store, String) {
        let (folder, store) = temporary_store();
        let report = machine::Machine::default();
        let sighting =
            Sighting { key: "aa", report: &report, booted: "boot-image", agent_version: "0.1.0", boot_medium: None };
        store.approve_key("aa", "", "uid 0").unwrap();
        let machine = store.machine_reported(&sighting).unwrap();
        (folder, store, machine)
    }

    /// A task that is begun as soon as there is room.
    pub(super) fn new_task(machine: &str) -> NewTask<'_> {
        NewTask {
            rcc: None,
            held: false,
            name: "web",
            machine,
            output: "/vm",
            request: "{}",
            waits: false,
            plan: None,
            bytes_per_second: None,
            back_by: None,
        }
    }

    pub(super) fn store_with_task() -> (tempfile::TempDir, Store, String) {
        let (folder, store, machine) = store_with_machine();
        let id = store.create_task(&new_task(&machine), "uid 0").unwrap();
        (folder, store, id)
    }

    fn version(path: &Path) -> i64 {
        Connection::open(path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_new_database_has_the_last_schema_and_mode_0600() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("controller.db");
        let store = Store::open(&path).unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
        }
        drop(store);
        assert_eq!(version(&path), MIGRATIONS.len() as i64);
        Store::open(&path).unwrap();
    }

    #[test]
    fn a_database_of_every_earlier_version_keeps_what_is_in_it() {
        let report = serde_json::to_string(&machine::Machine::default()).unwrap();
        let schema = |path: &Path| -> Vec<String> {
            let connection = Connection::open(path).unwrap();
            let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
            let mut statement = connection.prepare(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(|sql| sql.unwrap()).collect()
        };
        let (folder, new) = temporary_store();
        drop(new);
        let newest = schema(&folder.path().join("controller.db"));
        for earlier in 1..MIGRATIONS.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("controller.db");
            let mut old = Connection::open(&path).unwrap();
            migrate(&mut old, &MIGRATIONS[..earlier]).unwrap();
            let machine = "INSERT INTO machines (id, macs, report, booted, agent_version, first_seen, last_seen)
                           VALUES ('m-1', '[]', ?1, 'boot-image', '0.1.0', 1, 2)";
            old.execute(machine, [&report]).unwrap();
            old.execute_batch(
                "INSERT INTO agent_keys (fingerprint, machine, label, approved_at) VALUES ('aa', 'm-1', 'KVM', 1);
                 INSERT INTO tasks (id, name, machine, output, request, state, created_at)
                     VALUES ('t-1', 'web', 'm-1', '/vm', '{}', 'queued', 3);
                 INSERT INTO task_log (task, at, level, message) VALUES ('t-1', 4, 'info', 'asked for');
                 INSERT INTO audit_log (at, actor, action, subject, detail) VALUES (5, 'uid 0', 'task created', 't-1', '');",
            )
            .unwrap();
            if earlier >= 5 {
                let user = "INSERT INTO users (name, role, password, created_at) VALUES ('eve', 'viewer', 'x', 6)";
                old.execute(user, []).unwrap();
            }
            drop(old);

            let store = Store::open(&path).unwrap();
            println!("version {earlier} became {}", version(&path));
            let known = store.machine("m-1").unwrap().unwrap();
            assert_eq!((known.boot_medium, known.ready_since, known.last_seen), (None, None, crate::Timestamp(2)));
            assert_eq!(store.key_standing("aa").unwrap(), KeyStanding::Approved { certified: false });
            let tasks = store.unfinished_tasks().unwrap();
            assert_eq!((tasks.len(), tasks[0].state, &tasks[0].batch), (1, TaskState::Queued, &None));
            assert_eq!((store.task_log("t-1", 0, 9).unwrap().len(), store.audit(9).unwrap().len()), (1, 1));
            assert_eq!(store.users().unwrap().len(), usize::from(earlier >= 5));
            assert!(begin(&store, "t-1").is_some());
            drop(store);
            assert_eq!(schema(&path), newest, "from version {earlier}");
        }
    }

    #[test]
    fn a_database_from_before_schedules_keeps_its_tasks_which_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("controller.db");
        let mut earlier = Connection::open(&path).unwrap();
        migrate(&mut earlier, &MIGRATIONS[..3]).unwrap();
        let report = serde_json::to_string(&machine::Machine::default()).unwrap();
        let machine =
            "INSERT INTO machines VALUES ('m-1', NULL, NULL, '[]', ?1, 'boot-image', '0.1.0', 1, 2, 'iso', 'aa', 2)";
        earlier.execute(machine, [report]).unwrap();
        for (id, state, waits_for) in [
            ("t-1", "queued", None),
            ("t-2", "queued", Some("machine")),
            ("t-3", "running", None),
            ("t-4", "done", None),
        ] {
            let task = "INSERT INTO tasks (id, name, machine, output, request, state, waits_for, created_at)
                        VALUES (?1, ?1, 'm-1', '/vm', '{}', ?2, ?3, 3)";
            earlier.execute(task, rusqlite::params![id, state, waits_for]).unwrap();
        }
        drop(earlier);

        let store = Store::open(&path).unwrap();
        let tasks = store.tasks().unwrap();
        assert!(tasks.iter().all(|task| task.plan.is_none() && task.due_at.is_none()));
        let states: Vec<_> = tasks.iter().rev().map(|task| task.state).collect();
        assert_eq!(states, [TaskState::Queued, TaskState::Waiting, TaskState::Running, TaskState::Done]);
        assert!(begin(&store, "t-1").is_some() && begin(&store, "t-3").is_some());
    }

    #[test]
    fn a_newer_schema_is_refused_and_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("controller.db");
        drop(Store::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = Store::open(&path).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NewerSchema);
        assert!(error.to_string().contains("found 99"), "{error}");
        assert_eq!(version(&path), 99);
    }

    #[test]
    fn a_failing_migration_leaves_the_schema_as_it_was() {
        let mut connection = Connection::open_in_memory().unwrap();
        let first = ("one", "CREATE TABLE a (x INTEGER) STRICT;");
        migrate(&mut connection, &[first]).unwrap();
        let error = migrate(
            &mut connection,
            &[first, ("two", "CREATE TABLE b (x INTEGER) STRICT;"), ("three", "CREATE TABLE a (x INTEGER);")],
        )
        .unwrap_err();
        assert!(error.to_string().contains("migration 3"), "{error}");
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        assert_eq!(tables, 1);
        let at: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(at, 1);
    }

    #[test]
    fn a_file_that_is_no_database_of_ours_is_refused_and_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        let content = "this is a letter to my mother, not a database ".repeat(40);
        std::fs::write(&text, &content).unwrap();
        assert_eq!(Store::open(&text).unwrap_err().kind, ErrorKind::Storage);
        assert_eq!(std::fs::read_to_string(&text).unwrap(), content);

        let other = folder.path().join("other.db");
        Connection::open(&other).unwrap().execute_batch("CREATE TABLE theirs (x INTEGER);").unwrap();
        assert_eq!(Store::open(&other).unwrap_err().kind, ErrorKind::Storage);
    }
}
