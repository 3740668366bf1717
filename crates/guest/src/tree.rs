//! A guest's files, wherever they are: read as [`machine::files`] says, and written in a mounted folder or in memory.

mod directory;
mod memory;

pub use directory::Directory;
pub use machine::files::{Entry, FOLDER_ENTRIES_MAX, FileKind, FileTree, Metadata, Room, TEXT_MAX};
pub use memory::MemoryTree;

use crate::plan::RawPatch;
use crate::{Error, ErrorKind, Result};

/// Write access to a guest's files.
pub trait WritableTree: FileTree {
    /// Replaces the file at `path`, links followed, in one step: a reader sees the old or the new contents, nothing
    /// between. Owner and mode stay; a new file is owned by root with `mode`. Folders above it are made as needed.
    fn replace(&mut self, path: &str, contents: &[u8], mode: u32) -> Result<()>;

    /// Adds `contents` at the end of the file at `path`, links followed, which must be `size` bytes long. After a
    /// failure the file has its former length again.
    fn append(&mut self, path: &str, size: u64, contents: &[u8]) -> Result<()>;

    /// Removes the file or link at `path`; the last name is not followed. Nothing there: nothing done.
    fn remove(&mut self, path: &str) -> Result<()>;

    /// Puts a symbolic link to `target` at `path`, in place of a file or link that is there.
    fn symlink(&mut self, path: &str, target: &str) -> Result<()>;

    /// Changes bytes of a disk outside of its files; whether anything was left to be done.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`] where neither the old nor the new bytes are there; [`ErrorKind::Unsupported`] for a tree that
    /// knows no disks.
    fn patch(&mut self, patch: &RawPatch) -> Result<bool> {
        Err(Error::new(ErrorKind::Unsupported, format!("disk {} is not known beneath these files", patch.disk)))
    }

    /// Makes what was changed durable.
    fn sync(&mut self) -> Result<()>;
}

/// The names of an absolute path, `.` and empty ones left out.
///
/// # Errors
/// [`ErrorKind::Escape`] for a relative path, `..`, or a NUL in it: the plan's own paths have none of them.
pub(crate) fn components(path: &str) -> Result<Vec<&str>> {
    let wrong = |what: &str| Error::new(ErrorKind::Escape, what).at(path);
    let rest = path.strip_prefix('/').ok_or_else(|| wrong("expected an absolute path"))?;
    let names: Vec<&str> = rest.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    if names.iter().any(|name| *name == ".." || name.contains('\0')) {
        return Err(wrong("path with .. or NUL"));
    }
    Ok(names)
}

/// `path` without its last name, and the last name.
pub(crate) fn split(path: &str) -> (&str, &str) {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((folder, name)) => (folder, name),
        None => ("/", path),
    }
}
