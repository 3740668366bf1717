//! The one error of this crate.

use std::error::Error as StdError;
use std::fmt;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as the caller must act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing has that id, name or code.
    NotFound,
    /// The request contradicts itself, the rules or what is possible.
    Invalid,
    /// The request does not fit the state of things: a name is taken, a machine is not connected, a task is over.
    Conflict,
    /// Who asks has not shown who they are, or wrongly.
    Unauthenticated,
    /// Who asks may not.
    Forbidden,
    /// Too much at once, or too soon after failures.
    TooMany,
    /// Another controller works on the data directory.
    Locked,
    /// The database was written by a newer vconverter.
    NewerSchema,
    /// The data directory or its files cannot be written.
    ReadOnly,
    /// The operator or the shutdown of the controller ended it.
    Cancelled,
    /// The database failed or holds what it should not.
    Storage,
    /// The network or an agent failed.
    Network,
    /// The conversion failed.
    Conversion,
    /// Any other failure of the operating system.
    Io,
}

/// A failure of the controller.
#[derive(Debug)]
pub struct Error {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What was attempted or found, in lower case.
    pub context: String,
    /// Why.
    pub source: Option<Box<dyn StdError + Send + Sync>>,
    /// How long to wait, where that is what to do about it.
    pub retry_seconds: Option<u64>,
}

impl Error {
    /// An error of `kind` without cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None, retry_seconds: None }
    }

    /// An error of `kind` with its cause.
    pub fn with(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(source.into()), retry_seconds: None }
    }

    /// Too much at once, or too soon: again in so many milliseconds.
    pub fn too_many(context: &str, wait_ms: u64) -> Self {
        let seconds = wait_ms.div_ceil(1000).max(1);
        let context = format!("{context}: try again in {seconds} s");
        Self { retry_seconds: Some(seconds), ..Self::new(ErrorKind::TooMany, context) }
    }

    /// A failed system call; a medium that cannot be written has its own kind.
    pub fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::ReadOnlyFilesystem | Io::PermissionDenied => ErrorKind::ReadOnly,
            _ => ErrorKind::Io,
        };
        Self::with(kind, context, source)
    }

    /// This error and its causes in one line, outermost first.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and its causes in one line, outermost first, none twice.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}
