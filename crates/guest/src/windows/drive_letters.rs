//! Drive letters and volume names, `HKLM\SYSTEM\MountedDevices`: which entries have to change where a partition has
//! another name by now.
//!
//! An entry is a value: named `\DosDevices\C:` or `\??\Volume{…}`; its data name what it stands for. A partition of an MBR
//! disk is the disk's signature (4 bytes) and the partition's offset (8 bytes); one of a GPT disk is `DMIO:ID:` and its
//! GUID, as is a volume of a dynamic disk; other devices are paths in UTF-16. Windows finds no letter for a partition
//! whose entry names another, and may then start without its system drive being the letter that its registry is full of.
//!
//! Source: the hives of the test data from XP to 10; the mount manager's documentation ("Supporting Mount Manager Requests
//! in a Storage Class Driver": unique ids of volumes).

use std::fmt;

use machine::ByteOffset;
use serde::{Deserialize, Serialize};

use super::hive::{Data, Hive, ValueType};
use super::{Guid, Partition, PartitionMove, RegistryEdit};
use crate::{Error, ErrorKind, Result};

/// The key of the SYSTEM hive.
const KEY: &str = "MountedDevices";

/// What the data of a partition of a GPT disk begin with.
const GPT: &[u8; 8] = b"DMIO:ID:";

/// Entries that are read. Hives with some thousand of them exist, where many USB sticks were seen.
pub const ENTRIES_MAX: usize = 65_536;

/// All entries of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DriveLetters {
    /// In the order of the hive.
    pub entries: Vec<MountedDevice>,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedDevice {
    /// `\DosDevices\C:` or `\??\Volume{…}`.
    pub name: String,
    /// What it stands for.
    #[serde(flatten)]
    pub target: Target,
    /// As it is stored.
    #[serde(skip)]
    pub data: Data,
}

/// What a letter or volume name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "target", rename_all = "snake_case")]
pub enum Target {
    /// A partition of an MBR disk.
    Mbr {
        /// Signature of the disk.
        signature: u32,
        /// First byte of the partition.
        offset: ByteOffset,
    },
    /// A partition of a GPT disk, or a volume of dynamic disks.
    Gpt {
        /// Its GUID.
        partition: Guid,
    },
    /// Another device, by its path.
    Device {
        /// The path.
        path: String,
    },
    /// Anything else.
    Unknown,
}

impl Target {
    fn parse(bytes: &[u8]) -> Self {
        if let Some(Ok(guid)) = bytes.strip_prefix(GPT).map(<[u8; 16]>::try_from) {
            return Self::Gpt { partition: Guid(guid) };
        }
        if let Ok([a, b, c, d, offset @ ..]) = <[u8; 12]>::try_from(bytes) {
            let signature = u32::from_le_bytes([a, b, c, d]);
            return Self::Mbr { signature, offset: ByteOffset(u64::from_le_bytes(offset)) };
        }
        let text = String::from_utf16(&super::hive::units(bytes)).ok().filter(|_| bytes.len().is_multiple_of(2));
        match text {
            Some(path) if path.starts_with(['\\', '_']) => Self::Device { path: path.trim_end_matches('\0').into() },
            _ => Self::Unknown,
        }
    }

    /// Whether it is `partition`.
    pub fn is(&self, partition: Partition) -> bool {
        match (self, partition) {
            (Self::Mbr { signature, offset }, Partition::Mbr { signature: s, offset: o }) => {
                (*signature, *offset) == (s, o)
            }
            (Self::Gpt { partition }, Partition::Gpt { partition: p, .. }) => *partition == p,
            _ => false,
        }
    }
}

/// The data of an entry for `partition`.
fn data_of(partition: Partition) -> Data {
    let mut bytes = Vec::with_capacity(24);
    match partition {
        Partition::Mbr { signature, offset } => {
            bytes.extend(signature.to_le_bytes());
            bytes.extend(offset.0.to_le_bytes());
        }
        Partition::Gpt { partition, .. } => {
            bytes.extend(GPT);
            bytes.extend(partition.0);
        }
    }
    Data::binary(bytes)
}

impl DriveLetters {
    /// Those in a SYSTEM hive; none where it has no such key.
    ///
    /// # Errors
    /// What reading the hive gives; `TooLarge` for more than [`ENTRIES_MAX`].
    pub fn read(hive: &Hive) -> Result<Self> {
        let Some(key) = hive.open(KEY)? else { return Ok(Self::default()) };
        if key.value_count() > ENTRIES_MAX {
            let context = format!("{KEY}: {} values, expected up to {ENTRIES_MAX}", key.value_count());
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        let mut entries = Vec::new();
        for value in key.values()? {
            let value = value?;
            let data = value.data()?;
            let target = if data.kind == ValueType::BINARY { Target::parse(&data.bytes) } else { Target::Unknown };
            entries.push(MountedDevice { name: value.name()?.to_string(), target, data });
        }
        Ok(Self { entries })
    }

    /// The letter of `partition`, upper case.
    pub fn letter(&self, partition: Partition) -> Option<char> {
        self.entries.iter().filter(|entry| entry.target.is(partition)).find_map(MountedDevice::letter)
    }

    /// The edits of the SYSTEM hive by which letters and volume names follow the partitions of `moves`.
    pub fn plan_moves(&self, moves: &[PartitionMove]) -> Vec<RegistryEdit> {
        let mut edits = Vec::new();
        for entry in &self.entries {
            let Some(moved) = moves.iter().find(|moved| entry.target.is(moved.from)) else { continue };
            let what = entry.letter().map_or_else(|| "volume".to_owned(), |letter| format!("drive {letter}:"));
            let reason = format!("{what} is ({}) by now", moved.to);
            edits.extend(RegistryEdit::change(KEY, &entry.name, &entry.data, &data_of(moved.to), reason));
        }
        edits
    }
}

impl MountedDevice {
    /// The drive letter, upper case; `None` for a volume name.
    pub fn letter(&self) -> Option<char> {
        let name = self.name.to_ascii_uppercase();
        match name.strip_prefix("\\DOSDEVICES\\")?.as_bytes() {
            [letter @ b'A'..=b'Z', b':'] => Some(char::from(*letter)),
            _ => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mbr { signature, offset } => write!(f, "signature {signature:08x}, offset {}", offset.0),
            Self::Gpt { partition } => write!(f, "partition {partition}"),
            Self::Device { path } => f.write_str(&path.replace(char::is_control, "\u{fffd}")),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for DriveLetters {
    /// A line an entry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |text: &str| text.replace(char::is_control, "\u{fffd}");
        self.entries.iter().try_for_each(|entry| writeln!(f, "{} = {}", plain(&entry.name), entry.target))
    }
}
