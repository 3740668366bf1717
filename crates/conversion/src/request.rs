//! What the operator asked for.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Allocation, Choices, RemoteMachine};

/// Where the disks come from.
#[derive(Clone)]
pub enum Source {
    /// Disk images or block devices of this machine; several are the disks of one source.
    Local(Vec<PathBuf>),
    /// A machine with an agent.
    Remote(Arc<dyn RemoteMachine>),
}

/// Format of the resulting disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// qcow2 version 3, uncompressed.
    #[default]
    Qcow2,
    /// Sparse raw.
    Raw,
}

impl OutputFormat {
    /// As file names end, and as QEMU names it.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// The settings of one conversion. Everything but `output` and `name` has a sensible default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// Name of the VM; the result is the folder `output/name`. Letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Existing folder in which the result appears.
    pub output: PathBuf,
    /// Format of the disks.
    #[serde(default)]
    pub format: OutputFormat,
    /// Which disks to take, by path (`/dev/sda`), serial, WWN or position (`0`); empty: all.
    #[serde(default)]
    pub disks: Vec<String>,
    /// What of them is left out, and what is said of single ones.
    #[serde(flatten)]
    pub choices: Choices,
    /// Room that images get, where nothing else is said of a disk.
    #[serde(default)]
    pub allocation: Allocation,
    /// Copy the content of swap areas, swap and page files, hibernation and shadow copies, too.
    #[serde(default)]
    pub keep_swap: bool,
    /// Compare hashes of the source's used blocks with the replica's after copying.
    #[serde(default)]
    pub verify: bool,
    /// Record unreadable extents, fill them with zeros, and mark the result incomplete.
    #[serde(default)]
    pub skip_unreadable: bool,
    /// Start the VM in isolation and see it come up. `None`: where QEMU is present.
    #[serde(default)]
    pub prove_boot: Option<bool>,
    /// Seconds that the VM may take to show evidence, from its start. `None`: 300, or 1200 without KVM.
    #[serde(default)]
    pub proof_time_s: Option<u32>,
    /// Plan and show, write nothing that stays.
    #[serde(default)]
    pub dry_run: bool,
}
