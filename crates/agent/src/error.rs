//! The one error of this crate.

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong; it answers whether dialling again could help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The configuration cannot be used. Stop.
    Config,
    /// No way to the controller, or the link failed: dial again.
    Link,
    /// The controller is not the expected one, or did not keep to the protocol: dial again, slowly.
    Untrusted,
    /// The controller refused: dial again, slowly.
    Refused,
    /// A disk cannot be read or understood.
    Disk,
    /// The agent cannot be installed or removed here.
    Service,
}

/// A failure of the agent.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What was attempted or found, in lower case.
    pub context: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` without cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// The same error with its cause.
    pub fn because(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// This error and all its causes in one line, for the screen.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and all its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl From<protocol::Error> for Error {
    fn from(error: protocol::Error) -> Self {
        use protocol::ErrorKind as Theirs;
        let kind = match error.kind {
            Theirs::Link | Theirs::Closed | Theirs::TimedOut | Theirs::Corrupt => ErrorKind::Link,
            // Soon again, without it.
            Theirs::CertificateRefused => ErrorKind::Link,
            Theirs::Untrusted | Theirs::Malformed => ErrorKind::Untrusted,
            Theirs::Refused => ErrorKind::Refused,
            Theirs::Identity => ErrorKind::Config,
        };
        Self { kind, context: error.context, source: error.source }
    }
}
