//! What operators say of machines: where one is to be found that has no agent yet, what it is called, in which group it is,
//! and what should be remembered of it.
//!
//! A machine that was added stands in the inventory without a report. When its agent comes, the two are one machine: an
//! operator joins them, or the controller does where there is no doubt ([`Resemblance`]).

mod address;
mod facts;
mod resemblance;

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

pub use address::MachineAddress;
pub use facts::changed_facts;
pub use resemblance::Resemblance;

/// Longest name of a machine or a group in bytes.
const NAME_BYTES_MAX: usize = 100;
/// Longest note in bytes.
pub const NOTE_BYTES_MAX: usize = 4096;
/// Machines that are added with one request.
pub const NEW_MACHINES_MAX: usize = 1000;

/// How a machine without an agent can be reached to get one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// By SSH.
    Ssh,
    /// By Windows Remote Management.
    Winrm,
    /// Nobody said.
    #[default]
    Unknown,
}

/// What operators said of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Particulars {
    /// What it is to be called.
    pub name: Option<String>,
    /// The group that it is in; a machine is in one at most.
    pub group: Option<String>,
    /// What should be remembered of it: plain text, lines.
    pub note: String,
    /// Where it is to be found; only of machines that were added.
    pub address: Option<MachineAddress>,
    /// How it can be reached there.
    pub reach: Reach,
}

/// A machine that is to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMachine {
    /// Its host name or IP address.
    #[schemars(length(min = 1, max = 253))]
    pub address: String,
    /// What it is to be called; its address where nothing is said.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub name: Option<String>,
    /// The group that it is in, which is made where there is none of this name.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub group: Option<String>,
    /// What should be remembered of it.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub note: Option<String>,
    /// How it can be reached.
    #[serde(default)]
    pub reach: Reach,
    /// Its SMBIOS UUID, where that is known: its agent is recognised by it.
    #[serde(default)]
    #[schemars(length(max = 36))]
    pub uuid: Option<String>,
}

/// A [`NewMachine`] of which each part is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedMachine {
    /// What is said of it; it has an address.
    pub particulars: Particulars,
    /// The same address.
    pub address: MachineAddress,
    /// Lower case, with hyphens.
    pub uuid: Option<String>,
}

/// What is to be different with a machine. What is not said stays; an empty text takes away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineChange {
    /// What it is to be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub name: Option<String>,
    /// The group that it is to be in, of those that there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub group: Option<String>,
    /// What should be remembered of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub note: Option<String>,
    /// How it can be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Reach>,
}

/// A part of a [`NewMachine`] that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Which part: the name of the field.
    pub part: &'static str,
    /// What was expected and found.
    pub why: String,
}

impl NewMachine {
    /// What it says, if each part of it can be.
    ///
    /// # Errors
    /// The first part that cannot.
    pub fn check(&self) -> Result<AddedMachine, Misfit> {
        let misfit = |part: &'static str| move |why: String| Misfit { part, why };
        let said = |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
        let address: MachineAddress = self.address.parse().map_err(misfit("address"))?;
        let name = said(&self.name).map(|name| check_name(&name)).transpose().map_err(misfit("name"))?;
        let group = said(&self.group).map(|name| check_name(&name)).transpose().map_err(misfit("group"))?;
        let note = said(&self.note).unwrap_or_default();
        check_note(&note).map_err(misfit("note"))?;
        let uuid = said(&self.uuid).map(|uuid| parse_uuid(&uuid)).transpose().map_err(misfit("uuid"))?;
        let particulars = Particulars { name, group, note, address: Some(address.clone()), reach: self.reach };
        Ok(AddedMachine { particulars, address, uuid })
    }
}

impl MachineChange {
    /// The same, if each part of it can be.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with the first part that cannot.
    pub fn check(self) -> crate::Result<Self> {
        let wrong = |part: &str, why: String| Error::new(ErrorKind::Invalid, format!("{part}: {why}"));
        let name = |part: &'static str, text: Option<String>| match text.as_deref().map(str::trim) {
            Some("") => Ok(Some(String::new())),
            Some(text) => check_name(text).map(Some).map_err(|why| wrong(part, why)),
            None => Ok(None),
        };
        let note = self.note.map(|note| note.trim().to_owned());
        note.as_deref().map(check_note).transpose().map_err(|why| wrong("note", why))?;
        Ok(Self { name: name("name", self.name)?, group: name("group", self.group)?, note, reach: self.reach })
    }
}

/// A name of a machine or a group, without what stands around it.
///
/// # Errors
/// What was expected.
pub fn check_name(name: &str) -> Result<String, String> {
    let name = name.trim();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!("expected 1 to {NAME_BYTES_MAX} bytes in one line, found {}", shortened(name)));
    }
    Ok(name.to_owned())
}

fn check_note(note: &str) -> Result<(), String> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(format!("expected at most {NOTE_BYTES_MAX} bytes, found {}", note.len()));
    }
    match note.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        Some(found) => Err(format!("expected plain text, found the control character {found:?}")),
        None => Ok(()),
    }
}

/// A UUID with or without hyphens and braces.
fn parse_uuid(text: &str) -> Result<String, String> {
    let bare: String = text.trim_matches(['{', '}']).chars().filter(|c| *c != '-').collect();
    if bare.len() != 32 || !bare.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("expected a UUID of 32 hexadecimal digits, found {}", shortened(text)));
    }
    let bare = bare.to_ascii_lowercase();
    let parts = [&bare[..8], &bare[8..12], &bare[12..16], &bare[16..20], &bare[20..]];
    Ok(parts.join("-"))
}

/// What somebody typed, quoted for an error.
fn shortened(text: &str) -> String {
    let start: String = text.chars().take(40).collect();
    if start.len() < text.len() { format!("{start:?}…") } else { format!("{start:?}") }
}

impl Reach {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Winrm => "winrm",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Reach {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Ssh, Self::Winrm, Self::Unknown].into_iter().find(|one| one.as_str() == text);
        known.ok_or_else(|| format!("expected ssh, winrm or unknown, found {}", shortened(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(address: &str) -> NewMachine {
        NewMachine { address: address.into(), ..NewMachine::default() }
    }

    #[test]
    fn what_is_said_of_a_machine_is_tidied() {
        let said = NewMachine {
            name: Some(" web 1 ".into()),
            group: Some(String::new()),
            note: Some("\n rack 7\nask Ada\n".into()),
            reach: Reach::Ssh,
            uuid: Some("{4C4C4544-0042-3510-8052-B4C04F4E3132}".into()),
            ..new("Web1.Example.ORG")
        };
        let added = said.check().unwrap();
        assert_eq!(added.address.to_string(), "web1.example.org");
        assert_eq!(added.uuid.as_deref(), Some("4c4c4544-0042-3510-8052-b4c04f4e3132"));
        let Particulars { name, group, note, .. } = added.particulars;
        assert_eq!((name.as_deref(), group, note.as_str()), (Some("web 1"), None, "rack 7\nask Ada"));
    }

    #[test]
    fn what_cannot_be_is_told_with_its_part() {
        let long = "x".repeat(NOTE_BYTES_MAX + 1);
        for (part, said) in [
            ("address", new("web 1")),
            ("name", NewMachine { name: Some("a\u{1b}[2J".into()), ..new("web1") }),
            ("group", NewMachine { group: Some("x".repeat(101)), ..new("web1") }),
            ("note", NewMachine { note: Some(long), ..new("web1") }),
            ("note", NewMachine { note: Some("bell\u{7}".into()), ..new("web1") }),
            ("uuid", NewMachine { uuid: Some("4c4c4544".into()), ..new("web1") }),
        ] {
            let misfit = said.check().unwrap_err();
            println!("{}: {}", misfit.part, misfit.why);
            assert_eq!(misfit.part, part);
            assert!(!misfit.why.chars().any(char::is_control) && misfit.why.len() < 300, "{}", misfit.why);
        }
    }
}
