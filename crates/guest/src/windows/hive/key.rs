//! Keys: the `nk` record, and what hangs on it.

use super::bins::{Bins, CellOffset};
use super::field::{le16, le32, le64, units};
use super::index::{Leaf, read_leaves};
use super::name::{KeyPath, Name};
use super::value::{Data, Value};
use super::{Filetime, Hive, malformed};
use crate::Result;

/// Fixed part of an `nk` record; the name follows.
pub(super) const NODE_SIZE: usize = 76;

/// The root of its hive.
pub(super) const FLAG_ROOT: u16 = 0x0004;
/// Another key's name stands in the value `SymbolicLinkValue`.
pub(super) const FLAG_LINK: u16 = 0x0010;
pub(super) const FLAG_COMPRESSED: u16 = 0x0020;
/// A predefined handle stands where the count of values would.
pub(super) const FLAG_HANDLE: u16 = 0x0040;

/// Offsets within an `nk` record of what an edit changes.
pub(super) mod at {
    pub(in super::super) const FLAGS: usize = 2;
    pub(in super::super) const WRITTEN: usize = 4;
    pub(in super::super) const PARENT: usize = 16;
    pub(in super::super) const SUBKEYS: usize = 20;
    pub(in super::super) const SUBKEY_LIST: usize = 28;
    pub(in super::super) const VOLATILE_LIST: usize = 32;
    pub(in super::super) const VALUES: usize = 36;
    pub(in super::super) const VALUE_LIST: usize = 40;
    pub(in super::super) const SECURITY: usize = 44;
    pub(in super::super) const CLASS: usize = 48;
    pub(in super::super) const SUBKEY_NAME_MAX: usize = 52;
    pub(in super::super) const CLASS_MAX: usize = 56;
    pub(in super::super) const VALUE_NAME_MAX: usize = 60;
    pub(in super::super) const VALUE_DATA_MAX: usize = 64;
    pub(in super::super) const NAME_LENGTH: usize = 72;
    pub(in super::super) const CLASS_LENGTH: usize = 74;
}

/// The fields of an `nk` record that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) flags: u16,
    pub(super) written: Filetime,
    /// Bits of layered keys, in the second byte of what was the access bits.
    pub(super) layer: u8,
    pub(super) parent: CellOffset,
    pub(super) subkeys: u32,
    pub(super) subkey_list: CellOffset,
    pub(super) values: u32,
    pub(super) value_list: CellOffset,
    pub(super) security: CellOffset,
    pub(super) class: CellOffset,
    pub(super) class_length: u16,
    pub(super) name_length: u16,
}

impl Node {
    pub(super) fn read(bins: &Bins, offset: CellOffset) -> Result<Self> {
        let cell = bins.cell(offset)?;
        let wrong = |what: String| Err(malformed(offset.position(), format!("key: {what}")));
        if cell.get(..2) != Some(b"nk") {
            return wrong(format!("expected nk, found {}", cell[..2.min(cell.len())].escape_ascii()));
        }
        if cell.len() < NODE_SIZE {
            return wrong(format!("expected {NODE_SIZE} bytes, found {}", cell.len()));
        }
        let node = Self {
            flags: le16(cell, at::FLAGS),
            written: Filetime(le64(cell, at::WRITTEN)),
            layer: cell[13],
            parent: CellOffset(le32(cell, at::PARENT)),
            subkeys: le32(cell, at::SUBKEYS),
            subkey_list: CellOffset(le32(cell, at::SUBKEY_LIST)),
            values: le32(cell, at::VALUES),
            value_list: CellOffset(le32(cell, at::VALUE_LIST)),
            security: CellOffset(le32(cell, at::SECURITY)),
            class: CellOffset(le32(cell, at::CLASS)),
            name_length: le16(cell, at::NAME_LENGTH),
            class_length: le16(cell, at::CLASS_LENGTH),
        };
        if usize::from(node.name_length) > cell.len() - NODE_SIZE {
            let room = cell.len() - NODE_SIZE;
            return wrong(format!("a name of {} bytes in a cell with room for {room}", node.name_length));
        }
        if node.has_handle() {
            return Ok(Self { values: 0, ..node });
        }
        Ok(node)
    }

    pub(super) fn has_handle(&self) -> bool {
        self.flags & FLAG_HANDLE != 0
    }

    pub(super) fn name(&self, bins: &Bins, offset: CellOffset) -> Result<Name> {
        let cell = bins.cell(offset)?;
        let bytes = cell.get(NODE_SIZE..NODE_SIZE + usize::from(self.name_length)).unwrap_or_default();
        Ok(Name::decode(bytes, self.flags & FLAG_COMPRESSED != 0))
    }

    /// The cells of its values.
    pub(super) fn value_cells(&self, bins: &Bins) -> Result<Vec<CellOffset>> {
        if self.values == 0 {
            return Ok(Vec::new());
        }
        let cell = bins.cell(self.value_list)?;
        let (count, room) = (self.values as usize, cell.len() / 4);
        if count > room {
            let what = format!("list of values: {count} of them in a cell with room for {room}");
            return Err(malformed(self.value_list.position(), what));
        }
        Ok(cell[..count * 4].chunks_exact(4).map(|element| CellOffset(le32(element, 0))).collect())
    }

    /// The leaves that list its subkeys, whose number must be the key's own; and the index root above them.
    pub(super) fn leaves(&self, bins: &Bins, offset: CellOffset) -> Result<(Option<CellOffset>, Vec<Leaf>)> {
        if self.subkeys == 0 {
            return Ok((None, Vec::new()));
        }
        let (root, leaves) = read_leaves(bins, self.subkey_list)?;
        let listed: usize = leaves.iter().map(|leaf| leaf.count).sum();
        if listed > subkeys_max(bins) {
            return Err(malformed(
                offset.position(),
                format!("key: {listed} subkeys, more than the hive has room for"),
            ));
        }
        if listed != self.subkeys as usize {
            let what = format!("key: {} subkeys by its count, {listed} in its list", self.subkeys);
            return Err(malformed(offset.position(), what));
        }
        Ok((root, leaves))
    }

    pub(super) fn class_bytes<'b>(&self, bins: &'b Bins) -> Result<&'b [u8]> {
        if self.class == CellOffset::NONE || self.class_length == 0 {
            return Ok(&[]);
        }
        let (cell, length) = (bins.cell(self.class)?, usize::from(self.class_length));
        let what = || format!("class name: {length} bytes in a cell of {}", cell.len());
        cell.get(..length).ok_or_else(|| malformed(self.class.position(), what()))
    }
}

/// Keys that a hive of this size has room for, so that lists which share leaves cannot ask for more.
pub(super) fn subkeys_max(bins: &Bins) -> usize {
    bins.len() / NODE_SIZE + 1
}

/// A key of a hive.
#[derive(Clone, Copy, Debug)]
pub struct Key<'h> {
    hive: &'h Hive,
    at: CellOffset,
    node: Node,
}

impl<'h> Key<'h> {
    pub(super) fn open(hive: &'h Hive, at: CellOffset) -> Result<Self> {
        Ok(Self { hive, at, node: Node::read(&hive.bins, at)? })
    }

    /// Where it is.
    pub fn at(&self) -> CellOffset {
        self.at
    }

    /// Its name.
    pub fn name(&self) -> Result<Name> {
        self.node.name(&self.hive.bins, self.at)
    }

    /// When it was last written.
    pub fn written(&self) -> Filetime {
        self.node.written
    }

    /// Whether it stands for another key, named by its value `SymbolicLinkValue`.
    pub fn is_link(&self) -> bool {
        self.node.flags & FLAG_LINK != 0
    }

    /// Whether it hides the key of that name in the hive below, in a hive of a container.
    pub fn is_tombstone(&self) -> bool {
        self.node.layer & 3 == 1
    }

    /// Its class name; seldom used.
    pub fn class(&self) -> Result<Option<String>> {
        let bytes = self.node.class_bytes(&self.hive.bins)?;
        Ok((!bytes.is_empty()).then(|| String::from_utf16_lossy(&units(bytes))))
    }

    /// The class name as it is stored: UTF-16LE, mostly.
    pub fn class_bytes(&self) -> Result<&'h [u8]> {
        self.node.class_bytes(&self.hive.bins)
    }

    /// Its security descriptor, self-relative.
    pub fn security(&self) -> Result<&'h [u8]> {
        super::security::descriptor(&self.hive.bins, self.node.security)
    }

    /// How many subkeys it has.
    pub fn subkey_count(&self) -> usize {
        self.node.subkeys as usize
    }

    /// How many values it has.
    pub fn value_count(&self) -> usize {
        self.node.values as usize
    }

    /// The places of its subkeys, sorted by name.
    pub(super) fn subkey_cells(&self) -> Result<Vec<CellOffset>> {
        let bins = &self.hive.bins;
        let mut cells = Vec::new();
        for leaf in self.node.leaves(bins, self.at)?.1 {
            for index in 0..leaf.count {
                cells.push(leaf.key(bins, index)?);
            }
        }
        Ok(cells)
    }

    /// The places of those subkeys whose lists can be read, whatever the key's own count says.
    pub(super) fn readable_subkey_cells(&self) -> Vec<CellOffset> {
        let bins = &self.hive.bins;
        let mut cells = Vec::new();
        for leaf in super::index::readable_leaves(bins, self.node.subkey_list) {
            cells.extend((0..leaf.count).map_while(|index| leaf.key(bins, index).ok()));
            if cells.len() > subkeys_max(bins) {
                break;
            }
        }
        cells
    }

    /// Its subkeys, sorted by name.
    pub fn subkeys(&self) -> Result<impl Iterator<Item = Result<Key<'h>>> + use<'h>> {
        let hive = self.hive;
        Ok(self.subkey_cells()?.into_iter().map(move |at| Key::open(hive, at)))
    }

    /// The subkey of that name, as Windows compares names. Lists that are out of order are searched as well.
    pub fn subkey(&self, name: impl Into<Name>) -> Result<Option<Key<'h>>> {
        let (name, bins) = (name.into(), &self.hive.bins);
        for leaf in self.node.leaves(bins, self.at)?.1 {
            let elements = bins.cell(leaf.at)?[4..].chunks_exact(leaf.kind.stride()).take(leaf.count);
            for element in elements.filter(|element| leaf.kind.may_be(element, &name)) {
                let key = Key::open(self.hive, CellOffset(le32(element, 0)))?;
                if key.name()?.is(&name) {
                    return Ok(Some(key));
                }
            }
        }
        Ok(None)
    }

    /// The key at `path` below this one.
    pub fn open_path(&self, path: impl Into<KeyPath>) -> Result<Option<Key<'h>>> {
        let mut key = *self;
        for name in path.into().names() {
            match key.subkey(name)? {
                Some(found) => key = found,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }

    /// Its values, in the order in which they are listed.
    pub fn values(&self) -> Result<impl Iterator<Item = Result<Value<'h>>> + use<'h>> {
        let hive = self.hive;
        Ok(self.node.value_cells(&hive.bins)?.into_iter().map(move |at| Value::open(hive, at)))
    }

    /// The value of that name; the empty one is the default value.
    pub fn value(&self, name: impl Into<Name>) -> Result<Option<Value<'h>>> {
        let name = name.into();
        for value in self.values()? {
            let value = value?;
            if value.name()?.is(&name) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// What the value of that name holds.
    pub fn data(&self, name: impl Into<Name>) -> Result<Option<Data>> {
        self.value(name)?.map(|value| value.data()).transpose()
    }

    /// The text of a `REG_SZ`, `REG_EXPAND_SZ` or `REG_LINK` of that name; `None` where there is none, or another type.
    pub fn text(&self, name: impl Into<Name>) -> Result<Option<String>> {
        Ok(self.data(name)?.and_then(|data| data.text()))
    }

    /// The texts of a `REG_MULTI_SZ` of that name.
    pub fn texts(&self, name: impl Into<Name>) -> Result<Option<Vec<String>>> {
        Ok(self.data(name)?.and_then(|data| data.texts()))
    }

    /// The number in a `REG_DWORD` of that name.
    pub fn dword(&self, name: impl Into<Name>) -> Result<Option<u32>> {
        Ok(self.data(name)?.and_then(|data| data.dword()))
    }

    /// The number in a `REG_QWORD` of that name.
    pub fn qword(&self, name: impl Into<Name>) -> Result<Option<u64>> {
        Ok(self.data(name)?.and_then(|data| data.qword()))
    }
}
