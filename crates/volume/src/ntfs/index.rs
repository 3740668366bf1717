//! Directories: trees of file names, in their record (`$INDEX_ROOT`) and in blocks elsewhere (`$INDEX_ALLOCATION`), ordered by
//! upper case.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::NtfsVolume;
use super::attribute::kind;
use super::record::{Record, number_of, undo_fixups};
use super::stream::Stream;
use super::upcase::UpCase;
use crate::error::{Error, Result};
use crate::field::{le16, le32, le64};

/// The index of names.
const NAMES: &str = "$I30";
/// Bytes of a root: it lies in a file record.
const ROOT_BYTES_MAX: usize = 64 << 10;
/// Size of a block.
const BLOCK_BYTES_MAX: u32 = 64 << 10;
/// Blocks of one directory that are read; one of a million names has about as many.
const BLOCKS_MAX: usize = 1 << 17;
/// What a block's place is counted in where clusters are larger than blocks.
const PLACE_BYTES: u64 = 512;
/// The part of a block in front of its node.
const BLOCK_HEADER: usize = 24;
const ENTRY_HAS_CHILD: u16 = 1;
const ENTRY_LAST: u16 = 2;
const NAMESPACE_DOS: u8 = 2;
const ATTRIBUTE_REPARSE: u32 = 0x400;
const ATTRIBUTE_DIRECTORY: u32 = 0x1000_0000;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexedName {
    /// The file that it names.
    pub record: u64,
    pub name: Vec<u16>,
    /// A short name beside a longer one.
    pub is_dos: bool,
    pub is_directory: bool,
    /// The tag of a reparse point.
    pub reparse: Option<u32>,
}

/// The names in a directory.
pub(crate) struct Index<'a> {
    volume: &'a NtfsVolume,
    root: Vec<u8>,
    blocks: Option<Stream>,
    block_bytes: usize,
    /// Where the directory's record was read, for errors.
    at: u64,
}

/// An entry of a node: a name, but for the last one, and a child in front of it.
struct Entry {
    name: Option<IndexedName>,
    child: Option<u64>,
}

impl<'a> Index<'a> {
    /// Opens the index of a directory.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) where the record has none.
    pub(crate) fn open(volume: &'a NtfsVolume, directory: &Record) -> Result<Self> {
        let wrong =
            |what: String| Error::malformed(directory.at(), format!("ntfs: directory {}: {what}", directory.number));
        let root = volume.stream(directory, kind::INDEX_ROOT, NAMES)?.ok_or_else(|| wrong("it has no index".into()))?;
        let root = volume.load(&root, ROOT_BYTES_MAX)?;
        let block = le32(&root, 8);
        if !block.is_power_of_two() || !(512..=BLOCK_BYTES_MAX).contains(&block) {
            return Err(wrong(format!("blocks of {block} bytes")));
        }
        let blocks = volume.stream(directory, kind::INDEX_ALLOCATION, NAMES)?;
        Ok(Self { volume, root, blocks, block_bytes: block as usize, at: directory.at() })
    }

    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::malformed(self.at, format!("ntfs: a directory's index: {what}"))
    }

    /// All names, in the order of the tree's blocks; those of short ones among them.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) where the tree does not add up or has too many blocks.
    pub(crate) fn names(&self) -> Result<Vec<IndexedName>> {
        let mut names = Vec::new();
        self.visit(|entry| {
            let child = entry.child;
            names.extend(entry.name);
            (child, true)
        })?;
        Ok(names)
    }

    /// The file of a name, without regard to case; where there are several, the one that is spelled alike.
    ///
    /// # Errors
    /// As [`Index::names`].
    pub(crate) fn find(&self, name: &[u16], upcase: &UpCase) -> Result<Option<u64>> {
        let mut found: Option<IndexedName> = None;
        self.visit(|entry| {
            let Some(here) = entry.name else { return (entry.child, true) };
            match upcase.compare(name, &here.name) {
                Ordering::Less => (entry.child, false),
                Ordering::Greater => (None, true),
                Ordering::Equal => {
                    let alike = found.as_ref().is_some_and(|found| found.name == name);
                    if !alike {
                        found = Some(here);
                    }
                    (entry.child, true)
                }
            }
        })?;
        Ok(found.map(|found| found.record))
    }

    /// Walks the tree. `take` gets each entry, and answers which child is visited and whether its node is gone on with.
    fn visit(&self, mut take: impl FnMut(Entry) -> (Option<u64>, bool)) -> Result<()> {
        let mut left: Vec<u64> = Vec::new();
        let mut seen = BTreeSet::new();
        self.walk_node(&self.root, 16, &mut left, &mut take)?;
        while let Some(place) = left.pop() {
            if !seen.insert(place) || seen.len() > BLOCKS_MAX {
                return Err(self.wrong(format!("block {place} is in it twice, or it has more than {BLOCKS_MAX}")));
            }
            let block = self.block(place)?;
            self.walk_node(&block, BLOCK_HEADER, &mut left, &mut take)?;
        }
        Ok(())
    }

    /// The entries of the node whose head is at `head`.
    fn walk_node(
        &self,
        node: &[u8],
        head: usize,
        left: &mut Vec<u64>,
        take: &mut impl FnMut(Entry) -> (Option<u64>, bool),
    ) -> Result<()> {
        let end = head.saturating_add(le32(node, head + 4) as usize).min(node.len());
        let mut at = head.saturating_add(le32(node, head) as usize);
        loop {
            let entry = node.get(at..end).filter(|entry| entry.len() >= 16);
            let entry = entry.ok_or_else(|| self.wrong("a node does not end"))?;
            let (length, flags) = (usize::from(le16(entry, 8)), le16(entry, 12));
            let entry =
                entry.get(..length).filter(|_| length >= 16).ok_or_else(|| self.wrong("an entry does not fit"))?;
            let child = (flags & ENTRY_HAS_CHILD != 0 && length >= 24).then(|| le64(entry, length - 8));
            let is_last = flags & ENTRY_LAST != 0;
            let name = match is_last {
                true => None,
                false => Some(indexed_name(entry).ok_or_else(|| self.wrong("a name does not fit"))?),
            };
            let (child, goes_on) = take(Entry { name, child });
            if left.len() < BLOCKS_MAX {
                left.extend(child);
            }
            if is_last || !goes_on {
                return Ok(());
            }
            at += length;
        }
    }

    fn block(&self, place: u64) -> Result<Vec<u8>> {
        let blocks = self.blocks.as_ref().ok_or_else(|| self.wrong("it has no blocks"))?;
        let cluster = self.volume.boot.cluster_bytes;
        let unit = if cluster <= self.block_bytes as u64 { cluster } else { PLACE_BYTES };
        let offset = place
            .checked_mul(unit)
            .filter(|offset| offset.checked_add(self.block_bytes as u64).is_some_and(|end| end <= blocks.size));
        let offset = offset.ok_or_else(|| self.wrong(format!("there is no block {place}")))?;
        let mut block = vec![0; self.block_bytes];
        self.volume.read_stored(blocks, offset, &mut block)?;
        if !block.starts_with(b"INDX") || le64(&block, 16) != place {
            return Err(self.wrong(format!("block {place} is none")));
        }
        undo_fixups(&mut block, self.at)?;
        Ok(block)
    }
}

/// The name of an entry.
fn indexed_name(entry: &[u8]) -> Option<IndexedName> {
    let key = entry.get(16..16 + usize::from(le16(entry, 10)))?;
    let (units, namespace) = (usize::from(*key.get(64)?), *key.get(65)?);
    let name = key.get(66..66 + units * 2)?;
    let attributes = le32(key, 56);
    Some(IndexedName {
        record: number_of(le64(entry, 0)),
        name: (0..units).map(|n| le16(name, n * 2)).collect(),
        is_dos: namespace == NAMESPACE_DOS,
        is_directory: attributes & ATTRIBUTE_DIRECTORY != 0,
        reparse: (attributes & ATTRIBUTE_REPARSE != 0).then(|| le32(key, 60)),
    })
}
