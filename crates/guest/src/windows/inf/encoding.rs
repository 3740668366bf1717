//! The text of an INF file: UTF-16 in either order, UTF-8 with a mark, or an ANSI code page.
//!
//! An ANSI file is read in the code page of the Windows that reads it ("Creating International INF Files"), so whoever
//! knows the guest's says it; its names of services and files are ASCII in practice.

use encoding_rs as rs;
use encoding_rs::Encoding as Table;

use crate::{Error, ErrorKind, Result};

/// How a file's text is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-16, little endian; with a byte order mark or without.
    Utf16Le {
        /// Whether the mark is there.
        mark: bool,
    },
    /// UTF-16, big endian, with its byte order mark.
    Utf16Be,
    /// UTF-8, with its mark: without one it would be an ANSI file to Windows.
    Utf8,
    /// Bytes of a code page.
    Ansi(CodePage),
}

/// An ANSI code page of Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePage(u16);

impl Default for CodePage {
    fn default() -> Self {
        Self(1252)
    }
}

impl CodePage {
    /// The code page by Windows' number (`Control\Nls\CodePage`, value `ACP`), if it is known here.
    pub fn new(number: u16) -> Option<Self> {
        table(number).map(|_| Self(number))
    }

    /// Windows' number.
    pub fn number(self) -> u16 {
        self.0
    }
}

fn table(number: u16) -> Option<&'static Table> {
    Some(match number {
        874 => rs::WINDOWS_874,
        932 => rs::SHIFT_JIS,
        936 => rs::GBK,
        949 => rs::EUC_KR,
        950 => rs::BIG5,
        1250 => rs::WINDOWS_1250,
        1251 => rs::WINDOWS_1251,
        1252 => rs::WINDOWS_1252,
        1253 => rs::WINDOWS_1253,
        1254 => rs::WINDOWS_1254,
        1255 => rs::WINDOWS_1255,
        1256 => rs::WINDOWS_1256,
        1257 => rs::WINDOWS_1257,
        1258 => rs::WINDOWS_1258,
        _ => return None,
    })
}

/// Text of a file and how it is stored. What is not valid in `ansi` is read in code page 1252, which holds any bytes.
///
/// # Errors
/// [`ErrorKind::Malformed`] for UTF-16 with half a character, and for what is not UTF-8 behind its mark.
pub(super) fn decode(bytes: &[u8], ansi: CodePage) -> Result<(Encoding, String)> {
    if let Some(rest) = bytes.strip_prefix(b"\xff\xfe") {
        return Ok((Encoding::Utf16Le { mark: true }, wide(rest, u16::from_le_bytes)?));
    }
    if let Some(rest) = bytes.strip_prefix(b"\xfe\xff") {
        return Ok((Encoding::Utf16Be, wide(rest, u16::from_be_bytes)?));
    }
    if let Some(rest) = bytes.strip_prefix(b"\xef\xbb\xbf") {
        let text = std::str::from_utf8(rest).map_err(|e| {
            Error::new(
                ErrorKind::Malformed,
                format!("byte 0x{:x}: expected UTF-8, as the mark says", e.valid_up_to() + 3),
            )
        })?;
        return Ok((Encoding::Utf8, text.to_owned()));
    }
    // Windows guesses here too: a text without NUL is never UTF-16 with ASCII in it.
    let head = &bytes[..bytes.len().min(8)];
    if head.len() == 8 && head.chunks_exact(2).all(|pair| pair[0] != 0 && pair[1] == 0) {
        return Ok((Encoding::Utf16Le { mark: false }, wide(bytes, u16::from_le_bytes)?));
    }
    for page in [ansi, CodePage::default()] {
        let Some(table) = table(page.0) else { continue };
        let Some(text) = table.decode_without_bom_handling_and_without_replacement(bytes) else { continue };
        let (again, _, lost) = table.encode(&text);
        if !lost && *again == *bytes {
            return Ok((Encoding::Ansi(page), text.into_owned()));
        }
    }
    Err(Error::new(ErrorKind::Malformed, "text in no known encoding"))
}

/// The bytes of a text that [`decode`] read.
pub(super) fn encode(text: &str, encoding: Encoding) -> Vec<u8> {
    let wide = |mark: &[u8], bytes: fn(u16) -> [u8; 2]| {
        mark.iter().copied().chain(text.encode_utf16().flat_map(bytes)).collect::<Vec<u8>>()
    };
    match encoding {
        Encoding::Utf16Le { mark: true } => wide(b"\xff\xfe", u16::to_le_bytes),
        Encoding::Utf16Le { mark: false } => wide(b"", u16::to_le_bytes),
        Encoding::Utf16Be => wide(b"\xfe\xff", u16::to_be_bytes),
        Encoding::Utf8 => [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        Encoding::Ansi(page) => table(page.0).map_or_else(Vec::new, |table| table.encode(text).0.into_owned()),
    }
}

fn wide(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String> {
    let wrong = |at: usize, what: &str| Error::new(ErrorKind::Malformed, format!("byte 0x{at:x}: {what}"));
    if !bytes.len().is_multiple_of(2) {
        return Err(wrong(bytes.len() - 1, "half a character of UTF-16 at the end"));
    }
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    let mut at = 2;
    let mut text = String::with_capacity(bytes.len() / 2);
    for character in char::decode_utf16(units) {
        let character = character.map_err(|_| wrong(at, "half of a surrogate pair"))?;
        at += 2 * character.len_utf16();
        text.push(character);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_is_recognised_and_written_back() {
        let utf16: Vec<u8> = "[Version]\r\nä=\u{1f5a7}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = utf16.chunks_exact(2).flat_map(|pair| [pair[1], pair[0]]).collect();
        let cases = [
            ([b"\xff\xfe", utf16.as_slice()].concat(), Encoding::Utf16Le { mark: true }),
            (utf16.clone(), Encoding::Utf16Le { mark: false }),
            ([b"\xfe\xff", big.as_slice()].concat(), Encoding::Utf16Be),
            (b"\xef\xbb\xbf[Version]\n\xc3\xa4=".to_vec(), Encoding::Utf8),
            (b"[Version]\n\xe4=\x81\x8d".to_vec(), Encoding::Ansi(CodePage(1252))),
        ];
        for (bytes, expected) in cases {
            let (encoding, text) = decode(&bytes, CodePage::default()).unwrap();
            assert_eq!(encoding, expected);
            assert!(text.starts_with("[Version]") && text.contains('ä'), "{text}");
            assert_eq!(encode(&text, encoding), bytes);
        }
    }

    #[test]
    fn an_ansi_file_is_read_in_the_code_page_of_its_windows() {
        let page = CodePage::new(932).unwrap();
        let (encoding, text) = decode(b"x=\x93\xfa\x96{", page).unwrap();
        assert_eq!((encoding, text.as_str()), (Encoding::Ansi(page), "x=日本"));
        // Half a character of code page 932: whatever it is, none of it gets lost.
        let (encoding, text) = decode(b"x=\x93", page).unwrap();
        assert_eq!((encoding, encode(&text, encoding)), (Encoding::Ansi(CodePage::default()), b"x=\x93".to_vec()));
        assert_eq!(CodePage::new(65001), None);
    }

    #[test]
    fn broken_unicode_is_refused_with_its_place() {
        let error = |bytes: &[u8]| decode(bytes, CodePage::default()).unwrap_err().to_string();
        assert_eq!(error(b"\xff\xfea\0\0\xd8b\0"), "byte 0x4: half of a surrogate pair");
        assert!(error(b"\xff\xfea\0b").contains("half a character"));
        assert!(error(b"\xef\xbb\xbfab\xff").starts_with("byte 0x5:"));
    }
}
