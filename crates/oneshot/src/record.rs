//! The record: what a push changes, written down before it is changed, and how the boot path was (the *snapshot*).
//!
//! It lies in the agent's folder on the machine, and goes with the boot image as `/vconverter.record.json`. Whoever undoes it works as root:
//! names of variables and paths that no push would make are refused when it is read.

use std::collections::{BTreeMap, BTreeSet};

use machine::push::Way;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result, efi};

/// What this program writes. Another number is refused.
const VERSION: u32 = 1;
/// Largest record in bytes.
pub(crate) const RECORD_BYTES_MAX: u64 = 2 << 20;
/// Most changes of a push.
const CHANGES_MAX: usize = 64;
/// Most variables, and most files, of a snapshot.
pub(crate) const SNAPSHOT_ENTRIES_MAX: usize = 4096;
/// Longest path, name or other text in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Most bytes that a change remembers.
pub(crate) const BEFORE_BYTES_MAX: usize = 64 << 10;
/// Most folders of a path.
const DEPTH_MAX: usize = 16;

/// What a push changes on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of this format.
    pub version: u32,
    /// Which task it is for.
    pub task: String,
    /// Which way was chosen.
    pub way: Way,
    /// Seconds after which a hang is ended, where it is to be.
    pub watchdog_seconds: Option<u32>,
    /// Whether the one-shot was armed, or was about to be.
    pub armed: bool,
    /// What is changed, in the order in which it is; undone in the other.
    pub changes: Vec<Change>,
    /// How the boot path was.
    pub snapshot: Snapshot,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// A file of our own is made where none was.
    File {
        /// Where it lies.
        filesystem: Filesystem,
        /// Path within that filesystem, without a slash in front.
        path: String,
        /// Whether it holds a secret: it is written over before it is removed.
        secret: bool,
    },
    /// A folder is made.
    Folder {
        /// Where it lies.
        filesystem: Filesystem,
        /// Path within that filesystem, without a slash in front.
        path: String,
    },
    /// Lines are appended to a text file that is not ours, or it is made of them.
    Lines {
        /// Where it lies.
        filesystem: Filesystem,
        /// Path within that filesystem, without a slash in front.
        path: String,
        /// What was there, in hexadecimal digits; `None` for a file that was not.
        before: Option<String>,
        /// The lines.
        lines: String,
    },
    /// A value in GRUB's environment block.
    Environment {
        /// Where it lies.
        filesystem: Filesystem,
        /// Path within that filesystem, without a slash in front.
        path: String,
        /// The whole block, in hexadecimal digits.
        before: String,
        /// Our value of `next_entry`.
        entry: String,
    },
    /// A variable of the firmware gets another value, or is made.
    Variable {
        /// `BootNext-8be4df61-…`, as efivarfs names its file.
        name: String,
        /// What was there, with its four bytes of attributes, in hexadecimal digits; `None` for one that was not.
        before: Option<String>,
        /// What it becomes, likewise. Of `BootOrder` it is our entry's number alone, which firmware may put into it.
        after: Option<String>,
    },
}

/// A filesystem of the machine, by what the boot image can find it by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    /// As the kernel names it: `vfat`, `ext4`, `xfs`.
    pub kind: String,
    /// UUID of the filesystem, as blkid prints it.
    pub uuid: String,
    /// UUID of the partition (`PARTUUID`), where it is in one.
    pub partition_uuid: Option<String>,
    /// Size of the block device in bytes.
    pub bytes: u64,
}

/// How the boot path was before the push; what nobody but us would have changed since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Non-volatile variables of the boot path: a digest of each, attributes included.
    pub variables: BTreeMap<String, String>,
    /// Files of the boot path.
    pub folders: Vec<FolderSnapshot>,
}

/// The files below a folder, or one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderSnapshot {
    /// Where it lies.
    pub filesystem: Filesystem,
    /// Path within that filesystem, without a slash in front.
    pub path: String,
    /// Path of each file below it, with a digest; the file's own is empty.
    pub files: BTreeMap<String, String>,
}

impl Record {
    /// A record that has nothing in it yet.
    pub(crate) fn new(task: &str, way: Way, watchdog_seconds: Option<u32>) -> Self {
        let (changes, snapshot) = (Vec::new(), Snapshot::default());
        Self { version: VERSION, task: task.to_owned(), way, watchdog_seconds, armed: false, changes, snapshot }
    }

    /// Every filesystem that is touched, or compared.
    pub fn filesystems(&self) -> BTreeSet<&Filesystem> {
        let changed = self.changes.iter().filter_map(Change::filesystem);
        changed.chain(self.snapshot.folders.iter().map(|folder| &folder.filesystem)).collect()
    }

    /// As it is kept.
    ///
    /// # Errors
    /// It is one that [`parse_record`] would refuse.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let bytes = serde_json::to_vec(self).map_err(|e| malformed(e.to_string()))?;
        parse_record(&bytes)?;
        Ok(bytes)
    }
}

impl Change {
    /// Where it is, if it is in a filesystem.
    pub fn filesystem(&self) -> Option<&Filesystem> {
        self.place().map(|(filesystem, _)| filesystem)
    }

    fn place(&self) -> Option<(&Filesystem, &str)> {
        match self {
            Self::File { filesystem, path, .. }
            | Self::Folder { filesystem, path }
            | Self::Lines { filesystem, path, .. }
            | Self::Environment { filesystem, path, .. } => Some((filesystem, path)),
            Self::Variable { .. } => None,
        }
    }
}

/// Reads a record.
///
/// # Errors
/// It is no record, or has something in it that no push makes.
pub fn parse_record(bytes: &[u8]) -> Result<Record> {
    if bytes.len() as u64 > RECORD_BYTES_MAX {
        return Err(malformed(format!("expected at most {RECORD_BYTES_MAX} bytes, found {}", bytes.len())));
    }
    let record: Record = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
    if record.version != VERSION {
        return Err(malformed(format!("version: expected {VERSION}, found {}", record.version)));
    }
    check_count("changes", record.changes.len(), CHANGES_MAX)?;
    check_text("task", &record.task)?;
    record.changes.iter().try_for_each(check_change)?;
    check_snapshot(&record.snapshot)?;
    Ok(record)
}

fn check_change(change: &Change) -> Result<()> {
    if let Some((filesystem, path)) = change.place() {
        check_filesystem(filesystem)?;
        check_path(path)?;
    }
    match change {
        Change::File { .. } | Change::Folder { .. } => Ok(()),
        Change::Lines { before, lines, .. } => {
            check_count("bytes of lines", lines.len(), BEFORE_BYTES_MAX)?;
            before.as_deref().map_or(Ok(()), |before| from_hex(before).map(drop))
        }
        Change::Environment { before, entry, .. } => {
            check_text("entry", entry)?;
            let block = from_hex(before)?;
            crate::environment_block::parse(&block).map(drop)
        }
        Change::Variable { name, before, after } => {
            check_variable(name)?;
            [before, after].into_iter().flatten().try_for_each(|value| from_hex(value).map(drop))
        }
    }
}

fn check_snapshot(snapshot: &Snapshot) -> Result<()> {
    check_count("variables", snapshot.variables.len(), SNAPSHOT_ENTRIES_MAX)?;
    check_count("folders", snapshot.folders.len(), CHANGES_MAX)?;
    for (name, digest) in &snapshot.variables {
        check_variable(name)?;
        check_text("digest", digest)?;
    }
    for folder in &snapshot.folders {
        check_filesystem(&folder.filesystem)?;
        check_path(&folder.path)?;
        check_count("files", folder.files.len(), SNAPSHOT_ENTRIES_MAX)?;
        for (path, digest) in &folder.files {
            check_text("path", path)?;
            check_text("digest", digest)?;
        }
    }
    Ok(())
}

fn check_filesystem(filesystem: &Filesystem) -> Result<()> {
    if !["vfat", "ext2", "ext3", "ext4", "xfs"].contains(&filesystem.kind.as_str()) {
        return Err(malformed(format!(
            "filesystem: expected vfat, ext2, ext3, ext4 or xfs, found {:?}",
            filesystem.kind
        )));
    }
    let uuids = [Some(&filesystem.uuid), filesystem.partition_uuid.as_ref()];
    for uuid in uuids.into_iter().flatten() {
        let is_uuid = (1..=64).contains(&uuid.len()) && uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if !is_uuid {
            return Err(malformed(format!("uuid: expected hexadecimal digits and dashes, found {uuid:?}")));
        }
    }
    Ok(())
}

/// A path that stays within its filesystem.
pub(crate) fn check_path(path: &str) -> Result<()> {
    check_text("path", path)?;
    let depth = path.split('/').count();
    let is_plain = path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'));
    if is_plain && depth <= DEPTH_MAX {
        return Ok(());
    }
    Err(malformed(format!("path: expected one without a slash in front, `.` or `..`, found {path:?}")))
}

fn check_variable(name: &str) -> Result<()> {
    if efi::is_of_boot_path(name) {
        return Ok(());
    }
    Err(malformed(format!("variable: expected one of the boot path, found {name:?}")))
}

fn check_text(what: &str, text: &str) -> Result<()> {
    check_count(what, text.len(), TEXT_BYTES_MAX)
}

fn check_count(what: &str, found: usize, most: usize) -> Result<()> {
    if found <= most { Ok(()) } else { Err(malformed(format!("{what}: expected at most {most}, found {found}"))) }
}

fn malformed(what: String) -> Error {
    Error::new(ErrorKind::Malformed, format!("record: {what}"))
}

/// Bytes as hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Result<Vec<u8>> {
    check_count("hexadecimal digits", text.len(), 2 * BEFORE_BYTES_MAX)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?));
    pairs.collect::<Option<_>>().ok_or_else(|| malformed("expected pairs of hexadecimal digits".to_owned()))
}

/// A digest of a value or a file.
pub(crate) fn digest(bytes: &[u8]) -> String {
    to_hex(&blake3::hash(bytes).as_bytes()[..16])
}

/// For the fuzzer: what is read is written and read again.
pub fn fuzz_record(bytes: &[u8]) {
    if let Ok(record) = parse_record(bytes) {
        let again = record.to_bytes().and_then(|bytes| parse_record(&bytes));
        assert!(again.is_ok_and(|again| again == record));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        let filesystem = Filesystem {
            kind: "vfat".into(),
            uuid: "1A2B-3C4D".into(),
            partition_uuid: Some("c12a7328-f81f-11d2-ba4b-00a0c93ec93b".into()),
            bytes: 1 << 29,
        };
        let mut record = Record::new("7", Way::BootNext, Some(600));
        let file = |path: &str| Change::File { filesystem: filesystem.clone(), path: path.into(), secret: true };
        record.changes = vec![
            file("EFI/vconverter/record.img"),
            Change::Lines {
                filesystem: filesystem.clone(),
                path: "a".into(),
                before: Some("0a".into()),
                lines: "x\n".into(),
            },
            Change::Variable { name: efi::global("BootNext"), before: None, after: Some("070000000500".into()) },
        ];
        let files = [("debian/grub.cfg".to_owned(), "1:ab".to_owned())].into();
        record.snapshot.folders.push(FolderSnapshot { filesystem, path: "EFI".into(), files });
        record
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = record();
        let bytes = record.to_bytes().unwrap();
        println!("{}", String::from_utf8_lossy(&bytes));
        assert_eq!(parse_record(&bytes).unwrap(), record);
        assert_eq!(record.filesystems().len(), 1);
    }

    #[test]
    fn what_no_push_makes_is_refused() {
        let text = String::from_utf8(record().to_bytes().unwrap()).unwrap();
        for (from, to) in [
            ("EFI/vconverter/record.img", "EFI/../../etc/passwd"),
            ("EFI/vconverter/record.img", "/etc/passwd"),
            ("EFI/vconverter/record.img", "EFI//x"),
            ("BootNext-", "db-"),
            ("\"vfat\"", "\"btrfs\""),
            ("1A2B-3C4D", "../sda"),
            ("\"0a\"", "\"0\""),
            ("\"0a\"", "\"é\""),
            ("\"version\":1", "\"version\":2"),
            ("\"armed\"", "\"unknown\":1,\"armed\""),
        ] {
            let wrong = text.replace(from, to);
            assert_ne!(wrong, text, "{from}");
            println!("{}", parse_record(wrong.as_bytes()).unwrap_err().chain());
        }
    }

    proptest! {
        #[test]
        fn bytes_that_were_damaged_parse_without_panic(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            random: Vec<u8>,
        ) {
            let mut bytes = record().to_bytes().unwrap();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            fuzz_record(&bytes);
            fuzz_record(&random);
        }
    }
}
