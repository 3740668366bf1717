//! How a restored state takes the place of what a data directory holds, in one step.
//!
//! ```text
//! restore.new/      being unpacked; of no worth when found
//! restore.ready/    whole and on disk: from here on only forward. What is replaced moves to restore.old/
//! restore.placing/  all of that is in restore.old/, and this moves to where it belongs
//! restore.old/      nothing of the two above is left: becomes before-restore-<time>/
//! ```
//!
//! Each arrow is one rename, and each is done again without harm; so whoever takes the directory's lock next finishes what
//! a killed process began, before it looks at anything else. Everything stays within the data directory, which may be a
//! mount point, or one that only its owner's services can name.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::manifest::DATABASE;
use crate::data_directory::{DRIVERS, KEPT};
use crate::{Error, Result, Timestamp};

const NEW: &str = "restore.new";
const READY: &str = "restore.ready";
const PLACING: &str = "restore.placing";
const OLD: &str = "restore.old";
/// In the unpacked state, says that the driver library stays as it is. It is never placed.
const KEEPS_DRIVERS: &str = ".keeps-drivers";

/// Stands in for the rename of the operating system, so that a test can fail each.
type Rename<'a> = &'a mut dyn FnMut(&Path, &Path) -> io::Result<()>;

/// An empty folder to unpack into; what a killed process left is removed.
pub(super) fn stage(directory: &Path) -> io::Result<PathBuf> {
    let stage = directory.join(NEW);
    match fs::remove_dir_all(&stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&stage)?;
    Ok(stage)
}

/// Puts what was unpacked in its place. Returns where the earlier state is, if there was one.
pub(super) fn place(directory: &Path, keeps_drivers: bool) -> io::Result<Option<PathBuf>> {
    let stage = directory.join(NEW);
    if keeps_drivers {
        File::create(stage.join(KEEPS_DRIVERS))?.sync_all()?;
    }
    sync_folders(&stage)?;
    fs::rename(&stage, directory.join(READY))?;
    sync(directory)?;
    finish(directory, &mut |from, to| fs::rename(from, to))
}

/// Finishes a restore that was interrupted after its state was whole.
pub(crate) fn finish_restore(directory: &Path) -> Result<()> {
    let interrupted = [READY, PLACING, OLD].iter().any(|name| directory.join(name).symlink_metadata().is_ok());
    if !interrupted {
        return Ok(());
    }
    let before = finish(directory, &mut |from, to| fs::rename(from, to)).map_err(|e| {
        Error::io(format!("data directory {}: an interrupted restore cannot be finished", directory.display()), e)
    })?;
    let before = before.map(|path| format!("; what was here before: {}", path.display())).unwrap_or_default();
    tracing::warn!("a restore that was interrupted is finished{before}");
    Ok(())
}

/// Whether a controller's state is here.
pub(super) fn holds_state(directory: &Path) -> bool {
    state(false).any(|name| directory.join(name).symlink_metadata().is_ok())
}

/// What is replaced: the database with its journals, and what is kept beside it.
fn state(keeps_drivers: bool) -> impl Iterator<Item = String> {
    let database = ["", "-wal", "-shm", "-journal"].into_iter().map(|end| format!("{DATABASE}{end}"));
    let kept = KEPT.iter().filter(move |name| !(keeps_drivers && **name == DRIVERS));
    database.chain(kept.map(|name| (*name).to_owned()))
}

fn finish(directory: &Path, rename: Rename<'_>) -> io::Result<Option<PathBuf>> {
    let (ready, placing, old) = (directory.join(READY), directory.join(PLACING), directory.join(OLD));
    if ready.is_dir() {
        if !old.is_dir() {
            DirBuilder::new().mode(0o700).create(&old)?;
        }
        let keeps_drivers = ready.join(KEEPS_DRIVERS).exists();
        for name in state(keeps_drivers) {
            move_if_there(&directory.join(&name), &old.join(&name), rename)?;
        }
        sync(&old)?;
        sync(directory)?;
        rename(&ready, &placing)?;
        sync(directory)?;
    }
    if placing.is_dir() {
        for name in state(false) {
            move_if_there(&placing.join(&name), &directory.join(&name), rename)?;
        }
        sync(directory)?;
        fs::remove_dir_all(&placing)?;
    }
    if !old.is_dir() {
        return Ok(None);
    }
    if fs::read_dir(&old)?.next().is_none() {
        fs::remove_dir(&old)?;
        return Ok(None);
    }
    let before = unused_name(directory)?;
    rename(&old, &before)?;
    sync(directory)?;
    Ok(Some(before))
}

fn move_if_there(from: &Path, to: &Path, rename: Rename<'_>) -> io::Result<()> {
    match from.symlink_metadata() {
        Ok(_) => rename(from, to),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn unused_name(directory: &Path) -> io::Result<PathBuf> {
    let now = Timestamp::now();
    let names = (0..1000).map(|n| match n {
        0 => format!("before-restore-{now}"),
        n => format!("before-restore-{now}-{n}"),
    });
    let mut paths = names.map(|name| directory.join(name));
    paths.find(|path| path.symlink_metadata().is_err()).ok_or_else(|| io::Error::other("no name for the earlier state"))
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync(folder)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    /// All files of a folder, by path.
    fn read(folder: &Path) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut waiting = vec![folder.to_owned()];
        while let Some(next) = waiting.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => waiting.push(path),
                    false => {
                        let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                        files.insert(name, fs::read_to_string(path).unwrap());
                    }
                }
            }
        }
        files
    }

    const BEFORE: &[(&str, &str)] = &[
        ("controller.db", "old"),
        ("controller.db-wal", "old"),
        ("identity/ca.pem", "old"),
        ("drivers/a.ko", "old"),
        ("boot/vconverter.iso", "no state"),
        ("controller.lock", "1"),
    ];
    const AFTER: &[(&str, &str)] = &[("controller.db", "new"), ("identity/ca.pem", "new"), ("drivers/b.ko", "new")];

    fn map(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        files.iter().map(|(name, content)| ((*name).into(), (*content).into())).collect()
    }

    /// What is in the directory apart from what was there before, and that.
    fn split(directory: &Path) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let (mut now, mut before) = (BTreeMap::new(), BTreeMap::new());
        for (name, content) in read(directory) {
            match name.strip_prefix("before-restore-").and_then(|rest| rest.split_once('/')) {
                Some((_, name)) => before.insert(name.to_owned(), content),
                None => now.insert(name, content),
            };
        }
        (now, before)
    }

    fn assert_is_new(directory: &Path, at: &str) {
        let (now, before) = split(directory);
        let mut expected = map(AFTER);
        expected.extend(map(&BEFORE[4..]));
        assert_eq!((now, before), (expected, map(&BEFORE[..4])), "{at}");
    }

    #[test]
    fn a_restore_that_ends_before_any_rename_is_finished_by_the_next_lock() {
        let mut points = 0;
        for stop_at in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let directory = folder.path();
            write(directory, BEFORE);
            write(&directory.join(READY), AFTER);
            let mut left = stop_at;
            let ended = finish(directory, &mut |from, to| {
                if left == 0 {
                    return Err(io::Error::other("killed"));
                }
                left -= 1;
                fs::rename(from, to)
            });
            if ended.is_ok() {
                break;
            }
            finish_restore(directory).unwrap();
            assert_is_new(directory, &format!("killed before rename {stop_at}"));
            finish_restore(directory).unwrap();
            points += 1;
        }
        assert_eq!(points, 9, "four aside, the turn, three in place, the name of the old");
    }

    #[test]
    fn what_was_not_whole_changes_nothing_and_is_removed_by_the_next_restore() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path();
        write(directory, BEFORE);
        write(&directory.join(NEW), &[("controller.db", "half")]);
        finish_restore(directory).unwrap();
        assert_eq!(fs::read_to_string(directory.join("controller.db")).unwrap(), "old");
        write(&stage(directory).unwrap(), AFTER);
        let before = place(directory, false).unwrap().unwrap();
        assert!(before.starts_with(directory));
        assert_is_new(directory, "after a leftover");
    }

    #[test]
    fn a_driver_library_that_is_not_in_the_archive_stays() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path();
        write(directory, BEFORE);
        write(&stage(directory).unwrap(), &AFTER[..2]);
        place(directory, true).unwrap();
        let (now, before) = split(directory);
        assert_eq!((now["drivers/a.ko"].as_str(), now["controller.db"].as_str()), ("old", "new"));
        assert_eq!((before.len(), now.len()), (3, 5), "{before:?} {now:?}");
    }

    #[test]
    fn an_empty_directory_has_no_earlier_state() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!holds_state(folder.path()));
        write(&stage(folder.path()).unwrap(), AFTER);
        assert_eq!(place(folder.path(), false).unwrap(), None);
        assert_eq!(read(folder.path()), map(AFTER));
        assert!(holds_state(folder.path()));
    }
}
