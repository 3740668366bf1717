//! The one error of this crate: what failed, where, and whether trying again could help.

use std::fmt;

use machine::{ByteCount, ByteOffset};

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong; it answers whether to retry, skip or stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The medium could not be read there: retried in smaller pieces, then skipped only if the operator said so.
    Unreadable,
    /// A read or write beyond the end: the disk or image shrank, or a structure on it lies. Stop.
    OutOfBounds,
    /// A structure does not follow its specification. Stop, or treat what it describes as unknown.
    Malformed,
    /// The structure is valid and uses a feature that is not supported. Stop, or treat it as unknown.
    Unsupported,
    /// No space left where the result is written: stop; what is durable stays and the task can go on later.
    NoSpace,
    /// The image could not be written, room aside: the fault is where the result lies. Stop.
    Unwritable,
    /// Who called wanted it to stop.
    Cancelled,
    /// Any other failure of the operating system. Stop.
    Io,
}

/// A failure of reading, writing or understanding a disk or an image.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What was attempted or found, in lower case: `qcow2 header: expected version 2 or 3, found 7`.
    pub context: String,
    /// Where on the disk or in the image.
    pub offset: Option<ByteOffset>,
    /// The operating system's reason.
    #[source]
    pub source: Option<std::io::Error>,
}

impl Error {
    /// An error of `kind` without position or cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), offset: None, source: None }
    }

    /// A structure at `offset` that does not follow its specification.
    pub fn malformed(offset: ByteOffset, context: impl Into<String>) -> Self {
        Self { offset: Some(offset), ..Self::new(ErrorKind::Malformed, context) }
    }

    /// An access of `length` bytes at `offset` that a disk of `size` does not hold.
    pub fn out_of_bounds(offset: ByteOffset, length: ByteCount, size: ByteCount) -> Self {
        let context = format!("access of {} bytes beyond the end of {} bytes", length.0, size.0);
        Self { offset: Some(offset), ..Self::new(ErrorKind::OutOfBounds, context) }
    }

    /// A failed system call; the kind follows from its error code (EIO and its kin mean an unreadable medium).
    pub fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.raw_os_error() {
            Some(5 | 61 | 84 | 121) => ErrorKind::Unreadable, // EIO, ENODATA, EILSEQ, EREMOTEIO
            Some(28 | 122) => ErrorKind::NoSpace,             // ENOSPC, EDQUOT
            _ if source.kind() == std::io::ErrorKind::UnexpectedEof => ErrorKind::OutOfBounds,
            _ => ErrorKind::Io,
        };
        Self { source: Some(source), ..Self::new(kind, context) }
    }

    /// The same error, met while the image was written: an EIO there says nothing about the source's medium.
    pub(crate) fn of_image(self) -> Self {
        let kind = if self.kind == ErrorKind::NoSpace { self.kind } else { ErrorKind::Unwritable };
        Self { kind, ..self }
    }

    /// The same error with its position.
    pub fn at(self, offset: ByteOffset) -> Self {
        Self { offset: Some(offset), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        match self.offset {
            Some(offset) => write!(f, " at {offset}"),
            None => Ok(()),
        }
    }
}
