//! Definitions of virtual machines for the place where a converted machine will live.
//!
//! What is defined follows from the source [`machine::Machine`] and the guest's [`machine::Capabilities`]; no question
//! about the operating system is asked here. While the source may still be running, the VM's NICs are defined with
//! their link down and the VM is not started by itself.

mod definition;
mod enlightenment;
mod error;
pub mod libvirt;
pub mod preview;
mod virsh;

pub use definition::{Definition, DiskFile, firmware, secure_boot};
pub use enlightenment::{Enlightenment, enlightenments};
pub use error::{Error, ErrorKind, Result};
pub use virsh::{DomainState, Virsh};
