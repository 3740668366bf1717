//! Which device of the appliance holds which volume of the machine.
//!
//! Disks are virtio disks in the order of the job: `vda`, `vdb`, … Partitions are the kernel's own; the inventory says
//! what they hold, so nothing is probed again. Logical volumes are mapped onto the partition that holds them: mapping
//! the whole disk would take it away from the filesystems on its other partitions.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guest::appliance::Job;
use machine::{ByteOffset, Machine};
use volume::{LinearSegment, LogicalVolume};

use super::device_mapper::{self, Linear};
use crate::{Error, Result, modules};

/// Time in which the disks and their partitions must have appeared.
const APPEAR: Duration = Duration::from_secs(20);

/// Unit of device-mapper tables, whatever the disk's sectors are.
const SECTOR: u64 = 512;

/// A filesystem, or what may be one, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Device {
    /// Its node: `/dev/vda1`, `/dev/dm-0`.
    pub(super) node: PathBuf,
    /// Kind as blkid names it.
    pub(super) kind: String,
    pub(super) uuid: Option<String>,
    pub(super) label: Option<String>,
    /// `vg0/root`.
    pub(super) logical_volume: Option<String>,
    pub(super) partition_uuid: Option<String>,
    /// Position of its disk and first byte there; `None` for what is spread over several places.
    pub(super) place: Option<(usize, ByteOffset)>,
}

/// Nodes of the machine's disks, in order, once all their partitions are there.
pub(super) fn wait_for_disks(machine: &Machine) -> Result<Vec<PathBuf>> {
    let nodes: Vec<PathBuf> = (0..machine.disks.len()).map(|index| Path::new("/dev").join(name(index))).collect();
    let mut needed = nodes.clone();
    for (disk, node) in machine.disks.iter().zip(&nodes) {
        // The kernel may not show a partition that holds nothing known; nobody will ask for it.
        let used = disk.layout.volumes.iter().filter(|volume| volume.kind != "unknown");
        needed.extend(used.map(|volume| partition(node, volume.number)));
    }
    let end = Instant::now() + APPEAR;
    loop {
        let Some(missing) = needed.iter().find(|node| !node.exists()) else { return Ok(nodes) };
        if Instant::now() > end {
            return Err(Error::new(format!("{} did not appear", missing.display())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Detects on the disks themselves what the job does not say: what the disks hold at all, and where logical volumes lie,
/// which are returned.
///
/// # Errors
/// A disk cannot be read, or its partition table is damaged.
pub(super) fn complete(job: &mut Job, disks: &[PathBuf]) -> Result<Vec<LogicalVolume>> {
    let volumes = || job.facts.disks.iter().flat_map(|disk| &disk.layout.volumes);
    if volumes().next().is_some() && !volumes().any(|volume| volume.kind == "LVM2_member") {
        return Ok(Vec::new());
    }
    let open = |node: &PathBuf| {
        let opened = block::open_source(node).map_err(|e| Error { context: e.to_string(), source: e.source })?;
        Ok(opened.source)
    };
    let sources = disks.iter().map(open).collect::<Result<Vec<_>>>()?;
    let layout = volume::detect_layout(&sources).map_err(|e| Error::new(format!("layout of the disks: {e}")))?;
    for (disk, detected) in job.facts.disks.iter_mut().zip(layout.disks()) {
        disk.layout = detected.clone();
    }
    wait_for_disks(&job.facts)?;
    Ok(layout.logical_volumes().to_vec())
}

/// `vda`, `vdb`, …, `vdz`, `vdaa`.
fn name(mut index: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(b'a' + u8::try_from(index % 26).unwrap_or(0));
        if index < 26 {
            break;
        }
        index = index / 26 - 1;
    }
    letters.reverse();
    format!("vd{}", String::from_utf8_lossy(&letters))
}

fn partition(disk: &Path, number: Option<u32>) -> PathBuf {
    match number {
        Some(number) => PathBuf::from(format!("{}{number}", disk.display())),
        None => disk.to_owned(),
    }
}

/// The volumes of all disks, logical ones not among them.
pub(super) fn volumes(machine: &Machine, disks: &[PathBuf]) -> Vec<Device> {
    let of_disk = |(at, (disk, node)): (usize, (&machine::Disk, &PathBuf))| -> Vec<Device> {
        let device = |volume: &machine::Volume| Device {
            node: partition(node, volume.number),
            kind: volume.kind.clone(),
            uuid: volume.uuid.clone(),
            label: volume.label.clone(),
            logical_volume: None,
            partition_uuid: volume.partition_uuid.clone(),
            place: Some((at, volume.offset)),
        };
        disk.layout.volumes.iter().map(device).collect()
    };
    machine.disks.iter().zip(disks).enumerate().flat_map(of_disk).collect()
}

/// Maps `logical` volumes; what they hold is known from the inventory.
pub(super) fn map_logical_volumes(job: &Job, disks: &[PathBuf], logical: &[LogicalVolume]) -> Result<Vec<Device>> {
    let parts = || job.facts.disks.iter().flat_map(|disk| &disk.layout.volumes).flat_map(|volume| &volume.parts);
    let mut devices = Vec::new();
    if !logical.is_empty() {
        // No hardware asks for it.
        modules::load(&["dm-mod"])?;
    }
    for (index, volume) in logical.iter().enumerate() {
        let Some(part) = parts().find(|part| part.name == volume.name) else { continue };
        let lines: Result<Vec<Linear>> = volume.segments.iter().map(|segment| linear(job, disks, segment)).collect();
        let lines = lines.map_err(|e| Error { context: format!("map {}: {}", volume.name, e.context), ..e })?;
        let node = device_mapper::create(&mapped_name(index), &lines, job.mode == guest::appliance::Mode::Plan)?;
        devices.push(Device {
            node,
            kind: part.kind.clone(),
            uuid: part.uuid.clone(),
            label: part.label.clone(),
            logical_volume: Some(volume.name.clone()),
            partition_uuid: None,
            place: None,
        });
    }
    Ok(devices)
}

/// Takes the mappings away again; only a device that is still in use would refuse, and the machine is switched off.
pub(super) fn unmap_logical_volumes(logical: &[LogicalVolume]) {
    for index in 0..logical.len() {
        device_mapper::remove(&mapped_name(index));
    }
}

/// Names of the guest do not come into the kernel's tables.
fn mapped_name(index: usize) -> String {
    format!("guest{index}")
}

fn linear(job: &Job, disks: &[PathBuf], segment: &LinearSegment) -> Result<Linear> {
    let outside = || Error::new(format!("segment at {} of disk {} lies in no volume", segment.offset, segment.disk));
    let (disk, node) = job.facts.disks.get(segment.disk).zip(disks.get(segment.disk)).ok_or_else(outside)?;
    let end = segment.offset.0.checked_add(segment.length.0).ok_or_else(outside)?;
    let volume = disk.layout.volumes.iter().find(|volume| {
        volume.offset <= segment.offset && volume.offset.0.checked_add(volume.size.0).is_some_and(|limit| end <= limit)
    });
    let volume = volume.ok_or_else(outside)?;
    let start = segment.offset.0 - volume.offset.0;
    if !start.is_multiple_of(SECTOR) || !segment.length.0.is_multiple_of(SECTOR) || segment.length.0 == 0 {
        return Err(Error::new(format!("segment at {} is not made of whole sectors", segment.offset)));
    }
    let node = partition(node, volume.number);
    let device = fs::metadata(&node).map_err(|e| Error::path("look at", &node, e))?.rdev();
    Ok(Linear {
        device: (rustix::fs::major(device), rustix::fs::minor(device)),
        start: start / SECTOR,
        length: segment.length.0 / SECTOR,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_named_as_the_kernel_names_them() {
        assert_eq!([0, 25, 26, 27, 701, 702].map(name), ["vda", "vdz", "vdaa", "vdab", "vdzz", "vdaaa"]);
        assert_eq!(partition(Path::new("/dev/vda"), Some(5)), Path::new("/dev/vda5"));
    }
}
