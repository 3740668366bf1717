//! Drivers that Windows itself has for the hardware of hypervisors: what makes each start at boot, where it does not.
//!
//! Facts are those of the registries of Windows XP SP3, 7 SP1 and 10 (19041) as Windows wrote them (the hives of the test
//! data), and of VMware's, Microsoft's and QEMU's lists of emulated hardware. `pvscsi`, virtio and Xen are in no Windows.

use serde::Serialize;

use super::injection::{Edit, Key, Scope, class_key};
use crate::windows::Release;
use crate::windows::inf::{Data, StartType};

/// A driver of Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InboxDriver {
    /// Its service.
    pub service: &'static str,
    /// Its program in `System32\drivers`.
    pub file: &'static str,
    /// `LoadOrderGroup`.
    pub group: &'static str,
    /// `ErrorControl`, of Windows 10 or the last release that has the driver.
    pub error_control: u32,
    /// GUID of the setup class.
    pub class_guid: &'static str,
    /// Devices that it drives.
    pub ids: &'static [&'static str],
    /// `Parameters\BusType`, where the driver has it.
    pub bus_type: Option<u32>,
    /// First release that has it.
    pub since: (u16, u16),
    /// First release that no longer has it.
    pub until: Option<(u16, u16)>,
    /// What it is for.
    pub hardware: &'static str,
}

/// Setup classes: `SCSIAdapter`, `HDC`, `System`.
const SCSI: &str = "{4d36e97b-e325-11ce-bfc1-08002be10318}";
const IDE: &str = "{4d36e96a-e325-11ce-bfc1-08002be10318}";
const SYSTEM: &str = "{4d36e97d-e325-11ce-bfc1-08002be10318}";

const MINIPORT: &str = "SCSI Miniport";
const EXTENDER: &str = "System Bus Extender";

/// All of them; a controller before what hangs on it.
pub const INBOX_DRIVERS: &[InboxDriver] = &[
    InboxDriver {
        service: "intelide",
        file: "intelide.sys",
        group: EXTENDER,
        error_control: 3,
        class_guid: IDE,
        ids: &["PCI\\VEN_8086&DEV_7010", "PCI\\VEN_8086&DEV_7111"],
        bus_type: None,
        since: (5, 0),
        until: None,
        hardware: "IDE of Intel's PIIX3 and PIIX4: QEMU, VMware, Hyper-V",
    },
    InboxDriver {
        service: "pciide",
        file: "pciide.sys",
        group: EXTENDER,
        error_control: 3,
        class_guid: IDE,
        ids: &["PCI\\CC_0101"],
        bus_type: None,
        since: (5, 0),
        until: None,
        hardware: "any other IDE controller",
    },
    InboxDriver {
        service: "atapi",
        file: "atapi.sys",
        group: MINIPORT,
        error_control: 3,
        class_guid: IDE,
        ids: &["Primary_IDE_Channel", "Secondary_IDE_Channel"],
        bus_type: None,
        since: (5, 0),
        until: None,
        hardware: "channels of IDE controllers",
    },
    InboxDriver {
        service: "msahci",
        file: "msahci.sys",
        group: MINIPORT,
        error_control: 3,
        class_guid: IDE,
        ids: &["PCI\\CC_010601"],
        bus_type: None,
        since: (6, 0),
        until: Some((6, 2)),
        hardware: "AHCI",
    },
    InboxDriver {
        service: "storahci",
        file: "storahci.sys",
        group: MINIPORT,
        error_control: 3,
        class_guid: IDE,
        ids: &["PCI\\CC_010601"],
        bus_type: Some(0xb),
        since: (6, 2),
        until: None,
        hardware: "AHCI",
    },
    InboxDriver {
        service: "stornvme",
        file: "stornvme.sys",
        group: MINIPORT,
        error_control: 3,
        class_guid: SCSI,
        ids: &["PCI\\CC_010802"],
        bus_type: Some(0x11),
        since: (6, 3),
        until: None,
        hardware: "NVMe",
    },
    InboxDriver {
        service: "LSI_SCSI",
        file: "lsi_scsi.sys",
        group: MINIPORT,
        error_control: 1,
        class_guid: SCSI,
        ids: &["PCI\\VEN_1000&DEV_0030"],
        bus_type: Some(1),
        since: (6, 0),
        until: Some((6, 2)),
        hardware: "LSI Logic parallel SCSI of VMware",
    },
    InboxDriver {
        service: "LSI_SAS",
        file: "lsi_sas.sys",
        group: MINIPORT,
        error_control: 1,
        class_guid: SCSI,
        ids: &["PCI\\VEN_1000&DEV_0050", "PCI\\VEN_1000&DEV_0054"],
        bus_type: Some(0xa),
        since: (6, 0),
        until: None,
        hardware: "LSI Logic SAS of VMware and QEMU (SAS1068)",
    },
    InboxDriver {
        service: "LSI_SAS2i",
        file: "lsi_sas2i.sys",
        group: MINIPORT,
        error_control: 1,
        class_guid: SCSI,
        ids: &["PCI\\VEN_1000&DEV_0072"],
        bus_type: Some(0xa),
        since: (10, 0),
        until: None,
        hardware: "LSI SAS2008, as handed through",
    },
    InboxDriver {
        service: "LSI_SAS3i",
        file: "lsi_sas3i.sys",
        group: MINIPORT,
        error_control: 1,
        class_guid: SCSI,
        ids: &["PCI\\VEN_1000&DEV_0097"],
        bus_type: Some(0xa),
        since: (10, 0),
        until: None,
        hardware: "LSI SAS3008, as handed through",
    },
    InboxDriver {
        service: "vmbus",
        file: "vmbus.sys",
        group: EXTENDER,
        error_control: 1,
        class_guid: SYSTEM,
        ids: &["ACPI\\VMBus"],
        bus_type: None,
        since: (6, 1),
        until: None,
        hardware: "the bus of Hyper-V",
    },
    InboxDriver {
        service: "storvsc",
        file: "storvsc.sys",
        group: "Base",
        error_control: 1,
        class_guid: SCSI,
        ids: &["VMBUS\\{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}"],
        bus_type: None,
        since: (6, 1),
        until: None,
        hardware: "SCSI of Hyper-V",
    },
];

impl InboxDriver {
    /// Whether a release has it.
    pub fn is_in(&self, release: &Release) -> bool {
        release.version() >= self.since && self.until.is_none_or(|until| release.version() < until)
    }

    /// What makes it start at boot. The service's key is written whole where it is absent; where it is there, with or
    /// without a program, only its start is changed. Of Windows 8 and later the driver database names its devices
    /// already; earlier ones look for them among the critical devices. Whoever applies this looks for the program first: XP
    /// has it in `driver.cab` until the hardware is found.
    pub fn enabling(&self, release: &Release) -> Vec<Edit> {
        let key = format!("Services\\{}", self.service);
        let set = |key: &str, name: &str, data: Data| Edit::set(Scope::ControlSets, key, name, data);
        let unless = |key: &str, name: &str, data: Data| Edit::set_unless(Scope::ControlSets, key, name, data);
        let mut edits = vec![
            set(&key, "Start", Data::Dword(StartType::Boot as u32)),
            unless(&key, "Type", Data::Dword(1)),
            unless(&key, "ErrorControl", Data::Dword(self.error_control)),
            unless(&key, "Group", Data::Sz(self.group.into())),
            unless(&key, "ImagePath", Data::ExpandSz(format!("System32\\drivers\\{}", self.file))),
        ];
        if let Some(bus_type) = self.bus_type {
            edits.push(unless(&format!("{key}\\Parameters"), "BusType", Data::Dword(bus_type)));
            edits.push(unless(&format!("{key}\\Parameters\\PnpInterface"), "5", Data::Dword(1)));
        }
        edits.push(Edit::RemoveKey { key: Key::new(Scope::ControlSets, format!("{key}\\StartOverride")) });
        if release.version() < (6, 2) {
            for id in self.ids {
                let key = format!("Control\\CriticalDeviceDatabase\\{}", id.replace('\\', "#"));
                edits.push(set(&key, "ClassGUID", Data::Sz(class_key(self.class_guid))));
                edits.push(set(&key, "Service", Data::Sz(self.service.into())));
            }
        }
        edits
    }
}
