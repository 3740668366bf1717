//! States of a volume that matter for its conversion, beyond what it holds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A state that a volume is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// A Windows hibernated on it, or was switched off by Fast Startup, and would go on from there.
    Hibernated,
    /// It is marked to be checked when its system starts.
    Dirty,
    /// Its log holds changes that were not carried out: it was in use when the machine went off.
    LogInUse,
    /// Files of its Windows are kept compressed (compact OS).
    SystemCompressed,
    /// It is encrypted by BitLocker, and the key lies on it in the clear: the protection is suspended.
    ClearKey,
    /// It belongs to dynamic disks (LDM) whose database cannot be read.
    DynamicDisk,
    /// It belongs to dynamic disks that have a simple volume.
    DynamicSimple,
    /// It belongs to dynamic disks that have a spanned volume.
    DynamicSpanned,
    /// It belongs to dynamic disks that have a striped volume.
    DynamicStriped,
    /// It belongs to dynamic disks that have a mirrored volume.
    DynamicMirrored,
    /// It belongs to dynamic disks that have a RAID-5 volume.
    DynamicRaid5,
    /// It belongs to a pool of Storage Spaces.
    StorageSpaces,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hibernated => "holds a hibernated Windows, or one that was switched off by Fast Startup",
            Self::Dirty => "is marked to be checked",
            Self::LogInUse => "was in use when the machine went off: its log holds changes",
            Self::SystemCompressed => "keeps files of Windows compressed (compact OS)",
            Self::ClearKey => "is encrypted (BitLocker) with its protection suspended",
            Self::DynamicDisk => "belongs to dynamic disks whose database cannot be read",
            Self::DynamicSimple => "belongs to dynamic disks with a simple volume",
            Self::DynamicSpanned => "belongs to dynamic disks with a spanned volume",
            Self::DynamicStriped => "belongs to dynamic disks with a striped volume",
            Self::DynamicMirrored => "belongs to dynamic disks with a mirrored volume",
            Self::DynamicRaid5 => "belongs to dynamic disks with a RAID-5 volume",
            Self::StorageSpaces => "belongs to a pool of Storage Spaces",
        })
    }
}
