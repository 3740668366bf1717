//! What a conversion has made, and how far it can be trusted.

use std::path::PathBuf;

use machine::{ByteCount, ByteOffset, SectorSize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Allocation, CopyProgress};

/// The result of a conversion. Paths are file names inside `folder`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// Name of the VM.
    pub name: String,
    /// The folder that holds everything; of a dry run, where it would have been.
    pub folder: PathBuf,
    /// The libvirt definition.
    pub definition: String,
    /// Disks in the order of the source.
    pub disks: Vec<ConvertedDisk>,
    /// Disks and volumes that were left out, in words.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Whether sectors are missing that the source could not read. Such a result is never called verified.
    pub incomplete: bool,
    /// Result of `--verify`; `None` where it was not asked for.
    pub verified: Option<bool>,
    /// The fix-ups that were planned, and what became of each.
    pub fixups: Vec<FixUpOutcome>,
    /// Whether the VM was seen to boot.
    pub proof: Proof,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// One disk of the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConvertedDisk {
    /// Path of the disk on the source.
    pub source: String,
    /// File name of the image; its whole path where it is in another folder.
    pub file: String,
    /// Room that it has.
    #[serde(default)]
    pub allocation: Allocation,
    /// `qcow2` or `raw`.
    pub format: String,
    /// Size that the guest sees.
    pub virtual_size: ByteCount,
    /// Logical sector size that the guest sees.
    pub logical_sector_size: SectorSize,
    /// Bytes used, sent, written, unreadable.
    #[serde(flatten)]
    pub copied: CopyProgress,
    /// What could not be read, first byte and length.
    pub unreadable_extents: Vec<(ByteOffset, ByteCount)>,
    /// How long the copy took.
    pub copy_seconds: f64,
}

/// A fix-up as it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FixUpOutcome {
    /// Stable name: `linux.initramfs`.
    pub id: String,
    /// What it does, for people.
    pub title: String,
    /// Why.
    pub reason: String,
    /// `made`, `already so`, `planned`, `left out`.
    pub result: String,
    /// Files that it changes.
    pub files: Vec<String>,
}

/// Verdict of the boot proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Evidence from inside the guest was seen.
    Passed,
    /// A known failure was seen.
    Failed,
    /// Neither, in the time given.
    Inconclusive,
    /// Not tried: switched off, or there is no QEMU here.
    #[default]
    NotTried,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Inconclusive => "inconclusive",
            Self::NotTried => "not tried",
        })
    }
}

/// What the boot proof saw. The files are in the result's folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proof {
    /// The verdict.
    pub verdict: Verdict,
    /// The evidence, in one sentence: `login prompt of phys-a`.
    pub evidence: String,
    /// What the guest told of itself through the probe, if it did.
    #[serde(default)]
    pub guest: Option<serde_json::Value>,
    /// Text of the serial console.
    #[serde(default)]
    pub serial_log: Option<String>,
    /// Last picture of the screen.
    #[serde(default)]
    pub screenshot: Option<String>,
    /// Seconds from start to verdict.
    #[serde(default)]
    pub seconds: f64,
}
