//! The boot image: Linux kernel and initramfs with bootenv and the agent, as files and as a hybrid ISO; and the
//! appliance, the same kernel with a small initramfs, in which guests are fixed up.
//!
//! Kernel and boot loaders are Debian's own, signed packages, so that Secure Boot stays on. What is built is the same
//! for the same input: no time stamp, no random identifier. Nothing here needs root, mounts or loop devices.
//! It starts Debian's tools as programs and says which package brings one that is missing.

mod added;
mod appliance;
mod assembly;
mod boot_image;
mod cache;
mod configuration;
pub mod cpio;
mod debian_programs;
mod devices;
mod drivers;
mod error;
mod firmware;
mod initramfs;
mod inspect;
mod iso;
mod kernel;
mod keymap;
mod machine_report;
mod modules;
mod names;
mod netboot;
mod network;
mod network_identity;
mod package;
mod program;
mod push;
mod rescue;
mod tool;
mod uki;
mod unpack;

pub use appliance::{Appliance, ApplianceOptions, build_appliance};
pub use boot_image::{BootImage, BuildOptions, Media, build_boot_image};
pub use configuration::{Configuration, PushSettings};
pub use devices::{Device, PciId, devices, devices_of, find_device};
pub use error::{Error, ErrorKind, Result};
pub use firmware::{FirmwareFile, FirmwareSources, Packages, is_vital};
pub use inspect::{Inspection, ModuleSupport, NamedFirmware, Signed, Support, inspect};
pub use kernel::{Kernel, KernelChoice, load_kernel};
pub use machine_report::parse_report;
pub use network::Network;
pub use program::Programs;
pub use push::{COMMAND_LINE as PUSH_COMMAND_LINE, Push, PushOptions, build_push};
pub use rescue::load_ssh_key;
