//! What is on some disks, without changing, mounting or copying them.

use std::path::PathBuf;

use machine::{Disk, FirmwareKind, Guest};
use serde::{Deserialize, Serialize};
use volume::Layout;

use crate::Result;
use crate::local::LocalDisks;

/// The answer of `vconverter inspect`; its JSON is a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The disks in the order given.
    pub disks: Vec<Disk>,
    /// What starts the machine, as far as its disks tell.
    pub firmware: FirmwareKind,
    /// The operating system found.
    pub guest: Guest,
    /// What an operator should know before converting.
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
    Ok(Inspection {
        disks: machine.disks,
        firmware: layout.firmware(),
        guest: disks.guest().clone(),
        warnings: layout.warnings().iter().map(ToString::to_string).collect(),
    })
}

/// The operating system on the first filesystem that holds one and can be read in user space.
pub(crate) fn identify(layout: &Layout) -> Guest {
    guest::identify_among(layout.file_trees())
}
