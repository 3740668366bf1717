//! The one error of this crate.

use std::io;
use std::path::Path;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Something of the lab could not be made or did not behave.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    /// What was attempted or found.
    pub context: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without cause.
    pub fn new(context: impl Into<String>) -> Self {
        Self { context: context.into(), source: None }
    }

    /// A failed access to a file.
    pub fn file(path: &Path, source: io::Error) -> Self {
        Self { context: path.display().to_string(), source: Some(Box::new(source)) }
    }

    /// A failed system call.
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        Self { context: context.into(), source: Some(Box::new(source)) }
    }
}

impl From<qemu::Error> for Error {
    fn from(e: qemu::Error) -> Self {
        Self { context: "virtual machine".into(), source: Some(Box::new(e)) }
    }
}
