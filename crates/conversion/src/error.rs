//! The one error of this crate.

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it is: what can the caller do?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request cannot be carried out as it stands: a busy name, an unknown disk, a missing program.
    Refused,
    /// The source failed: unreadable sectors, a disk that shrank, a machine that went away for good.
    Source,
    /// The machine left the boot image and came back: its own system may have written its disks in between.
    SourceChanged,
    /// The place of the result failed: no space, read-only.
    Target,
    /// A fix-up failed; the replica is as it was and the step can be retried without copying.
    FixUp,
    /// The copy differs from the source, or the VM was seen not to boot.
    NotProven,
    /// The operator cancelled it.
    Cancelled,
    /// Anything else.
    Internal,
}

/// A failure of a conversion.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    /// What the caller can do.
    pub kind: ErrorKind,
    /// What was attempted, where, and what to do, in lower case.
    pub context: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a deeper cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// An error that `source` caused.
    pub fn because(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { source: Some(source.into()), ..Self::new(kind, context) }
    }

    /// That the operator cancelled.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled; what is durable is kept, the same command goes on from there")
    }
}

/// Gives a foreign error this crate's kind and a context.
pub(crate) trait Context<T> {
    /// Wraps the error.
    fn context(self, kind: ErrorKind, context: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, kind: ErrorKind, context: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::because(kind, context(), error))
    }
}
