//! What a guest cannot start without.

use machine::{Family, FirmwareKind, Machine, PartitionTable, Volume, VolumePlace};

use crate::choices::{describe, volume_at};

/// Where a Linux system has what it starts with.
const PLACES: [&str; 12] =
    ["/", "/bin", "/boot", "/boot/efi", "/efi", "/etc", "/lib", "/sbin", "/usr", "/usr/lib", "/var", "/var/lib"];
/// EFI system partition, BIOS boot partition, PReP, Microsoft reserved; an ESP on an MBR disk.
const BOOT_PARTITIONS: [&str; 5] = [
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "21686148-6449-6E6F-744E-656564454649",
    "9E1A2D38-C612-4316-AA26-8B49521E5A8B",
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE",
    "ef",
];

/// Why the guest would not start without the `absent` volumes and with the `taken` disks alone; one reason a volume.
pub(crate) fn needed(machine: &Machine, taken: &[usize], absent: &[VolumePlace]) -> Vec<String> {
    let mut reasons = Vec::new();
    let starts = machine.guest.family != Family::Unknown;
    let first_is_left_out = !taken.contains(&0)
        && machine.disks.first().is_some_and(|disk| disk.layout.partition_table != PartitionTable::None);
    if starts && first_is_left_out && machine.firmware.kind != FirmwareKind::Uefi {
        let path = &machine.disks[0].path;
        reasons.push(format!("{path} is left out, and a BIOS starts from the first disk"));
    }
    let unplaced = unplaced(machine);
    for place in absent {
        let Some((_, volume)) = volume_at(machine, place) else { continue };
        let described = describe(machine, place);
        if let Some(reason) = of_volume(machine, volume, place, &unplaced) {
            reasons.push(format!("{described} is left out, and {reason}"));
        } else if let Some(group) = shared_group(machine, volume, place, absent) {
            reasons.push(format!("{described} is left out, and the volume group {group} would be incomplete"));
        }
    }
    reasons
}

/// Places that the guest needs and that are on no volume whose content is known.
fn unplaced(machine: &Machine) -> Vec<&str> {
    let volumes = || machine.disks.iter().flat_map(|disk| &disk.layout.volumes);
    let known = |point: &str| {
        let is = |points: &[String]| points.iter().any(|one| one == point);
        volumes().any(|v| is(&v.mount_points) || v.parts.iter().any(|part| is(&part.mount_points)))
    };
    let points = machine.guest.mounts.iter().map(|mount| mount.mount_point.as_str());
    points.filter(|point| PLACES.contains(point) && !known(point)).collect()
}

fn of_volume(machine: &Machine, volume: &Volume, place: &VolumePlace, unplaced: &[&str]) -> Option<String> {
    let is_boot = volume.partition_type.as_deref().is_some_and(|kind| BOOT_PARTITIONS.contains(&kind));
    if is_boot && place.part.is_none() {
        return Some("it holds the boot loader".into());
    }
    let parts = volume.parts.iter().filter(|part| place.part.as_ref().is_none_or(|name| *name == part.name));
    let own = (place.part.is_none()).then_some((&volume.kind, &volume.mount_points));
    let inside: Vec<(&String, &Vec<String>)> =
        own.into_iter().chain(parts.map(|part| (&part.kind, &part.mount_points))).collect();
    let point = inside.iter().flat_map(|(_, points)| points.iter()).find(|point| PLACES.contains(&point.as_str()));
    if let Some(point) = point {
        return Some(format!("the system needs {point}"));
    }
    let holds = |kind: &str| !matches!(kind, "swap" | "swsuspend" | "unknown" | "");
    let is_opaque = |kind: &str| {
        !kind.starts_with("ext") && (kind != "LVM2_member" || volume.parts.is_empty()) && kind != "vfat" && holds(kind)
    };
    match machine.guest.family {
        Family::Linux if machine.guest.mounts.is_empty() && inside.iter().any(|(kind, _)| holds(kind)) => {
            Some("which filesystems the system needs could not be read".into())
        }
        Family::Linux if inside.iter().any(|(kind, points)| points.is_empty() && is_opaque(kind)) => {
            unplaced.first().map(|point| format!("it may hold {point}, which was found nowhere else"))
        }
        Family::Windows if inside.iter().any(|(kind, _)| holds(kind)) => {
            Some("which volumes Windows needs is not known".into())
        }
        _ => None,
    }
}

/// The group of a physical volume that has others which are taken.
fn shared_group<'m>(
    machine: &'m Machine,
    volume: &'m Volume,
    place: &VolumePlace,
    absent: &[VolumePlace],
) -> Option<&'m str> {
    let group = volume.volume_group.as_deref().filter(|_| place.part.is_none())?;
    let mut others = machine.disks.iter().enumerate().flat_map(|(disk, d)| {
        let place = move |volume: &'m Volume| (VolumePlace { disk, offset: volume.offset, part: None }, volume);
        d.layout.volumes.iter().map(place)
    });
    let is_shared =
        others.any(|(other, volume)| volume.volume_group.as_deref() == Some(group) && !absent.contains(&other));
    is_shared.then_some(group)
}
