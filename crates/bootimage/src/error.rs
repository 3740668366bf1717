//! The one error of this crate: what was being made, and why it cannot be.

use std::io;
use std::path::Path;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong; it answers who can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A program or file of a Debian package is not installed; the context names the package.
    MissingTool,
    /// One of our own programs was not found beside the running one.
    MissingProgram,
    /// There is no such kernel, or what was given is none.
    NoKernel,
    /// The package client could not fetch a package.
    NoPackage,
    /// A driver that the operator gave is none, or is for another kernel.
    UnusableDriver,
    /// A file that is looked into is no boot image, or a damaged one.
    NoBootImage,
    /// A value that the operator gave is not usable.
    InvalidConfiguration,
    /// A tool ran and failed; the context holds the last lines of what it said.
    ToolFailed,
    /// Any failure of the operating system: no space, no permission.
    Io,
}

/// A boot image or an appliance that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    /// Who can help.
    pub kind: ErrorKind,
    /// What was attempted, in lower case.
    pub context: String,
    /// The operating system's reason.
    #[source]
    pub source: Option<io::Error>,
}

impl Error {
    /// An error of `kind` without a cause below it.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// A failed system call.
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        Self { kind: ErrorKind::Io, context: context.into(), source: Some(source) }
    }

    /// A failed system call on `path`: `write /tmp/x`.
    pub fn path(what: &str, path: &Path, source: io::Error) -> Self {
        Self::io(format!("{what} {}", path.display()), source)
    }
}
