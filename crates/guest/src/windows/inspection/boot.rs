//! How Windows is started: firmware, boot configuration, what the last start said of itself.
//!
//! `SystemBootDevice`, `FirmwareBootDevice` and `SystemStartOptions` are written by the kernel at every start;
//! `SecureBoot\State` exists where the firmware has Secure Boot (Windows 8 and later). The boot configuration is on the
//! ESP with UEFI, in `\Boot` of the active partition with BIOS, and `boot.ini` before Vista; what is on other
//! filesystems is told by the caller.

use std::fmt;

use machine::{FirmwareKind, Note};
use serde::{Deserialize, Serialize};

use super::boot_ini;
use super::fields::{Reader, answer};
use crate::Result;
use crate::windows::boot_ini::BootIni;

/// What the caller knows from outside of this filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// The machine's firmware.
    pub firmware: FirmwareKind,
    /// Whether an ESP has `\EFI\Microsoft\Boot\BCD`.
    pub has_esp_bcd: bool,
    /// Whether another volume, the active one, has `\Boot\BCD`.
    pub has_boot_bcd: bool,
}

/// What starts Windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The machine's firmware, as the caller said.
    pub firmware: FirmwareKind,
    /// A BCD store on an ESP.
    pub has_esp_bcd: bool,
    /// A BCD store in `\Boot` of this or the active volume.
    pub has_boot_bcd: bool,
    /// `boot.ini` with `ntldr`, on this volume.
    pub boot_ini: Option<BootIni>,
    /// ARC path of the volume with Windows at the last start.
    pub system_device: Option<String>,
    /// ARC path of the volume with the loader at the last start.
    pub firmware_device: Option<String>,
    /// Options of the last start.
    pub options: Option<String>,
    /// Whether Secure Boot was on at the last start.
    pub secure_boot: Option<bool>,
    /// All control sets, and the one with which Windows ran last.
    pub control_sets: Vec<String>,
    /// See [`control_sets`](Self::control_sets).
    pub current: String,
    /// `Select\Failed`: the number of the control set that was given up for the last known good one; 0: none.
    pub failed: Option<u32>,
    /// `Select\LastKnownGood`: the number of the control set with which somebody logged on last.
    pub last_known_good: Option<u32>,
}

impl Boot {
    pub(super) fn read(reader: &Reader<'_>, known: &Surroundings) -> Result<Self> {
        let control = reader.current("Control")?;
        let has_loader = reader.is_file("/ntldr")?;
        Ok(Self {
            firmware: known.firmware,
            has_esp_bcd: known.has_esp_bcd,
            has_boot_bcd: known.has_boot_bcd || reader.is_file("/Boot/BCD")?,
            boot_ini: BootIni::load(reader.tree, "/")?.filter(|_| has_loader),
            system_device: control.text("SystemBootDevice")?,
            firmware_device: control.text("FirmwareBootDevice")?,
            options: control.text("SystemStartOptions")?,
            secure_boot: control.child("SecureBoot\\State")?.flag("UEFISecureBootEnabled")?,
            control_sets: reader.windows.control_sets.clone(),
            current: reader.windows.current.clone(),
            failed: reader.system("Select")?.number("Failed")?,
            last_known_good: reader.system("Select")?.number("LastKnownGood")?,
        })
    }

    pub(super) fn notes(&self, has_bcd: bool) -> Vec<Note> {
        let mut notes = Vec::new();
        let found = match self.firmware {
            FirmwareKind::Uefi => self.has_esp_bcd,
            _ if has_bcd => self.has_boot_bcd || self.has_esp_bcd,
            _ => self.boot_ini.is_some(),
        };
        if !found {
            notes.push(Note::warning(
                "no boot configuration was found where this firmware looks for it",
                "the disk with the loader may not be among those that are converted",
            ));
        }
        if self.firmware == FirmwareKind::Bios && self.has_esp_bcd && !self.has_boot_bcd && self.boot_ini.is_none() {
            notes
                .push(Note::warning("a boot configuration for UEFI alone on a machine with BIOS", "the VM needs UEFI"));
        }
        if self.secure_boot == Some(true) {
            notes.push(Note::info(
                "started with Secure Boot",
                "drivers for the VM must have signatures that Windows accepts then, or Secure Boot stays off in the VM",
            ));
        }
        if let Some(number @ 1..) = self.failed {
            notes.push(Note::warning(
                format!("control set {number} failed: Windows went back to the last known good one"),
                "a driver or setting kept it from starting: see that the source itself starts before it is converted",
            ));
        }
        notes.extend(self.boot_ini.iter().flat_map(boot_ini::notes));
        let options = self.options.as_deref().unwrap_or_default().to_ascii_uppercase();
        for (option, meaning) in [
            ("TESTSIGNING", "drivers with test signatures are loaded: not in a VM with Secure Boot"),
            ("SAFEBOOT", "the VM starts in safe mode as well, where most services do not run"),
            ("DEBUG", "Windows waits for a debugger at what the VM may not have"),
        ] {
            if options
                .split_whitespace()
                .any(|word| word.trim_start_matches('/').split([':', '=']).next() == Some(option))
            {
                notes.push(Note::warning(format!("last started with {option}"), meaning));
            }
        }
        notes
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let firmware = match self.firmware {
            FirmwareKind::Bios => "bios",
            FirmwareKind::Uefi => "uefi",
            FirmwareKind::Unknown => "not told",
        };
        writeln!(f, "firmware: {firmware}")?;
        for (what, found) in [
            ("bcd on the esp", self.has_esp_bcd),
            ("bcd in \\Boot", self.has_boot_bcd),
            ("boot.ini", self.boot_ini.is_some()),
        ] {
            writeln!(f, "{what}: {}", answer(Some(found)))?;
        }
        for (what, text) in [
            ("windows was on", &self.system_device),
            ("its loader was on", &self.firmware_device),
            ("options of the last start", &self.options),
        ] {
            writeln!(f, "{what}: {}", text.as_deref().unwrap_or("not told"))?;
        }
        writeln!(f, "secure boot at the last start: {}", answer(self.secure_boot))?;
        writeln!(f, "control sets: {}, in use: {}", self.control_sets.join(" "), self.current)?;
        let number = |number: Option<u32>| number.map_or("not told".to_owned(), |number| number.to_string());
        writeln!(f, "failed: {}, last known good: {}", number(self.failed), number(self.last_known_good))
    }
}
