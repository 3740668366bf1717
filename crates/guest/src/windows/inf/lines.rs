//! Lines of an INF file: what each of them is, and where it stands in the text.
//!
//! Follows "General Syntax Rules for INF Files": comments from `;` on, values between commas, `"` quotes with `""` in
//! them, a backslash at the end of a line continues it, `%strkey%` may hold a `;`. The spans of all lines, one after
//! another, are the whole text: nothing is lost.

use std::ops::Range;

use crate::{Error, ErrorKind, Result};

/// Longest section name, in characters (Windows 2000 and later).
const SECTION_NAME_MAX: usize = 255;

/// A line, or several that a backslash joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it stands in the text, with its end.
    pub(super) span: Range<usize>,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Blank, or a comment.
    Nothing,
    /// `[name]`.
    Section(String),
    Entry(Entry),
}

/// An entry of a section. Quotes are gone, `%` is as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What stands before `=`; `None` without one.
    pub key: Option<String>,
    /// What stands between commas; a comma at the end has an empty one behind it.
    pub values: Vec<String>,
    /// Number of its first line in the file, from 1.
    pub line: usize,
}

/// All lines of a text.
///
/// # Errors
/// [`ErrorKind::Malformed`] where Windows would refuse the file: an entry before the first section, a section's name
/// without its end or too long.
pub(super) fn parse_lines(text: &str) -> Result<Vec<Line>> {
    let mut cursor = Cursor { text, at: 0, line: 1 };
    let mut lines = Vec::new();
    let mut in_section = false;
    while cursor.at < text.len() {
        let (start, number) = (cursor.at, cursor.line);
        let wrong = |what: &str| Error::new(ErrorKind::Malformed, format!("line {number}: {what}"));
        cursor.skip_blanks();
        let kind = match cursor.peek() {
            Some('[') => {
                in_section = true;
                Kind::Section(cursor.section().map_err(wrong)?)
            }
            None | Some('\n' | '\r' | ';') => {
                cursor.skip_to_end();
                Kind::Nothing
            }
            Some(_) if !in_section => return Err(wrong("expected a section before the first entry")),
            Some(_) => Kind::Entry(cursor.entry()),
        };
        cursor.end_of_line();
        lines.push(Line { span: start..cursor.at, kind });
    }
    Ok(lines)
}

struct Cursor<'t> {
    text: &'t str,
    at: usize,
    line: usize,
}

/// A value as it is read: unquoted blanks at its end do not belong to it.
#[derive(Default)]
struct Value {
    text: String,
    kept: usize,
    /// Something stood there, if only `""`.
    seen: bool,
}

impl Value {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.kept = self.text.len();
        self.seen = true;
    }

    fn take(&mut self) -> String {
        let Self { mut text, kept, .. } = std::mem::take(self);
        text.truncate(kept);
        text
    }
}

/// Blanks, and the control characters that end or fill files from DOS.
fn is_blank(c: char) -> bool {
    c != '\n' && c != '\r' && (c.is_whitespace() || c == '\u{1a}' || c == '\0')
}

impl<'t> Cursor<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(is_blank).len();
    }

    /// To the end of the line, which stays.
    fn skip_to_end(&mut self) {
        self.at += self.rest().find(['\n', '\r']).unwrap_or(self.rest().len());
    }

    /// Over the end of the line; one that is not there is the end of the file.
    fn end_of_line(&mut self) {
        let rest = self.rest();
        self.at += if rest.starts_with("\r\n") { 2 } else { usize::from(rest.starts_with(['\n', '\r'])) };
        self.line += 1;
    }

    /// `[name]`; what stands behind it has no meaning.
    fn section(&mut self) -> std::result::Result<String, &'static str> {
        let start = self.at + 1;
        self.skip_to_end();
        let line = &self.text[start..self.at];
        let name = &line[..line.find(']').ok_or("a section's name without ]")?];
        if name.chars().count() > SECTION_NAME_MAX {
            return Err("a section's name of more than 255 characters");
        }
        Ok(name.to_owned())
    }

    fn entry(&mut self) -> Entry {
        let mut entry = Entry { key: None, values: Vec::new(), line: self.line };
        let mut value = Value::default();
        let mut comma = false;
        while let Some(c) = self.peek() {
            match c {
                '\n' | '\r' => break,
                ';' => self.skip_to_end(),
                '"' => self.quoted(&mut value),
                '\\' if self.continues() => {}
                ',' => {
                    entry.values.push(value.take());
                    comma = true;
                    self.at += 1;
                }
                '=' if entry.key.is_none() && !comma => {
                    entry.key = Some(value.take());
                    self.at += 1;
                }
                '%' => {
                    let token = self.token();
                    value.push(token);
                    self.at += token.len();
                }
                c if is_blank(c) => {
                    if value.seen {
                        value.text.push(c);
                    }
                    self.at += c.len_utf8();
                }
                c => {
                    value.push(&self.rest()[..c.len_utf8()]);
                    self.at += c.len_utf8();
                }
            }
        }
        if value.seen || comma {
            entry.values.push(value.take());
        }
        entry
    }

    /// A quoted part up to its closing quote, or to the end of the line where that is missing, as in Windows.
    fn quoted(&mut self, value: &mut Value) {
        value.push("");
        self.at += 1;
        loop {
            let rest = self.rest();
            let part = rest.find(['"', '\n', '\r']).unwrap_or(rest.len());
            value.push(&rest[..part]);
            self.at += part;
            if !self.rest().starts_with('"') {
                return;
            }
            self.at += 1;
            if !self.rest().starts_with('"') {
                return;
            }
            value.push("\"");
            self.at += 1;
        }
    }

    /// Whether the line goes on here: nothing but backslashes, blanks and a comment are left of it. Then the next one is
    /// where we are.
    fn continues(&mut self) -> bool {
        let rest = self.rest();
        let behind = rest.trim_start_matches('\\').trim_start_matches(is_blank);
        if !behind.is_empty() && !behind.starts_with(['\n', '\r', ';']) {
            return false;
        }
        self.skip_to_end();
        self.end_of_line();
        true
    }

    /// `%strkey%`, or a `%` that begins none. A strkey is taken as one only where nothing in it would end a value: a
    /// `50% ; of 100%` is no token.
    fn token(&self) -> &'t str {
        let rest = self.rest();
        match rest[1..].find(['%', '"', ',', '\n', '\r', ' ', '\t']) {
            Some(end) if rest[1 + end..].starts_with('%') => &rest[..end + 2],
            _ => &rest[..1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<Entry> {
        let lines = parse_lines(&format!("[s]\n{text}")).unwrap();
        lines
            .into_iter()
            .filter_map(|line| if let Kind::Entry(entry) = line.kind { Some(entry) } else { None })
            .collect()
    }

    fn one(text: &str) -> (Option<String>, Vec<String>) {
        let mut all = entries(text);
        assert_eq!(all.len(), 1, "{text:?}: {all:?}");
        let entry = all.remove(0);
        (entry.key, entry.values)
    }

    fn keyed(key: &str, values: &[&str]) -> (Option<String>, Vec<String>) {
        (Some(key.into()), values.iter().map(|&value| value.into()).collect())
    }

    #[test]
    fn values_stand_between_commas_without_their_quotes_and_blanks() {
        assert_eq!(one(" a b = c d ,, \" e \" , f\t; no"), keyed("a b", &["c d", "", " e ", "f"]));
        assert_eq!(one("a=").1, Vec::<String>::new());
        assert_eq!(one("a = 1,,").1, ["1", "", ""]);
        assert_eq!(one("HKR,,x,,\"say \"\"hi\"\"; a=b\"").1, ["HKR", "", "x", "", "say \"hi\"; a=b"]);
        assert_eq!(
            one("HKR,,x,,a=b"),
            (None, vec!["HKR".into(), String::new(), "x".into(), String::new(), "a=b".into()])
        );
        assert_eq!(one("a = \"never closed, \r\n").1, ["never closed, "]);
        assert_eq!(one("a = b\"c\"d").1, ["bcd"]);
    }

    #[test]
    fn a_backslash_at_the_end_continues_a_line_as_the_documentation_shows() {
        assert_eq!(
            one("CopyFiles = \"SomeDirectory\\\"\\\n,SomeFile"),
            keyed("CopyFiles", &["SomeDirectory\\", "SomeFile"])
        );
        assert_eq!(
            one("CopyFiles = SomeDirectory\\\\\r\n,SomeFile"),
            keyed("CopyFiles", &["SomeDirectory", "SomeFile"])
        );
        assert_eq!(
            one("CopyFiles = \"SomeDirectory\\\"\\ ; comment \n,SomeFile"),
            keyed("CopyFiles", &["SomeDirectory\\", "SomeFile"])
        );
        assert_eq!(one("a = x\\y\\z"), keyed("a", &["x\\y\\z"]));
        assert_eq!(one("a = 1, \\\n\n"), keyed("a", &["1", ""]));
        let counted = entries("a = 1,\\\n 2\nb = 3");
        assert_eq!((counted[0].line, counted[1].line), (2, 4));
    }

    #[test]
    fn a_semicolon_belongs_to_a_token_between_percent_signs() {
        assert_eq!(one("%a;b% = c"), keyed("%a;b%", &["c"]));
        assert_eq!(one("a = 50% ; of 100%"), keyed("a", &["50%"]));
        assert_eq!(one("a = %%SystemRoot%%\\x ; y"), keyed("a", &["%%SystemRoot%%\\x"]));
    }

    #[test]
    fn what_windows_refuses_is_refused_with_its_line() {
        let error = |text: &str| parse_lines(text).unwrap_err().to_string();
        assert_eq!(error("; x\n\nkey = 1\n"), "line 3: expected a section before the first entry");
        assert_eq!(error("[a\n"), "line 1: a section's name without ]");
        assert!(parse_lines(&format!("[{}]", "x".repeat(255))).is_ok());
        assert!(error(&format!("[{}]", "x".repeat(256))).contains("255"));
    }

    proptest::proptest! {
        #[test]
        fn lines_are_the_whole_text(text in "(\\[[a-z]{0,3}\\]|[a=,;%\" \\\\\t\r\n]|é){0,80}") {
            let text = format!("[s]{text}");
            if let Ok(lines) = parse_lines(&text) {
                let spans: Vec<&str> = lines.iter().map(|line| &text[line.span.clone()]).collect();
                proptest::prop_assert_eq!(spans.concat(), text);
            }
        }
    }
}
