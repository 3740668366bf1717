//! Subkeys entering and leaving the lists of their parent.

use std::cmp::Ordering;

use super::super::bins::CellOffset;
use super::super::index::{Leaf, LeafKind, leaf_header, root_bytes};
use super::super::key::at;
use super::super::malformed;
use super::super::name::Name;
use super::Edit;
use super::space::roomy;
use crate::{Error, ErrorKind, Result};

impl Edit<'_> {
    fn name_of(&self, key: CellOffset) -> Result<Name> {
        self.node(key)?.name(&self.hive.bins, key)
    }

    /// Puts `key`, named `name`, into the lists of `parent`, which has none of that name.
    pub(super) fn list(&mut self, parent: CellOffset, key: CellOffset, name: &Name) -> Result<()> {
        let node = self.node(parent)?;
        let (root, mut leaves) = node.leaves(&self.hive.bins, parent)?;
        let (list, count) = if leaves.is_empty() {
            let kind = LeafKind::of_version(self.hive.base.minor());
            let mut bytes = leaf_header(kind, 1).to_vec();
            bytes.extend(kind.element(key, name));
            (self.space.store(&mut self.hive.bins, &bytes)?, 1)
        } else {
            let which = self.leaf_for(&leaves, name)?;
            let new = self.insert(leaves[which], key, name)?;
            let is_same = new.len() == 1 && new[0].at == leaves[which].at;
            leaves.splice(which..=which, new);
            let list = match root {
                Some(root) if is_same => root,
                _ => self.write_root(root, &leaves)?,
            };
            (list, node.subkeys + 1)
        };
        self.put(parent, at::SUBKEYS, count)?;
        self.put(parent, at::SUBKEY_LIST, list.0)?;
        self.raise(parent, at::SUBKEY_NAME_MAX, 0xffff, name.units().len() * 2)?;
        self.touch(parent)
    }

    /// The leaf in which a name has its place: the last that begins before it, or the first.
    fn leaf_for(&self, leaves: &[Leaf], name: &Name) -> Result<usize> {
        let (mut low, mut high) = (0, leaves.len());
        while high - low > 1 {
            let middle = low.midpoint(high);
            let leaf = leaves[middle];
            let is_before =
                leaf.count == 0 || self.name_of(leaf.key(&self.hive.bins, 0)?)?.compare(name) != Ordering::Greater;
            if is_before { low = middle } else { high = middle }
        }
        Ok(low)
    }

    /// Adds an element to a leaf; the leaf, or the two that it became.
    fn insert(&mut self, leaf: Leaf, key: CellOffset, name: &Name) -> Result<Vec<Leaf>> {
        let (mut low, mut high) = (0, leaf.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.name_of(leaf.key(&self.hive.bins, middle)?)?.compare(name) {
                Ordering::Less => low = middle + 1,
                _ => high = middle,
            }
        }
        let stride = leaf.kind.stride();
        let mut elements = self.hive.bins.cell(leaf.at)?[4..4 + leaf.count * stride].to_vec();
        elements.splice(low * stride..low * stride, leaf.kind.element(key, name));
        let count = leaf.count + 1;
        if count <= leaf.kind.elements_max() {
            return Ok(vec![self.write_leaf(leaf, &elements)?]);
        }
        let (first, second) = elements.split_at(count / 2 * stride);
        let mut bytes = leaf_header(leaf.kind, count - count / 2).to_vec();
        bytes.extend(second);
        let second = Leaf { count: count - count / 2, at: self.space.store(&mut self.hive.bins, &bytes)?, ..leaf };
        Ok(vec![self.write_leaf(leaf, first)?, second])
    }

    /// Writes a leaf's elements, elsewhere if they have become too many for its cell.
    fn write_leaf(&mut self, leaf: Leaf, elements: &[u8]) -> Result<Leaf> {
        let mut bytes = leaf_header(leaf.kind, elements.len() / leaf.kind.stride()).to_vec();
        bytes.extend(elements);
        let mut cell = leaf.at;
        if self.hive.bins.cell(cell)?.len() < bytes.len() {
            let most = 4 + leaf.kind.elements_max() * leaf.kind.stride();
            let room = roomy(bytes.len()).min(most).max(bytes.len());
            cell = self.space.widen(&mut self.hive.bins, cell, room)?;
        }
        self.hive.bins.write_cell(cell, 0, &bytes)?;
        Ok(Leaf { at: cell, count: elements.len() / leaf.kind.stride(), ..leaf })
    }

    /// What the parent refers to: the only leaf, or an index root of all of them.
    fn write_root(&mut self, root: Option<CellOffset>, leaves: &[Leaf]) -> Result<CellOffset> {
        if let (None, [leaf]) = (root, leaves) {
            return Ok(leaf.at);
        }
        if leaves.len() > usize::from(u16::MAX) {
            return Err(Error::new(ErrorKind::TooLarge, format!("a key with {} lists of subkeys", leaves.len())));
        }
        let bytes = root_bytes(&leaves.iter().map(|leaf| leaf.at).collect::<Vec<_>>());
        let bins = &mut self.hive.bins;
        let cell = match root {
            Some(root) => self.space.widen(bins, root, bytes.len())?,
            None => self.space.allocate(bins, roomy(bytes.len()))?,
        };
        bins.write_cell(cell, 0, &bytes)?;
        Ok(cell)
    }

    /// Takes `key` out of the lists of `parent`.
    pub(super) fn unlist(&mut self, parent: CellOffset, key: CellOffset) -> Result<()> {
        let node = self.node(parent)?;
        let (root, mut leaves) = node.leaves(&self.hive.bins, parent)?;
        let mut place = None;
        for (which, leaf) in leaves.iter().enumerate() {
            for index in 0..leaf.count {
                if leaf.key(&self.hive.bins, index)? == key {
                    place = Some((which, index));
                }
            }
        }
        let Some((which, index)) = place else {
            return Err(malformed(key.position(), "key: not in the list of its parent's subkeys"));
        };
        let (leaf, stride) = (leaves[which], leaves[which].kind.stride());
        let mut list = node.subkey_list;
        if leaf.count > 1 {
            let mut elements = self.hive.bins.cell(leaf.at)?[4..4 + leaf.count * stride].to_vec();
            elements.drain(index * stride..(index + 1) * stride);
            self.write_leaf(leaf, &elements)?;
        } else {
            self.space.release(&mut self.hive.bins, leaf.at)?;
            leaves.remove(which);
            match (root, leaves.is_empty()) {
                (Some(root), true) => {
                    self.space.release(&mut self.hive.bins, root)?;
                    list = CellOffset::NONE;
                }
                (None, _) => list = CellOffset::NONE,
                (Some(root), false) => list = self.write_root(Some(root), &leaves)?,
            }
        }
        let subkeys = node.subkeys.saturating_sub(1);
        self.put(parent, at::SUBKEYS, subkeys)?;
        self.put(parent, at::SUBKEY_LIST, list.0)?;
        self.touch(parent)
    }
}
