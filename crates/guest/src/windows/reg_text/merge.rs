//! A registration file merged into a hive.

use std::fmt;

use super::super::hive::{Edit, KeyPath, Name};
use super::{Change, Section, full_path};
use crate::{Error, ErrorKind, Result};

/// Something that a merge changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A key was made, with those above it.
    MadeKey(KeyPath),
    /// A key was removed with everything below it.
    RemovedKey(KeyPath),
    /// A value was made or changed.
    SetValue(KeyPath, Name),
    /// A value was removed.
    RemovedValue(KeyPath, Name),
}

/// For people: `+ [key]`, `- [key] "value"`, `= [key] "value"`.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |name: &Name| match name.is_empty() {
            true => "@".to_owned(),
            false => format!("\"{name}\""),
        };
        match self {
            Self::MadeKey(key) => write!(f, "+ [{key}]"),
            Self::RemovedKey(key) => write!(f, "- [{key}]"),
            Self::SetValue(key, name) => write!(f, "= [{key}] {}", shown(name)),
            Self::RemovedValue(key, name) => write!(f, "- [{key}] {}", shown(name)),
        }
    }
}

/// What a merge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// What changed, in order, with paths within the hive.
    pub actions: Vec<Action>,
    /// Lines that asked for what was so already.
    pub same: usize,
}

/// Makes the changes of `sections`, whose keys lie below `prefix`, the hive's own place. A leading `CurrentControlSet` is
/// the control set that the hive says was in use.
///
/// # Errors
/// `Malformed` for a key that is not below `prefix`, before anything is changed; else what the edit says, with the line.
pub fn merge(edit: &mut Edit, sections: &[Section], prefix: &KeyPath) -> Result<Merge> {
    let prefix = full_path(prefix);
    let paths: Result<Vec<KeyPath>> = sections.iter().map(|section| within(section, &prefix)).collect();
    let mut merge = Merge::default();
    for (section, path) in sections.iter().zip(paths?) {
        let at_line = |error: Error| Error { context: format!("line {}: {}", section.line, error.context), ..error };
        let path = edit.hive().resolve(&path).map_err(at_line)?;
        apply(edit, section, &path, &mut merge).map_err(at_line)?;
    }
    Ok(merge)
}

fn within(section: &Section, prefix: &KeyPath) -> Result<KeyPath> {
    let path = full_path(&section.key);
    let (names, expected) = (path.names(), prefix.names());
    let is_below =
        names.len() >= expected.len() && names.iter().zip(expected).all(|(name, expected)| name.is(expected));
    if !is_below {
        let (line, shown) = (section.line, path.to_string());
        let context = format!("line {line}: expected a key below {prefix}, found {}", shown.escape_debug());
        return Err(Error::new(ErrorKind::Malformed, context));
    }
    Ok(KeyPath::from_names(&names[expected.len()..]))
}

fn apply(edit: &mut Edit, section: &Section, path: &KeyPath, merge: &mut Merge) -> Result<()> {
    let mut note = |is_changed: bool, action: Action| match is_changed {
        true => merge.actions.push(action),
        false => merge.same += 1,
    };
    match &section.change {
        Change::Delete => note(edit.delete_key(path)?, Action::RemovedKey(path.clone())),
        Change::Set(values) => {
            note(edit.create_key(path)?, Action::MadeKey(path.clone()));
            for (name, data) in values {
                match data {
                    Some(data) => {
                        note(edit.set_value(path, name, data)?, Action::SetValue(path.clone(), name.clone()));
                    }
                    None => note(edit.delete_value(path, name)?, Action::RemovedValue(path.clone(), name.clone())),
                }
            }
        }
    }
    Ok(())
}
