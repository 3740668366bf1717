//! The boot proof: a probe that a throw-away overlay adds to the guest, and what its serial port and screen say.

mod overlay;
mod verdict;

pub use overlay::add_probe;
pub use verdict::{Verdict, classify, last_words, parse_first_boot_line, parse_probe_line, standing_hint};

use serde::{Deserialize, Serialize};

/// What the probe is to write, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Repeated in the probe's line, so that no older line is taken for it. Letters, digits and `-` only.
    pub nonce: String,
    /// Serial port of the guest: `ttyS1`.
    pub port: String,
    /// Seconds after which it no longer waits for multi-user.
    #[serde(default = "patience_default")]
    pub patience_s: u32,
    /// Whether the kernel's console and a login prompt are added on `ttyS0`.
    #[serde(default)]
    pub serial_console: bool,
}

fn patience_default() -> u32 {
    90
}
