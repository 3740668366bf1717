//! Results that take minutes, kept under `${XDG_CACHE_HOME:-~/.cache}/vconverter/lab/`.
//!
//! An entry is a folder named by a hash of everything that went into it. It is made beside its place under a lock and
//! renamed there, so it is whole or absent, and two processes never make the same one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::{Error, Result};

/// The entry `name` for these `inputs`: found, or made by `make` in the empty folder that it is given.
pub(crate) fn entry(name: &str, inputs: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let root = root()?;
    fs::create_dir_all(&root).map_err(|e| Error::file(&root, e))?;
    let entry = root.join(format!("{name}-{:016x}", xxhash_rust::xxh3::xxh3_64(inputs.as_bytes())));
    if entry.exists() {
        return Ok(entry);
    }
    let lock_path = entry.with_extension("lock");
    let lock = File::create(&lock_path).map_err(|e| Error::file(&lock_path, e))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| Error::file(&lock_path, e.into()))?;
    if entry.exists() {
        return Ok(entry); // another process made it while we waited
    }
    // Removed on every way out but a kill; what a killed process left is removed by the next one that holds the lock.
    let making = entry.with_extension("new");
    remove_tree(&making)?;
    fs::create_dir(&making).map_err(|e| Error::file(&making, e))?;
    match make(&making) {
        Ok(()) => {
            fs::rename(&making, &entry).map_err(|e| Error::file(&entry, e))?;
            Ok(entry)
        }
        Err(e) => {
            let _ = remove_tree(&making);
            Err(e)
        }
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::file(path, e)),
        _ => Ok(()),
    }
}

fn root() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("vconverter/lab"))
        .ok_or_else(|| Error::new("cache folder: neither XDG_CACHE_HOME nor HOME is set"))
}
