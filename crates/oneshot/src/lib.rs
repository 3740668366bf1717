//! Starts the boot image once on a machine that runs its own system, and leads back from there.
//!
//! What is changed is written down first (the *record*), and everything in it can be undone from the machine's own system and from the
//! boot image alike. Nothing here speaks to the network, and no filesystem is mounted here.

mod efi;
mod environment_block;
mod error;
mod extents;
mod hardware;
mod located;
mod mounts;
mod network;
mod newc;
mod partitions;
mod place;
mod record;
mod snapshot;
mod steps;
mod system;
mod undo;
pub mod watchdog;
mod ways;

pub use efi::fuzz_load_option;
pub use environment_block::fuzz_environment_block;
pub use error::{Error, ErrorKind, Result};
pub use located::fuzz_uuid;
pub use partitions::fuzz_partition_entry;
pub use place::{Restart, arm, forget, place, withdraw};
pub use record::{Change, Filesystem, FolderSnapshot, Record, Snapshot, fuzz_record, parse_record};
pub use system::System;
pub use undo::restore;
pub use ways::grub::fuzz_grub_configuration;
pub use ways::survey;

#[cfg(test)]
mod picture;
