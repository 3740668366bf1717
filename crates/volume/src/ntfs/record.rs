//! File records: a signature, fixups, attributes.
//!
//! The last two bytes of each 512 of a structure are replaced by a number that is raised with every write, so that a torn
//! write shows; what was there is kept in the structure's head. A structure in which the numbers differ is refused.

use super::attribute::Attribute;
use crate::error::{Error, Result};
use crate::field::{le16, le32, le64};

/// What fixups count in, whatever the sector size.
const STRIDE: usize = 512;
const HEADER_BYTES: usize = 42;
const FLAG_IN_USE: u16 = 1;
const FLAG_DIRECTORY: u16 = 2;
/// The part of a reference to a file that is its number; the rest is how often the record was used.
const NUMBER_MASK: u64 = 0xffff_ffff_ffff;

/// A file record with its fixups undone.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub number: u64,
    bytes: Vec<u8>,
    at: u64,
}

/// The number of the file that a reference means.
pub(crate) fn number_of(reference: u64) -> u64 {
    reference & NUMBER_MASK
}

/// Undoes the fixups of a structure that was read at `at`.
///
/// # Errors
/// [`Malformed`](crate::ErrorKind::Malformed) where it was torn, or its fixups do not cover it.
pub(crate) fn undo_fixups(bytes: &mut [u8], at: u64) -> Result<()> {
    let (first, count) = (usize::from(le16(bytes, 4)), usize::from(le16(bytes, 6)));
    let strides = bytes.len() / STRIDE;
    if count != strides + 1 || first + count * 2 > STRIDE - 2 || first < 8 {
        let context =
            format!("ntfs: fixups: expected {} of them in the first sector, found {count} at {first}", strides + 1);
        return Err(Error::malformed(at, context));
    }
    let number = le16(bytes, first);
    for stride in 0..strides {
        let (kept, end) = (first + 2 + stride * 2, (stride + 1) * STRIDE - 2);
        let found = le16(bytes, end);
        if found != number {
            let context = format!("ntfs: a torn write: expected {number:#06x}, found {found:#06x}");
            return Err(Error::malformed(at + end as u64, context));
        }
        bytes.copy_within(kept..kept + 2, end);
    }
    Ok(())
}

impl Record {
    /// Reads the record of file `number`, whose bytes were at `at`.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) where there is none, or it is torn.
    pub(crate) fn parse(number: u64, mut bytes: Vec<u8>, at: u64) -> Result<Self> {
        if bytes.len() < STRIDE || !bytes.starts_with(b"FILE") {
            let found = bytes.get(..4).unwrap_or_default().escape_ascii().to_string();
            return Err(Error::malformed(at, format!("ntfs: file record {number}: expected FILE, found {found}")));
        }
        undo_fixups(&mut bytes, at)?;
        Ok(Self { number, bytes, at })
    }

    pub(crate) fn in_use(&self) -> bool {
        le16(&self.bytes, 22) & FLAG_IN_USE != 0
    }

    pub(crate) fn is_directory(&self) -> bool {
        le16(&self.bytes, 22) & FLAG_DIRECTORY != 0
    }

    /// Where it was read, for errors.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The file that a further record belongs to; `None` for a file's first one.
    pub(crate) fn base(&self) -> Option<u64> {
        Some(number_of(le64(&self.bytes, 32))).filter(|_| le64(&self.bytes, 32) != 0)
    }

    /// Its attributes, in their order.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) where one does not fit into the record.
    pub(crate) fn attributes(&self) -> Result<Vec<Attribute<'_>>> {
        let wrong = |at: usize, what: &str| {
            Error::malformed(self.at + at as u64, format!("ntfs: file record {}: {what}", self.number))
        };
        let used = (le32(&self.bytes, 24) as usize).min(self.bytes.len());
        let mut at = usize::from(le16(&self.bytes, 20));
        let mut attributes = Vec::new();
        if at < HEADER_BYTES {
            return Err(wrong(20, "its attributes begin in its head"));
        }
        while le32(self.bytes.get(at..used).ok_or_else(|| wrong(at, "its attributes do not end"))?, 0) != u32::MAX {
            let length = le32(&self.bytes, at + 4) as usize;
            let attribute = self.bytes[..used].get(at..at.saturating_add(length)).and_then(Attribute::parse);
            attributes.push(attribute.ok_or_else(|| wrong(at, "an attribute does not fit"))?);
            at += length;
        }
        Ok(attributes)
    }

    /// The attribute of this kind and name that the record itself holds.
    ///
    /// # Errors
    /// As [`Record::attributes`].
    pub(crate) fn attribute(&self, kind: u32, name: &str) -> Result<Option<Attribute<'_>>> {
        Ok(self.attributes()?.into_iter().find(|attribute| attribute.kind() == kind && attribute.is_named(name)))
    }
}
