//! The one error of this crate.

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why no definition can be made, or nothing be done with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The target has no such hardware: a disk bus without the disk's sector size, too many disks on a bus.
    Unsupported,
    /// Something needed is not known, or has a form that the definition cannot carry.
    Invalid,
    /// The hypervisor cannot be reached or refuses.
    Hypervisor,
}

/// A machine that cannot be defined, or a VM that cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    /// Why.
    pub kind: ErrorKind,
    /// What was expected and found.
    pub context: String,
}

impl Error {
    pub(crate) fn unsupported(context: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unsupported, context: context.into() }
    }

    pub(crate) fn hypervisor(context: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Hypervisor, context: context.into() }
    }

    pub(crate) fn invalid(context: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Invalid, context: context.into() }
    }
}
