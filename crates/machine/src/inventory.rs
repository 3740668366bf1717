//! A machine as a whole: what an agent reports, and what a VM is defined from.

use serde::{Deserialize, Serialize};

use crate::{ByteCount, Disk, Firmware, Guest, Nic};

/// Everything known of a source machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Machine {
    /// BIOS or UEFI, boot variables, Secure Boot.
    pub firmware: Firmware,
    /// Processors.
    pub cpu: Cpu,
    /// Installed memory in bytes, as the running kernel counts it.
    pub memory: ByteCount,
    /// Identity from SMBIOS.
    pub smbios: Smbios,
    /// Network interfaces that have hardware behind them.
    pub nics: Vec<Nic>,
    /// Disks in the order of their buses.
    pub disks: Vec<Disk>,
    /// The operating system on the disks.
    pub guest: Guest,
}

/// Processors of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cpu {
    /// `Intel(R) Xeon(R) CPU E5-2620 v4`.
    pub model: String,
    /// Packages.
    pub sockets: u32,
    /// Cores of one package.
    pub cores_per_socket: u32,
    /// Hardware threads of one core.
    pub threads_per_core: u32,
}

/// System information of SMBIOS type 1 (DSP0134, section 7.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Smbios {
    /// `Dell Inc.`
    pub manufacturer: Option<String>,
    /// `PowerEdge R630`.
    pub product: Option<String>,
    /// Serial number or service tag.
    pub serial: Option<String>,
    /// System UUID, lower case.
    pub uuid: Option<String>,
}
