//! Fix-ups for Linux guests, so far those of the Debian family: Debian 8 to 13, Ubuntu 16.04 to 24.04.
//!
//! Each concern plans its own change from files alone. Nothing of the guest is run; what could only be made by running
//! its tools (a rebuilt initramfs) is made by extending what is there. A serial console is never added.

mod absent;
mod bootloader;
mod drivers;
pub mod grub;
pub mod initramfs;
mod kernel;
mod module_index;
pub(crate) mod modules;
mod mounts;
mod names;
mod network;
pub(crate) mod shell;
mod stale;
mod trace;
mod version;

pub use kernel::BootKernel;
pub use module_index::round_trip as module_index_round_trip;
pub use mounts::{FilesystemLine, parse_fstab};
pub use names::{place_mounts, places_of_device, uuid_of_device};

use machine::{Capabilities, DiskBus, FirmwareKind, HypervInterfaces, Machine, VolumePlace};

use crate::plan::fit;
use crate::{Error, FileTree, Plan, Result, identify};

/// Plans every fix-up for the Linux guest in `tree`, which ran on `machine` and gets a VM without its `absent` volumes;
/// those in `refused`, and those for which there is no room, will not be applied.
///
/// # Errors
/// Only what keeps the guest from being looked at at all; what a single fix-up cannot do is a warning of the plan.
pub fn plan(tree: &dyn FileTree, machine: &Machine, absent: &[VolumePlace], refused: &[String]) -> Result<Plan> {
    fit(tree, refused, &[], |refused| Ok((draft(tree, machine, absent, refused)?, Vec::new())))
}

/// The plan of all fix-ups, whether there is room for them or not.
fn draft(tree: &dyn FileTree, machine: &Machine, absent: &[VolumePlace], refused: &[String]) -> Result<Plan> {
    let mut warnings = Vec::new();
    let kernel = match kernel::boot_kernel(tree) {
        Ok(kernel) => Some(kernel),
        Err(error) => {
            warnings.push(format!("which kernel boots could not be told: {}", reason(&error)));
            None
        }
    };
    let mut fixups = Vec::new();
    let (fixup, mut buses) = drivers::plan(tree, kernel.as_ref(), &mut warnings);
    fixups.extend(fixup);
    let device_names = |tree: &dyn FileTree, machine: &Machine, warnings: &mut Vec<String>| {
        names::plan(tree, machine, absent, warnings)
    };
    type Concern<'c> = &'c dyn Fn(&dyn FileTree, &Machine, &mut Vec<String>) -> Result<Vec<crate::Fixup>>;
    let concerns: [(&str, Concern<'_>); 5] = [
        ("device names", &device_names),
        ("network", &network::plan),
        ("boot loader", &bootloader::plan),
        ("stale hardware state", &stale::plan),
        ("traces of the agent", &trace::plan),
    ];
    for (what, concern) in concerns {
        match concern(tree, machine, &mut warnings) {
            Ok(planned) => fixups.extend(planned),
            Err(error) => warnings.push(format!("{what} left as they are: {}", reason(&error))),
        }
    }
    // Without one of these the guest does not find its disks on virtio; with the old bus it finds them as it did.
    let left_out = |fixup: &&crate::Fixup| !fixup.already_so && refused.contains(&fixup.id);
    let mut needed = fixups.iter().filter(|fixup| ["boot-drivers", "device-names"].contains(&fixup.id.as_str()));
    if buses.disk == DiskBus::Virtio
        && let Some(fixup) = needed.find(left_out)
    {
        warnings.push(format!("no virtio disks: the fix-up {} is left out", fixup.id));
        buses.disk = drivers::bus_without_virtio(tree, kernel.as_ref(), &mut warnings);
    }
    let capabilities = Capabilities {
        disk_bus: buses.disk,
        nic_model: buses.nic,
        firmware: firmware(tree, machine)?,
        clock_utc: clock_utc(tree)?,
        secure_boot: None,
        tpm: false,
        hyperv: HypervInterfaces::None,
    };
    Ok(Plan { guest: identify(tree), fixups, capabilities, warnings, room: Vec::new() })
}

/// An error with its cause, in one line.
fn reason(error: &Error) -> String {
    match &error.source {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The firmware that the source has, or, where nobody could tell, the one that the guest is installed for.
fn firmware(tree: &dyn FileTree, machine: &Machine) -> Result<FirmwareKind> {
    Ok(match machine.firmware.kind {
        FirmwareKind::Unknown if !bootloader::vendor_folders(tree)?.is_empty() => FirmwareKind::Uefi,
        FirmwareKind::Unknown if tree.exists("/boot/grub/i386-pc/core.img")? => FirmwareKind::Bios,
        known => known,
    })
}

/// Third line of adjtime(5): `LOCAL`, else UTC.
fn clock_utc(tree: &dyn FileTree) -> Result<bool> {
    let text = tree.text("/etc/adjtime")?.unwrap_or_default();
    Ok(text.lines().nth(2).is_none_or(|line| line.trim() != "LOCAL"))
}
