//! Attributes of a file record: kind, name, and a value in the record or in clusters elsewhere.

use crate::field::{le16, le32, le64};

/// Kinds of attributes.
pub(crate) mod kind {
    /// Where the attributes of a file with several records are.
    pub(crate) const LIST: u32 = 0x20;
    /// The volume's label.
    pub(crate) const VOLUME_NAME: u32 = 0x60;
    /// The volume's version and flags.
    pub(crate) const VOLUME_INFORMATION: u32 = 0x70;
    /// A file's bytes.
    pub(crate) const DATA: u32 = 0x80;
    /// The first node of a directory.
    pub(crate) const INDEX_ROOT: u32 = 0x90;
    /// Its further nodes.
    pub(crate) const INDEX_ALLOCATION: u32 = 0xa0;
    /// What else a file means than its data.
    pub(crate) const REPARSE: u32 = 0xc0;
}

const RESIDENT_HEADER: usize = 24;
const ELSEWHERE_HEADER: usize = 64;
/// Compressed; the method is in the lower byte, and there is one.
const FLAG_COMPRESSED: u16 = 0x00ff;
const FLAG_ENCRYPTED: u16 = 0x4000;

/// One attribute, or a part of one that other records continue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    bytes: &'a [u8],
}

/// Sizes of a value that lies in clusters, in bytes; they stand in its first part alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Size of the value.
    pub size: u64,
    /// What is behind this was never written and reads as zeros.
    pub initialized: u64,
}

impl<'a> Attribute<'a> {
    /// The attribute that `bytes` are, by its own length; `None` where it cannot be one.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let attribute = Self { bytes };
        let header = if attribute.is_resident() { RESIDENT_HEADER } else { ELSEWHERE_HEADER };
        let name_end = usize::from(le16(bytes, 10)) + attribute.name_units() * 2;
        let fits = bytes.len() >= header && (attribute.name_units() == 0 || name_end <= bytes.len());
        (fits && (!attribute.is_resident() || attribute.value().is_some())).then_some(attribute)
    }

    pub(crate) fn kind(&self) -> u32 {
        le32(self.bytes, 0)
    }

    pub(crate) fn is_resident(&self) -> bool {
        self.bytes.get(8) == Some(&0)
    }

    fn name_units(&self) -> usize {
        self.bytes.get(9).copied().unwrap_or(0).into()
    }

    /// Names of attributes are the system's own; they are compared as they are.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        let at = usize::from(le16(self.bytes, 10));
        let units = (0..self.name_units()).map(|n| le16(self.bytes, at + n * 2));
        units.eq(name.encode_utf16())
    }

    /// The value that the record holds; `None` where it lies elsewhere.
    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        let (length, at) = (le32(self.bytes, 16) as usize, usize::from(le16(self.bytes, 20)));
        if self.is_resident() { self.bytes.get(at..at.checked_add(length)?) } else { None }
    }

    pub(crate) fn is_compressed(&self) -> bool {
        le16(self.bytes, 12) & FLAG_COMPRESSED != 0
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        le16(self.bytes, 12) & FLAG_ENCRYPTED != 0
    }

    /// The cluster of the value that this part begins with.
    pub(crate) fn first_cluster(&self) -> u64 {
        if self.is_resident() { 0 } else { le64(self.bytes, 16) }
    }

    /// Where its clusters lie, as it is written.
    pub(crate) fn mapping_pairs(&self) -> &'a [u8] {
        self.bytes.get(usize::from(le16(self.bytes, 32))..).unwrap_or_default()
    }

    /// Clusters that are compressed together, as a power of two.
    pub(crate) fn compression_unit(&self) -> u8 {
        self.bytes.get(34).copied().unwrap_or(0)
    }

    /// Sizes of a value that lies elsewhere, in its first part.
    pub(crate) fn sizes(&self) -> Sizes {
        Sizes { size: le64(self.bytes, 48), initialized: le64(self.bytes, 56) }
    }
}
