//! What lies where on the disks of a machine, and which of it is used: partition tables, volume managers, filesystem
//! maps, and one merged map for each disk.
//!
//! Everything here takes bytes of untrusted disks: structures are checked against each other and against the size of
//! what holds them, and whatever does not add up is copied whole, never less. A partition table that does not add up is
//! refused. Nothing here writes, mounts or activates anything.
#![forbid(unsafe_code)]

mod bits;
mod checksum;
mod condition;
mod content;
mod error;
mod exfat;
mod ext;
mod fat;
mod field;
pub mod files;
mod firmware;
pub mod fuzz;
mod layout;
mod ldm;
mod logical;
mod lvm;
mod map;
mod ntfs;
mod page_file;
mod probe;
pub mod raid;
mod swap;
mod swap_file;
pub mod table;

pub use error::{Error, ErrorKind, Result};
pub use layout::{Filesystem, Layout, Place, Warning, detect_layout};
pub use logical::{LinearSegment, LogicalVolume};
pub use probe::{Probe, probe};
pub use swap::{SWAP_SIGNATURE, hibernation_signature};
