//! How a first boot went: one line of JSON on the serial port, the same in a file.

use serde::{Deserialize, Serialize};

use crate::{IpNet, MacAddress};

/// What the program says of itself and of the system that it runs on.
///
/// It is written when everything is done, whether or not all of it went well: a machine that says it has come up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportLine {
    /// [`super::Plan::nonce`].
    pub nonce: String,
    /// DNS host name of the running system.
    pub hostname: String,
    /// `Windows Server 2019 Standard`, as the registry names it; it calls Windows 11 by the name of 10.
    pub product: String,
    /// `10.0.17763`, as the kernel says it.
    pub version: String,
    /// Drive that Windows runs from: `C:`.
    pub boot_drive: String,
    /// Adapters of the running system.
    pub adapters: Vec<ReportedAdapter>,
    /// What was done.
    pub steps: Vec<StepReport>,
    /// How often the machine was restarted.
    pub reboots: u32,
    /// Whether no step failed.
    pub success: bool,
}

/// An adapter of the running system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedAdapter {
    /// Name of the connection.
    pub name: String,
    /// Hardware address.
    pub mac: Option<MacAddress>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// What became of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// `driver virtio/netkvm/netkvm.inf`.
    pub step: String,
    /// How it ended.
    pub result: StepResult,
    /// Why, or with what: one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepResult {
    /// Done now.
    #[default]
    Done,
    /// Nothing was to be done.
    AlreadySo,
    /// Could not be done; the others were.
    Failed,
}
