//! A guest's files, read-only: what whoever can read a filesystem shows to whoever looks for a guest on it. A mounted
//! folder, the bytes of a disk and memory show theirs alike.
//!
//! Paths are absolute in the guest (`/etc/fstab`). Symbolic links are followed as the guest itself would follow them:
//! an absolute target starts at the guest's own root, and `..` never leads above it.

use std::io;

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

/// What a filesystem has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Tells the filesystems of one tree apart.
    pub filesystem: u64,
    /// Bytes that can still be written.
    pub free: u64,
    /// Bytes that it has in all.
    pub size: u64,
    /// Bytes that a file grows by at a time: a cluster, a block. Not zero.
    pub block: u32,
}

/// Read access to a guest's files.
///
/// "Nothing there" is never an error: a guest without `/etc/crypttab` is an ordinary guest.
pub trait FileTree {
    /// What is at `path`, links followed to the end; `None` where there is nothing, or a link that leads nowhere.
    ///
    /// # Errors
    /// Of every method here: what the disk or the operating system says; `InvalidData` for a damaged filesystem.
    fn metadata(&self, path: &str) -> io::Result<Option<Metadata>>;

    /// The whole of the file at `path`, links followed; `None` where there is no regular file.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] if it is longer than `max` bytes.
    fn read(&self, path: &str, max: u64) -> io::Result<Option<Vec<u8>>>;

    /// Bytes of the file at `path` from `offset`, links followed; less than asked for only at its end.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where there is no regular file.
    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Names in the folder at `path`, sorted; none where there is no folder. At most [`FOLDER_ENTRIES_MAX`].
    fn list(&self, path: &str) -> io::Result<Vec<Entry>>;

    /// Where the symbolic link at `path` points; the last name is not followed. `None` if it is no link.
    fn read_link(&self, path: &str) -> io::Result<Option<String>>;

    /// What the filesystem has room for that holds `path`, or would hold it; `None` where that is not known.
    fn room(&self, _path: &str) -> io::Result<Option<Room>> {
        Ok(None)
    }

    /// Whether there is anything at `path`, links followed.
    fn exists(&self, path: &str) -> io::Result<bool> {
        Ok(self.metadata(path)?.is_some())
    }

    /// Text of the file at `path`, at most [`TEXT_MAX`] bytes; what is not UTF-8 is replaced by U+FFFD.
    fn text(&self, path: &str) -> io::Result<Option<String>> {
        let bytes = self.read(path, TEXT_MAX)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}
