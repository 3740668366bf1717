//! The agent: it knows its machine, dials the controller, and serves its disks.
//!
//! Disks are only ever opened for reading. It links neither `guest` nor `target`: what runs on other people's machines
//! is small. In the boot image the facts about the guest come from `bootenv`, in a file.

mod command;
mod config;
mod control;
mod dial;
mod drivers;
mod enrolment;
mod error;
pub mod inventory;
mod pace;
mod paired;
mod pieces;
mod power;
mod push;
pub mod service;
mod status;
mod status_file;
mod stream;

pub use config::Config;
pub use control::run;
pub use error::{Error, ErrorKind, Result};
pub use status::{Screen, Status};
pub use status_file::StatusFile;
