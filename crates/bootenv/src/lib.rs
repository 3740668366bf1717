//! Userland of the boot image: everything between Linux and the agent, in one static program that is PID 1.
//!
//! It mounts the kernel's filesystems, loads drivers for the hardware there is, sets every disk read-only before
//! anything reads it, brings the network up, looks at the guest on the disks, starts the agent and shows on every
//! console what happens. There is no shell. In the role of the appliance it changes a guest's disks instead.
//! It is a library so that its parts are tested; the program is `main.rs`.

pub mod appliance;
pub mod console;
mod error;
pub mod modules;
pub mod mounts;

pub use error::{Error, Result};
