//! Names of elements, and of what some numbers mean, as `bcdedit` prints them.
//!
//! Sources: `bcdedit /? TYPES` with its pages for each application, Microsoft's enumerations of element types
//! (`BcdLibraryElementTypes`, `BcdOSLoaderElementTypes`, …), and G. Chappell, "BCD Elements". Elements that are not here are
//! shown as `custom:` with their type, as `bcdedit` shows those that it does not know.

use super::element::{ElementClass, ElementType};
use super::object::Application;

/// The name of an element in an object for `application`; `None` for one that has none.
pub fn element_name(kind: ElementType, application: Application) -> Option<&'static str> {
    let table: &[(u32, &str)] = match (kind.class(), application) {
        (ElementClass::Library, _) => LIBRARY,
        (ElementClass::Application, Application::FirmwareBootManager | Application::BootManager) => BOOT_MANAGER,
        (ElementClass::Application, Application::OsLoader) => OS_LOADER,
        (ElementClass::Application, Application::Resume) => RESUME,
        (ElementClass::Application, Application::MemoryTester) => MEMORY_TESTER,
        (ElementClass::Application, Application::Legacy) => LEGACY,
        (ElementClass::Application, Application::Startup) => STARTUP,
        (ElementClass::Device, _) => DEVICE,
        _ => &[],
    };
    table.iter().find(|(number, _)| *number == kind.0).map(|(_, name)| *name)
}

/// What `number` means in the element of this name; `None` where numbers are shown.
pub(super) fn number_name(element: &str, number: u64) -> Option<&'static str> {
    let names: &[&str] = match element {
        "debugtype" => &["Serial", "1394", "USB", "NET", "Local"],
        "debugstart" => &["Active", "AutoEnable", "Disable"],
        "firstmegabytepolicy" => &["UseNone", "UseAll", "UsePrivate"],
        "configaccesspolicy" => &["Default", "DisallowMmConfig"],
        "integrityservices" => &["Default", "Enable", "Disable"],
        "graphicsresolution" => &["1024x768", "800x600", "1024x600"],
        "displaymessage" | "displaymessageoverride" => &[
            "Default",
            "Resume",
            "HyperV",
            "Recovery",
            "StartupRepair",
            "SystemImageRecovery",
            "CommandPrompt",
            "SystemRestore",
            "PushButtonReset",
        ],
        "booterrorux" => &["Legacy", "Standard", "Simple"],
        "measuredbootlogformat" => &["Default", "Sha1"],
        "nx" => &["OptIn", "OptOut", "AlwaysOff", "AlwaysOn"],
        "pae" => &["Default", "ForceEnable", "ForceDisable"],
        "msi" | "pciexpress" => &["Default", "ForceDisable"],
        "safeboot" => &["Minimal", "Network", "DsRepair"],
        "tscsyncpolicy" => &["Default", "Legacy", "Enhanced"],
        "driverloadfailurepolicy" => &["Fatal", "UseErrorControl"],
        "bootmenupolicy" => &["Legacy", "Standard"],
        "bootstatuspolicy" => &[
            "DisplayAllFailures",
            "IgnoreAllFailures",
            "IgnoreShutdownFailures",
            "IgnoreBootFailures",
            "IgnoreCheckpointFailures",
            "DisplayShutdownFailures",
            "DisplayBootFailures",
            "DisplayCheckpointFailures",
        ],
        "hypervisorlaunchtype" => &["Off", "Auto"],
        "hypervisordebugtype" => &["Serial", "1394", "None", "NET"],
        "bootux" => &["Disabled", "Basic", "Standard"],
        "tpmbootentropy" => &["Default", "ForceDisable", "ForceEnable"],
        _ => return None,
    };
    names.get(usize::try_from(number).ok()?).copied()
}

const LIBRARY: &[(u32, &str)] = &[
    (0x1100_0001, "device"),
    (0x1200_0002, "path"),
    (0x1200_0004, "description"),
    (0x1200_0005, "locale"),
    (0x1400_0006, "inherit"),
    (0x1500_0007, "truncatememory"),
    (0x1400_0008, "recoverysequence"),
    (0x1600_0009, "recoveryenabled"),
    (0x1700_000a, "badmemorylist"),
    (0x1600_000b, "badmemoryaccess"),
    (0x1500_000c, "firstmegabytepolicy"),
    (0x1500_000d, "relocatephysicalmemory"),
    (0x1500_000e, "avoidlowmemory"),
    (0x1600_000f, "traditionalkseg"),
    (0x1600_0010, "bootdebug"),
    (0x1500_0011, "debugtype"),
    (0x1500_0012, "debugaddress"),
    (0x1500_0013, "debugport"),
    (0x1500_0014, "baudrate"),
    (0x1500_0015, "channel"),
    (0x1200_0016, "targetname"),
    (0x1600_0017, "noumex"),
    (0x1500_0018, "debugstart"),
    (0x1200_0019, "busparams"),
    (0x1500_001a, "hostip"),
    (0x1500_001b, "port"),
    (0x1600_001c, "dhcp"),
    (0x1200_001d, "key"),
    (0x1600_001e, "vm"),
    (0x1200_001f, "hostipv6"),
    (0x1600_0020, "bootems"),
    (0x1500_0022, "emsport"),
    (0x1500_0023, "emsbaudrate"),
    (0x1200_0030, "loadoptions"),
    (0x1600_0040, "advancedoptions"),
    (0x1600_0041, "optionsedit"),
    (0x1500_0042, "keyringaddress"),
    (0x1100_0043, "bootstatdevice"),
    (0x1200_0044, "bootstatfilepath"),
    (0x1600_0045, "preservebootstat"),
    (0x1600_0046, "graphicsmodedisabled"),
    (0x1500_0047, "configaccesspolicy"),
    (0x1600_0048, "nointegritychecks"),
    (0x1600_0049, "testsigning"),
    (0x1200_004a, "fontpath"),
    (0x1500_004b, "integrityservices"),
    (0x1500_004c, "volumebandid"),
    (0x1600_0050, "extendedinput"),
    (0x1500_0051, "initialconsoleinput"),
    (0x1500_0052, "graphicsresolution"),
    (0x1600_0053, "restartonfailure"),
    (0x1600_0054, "highestmode"),
    (0x1600_0060, "isolatedcontext"),
    (0x1500_0065, "displaymessage"),
    (0x1500_0066, "displaymessageoverride"),
    (0x1600_0068, "nobootuxtext"),
    (0x1600_0069, "nobootuxprogress"),
    (0x1600_006a, "nobootuxfade"),
    (0x1600_006c, "bootuxdisabled"),
    (0x1600_0072, "nokeyboard"),
    (0x1600_0074, "bootshutdowndisabled"),
    (0x1700_0077, "allowedinmemorysettings"),
    (0x1500_0079, "bootuxtransitiontime"),
    (0x1600_007a, "mobilegraphics"),
    (0x1600_007b, "forcefipscrypto"),
    (0x1500_007d, "booterrorux"),
    (0x1600_007e, "flightsigning"),
    (0x1500_007f, "measuredbootlogformat"),
    (0x1500_0080, "displayrotation"),
    (0x1500_0081, "logcontrol"),
    (0x1600_0082, "nofirmwaresync"),
    (0x1100_0084, "windowssyspart"),
    (0x1600_0087, "numlock"),
    (0x1200_0088, "additionalcipolicy"),
];

const BOOT_MANAGER: &[(u32, &str)] = &[
    (0x2400_0001, "displayorder"),
    (0x2400_0002, "bootsequence"),
    (0x2300_0003, "default"),
    (0x2500_0004, "timeout"),
    (0x2600_0005, "resume"),
    (0x2300_0006, "resumeobject"),
    (0x2400_0010, "toolsdisplayorder"),
    (0x2600_0020, "displaybootmenu"),
    (0x2600_0021, "noerrordisplay"),
    (0x2100_0022, "bcddevice"),
    (0x2200_0023, "bcdfilepath"),
    (0x2600_0028, "processcustomactionsfirst"),
    (0x2700_0030, "customactions"),
    (0x2600_0031, "persistbootsequence"),
];

const OS_LOADER: &[(u32, &str)] = &[
    (0x2100_0001, "osdevice"),
    (0x2200_0002, "systemroot"),
    (0x2300_0003, "resumeobject"),
    (0x2600_0004, "stampdisks"),
    (0x2600_0010, "detecthal"),
    (0x2200_0011, "kernel"),
    (0x2200_0012, "hal"),
    (0x2200_0013, "dbgtransport"),
    (0x2500_0020, "nx"),
    (0x2500_0021, "pae"),
    (0x2600_0022, "winpe"),
    (0x2600_0024, "nocrashautoreboot"),
    (0x2600_0025, "lastknowngood"),
    (0x2600_0026, "oslnointegritychecks"),
    (0x2600_0027, "osltestsigning"),
    (0x2600_0030, "nolowmem"),
    (0x2500_0031, "removememory"),
    (0x2500_0032, "increaseuserva"),
    (0x2500_0033, "perfmem"),
    (0x2600_0040, "vga"),
    (0x2600_0041, "quietboot"),
    (0x2600_0042, "novesa"),
    (0x2600_0043, "novga"),
    (0x2500_0050, "clustermodeaddressing"),
    (0x2600_0051, "usephysicaldestination"),
    (0x2500_0052, "restrictapiccluster"),
    (0x2200_0053, "evstore"),
    (0x2600_0054, "uselegacyapicmode"),
    (0x2600_0060, "onecpu"),
    (0x2500_0061, "numproc"),
    (0x2600_0062, "maxproc"),
    (0x2500_0063, "configflags"),
    (0x2600_0064, "maxgroup"),
    (0x2600_0065, "groupaware"),
    (0x2500_0066, "groupsize"),
    (0x2600_0070, "usefirmwarepcisettings"),
    (0x2500_0071, "msi"),
    (0x2500_0072, "pciexpress"),
    (0x2500_0080, "safeboot"),
    (0x2600_0081, "safebootalternateshell"),
    (0x2600_0090, "bootlog"),
    (0x2600_0091, "sos"),
    (0x2600_00a0, "debug"),
    (0x2600_00a1, "halbreakpoint"),
    (0x2600_00a2, "useplatformclock"),
    (0x2600_00a3, "forcelegacyplatform"),
    (0x2600_00a4, "useplatformtick"),
    (0x2600_00a5, "disabledynamictick"),
    (0x2500_00a6, "tscsyncpolicy"),
    (0x2600_00b0, "ems"),
    (0x2500_00c0, "forcefailure"),
    (0x2500_00c1, "driverloadfailurepolicy"),
    (0x2500_00c2, "bootmenupolicy"),
    (0x2600_00c3, "onetimeadvancedoptions"),
    (0x2600_00c4, "onetimeoptionsedit"),
    (0x2500_00e0, "bootstatuspolicy"),
    (0x2600_00e1, "disableelamdrivers"),
    (0x2500_00f0, "hypervisorlaunchtype"),
    (0x2200_00f1, "hypervisorpath"),
    (0x2600_00f2, "hypervisordebug"),
    (0x2500_00f3, "hypervisordebugtype"),
    (0x2500_00f4, "hypervisordebugport"),
    (0x2500_00f5, "hypervisorbaudrate"),
    (0x2500_00f6, "hypervisorchannel"),
    (0x2500_00f7, "bootux"),
    (0x2600_00f8, "hypervisordisableslat"),
    (0x2200_00f9, "hypervisorbusparams"),
    (0x2500_00fa, "hypervisornumproc"),
    (0x2500_00fb, "hypervisorrootprocpernode"),
    (0x2600_00fc, "hypervisoruselargevtlb"),
    (0x2500_00fd, "hypervisorhostip"),
    (0x2500_00fe, "hypervisorhostport"),
    (0x2500_0100, "tpmbootentropy"),
    (0x2200_0110, "hypervisorusekey"),
    (0x2500_0113, "hypervisorrootproc"),
    (0x2600_0114, "hypervisordhcp"),
    (0x2500_0115, "hypervisoriommupolicy"),
];

const RESUME: &[(u32, &str)] = &[
    (0x2100_0001, "filedevice"),
    (0x2200_0002, "filepath"),
    (0x2600_0003, "customsettings"),
    (0x2600_0004, "pae"),
    (0x2100_0005, "associatedosdevice"),
    (0x2600_0006, "debugoptionenabled"),
    (0x2500_0007, "bootux"),
    (0x2500_0008, "bootmenupolicy"),
];

const MEMORY_TESTER: &[(u32, &str)] = &[
    (0x2500_0001, "passcount"),
    (0x2500_0002, "testmix"),
    (0x2500_0003, "failurecount"),
    (0x2500_0004, "testtofail"),
    (0x2600_0005, "cacheenable"),
];

const LEGACY: &[(u32, &str)] = &[(0x2200_0001, "bpbstring")];

const STARTUP: &[(u32, &str)] = &[(0x2600_0001, "pxesoftreboot"), (0x2200_0002, "applicationname")];

const DEVICE: &[(u32, &str)] = &[
    (0x3500_0001, "ramdiskimageoffset"),
    (0x3500_0002, "ramdisktftpclientport"),
    (0x3100_0003, "ramdisksdidevice"),
    (0x3200_0004, "ramdisksdipath"),
    (0x3500_0005, "ramdiskimagelength"),
    (0x3600_0006, "exportascd"),
    (0x3500_0007, "ramdisktftpblocksize"),
    (0x3500_0008, "ramdisktftpwindowsize"),
    (0x3600_0009, "ramdiskmcenabled"),
    (0x3600_000a, "ramdiskmctftpfallback"),
    (0x3600_000b, "ramdisktftpvarwindow"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_element_has_two_names_and_every_name_stands_with_its_class() {
        for (class, table) in [
            (1, LIBRARY),
            (2, BOOT_MANAGER),
            (2, OS_LOADER),
            (2, RESUME),
            (2, MEMORY_TESTER),
            (2, LEGACY),
            (2, STARTUP),
            (3, DEVICE),
        ] {
            let mut numbers: Vec<u32> = table.iter().map(|(number, _)| *number).collect();
            let mut names: Vec<&str> = table.iter().map(|(_, name)| *name).collect();
            numbers.sort_unstable();
            names.sort_unstable();
            assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "{numbers:x?}");
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
            assert!(numbers.iter().all(|n| n >> 28 == class && ElementType(*n).format().is_some()), "{numbers:x?}");
        }
    }
}
