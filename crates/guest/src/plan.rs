//! A plan of changes: a value that is shown, stored, compared and refused in parts before anything is done; and its
//! application, which does what was shown or nothing.

mod diff;
mod patch;

pub use patch::RawPatch;

use std::fmt;
use std::sync::Arc;

use machine::{Capabilities, DiskBus, Family, FirmwareKind, Guest, NicModel};
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, FileTree, Result, WritableTree};

/// Longest file that a change replaces as a whole, in bytes. EFI loaders are the longest of them.
const REPLACED_MAX: u64 = 64 << 20;

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
            },
            warnings: vec![format!("the disks hold {named}: no fix-ups are known for it, it is converted as it is")],
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
    /// What changes; empty if it is already so.
    pub changes: Vec<Change>,
}

impl Fixup {
    /// A fix-up that is already so exactly if it changes nothing.
    pub(crate) fn new(id: &str, title: impl Into<String>, reason: impl Into<String>, changes: Vec<Change>) -> Self {
        let already_so = changes.is_empty();
        Self { id: id.to_owned(), title: title.into(), reason: reason.into(), already_so, changes }
    }
}

impl fmt::Display for Fixup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.already_so { " (already so)" } else { "" };
        write!(f, "{}: {}{state}\n  why: {}", self.id, self.title, self.reason)?;
        for change in &self.changes {
            write!(f, "\n  {}", change.summary())?;
            if let Change::Write { diff, .. } = change {
                diff.lines().try_for_each(|line| write!(f, "\n    {}", line.escape_debug()))?;
            }
        }
        Ok(())
    }
}

/// One change of one file.
///
/// New contents are not part of the printed or stored form (an initramfs has megabytes): a plan that was read back can
/// be shown and compared, and is made again from the same disk to be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Change {
    /// A file is made, or replaced as a whole.
    Write {
        /// The file.
        path: String,
        /// Contents that it has now; `None` if it does not exist.
        before: Option<Digest>,
        /// Contents that it will have.
        after: Digest,
        /// Permission bits, if it is made; an existing file keeps its own.
        mode: u32,
        /// Lines that differ, `-` before those of now, `+` before the new ones; empty for other than text.
        diff: String,
        #[allow(missing_docs)]
        #[serde(skip)]
        contents: Option<Arc<[u8]>>,
    },
    /// Bytes are added at the end of a file.
    Append {
        /// The file.
        path: String,
        /// Bytes that it has now.
        size: u64,
        /// Bytes that are added.
        added: u64,
        /// Of the added bytes.
        digest: Digest,
        /// Names of the files that the added archive brings.
        brings: Vec<String>,
        #[allow(missing_docs)]
        #[serde(skip)]
        contents: Option<Arc<[u8]>>,
    },
    /// A file or link is removed.
    Remove {
        /// The file.
        path: String,
    },
    /// A symbolic link is put in place.
    Link {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
    },
}

impl Change {
    /// A file with new contents; `None` if it has them already.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if the present file is too long to be compared.
    pub(crate) fn write(tree: &dyn FileTree, path: &str, contents: &[u8], mode: u32) -> Result<Option<Self>> {
        let before = tree.read(path, REPLACED_MAX)?;
        if before.as_deref() == Some(contents) {
            return Ok(None);
        }
        Ok(Some(Self::Write {
            path: path.to_owned(),
            before: before.as_deref().map(Digest::of),
            after: Digest::of(contents),
            mode,
            diff: diff::lines(before.as_deref().unwrap_or_default(), contents),
            contents: Some(contents.into()),
        }))
    }

    /// Bytes added to a file that is `size` bytes long now.
    pub(crate) fn append(path: &str, size: u64, contents: Vec<u8>, brings: Vec<String>) -> Self {
        Self::Append {
            path: path.to_owned(),
            size,
            added: contents.len() as u64,
            digest: Digest::of(&contents),
            brings,
            contents: Some(contents.into()),
        }
    }

    /// The file that is changed.
    pub fn path(&self) -> &str {
        match self {
            Self::Write { path, .. } | Self::Append { path, .. } | Self::Remove { path } | Self::Link { path, .. } => {
                path
            }
        }
    }

    /// The change in one line.
    pub fn summary(&self) -> String {
        match self {
            Self::Write { path, before: None, .. } => format!("make {}", path.escape_debug()),
            Self::Write { path, .. } => format!("change {}", path.escape_debug()),
            Self::Append { path, added, brings, .. } => {
                format!("append {added} bytes to {}: {}", path.escape_debug(), brings.join(" ").escape_debug())
            }
            Self::Remove { path } => format!("remove {}", path.escape_debug()),
            Self::Link { path, target } => format!("link {} to {}", path.escape_debug(), target.escape_debug()),
        }
    }

    /// Does it; says whether anything was left to be done.
    fn apply(&self, tree: &mut dyn WritableTree) -> Result<bool> {
        let no_contents =
            || Error::new(ErrorKind::Changed, "the plan was read back: it must be made again to be applied");
        let changed =
            |path: &str| Error::new(ErrorKind::Changed, "the file is not what the plan was made for").at(path);
        match self {
            Self::Write { path, before, after, mode, contents, .. } => {
                let now = tree.read(path, REPLACED_MAX)?.as_deref().map(Digest::of);
                if now == Some(*after) {
                    return Ok(false);
                }
                if now != *before {
                    return Err(changed(path));
                }
                let contents = contents.as_deref().ok_or_else(no_contents)?;
                tree.replace(path, contents, *mode).map(|()| true)
            }
            Self::Append { path, size, added, digest, contents, .. } => {
                let now = tree.metadata(path)?.ok_or_else(|| changed(path))?.size;
                if now == size + added && Digest::of(&tail(tree, path, *size, *added)?) == *digest {
                    return Ok(false);
                }
                let contents = contents.as_deref().ok_or_else(no_contents)?;
                tree.append(path, *size, contents)?;
                // Read again: what the guest's kernel will read is what counts.
                if Digest::of(&tail(tree, path, *size, *added)?) != *digest {
                    return Err(Error::new(ErrorKind::Io, "the appended bytes read back differently").at(path));
                }
                Ok(true)
            }
            Self::Remove { path } => {
                if tree.metadata(path)?.is_none() && tree.read_link(path)?.is_none() {
                    return Ok(false);
                }
                tree.remove(path).map(|()| true)
            }
            Self::Link { path, target } => {
                if tree.read_link(path)?.as_deref() == Some(target) {
                    return Ok(false);
                }
                tree.symlink(path, target).map(|()| true)
            }
        }
    }
}

fn tail(tree: &dyn FileTree, path: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
    if length > REPLACED_MAX {
        return Err(Error::new(ErrorKind::TooLarge, format!("more than {REPLACED_MAX} bytes to append")).at(path));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = tree.read_at(path, offset, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
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
    /// Why it failed; empty otherwise.
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
    /// The operator refused it.
    Refused,
    /// It failed; those after it were not tried, and the guest's disk must be thrown away.
    Failed,
    /// As [`State::Failed`], because the guest's filesystem is full. A plan in which it is refused can be made.
    NoRoom,
}

/// Applies a plan, except for the fix-ups whose ids are in `refused`; ends at the first that fails.
pub fn apply(plan: &Plan, refused: &[String], tree: &mut dyn WritableTree) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for fixup in &plan.fixups {
        let outcome = |state, detail| Outcome { id: fixup.id.clone(), title: fixup.title.clone(), state, detail };
        if refused.contains(&fixup.id) {
            outcomes.push(outcome(State::Refused, String::new()));
            continue;
        }
        let mut done = false;
        let result = fixup.changes.iter().try_for_each(|change| change.apply(tree).map(|now| done |= now));
        match result {
            Ok(()) if done => outcomes.push(outcome(State::Done, String::new())),
            Ok(()) => outcomes.push(outcome(State::AlreadySo, String::new())),
            Err(error) => {
                let state = if error.is_no_room() { State::NoRoom } else { State::Failed };
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                outcomes.push(outcome(state, format!("{error}{cause}")));
                break;
            }
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryTree;

    fn plan(fixups: Vec<Fixup>) -> Plan {
        Plan { fixups, ..Plan::without_fixups(FirmwareKind::Bios, Family::Linux) }
    }

    #[test]
    fn applying_twice_changes_nothing_the_second_time() {
        let mut tree = MemoryTree::new().with("/etc/a", "one\n").with("/boot/i", "1234").with("/boot/device.map", "x");
        let changes = vec![
            Change::write(&tree, "/etc/a", b"two\n", 0o644).unwrap().unwrap(),
            Change::append("/boot/i", 4, b"5678".to_vec(), vec![]),
            Change::Remove { path: "/boot/device.map".into() },
            Change::Link { path: "/etc/systemd/system/mcelog.service".into(), target: "/dev/null".into() },
        ];
        let plan = plan(vec![Fixup::new("x", "t", "r", changes)]);
        assert_eq!(apply(&plan, &[], &mut tree)[0].state, State::Done);
        let after = tree.clone();
        assert_eq!(apply(&plan, &[], &mut tree)[0].state, State::AlreadySo);
        assert_eq!(tree, after);
        assert_eq!(tree.text("/boot/i").unwrap().unwrap(), "12345678");
    }

    #[test]
    fn a_file_that_changed_since_the_plan_is_left_alone() {
        let mut tree = MemoryTree::new().with("/etc/a", "one\n");
        let change = Change::write(&tree, "/etc/a", b"two\n", 0o644).unwrap().unwrap();
        tree.replace("/etc/a", b"three\n", 0o644).unwrap();
        let outcomes = apply(&plan(vec![Fixup::new("x", "t", "r", vec![change])]), &[], &mut tree);
        assert_eq!(outcomes[0].state, State::Failed);
        assert_eq!(tree.text("/etc/a").unwrap().unwrap(), "three\n");
    }

    #[test]
    fn a_full_filesystem_is_told_from_other_failures_and_the_file_stays_as_it_was() {
        let mut tree = MemoryTree::new().with("/etc/a", "one\n").with("/boot/i", "1234").with_room(3);
        let append = Change::append("/boot/i", 4, b"5678".to_vec(), vec![]);
        let write = Change::write(&tree, "/etc/a", b"two\n", 0o644).unwrap().unwrap();
        let fixups = vec![Fixup::new("x", "t", "r", vec![append]), Fixup::new("y", "t", "r", vec![write])];
        let (before, plan) = (tree.clone(), plan(fixups));
        let outcomes = apply(&plan, &[], &mut tree);
        assert_eq!((outcomes.len(), outcomes[0].state), (1, State::NoRoom));
        assert!(outcomes[0].detail.contains("/boot/i"), "{}", outcomes[0].detail);
        assert_eq!(tree, before);
        let states: Vec<State> = apply(&plan, &["x".into()], &mut tree).iter().map(|outcome| outcome.state).collect();
        assert_eq!(states, [State::Refused, State::Done]);
    }

    #[test]
    fn a_stored_plan_is_the_same_plan_and_can_be_refused() {
        let mut tree = MemoryTree::new().with("/etc/a", "one\n");
        let change = Change::write(&tree, "/etc/a", b"two\n", 0o644).unwrap().unwrap();
        let made = plan(vec![Fixup::new("x", "t", "r", vec![change])]);
        let stored: Plan = serde_json::from_str(&serde_json::to_string(&made).unwrap()).unwrap();
        assert_eq!(stored.to_string(), made.to_string());
        assert!(made.to_string().contains("-one") && made.to_string().contains("+two"), "{made}");
        assert_eq!(apply(&made, &["x".into()], &mut tree)[0].state, State::Refused);
        assert_eq!(apply(&stored, &[], &mut tree)[0].state, State::Failed);
        assert_eq!(tree.text("/etc/a").unwrap().unwrap(), "one\n");
    }
}
