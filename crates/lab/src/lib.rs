//! Physical machines made of QEMU, and networks made of namespaces, to develop and test with. Never shipped.
//!
//! Machines are made from Debian packages without mounting anything on the host: filesystems are filled by their own
//! tools, and the one step that needs a block device (LVM's metadata) holds a loop device that the kernel takes away
//! with our process. Networks live in namespaces without names that end with the last process inside.
//!
//! Everything here needs root.

mod base;
mod boot_loader;
mod cache;
mod cold_clone;
mod content;
mod error;
mod filesystem;
mod firmware_raid;
mod hash;
mod judge;
mod lan;
mod loop_device;
mod namespace;
mod recipe;
mod sabotage;
mod session;
mod site;
mod source_machine;
mod ssh_server;
mod tampering;
mod tool;
mod trunk;
mod uefi_variables;
mod volume_group;
mod windows_disk;

pub use base::ROOT_PASSWORD;
pub use cold_clone::{ColdClone, cold_clone, cold_clone_on, tell};
pub use content::{CheckedFile, FILES};
pub use error::{Error, Result};
pub use firmware_raid::{FirmwareRaid, make_firmware_raid};
pub use hash::hash_file;
pub use judge::Judge;
pub use lan::{CONTROLLER, CONTROLLER_NAME, Cable, GATEWAY, Lan};
pub use namespace::Namespace;
pub use session::{Answer, Session};
pub use site::{RunningAgent, Site, pairing_code};
pub use source_machine::{Boot, Kind, SourceMachine, VolumeFact};
pub use ssh_server::{SSH_PASSWORD, SSH_USERS, SshServer};
pub use tampering::{Effect, SystemCall, Tampering};
pub use trunk::TrunkPort;
pub use windows_disk::{WindowsDisk, WindowsLayout};
