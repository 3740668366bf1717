//! What is on some disks, without changing, mounting or copying them.

use std::path::PathBuf;

use machine::{Disk, FirmwareKind, Guest};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::local::LocalDisks;
use crate::preflight::{self, Finding};

/// The answer of `vconverter inspect`; its JSON is a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The disks in the order given.
    pub disks: Vec<Disk>,
    /// What starts the machine, as far as its disks tell.
    pub firmware: FirmwareKind,
    /// The operating system found.
    pub guest: Guest,
    /// All facts of a Windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<guest::windows::inspection::Inspection>,
    /// What the content of the disks means for a conversion, what matters most first.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// What of the disks could not be read as it should.
    pub warnings: Vec<String>,
}

/// Inspects `paths`, the disks of one machine: image files or block devices.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::ErrorKind) with what, where and what to do.
pub fn inspect(paths: &[PathBuf]) -> Result<Inspection> {
    let disks = LocalDisks::open(paths)?;
    let layout = disks.layout();
    let mut machine = disks.machine();
    crate::place_mounts(&mut machine);
    let findings = preflight::findings(&machine);
    Ok(Inspection {
        disks: machine.disks,
        firmware: layout.firmware(),
        guest: disks.found().guest.clone(),
        windows: disks.found().windows.clone(),
        findings,
        warnings: layout.warnings().iter().map(ToString::to_string).collect(),
    })
}
