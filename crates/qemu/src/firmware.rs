//! Firmware of a virtual machine: SeaBIOS, or OVMF with a private copy of its variables.

use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result};

/// What starts the virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, QEMU's own.
    #[default]
    Bios,
    /// OVMF.
    Uefi {
        /// Enforce Secure Boot with Microsoft's and Debian's keys; needs q35.
        secure_boot: bool,
        /// File that keeps the variables, in the layout of the matching `OVMF_VARS` file, written by the guest;
        /// `None` gives fresh variables that are thrown away.
        variables: Option<PathBuf>,
    },
}

impl Firmware {
    /// OVMF without Secure Boot and with fresh variables.
    pub fn uefi() -> Self {
        Self::Uefi { secure_boot: false, variables: None }
    }
}

/// Code and template of variables of one build of OVMF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OvmfFiles {
    /// The firmware itself, read-only.
    pub code: PathBuf,
    /// Variables as delivered: to be copied, never written.
    pub variables: PathBuf,
}

/// Pairs in the order of preference: Debian and Ubuntu, then Fedora, then Arch and SUSE.
const PLAIN: [(&str, &str); 4] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
];

const SECURE: [(&str, &str); 3] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.secboot.fd"),
    ("/usr/share/qemu/ovmf-x86_64-smm-ms-code.bin", "/usr/share/qemu/ovmf-x86_64-smm-ms-vars.bin"),
];

/// Finds OVMF on this machine, with keys enrolled where `secure_boot` asks for it.
pub fn find_ovmf(secure_boot: bool) -> Result<OvmfFiles> {
    let pairs: &[_] = if secure_boot { &SECURE } else { &PLAIN };
    pairs
        .iter()
        .map(|(code, variables)| OvmfFiles { code: code.into(), variables: variables.into() })
        .find(|files| files.code.exists() && files.variables.exists())
        .ok_or_else(|| {
            let wanted = Path::new(pairs[0].0).display();
            Error::new(ErrorKind::Missing, format!("UEFI firmware: {wanted} not found: install the package ovmf"))
        })
}
