//! The one error of this crate.

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong; it answers whether trying again could help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The link failed or the peer's machine is gone: connect again.
    Link,
    /// The peer closed the connection: connect again.
    Closed,
    /// The peer said nothing for too long: connect again.
    TimedOut,
    /// The peer's certificate is not the expected one, or its handshake fails. Wrong address, or an attack.
    Untrusted,
    /// What the peer sent does not follow the protocol. Stop this connection.
    Malformed,
    /// Content that does not match its checksum: never written; ask for it again.
    Corrupt,
    /// The peer refused, with its reason.
    Refused,
    /// The controller refused the agent's certificate: without it the agent may wait for approval.
    CertificateRefused,
    /// Keys and certificates cannot be read, written or made here. Stop.
    Identity,
}

/// A failure of talking to the peer.
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

    /// Input that does not follow the protocol.
    pub fn malformed(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Malformed, context)
    }

    /// The same error with its cause.
    pub fn because(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// A failed read or write of the connection; the kind follows from the operating system's reason.
    pub fn link(context: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        // An error that came through `Read` or `Write` of a connection carries the connection's own.
        let kind = match source.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            Some(inner) => inner.kind,
            None => match source.kind() {
                Io::UnexpectedEof | Io::ConnectionReset | Io::BrokenPipe | Io::ConnectionAborted => ErrorKind::Closed,
                Io::TimedOut | Io::WouldBlock => ErrorKind::TimedOut,
                _ => ErrorKind::Link,
            },
        };
        Self::new(kind, context).because(source)
    }

    /// Whether another connection may succeed where this one failed.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Link | ErrorKind::Closed | ErrorKind::TimedOut | ErrorKind::Corrupt)
    }

    /// This error and all its causes in one line, for screens and logs.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}
