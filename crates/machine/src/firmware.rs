//! Firmware: BIOS or UEFI, with its boot variables and the state of Secure Boot.

use serde::{Deserialize, Serialize};

/// What starts the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FirmwareKind {
    /// PC BIOS, or UEFI's compatibility module.
    Bios,
    /// UEFI.
    Uefi,
    /// Could not be told from what was there.
    #[default]
    Unknown,
}

/// The firmware of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Firmware {
    /// BIOS or UEFI.
    pub kind: FirmwareKind,
    /// UEFI only: whether Secure Boot is enforced (variable `SecureBoot`); `None` on BIOS or where it is absent.
    pub secure_boot: Option<bool>,
    /// UEFI only: boot entries in the order of `BootOrder`, then the others by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_variables: Vec<BootVariable>,
}

/// One `Boot####` variable (UEFI specification 3.1.3, EFI_LOAD_OPTION).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BootVariable {
    /// The four hexadecimal digits of its name.
    pub number: u16,
    /// Description, as shown by the firmware.
    pub description: String,
    /// File path of the loader on its ESP, where the device path has one: `\EFI\debian\shimx64.efi`.
    pub loader: Option<String>,
    /// Whether it is tried (LOAD_OPTION_ACTIVE).
    pub active: bool,
    /// Whether the machine was started by it (`BootCurrent`).
    pub current: bool,
}
