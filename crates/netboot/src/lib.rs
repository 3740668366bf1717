//! The PXE service: brings machines that start from their network card to the boot image, beside the LAN's own DHCP
//! server.
//!
//! A **proxyDHCP** responder (Intel's PXE specification 2.1, section 2) adds the name of a boot file to what the DHCP
//! server says; **TFTP** and **HTTP** deliver it. What a machine gets is its [`Policy`]'s decision, what each firmware needs
//! stands in [`loader`]'s table, and every request is written to a [`Log`] with its answer and the reason.
//!
//! It never offers an address, answers nobody but PXE and HTTP-boot clients, reads only the files of a fixed map, keeps
//! no secret and knows no database. Whatever comes from the wire is bounded: messages, sessions, connections, log.

mod client;
pub mod dhcp;
mod error;
mod files;
mod http;
mod interface;
mod loader;
mod log;
mod policy;
mod port;
mod preflight;
mod probe;
mod proxy;
mod service;
mod site;
pub mod tftp;

pub use client::{Client, Firmware, swapped_uuid};
pub use error::{Error, ErrorKind, Result};
pub use files::BootFiles;
pub use interface::{Interface, load_interfaces};
pub use log::{Log, Record};
pub use policy::{Choice, Policy, Ruling};
pub use preflight::Finding;
pub use service::{HTTP_PORT, Options, Service};
