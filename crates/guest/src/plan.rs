//! A plan of changes: a value that is shown, stored, compared and refused in parts before anything is done; and its
//! application, which does what was shown or nothing.

mod apply;
mod change;
mod diff;
mod patch;
mod registry;
mod room;

pub use apply::apply;
pub use change::Change;
pub use patch::RawPatch;
pub use registry::{Direction, RegistryChange, registration};
pub use room::Usage;
pub(crate) use room::{HiveLimit, Optional, fit};

use std::fmt;

use machine::{Capabilities, DiskBus, Family, FirmwareKind, Guest, HypervInterfaces, NicModel};
use serde::{Deserialize, Serialize};

/// BLAKE3 of a file's contents; prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<Self, String> {
        let hash = blake3::Hash::from_hex(&text).map_err(|e| format!("digest: {e}"))?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// What will be done to a guest, and what it can work with afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The guest that the plan is for.
    pub guest: Guest,
    /// The fix-ups, in the order in which they are applied. Those that are already so are listed too.
    pub fixups: Vec<Fixup>,
    /// What the guest works with once all of them are applied.
    pub capabilities: Capabilities,
    /// What the operator should know and no fix-up can change.
    pub warnings: Vec<String>,
    /// What the fix-ups take of each filesystem of which that is known.
    #[serde(default)]
    pub room: Vec<Usage>,
}

impl Plan {
    /// The plan for a guest of a family that has no fix-ups here.
    ///
    /// Without anything that tells its firmware, a BIOS starts it: a disk that only UEFI can start has an EFI system
    /// partition, which does tell.
    pub fn without_fixups(firmware: FirmwareKind, family: Family) -> Self {
        let firmware = if firmware == FirmwareKind::Unknown { FirmwareKind::Bios } else { firmware };
        let named = match family {
            Family::Linux => "Linux",
            Family::Windows => "Windows",
            Family::Unknown => "an unknown operating system",
        };
        Self {
            guest: Guest { family, ..Guest::default() },
            fixups: Vec::new(),
            capabilities: Capabilities {
                disk_bus: DiskBus::Sata,
                nic_model: NicModel::E1000e,
                firmware,
                clock_utc: family != Family::Windows,
                secure_boot: None,
                tpm: false,
                hyperv: HypervInterfaces::None,
            },
            warnings: vec![format!("the disks hold {named}: no fix-ups are known for it, it is converted as it is")],
            room: Vec::new(),
        }
    }

    /// Whether nothing is left to be done.
    pub fn already_so(&self) -> bool {
        self.fixups.iter().all(|fixup| fixup.already_so)
    }
}

impl fmt::Display for Plan {
    /// One paragraph a fix-up, with its changes and their text differences; for an operator's screen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fixup in &self.fixups {
            writeln!(f, "{fixup}")?;
        }
        self.room.iter().try_for_each(|usage| writeln!(f, "room in {usage}"))?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

/// One change that serves one purpose; refused or applied as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fixup {
    /// Stable name by which it is refused: `boot-drivers`.
    pub id: String,
    /// What is done, in a few words.
    pub title: String,
    /// Why.
    pub reason: String,
    /// Whether the guest already is as this fix-up would make it.
    pub already_so: bool,
    /// Whether it is left out because the guest has no room for it.
    #[serde(default)]
    pub no_room: bool,
    /// What changes; empty if it is already so.
    pub changes: Vec<Change>,
}

impl Fixup {
    /// A fix-up that is already so exactly if it changes nothing.
    pub(crate) fn new(id: &str, title: impl Into<String>, reason: impl Into<String>, changes: Vec<Change>) -> Self {
        let already_so = changes.is_empty();
        Self { id: id.to_owned(), title: title.into(), reason: reason.into(), already_so, no_room: false, changes }
    }
}

impl fmt::Display for Fixup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.already_so, self.no_room) {
            (true, _) => " (already so)",
            (false, true) => " (left out, no room)",
            (false, false) => "",
        };
        write!(f, "{}: {}{state}\n  why: {}", self.id, self.title, self.reason)?;
        for change in &self.changes {
            write!(f, "\n  {}", change.summary())?;
            match change {
                Change::Write { diff, .. } => {
                    diff.lines().try_for_each(|line| write!(f, "\n    {}", line.escape_debug()))?;
                }
                Change::Registry { changes, .. } => registry::write_changes(f, changes)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// What became of one fix-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`Fixup::id`].
    pub id: String,
    /// [`Fixup::title`].
    pub title: String,
    /// What happened.
    pub state: State,
    /// Why it failed, or was left out by the plan; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What happened to a fix-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was applied.
    Done,
    /// Nothing was left to be done.
    AlreadySo,
    /// The operator refused it, or the plan leaves it out.
    Refused,
    /// It failed; those after it were not tried, and the guest's disk must be thrown away.
    Failed,
    /// As [`State::Failed`], because the guest's filesystem is full. A plan in which it is refused can be made.
    NoRoom,
}
