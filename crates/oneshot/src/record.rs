//! The record: what a push changes, written down before it is changed.

use machine::push::Way;
use serde::{Deserialize, Serialize};

/// What a push changes on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which task it is for.
    pub task: String,
    /// Which way was chosen.
    pub way: Way,
    /// What is changed, in the order in which it is; undone in the other.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Change {
    /// A file gets other content, or is made.
    File {
        /// Where it lies.
        filesystem: Filesystem,
        /// Path within that filesystem, without a slash in front.
        path: String,
        /// What was there, in hexadecimal digits; `None` for a file that was not.
        before: Option<String>,
    },
    /// A folder is made.
    Folder {
        /// Where it lies.
        filesystem: Filesystem,
        /// Path within that filesystem, without a slash in front.
        path: String,
    },
    /// A variable of the firmware gets another value, or is made.
    Variable {
        /// `BootNext-8be4df61-…`, as efivarfs names its file.
        name: String,
        /// What was there, with its four bytes of attributes, in hexadecimal digits; `None` for one that was not.
        before: Option<String>,
    },
}

/// A filesystem of the machine, by what the boot image can find it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
