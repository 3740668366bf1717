//! The one error of this crate.

use std::error::Error as StdError;
use std::fmt;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as the caller must act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No interface can be used, or not the one that was named.
    NoInterface,
    /// Another program has a port that is needed.
    PortTaken,
    /// A privilege is missing.
    Forbidden,
    /// Boot files are missing.
    NoFiles,
    /// Any other failure of the operating system.
    Io,
}

/// A failure of the PXE service.
#[derive(Debug)]
pub struct Error {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What was attempted or found, in lower case.
    pub context: String,
    /// Why.
    pub source: Option<std::io::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    pub(crate) fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::AddrInUse => ErrorKind::PortTaken,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Forbidden,
            _ => ErrorKind::Io,
        };
        Self { kind, context: context.into(), source: Some(source) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
