//! Files of drivers on their way to a machine in the boot image; since revision 2.
//!
//! The controller sends the [pieces](crate::piece) of each file, then [`ControllerMessage::InstallDrivers`]; the agent answers
//! with [`AgentMessage::DriversInstalled`], or reports what kept it from it in the same way.
//!
//! [`ControllerMessage::InstallDrivers`]: crate::message::ControllerMessage::InstallDrivers
//! [`AgentMessage::DriversInstalled`]: crate::message::AgentMessage::DriversInstalled

use serde::{Deserialize, Serialize};

/// Largest file.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// Files of one push.
pub const FILES_MAX: usize = 64;
/// All files of one push.
pub const PUSH_BYTES_MAX: u64 = 256 << 20;

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DriverOutcome {
    /// The file; empty where it is about all of them.
    pub name: String,
    /// Whether it is in force.
    pub installed: bool,
    /// In words, for a person.
    pub text: String,
}
