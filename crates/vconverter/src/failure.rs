//! How a command ends when it does not end well: one line for people, one exit code for programs.

use controller::api::{Problem, ProblemKind};

/// A command's end.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Exit codes; `vconverter --help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    Unreachable = 5,
    Reservations = 6,
    Interrupted = 130,
}

/// Why a command ends with something else than 0.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// The error and its causes, in one line. Empty where everything was said already.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A failed system call.
    pub(crate) fn io(context: &str, error: &std::io::Error) -> Self {
        Self::new(Code::Failed, format!("{context}: {error}"))
    }

    /// A file that cannot be read; one that is not there has its own code.
    pub(crate) fn file(context: &str, error: &std::io::Error) -> Self {
        let code = if error.kind() == std::io::ErrorKind::NotFound { Code::NotFound } else { Code::Failed };
        Self::new(code, format!("{context}: {error}"))
    }

    /// Everything was shown; only the exit code is left to be said.
    pub(crate) fn silent(code: Code) -> Self {
        Self::new(code, "")
    }
}

impl From<controller::Error> for Failure {
    fn from(error: controller::Error) -> Self {
        use controller::ErrorKind as Kind;
        let code = match error.kind {
            Kind::NotFound => Code::NotFound,
            Kind::Invalid => Code::Usage,
            Kind::Conflict | Kind::Locked => Code::Refused,
            _ => Code::Failed,
        };
        Self::new(code, error.chain())
    }
}

impl From<conversion::Error> for Failure {
    fn from(error: conversion::Error) -> Self {
        use conversion::ErrorKind as Kind;
        let code = match error.kind {
            Kind::Refused => Code::Refused,
            Kind::Cancelled => Code::Interrupted,
            _ => Code::Failed,
        };
        Self::new(code, controller::chain(&error))
    }
}

impl From<bootimage::Error> for Failure {
    fn from(error: bootimage::Error) -> Self {
        let code = match error.kind {
            bootimage::ErrorKind::InvalidConfiguration => Code::Usage,
            _ => Code::Failed,
        };
        Self::new(code, controller::chain(&error))
    }
}

impl From<guest::Error> for Failure {
    fn from(error: guest::Error) -> Self {
        let code = match error.kind {
            guest::ErrorKind::Missing => Code::NotFound,
            guest::ErrorKind::Changed => Code::Refused,
            _ => Code::Failed,
        };
        Self::new(code, controller::chain(&error))
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let code = match problem.kind {
            ProblemKind::Invalid => Code::Usage,
            ProblemKind::NotFound => Code::NotFound,
            ProblemKind::Conflict | ProblemKind::Unauthenticated | ProblemKind::Forbidden | ProblemKind::TooMany => {
                Code::Refused
            }
            ProblemKind::Internal => Code::Failed,
        };
        Self::new(code, problem.detail)
    }
}
