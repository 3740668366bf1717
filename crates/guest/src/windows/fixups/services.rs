//! Services and filters that belong to hardware or hypervisors that are gone.
//!
//! They are switched off, not removed: their files stay, and the bundle that takes fix-ups back switches them on again. Names are
//! those under which the vendors' own packages install them. What a service of the operating system is, is in no list.

use super::ground::Ground;
use super::registry::Registry;
use crate::Result;
use crate::plan::Fixup;

/// Services of one product.
struct Product {
    name: &'static str,
    services: &'static [&'static str],
    /// Values of `Run` that start its programs for everybody who logs on.
    run: &'static [&'static str],
}

/// Tools and drivers that hypervisors put into their guests. The drivers of a target's own hardware are not among them.
const HYPERVISORS: &[Product] = &[
    Product {
        name: "VMware Tools",
        services: &[
            "VMTools",
            "VMUpgradeHelper",
            "VGAuthService",
            "vmvss",
            "vmhgfs",
            "vmmemctl",
            "VMMEMCTL",
            "vmrawdsk",
            "vmusbmouse",
            "vmmouse",
            "vm3dservice",
            "vm3dmp",
            "vm3dmp_loader",
            "VMAudio",
            "vnetWFP",
            "vnetflt",
            "vsepflt",
            "giappdef",
            "glxgi",
            "VMwareCAF",
            "VMwareCAFCommAmqpListener",
            "VMwareCAFManagementAgentHost",
            "vmware-physdisk-helper",
        ],
        run: &["VMware Tools", "VMware User Process"],
    },
    Product {
        name: "VirtualBox Guest Additions",
        services: &["VBoxService", "VBoxGuest", "VBoxMouse", "VBoxSF", "VBoxVideo", "VBoxVideoW8", "VBoxWddm"],
        run: &["VBoxTray"],
    },
    Product {
        name: "Parallels Tools",
        services: &[
            "prl_boot",
            "prl_dd",
            "prl_eth5",
            "prl_fs",
            "prl_memdev",
            "prl_mouf",
            "prl_pv32",
            "prl_pv64",
            "prl_scsi",
            "prl_sound",
            "prl_strg",
            "prl_tg",
            "prl_time",
            "prl_uprof",
            "prl_va",
            "prl_kmdd",
            "ParallelsToolsService",
            "Parallels Coherence Service",
        ],
        run: &["Parallels Tools Center", "SharedIntApp"],
    },
    Product {
        name: "Citrix XenServer Tools",
        services: &[
            "XenInstall",
            "XenSvc",
            "xensvc",
            "XenGuestAgent",
            "xenagent",
            "Citrix Xen Guest Agent",
            "InstallAgent",
            "xenvbd_crashdump",
        ],
        run: &[],
    },
    Product {
        name: "Virtual PC additions",
        services: &["1-vmsrvc", "1-driver-vmsrvc", "vpc-s3", "msvmmouf", "MS_VMMouF"],
        run: &["VMUserServices"],
    },
];

/// Agents of servers' makers, RAID monitors, and what talks to boards that a VM has not.
const HARDWARE: &[Product] = &[
    Product {
        name: "HP/HPE management",
        services: &[
            "CIMnotify",
            "CpqNicMgmt",
            "CqMgHost",
            "CqMgServ",
            "CqMgStor",
            "CpqRcmc",
            "CpqCiDrv",
            "CPQCISSE",
            "cpqteam",
            "sysdown",
            "SysMgmtHp",
            "ProLiantMonitor",
            "hpqilo2",
            "hpqilo3",
            "hpqams",
            "ams",
            "HPSMHD",
            "Cissesrv",
            "cpqvcagent",
            "HPWMISTOR",
            "hpdskflt",
            "hpqwmiex",
        ],
        run: &[],
    },
    Product {
        name: "Dell OpenManage",
        services: &[
            "dcevt32",
            "dcevt64",
            "dcstor32",
            "dcstor64",
            "dcdbas",
            "dcdbas32",
            "dcdbas64",
            "mr2kserv",
            "omsad",
            "Server Administrator",
            "dsm_om_shrsvc",
            "dsm_om_connsvc",
            "dsm_sa_datamgr32",
            "dsm_sa_eventmgr32",
            "dsm_sa_shrsvc32",
            "iDRACiSM",
            "dsm_ism_srvmgr",
        ],
        run: &[],
    },
    Product {
        name: "IBM/Lenovo management",
        services: &["ibmasrex", "ibmasr", "ibmcim", "IBMSMBus", "wmicimserver", "tier1slp", "ibmspw", "IBM_usb_ether"],
        run: &[],
    },
    Product {
        name: "Fujitsu ServerView",
        services: &["SrvCtrl", "FSCServerViewRAID", "amservice", "SVRemoteConnector", "CinemaService"],
        run: &[],
    },
    Product {
        name: "LSI/Broadcom MegaRAID",
        services: &["MSMFramework", "MrMonitor", "mrmonitor", "LSAService", "LsiMegaRAIDStorageManager", "Popup"],
        run: &[],
    },
    Product {
        name: "Adaptec RAID",
        services: &["AdaptecStorageManagerAgent", "arcstorman", "maxViewWebServer", "AACAgent"],
        run: &[],
    },
    Product {
        name: "Intel RST and RAID Web Console",
        services: &["IAStorDataMgrSvc", "IAANTMON", "RstMwService", "iaStorAfsService"],
        run: &["IAStorIcon", "IAAnotif"],
    },
    Product {
        name: "UPS and sensor programs of the board",
        services: &[
            "IpmiDrv",
            "ipmidrv_vendor",
            "MEIx64",
            "LMS",
            "UNS",
            "jhi_service",
            "esifsvc",
            "WMIRegistrationService",
        ],
        run: &[],
    },
];

/// Filters of disks and volumes that stop a machine from booting where their drivers find nothing to filter.
const FILTERS: &[&str] = &[
    "hpdskflt",
    "SymDskFlt",
    "vsepflt",
    "giappdef",
    "iaStorF",
    "iaStorAF",
    "EMCMPIO",
    "EmcPowerPath",
    "EmcpBase",
    "emcpgpx",
    "hbmpfltr",
];

/// Setup classes whose filters stand between Windows and its disks: disk drives, volumes, SCSI controllers, IDE controllers.
const FILTERED: &[&str] = &[
    "{4d36e967-e325-11ce-bfc1-08002be10318}",
    "{71a27cdd-812a-11d0-bec7-08002be2092f}",
    "{4d36e97b-e325-11ce-bfc1-08002be10318}",
    "{4d36e96a-e325-11ce-bfc1-08002be10318}",
];

pub(super) fn plan(ground: &Ground<'_>, registry: &mut Registry<'_>) -> Result<Vec<Fixup>> {
    let tools = switch_off(registry, HYPERVISORS)?;
    let tools = Fixup::new(
        "hypervisor-tools",
        format!("tools of other hypervisors switched off{}", among(&tools)),
        "on another hypervisor they fail, or stop the guest",
        registry.take(),
    );
    let mut hardware = switch_off(registry, HARDWARE)?;
    hardware.extend(processor(ground, registry)?);
    let is_gone = |filter: &str| FILTERS.iter().any(|known| known.eq_ignore_ascii_case(filter));
    let mut is_filtered = false;
    for class in FILTERED {
        for list in ["UpperFilters", "LowerFilters"] {
            is_filtered |= registry.remove_texts(&format!("Control\\Class\\{class}"), list, &is_gone)?;
        }
    }
    if is_filtered {
        hardware.push("disk filters");
    }
    let hardware = Fixup::new(
        "old-hardware",
        format!("services and filters of the old hardware switched off{}", among(&hardware)),
        "they wait for hardware that the VM has not",
        registry.take(),
    );
    Ok(vec![tools, hardware])
}

fn among(names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) }
}

/// Switches the services of products off; the products that had any running.
fn switch_off(registry: &mut Registry<'_>, products: &[Product]) -> Result<Vec<&'static str>> {
    const RUN: [&str; 2] =
        ["Microsoft\\Windows\\CurrentVersion\\Run", "Wow6432Node\\Microsoft\\Windows\\CurrentVersion\\Run"];
    let mut found = Vec::new();
    for product in products {
        let mut was_on = false;
        for service in product.services {
            was_on |= registry.disable(service)?;
        }
        for key in RUN {
            for name in product.run {
                was_on |= registry.software.value(key, name)?.is_some();
                registry.software.remove_value(key, name)?;
            }
        }
        if was_on {
            found.push(product.name);
        }
    }
    Ok(found)
}

/// Drivers that manage the power of one maker's processors stop Windows XP and Server 2003 on another's (Microsoft, KB 953356).
fn processor(ground: &Ground<'_>, registry: &mut Registry<'_>) -> Result<Option<&'static str>> {
    if ground.release.major > 5 {
        return Ok(None);
    }
    let mut was_on = false;
    for service in ["intelppm", "amdk7", "amdk8", "Processor", "p3", "crusoe"] {
        was_on |= registry.disable(service)?;
    }
    Ok(was_on.then_some("power management of the processor"))
}
