//! Registration files read.

use super::super::hive::{Data, KeyPath, Name, ValueType};
use super::{Change, Section};
use crate::{Error, ErrorKind, Result};

/// Longest registration file read, in bytes.
pub const TEXT_MAX: u64 = 512 << 20;

const VERSION_5: &str = "Windows Registry Editor Version 5.00";
const VERSION_4: &str = "REGEDIT4";

/// The sections of a registration file, in order.
///
/// # Errors
/// `Malformed` with the line, `TooLarge`.
pub fn parse(bytes: &[u8]) -> Result<Vec<Section>> {
    if bytes.len() as u64 > TEXT_MAX {
        return Err(Error::new(ErrorKind::TooLarge, format!("a registration file of more than {TEXT_MAX} bytes")));
    }
    let (units, is_ansi) = decode(bytes);
    let mut reader = Reader { units: &units, at: 0, line: 1, is_ansi };
    reader.header()?;
    let mut sections: Vec<Section> = Vec::new();
    while let Some(first) = reader.start_of_line() {
        let line = reader.line;
        let wrong = |what: &str| Error::new(ErrorKind::Malformed, format!("line {line}: {what}"));
        match first {
            '[' => sections.push(reader.heading()?),
            '@' | '"' => {
                let value = reader.value()?;
                match sections.last_mut().map(|section| &mut section.change) {
                    Some(Change::Set(values)) => values.push(value),
                    Some(Change::Delete) => return Err(wrong("a value of a key that is removed")),
                    None => return Err(wrong("a value before the first key")),
                }
            }
            _ => return Err(wrong("expected a key in brackets, a value or a comment")),
        }
    }
    Ok(sections)
}

/// Data as they stand behind the `=`.
///
/// # Errors
/// `Malformed`.
pub fn parse_data(text: &str) -> Result<Data> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let mut reader = Reader { units: &units, at: 0, line: 1, is_ansi: false };
    let data = reader.data()?;
    reader.end_line()?;
    Ok(data)
}

/// The text's units, and whether texts within hexadecimal data are of one byte a letter.
fn decode(bytes: &[u8]) -> (Vec<u16>, bool) {
    let wide =
        |bytes: &[u8], unit: fn([u8; 2]) -> u16| bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
    match bytes {
        [0xff, 0xfe, rest @ ..] => return (wide(rest, u16::from_le_bytes), false),
        [0xfe, 0xff, rest @ ..] => return (wide(rest, u16::from_be_bytes), false),
        _ => {}
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let is_ansi = bytes.trim_ascii_start().starts_with(VERSION_4.as_bytes());
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.encode_utf16().collect(), is_ansi),
        Err(_) => (from_1252(bytes), is_ansi),
    }
}

/// Letters of Windows' code page 1252.
fn from_1252(bytes: &[u8]) -> Vec<u16> {
    encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.encode_utf16().collect()
}

struct Reader<'u> {
    units: &'u [u16],
    at: usize,
    line: usize,
    is_ansi: bool,
}

impl Reader<'_> {
    fn wrong(&self, what: impl AsRef<str>) -> Error {
        Error::new(ErrorKind::Malformed, format!("line {}: {}", self.line, what.as_ref()))
    }

    /// The unit at the present place; ASCII is all that the format itself consists of.
    fn peek(&self) -> Option<char> {
        let &unit = self.units.get(self.at)?;
        Some(u8::try_from(unit).map_or('\u{fffd}', char::from))
    }

    fn next(&mut self) -> Option<char> {
        let found = self.peek()?;
        self.at += 1;
        if found == '\n' {
            self.line += 1;
        }
        Some(found)
    }

    fn is_end_of_line(&self) -> bool {
        matches!(self.peek(), None | Some('\n' | '\r'))
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|found| found != '\n') {}
    }

    /// Goes to the first unit of the next line that says something.
    fn start_of_line(&mut self) -> Option<char> {
        loop {
            match self.peek()? {
                ' ' | '\t' | '\r' | '\n' => {
                    self.next();
                }
                ';' => self.skip_line(),
                found => return Some(found),
            }
        }
    }

    /// Nothing but a comment may follow on the line.
    fn end_line(&mut self) -> Result<()> {
        self.skip_blanks();
        match self.peek() {
            None | Some('\r' | '\n' | ';') => {
                self.skip_line();
                Ok(())
            }
            Some(_) => Err(self.wrong("expected the end of the line")),
        }
    }

    fn header(&mut self) -> Result<()> {
        self.start_of_line();
        let start = self.at;
        while !self.is_end_of_line() {
            self.at += 1;
        }
        let found = String::from_utf16_lossy(&self.units[start..self.at.min(start + 80)]);
        if found.trim_end() != VERSION_5 && found.trim_end() != VERSION_4 {
            let shown = found.trim_end().escape_debug();
            return Err(self.wrong(format!("expected \"{VERSION_5}\" or \"{VERSION_4}\", found \"{shown}\"")));
        }
        Ok(())
    }

    /// `[key]` or `[-key]`. A bracket belongs to the name unless it is the last one of its line.
    fn heading(&mut self) -> Result<Section> {
        let line = self.line;
        self.at += 1;
        let is_delete = self.peek() == Some('-');
        self.at += usize::from(is_delete);
        let start = self.at;
        let mut end = start;
        while self.units.get(end).is_some_and(|&unit| unit != 10 && unit != 13) {
            end += 1;
        }
        let Some(length) = self.units[start..end].iter().rposition(|&unit| unit == u16::from(b']')) else {
            return Err(self.wrong("expected a ] after the key"));
        };
        let names = self.units[start..start + length].split(|&unit| unit == u16::from(b'\\'));
        let names: Vec<Name> = names.filter(|name| !name.is_empty()).map(Name::from_units).collect();
        if names.is_empty() {
            return Err(self.wrong("expected a key between the brackets"));
        }
        self.at = start + length + 1;
        self.end_line()?;
        let change = if is_delete { Change::Delete } else { Change::Set(Vec::new()) };
        Ok(Section { line, key: KeyPath::from_names(names), change })
    }

    /// `"text"` with its escapes, line breaks included.
    fn quoted(&mut self) -> Result<Vec<u16>> {
        let mut text = Vec::new();
        self.at += 1;
        loop {
            let unit = self.units.get(self.at).copied();
            match self.next() {
                None => return Err(self.wrong("expected a \" at the end of a text")),
                Some('"') => return Ok(text),
                Some('\\') => match self.units.get(self.at).copied() {
                    Some(escaped) => {
                        self.next();
                        text.push(escaped);
                    }
                    None => return Err(self.wrong("expected something after a \\")),
                },
                Some(_) => text.extend(unit),
            }
        }
    }

    fn value(&mut self) -> Result<(Name, Option<Data>)> {
        let name = match self.peek() {
            Some('@') => {
                self.at += 1;
                Name::default()
            }
            _ => Name::from_units(self.quoted()?),
        };
        self.skip_blanks();
        if self.next() != Some('=') {
            return Err(self.wrong("expected a = after the name of a value"));
        }
        self.skip_blanks();
        let data = match self.peek() {
            Some('-') => {
                self.at += 1;
                None
            }
            _ => Some(self.data()?),
        };
        self.end_line()?;
        Ok((name, data))
    }

    fn data(&mut self) -> Result<Data> {
        if self.peek() != Some('"') {
            return self.typed();
        }
        let mut units = self.quoted()?;
        units.push(0);
        Ok(Data::new(ValueType::SZ, bytes_of(&units)))
    }

    /// `dword:0000002a`, `hex:01,02` or `hex(7):01,02`.
    fn typed(&mut self) -> Result<Data> {
        let mut word = String::new();
        while let Some(found) =
            self.peek().filter(|found| word.len() < 16 && found.is_ascii_alphanumeric() || matches!(found, '(' | ')'))
        {
            word.push(found.to_ascii_lowercase());
            self.at += 1;
        }
        if self.next() != Some(':') {
            return Err(self.wrong("expected \"text\", dword:, hex:, hex(type): or - as the data of a value"));
        }
        let kind = match word.as_str() {
            "dword" => {
                let number = self.hexadecimal(8).ok_or_else(|| self.wrong("dword: expected 1 to 8 digits"))?;
                return Ok(Data::of_dword(number));
            }
            "hex" => ValueType::BINARY,
            word => {
                let kind = word.strip_prefix("hex(").and_then(|kind| kind.strip_suffix(')'));
                let kind = kind.and_then(|kind| u32::from_str_radix(kind, 16).ok());
                ValueType(kind.ok_or_else(|| self.wrong("expected dword:, hex: or hex(type): as the type of a value"))?)
            }
        };
        let mut bytes = self.byte_list()?;
        if self.is_ansi && matches!(kind, ValueType::EXPAND_SZ | ValueType::MULTI_SZ) {
            bytes = bytes_of(&from_1252(&bytes));
        }
        Ok(Data::new(kind, bytes))
    }

    fn hexadecimal(&mut self, digits_max: usize) -> Option<u32> {
        let mut number = None;
        for _ in 0..digits_max {
            let Some(digit) = self.peek().and_then(|found| found.to_digit(16)) else { break };
            number = Some(number.unwrap_or(0) << 4 | digit);
            self.at += 1;
        }
        number
    }

    /// Bytes with commas between them; a `\` at the end of a line goes on with the next.
    fn byte_list(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek() {
                Some('\\') => {
                    self.at += 1;
                    self.end_line()?;
                }
                Some(',') => self.at += 1,
                Some(found) if found.is_ascii_hexdigit() => {
                    let byte = self.hexadecimal(2).and_then(|byte| u8::try_from(byte).ok());
                    bytes.push(byte.ok_or_else(|| self.wrong("expected a byte of two digits"))?);
                    self.skip_blanks();
                    if !matches!(self.peek(), None | Some(',' | '\\' | '\r' | '\n' | ';')) {
                        return Err(self.wrong("expected a comma after a byte of two digits"));
                    }
                }
                None | Some('\r' | '\n' | ';') => return Ok(bytes),
                Some(_) => return Err(self.wrong("expected bytes of two digits with commas between them")),
            }
        }
    }
}

fn bytes_of(units: &[u16]) -> Vec<u8> {
    units.iter().flat_map(|unit| unit.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(text: &str) -> Vec<Section> {
        parse(text.as_bytes()).unwrap()
    }

    fn values(section: &Section) -> &[(Name, Option<Data>)] {
        match &section.change {
            Change::Set(values) => values,
            Change::Delete => panic!("{section:?}"),
        }
    }

    #[test]
    fn everything_that_regedit_writes_is_read() {
        let text = "Windows Registry Editor Version 5.00\r\n\r\n; a word\r\n[HKEY_LOCAL_MACHINE\\SYSTEM\\a]b]\r\n\
            @=\"x\"\r\n\"a\\\\b\\\"c\"=\"\\\\??\\\\C:\"  ; said\r\n\"n\"=dword:0000002A\r\n\"b\"=hex:\r\n\
            \"m\"=hex(7):61,00,\\\r\n  00,00,\\\r\n  00,00\r\n\"gone\"=-\r\n\r\n[-HKEY_LOCAL_MACHINE\\SYSTEM\\c]\r\n";
        let found = sections(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].key.to_string(), "HKEY_LOCAL_MACHINE\\SYSTEM\\a]b");
        assert_eq!((found[0].line, found[1].line), (4, 14));
        let expected = [
            (Name::default(), Some(Data::sz("x"))),
            (Name::from("a\\b\"c"), Some(Data::sz("\\??\\C:"))),
            (Name::from("n"), Some(Data::of_dword(42))),
            (Name::from("b"), Some(Data::binary([]))),
            (Name::from("m"), Some(Data::multi_sz(["a"]))),
            (Name::from("gone"), None),
        ];
        assert_eq!(values(&found[0]), expected);
        assert_eq!(found[1].change, Change::Delete);
        let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert_eq!(parse(&wide).unwrap(), found);
    }

    #[test]
    fn files_of_windows_95_have_letters_of_one_byte() {
        let text =
            b"REGEDIT4\n\n[HKEY_CURRENT_USER\\caf\xe9]\n\"e\"=hex(2):25,41,25,80,00\n\"m\"=hex(7):61,00,62,00,00\n";
        let found = parse(text).unwrap();
        assert_eq!(found[0].key.to_string(), "HKEY_CURRENT_USER\\café");
        assert_eq!(values(&found[0])[0].1, Some(Data::expand_sz("%A%€")));
        assert_eq!(values(&found[0])[1].1, Some(Data::multi_sz(["a", "b"])));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, what) in [
            ("", 1, "Version 5.00"),
            ("Windows Registry Editor Version 4.00\n", 1, "Version 4.00"),
            ("REGEDIT4\n\n\"a\"=dword:1\n", 3, "before the first key"),
            ("REGEDIT4\n[a\n", 2, "]"),
            ("REGEDIT4\n[]\n", 2, "between the brackets"),
            ("REGEDIT4\n[a]\n\"b\n", 4, "end of a text"),
            ("REGEDIT4\n[a]\n\"b\"=dword:\n", 3, "digits"),
            ("REGEDIT4\n[a]\n\"b\"=dword:123456789\n", 3, "end of the line"),
            ("REGEDIT4\n[a]\n\"b\"=hex(x):1\n", 3, "type"),
            ("REGEDIT4\n[a]\n\"b\"=hex:1g\n", 3, "comma"),
            ("REGEDIT4\n[a]\n\"b\"=hex:1,\\ 2\n", 3, "end of the line"),
            ("REGEDIT4\n[a]\nb=1\n", 3, "in brackets"),
            ("REGEDIT4\n[-a]\n@=-\n", 3, "removed"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line}: ")) && error.contains(what), "{text:?}: {error}");
        }
    }
}
