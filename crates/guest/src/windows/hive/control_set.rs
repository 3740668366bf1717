//! Control sets of a SYSTEM hive: the running Windows has `CurrentControlSet`, a hive has `ControlSet001` and its like.

use super::{Hive, KeyPath, Name};
use crate::{Error, ErrorKind, Result};

/// What Windows calls the control set that it was started with.
const CURRENT: &str = "CurrentControlSet";

impl Hive {
    /// The name of the control set that was in use last, by `Select\Current`; `None` in a hive without control sets.
    pub fn current_control_set(&self) -> Result<Option<String>> {
        let Some(select) = self.open("Select")? else { return Ok(None) };
        for value in ["Current", "Default"] {
            if let Some(number) = select.dword(value)?
                && (1..=999).contains(&number)
            {
                return Ok(Some(format!("ControlSet{number:03}")));
            }
        }
        Ok(None)
    }

    /// The names of all control sets, sorted.
    pub fn control_sets(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for key in self.root()?.subkeys()? {
            let name = key?.name()?.to_string();
            let number = name.get(..10).filter(|stem| stem.eq_ignore_ascii_case("ControlSet")).map(|_| &name[10..]);
            if number.is_some_and(|number| number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit())) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// `path` with the control set in use in the place of a leading `CurrentControlSet`.
    ///
    /// # Errors
    /// `Missing` where the hive does not say which one that is.
    pub fn resolve(&self, path: impl Into<KeyPath>) -> Result<KeyPath> {
        let path = path.into();
        match path.names() {
            [first, rest @ ..] if first.is(&Name::from(CURRENT)) => {
                let current = self.current_control_set()?.ok_or_else(|| {
                    Error::new(ErrorKind::Missing, format!("{CURRENT}: the hive has no Select\\Current that names one"))
                })?;
                let names: Vec<Name> = std::iter::once(Name::from(&current)).chain(rest.iter().cloned()).collect();
                Ok(KeyPath::from_names(names))
            }
            _ => Ok(path),
        }
    }
}
