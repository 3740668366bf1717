//! Starts the boot image once on a machine that runs its own system, and leads back from there.
//!
//! What is changed is written down first (the *record*), and everything in it can be undone from the machine's own system and from the
//! boot image alike. Nothing here speaks to the network, and no filesystem is mounted here.

// What places and arms is not here yet.
#![allow(dead_code)]

mod efi;
mod environment_block;
mod error;
mod record;
mod snapshot;
mod steps;
mod system;
mod undo;
pub mod watchdog;

pub use efi::fuzz_load_option;
pub use environment_block::fuzz_environment_block;
pub use error::{Error, ErrorKind, Result};
pub use record::{Change, Filesystem, FolderSnapshot, Record, Snapshot, fuzz_record, parse_record};
pub use system::System;
pub use undo::restore;
