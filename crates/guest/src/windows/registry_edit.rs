//! Changes of a hive that serve one purpose, which is told with them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::hive::Data;
use crate::plan::RegistryChange;

/// Changes of a hive that are made together, and why. A fix-up takes the changes into a
/// [`Change::Registry`](crate::Change::Registry) of the hive's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryEdit {
    /// Why, in words for people.
    pub reason: String,
    /// The changes, in their order.
    pub changes: Vec<RegistryChange>,
}

impl RegistryEdit {
    /// A value that is there gets other data; `None` where it has them already.
    pub(super) fn change(key: &str, name: &str, before: &Data, after: &Data, reason: String) -> Option<Self> {
        let changes = || vec![RegistryChange::value(key, name, Some(before), Some(after))];
        (before != after).then(|| Self { reason, changes: changes() })
    }

    /// A key that has this value and nothing else is removed.
    pub(super) fn remove_key(key: &str, name: &str, before: &Data, reason: String) -> Self {
        let removed = RegistryChange::RemoveKey { key: key.to_owned() };
        Self { reason, changes: vec![RegistryChange::value(key, name, Some(before), None), removed] }
    }
}

impl fmt::Display for RegistryEdit {
    /// Key and reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |text: &str| text.replace(char::is_control, "\u{fffd}");
        let key = self.changes.first().map_or("", RegistryChange::key);
        write!(f, "[{}] {}", plain(key), plain(&self.reason))
    }
}
