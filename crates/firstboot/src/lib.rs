//! The first start of a converted Windows: a program that the converter leaves on its disk as a service, which does once
//! what cannot be done from outside, reports, and takes itself away.
//!
//! Everything that decides is here and runs anywhere; what calls Windows is in [`windows`], behind [`system::System`]. The
//! program needs Windows 7 or Server 2008 R2, 64-bit, no PowerShell and no runtime. It opens no connection and asks nobody.

pub mod adapters;
pub mod command;
pub mod drive_layout;
mod error;
pub mod letters;
mod log;
pub mod network;
pub mod plan;
pub mod progress;
pub mod run;
pub mod scaffolding;
pub mod steps;
pub mod system;
#[cfg(windows)]
pub mod windows;

pub use error::{Error, ErrorKind, Result};
