//! The role of the appliance: changes a guest's disks as a job says.

use crate::{Error, Result};

/// Where the job lies: its presence chooses this role.
pub const JOB: &str = "/vconverter/job.json";

/// Runs the job. The kernel's filesystems are mounted and drivers for the hardware are loaded.
///
/// # Errors
/// What kept the job from being done.
pub fn run() -> Result<()> {
    Err(Error::new("this bootenv was built without the fix-up runner"))
}
