//! A hive on which a plan is tried out in memory: every change is made there at once, and written down with what was
//! there before, so that what follows sees it and the plan can be taken back.

use crate::plan::{Change, RegistryChange};
use crate::windows::hive::{Data, Edit, Filetime, Hive, Key, Name};
use crate::{Error, ErrorKind, Result};

/// Keys and values below a key that is removed.
const REMOVED_MAX: usize = 100_000;

/// A hive being changed.
#[derive(Debug)]
pub(super) struct Recorder<'h> {
    path: String,
    edit: Edit<'h>,
    changes: Vec<RegistryChange>,
    /// Bytes of the hive when its changes were last taken.
    size: usize,
}

impl<'h> Recorder<'h> {
    /// The hive whose file is at `path`.
    ///
    /// # Errors
    /// A hive that cannot be changed.
    pub(super) fn new(path: String, hive: &'h mut Hive) -> Result<Self> {
        let edit = hive.edit(Filetime::now()).map_err(|error| error.at(&path))?;
        let size = edit.hive().bins_bytes().len();
        Ok(Self { path, edit, changes: Vec::new(), size })
    }

    /// What was changed since the last call.
    pub(super) fn take(&mut self) -> Option<Change> {
        let changes = std::mem::take(&mut self.changes);
        let before = std::mem::replace(&mut self.size, self.edit.hive().bins_bytes().len());
        let grows = self.size.saturating_sub(before) as u64;
        (!changes.is_empty()).then(|| Change::Registry { path: self.path.clone(), changes, grows })
    }

    /// The key at `path`, with the changes so far.
    pub(super) fn key(&self, path: &str) -> Result<Option<Key<'_>>> {
        self.edit.hive().open(path)
    }

    /// Whether there is a key.
    pub(super) fn has(&self, path: &str) -> Result<bool> {
        Ok(self.key(path)?.is_some())
    }

    /// The value `name` of the key at `path`.
    pub(super) fn value(&self, path: &str, name: &str) -> Result<Option<Data>> {
        self.key(path)?.map_or(Ok(None), |key| key.data(name))
    }

    /// Makes the key at `path` and those above it.
    pub(super) fn make_key(&mut self, path: &str) -> Result<()> {
        if self.has(path)? {
            return Ok(());
        }
        for (end, _) in path.match_indices('\\') {
            self.make_one(&path[..end])?;
        }
        self.make_one(path)
    }

    fn make_one(&mut self, path: &str) -> Result<()> {
        if self.edit.create_key(path)? {
            self.changes.push(RegistryChange::MakeKey { key: path.to_owned() });
        }
        Ok(())
    }

    /// Sets a value, whose key is made where it is not there. A value that has this data already is left as it is.
    pub(super) fn set(&mut self, path: &str, name: &str, data: &Data) -> Result<()> {
        let before = self.value(path, name)?;
        if before.as_ref() == Some(data) {
            return Ok(());
        }
        self.make_key(path)?;
        self.edit.set_value(path, name, data)?;
        self.changes.push(RegistryChange::value(path, name, before.as_ref(), Some(data)));
        Ok(())
    }

    /// Removes a value, if it is there.
    pub(super) fn remove_value(&mut self, path: &str, name: &str) -> Result<()> {
        let Some(before) = self.value(path, name)? else { return Ok(()) };
        self.edit.delete_value(path, name)?;
        self.changes.push(RegistryChange::value(path, name, Some(&before), None));
        Ok(())
    }

    /// Removes a key with all below it, if it is there.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`], and [`ErrorKind::Unsupported`] for names that no registration file can bring back.
    pub(super) fn remove_key(&mut self, path: &str) -> Result<()> {
        let hive = self.edit.hive();
        let Some(top) = hive.open(path)? else { return Ok(()) };
        let (mut values, mut keys, mut names) = (Vec::new(), Vec::new(), Vec::<String>::new());
        for step in hive.walk(&top) {
            let step = step?;
            names.truncate(step.depth.saturating_sub(1));
            if step.depth > 0 {
                names.push(text(&step.key.name()?)?);
            }
            let key = std::iter::once(path).chain(names.iter().map(String::as_str)).collect::<Vec<_>>().join("\\");
            for value in step.key.values()? {
                let value = value?;
                values.push(RegistryChange::value(&key, &text(&value.name()?)?, Some(&value.data()?), None));
            }
            keys.push(RegistryChange::RemoveKey { key });
            if keys.len() + values.len() > REMOVED_MAX {
                let context = format!("[{path}]: more than {REMOVED_MAX} keys and values to be removed");
                return Err(Error::new(ErrorKind::TooLarge, context).at(&self.path));
            }
        }
        self.edit.delete_key(path)?;
        self.changes.extend(values);
        self.changes.extend(keys.into_iter().rev());
        Ok(())
    }
}

/// A name as text that is the same name again, also in a registration file.
fn text(name: &Name) -> Result<String> {
    let text = name.to_string();
    let wrong = || Error::new(ErrorKind::Unsupported, format!("a name that is no text: {}", text.escape_debug()));
    let is_text = Name::from(text.as_str()) == *name && !text.contains(['\0', '\r', '\n']);
    if is_text { Ok(text) } else { Err(wrong()) }
}
