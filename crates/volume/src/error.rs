//! The one error of this crate: what on the disk could not be understood or read, and where.

use std::fmt;

use machine::ByteOffset;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong; it answers whether to retry, skip or stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A structure does not follow its specification. Stop: nothing that it describes can be trusted.
    Malformed,
    /// The structure is valid and uses a feature that is not supported. Stop, or treat what it describes as unknown.
    Unsupported,
    /// No file of that name. Skip it.
    NotFound,
    /// Something larger than the bound that the caller gave, or than this crate sets. Skip it.
    TooLarge,
    /// The disk could not be read there; the source says why.
    Read,
}

/// A failure of understanding what lies on a disk.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What was expected and what was found, in lower case.
    pub context: String,
    /// Where on the disk or volume, in bytes.
    pub offset: Option<ByteOffset>,
    /// The failed read below it.
    #[source]
    pub source: Option<block::Error>,
}

impl Error {
    /// An error of `kind` without position or cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), offset: None, source: None }
    }

    /// A structure at `offset` that does not follow its specification.
    pub fn malformed(offset: u64, context: impl Into<String>) -> Self {
        Self { offset: Some(ByteOffset(offset)), ..Self::new(ErrorKind::Malformed, context) }
    }

    /// A failed read of `what`.
    pub fn read(what: impl Into<String>, source: block::Error) -> Self {
        Self { offset: source.offset, source: Some(source), ..Self::new(ErrorKind::Read, what) }
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
