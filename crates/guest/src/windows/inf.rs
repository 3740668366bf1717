//! INF files: how a driver says which devices it is for, and what Windows does to install it.
//!
//! Follows Microsoft's INF reference, section by section (named at the head of each module). Reading a file is one step,
//! and loses nothing of it ([`Inf::to_bytes`]); what its sections mean is asked afterwards, for one release of Windows.
//! Nothing is executed, no other file is opened: `Include` is named, not followed. Every text that comes out of a file
//! is counted against [`TEXTS_MAX`], so that a small file that refers to itself a million times ends with an error.

mod copying;
mod directory;
mod encoding;
mod inbox;
mod installation;
mod lines;
mod models;
mod registry;
mod service;
mod strings;
mod target;
mod version;

use std::collections::BTreeMap;

use crate::{Error, ErrorKind, Result};

pub use copying::FileCopy;
pub use directory::{Directories, Location};
pub use encoding::{CodePage, Encoding};
pub use inbox::{InboxInf, inbox_inf};
pub use installation::{Installation, Need};
pub use lines::Entry;
pub use models::{Model, Models};
pub use registry::{Change, Data, RegistryChange, Root, View};
pub use service::{EventLog, Service, StartType};
pub use target::Target;
pub use version::{DriverDate, DriverVersion, Version};

use lines::{Kind, Line};
use strings::Strings;

/// Largest INF file, in bytes; the largest of Windows' own has 4 MiB.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// What all texts may have that one question about a file returns, in bytes.
const TEXTS_MAX: usize = 32 << 20;

/// Longest text after substitution, in characters: Windows' own limit.
const TEXT_CHARACTERS_MAX: usize = 4095;

/// How an INF file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Locale {
    /// Code page of files without Unicode.
    pub code_page: CodePage,
    /// `LANGID` whose strings are chosen; the undecorated ones without it.
    pub language: Option<u16>,
}

/// An INF file.
#[derive(Clone, Debug)]
pub struct Inf {
    encoding: Encoding,
    text: String,
    lines: Vec<Line>,
    sections: Vec<Section>,
    by_name: BTreeMap<String, usize>,
    strings: Strings,
}

/// A section: the entries of all sections of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name as it is written first.
    pub name: String,
    /// Its entries.
    pub entries: Vec<Entry>,
}

impl Section {
    /// The entry with this key, in any case; the first one of several.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.has_key(key))
    }

    /// All entries with this key: directives such as `AddReg` may stand several times.
    pub fn entries_of<'s>(&'s self, key: &'s str) -> impl Iterator<Item = &'s Entry> + 's {
        self.entries.iter().filter(move |entry| entry.has_key(key))
    }
}

impl Inf {
    /// Reads a file with the undecorated strings, and code page 1252 where it is no Unicode.
    ///
    /// # Errors
    /// As [`Inf::parse_in`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::parse_in(bytes, Locale::default())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`]; [`ErrorKind::Malformed`], with the line, for what Windows would refuse too.
    pub fn parse_in(bytes: &[u8], locale: Locale) -> Result<Self> {
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(Error::new(ErrorKind::TooLarge, format!("INF file of more than {} MiB", FILE_BYTES_MAX >> 20)));
        }
        let (encoding, text) = encoding::decode(bytes, locale.code_page)?;
        let lines = lines::parse_lines(&text)?;
        let mut sections: Vec<Section> = Vec::new();
        let mut by_name = BTreeMap::new();
        let mut here = None;
        for line in &lines {
            match &line.kind {
                Kind::Nothing => {}
                Kind::Section(name) => {
                    here = Some(*by_name.entry(folded(name)).or_insert_with(|| {
                        sections.push(Section { name: name.clone(), entries: Vec::new() });
                        sections.len() - 1
                    }));
                }
                Kind::Entry(entry) => {
                    // An entry before the first section was refused already.
                    if let Some(section) = here.and_then(|at: usize| sections.get_mut(at)) {
                        section.entries.push(entry.clone());
                    }
                }
            }
        }
        let strings = Strings::of(&sections, locale.language);
        Ok(Self { encoding, text, lines, sections, by_name, strings })
    }

    /// The file, byte for byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text: String = self.lines.iter().map(|line| &self.text[line.span.clone()]).collect();
        encoding::encode(&text, self.encoding)
    }

    /// How its text is stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// All sections, in the order in which they first appear.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// A section by its name, in any case.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.by_name.get(&folded(name)).map(|&at| &self.sections[at])
    }

    /// A value with its `%strkey%` replaced and `%%` as `%`; what is no string of this file, such as `%12%`, stays.
    pub fn expand(&self, value: &str) -> String {
        self.strings.expand(value, &|_| None)
    }

    /// The texts of one question, counted.
    fn texts(&self) -> Texts<'_> {
        Texts { inf: self, left: TEXTS_MAX }
    }
}

/// Values of a file as one question takes them out of it.
struct Texts<'i> {
    inf: &'i Inf,
    left: usize,
}

impl<'i> Texts<'i> {
    fn count(&mut self, bytes: usize) -> Result<()> {
        // Each text costs something, an empty one too.
        self.left = self.left.checked_sub(bytes + 16).ok_or_else(|| {
            Error::new(ErrorKind::TooLarge, "what this INF file asks for, written out, is more than 32 MiB")
        })?;
        Ok(())
    }

    fn expand(&mut self, value: &str) -> Result<String> {
        let text = self.inf.expand(value);
        self.count(text.len())?;
        Ok(text)
    }

    /// A value of an entry; nothing stands for one that is not there.
    fn value(&mut self, entry: &Entry, at: usize) -> Result<String> {
        self.expand(entry.values.get(at).map_or("", String::as_str))
    }

    /// A value that is there and not empty.
    fn present(&mut self, entry: &Entry, at: usize) -> Result<Option<String>> {
        Ok(Some(self.value(entry, at)?).filter(|text| !text.is_empty()))
    }

    /// The first value of a section's entry with this key.
    fn of_key(&mut self, section: &Section, key: &str) -> Result<Option<String>> {
        section.entry(key).map_or(Ok(None), |entry| self.present(entry, 0))
    }

    /// A number of a section's entry with this key.
    fn number_of_key(&mut self, section: &Section, key: &str) -> Result<Option<u32>> {
        let Some(entry) = section.entry(key) else { return Ok(None) };
        let text = self.value(entry, 0)?;
        parse_number(&text).map(Some).ok_or_else(|| wrong(entry, format!("{key}: expected a number, found {text:?}")))
    }

    /// Names of sections that all entries with this key list.
    fn names(&mut self, section: &Section, key: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in section.entries_of(key) {
            for at in 0..entry.values.len() {
                names.extend(self.present(entry, at)?);
            }
        }
        Ok(names)
    }

    fn section(&self, name: &str) -> Option<&'i Section> {
        self.inf.section(name)
    }
}

/// `strtoul` with base 0, as INF files write numbers: decimal, `0x…`; nothing is 0.
fn parse_number(text: &str) -> Option<u32> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if text.is_empty() => Some(0),
        // -1 is a directory id; numbers wrap as Windows' own do.
        None => text.parse::<u32>().ok().or_else(|| text.parse::<i32>().ok().map(i32::cast_unsigned)),
    }
}

impl Entry {
    fn has_key(&self, key: &str) -> bool {
        self.key.as_deref().is_some_and(|own| same_name(own, key))
    }
}

/// An error at an entry.
fn wrong(entry: &Entry, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Malformed, format!("line {}: {what}", entry.line))
}

/// Names of sections and keys are the same in any case.
fn folded(name: &str) -> String {
    name.to_lowercase()
}

fn same_name(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!a.is_ascii() && folded(a) == folded(b))
}
