//! What can go wrong.

use std::io;
use std::path::Path;

/// The result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Which way out there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The machine cannot be started in this way; nothing was changed.
    Refused,
    /// Something of what was read is not what it should be.
    Malformed,
    /// The operating system's.
    Io,
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    /// Which way out there is.
    pub kind: ErrorKind,
    /// What was done, and to what.
    pub context: String,
    /// The operating system's word.
    #[source]
    pub source: Option<io::Error>,
}

impl Error {
    /// One without another behind it.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// What the operating system said about a file.
    pub fn path(what: &str, path: &Path, source: io::Error) -> Self {
        Self { kind: ErrorKind::Io, context: format!("{what} {}", path.display()), source: Some(source) }
    }

    /// This error and what is behind it, in one line.
    pub fn chain(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {source}", self.context),
            None => self.context.clone(),
        }
    }
}
