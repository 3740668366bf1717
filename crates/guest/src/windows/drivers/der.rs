//! A walker of DER (X.690): values one after another, by tag and length, within what is there. It knows no other form.

use crate::{Error, ErrorKind, Result};

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
pub(super) const OBJECT_ID: u8 = 0x06;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const BMP_STRING: u8 = 0x1e;
/// `[0]`, constructed.
pub(super) const CONTEXT_0: u8 = 0xa0;

/// Values of DER, one after another.
#[derive(Clone, Copy)]
pub(super) struct Der<'b> {
    pub(super) bytes: &'b [u8],
    /// Where they begin in the file.
    pub(super) base: usize,
}

impl<'b> Der<'b> {
    pub(super) fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Malformed, format!("catalog at 0x{:x}: {what}", self.base))
    }

    /// The next value, and the same with its tag and length; `None` at the end.
    pub(super) fn next_whole(&mut self) -> Result<Option<(u8, Self, &'b [u8])>> {
        let before = self.bytes;
        let next = self.next()?;
        let whole = before.get(..before.len() - self.bytes.len()).unwrap_or_default();
        Ok(next.map(|(tag, inner)| (tag, inner, whole)))
    }

    /// The next value; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u8, Self)>> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let short = self.wrong("the file ends in the midst of a value");
        let [tag, first, rest @ ..] = self.bytes else { return Err(short) };
        if tag & 0x1f == 0x1f {
            return Err(self.wrong("a tag of several bytes"));
        }
        let (length, rest, head) = match *first {
            length @ ..=0x7f => (usize::from(length), rest, 2),
            count @ 0x81..=0x84 => {
                let count = usize::from(count - 0x80);
                let (digits, rest) = rest.split_at_checked(count).ok_or(short)?;
                (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest, 2 + count)
            }
            _ => return Err(self.wrong("a length that DER has not")),
        };
        let short = self.wrong(format_args!("expected {length} bytes, found {}", rest.len()));
        let (value, behind) = rest.split_at_checked(length).ok_or(short)?;
        let inner = Self { bytes: value, base: self.base + head };
        *self = Self { bytes: behind, base: self.base + head + length };
        Ok(Some((*tag, inner)))
    }

    /// The next value, which must be there.
    pub(super) fn any(&mut self) -> Result<(u8, Self)> {
        self.next()?.ok_or_else(|| self.wrong("expected a value"))
    }

    /// What is in the next value, which must have this tag.
    pub(super) fn enter(&mut self, tag: u8) -> Result<Self> {
        match self.any()? {
            (found, inner) if found == tag => Ok(inner),
            (found, inner) => {
                Err(inner.wrong(format_args!("expected a value with tag 0x{tag:02x}, found 0x{found:02x}")))
            }
        }
    }

    pub(super) fn oid(&mut self, oid: &[u8], what: &str) -> Result<()> {
        let found = self.enter(OBJECT_ID)?;
        if found.bytes == oid { Ok(()) } else { Err(found.wrong(format_args!("this is not {what}"))) }
    }
}
