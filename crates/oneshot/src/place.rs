//! Putting the boot image on the machine, and arming its one-shot start.
//!
//! The record of what is to be changed is on the disk before anything is changed. Whatever fails, all of it is undone again, and the error
//! says so, or says what could not be.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use machine::push::{BootPathReport, PushOrder, Way};

use crate::efi;
use crate::located::{self, Located, MARGIN_BYTES};
use crate::record::{self, Change, Filesystem, FolderSnapshot, Record, Snapshot};
use crate::steps::NEW_SUFFIX;
use crate::system::System;
use crate::undo::{self, Moment};
use crate::ways::{self, ARCHIVES, Facts, KERNEL, Layout, RECORD_ARCHIVE, SECRETS, kexec};
use crate::{Error, ErrorKind, Result, mounts, newc, snapshot, watchdog};

/// The record's name in the boot image, from its root on.
const RECORD_NAME: &str = "vconverter.record.json";
/// Largest staged file in bytes.
const STAGED_BYTES_MAX: u64 = 1 << 30;

/// How the machine is to be restarted once it is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// As ever, through its firmware.
    Firmware,
    /// In order, and at the end into the kernel that is loaded (`systemctl kexec`).
    Kexec,
}

/// Puts the boot image on the machine, from the folder `staged`. Nothing is armed: a restart leads to the machine's own system. Returns what
/// was done, a line each.
///
/// # Errors
/// The way cannot be taken, there is no room, or something failed; all is undone again then, or the error says what is not.
pub fn place(system: &System, order: &PushOrder, staged: &Path) -> Result<Vec<String>> {
    if let Some(record) = system.load_record()? {
        let what = format!("a push for task {} is on this machine already: it is to be withdrawn first", record.task);
        return Err(Error::new(ErrorKind::Refused, what));
    }
    let facts = Facts::load(system);
    let look = facts.look(order.way);
    if !look.refused.is_empty() {
        return Err(Error::new(ErrorKind::Refused, format!("{}: {}", order.way, look.refused.join("; "))));
    }
    let record = Record::new(&order.task, order.way, order.watchdog_seconds);
    match look.located {
        Some(located) => place_files(&facts, order, staged, located, record),
        None if order.way == Way::Kexec => place_in_memory(&facts, order, staged, record),
        None => Err(Error::new(ErrorKind::Refused, format!("{}: there is no place for its files", order.way))),
    }
}

fn place_in_memory(facts: &Facts<'_>, order: &PushOrder, staged: &Path, mut record: Record) -> Result<Vec<String>> {
    ways::check_command_line(&order.command_line)?;
    let sizes = staged_sizes(staged, &ARCHIVES[..2])?;
    let meminfo = facts.system.text("/proc/meminfo").unwrap_or_default();
    if let Some(why) = kexec::memory_refusal(&meminfo, sizes.iter().sum()) {
        return Err(Error::new(ErrorKind::Refused, why));
    }
    record.snapshot.variables = snapshot::of_variables(&facts.variables);
    let loaded = facts.system.keep_record(&record).and_then(|()| record_archive(&record)).and_then(|archive| {
        facts.system.steps().tell("load", &staged.join(KERNEL))?;
        if facts.system.is_running() { kexec::load(staged, &archive, &order.command_line) } else { Ok(()) }
    });
    match loaded {
        Ok(()) => Ok(vec!["loaded the boot image into memory".to_owned()]),
        Err(e) => Err(give_up(facts.system, &record, e)),
    }
}

fn place_files(
    facts: &Facts<'_>,
    order: &PushOrder,
    staged: &Path,
    located: Located,
    mut record: Record,
) -> Result<Vec<String>> {
    let arming = facts.arming(order.way, &located)?;
    let layout = facts.layout(order, located)?;
    check_room(&layout, staged)?;
    record.changes = plan_changes(&layout)?;
    record.changes.extend(arming);
    record.snapshot = take_snapshot(facts, &layout.located, &layout.watched, &record)?;
    match facts.system.keep_record(&record).and_then(|()| put(facts.system, &layout, staged, &record)) {
        Ok(done) => Ok(done),
        Err(e) => Err(give_up(facts.system, &record, e)),
    }
}

/// Undoes everything after `error`; what could not be undone stays in the record.
fn give_up(system: &System, record: &Record, error: Error) -> Error {
    let report = undo_all(system, record);
    let context = match report {
        Ok(report) if report.differences.is_empty() => match system.forget_record() {
            Ok(()) => format!("{}; everything was undone", error.context),
            Err(e) => format!("{}; everything was undone, but the record stays: {}", error.context, e.chain()),
        },
        Ok(report) => format!("{}; not everything could be undone: {}", error.context, report.differences.join("; ")),
        Err(e) => format!("{}; it could not be undone: {}", error.context, e.chain()),
    };
    Error { context, ..error }
}

fn staged_sizes(staged: &Path, names: &[&str]) -> Result<Vec<u64>> {
    let size = |name: &&str| {
        let path = staged.join(name);
        let metadata = std::fs::metadata(&path).map_err(|e| Error::path("look at", &path, e))?;
        if metadata.is_file() && (1..=STAGED_BYTES_MAX).contains(&metadata.len()) {
            return Ok(metadata.len());
        }
        let what =
            format!("{}: expected a file of 1 to {STAGED_BYTES_MAX} bytes, found {}", path.display(), metadata.len());
        Err(Error::new(ErrorKind::Malformed, what))
    };
    names.iter().map(size).collect()
}

fn check_room(layout: &Layout, staged: &Path) -> Result<()> {
    let made = layout.made.iter().map(|(_, text)| text.len() as u64);
    let sizes: Vec<u64> = staged_sizes(staged, &layout.staged)?.into_iter().chain(made).collect();
    let needed = needed_bytes(&sizes, layout.located.cluster_bytes());
    let free = layout.located.free_bytes().unwrap_or(0);
    if free >= needed {
        return Ok(());
    }
    let point = layout.located.mount.point.display();
    let what = format!("{point} has {} KiB free, the boot image needs {} KiB", free >> 10, needed >> 10);
    Err(Error::new(ErrorKind::Refused, what))
}

/// Room that files of these sizes take, and what is to be left over.
fn needed_bytes(sizes: &[u64], cluster: u64) -> u64 {
    sizes.iter().map(|size| size.next_multiple_of(cluster)).sum::<u64>() + MARGIN_BYTES
}

/// What putting the files changes, in that order.
fn plan_changes(layout: &Layout) -> Result<Vec<Change>> {
    let filesystem = &layout.located.filesystem;
    let mut changes = Vec::new();
    for path in &layout.folders {
        if !layout.located.place(path).is_dir() {
            changes.push(Change::Folder { filesystem: filesystem.clone(), path: path.clone() });
        }
    }
    let file = |path: String, secret| Change::File { filesystem: filesystem.clone(), path, secret };
    let ours = |name: &str| format!("{}/{name}", layout.folder());
    for name in &layout.staged {
        changes.push(file(ours(name), SECRETS.contains(name)));
    }
    // The second one is what takes its place when it is armed.
    changes.push(file(ours(RECORD_ARCHIVE), true));
    changes.push(file(ours(&format!("{RECORD_ARCHIVE}{NEW_SUFFIX}")), true));
    for (path, _) in &layout.made {
        changes.push(file(path.clone(), false));
    }
    if let Some((path, lines)) = &layout.lines {
        let place = layout.located.place(path);
        let before = match crate::system::read_bounded(&place, record::BEFORE_BYTES_MAX as u64) {
            Ok(bytes) => Some(record::to_hex(&bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::path("read", &place, e)),
        };
        changes.push(Change::Lines {
            filesystem: filesystem.clone(),
            path: path.clone(),
            before,
            lines: lines.clone(),
        });
    }
    Ok(changes)
}

/// How the boot path is, without what we put there.
fn take_snapshot(facts: &Facts<'_>, located: &Located, watched: &[String], record: &Record) -> Result<Snapshot> {
    let ours = |folder: &str, file: &str| {
        let path = if file.is_empty() { folder.to_owned() } else { format!("{folder}/{file}") };
        record.changes.iter().any(|change| matches!(change, Change::File { path: own, .. } if *own == path))
    };
    let mut folders = Vec::new();
    for path in watched {
        let mut files = snapshot::of_files(&located.base, path)?;
        files.retain(|file, _| !ours(path, file));
        folders.push(FolderSnapshot { filesystem: located.filesystem.clone(), path: path.clone(), files });
    }
    Ok(Snapshot { variables: snapshot::of_variables(&facts.variables), folders })
}

fn record_archive(record: &Record) -> Result<Vec<u8>> {
    Ok(newc::archive(RECORD_NAME, &record.to_bytes()?))
}

/// Puts folders, files and lines where they go.
fn put(system: &System, layout: &Layout, staged: &Path, record: &Record) -> Result<Vec<String>> {
    let steps = system.steps();
    let located = &layout.located;
    for path in &layout.folders {
        steps.make_folder(&located.place(path), 0o755)?;
    }
    let mode = |name: &str| if SECRETS.contains(&name) { 0o600 } else { 0o644 };
    let copy = |name: &str, from: &mut dyn Read| {
        let place = located.place(&format!("{}/{name}", layout.folder()));
        steps.copy(from, &place, mode(name), ARCHIVES.contains(&name))
    };
    let mut bytes = 0;
    for name in &layout.staged {
        let path = staged.join(name);
        let file = File::open(&path).map_err(|e| Error::path("open", &path, e))?;
        bytes += copy(name, &mut file.take(STAGED_BYTES_MAX))?;
    }
    bytes += copy(RECORD_ARCHIVE, &mut record_archive(record)?.as_slice())?;
    for (path, text) in &layout.made {
        bytes += steps.copy(&mut text.as_bytes(), &located.place(path), 0o644, false)?;
    }
    let point = located.mount.point.display();
    let mut done = vec![format!(
        "put {} files ({} KiB) into {} on {point}",
        layout.staged.len() + 1 + layout.made.len(),
        bytes >> 10,
        layout.folder()
    )];
    if let Some((path, lines)) = &layout.lines {
        steps.append(&located.place(path), lines.as_bytes(), 0o644)?;
        done.push(format!("appended an entry to {path} on {point}"));
    }
    steps.sync_filesystem(&located.base)?;
    Ok(done)
}

/// Arms the start of what was placed: the next restart is the boot image's, once. A watchdog is armed last.
///
/// # Errors
/// Nothing was placed, or something failed; everything that was placed is undone again then, or the error says what is not.
pub fn arm(system: &System) -> Result<Restart> {
    let Some(record) = system.load_record()? else {
        return Err(Error::new(ErrorKind::Refused, "no boot image is on this machine"));
    };
    if record.armed {
        let what = "the boot image was armed already, or almost: it is to be withdrawn first";
        return Err(Error::new(ErrorKind::Refused, what));
    }
    let armed = arm_record(system, record.clone());
    armed.map_err(|e| {
        // What was armed is in the record that was kept last.
        let last = system.load_record().ok().flatten().unwrap_or(record);
        give_up(system, &last, e)
    })
}

fn arm_record(system: &System, mut record: Record) -> Result<Restart> {
    let facts = Facts::load(system);
    if record.way != Way::Kexec {
        plan_arming(&facts, &mut record)?;
    } else if !kexec::is_loaded(&facts) {
        return Err(Error::new(ErrorKind::Refused, "the boot image is not loaded any more"));
    }
    record.armed = true;
    system.keep_record(&record)?;
    for change in &record.changes {
        apply(&facts, change)?;
    }
    if let Some(seconds) = record.watchdog_seconds {
        // Without one, an operator was told so before.
        watchdog::leave_counting(system, seconds, record.way.resets())?;
    }
    Ok(if record.way.resets() { Restart::Firmware } else { Restart::Kexec })
}

/// Renews what the record says of the one-shot and of the boot path: hours may lie between placing and arming.
fn plan_arming(facts: &Facts<'_>, record: &mut Record) -> Result<()> {
    let look = facts.look(record.way);
    let located = look.located.ok_or_else(|| Error::new(ErrorKind::Refused, look.refused.join("; ")))?;
    if let Some(why) = located.refusal().or_else(|| facts.other_restart(record.way)) {
        return Err(Error::new(ErrorKind::Refused, why));
    }
    if record.filesystems().into_iter().any(|filesystem| *filesystem != located.filesystem) {
        let what = format!("the boot image was put on another filesystem than {}", located.mount.point.display());
        return Err(Error::new(ErrorKind::Refused, what));
    }
    let placed = record.clone();
    record.changes.retain(|change| !matches!(change, Change::Variable { .. } | Change::Environment { .. }));
    record.changes.extend(facts.arming(record.way, &located)?);
    let watched: Vec<String> = record.snapshot.folders.iter().map(|folder| folder.path.clone()).collect();
    record.snapshot = take_snapshot(facts, &located, &watched, record)?;
    if *record != placed {
        // First the one here, so that no change is without a record.
        facts.system.keep_record(record)?;
        let path = record.changes.iter().find_map(|change| match change {
            Change::File { path, .. } if path.ends_with(&format!("/{RECORD_ARCHIVE}")) => Some(path.clone()),
            _ => None,
        });
        let path = path.ok_or_else(|| Error::new(ErrorKind::Malformed, "record: expected the file of itself"))?;
        facts.system.steps().replace(&located.place(&path), &record_archive(record)?)?;
        facts.system.steps().sync_filesystem(&located.base)?;
    }
    Ok(())
}

fn apply(facts: &Facts<'_>, change: &Change) -> Result<()> {
    match change {
        // Those are for others to write.
        Change::Variable { name, .. }
            if *name == efi::global("BootOrder") || *name == efi::loader("LoaderEntryLastBooted") =>
        {
            Ok(())
        }
        Change::Variable { name, before, after } => {
            let now = facts.variables.read(name)?.as_deref().map(record::to_hex);
            if now != *before {
                return Err(Error::new(ErrorKind::Refused, format!("{name} was changed by somebody else just now")));
            }
            let after = after.as_deref().map(record::from_hex).transpose()?;
            after.map_or(Ok(()), |after| facts.variables.write(name, &after))
        }
        Change::Environment { filesystem, path, before, entry } => {
            let base = located::find_mounted(facts.system, &facts.mounts, filesystem)?;
            let block = ways::grub::armed_block(&record::from_hex(before)?, entry)?;
            facts.system.steps().write_in_place(&base.join(path), &block)?;
            facts.system.steps().sync_filesystem(&base)
        }
        Change::File { .. } | Change::Folder { .. } | Change::Lines { .. } => Ok(()),
    }
}

/// Undoes all that is left of a push, stops its watchdog, and compares the boot path with what it was; `None` where there is no record,
/// which stays until [`forget`]. It can be run again.
///
/// # Errors
/// The record cannot be read.
pub fn withdraw(system: &System) -> Result<Option<BootPathReport>> {
    system.load_record()?.map(|record| undo_all(system, &record)).transpose()
}

/// Removes the record, once its report is kept elsewhere.
///
/// # Errors
/// It cannot be removed.
pub fn forget(system: &System) -> Result<()> {
    system.forget_record()
}

fn undo_all(system: &System, record: &Record) -> Result<BootPathReport> {
    let facts = Facts::load(system);
    let mounts = mounts::load(system);
    let mut mounted = |filesystem: &Filesystem| located::find_mounted(system, &mounts, filesystem);
    let mut report = undo::undo(system, record, &mut mounted, Moment::Live);
    if record.way == Way::Kexec {
        match kexec::unload(&facts) {
            Ok(true) => report.undone.push("unloaded the boot image from memory".to_owned()),
            Ok(false) => {}
            Err(e) => report.differences.push(e.chain()),
        }
    }
    if record.armed && record.watchdog_seconds.is_some() {
        match watchdog::stop_counting(system, record.way.resets()) {
            Ok(stopped) => report.undone.extend(stopped),
            Err(e) => report.differences.push(e.chain()),
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests;
