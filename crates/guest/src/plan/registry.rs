//! Changes of a registry hive, each with what was there before: to be shown, compared, refused, and taken back.
//!
//! Data stand as regedit writes them behind the `=`, so that a person can read a plan, and what was changed can be
//! written as a registration file, or its opposite. What a removed key had besides values, its class and who may do what
//! with it, is not brought back by that.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::windows::hive::{Data, Edit, KeyPath, ValueType};
use crate::windows::reg_text::{data_text, parse_data};
use crate::{Error, ErrorKind, Result};

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum RegistryChange {
    /// A key is made; the one above it is there.
    MakeKey {
        /// Path within the hive.
        key: String,
    },
    /// A key is removed that has nothing in it any more.
    RemoveKey {
        /// Path within the hive.
        key: String,
    },
    /// A value is made, changed or removed.
    Value {
        /// Path of its key within the hive.
        key: String,
        /// Its name; empty for the unnamed one.
        name: String,
        /// Its data, as regedit writes them; `None` where it is not there.
        before: Option<String>,
        /// The data that it gets; `None` for a value that is removed.
        after: Option<String>,
    },
}

impl RegistryChange {
    /// The change of a value.
    pub(crate) fn value(key: &str, name: &str, before: Option<&Data>, after: Option<&Data>) -> Self {
        let (before, after) = (before.map(data_text), after.map(data_text));
        Self::Value { key: key.to_owned(), name: name.to_owned(), before, after }
    }

    /// The key.
    pub fn key(&self) -> &str {
        match self {
            Self::MakeKey { key } | Self::RemoveKey { key } | Self::Value { key, .. } => key,
        }
    }

    /// Makes it; whether anything was left to be done.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`] where the hive is not what the change was made for.
    pub(super) fn apply(&self, edit: &mut Edit<'_>) -> Result<bool> {
        let changed = |what: String| {
            let key = self.key().escape_debug().to_string();
            Err(Error::new(ErrorKind::Changed, format!("[{key}]: {what} not what the plan was made for")))
        };
        match self {
            Self::MakeKey { key } => edit.create_key(key.as_str()),
            Self::RemoveKey { key } => {
                let Some(found) = edit.hive().open(key.as_str())? else { return Ok(false) };
                if found.value_count() > 0 || found.subkey_count() > 0 {
                    return changed("it is".into());
                }
                edit.delete_key(key.as_str())
            }
            Self::Value { key, name, before, after } => {
                let present = match edit.hive().open(key.as_str())? {
                    Some(key) => key.data(name.as_str())?,
                    None => None,
                };
                let wanted = after.as_deref().map(parse_data).transpose()?;
                if present == wanted {
                    return Ok(false);
                }
                if present != before.as_deref().map(parse_data).transpose()? {
                    return changed(format!("\"{}\" is", name.escape_debug()));
                }
                match wanted {
                    Some(data) => edit.set_value(key.as_str(), name.as_str(), &data),
                    None => edit.delete_value(key.as_str(), name.as_str()),
                }
            }
        }
    }

    /// The change that takes this one back.
    fn reversed(&self) -> Self {
        match self.clone() {
            Self::MakeKey { key } => Self::RemoveKey { key },
            Self::RemoveKey { key } => Self::MakeKey { key },
            Self::Value { key, name, before, after } => Self::Value { key, name, before: after, after: before },
        }
    }
}

/// Which way changes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// As they are made.
    Forth,
    /// As they are taken back: the last first.
    Back,
}

/// Changes as a registration file (version 5, UTF-8, which regedit and `vconverter registry merge` take), for a hive that
/// Windows has at `prefix`.
pub fn registration(changes: &[RegistryChange], prefix: &KeyPath, direction: Direction) -> String {
    let mut text = "Windows Registry Editor Version 5.00\n".to_owned();
    let ordered: Vec<RegistryChange> = match direction {
        Direction::Forth => changes.to_vec(),
        Direction::Back => changes.iter().rev().map(RegistryChange::reversed).collect(),
    };
    let mut heading = None;
    for change in &ordered {
        let (sign, key) = match change {
            RegistryChange::RemoveKey { key } => ("-", key),
            RegistryChange::MakeKey { key } | RegistryChange::Value { key, .. } => ("", key),
        };
        let is_open = sign.is_empty() && heading == Some(key);
        if !is_open {
            text.push_str(&format!("\n[{sign}{prefix}\\{key}]\n"));
        }
        heading = sign.is_empty().then_some(key);
        if let RegistryChange::Value { name, after, .. } = change {
            text.push_str(&format!("{}={}\n", quoted(name), after.as_deref().unwrap_or("-")));
        }
    }
    text
}

/// The name of a value as regedit writes it.
fn quoted(name: &str) -> String {
    match name {
        "" => "@".to_owned(),
        name => quoted_text(name),
    }
}

fn quoted_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Longest data shown to a person, in characters.
const SHOWN_MAX: usize = 200;

/// Changes below the line that tells of their hive: each key once, `-` before what goes, `+` before what comes.
pub(super) fn write_changes(f: &mut fmt::Formatter<'_>, changes: &[RegistryChange]) -> fmt::Result {
    let mut heading = None;
    for change in changes {
        let key = change.key();
        match change {
            RegistryChange::MakeKey { .. } => write!(f, "\n    +[{}]", Short(key))?,
            RegistryChange::RemoveKey { .. } => write!(f, "\n    -[{}]", Short(key))?,
            RegistryChange::Value { name, before, after, .. } => {
                if heading != Some(key) {
                    write!(f, "\n     [{}]", Short(key))?;
                }
                for (sign, data) in [('-', before), ('+', after)] {
                    let Some(data) = data else { continue };
                    write!(f, "\n    {sign}{}={}", Short(&quoted(name)), Short(&readable(data)))?;
                }
            }
        }
        heading = (!matches!(change, RegistryChange::RemoveKey { .. })).then_some(key);
    }
    Ok(())
}

/// Data for a person: texts that regedit writes as bytes are texts here.
fn readable(data: &str) -> String {
    let Ok(parsed) = parse_data(data) else { return data.to_owned() };
    match (parsed.kind, parsed.text(), parsed.texts()) {
        (ValueType::EXPAND_SZ, Some(text), _) => format!("expand:{}", quoted_text(&text)),
        (ValueType::MULTI_SZ, _, Some(texts)) => {
            format!("multi:{}", texts.iter().map(|text| quoted_text(text)).collect::<Vec<_>>().join(","))
        }
        _ => data.to_owned(),
    }
}

/// The beginning of a text, harmless on a terminal.
struct Short<'t>(&'t str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .take(SHOWN_MAX)
            .filter(|found| !found.is_control())
            .try_for_each(|found| write!(f, "{found}"))?;
        if self.0.chars().nth(SHOWN_MAX).is_some() { f.write_str("…") } else { Ok(()) }
    }
}
