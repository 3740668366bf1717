//! The hives of a guest as fix-ups see them: SYSTEM with each of its control sets, and SOFTWARE.

use super::recorder::Recorder;
use crate::Result;
use crate::plan::Change;
use crate::windows::drivers::{Edit, Scope};
use crate::windows::hive::{self, ValueType};
use crate::windows::inf::Data;

/// Value of `Start` of a service: it never starts.
const DISABLED: u32 = 4;

/// The hives that fix-ups change.
#[derive(Debug)]
pub(super) struct Registry<'h> {
    pub(super) system: Recorder<'h>,
    pub(super) software: Recorder<'h>,
    /// All control sets: each gets every change, because the next one that Windows takes may be any of them.
    pub(super) control_sets: Vec<String>,
}

impl Registry<'_> {
    /// What was changed since the last call, hive by hive.
    pub(super) fn take(&mut self) -> Vec<Change> {
        self.system.take().into_iter().chain(self.software.take()).collect()
    }

    /// Sets a value of a key of every control set.
    pub(super) fn set(&mut self, path: &str, name: &str, data: &hive::Data) -> Result<()> {
        for set in &self.control_sets {
            self.system.set(&format!("{set}\\{path}"), name, data)?;
        }
        Ok(())
    }

    /// Switches a service off where it is there and starts; whether it was on in any control set.
    pub(super) fn disable(&mut self, service: &str) -> Result<bool> {
        let mut was_on = false;
        for set in &self.control_sets {
            let key = format!("{set}\\Services\\{service}");
            let start = self.system.value(&key, "Start")?.and_then(|start| start.dword());
            if start.is_some_and(|start| start != DISABLED) {
                self.system.set(&key, "Start", &hive::Data::of_dword(DISABLED))?;
                was_on = true;
            }
        }
        Ok(was_on)
    }

    /// Takes texts out of a `REG_MULTI_SZ` of a key of every control set; a list that becomes empty is removed.
    pub(super) fn remove_texts(&mut self, path: &str, name: &str, is_wrong: &dyn Fn(&str) -> bool) -> Result<bool> {
        let mut is_changed = false;
        for set in &self.control_sets {
            let key = format!("{set}\\{path}");
            let Some(texts) = self.system.value(&key, name)?.and_then(|data| data.texts()) else { continue };
            let kept: Vec<&str> = texts.iter().map(String::as_str).filter(|text| !is_wrong(text)).collect();
            if kept.len() == texts.len() {
                continue;
            }
            is_changed = true;
            match kept.is_empty() {
                true => self.system.remove_value(&key, name)?,
                false => self.system.set(&key, name, &hive::Data::multi_sz(kept))?,
            }
        }
        Ok(is_changed)
    }

    /// Makes the changes that a driver asks for, one control set after the other.
    pub(super) fn apply(&mut self, edits: &[Edit]) -> Result<()> {
        for set in &self.control_sets {
            let of_sets = edits.iter().filter(|edit| edit.key().scope == Scope::ControlSets);
            for edit in of_sets {
                apply_at(&mut self.system, &format!("{set}\\{}", edit.key().path), edit)?;
            }
        }
        let of_hive = edits.iter().filter(|edit| edit.key().scope == Scope::Hive);
        of_hive.into_iter().try_for_each(|edit| apply_at(&mut self.system, &edit.key().path, edit))
    }
}

/// Makes a change of a key at `path`.
fn apply_at(hive: &mut Recorder<'_>, path: &str, edit: &Edit) -> Result<()> {
    match edit {
        Edit::Set { name, data, unless_present, .. } => {
            let data = stored(data);
            let present = hive.value(path, name)?;
            let is_left = present.is_some_and(|present| *unless_present || is_same(name, &present, &data));
            if is_left { Ok(()) } else { hive.set(path, name, &data) }
        }
        Edit::Append { name, strings, .. } => {
            let mut texts = hive.value(path, name)?.and_then(|data| data.texts()).unwrap_or_default();
            for string in strings {
                if !texts.iter().any(|text| text.eq_ignore_ascii_case(string)) {
                    texts.push(string.clone());
                }
            }
            hive.set(path, name, &hive::Data::multi_sz(texts.iter().map(String::as_str)))
        }
        Edit::MakeKey { .. } => hive.make_key(path),
        Edit::RemoveKey { .. } => hive.remove_key(path),
        Edit::RemoveValue { name, .. } => hive.remove_value(path, name),
    }
}

/// Data of an INF file as a hive stores them.
fn stored(data: &Data) -> hive::Data {
    match data {
        Data::Sz(text) => hive::Data::sz(text),
        Data::ExpandSz(text) => hive::Data::expand_sz(text),
        Data::MultiSz(texts) => hive::Data::multi_sz(texts.iter().map(String::as_str)),
        Data::Dword(number) => hive::Data::of_dword(*number),
        Data::Bytes(kind, bytes) => hive::Data::new(ValueType(*kind), bytes.clone()),
    }
}

/// Whether a value means to Windows what it would be set to: texts in another case, and paths of drivers with and without
/// `\SystemRoot\`, are left as Windows wrote them.
fn is_same(name: &str, present: &hive::Data, wanted: &hive::Data) -> bool {
    let (Some(present_text), Some(wanted_text)) = (present.text(), wanted.text()) else { return present == wanted };
    let is_path = name.eq_ignore_ascii_case("ImagePath");
    if present.kind != wanted.kind && !is_path {
        return false;
    }
    let plain = |text: &str| {
        let text = text.to_lowercase();
        if is_path { text.trim_start_matches("\\systemroot\\").to_owned() } else { text }
    };
    plain(&present_text) == plain(&wanted_text)
}
