//! Drivers for Windows: what a package holds, which one fits a device on a release, a library of them, and what
//! injecting one changes.

pub mod catalog;
mod choice;
mod database;
mod der;
mod hypervisor;
mod inbox;
mod injection;
mod library;
mod package;
mod rank;
mod signer;

pub(in crate::windows) use choice::pe_machine;
pub use choice::{Choice, Choices, Refusal, Shelf};
pub use hypervisor::{Hypervisor, Role, VIRTUAL_DEVICES, VirtualDevice};
pub use inbox::{INBOX_DRIVERS, InboxDriver};
pub use injection::{Edit, FilePlacement, Injection, Key, Placement, Scope, plan_injection};
pub use library::{Addition, DriverRelease, LeftOut, Library, StoredFile, StoredPackage};
pub use package::{Package, PackageFile, Problem};
pub use rank::{Candidate, Device, Identifier, Match, Ranking, best, matches};
pub use signer::Signer;
