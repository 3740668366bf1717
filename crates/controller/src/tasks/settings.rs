//! Settings of a conversion that may be left open, and then come from a profile.

use std::path::PathBuf;

use conversion::{Allocation, Choices, OutputFormat, Request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::wish::check_rate;
use crate::schedule::{BackBy, Window};
use crate::{Error, ErrorKind, Result};

/// Settings that do not depend on the machine. What is `None` is left to the profile, and then to the conversion itself.
/// Those that do not apply to a conversion are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// Existing folder in which the result appears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// Format of the disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<OutputFormat>,
    /// Room that images get, where nothing else is said of a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Allocation>,
    /// Copy the content of swap areas, swap and page files, hibernation and shadow copies, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_swap: Option<bool>,
    /// Compare hashes of the source's used blocks with the replica's after copying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    /// Record unreadable extents, fill them with zeros, and mark the result incomplete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_unreadable: Option<bool>,
    /// Start the VM in isolation and see it come up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prove_boot: Option<bool>,
    /// Seconds that the VM may take to show evidence, from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_time_s: Option<u32>,
    /// Bytes a second that may come in for the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub bytes_per_second: Option<u64>,
    /// When the machine must have its own system again: where that will not be met, the copy is stopped and the machine given
    /// back; what is copied is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_by: Option<BackBy>,
    /// Begin only while one of these is open, where the task has no schedule of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<Vec<Window>>,
}

impl Settings {
    /// These, and where they are open, those of `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            output: self.output.or(other.output),
            format: self.format.or(other.format),
            allocation: self.allocation.or(other.allocation),
            keep_swap: self.keep_swap.or(other.keep_swap),
            verify: self.verify.or(other.verify),
            skip_unreadable: self.skip_unreadable.or(other.skip_unreadable),
            prove_boot: self.prove_boot.or(other.prove_boot),
            proof_time_s: self.proof_time_s.or(other.proof_time_s),
            bytes_per_second: self.bytes_per_second.or(other.bytes_per_second),
            back_by: self.back_by.or(other.back_by),
            windows: self.windows.or(other.windows),
        }
    }

    /// Refuses what no task could be made with.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn check(&self) -> Result<()> {
        check_rate(self.bytes_per_second)
    }

    /// The request for a VM of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where no output folder is named.
    pub fn request(self, name: String, disks: Vec<String>, choices: Choices, dry_run: bool) -> Result<Request> {
        let missing = || {
            let context = "output: expected a folder, in the request or in its profile";
            Error::new(ErrorKind::Invalid, context)
        };
        Ok(Request {
            name,
            output: self.output.ok_or_else(missing)?,
            format: self.format.unwrap_or_default(),
            disks,
            choices,
            allocation: self.allocation.unwrap_or_default(),
            keep_swap: self.keep_swap.unwrap_or_default(),
            verify: self.verify.unwrap_or_default(),
            skip_unreadable: self.skip_unreadable.unwrap_or_default(),
            prove_boot: self.prove_boot,
            proof_time_s: self.proof_time_s,
            dry_run,
        })
    }
}
