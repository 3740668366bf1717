//! The one error of this crate: what failed, on which path of the guest, and what that means for the rest.

use std::fmt;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong; it answers whether to leave the file alone or to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A file is longer, a folder fuller or an archive larger than the bound named for it. Treat it as unknown.
    TooLarge,
    /// A file does not follow its format. Treat it as unknown.
    Malformed,
    /// A format that is known and not supported. Treat it as unknown.
    Unsupported,
    /// The guest lacks what a fix-up needs, such as a kernel module. The fix-up cannot be made.
    Missing,
    /// A file is not what the plan saw. Plan again.
    Changed,
    /// A name leads out of the tree, or is no absolute path. Leave it alone.
    Escape,
    /// Any other failure of the operating system. Stop.
    Io,
}

/// A failure of reading or changing a guest.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What was attempted or found, in lower case.
    pub context: String,
    /// The file of the guest.
    pub path: Option<String>,
    /// The operating system's reason.
    #[source]
    pub source: Option<std::io::Error>,
}

impl Error {
    /// An error of `kind` without path or cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), path: None, source: None }
    }

    /// A failed system call.
    pub fn io(context: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self { source: Some(source.into()), ..Self::new(ErrorKind::Io, context) }
    }

    /// Whether a filesystem of the guest has no room for what was to be written.
    pub(crate) fn is_no_room(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        self.source.as_ref().is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
    }

    /// The same error with the guest's path.
    pub fn at(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            // The path comes from the guest: control characters must not reach a terminal.
            Some(path) => write!(f, "{}: {}", path.escape_default(), self.context),
            None => f.write_str(&self.context),
        }
    }
}
