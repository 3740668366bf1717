//! Files on their way to a machine, in pieces on the control connection: drivers for the boot image ([`crate::driver`]) since revision 2,
//! the boot image itself since revision 4. The pieces of each file come in order.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest content of a piece in bytes: as JSON it fits into a message.
pub const PIECE_BYTES_MAX: usize = 24 << 10;
/// Longest name in bytes.
const NAME_BYTES_MAX: usize = 200;

/// The name of a file, which is one wherever it is written: no folders, no blanks, nothing that begins with a dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FileName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '~' | '%' | ':');
        let is_sound = !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.starts_with(['.', '-']);
        match is_sound && text.chars().all(plain) {
            true => Ok(Self(text)),
            false => Err(format!("{text:?}: expected a name of letters, digits and . - _ + ~ % :, without folders")),
        }
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> String {
        name.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePiece {
    /// Which push it belongs to; the controller uses none twice in a session.
    pub push: u64,
    /// The file.
    pub name: FileName,
    /// Where the piece begins: where the one before ended.
    pub offset: u64,
    /// What is there.
    pub content: Content,
}

/// At most [`PIECE_BYTES_MAX`] bytes, hexadecimal in JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Content(Vec<u8>);

impl Content {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Content {
    /// The first [`PIECE_BYTES_MAX`] of `bytes`.
    fn from(bytes: &[u8]) -> Self {
        Self(bytes[..bytes.len().min(PIECE_BYTES_MAX)].to_vec())
    }
}

impl TryFrom<String> for Content {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("expected at most {PIECE_BYTES_MAX} bytes in hexadecimal digits");
        if text.len() > 2 * PIECE_BYTES_MAX || !text.len().is_multiple_of(2) {
            return Err(wrong());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks_exact(2).map(pair).collect();
        bytes.map(Self).ok_or_else(wrong)
    }
}

impl From<Content> for String {
    fn from(content: Content) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]].map(char::from);
        content.0.iter().flat_map(digits).collect()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ControllerMessage, MESSAGE_BYTES_MAX, parse_message};

    #[test]
    fn the_largest_piece_fits_into_a_message_and_comes_back() {
        let name = FileName::try_from("x".repeat(NAME_BYTES_MAX)).unwrap();
        let content: Vec<u8> = (0..PIECE_BYTES_MAX + 7).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let piece = FilePiece { push: u64::MAX, name, offset: u64::MAX, content: content.as_slice().into() };
        let message = ControllerMessage::DriverPiece(piece.clone());
        let text = serde_json::to_vec(&message).unwrap();
        assert!(text.len() <= MESSAGE_BYTES_MAX, "{}", text.len());
        assert_eq!(parse_message::<ControllerMessage>(&text).unwrap(), message);
        assert_eq!(piece.content.bytes(), &content[..PIECE_BYTES_MAX]);
    }

    #[test]
    fn names_and_contents_that_are_none_are_refused() {
        let name = |text: &str| serde_json::from_value::<FileName>(text.into()).is_ok();
        assert!(name("firmware-bnx2_20230210-5~bpo_all.deb") && name("megaraid_sas.ko.xz"));
        for wrong in ["", ".", "..", "../x", "a/b", "/etc/passwd", "a b", "-rf", "a\0", "é"] {
            assert!(!name(wrong), "{wrong:?}");
        }
        let content = |text: &str| serde_json::from_value::<Content>(text.into()).is_ok();
        assert!(content("") && content("00ff") && !content("0") && !content("0g") && !content("+1"));
        assert!(!content(&"00".repeat(PIECE_BYTES_MAX + 1)));
    }
}
