//! A guest's files, wherever they are: in a mounted folder, inside a disk image, in memory.
//!
//! Paths are absolute in the guest (`/etc/fstab`). Symbolic links are followed as the guest itself would follow them:
//! an absolute target starts at the guest's own root, and `..` never leads above it.

mod directory;
mod memory;

pub use directory::Directory;
pub use memory::MemoryTree;

use crate::{Error, ErrorKind, Result};

/// Entries of one folder that are looked at; more than that is not a configuration folder.
pub const FOLDER_ENTRIES_MAX: usize = 65_536;

/// Bound for one file of configuration, in bytes.
pub const TEXT_MAX: u64 = 4 << 20;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Folder.
    Folder,
    /// Symbolic link.
    Link,
    /// Device, pipe or socket: never opened.
    Other,
}

/// What is known of a file without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes.
    pub size: u64,
    /// Permission bits (`0o644`).
    pub mode: u32,
}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without folder. Names that are not UTF-8 are left out of a listing.
    pub name: String,
    /// What it stands for; a link is not followed.
    pub kind: FileKind,
}

/// Read access to a guest's files.
///
/// "Nothing there" is never an error: a guest without `/etc/crypttab` is an ordinary guest.
pub trait FileTree {
    /// What is at `path`, links followed to the end; `None` where there is nothing, or a link that leads nowhere.
    fn metadata(&self, path: &str) -> Result<Option<Metadata>>;

    /// The whole of the file at `path`, links followed; `None` where there is no regular file.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if it is longer than `max` bytes.
    fn read(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>>;

    /// Bytes of the file at `path` from `offset`, links followed; less than asked for only at its end.
    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Names in the folder at `path`, sorted; none where there is no folder. At most [`FOLDER_ENTRIES_MAX`].
    fn list(&self, path: &str) -> Result<Vec<Entry>>;

    /// Where the symbolic link at `path` points; the last name is not followed. `None` if it is no link.
    fn read_link(&self, path: &str) -> Result<Option<String>>;

    /// Whether there is anything at `path`, links followed.
    fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.metadata(path)?.is_some())
    }

    /// Text of the file at `path`, at most [`TEXT_MAX`] bytes; what is not UTF-8 is replaced by U+FFFD.
    fn text(&self, path: &str) -> Result<Option<String>> {
        let bytes = self.read(path, TEXT_MAX)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

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
