//! The file that an image is written into: past the page cache and many writes deep where that works, positioned
//! writes where not.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use machine::{ByteCount, ByteOffset};

use crate::{Buffer, CreateOptions, Error, ErrorKind, Result};

pub(crate) struct Output {
    file: File,
    written: ByteCount,
}

impl Output {
    /// Makes the file; it must not exist.
    pub(crate) fn create(path: &Path, options: &CreateOptions) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|e| Error::io(format!("cannot create {}", path.display()), e))?;
        if let Some(expected) = options.expected {
            require_room(&file, expected).inspect_err(|_| {
                // Nothing was written: the empty file would only be in the way of the next attempt.
                let _ = std::fs::remove_file(path);
            })?;
        }
        Ok(Self { file, written: ByteCount::ZERO })
    }

    /// Opens a file that exists, to go on with it.
    pub(crate) fn open(path: &Path, _options: &CreateOptions) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| Error::io(format!("cannot open {} for writing", path.display()), e))?;
        Ok(Self { file, written: ByteCount::ZERO })
    }

    /// Begins to write `data` at `offset`.
    pub(crate) fn write(&mut self, offset: ByteOffset, data: Buffer) -> Result<()> {
        self.written += data.len().into();
        self.file.write_all_at(&data, offset.0).map_err(|e| Error::io("cannot write the image", e).at(offset))
    }

    /// Waits for all writes and makes them durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io("cannot make the image durable", e))
    }

    /// Waits for all writes and sets the file's length.
    pub(crate) fn set_length(&mut self, length: ByteCount) -> Result<()> {
        self.file.set_len(length.0).map_err(|e| Error::io("cannot set the length of the image", e))
    }

    /// The file's length.
    pub(crate) fn length(&self) -> Result<ByteCount> {
        let metadata = self.file.metadata().map_err(|e| Error::io("cannot read the length of the image", e))?;
        Ok(ByteCount(metadata.len()))
    }

    pub(crate) fn bytes_written(&self) -> ByteCount {
        self.written
    }
}

/// Refuses where the filesystem has less than `expected` free.
fn require_room(file: &File, expected: ByteCount) -> Result<()> {
    let Ok(stat) = rustix::fs::fstatvfs(file) else { return Ok(()) };
    let free = ByteCount(stat.f_bavail.saturating_mul(stat.f_frsize));
    if free < expected {
        let context = format!("not enough space for the image: {expected} are needed and {free} are free");
        return Err(Error::new(ErrorKind::NoSpace, context));
    }
    Ok(())
}
