//! The controller: store, agent sessions, tasks, and the API over a Unix socket and TLS.
//!
//! It holds what is known of machines and what is being done with them. It refuses to let an agent do anything before an
//! operator approved it, never mounts or parses a guest's disk itself (`conversion` has that done in an appliance), and
//! serves its API only to the owner of its data directory and to root.

pub mod api;
pub mod backup;
pub mod bandwidth;
mod beside;
mod console;
pub mod cutover;
mod data_directory;
pub mod driver_library;
mod error;
mod https;
pub mod identity;
pub mod inventory;
pub mod limits;
pub mod mail;
mod metrics;
pub mod progress;
mod pxe;
pub mod rcc;
mod redaction;
pub mod schedule;
pub mod search;
mod serve;
pub mod sessions;
pub mod store;
pub mod support;
pub mod tasks;
mod timestamp;
pub mod trust;

pub use data_directory::{DataDirectory, LockedDataDirectory};
pub use error::{Error, ErrorKind, Result, chain};
pub use https::{CONSOLE_PORT, CertificateFiles, ConsoleConfig};
pub use pxe::{PxeConfig, PxeStation};
pub use serve::{Config, Controller, LEASE, ca_fingerprint};
pub use timestamp::Timestamp;
