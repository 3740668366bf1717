//! GUIDs as Windows stores them: the first three fields little-endian, the rest as it is written.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// A GUID, in the byte order of a disk; prints in lower case within braces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Guid(pub [u8; 16]);

/// Where the byte that is printed first, second, … is stored.
const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

impl Guid {
    /// All zero: none, where a GUID may be absent.
    pub const ZERO: Self = Self([0; 16]);

    /// A GUID of this program, in its text's order of fields.
    pub(crate) const fn of(text: u128) -> Self {
        let printed = text.to_be_bytes();
        let mut stored = [0; 16];
        let mut at = 0;
        while at < 16 {
            stored[ORDER[at]] = printed[at];
            at += 1;
        }
        Self(stored)
    }

    /// Without braces, as partition tables' tools print it.
    pub fn bare(&self) -> String {
        let text = self.to_string();
        text[1..text.len() - 1].to_owned()
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, &from) in ORDER.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{:02x}", self.0[from])?;
        }
        f.write_str("}")
    }
}

/// With or without braces, in either case.
impl FromStr for Guid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bare = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let is_placed = |(at, byte): (usize, u8)| {
            if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { byte.is_ascii_hexdigit() }
        };
        let parsed = (bare.len() == 36 && bare.bytes().enumerate().all(is_placed))
            .then(|| u128::from_str_radix(&bare.replace('-', ""), 16).ok())
            .flatten();
        parsed.map(Self::of).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            Error::new(ErrorKind::Malformed, format!("expected a GUID, found {}", shown.escape_debug()))
        })
    }
}

impl From<Guid> for String {
    fn from(guid: Guid) -> Self {
        guid.to_string()
    }
}

impl TryFrom<String> for Guid {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fields_are_stored_little_endian() {
        let guid: Guid = "{9DEA862C-5CDD-4E70-ACC1-F32B344D4795}".parse().unwrap();
        assert_eq!(guid.0[..8], [0x2c, 0x86, 0xea, 0x9d, 0xdd, 0x5c, 0x70, 0x4e]);
        assert_eq!(guid.0[8..], [0xac, 0xc1, 0xf3, 0x2b, 0x34, 0x4d, 0x47, 0x95]);
        assert_eq!(guid.to_string(), "{9dea862c-5cdd-4e70-acc1-f32b344d4795}");
        assert_eq!(guid.bare().parse::<Guid>().unwrap(), guid);
        for wrong in ["", "{}", "{9dea862c-5cdd-4e70-acc1-f32b344d479}", "9dea862c-5cdd-4e70-acc1+f32b344d4795", "ä"] {
            assert!(wrong.parse::<Guid>().is_err(), "{wrong}");
        }
    }
}
