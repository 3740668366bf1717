//! What is on some disks, without changing, mounting or copying them.

use std::path::PathBuf;
use std::sync::Arc;

use guest::tree::{Entry, FileKind, FileTree, Metadata};
use machine::{ByteCount, Disk, Family, FirmwareKind, Guest};
use serde::{Deserialize, Serialize};
use volume::Layout;
use volume::files::Files;

use crate::Result;
use crate::local::LocalDisks;

/// The answer of `vconverter inspect`; its JSON is a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The disks in the order given.
    pub disks: Vec<Disk>,
    /// What starts the machine, as far as its disks tell.
    pub firmware: FirmwareKind,
    /// The operating system found.
    pub guest: Guest,
    /// What an operator should know before converting.
    pub warnings: Vec<String>,
}

/// Inspects `paths`, the disks of one machine: image files or block devices.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::ErrorKind) with what, where and what to do.
pub fn inspect(paths: &[PathBuf]) -> Result<Inspection> {
    let disks = LocalDisks::open(paths)?;
    let layout = disks.layout();
    Ok(Inspection {
        disks: disks.described(),
        firmware: layout.firmware(),
        guest: identify(layout),
        warnings: layout.warnings().iter().map(ToString::to_string).collect(),
    })
}

/// The operating system on the first filesystem that holds one and can be read in user space.
pub(crate) fn identify(layout: &Layout) -> Guest {
    let guests = layout.filesystems().iter().filter_map(|filesystem| {
        let files = Files::open(Arc::clone(&filesystem.source)).ok()?;
        Some(guest::identify(&UserSpaceTree(files)))
    });
    let mut found = Guest::default();
    for guest in guests {
        // A host name tells a root filesystem from a mere /usr or a rescue system's partition.
        if guest.family != Family::Unknown && (found.family == Family::Unknown || found.hostname.is_none()) {
            found = guest;
        }
    }
    found
}

/// A filesystem's files as the `guest` crate reads them.
struct UserSpaceTree(Files);

/// Nothing there is no error for a guest's files; everything else is.
fn present<T>(path: &str, result: volume::Result<T>) -> guest::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == volume::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(guest::Error::new(guest::ErrorKind::Io, error.to_string()).at(path)),
    }
}

fn kind(kind: volume::files::FileKind) -> FileKind {
    match kind {
        volume::files::FileKind::Regular => FileKind::File,
        volume::files::FileKind::Directory => FileKind::Folder,
        volume::files::FileKind::Symlink => FileKind::Link,
        _ => FileKind::Other,
    }
}

impl FileTree for UserSpaceTree {
    fn metadata(&self, path: &str) -> guest::Result<Option<Metadata>> {
        let found = present(path, self.0.metadata(path))?;
        Ok(found.map(|m| Metadata { kind: kind(m.kind), size: m.size.0, mode: m.mode }))
    }

    fn read(&self, path: &str, max: u64) -> guest::Result<Option<Vec<u8>>> {
        match self.0.read(path, ByteCount(max)) {
            // A folder or device in the place of a file: no file.
            Err(error) if error.kind == volume::ErrorKind::Unsupported => Ok(None),
            Err(error) if error.kind == volume::ErrorKind::TooLarge => {
                Err(guest::Error::new(guest::ErrorKind::TooLarge, error.to_string()).at(path))
            }
            result => present(path, result),
        }
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> guest::Result<usize> {
        const WHOLE_MAX: u64 = 256 << 20;
        let bytes = self.read(path, WHOLE_MAX)?.unwrap_or_default();
        let start = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
        let length = buffer.len().min(bytes.len() - start);
        buffer[..length].copy_from_slice(&bytes[start..start + length]);
        Ok(length)
    }

    fn list(&self, path: &str) -> guest::Result<Vec<Entry>> {
        let entries = match self.0.list(path) {
            Err(error) if error.kind == volume::ErrorKind::Unsupported => Vec::new(),
            result => present(path, result)?.unwrap_or_default(),
        };
        let entry = |e: volume::files::Entry| Some(Entry { name: e.name.into_string().ok()?, kind: kind(e.kind) });
        Ok(entries.into_iter().filter_map(entry).take(guest::tree::FOLDER_ENTRIES_MAX).collect())
    }

    fn read_link(&self, path: &str) -> guest::Result<Option<String>> {
        match self.0.read_link(path) {
            Err(error) if error.kind == volume::ErrorKind::Unsupported => Ok(None),
            result => Ok(present(path, result)?.and_then(|target| target.into_string().ok())),
        }
    }
}
