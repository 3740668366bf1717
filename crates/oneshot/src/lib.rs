//! Starts the boot image once on a machine that runs its own system, and leads back from there.
//!
//! What is changed is written down first (the *record*), and everything in it can be undone from the machine's own system and from the
//! boot image alike. Nothing here speaks to the network, and no filesystem is mounted here.

mod error;
mod record;

pub use error::{Error, ErrorKind, Result};
pub use record::{Change, Filesystem, Record};
