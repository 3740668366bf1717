//! Userland of the boot image: everything between Linux and the agent, in one static program that is PID 1.
//!
//! It mounts the kernel's filesystems, loads drivers for the hardware there is, sets every disk read-only before
//! anything reads it, undoes what a pushed boot image was started by, brings the network up, looks at the guest on the disks, starts the agent and shows on every
//! console what happens. There is no shell, unless a key for one is built in (`rescue`). In the role of the appliance it changes a guest's disks instead.
//! It is a library so that its parts are tested; the program is `main.rs`.

pub mod agent;
pub mod appliance;
pub mod boot_image;
pub mod configuration;
pub mod configurator;
pub mod console;
pub mod conversation;
pub mod deadline;
pub mod device_names;
pub mod dhcp;
pub mod disks;
pub mod download;
mod error;
pub mod form;
pub mod inspection;
pub mod installation;
pub mod installer;
pub mod keymap;
pub mod keys;
pub mod letters;
pub mod media;
pub mod medium;
mod memory;
pub mod modules;
pub mod mounts;
pub mod network;
pub mod operator;
pub mod push;
pub mod pushed;
pub mod reaper;
pub mod rescue;
pub mod restore;
pub mod screen;
pub mod screens;
pub mod status;
pub mod stick;
pub mod uevent;
pub mod unclaimed;
pub mod watchdog;

pub use error::{Error, Result};
