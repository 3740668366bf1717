//! The files of a filesystem as whoever looks for a guest on it reads them.

use std::io;

use machine::ByteCount;
use machine::files::{Entry, FOLDER_ENTRIES_MAX, FileKind, FileTree, Metadata};

use super::Files;
use crate::error::{Error, ErrorKind, Result};

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind {
            ErrorKind::Malformed => io::ErrorKind::InvalidData,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::TooLarge => io::ErrorKind::FileTooLarge,
            ErrorKind::Read => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// The value; `None` where there is nothing, or something of another kind.
fn present<T>(result: Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Unsupported) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn kind(kind: super::FileKind) -> FileKind {
    match kind {
        super::FileKind::Regular => FileKind::File,
        super::FileKind::Directory => FileKind::Folder,
        super::FileKind::Symlink => FileKind::Link,
        _ => FileKind::Other,
    }
}

impl FileTree for Files {
    fn metadata(&self, path: &str) -> io::Result<Option<Metadata>> {
        let found = present(self.target_metadata(path))?;
        Ok(found.map(|found| Metadata { kind: kind(found.kind), size: found.size.0, mode: found.mode }))
    }

    fn read(&self, path: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        present(Files::read(self, path, ByteCount(max)))
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.read_range(path, offset, buffer.len())?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        let entries = present(Files::list(self, path))?.unwrap_or_default();
        let named = |entry: super::Entry| Some(Entry { name: entry.name.into_string().ok()?, kind: kind(entry.kind) });
        Ok(entries.into_iter().filter_map(named).take(FOLDER_ENTRIES_MAX).collect())
    }

    fn read_link(&self, path: &str) -> io::Result<Option<String>> {
        Ok(present(Files::read_link(self, path))?.and_then(|target| target.into_string().ok()))
    }
}
