//! LVM2's configuration text: `name = value`, sections in braces, arrays in brackets, comments from `#` on.
//!
//! Refused: text that is nested deeper or has more values than any volume group, values that are neither number, string
//! nor array of these.

use std::collections::BTreeMap;

use super::label::TEXT_MAX;

/// Sections inside sections; a segment is the fourth.
const DEPTH_MAX: usize = 16;
/// Values and sections in one text.
const VALUES_MAX: usize = 1 << 20;

/// A section: its values and the sections in it, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Section {
    pub values: BTreeMap<String, Value>,
    pub sections: BTreeMap<String, Section>,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(i64),
    Text(String),
    Array(Vec<Value>),
}

impl Section {
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.values.get(name)? {
            Value::Number(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An array; one value alone counts as an array of it.
    pub(super) fn array(&self, name: &str) -> &[Value] {
        match self.values.get(name) {
            Some(Value::Array(values)) => values,
            Some(value) => std::slice::from_ref(value),
            None => &[],
        }
    }

    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.get(name)
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    values: usize,
}

/// Parses a text.
///
/// # Errors
/// Position, what was expected, what was found.
pub(super) fn parse(bytes: &[u8]) -> Result<Section, String> {
    if bytes.len() as u64 > TEXT_MAX {
        return Err(format!("metadata text of {} bytes", bytes.len()));
    }
    Parser { bytes, at: 0, values: 0 }.section(0)
}

impl Parser<'_> {
    fn section(&mut self, depth: usize) -> Result<Section, String> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("a shallower section"));
        }
        let mut section = Section::default();
        loop {
            match self.skip_blanks() {
                None | Some(0) if depth == 0 => return Ok(section),
                Some(b'}') if depth > 0 => {
                    self.at += 1;
                    return Ok(section);
                }
                _ => {}
            }
            self.count()?;
            let name = self.name()?;
            let duplicate = match self.skip_blanks() {
                Some(b'=') => {
                    self.at += 1;
                    let value = self.value()?;
                    section.values.insert(name, value).is_some()
                }
                Some(b'{') => {
                    self.at += 1;
                    let inner = self.section(depth + 1)?;
                    section.sections.insert(name, inner).is_some()
                }
                _ => return Err(self.wrong("= or {")),
            };
            if duplicate {
                return Err(self.wrong("a name that was not there before"));
            }
        }
    }

    fn value(&mut self) -> Result<Value, String> {
        self.count()?;
        match self.skip_blanks() {
            Some(b'[') => {
                self.at += 1;
                let mut values = Vec::new();
                loop {
                    match self.skip_blanks() {
                        Some(b']') => {
                            self.at += 1;
                            return Ok(Value::Array(values));
                        }
                        Some(b',') => self.at += 1,
                        Some(b'[') => return Err(self.wrong("a number or string")),
                        _ => values.push(self.value()?),
                    }
                }
            }
            Some(b'"') => self.string().map(Value::Text),
            _ => {
                let word = self.word(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.'));
                word.parse().map(Value::Number).map_err(|_| self.wrong("a number, string or array"))
            }
        }
    }

    fn string(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            let byte = *self.bytes.get(self.at).ok_or_else(|| self.wrong("the end of a string"))?;
            self.at += 1;
            match byte {
                b'"' => return Ok(String::from_utf8_lossy(&text).into_owned()),
                b'\\' => {
                    text.extend(self.bytes.get(self.at));
                    self.at += 1;
                }
                _ => text.push(byte),
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let word = self.word(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+' | b'/'));
        if word.is_empty() { Err(self.wrong("a name")) } else { Ok(word) }
    }

    fn word(&mut self, belongs: fn(u8) -> bool) -> String {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&b| !belongs(b)).unwrap_or(rest.len());
        self.at += length;
        String::from_utf8_lossy(&rest[..length]).into_owned()
    }

    /// The next byte that is neither blank nor comment, without taking it.
    fn skip_blanks(&mut self) -> Option<u8> {
        loop {
            match *self.bytes.get(self.at)? {
                b'#' => {
                    let rest = &self.bytes[self.at..];
                    self.at += rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
                }
                b if b.is_ascii_whitespace() => self.at += 1,
                b => return Some(b),
            }
        }
    }

    fn count(&mut self) -> Result<(), String> {
        self.values += 1;
        if self.values > VALUES_MAX { Err(self.wrong("fewer values")) } else { Ok(()) }
    }

    fn wrong(&self, expected: &str) -> String {
        let found: Vec<u8> = self.bytes.iter().skip(self.at).take(12).copied().collect();
        format!("metadata text at {}: expected {expected}, found {:?}", self.at, String::from_utf8_lossy(&found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_values_and_comments_are_read() {
        let text =
            b"vg { # a group\n id = \"a\\\"b\"\n n = 7 flags = [\"X\", 2]\n empty = []\n in { x = -1 } }\nv = 1\n\0";
        let vg = parse(text).unwrap();
        let vg = vg.section("vg").unwrap();
        assert_eq!((vg.text("id"), vg.number("n")), (Some("a\"b"), Some(7)));
        assert_eq!(vg.array("flags"), [Value::Text("X".into()), Value::Number(2)]);
        assert_eq!(vg.section("in").unwrap().number("x"), None);
    }

    #[test]
    fn deep_unfinished_and_doubled_text_is_refused() {
        for wrong in ["a {", "a", "a = ", "a = [1", "a = \"x", "a = 1 a = 2", "= 1", "a = [[1]]", "a = 1e9"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(parse("a{".repeat(100_000).as_bytes()).is_err());
    }
}
