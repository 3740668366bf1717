//! The support bundle: what somebody who helps needs to know of a controller, and none of its secrets.
//!
//! What goes in is named here, part by part; nothing is taken because it lies in some folder. Every text goes through
//! [`redaction`](crate::redaction) besides. What cannot be gathered is told in the bundle and does not keep the rest out.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::beside::{Beside, create_plain};
use crate::redaction::{redact, redact_json};
use crate::store::{Store, TaskRecord, snapshot};
use crate::{DataDirectory, Error, ErrorKind, Result, Timestamp};

/// Newest tasks that are taken.
const TASKS_MAX: usize = 200;
/// Lines of each task's log: all that the store keeps.
const TASK_LINES_MAX: u32 = 10_000;
const MACHINES_MAX: usize = 1000;
const AUDIT_LINES_MAX: u32 = 2000;
/// Entries of the data directory that are listed.
const ENTRIES_MAX: usize = 2000;
/// Largest part; the rest of one is cut off.
const PART_BYTES_MAX: usize = 8 << 20;

/// A text of the bundle.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name, such as `programs.txt`.
    pub name: String,
    /// What it says; secrets are taken out of it.
    pub text: String,
}

/// A bundle that was made.
#[derive(Clone, Debug, Serialize)]
pub struct SupportBundle {
    /// Where it is.
    pub file: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// The names of its parts.
    pub parts: Vec<String>,
    /// What could not be gathered, and why.
    pub missing: Vec<String>,
}

/// Writes the bundle of the controller in `directory`, running or not, with the `parts` that the caller knows.
///
/// # Errors
/// [`ErrorKind::Conflict`] where `file` is there and not `force`, [`ErrorKind::ReadOnly`], [`ErrorKind::Io`].
pub fn write_bundle(directory: &DataDirectory, file: &Path, parts: Vec<Part>, force: bool) -> Result<SupportBundle> {
    let beside = Beside::new(file, force)?;
    let (mut parts, mut missing) = (parts, Vec::new());
    let mut outputs = BTreeSet::from([directory.path().to_owned()]);
    parts.push(Part { name: "data-directory.txt".into(), text: listing(directory.path()) });
    match copy(directory, &beside).and_then(|store| stored(&store, &mut parts, &mut outputs)) {
        Ok(()) => {}
        Err(error) => missing.push(format!("what the database holds: {}", error.chain())),
    }
    parts.push(Part { name: "disk-space.txt".into(), text: outputs.iter().map(|path| space(path)).collect() });
    if !missing.is_empty() {
        parts.push(Part { name: "missing.txt".into(), text: missing.join("\n") + "\n" });
    }
    let write = || -> io::Result<u64> {
        let mut archive = Builder::new(zstd::Encoder::new(io::BufWriter::new(&beside.file), 3)?);
        for part in &parts {
            let text = redact(cut(&part.text));
            let mut header = Header::new_ustar();
            header.set_path(format!("vconverter-support/{}", part.name))?;
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_entry_type(EntryType::Regular);
            header.set_cksum();
            archive.append(&header, text.as_bytes())?;
        }
        archive.into_inner()?.finish()?.flush()?;
        beside.file.sync_all()?;
        beside.file.metadata().map(|metadata| metadata.len())
    };
    let size = write().map_err(|e| Error::io(format!("{}: cannot be written", file.display()), e))?;
    beside.keep(file)?;
    let parts = parts.into_iter().map(|part| part.name).collect();
    Ok(SupportBundle { file: file.to_owned(), size, parts, missing })
}

/// A copy of the database: the one that is worked on is not touched.
fn copy(directory: &DataDirectory, beside: &Beside) -> Result<Store> {
    let database = directory.database();
    if !database.is_file() {
        return Err(Error::new(ErrorKind::NotFound, format!("{}: it is not there", database.display())));
    }
    let failed = |e| Error::io(format!("{}: cannot be written", beside.database.display()), e);
    let _ = fs::remove_file(&beside.database);
    create_plain(&beside.database).map_err(failed)?;
    snapshot(&database, &beside.database)?;
    Store::open(&beside.database)
}

/// Tasks and their logs, machines, the audit log.
fn stored(store: &Store, parts: &mut Vec<Part>, outputs: &mut BTreeSet<PathBuf>) -> Result<()> {
    let mut add = |name: String, text: String| parts.push(Part { name, text });
    let mut tasks = store.tasks()?;
    tasks.truncate(TASKS_MAX);
    add("tasks.json".into(), pretty(tasks.iter().map(describe).collect()));
    for task in &tasks {
        outputs.insert(PathBuf::from(&task.output));
        add(format!("tasks/{}.log", task.id), task_log_text(store, &task.id)?);
    }
    let mut machines = store.machines()?;
    machines.truncate(MACHINES_MAX);
    let machines = machines
        .iter()
        .map(|known| json!({ "id": known.id, "address": known.particulars.address, "report": known.report }))
        .collect();
    add("machines.json".into(), pretty(machines));
    let mut audit = String::new();
    for line in store.audit(AUDIT_LINES_MAX)? {
        let _ = writeln!(audit, "{} {}: {} {} {}", line.at, line.actor, line.action, line.subject, line.detail);
    }
    add("audit.txt".into(), audit);
    let rules: String = store.pxe_rules()?.iter().map(|rule| format!("{} {}\n", rule.machine, rule.policy)).collect();
    add("pxe-policies.txt".into(), rules);
    Ok(())
}

/// A task's log as a text, a line for each entry.
pub(crate) fn task_log_text(store: &Store, task: &str) -> Result<String> {
    let mut text = String::new();
    for entry in store.task_log(task, 0, TASK_LINES_MAX)? {
        // One entry may have several lines; the others are set in.
        let message = entry.message.replace('\n', "\n    ");
        let _ = writeln!(text, "{} {:7} {message}", entry.at, entry.level);
    }
    Ok(text)
}

fn describe(task: &TaskRecord) -> Value {
    let parsed = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    json!({
        "id": task.id,
        "name": task.name,
        "machine": task.machine,
        "output": task.output,
        "state": task.state.to_string(),
        "step": task.step,
        "done_bytes": task.done_bytes,
        "total_bytes": task.total_bytes,
        "error": task.error,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "due_at": task.due_at,
        "batch": task.batch,
        "request": parsed(&task.request),
        "outcome": task.outcome.as_deref().map(parsed),
        "plan": task.plan.as_deref().map(parsed),
    })
}

fn pretty(values: Vec<Value>) -> String {
    let mut value = Value::Array(values);
    redact_json(&mut value);
    serde_json::to_string_pretty(&value).unwrap_or_default() + "\n"
}

/// Names, sizes and modes; never a content.
fn listing(directory: &Path) -> String {
    let mut text = format!("{} at {}\n", directory.display(), Timestamp::now());
    let (mut waiting, mut listed) = (vec![directory.to_owned()], 0);
    while let Some(folder) = waiting.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                let _ = writeln!(text, "{}: {error}", folder.display());
                continue;
            }
        };
        for entry in entries.flatten() {
            listed += 1;
            if listed > ENTRIES_MAX {
                text.push_str("and more\n");
                return text;
            }
            let path = entry.path();
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let (mode, owner, size) = (metadata.mode(), metadata.uid(), metadata.len());
            let _ = writeln!(text, "{mode:o} uid {owner} {size:>12} {}", path.display());
            if metadata.is_dir() {
                waiting.push(path);
            }
        }
    }
    text
}

fn space(path: &Path) -> String {
    let shown = path.display();
    match rustix::fs::statvfs(path) {
        Ok(found) => {
            let bytes = |blocks: u64| u128::from(blocks) * u128::from(found.f_frsize);
            let (free, all) = (bytes(found.f_bavail), bytes(found.f_blocks));
            format!("{shown}: {free} of {all} bytes free, {} of {} inodes\n", found.f_favail, found.f_files)
        }
        Err(error) => format!("{shown}: {error}\n"),
    }
}

/// The end of a text that is too long: the newest lines of a log.
fn cut(text: &str) -> &str {
    let mut start = text.len().saturating_sub(PART_BYTES_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
