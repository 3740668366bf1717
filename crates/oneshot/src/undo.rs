//! Undoing what a record says, from the machine's own system or from the boot image, after whatever happened in between.
//!
//! Only what is as we left it, or as it was before, is touched. What somebody else changed meanwhile is told as a difference:
//! - a file of ours is removed whatever is in it (its name is ours), a folder of ours when it is empty;
//! - of a file of others that got lines of ours, those lines are taken away and nothing else;
//! - the environment block is written back whole while nobody but GRUB changed it, else only `next_entry` is;
//! - a variable gets its old value only while it has ours; `BootOrder` only loses our entry where it was changed otherwise, too.
//!
//! Every part can be run again, after any crash.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use machine::push::BootPathReport;

use crate::efi::{self, Variables};
use crate::environment_block::{self, BLOCK_BYTES, NEXT_ENTRY};
use crate::record::{self, Change, Filesystem, Record};
use crate::snapshot::Difference;
use crate::system::{System, read_bounded};
use crate::{Error, ErrorKind, Result, snapshot};

/// What our boot entry is called in the firmware.
pub(crate) const ENTRY_DESCRIPTION: &str = "vconverter boot image (once)";
/// Largest file of others that is looked into.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Undoes all of a record in the boot image, and compares the boot path with what it was. `mounted` gives a writable mount point of a
/// filesystem; firmware variables are reached through `/sys/firmware/efi/efivars`, which is to be mounted. What fails is in the report.
pub fn restore(record: &Record, mounted: &mut dyn FnMut(&Filesystem) -> Result<PathBuf>) -> BootPathReport {
    undo(&System::new("/run/vconverter"), record, mounted, Moment::BootImage)
}

/// Where the undoing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// In the boot image: nothing of the machine's own system ran since the restart.
    BootImage,
    /// On the machine's own system.
    Live,
}

/// Undoes all of a record.
pub(crate) fn undo(
    system: &System,
    record: &Record,
    mounted: &mut dyn FnMut(&Filesystem) -> Result<PathBuf>,
    moment: Moment,
) -> BootPathReport {
    let report = BootPathReport { task: record.task.clone(), way: Some(record.way), ..BootPathReport::default() };
    let mut undoing = Undoing { system, variables: Variables::of(system), moment, mounted, known: Vec::new(), report };
    for change in record.changes.iter().rev() {
        if let Err(e) = undoing.undo_change(change) {
            undoing.report.differences.push(format!("could not be undone: {}", e.chain()));
        }
    }
    undoing.sync();
    undoing.compare(record);
    undoing.report
}

struct Undoing<'a> {
    system: &'a System,
    variables: Variables<'a>,
    moment: Moment,
    mounted: &'a mut dyn FnMut(&Filesystem) -> Result<PathBuf>,
    /// Where filesystems are mounted: each is asked for once.
    known: Vec<(Filesystem, std::result::Result<PathBuf, String>)>,
    report: BootPathReport,
}

impl Undoing<'_> {
    fn base(&mut self, filesystem: &Filesystem) -> Result<PathBuf> {
        let known = self.known.iter().find(|(other, _)| other == filesystem).map(|(_, base)| base.clone());
        let base = known.unwrap_or_else(|| {
            let base = (self.mounted)(filesystem).map_err(|e| e.chain());
            self.known.push((filesystem.clone(), base.clone()));
            base
        });
        base.map_err(|e| Error::new(ErrorKind::Io, e))
    }

    fn undid(&mut self, what: &str, path: &str) {
        self.report.undone.push(format!("{what} {path}"));
    }

    fn differs(&mut self, what: String) {
        self.report.differences.push(what);
    }

    fn undo_change(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::File { filesystem, path, secret } => {
                let Some(place) = self.place(filesystem, path)? else { return Ok(()) };
                let steps = self.system.steps();
                if if *secret { steps.erase(&place)? } else { steps.remove(&place)? } {
                    self.undid("removed", path);
                }
                Ok(())
            }
            Change::Folder { filesystem, path } => {
                let Some(place) = self.place(filesystem, path)? else { return Ok(()) };
                match self.system.steps().remove_folder(&place) {
                    Ok(true) => self.undid("removed", path),
                    Ok(false) => {}
                    Err(e) if is_not_empty(&e) => {
                        self.differs(format!("{path} has files in it that are not ours, and stays"))
                    }
                    Err(e) => return Err(e),
                }
                Ok(())
            }
            Change::Lines { filesystem, path, before, lines } => {
                let before = before.as_deref().map(record::from_hex).transpose()?;
                self.undo_lines(filesystem, path, before.as_deref(), lines)
            }
            Change::Environment { filesystem, path, before, entry } => {
                self.undo_environment(filesystem, path, &record::from_hex(before)?, entry.as_bytes())
            }
            Change::Variable { name, before, after } => {
                let before = before.as_deref().map(record::from_hex).transpose()?;
                let after = after.as_deref().map(record::from_hex).transpose()?;
                self.undo_variable(name, before.as_deref(), after.as_deref())
            }
        }
    }

    /// The place of a path, or `None` where a folder above it is not there. A symbolic link on the way is refused: it could lead out of the
    /// filesystem.
    fn place(&mut self, filesystem: &Filesystem, path: &str) -> Result<Option<PathBuf>> {
        let mut place = self.base(filesystem)?;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            place.push(part);
            if parts.peek().is_none() {
                break;
            }
            match fs::symlink_metadata(&place) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => return Err(Error::new(ErrorKind::Malformed, format!("{path}: a part of it is no folder"))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(Error::path("look at", &place, e)),
            }
        }
        Ok(Some(place))
    }

    fn undo_lines(&mut self, filesystem: &Filesystem, path: &str, before: Option<&[u8]>, lines: &str) -> Result<()> {
        let place = self.place(filesystem, path)?;
        let now = place.as_deref().map(load).transpose()?.flatten();
        let (Some(place), Some(now)) = (place, now) else {
            if before.is_some() {
                self.differs(format!("{path} was removed by somebody else"));
            }
            return Ok(());
        };
        let steps = self.system.steps();
        let kept = before.unwrap_or_default();
        let added = now.strip_prefix(kept).filter(|added| is_ours(added, lines.as_bytes()));
        match added {
            Some([]) if before.is_some() => {}
            Some(_) if before.is_none() => {
                steps.remove(&place)?;
                self.undid("removed", path);
            }
            Some(_) => {
                steps.truncate(&place, kept.len() as u64)?;
                self.undid("took our lines out of", path);
            }
            None => {
                if let Some(at) = find(&now, lines.as_bytes()) {
                    let rest = [&now[..at], &now[at + lines.len()..]].concat();
                    let mode = fs::metadata(&place).map_err(|e| Error::path("look at", &place, e))?;
                    steps.replace_with_mode(
                        &place,
                        &rest,
                        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()),
                    )?;
                    self.undid("took our lines out of", path);
                }
                self.differs(format!("{path} was changed by somebody else, and is left so"));
            }
        }
        Ok(())
    }

    fn undo_environment(&mut self, filesystem: &Filesystem, path: &str, before: &[u8], entry: &[u8]) -> Result<()> {
        let place = self.place(filesystem, path)?;
        let now = place.as_deref().map(load).transpose()?.flatten();
        let (Some(place), Some(now)) = (place, now) else {
            self.differs(format!("{path} was removed by somebody else"));
            return Ok(());
        };
        if now == before {
            return Ok(());
        }
        let old = environment_block::parse(before)?;
        let Ok(mut new) = environment_block::parse(&now) else {
            // A write that was torn in the middle is still one of ours if it has the size.
            if now.len() == BLOCK_BYTES && find(&now, entry).is_some() {
                self.system.steps().write_in_place(&place, before)?;
                self.undid("wrote the recorded environment block into", path);
            } else {
                self.differs(format!("{path} is no environment block any more"));
            }
            return Ok(());
        };
        let next = new.get(NEXT_ENTRY).unwrap_or_default();
        let old_next = old.get(NEXT_ENTRY);
        if !next.is_empty() && next != entry {
            self.differs(format!("{path} names another next entry, {:?}", String::from_utf8_lossy(next)));
            return Ok(());
        }
        // On the machine's own system, what GRUB and the system keep there of their own is newer than the record.
        if self.moment == Moment::Live && new.get(NEXT_ENTRY) == old_next {
            let differences = new.differences(&old);
            self.tell_environment(path, &differences);
            return Ok(());
        }
        let differences = new.differences(&old);
        let block = if differences.is_empty() {
            before.to_vec()
        } else {
            match old_next {
                Some(value) => new.set(NEXT_ENTRY, value),
                None => new.remove(NEXT_ENTRY),
            }
            new.to_bytes()?
        };
        if block != now {
            self.system.steps().write_in_place(&place, &block)?;
            self.undid("took our entry out of", path);
        }
        self.tell_environment(path, &differences);
        Ok(())
    }

    fn tell_environment(&mut self, path: &str, names: &[String]) {
        if !names.is_empty() {
            self.differs(format!("{path}: somebody else changed {}, which is left so", names.join(", ")));
        }
    }

    fn undo_variable(&mut self, name: &str, before: Option<&[u8]>, after: Option<&[u8]>) -> Result<()> {
        let now = self.variables.read(name)?;
        if now.as_deref() == before {
            return Ok(());
        }
        if name == efi::global("BootOrder") {
            return self.undo_order(name, before, after, now.as_deref());
        }
        let is_our_entry = efi::entry_number(name).is_some()
            && now
                .as_deref()
                .and_then(|now| efi::parse_load_option(now.get(4..)?))
                .is_some_and(|(d, _)| d == ENTRY_DESCRIPTION);
        let is_ours = is_our_entry || now.as_deref().is_none_or(|now| after.is_some_and(|after| after == now));
        match before {
            _ if !is_ours && name == efi::loader("LoaderEntryLastBooted") => {}
            _ if !is_ours => self.differs(format!("{name} was changed by somebody else, and is left so")),
            Some(before) => {
                self.variables.write(name, before)?;
                self.undid("put back", name);
            }
            None => {
                self.variables.remove(name)?;
                self.undid("removed", name);
            }
        }
        Ok(())
    }

    /// `after` has the number of our entry alone.
    fn undo_order(
        &mut self,
        name: &str,
        before: Option<&[u8]>,
        after: Option<&[u8]>,
        now: Option<&[u8]>,
    ) -> Result<()> {
        let order = |bytes: Option<&[u8]>| efi::numbers(bytes.and_then(|b| b.get(4..)).unwrap_or_default());
        let (ours, old, now_order) = (order(after), order(before), order(now));
        let without: Vec<u16> = now_order.iter().copied().filter(|number| !ours.contains(number)).collect();
        if without == old {
            match before {
                Some(before) => self.variables.write(name, before)?,
                None => self.variables.remove(name).map(drop)?,
            }
            self.undid("put back", name);
        } else {
            if without != now_order {
                let attributes = now.and_then(|now| now.get(..4)).unwrap_or(&efi::ATTRIBUTES);
                let numbers = without.iter().flat_map(|number| number.to_le_bytes());
                self.variables.write(name, &attributes.iter().copied().chain(numbers).collect::<Vec<_>>())?;
                self.undid("took our entry out of", name);
            }
            self.differs(format!("{name} was changed by somebody else, and is left so"));
        }
        Ok(())
    }

    fn sync(&mut self) {
        let bases: Vec<PathBuf> = self.known.iter().filter_map(|(_, base)| base.clone().ok()).collect();
        for base in bases {
            if let Err(e) = self.system.steps().sync_filesystem(&base) {
                self.differs(format!("may not last: {}", e.chain()));
            }
        }
    }

    fn compare(&mut self, record: &Record) {
        let variables = snapshot::of_variables(&self.variables);
        let mut differences = Vec::new();
        if record.snapshot.variables.is_empty() || !variables.is_empty() {
            differences = snapshot::compare("", &record.snapshot.variables, &variables);
            // The loader writes it at each start; ours was undone above.
            differences.retain(|difference| difference.name != efi::loader("LoaderEntryLastBooted"));
        } else if record.changes.iter().any(|change| matches!(change, Change::Variable { .. })) {
            self.differs("the firmware's variables cannot be reached: a boot entry of ours may be left".to_owned());
        }
        for folder in &record.snapshot.folders {
            match self.base(&folder.filesystem).and_then(|base| folder.compare(&base)) {
                Ok(found) => differences.extend(found),
                Err(e) => self.differs(format!("could not be compared: {}", e.chain())),
            }
        }
        for Difference { name, what } in differences {
            // What was told above with its reason is not told again.
            let is_told = |told: &String| told.strip_prefix(&name).is_some_and(|rest| rest.starts_with([' ', ':']));
            if !self.report.differences.iter().any(is_told) {
                self.differs(format!("{name} {what}"));
            }
        }
    }
}

fn load(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(Error::new(ErrorKind::Malformed, format!("{}: expected a file", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::path("look at", path, e)),
    }
    read_bounded(path, FILE_BYTES_MAX).map(Some).map_err(|e| Error::path("read", path, e))
}

/// Whether `added` is what we append, or what a crash left of it: its beginning, and then zeros where nothing had been written yet.
fn is_ours(added: &[u8], lines: &[u8]) -> bool {
    let same = added.iter().zip(lines).take_while(|(a, b)| a == b).count();
    added.len() <= lines.len() && added[same..].iter().all(|byte| *byte == 0)
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    (!part.is_empty()).then(|| bytes.windows(part.len()).position(|window| window == part))?
}

fn is_not_empty(error: &Error) -> bool {
    let code = error.source.as_ref().and_then(io::Error::raw_os_error);
    code == Some(libc::ENOTEMPTY) || code == Some(libc::EEXIST)
}

#[cfg(test)]
mod tests;
