//! Changes to a hive in memory: keys, values, class names and security descriptors.
//!
//! An edit is all or nothing: unless it is committed, the hive is as it was before. It begins with a whole check, and a
//! damaged hive is not edited, because what two keys share by mistake would be freed under one of them. Free cells are
//! used again, the smallest that fits first, and adjacent ones are joined; where there is none, the hive grows by a bin.

mod descriptors;
mod lists;
mod space;
mod values;

use std::collections::BTreeMap;

use super::bins::CellOffset;
use super::field::{le32, unit_bytes};
use super::key::{FLAG_COMPRESSED, FLAG_HANDLE, Key, NODE_SIZE, Node, at};
use super::name::{DEPTH_MAX, KEY_NAME_MAX, KeyPath, Name};
use super::value::{Data, Record};
use super::{Filetime, Hive};
use crate::{Error, ErrorKind, Result};
use space::Space;

/// An edit under way; dropped without [`commit`](Self::commit) it leaves the hive as it was.
#[derive(Debug)]
pub struct Edit<'h> {
    hive: &'h mut Hive,
    space: Space,
    time: Filetime,
    /// Something failed half-way.
    is_broken: bool,
}

impl<'h> Edit<'h> {
    pub(super) fn begin(hive: &'h mut Hive, time: Filetime) -> Result<Self> {
        let (major, minor) = hive.version();
        let refused = match minor {
            3..=5 => None,
            6 => Some("the hive of a container (version 1.6)".to_owned()),
            _ => Some(format!("a hive of Windows NT 3.5 (version {major}.{minor})")),
        };
        if let Some(refused) = refused {
            return Err(Error::new(ErrorKind::Unsupported, format!("{refused} is read, not edited")));
        }
        let (check, descriptors) = super::check::check(hive);
        if let Some(finding) = check.damage().next() {
            let context = format!("a damaged hive is not edited: {finding}");
            return Err(Error::new(ErrorKind::Malformed, context));
        }
        hive.bins.begin();
        let space = Space::of(&hive.bins)?;
        let mut edit = Self { hive, space, time, is_broken: false };
        // Windows, too, counts them anew when it loads a hive.
        edit.correct_counts(&descriptors)?;
        Ok(edit)
    }

    /// The hive with the changes so far.
    pub fn hive(&self) -> &Hive {
        self.hive
    }

    /// Keeps the changes; whether there are any.
    ///
    /// # Errors
    /// `Changed` when a change had failed half-way: then nothing is kept.
    pub fn commit(self) -> Result<bool> {
        if self.is_broken {
            return Err(Error::new(ErrorKind::Changed, "an edit of a hive that failed cannot be kept"));
        }
        let is_changed = self.hive.bins.is_changed();
        self.hive.bins.keep();
        Ok(is_changed)
    }

    /// Makes the key at `path` and those above it that are missing, with the security of the key they are made in; whether
    /// any was made.
    pub fn create_key(&mut self, path: impl Into<KeyPath>) -> Result<bool> {
        let path = path.into();
        self.attempt(|edit| edit.create_path(&path))
    }

    /// Removes the key at `path` with everything below it; whether it was there.
    ///
    /// # Errors
    /// `Unsupported` for the root of the hive.
    pub fn delete_key(&mut self, path: impl Into<KeyPath>) -> Result<bool> {
        let path = path.into();
        self.attempt(|edit| {
            let Some(key) = edit.find(&path)? else { return Ok(false) };
            if path.names().is_empty() {
                return Err(Error::new(ErrorKind::Unsupported, "the root of a hive cannot be removed"));
            }
            let parent = edit.node(key)?.parent;
            edit.unlist(parent, key)?;
            edit.free_keys(key)?;
            Ok(true)
        })
    }

    /// Sets the value `name` of the key at `path`, which must be there; whether anything changed. A value that is there
    /// keeps the case of its name.
    pub fn set_value(&mut self, path: impl Into<KeyPath>, name: impl Into<Name>, data: &Data) -> Result<bool> {
        let (path, name) = (path.into(), name.into());
        self.attempt(|edit| {
            let key = edit.require(&path)?;
            edit.put_value(key, &name, data)
        })
    }

    /// Removes the value `name` of the key at `path`; whether it was there.
    pub fn delete_value(&mut self, path: impl Into<KeyPath>, name: impl Into<Name>) -> Result<bool> {
        let (path, name) = (path.into(), name.into());
        self.attempt(|edit| match edit.find(&path)? {
            Some(key) => edit.remove_value(key, &name),
            None => Ok(false),
        })
    }

    /// Sets the class name of the key at `path`; none where it is empty.
    pub fn set_class(&mut self, path: impl Into<KeyPath>, class: &str) -> Result<()> {
        let bytes = unit_bytes(&class.encode_utf16().collect::<Vec<u16>>());
        self.set_class_bytes(path, &bytes)
    }

    /// Sets the class name of the key at `path` as it is to be stored: UTF-16LE, by custom.
    pub fn set_class_bytes(&mut self, path: impl Into<KeyPath>, class: &[u8]) -> Result<()> {
        let path = path.into();
        self.attempt(|edit| {
            let key = edit.require(&path)?;
            edit.put_class(key, class)
        })
    }

    /// Sets the security descriptor (self-relative) of the key at `path`.
    pub fn set_security(&mut self, path: impl Into<KeyPath>, descriptor: &[u8]) -> Result<()> {
        let path = path.into();
        self.attempt(|edit| {
            let key = edit.require(&path)?;
            edit.put_security(key, descriptor)
        })
    }

    fn attempt<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let result = change(self);
        self.is_broken |= result.is_err();
        result
    }

    fn find(&self, path: &KeyPath) -> Result<Option<CellOffset>> {
        Ok(self.hive.open(path)?.map(|key| key.at()))
    }

    fn require(&self, path: &KeyPath) -> Result<CellOffset> {
        self.find(path)?.ok_or_else(|| {
            let shown = path.to_string().escape_debug().to_string();
            Error::new(ErrorKind::Missing, format!("the hive has no key {shown}"))
        })
    }

    fn node(&self, key: CellOffset) -> Result<Node> {
        Node::read(&self.hive.bins, key)
    }

    /// Writes a 32-bit field of a key.
    fn put(&mut self, key: CellOffset, field: usize, value: u32) -> Result<()> {
        self.hive.bins.write_cell(key, field, &value.to_le_bytes())
    }

    /// Raises one of a key's statistics to `value`, in the bits of `mask`.
    fn raise(&mut self, key: CellOffset, field: usize, mask: u32, value: usize) -> Result<()> {
        let said = le32(self.hive.bins.cell(key)?, field);
        let value = super::field::to_u32(value) & mask;
        if said & mask < value {
            self.put(key, field, said & !mask | value)?;
        }
        Ok(())
    }

    /// Notes that a key was written.
    fn touch(&mut self, key: CellOffset) -> Result<()> {
        self.hive.bins.write_cell(key, at::WRITTEN, &self.time.0.to_le_bytes())
    }

    fn create_path(&mut self, path: &KeyPath) -> Result<bool> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Unsupported, what));
        if path.names().len() > DEPTH_MAX {
            return wrong(format!("keys of more than {DEPTH_MAX} levels"));
        }
        let (mut key, mut made) = (self.hive.root()?.at(), false);
        for name in path.names() {
            if let Some(found) = Key::open(self.hive, key)?.subkey(name)? {
                key = found.at();
                continue;
            }
            let length = name.units().len();
            if length == 0 || length > KEY_NAME_MAX || name.units().contains(&u16::from(b'\\')) {
                let shown: String = name.to_string().chars().take(64).collect();
                return wrong(format!("a key named {}: expected 1 to {KEY_NAME_MAX} characters", shown.escape_debug()));
            }
            key = self.make_key(key, name)?;
            made = true;
        }
        Ok(made)
    }

    fn make_key(&mut self, parent: CellOffset, name: &Name) -> Result<CellOffset> {
        let security = self.node(parent)?.security;
        self.share_security(security)?;
        let (bytes, compressed) = name.encode();
        let mut cell = vec![0; NODE_SIZE];
        let mut put = |at: usize, bytes: &[u8]| cell[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"nk");
        put(at::FLAGS, &(if compressed { FLAG_COMPRESSED } else { 0 }).to_le_bytes());
        put(at::WRITTEN, &self.time.0.to_le_bytes());
        put(at::PARENT, &parent.0.to_le_bytes());
        for none in [at::SUBKEY_LIST, at::VOLATILE_LIST, at::VALUE_LIST, at::CLASS] {
            put(none, &CellOffset::NONE.0.to_le_bytes());
        }
        put(at::SECURITY, &security.0.to_le_bytes());
        put(at::NAME_LENGTH, &u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
        cell.extend(bytes);
        let key = self.space.store(&mut self.hive.bins, &cell)?;
        self.list(parent, key, name)?;
        Ok(key)
    }

    /// Frees a key that no list has any more, and everything below it.
    fn free_keys(&mut self, key: CellOffset) -> Result<()> {
        let mut keys = vec![key];
        while let Some(key) = keys.pop() {
            let node = self.node(key)?;
            let (root, leaves) = node.leaves(&self.hive.bins, key)?;
            for leaf in &leaves {
                for index in 0..leaf.count {
                    keys.push(leaf.key(&self.hive.bins, index)?);
                }
            }
            for list in leaves.iter().map(|leaf| leaf.at).chain(root) {
                self.space.release(&mut self.hive.bins, list)?;
            }
            for value in node.value_cells(&self.hive.bins)? {
                self.free_value(value)?;
            }
            if node.values > 0 {
                self.space.release(&mut self.hive.bins, node.value_list)?;
            }
            if node.class != CellOffset::NONE && node.class_length > 0 {
                self.space.release(&mut self.hive.bins, node.class)?;
            }
            self.leave_security(node.security)?;
            self.space.release(&mut self.hive.bins, key)?;
        }
        Ok(())
    }

    fn free_value(&mut self, value: CellOffset) -> Result<()> {
        let record = Record::read(&self.hive.bins, value)?;
        self.free_data(&record)?;
        self.space.release(&mut self.hive.bins, value)
    }

    fn put_class(&mut self, key: CellOffset, class: &[u8]) -> Result<()> {
        let node = self.node(key)?;
        if node.class_bytes(&self.hive.bins)? == class {
            return Ok(());
        }
        let Ok(length) = u16::try_from(class.len()) else {
            let context = format!("a class name of {} bytes, expected up to {}", class.len(), u16::MAX);
            return Err(Error::new(ErrorKind::TooLarge, context));
        };
        if node.class != CellOffset::NONE && node.class_length > 0 {
            self.space.release(&mut self.hive.bins, node.class)?;
        }
        let cell = match length {
            0 => CellOffset::NONE,
            _ => self.space.store(&mut self.hive.bins, class)?,
        };
        self.put(key, at::CLASS, cell.0)?;
        self.hive.bins.write_cell(key, at::CLASS_LENGTH, &length.to_le_bytes())?;
        if key.0 != self.hive.base.root() {
            self.raise(node.parent, at::CLASS_MAX, u32::MAX, class.len())?;
        }
        self.touch(key)
    }

    /// A key with a predefined handle has no values of its own.
    fn require_values(&self, key: CellOffset) -> Result<Node> {
        let node = self.node(key)?;
        if node.flags & FLAG_HANDLE != 0 {
            return Err(Error::new(ErrorKind::Unsupported, "a key that stands for a predefined handle has no values"));
        }
        Ok(node)
    }

    fn correct_counts(&mut self, descriptors: &BTreeMap<CellOffset, u32>) -> Result<()> {
        for (&security, &count) in descriptors {
            self.set_count(security, count)?;
        }
        Ok(())
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        // Nothing to take back after a commit.
        self.hive.bins.take_back();
    }
}
