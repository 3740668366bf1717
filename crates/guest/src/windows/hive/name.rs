//! Names of keys and values: UTF-16 as Windows takes it, unpaired surrogates and all, and paths made of them.

use std::cmp::Ordering;
use std::fmt;

use super::field::{unit_bytes, units};
use super::upcase::upcase;

/// Longest name of a key, in UTF-16 units.
pub const KEY_NAME_MAX: usize = 255;

/// Longest name of a value, in UTF-16 units.
pub const VALUE_NAME_MAX: usize = 16_383;

/// Levels of keys below each other that Windows allows.
pub const DEPTH_MAX: usize = 512;

/// A key's or a value's name. The empty one is that of a key's default value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Name(Vec<u16>);

impl Name {
    /// The name of these UTF-16 units.
    pub fn from_units(units: impl Into<Vec<u16>>) -> Self {
        Self(units.into())
    }

    /// The name that `bytes` stand for: one byte a unit when `compressed`, else UTF-16LE.
    pub(super) fn decode(bytes: &[u8], compressed: bool) -> Self {
        Self(if compressed { bytes.iter().map(|&byte| u16::from(byte)).collect() } else { units(bytes) })
    }

    /// The bytes on the disk and whether they are compressed, which Windows does where no unit is above 255.
    pub(super) fn encode(&self) -> (Vec<u8>, bool) {
        let narrow: Option<Vec<u8>> = self.0.iter().map(|&unit| u8::try_from(unit).ok()).collect();
        match narrow {
            Some(bytes) => (bytes, true),
            None => (unit_bytes(&self.0), false),
        }
    }

    /// The UTF-16 units.
    pub fn units(&self) -> &[u16] {
        &self.0
    }

    /// Whether it is the name of a default value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How Windows sorts names: by their upper-case units.
    pub fn compare(&self, other: &Self) -> Ordering {
        let upper = |name: &'_ Self| name.0.iter().map(|&unit| upcase(unit)).collect::<Vec<_>>();
        // Most names differ early, and none of them is long.
        match (self.0.first(), other.0.first()) {
            (Some(&a), Some(&b)) if upcase(a) != upcase(b) => upcase(a).cmp(&upcase(b)),
            _ => upper(self).cmp(&upper(other)),
        }
    }

    /// Whether Windows takes both for one name.
    pub fn is(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.compare(other) == Ordering::Equal
    }

    /// The hash in an `lh` list: of the upper-case name, base 37.
    pub(super) fn hash(&self) -> u32 {
        self.0.iter().fold(0u32, |hash, &unit| hash.wrapping_mul(37).wrapping_add(u32::from(upcase(unit))))
    }

    /// The hint in an `lf` list: the first four units as bytes, all zero where one of them is none.
    pub(super) fn hint(&self) -> [u8; 4] {
        let mut hint = [0; 4];
        for (byte, &unit) in hint.iter_mut().zip(&self.0) {
            match u8::try_from(unit) {
                Ok(narrow) => *byte = narrow,
                Err(_) => return [0; 4],
            }
        }
        hint
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.encode_utf16().collect())
    }
}

impl From<&String> for Name {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&Name> for Name {
    fn from(name: &Name) -> Self {
        name.clone()
    }
}

/// For people: unpaired surrogates are replaced.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf16_lossy(&self.0))
    }
}

/// Names of keys from the root of a hive down; the empty path is the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPath(Vec<Name>);

impl KeyPath {
    /// The path of these names.
    pub fn from_names(names: impl Into<Vec<Name>>) -> Self {
        Self(names.into())
    }

    /// Its names, from the root down.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// The path one level down.
    #[must_use]
    pub fn child(&self, name: impl Into<Name>) -> Self {
        let mut names = self.0.clone();
        names.push(name.into());
        Self(names)
    }
}

/// `ControlSet001\Services\Disk`; empty names are left out.
impl From<&str> for KeyPath {
    fn from(text: &str) -> Self {
        Self(text.split('\\').filter(|name| !name.is_empty()).map(Name::from).collect())
    }
}

impl From<&String> for KeyPath {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&KeyPath> for KeyPath {
    fn from(path: &KeyPath) -> Self {
        path.clone()
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if at == 0 { "" } else { "\\" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_by_their_upper_case_units() {
        let sorted = ["", "A", "a1", "AA", "b", "B_", "[", "_", "é", "Ж"];
        for pair in sorted.windows(2) {
            assert_eq!(Name::from(pair[0]).compare(&Name::from(pair[1])), Ordering::Less, "{pair:?}");
        }
        assert!(Name::from("Straße").is(&Name::from("STRAßE")));
        assert!(!Name::from("Straße").is(&Name::from("STRASSE")));
    }

    #[test]
    fn hash_and_hint_are_those_of_the_format() {
        // ("A" * 37 + "B") * 37 + "C"
        assert_eq!(Name::from("abc").hash(), (65 * 37 + 66) * 37 + 67);
        assert_eq!(Name::from("ab").hint(), *b"ab\0\0");
        assert_eq!(Name::from("Services").hint(), *b"Serv");
        assert_eq!(Name::from("abЖ").hint(), [0; 4]);
    }
}
