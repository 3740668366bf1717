//! The one error of this crate: what failed, on which path of the guest, and what that means for the rest.

use std::{fmt, io};

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
    pub source: Option<io::Error>,
}

impl Error {
    /// An error of `kind` without path or cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), path: None, source: None }
    }

    /// A failed system call.
    pub fn io(context: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { source: Some(source.into()), ..Self::new(ErrorKind::Io, context) }
    }

    /// Whether a filesystem of the guest has no room for what was to be written.
    pub(crate) fn is_no_room(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        self.source.as_ref().is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
    }

    /// The same error with the guest's path.
    pub fn at(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }
}

/// What a [`FileTree`](crate::FileTree) says; one of this crate's own comes back as it was.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::FileTooLarge => ErrorKind::TooLarge,
            io::ErrorKind::InvalidData => ErrorKind::Malformed,
            _ => ErrorKind::Io,
        };
        error.downcast().unwrap_or_else(|error| Self { kind, ..Self::io("the guest's files", error) })
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind {
            ErrorKind::TooLarge => io::ErrorKind::FileTooLarge,
            ErrorKind::Malformed => io::ErrorKind::InvalidData,
            ErrorKind::Missing => io::ErrorKind::NotFound,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Changed | ErrorKind::Escape => io::ErrorKind::InvalidInput,
            ErrorKind::Io => error.source.as_ref().map_or(io::ErrorKind::Other, io::Error::kind),
        };
        Self::new(kind, error)
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
