//! The operating system found on a machine's disks, and what a converted one asks of its virtual hardware.

use serde::{Deserialize, Serialize};

use crate::{FirmwareKind, Note};

/// The operating system found; the `guest` object of the `inspect` contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Guest {
    /// Linux, Windows, or not known.
    pub family: Family,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub product: Option<String>,
    /// `12`.
    pub version: Option<String>,
    /// `x86_64`, `i386`, `aarch64`.
    pub arch: Option<String>,
    /// The machine's own host name.
    pub hostname: Option<String>,
    /// Which filesystems and swap areas its own table names, as far as it can be read: `/etc/fstab`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// What its own files say that matters for a conversion, the weightiest first; of Windows so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

/// A line of the guest's table of filesystems.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Mount {
    /// `UUID=…`, `LABEL=…`, `/dev/…`, or a swap file: as written.
    pub device: String,
    /// Where; `none` for swap.
    pub mount_point: String,
    /// `ext4`, `swap`, `auto`.
    pub kind: String,
}

/// Family of operating systems.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Linux.
    Linux,
    /// Windows.
    Windows,
    /// Not known.
    #[default]
    Unknown,
}

/// What a guest can work with after its fix-ups. `guest` returns it, `target` consumes it; neither asks more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Capabilities {
    /// Bus on which the guest finds its disks.
    pub disk_bus: DiskBus,
    /// NIC that the guest has a driver for.
    pub nic_model: NicModel,
    /// Firmware that starts it.
    pub firmware: FirmwareKind,
    /// Whether its clock runs in UTC (else local time).
    pub clock_utc: bool,
    /// Whether it starts under Secure Boot, and is to; `None`: as the source did. UEFI only.
    #[serde(default)]
    pub secure_boot: Option<bool>,
    /// Whether it wants a TPM 2.0. What it had in the source's does not move.
    #[serde(default)]
    pub tpm: bool,
    /// Interfaces of Hyper-V that it makes use of.
    #[serde(default)]
    pub hyperv: HypervInterfaces,
}

/// Which of Hyper-V's interfaces a guest makes use of, where its hypervisor offers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum HypervInterfaces {
    /// None.
    #[default]
    None,
    /// Those of Hyper-V's first releases: time, interrupts, patience with locks and watchdogs.
    Basic,
    /// All of use outside of Hyper-V: those, timers, calls to other processors.
    Full,
}

/// How a virtual disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DiskBus {
    /// virtio-blk.
    Virtio,
    /// AHCI.
    Sata,
    /// IDE.
    Ide,
}

/// Model of a virtual NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum NicModel {
    /// virtio-net.
    Virtio,
    /// Intel 82540EM.
    E1000,
    /// Intel 82574L.
    E1000e,
    /// Realtek 8139.
    Rtl8139,
}
