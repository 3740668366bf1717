//! Changes of a registry hive as data, with what is there now: shown before they are made, and enough to take them back.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hive::{Data, Edit, Hive, ValueType};
use crate::{Error, ErrorKind, Result, hexadecimal};

/// A change of a hive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "snake_case")]
pub enum RegistryEdit {
    /// A value gets other data, or is made.
    SetValue {
        /// Its key, relative to the root of the hive.
        key: String,
        /// Its name.
        name: String,
        /// What it holds now; `None` where it is made.
        old: Option<Stored>,
        /// What it will hold.
        new: Stored,
        /// Why.
        reason: String,
    },
    /// A key without subkeys is removed.
    RemoveKey {
        /// The key.
        key: String,
        /// The values that it has now, with their names.
        old: Vec<(String, Stored)>,
        /// Why.
        reason: String,
    },
}

/// A value's data in a plan: `{"type":3,"data":"00ff"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored(pub Data);

#[derive(Serialize, Deserialize)]
struct Form {
    #[serde(rename = "type")]
    kind: u32,
    #[serde(with = "hexadecimal")]
    data: Vec<u8>,
}

impl Serialize for Stored {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Form { kind: self.0.kind.0, data: self.0.bytes.clone() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let form = Form::deserialize(deserializer)?;
        Ok(Self(Data::new(ValueType(form.kind), form.data)))
    }
}

impl RegistryEdit {
    /// A value that is there and gets other data; `None` where it has them already.
    pub(super) fn change(key: &str, name: &str, old: &Data, new: Data, reason: String) -> Option<Self> {
        (*old != new).then(|| Self::SetValue {
            key: key.to_owned(),
            name: name.to_owned(),
            old: Some(Stored(old.clone())),
            new: Stored(new),
            reason,
        })
    }

    /// The key that is changed, relative to the root of the hive.
    pub fn key(&self) -> &str {
        match self {
            Self::SetValue { key, .. } | Self::RemoveKey { key, .. } => key,
        }
    }

    /// Makes the change; whether anything was left to be done.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`] where the hive is not what the plan was made for.
    pub fn apply(&self, edit: &mut Edit<'_>) -> Result<bool> {
        let changed = |key: &str| {
            Error::new(ErrorKind::Changed, format!("{}: it is not what the plan was made for", key.escape_debug()))
        };
        match self {
            Self::SetValue { key, name, old, new, .. } => {
                let now = value(edit.hive(), key, name)?;
                if now.as_ref() == Some(&new.0) {
                    return Ok(false);
                }
                if now.as_ref() != old.as_ref().map(|old| &old.0) {
                    return Err(changed(key));
                }
                edit.create_key(key)?;
                edit.set_value(key, name, &new.0)
            }
            Self::RemoveKey { key, old, .. } => {
                let Some(found) = edit.hive().open(key)? else { return Ok(false) };
                let mut now = Vec::new();
                for value in found.values()? {
                    let value = value?;
                    now.push((value.name()?.to_string(), Stored(value.data()?)));
                }
                if now != *old || found.subkey_count() > 0 {
                    return Err(changed(key));
                }
                edit.delete_key(key)
            }
        }
    }
}

fn value(hive: &Hive, key: &str, name: &str) -> Result<Option<Data>> {
    hive.open(key)?.map(|key| key.data(name)).transpose().map(Option::flatten)
}

impl fmt::Display for RegistryEdit {
    /// What, and why; the bytes in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |text: &str| text.replace(char::is_control, "\u{fffd}");
        match self {
            Self::SetValue { key, name, old, new, reason } => {
                writeln!(f, "[{}] \"{}\": {}", plain(key), plain(name), plain(reason))?;
                if let Some(old) = old {
                    writeln!(f, "  - {old}")?;
                }
                write!(f, "  + {new}")
            }
            Self::RemoveKey { key, old, reason } => {
                write!(f, "[{}] removed: {}", plain(key), plain(reason))?;
                old.iter().try_for_each(|(name, old)| write!(f, "\n  - \"{}\" {old}", plain(name)))
            }
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type {} {}", self.0.kind.0, hexadecimal::text(&self.0.bytes))
    }
}
