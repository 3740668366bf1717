//! What a fact about a guest or a machine means for its conversion.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To be known; nothing to do.
    Info,
    /// Somebody should look at it, before or after.
    Warning,
    /// It cannot be made like this: the VM would not start, or would lose data.
    Blocker,
}

/// A fact with its meaning, in words for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Note {
    /// How much it matters.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What that means for the conversion, and what to do.
    pub meaning: String,
}

impl Note {
    /// Something to be known.
    pub fn info(what: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { severity: Severity::Info, what: what.into(), meaning: meaning.into() }
    }

    /// Something that somebody should look at.
    pub fn warning(what: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::info(what, meaning) }
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
