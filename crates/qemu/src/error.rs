//! The one error of this crate.

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// QEMU or its firmware is not installed; the context names the package.
    Missing,
    /// The hardware asked for cannot be built: too many IDE disks, a read-only IDE disk.
    Hardware,
    /// QEMU ended before or while it was asked; the context holds its last words.
    Exited,
    /// QEMU answered a command with an error, or not in the form of QMP.
    Qmp,
    /// What was waited for did not come in time.
    Timeout,
    /// Any other failure of the operating system.
    Io,
}

/// A failure to start, watch or command QEMU.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What was attempted or found.
    pub context: String,
    /// The operating system's reason.
    #[source]
    pub source: Option<std::io::Error>,
}

impl Error {
    /// An error of `kind` without cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// A failed system call.
    pub fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        Self { kind: ErrorKind::Io, context: context.into(), source: Some(source) }
    }
}
