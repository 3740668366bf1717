//! What of a machine is taken, and how and where each of its disks is made: the operator's words, and what they mean for
//! one machine.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use block::{Extent, Ranges};
use guest::linux::places_of_device;
use machine::{ByteCount, Disk, Machine, Part, Volume, VolumePlace};
use protocol::message::{LEFT_OUT_MAX, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::needed::needed;
use crate::{Error, ErrorKind, Request, Result};

/// How much room an image has from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Allocation {
    /// As much as it holds; it grows.
    #[default]
    Thin,
    /// As much as its disk can ever take.
    Full,
}

/// What of the machine is taken, and what is said of single disks. Disks are named by path (`/dev/sda`, `sda`), serial,
/// WWN or position (`0`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Choices {
    /// Disks that are left out; the VM lacks them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_disks: Vec<String>,
    /// Volumes whose content is left out, by mount point, partition (`sda3`, `0:3`), logical volume, label or UUID: they keep
    /// their place on their disk, read as zeros, and are not mounted any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_volumes: Vec<String>,
    /// What is said of single disks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disk_settings: Vec<DiskSetting>,
    /// Leave out even what the guest needs to start.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_unbootable: bool,
}

/// What is said of one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskSetting {
    /// Which.
    pub disk: String,
    /// Other room than the request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Allocation>,
    /// Existing folder in which its image appears instead: in a folder with the VM's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

/// What the choices mean for one machine.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// The disks that are taken, in the machine's order.
    pub disks: Vec<TakenDisk>,
    /// Volumes that the VM does not have.
    pub absent: Vec<VolumePlace>,
    /// The machine has disks that are not taken, or volumes.
    pub is_partial: bool,
}

/// A disk that is taken.
#[derive(Clone, Debug)]
pub(crate) struct TakenDisk {
    /// Its position in the machine.
    pub index: usize,
    /// Room of its image.
    pub allocation: Allocation,
    /// Where its image goes, if not into the result's folder.
    pub folder: Option<PathBuf>,
    /// What is not read of it.
    pub left_out: Ranges,
    /// Bytes that are to be read, about.
    pub bytes: ByteCount,
    /// Whether the content of swap is read, too.
    pub keeps_swap: bool,
}

impl TakenDisk {
    /// As an agent is told.
    pub(crate) fn scope(&self) -> Scope {
        let left_out = self.left_out.iter().map(|extent| (extent.start(), extent.length()));
        Scope { keeps_swap: self.keeps_swap, left_out: left_out.collect(), within: Vec::new() }
    }
}

impl Selection {
    /// What `request` chooses of `machine`.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a name that nothing or several things have, and for what cannot be left out.
    pub(crate) fn of(machine: &Machine, request: &Request) -> Result<Self> {
        let choices = &request.choices;
        let taken = take_disks(machine, request)?;
        let mut absent: Vec<VolumePlace> = Vec::new();
        for (index, disk) in machine.disks.iter().enumerate().filter(|(index, _)| !taken.contains(index)) {
            let place = |volume: &Volume| VolumePlace { disk: index, offset: volume.offset, part: None };
            absent.extend(disk.layout.volumes.iter().map(place));
        }
        for name in &choices.skip_volumes {
            let place = find_volume(machine, name)?;
            if !absent.contains(&place) {
                absent.push(place);
            }
        }
        add_torn(machine, &taken, &mut absent);
        let mut disks = Vec::new();
        for &index in &taken {
            let disk = &machine.disks[index];
            let (mut allocation, mut folder) = (request.allocation, None);
            for setting in &choices.disk_settings {
                if find_disk(&machine.disks, &setting.disk)? == index {
                    allocation = setting.allocation.unwrap_or(allocation);
                    folder = setting.folder.clone().or(folder);
                }
            }
            let folder = folder.map(|folder| target_folder(&folder, &request.output)).transpose()?.flatten();
            let left_out = left_out_of(machine, index, &absent)?;
            let bytes = expected_bytes(disk, index, &absent, request.keep_swap);
            let keeps_swap = request.keep_swap;
            disks.push(TakenDisk { index, allocation, folder, left_out, bytes, keeps_swap });
        }
        for setting in &choices.disk_settings {
            let index = find_disk(&machine.disks, &setting.disk)?;
            if !taken.contains(&index) {
                let context = format!("disk {}: it is left out, and something is said of how it is made", setting.disk);
                return Err(Error::new(ErrorKind::Refused, context));
            }
        }
        let is_partial = taken.len() != machine.disks.len() || !absent.is_empty();
        Ok(Self { disks, absent, is_partial })
    }

    /// Positions of the disks that are taken.
    pub(crate) fn indexes(&self) -> Vec<usize> {
        self.disks.iter().map(|disk| disk.index).collect()
    }

    /// Why the guest would not start from what is taken.
    pub(crate) fn missing(&self, machine: &Machine) -> Vec<String> {
        needed(machine, &self.indexes(), &self.absent)
    }

    /// Refuses what would not start, unless that was said to be meant.
    pub(crate) fn check_bootable(&self, machine: &Machine, request: &Request) -> Result<()> {
        match self.missing(machine).first() {
            Some(reason) if !request.choices.allow_unbootable => {
                let context = format!("{reason}: take it, or say --allow-unbootable too");
                Err(Error::new(ErrorKind::Refused, context))
            }
            _ => Ok(()),
        }
    }

    /// The machine with the disks that it gets, and nothing known of volumes whose content is left out.
    pub(crate) fn of_vm(&self, machine: &Machine) -> Machine {
        let mut disks = Vec::new();
        for taken in &self.disks {
            let mut disk = machine.disks[taken.index].clone();
            for volume in &mut disk.layout.volumes {
                let is_absent = |part: Option<&Part>| {
                    let part = part.map(|part| part.name.clone());
                    self.absent.contains(&VolumePlace { disk: taken.index, offset: volume.offset, part })
                };
                let gone = is_absent(None);
                let parts: Vec<Part> =
                    volume.parts.iter().filter(|part| !gone && !is_absent(Some(part))).cloned().collect();
                volume.parts = parts;
                if gone {
                    (volume.kind, volume.used_bytes) = ("unknown".into(), ByteCount::ZERO);
                    (volume.label, volume.uuid, volume.volume_group) = (None, None, None);
                    volume.mount_points.clear();
                }
            }
            disks.push(disk);
        }
        Machine { disks, ..machine.clone() }
    }

    /// What is left out, in words.
    pub(crate) fn left_out(&self, machine: &Machine) -> Vec<String> {
        let taken = self.indexes();
        let disks = machine.disks.iter().enumerate().filter(|(index, _)| !taken.contains(index));
        let disks = disks.map(|(_, disk)| disk.path.clone());
        let volumes = self.absent.iter().filter(|place| taken.contains(&place.disk));
        disks.chain(volumes.map(|place| describe(machine, place))).collect()
    }
}

/// A volume in words: `/data (partition 3 of /dev/sda)`.
pub(crate) fn describe(machine: &Machine, place: &VolumePlace) -> String {
    let Some((disk, volume)) = volume_at(machine, place) else { return "a volume".into() };
    let part = place.part.as_ref().and_then(|name| volume.parts.iter().find(|part| part.name == *name));
    let (points, what) = match (part, volume.number) {
        (Some(part), _) => (&part.mount_points, part.name.clone()),
        (None, Some(number)) => (&volume.mount_points, format!("partition {number} of {}", disk.path)),
        (None, None) => (&volume.mount_points, disk.path.clone()),
    };
    match points.is_empty() {
        true => what,
        false => format!("{} ({what})", points.join(", ")),
    }
}

pub(crate) fn volume_at<'m>(machine: &'m Machine, place: &VolumePlace) -> Option<(&'m Disk, &'m Volume)> {
    let disk = machine.disks.get(place.disk)?;
    Some((disk, disk.layout.volumes.iter().find(|volume| volume.offset == place.offset)?))
}

/// Positions of the disks that are taken, in the machine's order.
fn take_disks(machine: &Machine, request: &Request) -> Result<Vec<usize>> {
    let disks = &machine.disks;
    let find = |names: &[String]| names.iter().map(|name| find_disk(disks, name)).collect::<Result<Vec<usize>>>();
    let (wanted, skipped) = (find(&request.disks)?, find(&request.choices.skip_disks)?);
    if let Some(both) = wanted.iter().find(|index| skipped.contains(index)) {
        let context = format!("disk {}: it is both wanted and left out", disks[*both].path);
        return Err(Error::new(ErrorKind::Refused, context));
    }
    let is_taken = |index: &usize| (wanted.is_empty() || wanted.contains(index)) && !skipped.contains(index);
    let taken: Vec<usize> = (0..disks.len()).filter(is_taken).collect();
    if taken.is_empty() {
        let context = if disks.is_empty() { "the source has no disk" } else { "all disks are left out" };
        return Err(Error::new(ErrorKind::Refused, context));
    }
    if let Some(&empty) = taken.iter().find(|&&index| disks[index].virtual_size == ByteCount::ZERO) {
        return Err(Error::new(ErrorKind::Refused, format!("{}: the disk is empty", disks[empty].path)));
    }
    Ok(taken)
}

/// The position of the disk with this name.
fn find_disk(disks: &[Disk], name: &str) -> Result<usize> {
    let is = |disk: &Disk, index: usize| {
        disk.path == name
            || disk.identity.serial.as_deref() == Some(name)
            || disk.identity.wwn.as_deref() == Some(name)
            || disk.path.strip_prefix("/dev/") == Some(name)
            || name.parse() == Ok(index)
    };
    let found: Vec<usize> = (0..disks.len()).filter(|&index| is(&disks[index], index)).collect();
    let known: Vec<_> = disks.iter().map(|disk| disk.path.as_str()).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Error::new(ErrorKind::Refused, format!("disk {name:?}: the source has {}", known.join(", ")))),
        _ => {
            let context = format!("disk {name:?}: several have that name, of {}: name them by path", known.join(", "));
            Err(Error::new(ErrorKind::Refused, context))
        }
    }
}

/// The volume with this name.
fn find_volume(machine: &Machine, name: &str) -> Result<VolumePlace> {
    let mut found: Vec<VolumePlace> = places_of_device(machine, name, "auto");
    for (index, disk) in machine.disks.iter().enumerate() {
        for volume in &disk.layout.volumes {
            let place = |part: Option<&Part>| VolumePlace {
                disk: index,
                offset: volume.offset,
                part: part.map(|part| part.name.clone()),
            };
            let known = |points: &[String], label: &Option<String>, uuid: &Option<String>| {
                points.iter().any(|point| point == name)
                    || label.as_deref() == Some(name)
                    || uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(name))
            };
            if known(&volume.mount_points, &volume.label, &volume.uuid) || is_partition(disk, index, volume, name) {
                found.push(place(None));
            }
            let parts = volume.parts.iter();
            let is = |part: &&Part| part.name == name || known(&part.mount_points, &part.label, &part.uuid);
            found.extend(parts.filter(is).map(|part| place(Some(part))));
        }
    }
    found.sort();
    found.dedup();
    match found.as_slice() {
        [one] => {
            let whole =
                volume_at(machine, one).is_some_and(|(_, volume)| volume.number.is_none() && one.part.is_none());
            match whole {
                true => {
                    Err(Error::new(ErrorKind::Refused, format!("volume {name:?} is a whole disk: leave out the disk")))
                }
                false => Ok(one.clone()),
            }
        }
        [] => {
            let context =
                format!("volume {name:?}: no mount point, partition, logical volume, label or UUID of the source");
            Err(Error::new(ErrorKind::Refused, context))
        }
        several => {
            let several: Vec<String> = several.iter().map(|place| describe(machine, place)).collect();
            Err(Error::new(ErrorKind::Refused, format!("volume {name:?} could be {}", several.join(" or "))))
        }
    }
}

/// `sda3`, `/dev/nvme0n1p2`, `0:3`.
fn is_partition(disk: &Disk, index: usize, volume: &Volume, name: &str) -> bool {
    let Some(number) = volume.number else { return false };
    let separator = if disk.path.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    let path = format!("{}{separator}{number}", disk.path);
    path == name || path.strip_prefix("/dev/") == Some(name) || name == format!("{index}:{number}")
}

/// Logical volumes of which a piece is left out are left out.
fn add_torn(machine: &Machine, taken: &[usize], absent: &mut Vec<VolumePlace>) {
    let whole: Vec<VolumePlace> = absent.iter().filter(|place| place.part.is_none()).cloned().collect();
    for (disk, layout) in machine.disks.iter().enumerate().map(|(index, disk)| (index, &disk.layout)) {
        for volume in &layout.volumes {
            for part in &volume.parts {
                let is_torn = part.segments.iter().any(|segment| {
                    !taken.contains(&segment.disk)
                        || whole.iter().any(|place| {
                            let size = volume_at(machine, place).map_or(ByteCount::ZERO, |(_, volume)| volume.size);
                            let end = place.offset.0.saturating_add(size.0);
                            place.disk == segment.disk && (place.offset.0..end).contains(&segment.offset.0)
                        })
                });
                let place = VolumePlace { disk, offset: volume.offset, part: Some(part.name.clone()) };
                let outer = VolumePlace { part: None, ..place.clone() };
                if is_torn && !absent.contains(&place) && !whole.contains(&outer) {
                    absent.push(place);
                }
            }
        }
    }
}

/// Where on a disk that lies which is absent.
fn left_out_of(machine: &Machine, index: usize, absent: &[VolumePlace]) -> Result<Ranges> {
    let mut extents = Vec::new();
    for place in absent {
        let Some((disk, volume)) = volume_at(machine, place) else { continue };
        let whole = Extent::first(disk.virtual_size);
        match &place.part {
            None if place.disk == index => {
                extents.extend(Extent::new(volume.offset, volume.size).map(|extent| extent.intersection(whole)));
            }
            None => {}
            Some(name) => {
                let segments =
                    volume.parts.iter().find(|part| part.name == *name).map_or(&[][..], |part| &part.segments);
                if segments.is_empty() {
                    let context = format!(
                        "{name}: where it lies on the disks is not known (an older boot image looked): it cannot be left out"
                    );
                    return Err(Error::new(ErrorKind::Refused, context));
                }
                let here = segments.iter().filter(|segment| segment.disk == index);
                let size = Extent::first(machine.disks[index].virtual_size);
                let extent = |segment: &machine::Segment| Extent::new(segment.offset, segment.length);
                extents.extend(here.filter_map(extent).map(|extent| extent.intersection(size)));
            }
        }
    }
    let ranges = Ranges::new(extents);
    match ranges.iter().count() > LEFT_OUT_MAX {
        true => {
            let context =
                format!("{}: what is left out lies in more than {LEFT_OUT_MAX} pieces", machine.disks[index].path);
            Err(Error::new(ErrorKind::Refused, context))
        }
        false => Ok(ranges),
    }
}

/// What is to be read of a disk, by what is known of its volumes; what lies between them is little.
fn expected_bytes(disk: &Disk, index: usize, absent: &[VolumePlace], keep_swap: bool) -> ByteCount {
    let is_absent = |volume: &Volume, part: Option<&Part>| {
        absent.contains(&VolumePlace { disk: index, offset: volume.offset, part: part.map(|part| part.name.clone()) })
    };
    let is_swap = |kind: &str| keep_swap && matches!(kind, "swap" | "swsuspend");
    let of_volume = |volume: &Volume| {
        let mut bytes = if is_swap(&volume.kind) { volume.size.0 } else { volume.used_bytes.0 };
        for part in &volume.parts {
            if is_absent(volume, Some(part)) {
                bytes = bytes.saturating_sub(part.used_bytes.0);
            } else if is_swap(&part.kind) {
                bytes = bytes.saturating_add(part.size.0.saturating_sub(part.used_bytes.0));
            }
        }
        ByteCount(bytes)
    };
    disk.layout.volumes.iter().filter(|volume| !is_absent(volume, None)).map(of_volume).sum()
}

/// The folder as it is, if it is another than that of the result.
fn target_folder(folder: &Path, output: &Path) -> Result<Option<PathBuf>> {
    let shown = folder.display();
    let found = folder.canonicalize().ok().filter(|found| found.is_dir());
    let found = found
        .ok_or_else(|| Error::new(ErrorKind::Refused, format!("target folder {shown}: expected an existing folder")))?;
    let same = |one: &Path| Some(one.metadata().ok()?).map(|metadata| (metadata.dev(), metadata.ino()));
    Ok((same(&found) != same(output)).then_some(found))
}
