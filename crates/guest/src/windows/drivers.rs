//! Drivers for Windows: what a package holds, which one fits a device on a release, and what injecting one changes.

pub mod catalog;
mod package;
mod rank;

pub use package::{Package, PackageFile, Problem};
pub use rank::{Candidate, Device, Identifier, Match, Ranking, best, matches};
