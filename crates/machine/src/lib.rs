//! The words that every other crate shares: a machine, its disks and volumes, its NICs and firmware, the guest found
//! on it, how its files are shown, how it is started from the boot image once, what a converted one does at its first start, and newtypes for the units they are measured in.
//!
//! Types here have no behaviour beyond arithmetic, parsing and printing of themselves; behaviour lives with its owner.
//! Nothing here opens a file, a socket or a device.

mod condition;
mod disk;
pub mod files;
mod firmware;
pub mod firstboot;
mod guest;
mod inventory;
mod nic;
mod note;
pub mod push;
mod units;

pub use condition::Condition;
pub use disk::{Disk, DiskIdentity, DiskLayout, Part, PartitionTable, Segment, Volume, VolumePlace};
pub use firmware::{BootVariable, Firmware, FirmwareKind};
pub use guest::{Capabilities, DiskBus, Family, Guest, HypervInterfaces, Mount, NicModel};
pub use inventory::{Cpu, Machine, Smbios};
pub use nic::{IpNet, MacAddress, Nic, ParseMacAddressError};
pub use note::{Note, Severity};
pub use units::{ByteCount, ByteOffset, Lba, SectorSize, SectorSizeError};
