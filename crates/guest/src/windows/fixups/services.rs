//! Services and filters that belong to hardware or hypervisors that are gone: those of [`inspection::software`].
//!
//! They are switched off, not removed: their files stay, and the bundle that takes fix-ups back switches them on again. A driver that
//! is switched off is taken out of the filters of disks and volumes, too: Windows starts no device whose filter is missing.

use super::ground::Ground;
use super::registry::Registry;
use crate::Result;
use crate::plan::Fixup;
use crate::windows::inspection::software::{Found, FoundService, Software, SoftwareKind};

/// Tools that a guest of QEMU is to have.
const WELCOME: &str = "QEMU, SPICE and virtio tools";
/// Drivers of other hypervisors' hardware that a guest may meet there; without it they do nothing.
const HARDWARE_DRIVERS: &[&str] = &[
    "vmci",
    "vsock",
    "vsocksys",
    "pvscsi",
    "vmxnet",
    "vmxnet3ndis5",
    "vmxnet3ndis6",
    "xenbus",
    "xenvbd",
    "xennet",
    "xenvif",
    "xenfilt",
    "xendisk",
    "xeniface",
];
/// `Type` of drivers of devices, and `Start` of what the boot loader loads and of what never starts.
const DEVICE_DRIVER: u32 = 1;
const BOOT: u32 = 0;
const DISABLED: u32 = 4;

/// Setup classes whose filters stand between Windows and its disks: disk drives, volumes, SCSI controllers, IDE controllers.
const FILTERED: &[&str] = &[
    "{4d36e967-e325-11ce-bfc1-08002be10318}",
    "{71a27cdd-812a-11d0-bec7-08002be2092f}",
    "{4d36e97b-e325-11ce-bfc1-08002be10318}",
    "{4d36e96a-e325-11ce-bfc1-08002be10318}",
];

/// Where programs stand that start with whoever logs on, and those of hypervisors' tools.
const RUN: [&str; 2] =
    ["Microsoft\\Windows\\CurrentVersion\\Run", "Wow6432Node\\Microsoft\\Windows\\CurrentVersion\\Run"];
const RUN_OF_TOOLS: &[&str] =
    &["VMware Tools", "VMware User Process", "VBoxTray", "Parallels Tools Center", "SharedIntApp", "VMUserServices"];

pub(super) fn plan(ground: &Ground<'_>, registry: &mut Registry<'_>, software: &Software) -> Result<Vec<Fixup>> {
    let is_tool = |found: &Found| found.kind == SoftwareKind::HypervisorTools && found.product != WELCOME;
    let mut tools = switch_off(registry, software.found.iter().filter(|found| is_tool(found)), |service| {
        !HARDWARE_DRIVERS.iter().any(|kept| kept.eq_ignore_ascii_case(&service.name))
    })?;
    for key in RUN {
        for name in RUN_OF_TOOLS {
            if registry.software.value(key, name)?.is_some() {
                registry.software.remove_value(key, name)?;
                tools.extend((!tools.iter().any(|known| known == name)).then(|| (*name).to_owned()));
            }
        }
    }
    let tools = Fixup::new(
        "hypervisor-tools",
        format!("tools of other hypervisors switched off{}", among(&tools)),
        "on another hypervisor they fail, or stop the guest",
        registry.take(),
    );
    let is_agent = |found: &Found| {
        matches!(found.kind, SoftwareKind::HardwareAgent | SoftwareKind::Raid | SoftwareKind::PowerSupply)
    };
    // A disk may hang on a RAID driver's filter; without its controller it does nothing.
    let is_harmless = |service: &FoundService| service.kind != Some(DEVICE_DRIVER) || service.start != BOOT;
    let mut hardware = switch_off(registry, software.found.iter().filter(|found| is_agent(found)), is_harmless)?;
    hardware.extend(processor(ground, registry)?);
    let hardware = Fixup::new(
        "old-hardware",
        format!("services of the old hardware switched off{}", among(&hardware)),
        "they wait for hardware that the VM has not",
        registry.take(),
    );
    Ok(vec![tools, hardware])
}

fn among(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) }
}

/// Switches off those services of products that are `wanted`; the products that had any running.
fn switch_off<'f>(
    registry: &mut Registry<'_>,
    products: impl Iterator<Item = &'f Found>,
    wanted: impl Fn(&FoundService) -> bool,
) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for product in products {
        let mut was_on = false;
        for service in product.services.iter().filter(|service| service.start != DISABLED && wanted(service)) {
            was_on |= registry.disable(&service.name)?;
            let is_it = |filter: &str| filter.eq_ignore_ascii_case(&service.name);
            for class in FILTERED {
                for list in ["UpperFilters", "LowerFilters"] {
                    registry.remove_texts(&format!("Control\\Class\\{class}"), list, &is_it)?;
                }
            }
        }
        if was_on {
            names.push(product.product.clone());
        }
    }
    Ok(names)
}

/// Drivers that manage the power of one maker's processors stop Windows XP and Server 2003 on another's (Microsoft, KB 953356).
fn processor(ground: &Ground<'_>, registry: &mut Registry<'_>) -> Result<Option<String>> {
    if ground.release.major > 5 {
        return Ok(None);
    }
    let mut was_on = false;
    for service in ["intelppm", "amdk7", "amdk8", "Processor", "p3", "crusoe"] {
        was_on |= registry.disable(service)?;
    }
    Ok(was_on.then(|| "power management of the processor".to_owned()))
}
