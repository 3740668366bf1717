//! Objects: what their type says they are, the names of those that are known by their GUIDs, and the headings under which
//! `bcdedit` shows them.
//!
//! Sources: Microsoft's BCD WMI provider reference (`BcdObject`, `Type`), `bcdedit /? ID`, G. Chappell, "BCD Objects", and
//! published output of `bcdedit /enum all`.

use std::fmt;

use serde::Serialize;

use crate::windows::Guid;

/// The type of an object, `Description\Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ObjectType(pub u32);

/// What an object is for, by the highest four bits of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectClass {
    /// A program of the boot environment or of the firmware.
    Application,
    /// Elements that others inherit.
    Inherit,
    /// Options of a device.
    Device,
    /// Any other.
    Unknown,
}

/// Which application an object starts, or whose elements it has to be inherited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Application {
    /// `{fwbootmgr}`: the firmware's own boot variables.
    FirmwareBootManager,
    /// `{bootmgr}`
    BootManager,
    /// `winload`
    OsLoader,
    /// `winresume`
    Resume,
    /// `memtest`
    MemoryTester,
    /// `ntldr`, and what loads Windows' set-up before Vista.
    Legacy,
    /// A boot sector in a file.
    BootSector,
    /// The start-up program of the network boot.
    Startup,
    /// None of these.
    Other,
}

impl ObjectType {
    /// `{bootmgr}`.
    pub const BOOT_MANAGER: Self = Self(0x1010_0002);
    /// A loader of Windows.
    pub const OS_LOADER: Self = Self(0x1020_0003);

    /// What it is for.
    pub fn class(self) -> ObjectClass {
        match self.0 >> 28 {
            1 => ObjectClass::Application,
            2 => ObjectClass::Inherit,
            3 => ObjectClass::Device,
            _ => ObjectClass::Unknown,
        }
    }

    /// The application whose elements it has.
    pub fn application(self) -> Application {
        match (self.class(), self.0 & 0x000f_ffff) {
            (ObjectClass::Device | ObjectClass::Unknown, _) => Application::Other,
            (_, 1) => Application::FirmwareBootManager,
            (_, 2) => Application::BootManager,
            (_, 3) => Application::OsLoader,
            (_, 4) => Application::Resume,
            (_, 5) => Application::MemoryTester,
            (_, 6 | 7) => Application::Legacy,
            (_, 8) => Application::BootSector,
            (_, 9) => Application::Startup,
            _ => Application::Other,
        }
    }

    /// Whether it stands for a boot variable of the firmware.
    pub fn is_firmware_application(self) -> bool {
        self.class() == ObjectClass::Application && self.0 & 0x000f_ffff == 0x000f_ffff
    }
}

impl fmt::Display for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The firmware's boot manager.
pub const FIRMWARE_BOOT_MANAGER: Guid = Guid::of(0xa5a30fa2_3d06_4e9f_b5f4_a01df9d1fcba);
/// The Windows boot manager.
pub const BOOT_MANAGER: Guid = Guid::of(0x9dea862c_5cdd_4e70_acc1_f32b344d4795);

/// GUIDs with a name, and the heading under which the object is shown where it has one of its own.
const KNOWN: [(Guid, &str, &str); 15] = [
    (FIRMWARE_BOOT_MANAGER, "{fwbootmgr}", ""),
    (BOOT_MANAGER, "{bootmgr}", ""),
    (Guid::of(0xb2721d73_1db4_4c62_bf78_c548a880142d), "{memdiag}", ""),
    (Guid::of(0x466f5a88_0af2_4f76_9038_095b170dc21c), "{ntldr}", ""),
    (Guid::of(0xfa926493_6f1c_4193_a414_58f0b2456d1e), "{current}", ""),
    (Guid::of(0x1cae1eb7_a0df_4d4d_9851_4860e34ef535), "{default}", ""),
    (Guid::of(0x0ce4991b_e6b3_4b16_b23c_5e0d9250e5d9), "{emssettings}", "EMS Settings"),
    (Guid::of(0x4636856e_540f_4170_a130_a84776f4c654), "{dbgsettings}", "Debugger Settings"),
    (Guid::of(0x5189b25c_5558_4bf2_bca4_289b11bd29e2), "{badmemory}", "RAM Defects"),
    (Guid::of(0x7ea2e1ac_2e61_4728_aaa3_896d9d0a9f0e), "{globalsettings}", "Global Settings"),
    (Guid::of(0x6efb52bf_1766_41db_a6b3_0ee5eff72bd7), "{bootloadersettings}", "Boot Loader Settings"),
    (Guid::of(0x7ff607e0_4395_11db_b0de_0800200c9a66), "{hypervisorsettings}", "Hypervisor Settings"),
    (Guid::of(0x1afa9c49_16ab_4a5c_901b_212802da9460), "{resumeloadersettings}", "Resume Loader Settings"),
    (Guid::of(0x313e8eed_7098_4586_a9bf_309c61f8d449), "{kerneldbgsettings}", "Kernel Debugger Settings"),
    (Guid::of(0xae5534e0_a924_466c_b836_758539a3ee3a), "{ramdiskoptions}", "Setup Ramdisk Options"),
];

/// The name of an object that is known by its GUID, in braces.
pub fn well_known_name(guid: Guid) -> Option<&'static str> {
    KNOWN.iter().find(|known| known.0 == guid).map(|known| known.1)
}

/// The heading under which `bcdedit` shows it.
pub(super) fn heading(guid: Guid, kind: ObjectType) -> String {
    if let Some(known) = KNOWN.iter().find(|known| known.0 == guid && !known.2.is_empty()) {
        return known.2.to_owned();
    }
    let named = match (kind.class(), kind.application()) {
        (ObjectClass::Application, Application::FirmwareBootManager) => "Firmware Boot Manager",
        (ObjectClass::Application, Application::BootManager) => "Windows Boot Manager",
        (ObjectClass::Application, Application::OsLoader) => "Windows Boot Loader",
        (ObjectClass::Application, Application::Resume) => "Resume from Hibernate",
        (ObjectClass::Application, Application::MemoryTester) => "Windows Memory Tester",
        (ObjectClass::Application, Application::Legacy) => "Windows Legacy OS Loader",
        (ObjectClass::Application, Application::BootSector) => "Real-mode Boot Sector",
        (ObjectClass::Application, _) if kind.is_firmware_application() => "",
        (ObjectClass::Device, _) => "Device options",
        (ObjectClass::Inherit, _) => return format!("Inherited settings ({kind})"),
        _ => return format!("Object ({kind})"),
    };
    if named.is_empty() { format!("Firmware Application ({kind})") } else { named.to_owned() }
}

/// Where among the others `bcdedit /enum all` shows it; those of one rank follow their GUIDs.
pub(super) fn rank(guid: Guid, kind: ObjectType) -> usize {
    let settings = KNOWN.iter().filter(|known| !known.2.is_empty()).position(|known| known.0 == guid);
    match (kind.class(), kind.application()) {
        (ObjectClass::Application, Application::FirmwareBootManager) => 0,
        (ObjectClass::Application, Application::BootManager) => 1,
        (ObjectClass::Application, _) if kind.is_firmware_application() => 2,
        (ObjectClass::Application, Application::OsLoader) => 3,
        (ObjectClass::Application, Application::Resume) => 4,
        (ObjectClass::Application, Application::MemoryTester) => 5,
        (ObjectClass::Application, Application::Legacy) => 6,
        (ObjectClass::Application, _) => 7,
        (ObjectClass::Device, _) => 40,
        (ObjectClass::Inherit, _) => settings.map_or(30, |at| 10 + at),
        (ObjectClass::Unknown, _) => 50,
    }
}
