//! What the boot image has to have drivers for, from sysfs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::mounts::Mount;
use crate::system::System;
use crate::{network, partitions};

/// Where an installed agent keeps its state.
const STATE: &str = "/var/lib/vconverter-agent";
/// Most modaliases, and the longest of them in bytes.
const MODALIASES_MAX: usize = 4096;
const MODALIAS_BYTES_MAX: usize = 1024;
/// Most devices that are made of each other.
const STACK_MAX: usize = 64;

/// Modaliases of all devices, each once.
pub(crate) fn modaliases(system: &System) -> Vec<String> {
    let mut found = BTreeSet::new();
    for bus in system.list("/sys/bus") {
        let devices = Path::new("/sys/bus").join(bus).join("devices");
        for device in system.list(&devices) {
            let Some(text) = system.text(devices.join(device).join("modalias")) else { continue };
            let text = text.trim();
            if !text.is_empty() && text.len() <= MODALIAS_BYTES_MAX && found.len() < MODALIASES_MAX {
                found.insert(text.to_owned());
            }
        }
    }
    found.into_iter().collect()
}

/// Modules that drive the disks of `/` and `/boot`, and the NICs that the machine is reached by, sorted.
pub(crate) fn drivers(system: &System, mounts: &[Mount]) -> Vec<String> {
    let mut disks = BTreeSet::new();
    for point in ["/", "/boot"] {
        if let Some(mount) = mounts.iter().rfind(|mount| mount.point == Path::new(point)) {
            add_disks(system, &start_of(system, mount), &mut disks, 0);
        }
    }
    if disks.is_empty() {
        // A filesystem that does not say what it lies on.
        let all = system.list("/sys/block").into_iter().filter(|name| partitions::stacked(name).is_none());
        disks.extend(all.filter_map(|name| system.path(Path::new("/sys/block").join(name)).canonicalize().ok()));
    }
    let nics = network::physical_nics(system).into_iter();
    let nics =
        nics.filter_map(|name| system.path(Path::new("/sys/class/net").join(name).join("device")).canonicalize().ok());
    let modules = disks.into_iter().chain(nics).flat_map(|place| modules_above(system, &place));
    modules.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The block device of a mount in sysfs.
fn start_of(system: &System, mount: &Mount) -> PathBuf {
    let by_number = system.path(Path::new("/sys/dev/block").join(&mount.device));
    if by_number.exists() {
        return by_number;
    }
    // btrfs has a number of its own for each mount.
    let name = mount.source.strip_prefix("/dev/").unwrap_or_default().replace('/', "!");
    system.path(Path::new("/sys/class/block").join(name))
}

/// The disks that a block device lies on, as places in sysfs.
fn add_disks(system: &System, device: &Path, disks: &mut BTreeSet<PathBuf>, depth: usize) {
    let Ok(place) = device.canonicalize() else { return };
    if depth >= 8 || disks.len() >= STACK_MAX || !place.starts_with(system.path("/sys/devices")) {
        return;
    }
    let names = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).into_iter().flatten().flatten().take(STACK_MAX).map(|entry| entry.path()).collect()
    };
    // A partition of an array has its members at the array.
    let below =
        [place.join("slaves"), place.join("../slaves")].iter().flat_map(|folder| names(folder)).collect::<Vec<_>>();
    if below.is_empty() {
        disks.insert(place);
        return;
    }
    for device in below {
        add_disks(system, &device, disks, depth + 1);
    }
}

/// Modules of the drivers of a device and of all that it hangs on.
fn modules_above(system: &System, place: &Path) -> Vec<String> {
    let end = system.path("/sys/devices");
    let devices = place.ancestors().take_while(|path| path.starts_with(&end));
    let modules = devices.filter_map(|device| device.join("driver/module").canonicalize().ok());
    modules.filter_map(|module| Some(module.file_name()?.to_str()?.to_owned())).collect()
}

/// Whether the folder of the state is the one of a service, and is there again after a restart.
pub(crate) fn state_survives_restart(system: &System, mounts: &[Mount]) -> bool {
    let state = Path::new("/").join(system.name_of(system.state()));
    let mount = crate::mounts::of_path(mounts, &state);
    state == Path::new(STATE)
        && mount.is_some_and(|mount| !["tmpfs", "ramfs", "overlay"].contains(&mount.kind.as_str()))
}
