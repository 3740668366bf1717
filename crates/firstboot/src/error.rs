//! The one error of this crate: what failed, and what that means for the rest.

use std::io;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong; it answers whether the other steps are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The plan, the state or a recorded list does not follow its format. Do nothing of it.
    Malformed,
    /// What a step needs is not there. The step has failed; go on.
    Missing,
    /// The operating system refused. The step has failed; go on.
    Refused,
    /// A program ran longer than it may. The step has failed; go on.
    TimedOut,
    /// The service is to stop, or Windows shuts down. Stop, and go on at the next start.
    Stopping,
}

/// A failure of the first start.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What was attempted or found, in lower case.
    pub context: String,
    /// The operating system's reason.
    #[source]
    pub source: Option<io::Error>,
}

impl Error {
    /// An error of `kind` without cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// A failed call of the operating system.
    pub fn io(context: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { source: Some(source.into()), ..Self::new(ErrorKind::Refused, context) }
    }

    /// This error with its cause, on one line.
    pub fn chain(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {source}", self.context),
            None => self.context.clone(),
        }
    }
}
