//! What agent and controller say to each other: the TLS connection that carries it, how a machine is paired, control
//! messages, and the binary frames that carry a disk.
//!
//! An agent dials the controller's one port. Every connection is TLS 1.3 with a certificate on both sides
//! ([`tls`], [`Connection`]) and opens with one [`message::Opening`]: a [`message::Hello`] makes it a control
//! connection, an [`message::OpenStream`] makes it a data connection that carries [`frame`]s. Everything here is
//! synchronous, and nothing here opens a disk or knows what a task is. Input from the wire never panics and never
//! allocates without a named bound.

pub mod certificate;
pub mod codec;
mod connection;
pub mod driver;
pub mod enrolment;
mod error;
pub mod frame;
pub mod message;
pub mod pairing;
pub mod piece;
pub mod tls;
mod version;

pub use connection::Connection;
pub use error::{Error, ErrorKind, Result};
pub use version::{Version, VersionRange};
