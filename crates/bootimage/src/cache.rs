//! Folder of things that are costly to make again, shared by any number of processes.
//!
//! An entry appears under its name complete or not at all: it is made in a folder beside and renamed, while a lock
//! keeps others from making it too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::package::children;
use crate::{Error, ErrorKind, Result};

/// What an entry is called while it is made; what follows has no `_`, as the names of entries have.
const PARTIAL: &str = ".partial-";

/// `${XDG_CACHE_HOME:-~/.cache}/vconverter/KIND`, made if it is not there.
pub(crate) fn open_cache(kind: &str) -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let root = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache"))).ok_or_else(|| {
        Error::new(ErrorKind::InvalidConfiguration, "no cache folder: neither XDG_CACHE_HOME nor HOME is set")
    })?;
    let folder = root.join("vconverter").join(kind);
    fs::create_dir_all(&folder).map_err(|e| Error::path("create", &folder, e))?;
    Ok(folder)
}

/// The entry `name` of `cache`, made by `make` in the folder it is given where it does not exist yet.
pub(crate) fn entry(cache: &Path, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let finished = cache.join(name);
    if finished.is_dir() {
        return Ok(finished);
    }
    let lock_path = cache.join(".lock");
    let lock = File::create(&lock_path).map_err(|e| Error::path("create", &lock_path, e))?;
    lock.lock().map_err(|e| Error::path("lock", &lock_path, e))?;
    if finished.is_dir() {
        return Ok(finished);
    }
    remove_partial(cache)?;
    let partial = tempfile::Builder::new()
        .prefix(PARTIAL)
        .tempdir_in(cache)
        .map_err(|e| Error::path("create a folder in", cache, e))?;
    make(partial.path())?;
    fs::rename(partial.path(), &finished).map_err(|e| Error::path("rename to", &finished, e))?;
    // Its name is gone; nothing is left for the guard to remove.
    let _ = partial.keep();
    Ok(finished)
}

/// Removes all entries but the `kept` that were changed last. One that another process has just found may be among them, so
/// there is to be room for many more than are used at one time.
pub(crate) fn forget_oldest(cache: &Path, kept: usize) -> Result<()> {
    let mut entries: Vec<_> = children(cache)?
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")))
        .filter_map(|path| Some((fs::metadata(&path).and_then(|metadata| metadata.modified()).ok()?, path)))
        .collect();
    entries.sort();
    for (_, path) in entries.iter().take(entries.len().saturating_sub(kept)) {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::path("remove", path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes what a process left that was killed while it held the lock.
fn remove_partial(cache: &Path) -> Result<()> {
    for path in children(cache)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(PARTIAL) && !name.contains('_') {
            fs::remove_dir_all(&path).map_err(|e| Error::path("remove", &path, e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn an_entry_is_made_once_by_many_at_once() {
        let cache = tempfile::tempdir().unwrap();
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let folder = entry(cache.path(), "a", |folder| {
                        made.fetch_add(1, Ordering::Relaxed);
                        fs::write(folder.join("x"), b"x").map_err(|e| Error::path("write", folder, e))
                    });
                    assert!(folder.unwrap().join("x").is_file());
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let cache = tempfile::tempdir().unwrap();
        for name in [".partial-aB3xyz", ".partial-driver_0123456789abcdef", "old_1"] {
            fs::create_dir(cache.path().join(name)).unwrap();
        }
        entry(cache.path(), "new_1", |_| Ok(())).unwrap();
        let left: Vec<_> = children(cache.path()).unwrap();
        let left: Vec<_> = left.iter().map(|path| path.file_name().unwrap().to_string_lossy()).collect();
        assert_eq!(left, [".lock", ".partial-driver_0123456789abcdef", "new_1", "old_1"]);
    }

    #[test]
    fn the_latest_entries_are_kept() {
        let cache = tempfile::tempdir().unwrap();
        for (age, name) in ["new", "old", "older", ".lock"].into_iter().enumerate() {
            fs::create_dir(cache.path().join(name)).unwrap();
            let time = std::time::SystemTime::now() - std::time::Duration::from_secs(60 * age as u64);
            File::open(cache.path().join(name)).unwrap().set_modified(time).unwrap();
        }
        forget_oldest(cache.path(), 2).unwrap();
        let left = children(cache.path()).unwrap();
        let left: Vec<_> = left.iter().map(|path| path.file_name().unwrap().to_string_lossy()).collect();
        assert_eq!(left, [".lock", "new", "old"]);
    }

    #[test]
    fn a_failed_attempt_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let failed = entry(cache.path(), "a", |_| Err(Error::new(ErrorKind::NoKernel, "no")));
        assert_eq!(failed.unwrap_err().kind, ErrorKind::NoKernel);
        let left: Vec<_> = fs::read_dir(cache.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [".lock"]);
    }
}
