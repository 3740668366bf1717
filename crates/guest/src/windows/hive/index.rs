//! Lists of subkeys: leaves of three kinds, and an index root above several leaves.
//!
//! Leaves are sorted by name, and so are the leaves of one root one after another. `li` holds offsets alone (until NT 3.51
//! and, in any version, below roots of other writers), `lf` a hint with each (minor version 3 and 4), `lh` a hash (5, 6).

use super::bins::{Bins, CellOffset};
use super::field::{le16, le32, to_u32};
use super::malformed;
use super::name::Name;
use crate::Result;

/// What a leaf holds beside each offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeafKind {
    /// `li`: nothing.
    Plain,
    /// `lf`: the first four characters.
    Hint,
    /// `lh`: a hash.
    Hash,
}

impl LeafKind {
    /// What Windows writes into a hive of this minor version.
    pub(super) fn of_version(minor: u32) -> Self {
        match minor {
            0..=2 => Self::Plain,
            3 | 4 => Self::Hint,
            _ => Self::Hash,
        }
    }

    pub(super) fn signature(self) -> [u8; 2] {
        match self {
            Self::Plain => *b"li",
            Self::Hint => *b"lf",
            Self::Hash => *b"lh",
        }
    }

    /// Bytes of an element.
    pub(super) fn stride(self) -> usize {
        match self {
            Self::Plain => 4,
            Self::Hint | Self::Hash => 8,
        }
    }

    /// Elements of a leaf that Windows keeps within one page with its bin's header.
    pub(super) fn elements_max(self) -> usize {
        match self {
            Self::Plain => 1012,
            Self::Hint | Self::Hash => 506,
        }
    }

    /// Whether the key of `element` may have that name. Hints keep their case, and those of other letters than ASCII's
    /// say nothing.
    pub(super) fn may_be(self, element: &[u8], name: &Name) -> bool {
        match self {
            Self::Plain => true,
            Self::Hash => le32(element, 4) == name.hash(),
            Self::Hint => {
                let (found, wanted) = (&element[4..8], name.hint());
                let is_vague = |hint: &[u8]| hint == [0; 4] || !hint.is_ascii();
                is_vague(found) || is_vague(&wanted) || found.eq_ignore_ascii_case(&wanted)
            }
        }
    }

    /// An element as it is stored.
    pub(super) fn element(self, key: CellOffset, name: &Name) -> Vec<u8> {
        let mut bytes = key.0.to_le_bytes().to_vec();
        match self {
            Self::Plain => {}
            Self::Hint => bytes.extend(name.hint()),
            Self::Hash => bytes.extend(name.hash().to_le_bytes()),
        }
        bytes
    }
}

/// A leaf whose elements are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) at: CellOffset,
    pub(super) kind: LeafKind,
    pub(super) count: usize,
}

impl Leaf {
    pub(super) fn read(bins: &Bins, at: CellOffset) -> Result<Self> {
        let cell = bins.cell(at)?;
        let kind = match cell.get(..2) {
            Some(b"li") => LeafKind::Plain,
            Some(b"lf") => LeafKind::Hint,
            Some(b"lh") => LeafKind::Hash,
            found => {
                let found = found.unwrap_or_default().escape_ascii();
                return Err(malformed(at.position(), format!("list of subkeys: expected li, lf or lh, found {found}")));
            }
        };
        let count = usize::from(le16(cell, 2));
        let room = cell.len().saturating_sub(4) / kind.stride();
        if count > room {
            let what = format!("list of subkeys: {count} elements in a cell with room for {room}");
            return Err(malformed(at.position(), what));
        }
        Ok(Self { at, kind, count })
    }

    /// The key of element `index`, which must be below `count`.
    pub(super) fn key(&self, bins: &Bins, index: usize) -> Result<CellOffset> {
        Ok(CellOffset(le32(bins.cell(self.at)?, 4 + index * self.kind.stride())))
    }

    /// Hint or hash of element `index`; nothing in an `li`.
    pub(super) fn check_value(&self, bins: &Bins, index: usize) -> Result<Option<u32>> {
        Ok(match self.kind {
            LeafKind::Plain => None,
            _ => Some(le32(bins.cell(self.at)?, 8 + index * self.kind.stride())),
        })
    }

    /// What [`check_value`](Self::check_value) is for a key of this name.
    pub(super) fn expected_value(&self, name: &Name) -> Option<u32> {
        match self.kind {
            LeafKind::Plain => None,
            LeafKind::Hint => Some(u32::from_le_bytes(name.hint())),
            LeafKind::Hash => Some(name.hash()),
        }
    }
}

/// The leaves below `at`, in order; `at` itself where it is one. The index root's offset too, where there is one.
pub(super) fn read_leaves(bins: &Bins, at: CellOffset) -> Result<(Option<CellOffset>, Vec<Leaf>)> {
    let cell = bins.cell(at)?;
    if cell.get(..2) != Some(b"ri") {
        return Ok((None, vec![Leaf::read(bins, at)?]));
    }
    let count = usize::from(le16(cell, 2));
    let room = cell.len().saturating_sub(4) / 4;
    if count > room {
        let what = format!("index of subkeys: {count} elements in a cell with room for {room}");
        return Err(malformed(at.position(), what));
    }
    let offsets = cell[4..4 + count * 4].chunks_exact(4).map(|element| CellOffset(le32(element, 0)));
    let leaves: Result<Vec<Leaf>> = offsets.map(|offset| Leaf::read(bins, offset)).collect();
    Ok((Some(at), leaves?))
}

/// The leaves below `at` that can be read.
pub(super) fn readable_leaves(bins: &Bins, at: CellOffset) -> Vec<Leaf> {
    let Ok(cell) = bins.cell(at) else { return Vec::new() };
    if cell.get(..2) != Some(b"ri") {
        return Leaf::read(bins, at).into_iter().collect();
    }
    let elements = cell[4..].chunks_exact(4).take(usize::from(le16(cell, 2)));
    elements.filter_map(|element| Leaf::read(bins, CellOffset(le32(element, 0))).ok()).collect()
}

/// An index root of these leaves.
pub(super) fn root_bytes(leaves: &[CellOffset]) -> Vec<u8> {
    let mut bytes = b"ri".to_vec();
    bytes.extend(u16::try_from(leaves.len()).unwrap_or(u16::MAX).to_le_bytes());
    for leaf in leaves {
        bytes.extend(leaf.0.to_le_bytes());
    }
    bytes
}

/// The header of a leaf.
pub(super) fn leaf_header(kind: LeafKind, count: usize) -> [u8; 4] {
    let [a, b] = kind.signature();
    let [low, high, ..] = to_u32(count).to_le_bytes();
    [a, b, low, high]
}
