//! Security descriptors: `sk` records, each shared by the keys that have the same one, in a ring of all of them.

use super::bins::{Bins, CellOffset};
use super::field::{le32, to_u32};
use super::malformed;
use crate::Result;

/// Fixed part of an `sk` record; the descriptor follows.
pub(super) const SECURITY_SIZE: usize = 20;

/// Longest descriptor, in bytes: its own lengths are of 16 bits, of owner, group and two lists.
pub const DESCRIPTOR_MAX: usize = 4 << 16;

/// Offsets within an `sk` record.
pub(super) mod at {
    pub(in super::super) const NEXT: usize = 4;
    pub(in super::super) const PREVIOUS: usize = 8;
    pub(in super::super) const COUNT: usize = 12;
}

/// The fields of an `sk` record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) next: CellOffset,
    pub(super) previous: CellOffset,
    /// Keys that have it.
    pub(super) count: u32,
    pub(super) length: usize,
}

impl Security {
    pub(super) fn read(bins: &Bins, offset: CellOffset) -> Result<Self> {
        let cell = bins.cell(offset)?;
        let wrong = |what: String| Err(malformed(offset.position(), format!("security: {what}")));
        if cell.get(..2) != Some(b"sk") {
            return wrong(format!("expected sk, found {}", cell[..2.min(cell.len())].escape_ascii()));
        }
        let length = le32(cell, 16) as usize;
        let room = cell.len().saturating_sub(SECURITY_SIZE);
        if length > room {
            return wrong(format!("a descriptor of {length} bytes in a cell with room for {room}"));
        }
        Ok(Self {
            next: CellOffset(le32(cell, at::NEXT)),
            previous: CellOffset(le32(cell, at::PREVIOUS)),
            count: le32(cell, at::COUNT),
            length,
        })
    }
}

/// The descriptor in the record at `offset`; empty where there is none.
pub(super) fn descriptor(bins: &Bins, offset: CellOffset) -> Result<&[u8]> {
    if offset == CellOffset::NONE {
        return Ok(&[]);
    }
    let security = Security::read(bins, offset)?;
    Ok(&bins.cell(offset)?[SECURITY_SIZE..SECURITY_SIZE + security.length])
}

/// A record in the ring between `previous` and `next`, which one key has.
pub(super) fn record_bytes(descriptor: &[u8], previous: CellOffset, next: CellOffset) -> Vec<u8> {
    let mut bytes = b"sk\0\0".to_vec();
    for field in [next.0, previous.0, 1, to_u32(descriptor.len())] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend_from_slice(descriptor);
    bytes
}
