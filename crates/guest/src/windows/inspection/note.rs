//! What a fact means for the conversion.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To be known; nothing to do.
    Info,
    /// Somebody should look at it, before or after.
    Warning,
    /// The VM would not start, or would lose data: to be put right on the source first.
    Blocker,
}

/// A fact with its meaning, in words for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How much it matters.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What that means for the conversion, and what to do.
    pub meaning: String,
}

impl Note {
    pub(super) fn info(what: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { severity: Severity::Info, what: what.into(), meaning: meaning.into() }
    }

    pub(super) fn warning(what: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::info(what, meaning) }
    }

    pub(super) fn blocker(what: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { severity: Severity::Blocker, ..Self::info(what, meaning) }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Blocker => "blocker",
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity, self.what, self.meaning)
    }
}
