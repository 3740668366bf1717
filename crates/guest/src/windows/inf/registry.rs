//! "INF AddReg Directive", "INF DelReg Directive" and "INF BitReg Directive".

use serde::Serialize;

use super::{Entry, Section, Texts, parse_number, wrong};
use crate::Result;

/// `FLG_ADDREG_…` of Setupapi.h.
mod flag {
    pub(super) const BINARY: u32 = 0x1;
    pub(super) const NO_CLOBBER: u32 = 0x2;
    pub(super) const DELETE: u32 = 0x4;
    pub(super) const APPEND: u32 = 0x8;
    pub(super) const KEY_ONLY: u32 = 0x10;
    pub(super) const OVERWRITE_ONLY: u32 = 0x20;
    pub(super) const VIEW_64: u32 = 0x1000;
    pub(super) const KEY_ONLY_COMMON: u32 = 0x2000;
    pub(super) const VIEW_32: u32 = 0x4000;
    /// `FLG_DELREG_TYPE_MASK` and what else tells the type: the high word, with [`BINARY`].
    pub(super) const TYPE: u32 = 0xffff_0001;
    pub(super) const DWORD: u32 = 0x0001_0001;
    pub(super) const NONE: u32 = 0x0002_0001;
    pub(super) const MULTI_SZ: u32 = 0x0001_0000;
    pub(super) const EXPAND_SZ: u32 = 0x0002_0000;
    /// `FLG_DELREG_MULTI_SZ_DELSTRING`.
    pub(super) const DELETE_STRING: u32 = 0x0001_8002;
}

/// `REG_…` of Winnt.h.
mod kind {
    pub(super) const NONE: u32 = 0;
    pub(super) const BINARY: u32 = 3;
}

/// A change of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegistryChange {
    /// Where the key begins.
    pub root: Root,
    /// Path of the key below it, with `\`; empty for the root itself.
    pub key: String,
    /// What is done.
    pub change: Change,
    /// Which registry of a 64-bit Windows is meant.
    pub view: View,
}

/// Where a key begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// `HKCR`.
    Classes,
    /// `HKCU`.
    CurrentUser,
    /// `HKLM`.
    LocalMachine,
    /// `HKU`.
    Users,
    /// `HKR`: the key of what the directive stands for: a device, its driver, a service, an event log, an interface.
    Relative,
}

/// Which registry of a 64-bit Windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// That of the system.
    #[default]
    Native,
    /// The one of 32-bit programs.
    Bits32,
    /// The one of 64-bit programs.
    Bits64,
}

/// What is done with a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Makes the key.
    MakeKey,
    /// Sets a value.
    Set {
        /// Its name; empty for the unnamed one.
        name: String,
        /// What it is set to.
        data: Data,
        /// Not where it is there already.
        unless_present: bool,
        /// Only where it is there already.
        if_present: bool,
    },
    /// Adds strings to a `REG_MULTI_SZ` that it has not.
    Append {
        /// The value's name.
        name: String,
        /// Strings.
        strings: Vec<String>,
    },
    /// Removes the key with all below it.
    RemoveKey,
    /// Removes a value.
    RemoveValue {
        /// Its name.
        name: String,
    },
    /// Removes strings from a `REG_MULTI_SZ`.
    RemoveStrings {
        /// The value's name.
        name: String,
        /// Strings, in any case.
        strings: Vec<String>,
    },
    /// Sets or clears bits of a byte of a `REG_BINARY`, or of a `REG_DWORD`.
    Bits {
        /// The value's name.
        name: String,
        /// Whether the bits are set.
        set: bool,
        /// Which bits.
        mask: u32,
        /// Which byte; `None` for a `REG_DWORD`.
        byte: Option<u32>,
    },
}

/// Data of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// `REG_SZ`.
    Sz(String),
    /// `REG_EXPAND_SZ`.
    ExpandSz(String),
    /// `REG_MULTI_SZ`.
    MultiSz(Vec<String>),
    /// `REG_DWORD`.
    Dword(u32),
    /// Any other type, `REG_BINARY` (3) and `REG_NONE` (0) among them, by its number.
    Bytes(u32, Vec<u8>),
}

/// The changes of all `AddReg`, `DelReg` and `BitReg` of a section: what is removed goes first, as Windows does it.
pub(super) fn changes(section: &Section, texts: &mut Texts<'_>) -> Result<Vec<RegistryChange>> {
    let mut changes = Vec::new();
    for (directive, read) in [("DelReg", removal as Reader), ("AddReg", addition), ("BitReg", bits)] {
        for name in texts.names(section, directive)? {
            let Some(list) = texts.section(&name) else { continue };
            for entry in &list.entries {
                changes.push(read(entry, texts)?);
            }
        }
    }
    Ok(changes)
}

type Reader = fn(&Entry, &mut Texts<'_>) -> Result<RegistryChange>;

/// `reg-root,[subkey],[value-entry-name],[flags],[value][,[value]]…`
fn addition(entry: &Entry, texts: &mut Texts<'_>) -> Result<RegistryChange> {
    let flags = flags(entry, texts)?;
    let name = texts.value(entry, 2)?;
    let change = if flags & flag::DELETE != 0 && flags & flag::TYPE == 0 {
        if name.is_empty() { Change::RemoveKey } else { Change::RemoveValue { name } }
    } else if flags & (flag::KEY_ONLY | flag::KEY_ONLY_COMMON) != 0 {
        Change::MakeKey
    } else if flags & flag::APPEND != 0 && flags & flag::TYPE == flag::MULTI_SZ {
        Change::Append { name, strings: strings(entry, texts)? }
    } else if entry.values.len() <= 2 {
        // Nothing but a key.
        Change::MakeKey
    } else {
        let data = data(entry, flags, texts)?;
        let (unless_present, if_present) = (flags & flag::NO_CLOBBER != 0, flags & flag::OVERWRITE_ONLY != 0);
        Change::Set { name, data, unless_present, if_present }
    };
    place(entry, change, flags, texts)
}

/// `reg-root,subkey[,value-entry-name][,flags][,value]`
fn removal(entry: &Entry, texts: &mut Texts<'_>) -> Result<RegistryChange> {
    let flags = flags(entry, texts)?;
    let name = texts.value(entry, 2)?;
    let change = if flags & flag::DELETE_STRING == flag::DELETE_STRING {
        Change::RemoveStrings { name, strings: strings(entry, texts)? }
    } else if name.is_empty() && (entry.values.len() <= 2 || flags & flag::KEY_ONLY_COMMON != 0) {
        Change::RemoveKey
    } else {
        Change::RemoveValue { name }
    };
    place(entry, change, flags, texts)
}

/// `reg-root,[subkey],value-entry-name,[flags],value-mask[,byte-to-modify]`: flag 1 sets, else the bits are cleared; flag
/// 2 is for a `REG_DWORD`.
fn bits(entry: &Entry, texts: &mut Texts<'_>) -> Result<RegistryChange> {
    let flags = flags(entry, texts)?;
    let mask = number(entry, 4, texts)?;
    let byte = if flags & 2 == 0 { Some(number(entry, 5, texts)?) } else { None };
    let change = Change::Bits { name: texts.value(entry, 2)?, set: flags & 1 != 0, mask, byte };
    place(entry, change, flags, texts)
}

fn place(entry: &Entry, change: Change, flags: u32, texts: &mut Texts<'_>) -> Result<RegistryChange> {
    let root = texts.value(entry, 0)?;
    let root = match root.to_ascii_uppercase().as_str() {
        "HKCR" => Root::Classes,
        "HKCU" => Root::CurrentUser,
        "HKLM" => Root::LocalMachine,
        "HKU" => Root::Users,
        "HKR" => Root::Relative,
        _ => return Err(wrong(entry, format!("expected a root of the registry, found {root:?}"))),
    };
    let view = match (flags & flag::VIEW_32 != 0, flags & flag::VIEW_64 != 0) {
        // Together they mark the removal of a string, and no registry.
        _ if flags & flag::DELETE_STRING == flag::DELETE_STRING => View::Native,
        (true, false) => View::Bits32,
        (false, true) => View::Bits64,
        _ => View::Native,
    };
    let key = texts.value(entry, 1)?.trim_matches('\\').to_owned();
    Ok(RegistryChange { root, key, change, view })
}

fn flags(entry: &Entry, texts: &mut Texts<'_>) -> Result<u32> {
    number(entry, 3, texts)
}

fn number(entry: &Entry, at: usize, texts: &mut Texts<'_>) -> Result<u32> {
    let text = texts.value(entry, at)?;
    parse_number(&text).ok_or_else(|| wrong(entry, format!("expected a number, found {text:?}")))
}

fn strings(entry: &Entry, texts: &mut Texts<'_>) -> Result<Vec<String>> {
    (4..entry.values.len()).map(|at| texts.value(entry, at)).collect()
}

fn data(entry: &Entry, flags: u32, texts: &mut Texts<'_>) -> Result<Data> {
    Ok(match flags & flag::TYPE {
        0 => Data::Sz(texts.value(entry, 4)?),
        flag::EXPAND_SZ => Data::ExpandSz(texts.value(entry, 4)?),
        flag::MULTI_SZ => Data::MultiSz(strings(entry, texts)?),
        // A number, or its four bytes.
        flag::DWORD if entry.values.len() <= 5 => Data::Dword(number(entry, 4, texts)?),
        flag::DWORD => {
            let bytes = bytes(entry, texts)?;
            let mut four = [0; 4];
            bytes.iter().take(4).enumerate().for_each(|(at, &byte)| four[at] = byte);
            Data::Dword(u32::from_le_bytes(four))
        }
        flag::NONE => Data::Bytes(kind::NONE, bytes(entry, texts)?),
        flag::BINARY => Data::Bytes(kind::BINARY, bytes(entry, texts)?),
        other => Data::Bytes(other >> 16, bytes(entry, texts)?),
    })
}

/// Bytes in hexadecimal, each a value of its own; nothing at the end is no byte.
fn bytes(entry: &Entry, texts: &mut Texts<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for at in 4..entry.values.len() {
        let text = texts.value(entry, at)?;
        if text.is_empty() && at + 1 == entry.values.len() {
            break;
        }
        let digits = text.trim_start_matches("0x");
        let byte = u8::from_str_radix(digits, 16);
        bytes.push(byte.map_err(|_| wrong(entry, format!("expected a byte in hexadecimal, found {text:?}")))?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::Inf;
    use super::*;

    fn read(directive: &str, line: &str) -> Result<RegistryChange> {
        let text = format!("[i]\n{directive}=list\n[list]\n{line}\n[Strings]\nREG_DWORD = 0x00010001\n");
        let inf = Inf::parse(text.as_bytes()).unwrap();
        Ok(changes(inf.section("i").unwrap(), &mut inf.texts())?.remove(0))
    }

    fn set(line: &str) -> (String, String, Data) {
        match read("AddReg", line).unwrap() {
            RegistryChange { key, change: Change::Set { name, data, .. }, .. } => (key, name, data),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn each_type_of_value_is_read() {
        let of = |line: &str| set(line).2;
        let key_and_name = set("HKR, \"Parameters\\PnpInterface\", \"5\", %REG_DWORD%, 0x00000001");
        assert_eq!(key_and_name, ("Parameters\\PnpInterface".into(), "5".into(), Data::Dword(1)));
        assert_eq!(of("HKR,,x,,\"%%SystemRoot%%\\x\""), Data::Sz("%SystemRoot%\\x".into()));
        assert_eq!(of("HKR,,x,0x00020000,a"), Data::ExpandSz("a".into()));
        assert_eq!(of("HKR,,x,0x00010000,a,,b"), Data::MultiSz(vec!["a".into(), String::new(), "b".into()]));
        assert_eq!(of("HKR,,x,0x00010001,2048"), Data::Dword(2048));
        assert_eq!(of("HKR,,x,0x00010001,78,56,34,12"), Data::Dword(0x1234_5678));
        assert_eq!(of("HKR,Child0000,ResourceMap,1,02"), Data::Bytes(3, vec![2]));
        assert_eq!(of("HKR,,x,0x00020001"), Data::Bytes(0, vec![]));
        // The documentation's own example of another type.
        let bytes = vec![1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        assert_eq!(of("HKR,,MYValue,0x00380001,1,0,2,3,4,5,6,7,8,9,A,B,C,D,E,F"), Data::Bytes(0x38, bytes));
        assert_eq!(of("HKR,,Icon,,-20"), Data::Sz("-20".into()));
    }

    #[test]
    fn flags_say_when_and_where() {
        let change = |line: &str| read("AddReg", line).unwrap();
        let unless = change("HKLM,a,x,0x00010003,1").change;
        assert!(matches!(unless, Change::Set { unless_present: true, if_present: false, .. }));
        assert!(matches!(change("HKLM,a,x,0x20,1").change, Change::Set { if_present: true, .. }));
        assert_eq!(change("HKR, \"Interrupt Management\",, 0x00000010").change, Change::MakeKey);
        assert_eq!(change("HKR, a").change, Change::MakeKey);
        assert_eq!(change("HKR, a, b, 4").change, Change::RemoveValue { name: "b".into() });
        assert_eq!(change("HKR, a, , 4").change, Change::RemoveKey);
        let append = Change::Append { name: "List".into(), strings: vec!["x y".into()] };
        assert_eq!(change("HKLM, a, List, 0x00010008, \"x y\"").change, append);
        assert_eq!((change("HKCR,a,x,0x4000,1").view, change("HKU,a,x,0x1000,1").view), (View::Bits32, View::Bits64));
    }

    #[test]
    fn keys_values_and_strings_are_removed_and_bits_changed() {
        let change = |line: &str| read("DelReg", line).unwrap();
        assert_eq!(change("HKR,,LowerFilters").change, Change::RemoveValue { name: "LowerFilters".into() });
        assert_eq!((change("HKLM,a\\b").key, change("HKLM,a\\b").change), ("a\\b".into(), Change::RemoveKey));
        let strings = RegistryChange {
            root: Root::LocalMachine,
            key: "a".into(),
            change: Change::RemoveStrings { name: "List".into(), strings: vec!["x".into()] },
            view: View::Native,
        };
        assert_eq!(change("HKLM,a,List,0x00018002,x"), strings);
        let bits = read("BitReg", "HKR,,b,1,0x20,3").unwrap().change;
        assert_eq!(bits, Change::Bits { name: "b".into(), set: true, mask: 0x20, byte: Some(3) });
    }

    #[test]
    fn what_has_no_meaning_is_an_error_with_its_line() {
        let error = |line: &str| read("AddReg", line).unwrap_err().to_string();
        assert_eq!(error("HKEY,a,b"), "line 4: expected a root of the registry, found \"HKEY\"");
        assert_eq!(error("HKR,,x,%NOBODY%,1"), "line 4: expected a number, found \"%NOBODY%\"");
        assert_eq!(error("HKR,,x,1,zz"), "line 4: expected a byte in hexadecimal, found \"zz\"");
    }
}
