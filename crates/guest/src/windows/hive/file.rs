//! A hive and its logs as files of a guest.
//!
//! A hive is written as a new file that takes the old one's name when it is whole and durable, so that a crash leaves the
//! old hive or the new one. Its logs are emptied after that: until then they are those of a hive that is clean, which
//! Windows leaves alone, and their sequence numbers are below the new hive's. The same holds in the appliance: both NTFS
//! drivers of Linux rename within one transaction of the filesystem's own log, and the new file has the access rights that
//! the folder passes on.

use super::{Filetime, HIVE_MAX, Hive, Unfinished};
use crate::tree::{FileKind, FileTree, WritableTree, split};
use crate::{Error, ErrorKind, Result};

/// The logs of the hive at `path`: files beside it with its name and `.LOG`, `.LOG1` or `.LOG2`, in any case.
pub fn log_paths(tree: &dyn FileTree, path: &str) -> Result<Vec<String>> {
    let (folder, name) = split(path);
    let is_log = |found: &str| {
        let (Some(stem), Some(suffix)) = (found.get(..name.len()), found.get(name.len()..)) else { return false };
        stem.eq_ignore_ascii_case(name) && [".log", ".log1", ".log2"].iter().any(|log| suffix.eq_ignore_ascii_case(log))
    };
    let mut paths = Vec::new();
    for entry in tree.list(folder)? {
        if entry.kind == FileKind::File && is_log(&entry.name) {
            paths.push(format!("{}/{}", folder.trim_end_matches('/'), entry.name));
        }
    }
    Ok(paths)
}

/// A hive's file and its logs, unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The hive's own file.
    pub primary: Vec<u8>,
    /// Its logs.
    pub logs: Vec<Vec<u8>>,
}

/// Reads the files of the hive at `path`.
///
/// # Errors
/// `Missing` where there is no file.
pub fn read_files(tree: &dyn FileTree, path: &str) -> Result<Files> {
    let read = |path: &str| -> Result<Option<Vec<u8>>> { Ok(tree.read(path, HIVE_MAX)?) };
    let primary = read(path)?.ok_or_else(|| Error::new(ErrorKind::Missing, "no such file").at(path))?;
    let mut logs = Vec::new();
    for log in log_paths(tree, path)? {
        logs.extend(read(&log)?);
    }
    Ok(Files { primary, logs })
}

/// Opens the hive at `path` with its logs.
pub fn open(tree: &dyn FileTree, path: &str, unfinished: Unfinished) -> Result<Hive> {
    let files = read_files(tree, path)?;
    Hive::load(files.primary, &files.logs, unfinished).map_err(|error| error.at(path))
}

/// Puts `hive` in the place of the one at `path`, as written at `time`.
///
/// # Errors
/// Whatever fails, the hive at `path` is the old one or the new one, and readable.
pub fn write(tree: &mut dyn WritableTree, path: &str, hive: &mut Hive, time: Filetime) -> Result<()> {
    let bytes = hive.to_file(time);
    tree.replace(path, &bytes, 0o600)?;
    // The old hive may need its logs: the new name must be durable before they go.
    tree.sync()?;
    for log in log_paths(tree, path)? {
        tree.replace(&log, &[], 0o600)?;
    }
    tree.sync()
}
