//! Drivers for Windows: what a package holds, which one fits a device on a release, and a library of them.

pub mod catalog;
mod choice;
mod library;
mod package;
mod rank;

pub use choice::{Choice, Choices, Refusal};
pub use library::{Addition, DriverRelease, LeftOut, Library, StoredFile, StoredPackage};
pub use package::{Package, PackageFile, Problem};
pub use rank::{Candidate, Device, Identifier, Match, Ranking, best, matches};
