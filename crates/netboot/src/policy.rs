//! What a machine that asks for a boot file may get. The decision is the caller's: it knows machines and operators.

use std::borrow::Cow;

use crate::Client;
use machine::MacAddress;

/// What a machine gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// No answer: the firmware goes on in its own order.
    Ignore,
    /// The boot image, without a key.
    Boot,
    /// A menu of the firmware whose choice after ten seconds is the machine's own disk.
    Menu,
}

/// A decision, with its reason for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// What it gets.
    pub choice: Choice,
    /// Why: `boot once, set by uid 0`.
    pub why: Cow<'static, str>,
}

impl Ruling {
    /// What machines get of which nothing is known.
    pub const UNKNOWN: Self = Self { choice: Choice::Menu, why: Cow::Borrowed("no policy for this machine") };
}

/// Decides for each machine. Called once for each request, from the service's threads: it should answer in milliseconds.
pub trait Policy: Send + Sync + 'static {
    /// What `client` may get now.
    fn rule(&self, client: &Client) -> Ruling;

    /// The machine was sent the whole boot image. Whether it started is not known here.
    fn delivered(&self, mac: MacAddress) {
        let _ = mac;
    }
}
