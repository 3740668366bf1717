//! Registration files (`.reg`): the text in which regedit exports and merges keys.
//!
//! Version 5 (`Windows Registry Editor Version 5.00`, UTF-16LE with a byte order mark) is written and read, `REGEDIT4`
//! (the code page of Windows 95, taken as 1252 here) is read. What is written is what regedit writes: the same headings,
//! escapes and line breaks; texts that its quotes cannot carry without loss (no terminator, a line break) are written as
//! `hex(1)`, which it reads as well.

mod merge;
mod parse;
mod write;

pub use merge::{Action, Merge, merge};
pub use parse::{TEXT_MAX, parse, parse_data};
pub use write::{Encoding, Export, data_text, export};

use super::hive::{Data, KeyPath, Name};

/// What one key's heading and the lines below it ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The line of the heading, from 1.
    pub line: usize,
    /// The key, from `HKEY_…` down.
    pub key: KeyPath,
    /// What to do with it.
    pub change: Change,
}

/// What to do with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `[-KEY]`: remove it with everything below it.
    Delete,
    /// `[KEY]`: make it where it is not there, then set (`Some`) or remove (`None`) these values.
    Set(Vec<(Name, Option<Data>)>),
}

/// The predefined keys' short names, which operators type.
const SHORT: [(&str, &str); 5] = [
    ("HKLM", "HKEY_LOCAL_MACHINE"),
    ("HKCU", "HKEY_CURRENT_USER"),
    ("HKU", "HKEY_USERS"),
    ("HKCR", "HKEY_CLASSES_ROOT"),
    ("HKCC", "HKEY_CURRENT_CONFIG"),
];

/// `path` from its predefined key's full name down.
pub fn full_path(path: impl Into<KeyPath>) -> KeyPath {
    let path = path.into();
    let Some((first, rest)) = path.names().split_first() else { return path };
    match SHORT.iter().find(|(short, _)| first.is(&Name::from(*short))) {
        Some((_, full)) => {
            let names: Vec<Name> = std::iter::once(Name::from(*full)).chain(rest.iter().cloned()).collect();
            KeyPath::from_names(names)
        }
        None => path,
    }
}

/// Where Windows has the hive with this file's name, if it is one of its own.
pub fn usual_prefix(file: &str) -> KeyPath {
    let name = file.to_ascii_uppercase();
    match name.as_str() {
        "NTUSER.DAT" | "NTUSER.MAN" => KeyPath::from("HKEY_CURRENT_USER"),
        "USRCLASS.DAT" => KeyPath::from("HKEY_CURRENT_USER\\Software\\Classes"),
        "DEFAULT" => KeyPath::from("HKEY_USERS\\.DEFAULT"),
        "BCD" => KeyPath::from("HKEY_LOCAL_MACHINE\\BCD00000000"),
        // Every other hive of Windows has its file's name, in capitals, below the machine's key.
        "SYSTEM" | "SOFTWARE" | "SAM" | "SECURITY" | "HARDWARE" | "COMPONENTS" | "DRIVERS" | "ELAM" => {
            KeyPath::from("HKEY_LOCAL_MACHINE").child(&name)
        }
        _ => KeyPath::from("HKEY_LOCAL_MACHINE").child(file),
    }
}
