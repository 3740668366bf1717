//! depmod's binary indexes (`modules.dep.bin`, `modules.alias.bin`): a prefix tree that libkmod searches in place.
//!
//! Layout, from kmod's `libkmod-index.c` (format 2.1), all numbers big-endian u32: magic `B007F457`, version
//! `00020001`, root. A node is named by its position, whose upper bits say what is there: a prefix (text with NUL,
//! bit 31), children (first and last character as bytes, then a node for each between, bit 29), values (their number,
//! then priority and text with NUL for each, bit 30), in this order: prefix, children, values.

use std::collections::BTreeMap;

use crate::{Error, ErrorKind, Result};

const MAGIC: u32 = 0xB007_F457;
const VERSION: u32 = 0x0002_0001;
const PREFIX: u32 = 1 << 31;
const VALUES: u32 = 1 << 30;
const CHILDREN: u32 = 1 << 29;
const POSITION: u32 = 0x0FFF_FFFF;

/// Entries of an index; a distribution's kernel has 30 000.
const ENTRIES_MAX: usize = 1 << 20;

/// Nodes visited when an index is read: more means that nodes are shared or in a ring.
const NODES_MAX: usize = 1 << 22;

/// Bytes of keys and values that are taken over, counted at every node on the way: a few megabytes in a distribution's
/// index. A file of a few kilobytes whose nodes share one long text would otherwise fill the memory.
const TAKEN_MAX: usize = 64 << 20;

/// Longest key; depth of the tree is at most this.
const KEY_MAX: usize = 1024;

/// An index: key → values with their priorities (0 is the highest).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    entries: BTreeMap<Vec<u8>, Vec<(u32, Vec<u8>)>>,
}

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] or [`ErrorKind::TooLarge`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let source = Source { bytes };
        let (magic, version) = (source.number(0)?, source.number(4)?);
        if (magic, version >> 16) != (MAGIC, VERSION >> 16) {
            let found = format!("index of modules: expected {MAGIC:08x} version 2, found {magic:08x}");
            return Err(Error::new(ErrorKind::Malformed, found));
        }
        let mut index = Self::default();
        // A node and the key on the way to it.
        let mut open = vec![(source.number(8)?, Vec::new())];
        let (mut nodes, mut entries, mut taken) = (0, 0, 0_usize);
        while let Some((node, mut key)) = open.pop() {
            nodes += 1;
            let mut at = (node & POSITION) as usize;
            if at == 0 {
                continue;
            }
            if nodes > NODES_MAX || key.len() > KEY_MAX {
                return Err(Error::new(ErrorKind::TooLarge, "index of modules with too many or too deep nodes"));
            }
            if node & PREFIX != 0 {
                let prefix = source.text(at)?;
                at += prefix.len() + 1;
                key.extend_from_slice(prefix);
            }
            if node & CHILDREN != 0 {
                let (first, last) = (source.byte(at)?, source.byte(at + 1)?);
                at += 2;
                for character in first..=last {
                    let child = source.number(at)?;
                    at += 4;
                    if child & POSITION != 0 {
                        take(&mut taken, key.len() + 1)?;
                        let mut below = key.clone();
                        below.push(character);
                        open.push((child, below));
                    }
                }
            }
            if node & VALUES != 0 {
                let count = source.number(at)?;
                at += 4;
                for _ in 0..count {
                    let priority = source.number(at)?;
                    let value = source.text(at + 4)?;
                    at += 5 + value.len();
                    entries += 1;
                    if entries > ENTRIES_MAX {
                        return Err(Error::new(ErrorKind::TooLarge, "index of modules with too many entries"));
                    }
                    take(&mut taken, key.len() + value.len())?;
                    index.entries.entry(key.clone()).or_default().push((priority, value.to_vec()));
                }
            }
        }
        Ok(index)
    }

    /// Adds a value behind all that are there for `key`; one that is there already is not added again.
    ///
    /// Keys that the format cannot hold (not ASCII, too long) are left out, as depmod does.
    pub(crate) fn insert(&mut self, key: &str, value: &str) {
        if !key.is_ascii() || key.len() > KEY_MAX || key.contains('\0') || value.contains('\0') {
            return;
        }
        let values = self.entries.entry(key.as_bytes().to_vec()).or_default();
        if values.iter().all(|(_, present)| present != value.as_bytes()) {
            let last = values.iter().map(|(priority, _)| *priority).max();
            values.push((last.map_or(0, |last| last.saturating_add(1)), value.as_bytes().to_vec()));
        }
    }

    /// The values of exactly this key, by priority.
    #[cfg(test)]
    pub(crate) fn values(&self, key: &str) -> Vec<&str> {
        let all = self.entries.get(key.as_bytes()).into_iter().flatten();
        let mut found: Vec<(u32, &str)> =
            all.map(|(priority, value)| (*priority, std::str::from_utf8(value).unwrap())).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// The index as a file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_be_bytes());
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend([0; 4]);
        let entries: Vec<Keyed<'_>> = self.entries.iter().map(|(key, values)| (key.as_slice(), values)).collect();
        let root = if entries.is_empty() { 0 } else { write_node(&mut bytes, &entries, 0) };
        bytes[8..12].copy_from_slice(&root.to_be_bytes());
        bytes
    }
}

/// Counts bytes that are about to be taken over.
fn take(taken: &mut usize, length: usize) -> Result<()> {
    *taken = taken.saturating_add(length);
    if *taken > TAKEN_MAX {
        let found = format!("index of modules with keys and values of more than {TAKEN_MAX} bytes");
        return Err(Error::new(ErrorKind::TooLarge, found));
    }
    Ok(())
}

type Keyed<'e> = (&'e [u8], &'e Vec<(u32, Vec<u8>)>);

/// Writes the node for sorted `entries`, which agree in their first `done` characters, children first; returns its name.
///
/// Every level takes at least one character of the keys, so it is at most `KEY_MAX` deep.
fn write_node(bytes: &mut Vec<u8>, entries: &[Keyed<'_>], done: usize) -> u32 {
    let (first, last) = (entries[0].0, entries[entries.len() - 1].0);
    // Sorted: what the first and the last have in common, all have.
    let common = first[done..].iter().zip(&last[done..]).take_while(|(a, b)| a == b).count();
    let end = done + common;
    let (own, below) = if first.len() == end { entries.split_at(1) } else { entries.split_at(0) };
    let mut children: Vec<(u8, u32)> = Vec::new();
    for group in below.chunk_by(|a, b| a.0[end] == b.0[end]) {
        children.push((group[0].0[end], write_node(bytes, group, end + 1)));
    }
    let mut name = u32::try_from(bytes.len()).unwrap_or(POSITION) & POSITION;
    if common > 0 {
        name |= PREFIX;
        bytes.extend_from_slice(&first[done..end]);
        bytes.push(0);
    }
    if let (Some((low, _)), Some((high, _))) = (children.first(), children.last()) {
        name |= CHILDREN;
        bytes.extend([*low, *high]);
        let mut next = children.iter().peekable();
        for character in *low..=*high {
            let child = next.next_if(|(c, _)| *c == character).map_or(0, |(_, child)| *child);
            bytes.extend(child.to_be_bytes());
        }
    }
    if let Some((_, values)) = own.first() {
        name |= VALUES;
        bytes.extend(u32::try_from(values.len()).unwrap_or(0).to_be_bytes());
        for (priority, value) in *values {
            bytes.extend(priority.to_be_bytes());
            bytes.extend(value);
            bytes.push(0);
        }
    }
    name
}

struct Source<'b> {
    bytes: &'b [u8],
}

impl<'b> Source<'b> {
    fn short(&self, at: usize) -> Error {
        Error::new(ErrorKind::Malformed, format!("index of modules ends within an entry at {at:#x}"))
    }

    fn byte(&self, at: usize) -> Result<u8> {
        self.bytes.get(at).copied().ok_or_else(|| self.short(at))
    }

    fn number(&self, at: usize) -> Result<u32> {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(|| self.short(at))?;
        Ok(u32::from_be_bytes(*bytes))
    }

    fn text(&self, at: usize) -> Result<&'b [u8]> {
        let rest = self.bytes.get(at..).ok_or_else(|| self.short(at))?;
        let end = rest.iter().position(|byte| *byte == 0).ok_or_else(|| self.short(at))?;
        Ok(&rest[..end])
    }
}

/// For fuzzing: reads an index and, if it is one, writes and reads it again.
pub fn round_trip(bytes: &[u8]) {
    if let Ok(index) = Index::parse(bytes) {
        let _ = Index::parse(&index.to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut index = Index::default();
        let keys = ["virtio:d00000002v*", "virtio", "virtio:d00000001v*", "pci:v00001AF4d*", "v", "z", "virtio_blk"];
        for (i, key) in keys.iter().enumerate() {
            index.insert(key, &format!("module{i}"));
        }
        index.insert("v", "second");
        index.insert("v", "second");
        let again = Index::parse(&index.to_bytes()).unwrap();
        assert_eq!(again, index);
        assert_eq!(again.values("v"), ["module4", "second"]);
        assert_eq!(Index::parse(&Index::default().to_bytes()).unwrap(), Index::default());
    }

    #[test]
    fn a_ring_of_nodes_is_refused() {
        let mut bytes = [MAGIC, VERSION, 12 | CHILDREN].iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
        bytes.extend([b'a', b'b']);
        bytes.extend((12 | CHILDREN).to_be_bytes());
        bytes.extend((12 | CHILDREN).to_be_bytes());
        assert_eq!(Index::parse(&bytes).unwrap_err().kind, ErrorKind::TooLarge);
    }

    /// 16 KiB that would fill 60 GiB: every path through a chain of nodes leads to the same long text.
    #[test]
    fn shared_nodes_with_a_long_text_are_refused() {
        let mut bytes = [MAGIC, VERSION, 12 | CHILDREN].iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
        for level in 1..=22 {
            bytes.extend([b'a', b'b']);
            let next = if level == 22 { VALUES } else { CHILDREN } | (12 + 10 * level);
            bytes.extend([next.to_be_bytes(), next.to_be_bytes()].concat());
        }
        bytes.extend([1_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat());
        bytes.extend([b'x'; 16 << 10]);
        bytes.push(0);
        let error = Index::parse(&bytes).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLarge);
        assert!(error.context.contains("keys and values"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let mut file = [MAGIC, VERSION].iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
            file.extend(bytes);
            round_trip(&file);
        }

        #[test]
        fn round_trips(keys in proptest::collection::btree_map("[a-d]{0,6}", "[a-z]{0,4}", 0..20)) {
            let mut index = Index::default();
            keys.iter().for_each(|(key, value)| index.insert(key, value));
            proptest::prop_assert_eq!(Index::parse(&index.to_bytes()).unwrap(), index);
        }
    }
}
