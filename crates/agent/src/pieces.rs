//! Files that come in pieces on the control connection, put together in a folder.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use protocol::piece::FilePiece;

/// How much may come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Files.
    pub(crate) files: usize,
    /// Bytes of one.
    pub(crate) file_bytes: u64,
    /// Bytes of all.
    pub(crate) bytes: u64,
}

/// Files of one push that come in, one after the other. They are for their owner only.
pub(crate) struct Incoming {
    /// As in the pieces.
    pub(crate) push: u64,
    bounds: Bounds,
    bytes: u64,
    files: usize,
    /// The file whose pieces come in, and how far it is.
    file: Option<(String, File, u64)>,
    is_refused: bool,
}

impl Incoming {
    /// None yet.
    pub(crate) fn new(push: u64, bounds: Bounds) -> Self {
        Self { push, bounds, bytes: 0, files: 0, file: None, is_refused: false }
    }

    /// Whether a piece could not be taken; none is from then on.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Takes a piece into a folder, which is made where it is missing. The error is for a person.
    pub(crate) fn take(&mut self, folder: &Path, piece: &FilePiece) -> Result<(), String> {
        let taken = self.write(folder, piece);
        if taken.is_err() {
            (self.file, self.is_refused) = (None, true);
        }
        taken
    }

    fn write(&mut self, folder: &Path, piece: &FilePiece) -> Result<(), String> {
        let name = piece.name.as_str();
        let failed = |error: std::io::Error| format!("it cannot be kept: {error}");
        if self.file.as_ref().is_none_or(|(current, ..)| current != name) {
            self.files += 1;
            if self.files > self.bounds.files {
                return Err(format!("more than {} files", self.bounds.files));
            }
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(folder.join(name)).map_err(failed)?;
            self.file = Some((name.to_owned(), file, 0));
        }
        let Some((_, file, length)) = &mut self.file else { return Err("no file".into()) };
        let bytes = piece.content.bytes();
        if piece.offset != *length {
            return Err(format!("a piece of it is missing: expected one at {length}, found {}", piece.offset));
        }
        (*length, self.bytes) = (*length + bytes.len() as u64, self.bytes + bytes.len() as u64);
        let Bounds { file_bytes, bytes: all, .. } = self.bounds;
        if *length > file_bytes || self.bytes > all {
            return Err(format!("larger than {} MiB, or {} with the others", file_bytes >> 20, all >> 20));
        }
        file.write_all(bytes).map_err(failed)
    }
}

/// Removes a folder of pieces; one that is not there is none.
pub(crate) fn discard(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
}
