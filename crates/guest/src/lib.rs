//! Reads a guest's identity from its files; plans and applies the changes that make it work on virtual hardware.
//!
//! Everything works on a [`FileTree`]: absolute guest paths, whose symbolic links are followed inside the tree only. A
//! plan is a value that can be printed, stored, compared and refused in parts; applying it twice changes nothing the
//! second time. Nothing of the guest is ever executed, every file is read with a bound, and no parser here panics on
//! what it finds. What kind of virtual hardware there will be is not asked: the plan returns
//! [`machine::Capabilities`], and others consume them.

pub mod appliance;
mod elf;
mod error;
mod fallback_loader;
mod hexadecimal;
mod identity;
pub mod linux;
mod plan;
pub mod proof;
pub mod tree;
pub mod windows;

pub use error::{Error, ErrorKind, Result};
pub use identity::{Found, identify, identify_bytes, inspect};
pub use plan::{
    Change, Digest, Direction, Fixup, Outcome, Plan, RawPatch, RegistryChange, State, Usage, apply, registration,
};
pub use tree::{Directory, FileTree, MemoryTree, WritableTree};

use machine::{Family, Machine, VolumePlace};

/// Plans the fix-ups for the guest in `tree`, which ran on the hardware of `machine` and gets a VM without its `absent`
/// volumes.
///
/// Fix-ups whose ids are in `refused` are listed too, but the capabilities are those of a guest without them. A family
/// without fix-ups of its own gives an empty plan with a warning.
pub fn plan(tree: &dyn FileTree, machine: &Machine, absent: &[VolumePlace], refused: &[String]) -> Result<Plan> {
    match identify(tree).family {
        Family::Linux => linux::plan(tree, machine, absent, refused),
        family => Ok(Plan::without_fixups(machine.firmware.kind, family)),
    }
}
