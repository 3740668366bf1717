//! The table of software that belongs to a machine's hardware, or to the hypervisor it ran on.
//!
//! Services' names are those of the makers' own packages and documents: VMware Tools' and Virtual PC's as in the
//! Windows 7, 10 and XP hives of the test data, VirtualBox' and QEMU's as in their sources' INF and installer files,
//! the others as their makers' administration guides list them. A name that ends in `*` stands for all that begin so.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What software is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SoftwareKind {
    /// Another hypervisor's tools.
    HypervisorTools,
    /// Agents that watch a maker's hardware.
    HardwareAgent,
    /// RAID controllers' monitors and drivers.
    Raid,
    /// Drivers of teams of network adapters.
    Teaming,
    /// Drivers and tools of storage networks.
    StorageNetwork,
    /// Uninterruptible power supplies.
    PowerSupply,
    /// Licences in USB devices.
    Dongle,
    /// Encryption of whole disks other than BitLocker.
    DiskEncryption,
}

impl SoftwareKind {
    /// What it means for the conversion.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::HypervisorTools => {
                "its drivers find nothing on another hypervisor and may hinder: to be removed, or switched off"
            }
            Self::HardwareAgent => "it watches hardware that the VM does not have: to be switched off",
            Self::Raid => "its controller is not in the VM: monitors are to be switched off, drivers may stay",
            Self::Teaming => "teams of adapters end with the adapters: to be removed after their addresses were moved",
            Self::StorageNetwork => {
                "disks of a storage network do not come along, and its filters may hinder the VM's disks"
            }
            Self::PowerSupply => "a supply at a serial or USB port is not seen by the VM: it must not shut the VM down",
            Self::Dongle => "licences in a USB device need that device in the VM",
            Self::DiskEncryption => {
                "the disk may be readable by its own boot loader only: decrypt it before the conversion"
            }
        }
    }

    /// Whether it can hinder the VM.
    pub fn is_urgent(self) -> bool {
        !matches!(self, Self::HardwareAgent | Self::PowerSupply)
    }
}

impl fmt::Display for SoftwareKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HypervisorTools => "tools of a hypervisor",
            Self::HardwareAgent => "hardware agent",
            Self::Raid => "raid",
            Self::Teaming => "network teaming",
            Self::StorageNetwork => "storage network",
            Self::PowerSupply => "power supply",
            Self::Dongle => "dongle",
            Self::DiskEncryption => "disk encryption",
        })
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it is called.
    pub product: &'static str,
    /// What it is for.
    pub kind: SoftwareKind,
    /// Names of services and drivers.
    pub services: &'static [&'static str],
    /// Parts of registered names, in lower case.
    pub programs: &'static [&'static str],
}

impl Known {
    /// Whether a service of this name is of it.
    pub fn has_service(&self, name: &str) -> bool {
        self.services.iter().any(|known| match known.strip_suffix('*') {
            Some(start) => name.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start)),
            None => name.eq_ignore_ascii_case(known),
        })
    }

    /// Whether a program registered by this name is of it.
    pub fn has_program(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.programs.iter().any(|part| name.contains(part))
    }
}

const fn known(
    product: &'static str,
    kind: SoftwareKind,
    services: &'static [&'static str],
    programs: &'static [&'static str],
) -> Known {
    Known { product, kind, services, programs }
}

use SoftwareKind::{
    DiskEncryption, Dongle, HardwareAgent, HypervisorTools, PowerSupply, Raid, StorageNetwork, Teaming,
};

/// The table. Integration components of Hyper-V are part of Windows since 7 and 2008 R2, and none here.
pub const KNOWN: &[Known] = &[
    known(
        "VMware Tools",
        HypervisorTools,
        &[
            "VMTools",
            "VMUpgradeHelper",
            "VGAuthService",
            "vmvss",
            "VMware Physical Disk Helper Service",
            "VMMEMCTL",
            "vmci",
            "vsock",
            "vsockSys",
            "vmhgfs",
            "vmmouse",
            "vmusbmouse",
            "vmrawdsk",
            "vmdebug",
            "vm3dmp*",
            "vm3dservice",
            "vmx_svga",
            "vmxnet",
            "vmxnet3ndis*",
            "vnetflt",
            "vnetWFP",
            "vsepflt",
            "giappdef",
            "glxgi",
            "vmStatsProvider",
            "CAF*",
            "vmware-controld",
        ],
        &["vmware tools"],
    ),
    known(
        "Hyper-V Integration Services (installed)",
        HypervisorTools,
        &[],
        &["hyper-v integration services", "hyper-v guest components"],
    ),
    known(
        "Virtual PC or Virtual Server Additions",
        HypervisorTools,
        &[
            "1-vmsrvc",
            "1-driver-vmsrvc",
            "msvmmouf",
            "vpc-s3",
            "vpcs3",
            "vpcbus",
            "vpcubus",
            "vpcuhub",
            "vpcmap",
            "vpcvmm",
        ],
        &["virtual machine additions", "virtual pc integration components"],
    ),
    known(
        "VirtualBox Guest Additions",
        HypervisorTools,
        &["VBoxService", "VBoxGuest", "VBoxMouse", "VBoxSF", "VBoxVideo*", "VBoxWddm"],
        &["virtualbox guest additions"],
    ),
    known(
        "Xen or Citrix tools",
        HypervisorTools,
        &[
            "xenevtchn",
            "xenbus*",
            "xennet*",
            "xenvbd*",
            "xenvif",
            "xeniface*",
            "xenfilt",
            "xendisk",
            "xenhid",
            "xenkbd",
            "xenvkbd",
            "xenpci*",
            "xenstub",
            "scsifilt",
            "xensvc",
            "xenagent",
            "xeninstall",
            "xenlite",
        ],
        &[
            "xenserver tools",
            "citrix tools for virtual machines",
            "xenserver pv",
            "citrix hypervisor pv",
            "xcp-ng windows",
            "xen pv drivers",
            "xenserver vm tools",
            "citrix vm tools",
        ],
    ),
    known(
        "AWS guest drivers",
        HypervisorTools,
        &["AWSNVMe", "rhelnet", "rhelscsi", "rhelfltr", "AmazonSSMAgent", "Ec2Config", "AWSLiteAgent"],
        &["aws pv drivers", "aws nvme", "amazon ec2"],
    ),
    known("Parallels Tools", HypervisorTools, &["prl_*"], &["parallels tools"]),
    known(
        "QEMU, SPICE and virtio tools",
        HypervisorTools,
        &[
            "QEMU-GA",
            "QEMU Guest Agent VSS Provider",
            "spice-agent",
            "vdservice",
            "BalloonService",
            "ovirt-guest-agent",
            "RHEV-Agent",
        ],
        &["qemu guest agent", "virtio-win", "red hat virtio", "spice guest tools", "ovirt guest", "spice agent"],
    ),
    known("Nutanix Guest Tools", HypervisorTools, &["Nutanix*"], &["nutanix guest", "nutanix virtio"]),
    known(
        "HP and HPE management agents",
        HardwareAgent,
        &[
            "CqMgHost",
            "CqMgServ",
            "CqMgStor",
            "CpqNicMgmt",
            "CpqRcmc*",
            "cpqasm*",
            "cpqcidrv",
            "CpqCiDrv",
            "CIMnotify",
            "SysMgmtHp",
            "ProLiantMonitor",
            "sysdown",
            "hpqilo*",
            "HpqIlo*",
            "HPWMISTOR",
            "sysmgmthp",
            "hpilo",
        ],
        &[
            "hp insight",
            "hpe insight",
            "hp proliant",
            "hpe proliant",
            "hp system management homepage",
            "hpe system management homepage",
            "hp lights-out",
            "ilo 2 management",
            "ilo 3/4",
            "agentless management service",
            "hp version control",
            "hp management agents",
        ],
    ),
    known(
        "Dell OpenManage and iDRAC agents",
        HardwareAgent,
        &[
            "dcstor32",
            "dcstor64",
            "dcevt32",
            "dcevt64",
            "omsad",
            "mr2kserv",
            "Server Administrator",
            "dcdbas",
            "iDRAC Service Module",
            "DSM SA*",
        ],
        &["openmanage", "open manage", "idrac service module", "dell system update"],
    ),
    known(
        "IBM and Lenovo agents",
        HardwareAgent,
        &["TWGIPC", "ibmspsvc", "ImControllerService", "LenovoVantageService"],
        &[
            "ibm systems director",
            "ibm director",
            "lenovo xclarity",
            "lenovo vantage",
            "lenovo system interface",
            "ibm automatic server restart",
        ],
    ),
    known("Fujitsu ServerView", HardwareAgent, &["SrvCtrl", "ServerView*"], &["serverview"]),
    known(
        "Intel Rapid or Matrix Storage",
        Raid,
        &["IAStorDataMgrSvc", "IAANTMON", "RstMwService", "iaStorAfs*", "OptaneMon"],
        &["rapid storage technology", "matrix storage manager"],
    ),
    known(
        "MegaRAID Storage Manager",
        Raid,
        &["MSMFramework", "mrmonitor", "MegaMonitorSrv", "LSAService"],
        &["megaraid storage manager", "lsi storage authority"],
    ),
    known(
        "HP and HPE array tools",
        Raid,
        &["Cissesrv", "CISSESRV"],
        &["array configuration utility", "smart storage administrator", "smart array sas/sata event"],
    ),
    known(
        "Adaptec tools",
        Raid,
        &["maxView*", "AdaptecStorageManagerAgent", "AACAgent"],
        &["adaptec storage manager", "maxview"],
    ),
    known("3ware 3DM", Raid, &["3DM2", "3wDrvNT"], &["3ware"]),
    known(
        "Intel network teaming",
        Teaming,
        &["iANSMiniport", "iANSProtocol", "iANSW*", "NALDMAP"],
        &["intel(r) network connections", "intel(r) proset", "intel(r) advanced network services"],
    ),
    known(
        "Broadcom network teaming",
        Teaming,
        &["Blfp", "Blfm", "Basp", "BASFND", "BcmSqlStartupSvc"],
        &[
            "broadcom advanced control suite",
            "broadcom management programs",
            "broadcom gigabit integrated controller",
            "qlogic control suite",
        ],
    ),
    known("HP network teaming", Teaming, &["CPQTeam", "CPQTeamMP", "cpqteam*"], &["hp network configuration utility"]),
    known(
        "EMC PowerPath",
        StorageNetwork,
        &["EmcpBase", "EmcpMpx", "EmcpMpap", "EmcpSAPI", "EmcPower*", "EmcpGpx", "EmcpDm"],
        &["powerpath"],
    ),
    known(
        "Fibre channel and iSCSI tools",
        StorageNetwork,
        &["QLManagementAgentJava", "ql2xAgt", "ElxPlus*", "RMServer", "ocmanager"],
        &["sansurfer", "qconvergeconsole", "onecommand manager", "hbanyware"],
    ),
    known(
        "Multipath modules of storage makers",
        StorageNetwork,
        &["ontapdsm", "hpdsm", "hpevadsm", "mppdsm", "rdacdsm", "sddsm", "sdddsm", "vxdmp*"],
        &["data ontap dsm", "mpio dsm", "mpio full featured dsm", "host utilities", "sdddsm"],
    ),
    known(
        "UPS software",
        PowerSupply,
        &["APCPBEAgent", "APCPBEServer", "APC UPS Service", "apcupsd", "PCBE*", "PCNS*", "ppbed", "CyberPower*"],
        &["powerchute", "cyberpower powerpanel", "eaton intelligent power", "upsmon", "apcupsd"],
    ),
    known(
        "Licence dongles",
        Dongle,
        &[
            "hasplms",
            "Hardlock",
            "haspflt",
            "aksdf",
            "aksfridge",
            "akshasp*",
            "SentinelKeysServer",
            "SentinelProtectionServer",
            "Sentinel64",
            "SNTNLUSB",
            "CodeMeter.exe",
            "wibukey*",
        ],
        &["sentinel ", "hasp ", "codemeter", "wibukey"],
    ),
    known(
        "Disk encryption",
        DiskEncryption,
        &[
            "MfeEpePc",
            "MfeEEAlg",
            "Pointsec*",
            "prot_2k",
            "SGNMaster*",
            "veracrypt",
            "truecrypt",
            "dcrypt",
            "eedDiskEncryptionDriver",
            "PGPwded",
        ],
        &[
            "drive encryption",
            "check point full disk encryption",
            "pointsec",
            "safeguard enterprise",
            "safeguard easy",
            "veracrypt",
            "truecrypt",
            "pgp desktop",
            "endpoint encryption",
            "diskcryptor",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_compared_whole_unless_a_star_stands_at_the_end() {
        let row = known("x", Raid, &["VMTools", "vm3dmp*"], &["vmware tools"]);
        assert!(row.has_service("vmtools") && row.has_service("VM3DMP-debug") && !row.has_service("VMToolsX"));
        assert!(row.has_program("VMware Tools") && !row.has_program("VMware Player"));
    }

    #[test]
    fn no_service_is_listed_for_two_products() {
        for (at, row) in KNOWN.iter().enumerate() {
            for other in &KNOWN[at + 1..] {
                for service in other.services {
                    assert!(
                        !row.has_service(service.trim_end_matches('*')),
                        "{service}: {} {}",
                        row.product,
                        other.product
                    );
                }
            }
            assert!(row.programs.iter().all(|part| part.to_lowercase() == *part), "{}", row.product);
        }
    }
}
