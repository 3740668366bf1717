//! The one error of this crate.

use std::io;
use std::path::Path;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// A step of bringing the machine up that failed. Nothing here is fatal to PID 1: it is shown, and tried again where
/// that can help.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    /// What was attempted, in lower case.
    pub context: String,
    /// The operating system's reason.
    #[source]
    pub source: Option<io::Error>,
}

impl Error {
    /// An error without a cause below it.
    pub fn new(context: impl Into<String>) -> Self {
        Self { context: context.into(), source: None }
    }

    /// A failed system call.
    pub fn io(context: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { context: context.into(), source: Some(source.into()) }
    }

    /// A failed system call on `path`.
    pub fn path(what: &str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::io(format!("{what} {}", path.display()), source)
    }

    /// The error and its cause in one line.
    pub fn chain(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {source}", self.context),
            None => self.context.clone(),
        }
    }
}
