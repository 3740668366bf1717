//! Keys of a hive as a registration file.

use std::io::Write;

use super::super::hive::{Data, Hive, Key, KeyPath, Name, Value, ValueType, units};
use crate::{Error, ErrorKind, Result};

/// Column after which regedit breaks a line of bytes.
const COLUMNS: usize = 77;

/// Bytes that any value takes beside its data.
const RECORD: usize = 20;

/// How the text is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As regedit does: UTF-16LE with a byte order mark, lines that end in CR LF.
    Utf16,
    /// For a terminal: UTF-8, lines that end in LF. Halves of surrogate pairs in names are lost.
    Utf8,
}

/// What is exported and how.
#[derive(Clone, Debug)]
pub struct Export<'e> {
    /// The key to begin with, within the hive.
    pub key: &'e KeyPath,
    /// What stands before it in each heading.
    pub prefix: &'e KeyPath,
    /// How the text is encoded.
    pub encoding: Encoding,
    /// Leave out what cannot be read and go on.
    pub salvage: bool,
}

/// Writes `from`, the key that [`Export::key`] names, and everything below it; what was left out.
///
/// # Errors
/// What cannot be read, unless it is to be salvaged; what `output` says.
pub fn export(hive: &Hive, from: &Key, how: &Export, output: &mut dyn Write) -> Result<Vec<Error>> {
    let mut text = Text { output, encoding: how.encoding, columns: COLUMNS, units: Vec::new() };
    if how.encoding == Encoding::Utf16 {
        text.units.push(0xfeff);
    }
    text.add("Windows Registry Editor Version 5.00");
    text.end_line()?;
    let mut path: Vec<Name> = [how.prefix.names(), how.key.names()].concat();
    let base = path.len();
    let mut losses = Vec::new();
    // A whole hive uses each byte once; one that shares data would make a text without end.
    let mut room = hive.bins_bytes().len();
    let mut walk = hive.walk(from);
    if how.salvage {
        walk = walk.lenient();
    }
    for step in walk.by_ref() {
        let step = step?;
        let lost = |error: Error, losses: &mut Vec<Error>| match how.salvage {
            true => {
                losses.push(error);
                Ok(())
            }
            false => Err(error),
        };
        if step.depth > 0 {
            path.truncate(base + step.depth - 1);
            match step.key.name().and_then(on_one_line) {
                Ok(name) => path.push(name),
                Err(error) => {
                    lost(error, &mut losses)?;
                    path.push(Name::from("?"));
                }
            }
        }
        text.heading(&path)?;
        let values = match step.key.values() {
            Ok(values) => values,
            Err(error) => {
                lost(error, &mut losses)?;
                continue;
            }
        };
        for value in values {
            let read = value.and_then(|value| {
                room = room.checked_sub(RECORD + value.length()).ok_or_else(too_much)?;
                read(&value)
            });
            match read {
                Ok(Some((name, data))) => text.value(&name, &data)?,
                Ok(None) => {}
                Err(error) => lost(error, &mut losses)?,
            }
        }
    }
    losses.extend(walk.into_losses());
    text.end_line()?;
    Ok(losses)
}

/// The name of a key, unless what follows its line break would be read as something else.
fn on_one_line(name: Name) -> Result<Name> {
    match name.units().iter().any(|&unit| matches!(unit, 10 | 13)) {
        true => {
            let shown = name.to_string();
            let context = format!("a key whose name has a line break: {}", shown.escape_debug());
            Err(Error::new(ErrorKind::Unsupported, context))
        }
        false => Ok(name),
    }
}

fn too_much() -> Error {
    Error::new(ErrorKind::Malformed, "more data than the hive has room for: values share cells")
}

/// Data as they stand behind the `=`, on one line.
pub fn data_text(data: &Data) -> String {
    let mut nowhere = std::io::sink();
    let mut text = Text { output: &mut nowhere, encoding: Encoding::Utf8, columns: usize::MAX, units: Vec::new() };
    // Nothing is written: no line ends.
    let _ = text.data(data);
    String::from_utf16_lossy(&text.units)
}

/// Name and data of a value; nothing for one that only hides another.
fn read(value: &Value) -> Result<Option<(Name, Data)>> {
    if value.is_tombstone() {
        return Ok(None);
    }
    Ok(Some((value.name()?, value.data()?)))
}

struct Text<'w> {
    output: &'w mut dyn Write,
    encoding: Encoding,
    /// Column after which a line of bytes is broken.
    columns: usize,
    /// The line that is being made.
    units: Vec<u16>,
}

impl Text<'_> {
    fn add(&mut self, text: &str) {
        self.units.extend(text.encode_utf16());
    }

    fn end_line(&mut self) -> Result<()> {
        let failed = |e| Error::io("write the text", e);
        match self.encoding {
            Encoding::Utf16 => {
                self.add("\r\n");
                let bytes: Vec<u8> = self.units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
                self.output.write_all(&bytes).map_err(failed)?;
            }
            Encoding::Utf8 => {
                self.add("\n");
                self.output.write_all(String::from_utf16_lossy(&self.units).as_bytes()).map_err(failed)?;
            }
        }
        self.units.clear();
        Ok(())
    }

    fn heading(&mut self, path: &[Name]) -> Result<()> {
        self.end_line()?;
        self.add("[");
        for (at, name) in path.iter().enumerate() {
            if at > 0 {
                self.add("\\");
            }
            self.units.extend_from_slice(name.units());
        }
        self.add("]");
        self.end_line()
    }

    fn quoted(&mut self, units: &[u16]) {
        self.add("\"");
        for &unit in units {
            if unit == u16::from(b'\\') || unit == u16::from(b'"') {
                self.add("\\");
            }
            self.units.push(unit);
        }
        self.add("\"");
    }

    fn value(&mut self, name: &Name, data: &Data) -> Result<()> {
        match name.is_empty() {
            true => self.add("@"),
            false => self.quoted(name.units()),
        }
        self.add("=");
        self.data(data)?;
        self.end_line()
    }

    fn data(&mut self, data: &Data) -> Result<()> {
        if let (ValueType::DWORD, Some(number)) = (data.kind, data.dword()) {
            self.add(&format!("dword:{number:08x}"));
        } else if let Some(text) = plain_text(data).filter(|text| self.carries(text)) {
            self.quoted(&text);
        } else {
            match data.kind {
                ValueType::BINARY => self.add("hex:"),
                ValueType(kind) => self.add(&format!("hex({kind:x}):")),
            }
            self.bytes(&data.bytes)?;
        }
        Ok(())
    }

    /// Whether the encoding has every unit of a text: UTF-8 has no halves of surrogate pairs.
    fn carries(&self, text: &[u16]) -> bool {
        self.encoding == Encoding::Utf16 || char::decode_utf16(text.iter().copied()).all(|found| found.is_ok())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        for (at, byte) in bytes.iter().enumerate() {
            self.add(&format!("{byte:02x}"));
            if at + 1 == bytes.len() {
                break;
            }
            self.add(",");
            if self.units.len() >= self.columns {
                self.add("\\");
                self.end_line()?;
                self.add("  ");
            }
        }
        Ok(())
    }
}

/// The text of a `REG_SZ` that quotes carry without loss: one zero, at its end, and no line break.
fn plain_text(data: &Data) -> Option<Vec<u16>> {
    if data.kind != ValueType::SZ || !data.bytes.len().is_multiple_of(2) {
        return None;
    }
    let mut text = units(&data.bytes);
    let is_terminated = text.pop() == Some(0);
    let is_plain = is_terminated && !text.iter().any(|&unit| matches!(unit, 0 | 10 | 13 | 0xfeff));
    is_plain.then_some(text)
}
