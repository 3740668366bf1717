//! Bytes as hexadecimal digits, in plans that are stored.

use std::fmt::Write;

use serde::{Deserialize, Deserializer, Serializer};

/// Two digits a byte, in lower case.
pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of such a text.
pub(crate) fn bytes(text: &str) -> Option<Vec<u8>> {
    let is_right = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pairs = || (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok());
    is_right.then(|| pairs().collect()).flatten()
}

pub(crate) fn serialize<S: Serializer>(found: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(found))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let found = String::deserialize(deserializer)?;
    bytes(&found).ok_or_else(|| serde::de::Error::custom("expected pairs of hexadecimal digits"))
}
