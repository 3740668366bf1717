//! The layout of all disks of a machine, and what must be copied of each.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use block::{AllocationMap, BlockSource, Extent, Ranges, Scoped, Slice};
use machine::{
    ByteCount, ByteOffset, DiskLayout, FirmwareKind, Mount, Part, PartitionTable, SectorSize, Segment, Volume,
};

use crate::content::{Content, load_content, load_shared};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::firmware::detect_firmware;
use crate::ldm;
use crate::logical::{LogicalVolume, Member, assemble, on_disks};
use crate::map::{Composite, Region, Usage, used_bytes};
use crate::probe::probe;
use crate::swap_file::{self, SWAP_FILES_MAX};
use crate::table::{Partition, Table, load_table};

/// What lies where on the disks of one machine.
pub struct Layout {
    disks: Vec<DiskLayout>,
    maps: Vec<Arc<dyn AllocationMap>>,
    /// What the maps leave out because it is swap.
    swap: Vec<Vec<Extent>>,
    /// Of that, what must read as zeros.
    hidden: Vec<Vec<Extent>>,
    sector_sizes: Vec<SectorSize>,
    filesystems: Vec<Filesystem>,
    logical_volumes: Vec<LogicalVolume>,
    firmware: FirmwareKind,
    warnings: Vec<Warning>,
}

/// Something that is copied whole, or was odd but could be lived with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Index of the disk.
    pub disk: usize,
    /// Where on that disk; `None` for the disk as a whole.
    pub offset: Option<ByteOffset>,
    /// What was found, and what follows.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "disk {} at {offset}: {}", self.disk, self.text),
            None => write!(f, "disk {}: {}", self.disk, self.text),
        }
    }
}

/// A volume with known contents: a filesystem, swap, or a member of something larger.
#[derive(Clone)]
pub struct Filesystem {
    /// As blkid names it.
    pub kind: String,
    /// Label.
    pub label: Option<String>,
    /// UUID as blkid prints it.
    pub uuid: Option<String>,
    /// Where it lies.
    pub place: Place,
    /// What `PARTUUID=` names, if it lies in a partition.
    pub partition_uuid: Option<String>,
    /// Partition type, as [`machine::Volume::partition_type`].
    pub partition_type: Option<String>,
    /// Bytes in use.
    pub used_bytes: ByteCount,
    /// Its bytes.
    pub source: Arc<dyn BlockSource>,
}

/// Where a filesystem lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a partition, or on the whole disk.
    Disk {
        /// Index of the disk.
        disk: usize,
        /// First byte.
        offset: ByteOffset,
        /// Partition number; `None` on the whole disk.
        number: Option<u32>,
    },
    /// In the logical volume of this name: `vg0/root`.
    Logical(String),
}

/// Reads the layout of a machine's disks. Reads partition tables, superblocks and the allocation blocks of all
/// filesystems once, so that bytes in use are exact and everything doubtful is known before anything is copied.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind) for a damaged partition table, or one whose partitions overlap or lie
/// beyond the disk; [`ErrorKind::Read`](crate::ErrorKind) where a table cannot be read. Damaged filesystems are no
/// error: they are copied whole, with a warning.
pub fn detect_layout(disks: &[Arc<dyn BlockSource>]) -> Result<Layout> {
    let mut tables = Vec::new();
    let mut found = Vec::new();
    for (disk, source) in disks.iter().enumerate() {
        let mut table = load_table(&**source)?;
        if table.partitions.is_empty() && table.kind != PartitionTable::Gpt && probe(&**source).kind != "unknown" {
            // A filesystem straight on the disk; an empty MBR in front of it is its boot sector.
            table = Table { boot_code: table.boot_code, ..Table::default() };
            found.push(FoundVolume::load(disk, source, None, &table)?);
        }
        for partition in &table.partitions {
            found.push(FoundVolume::load(disk, source, Some(partition.clone()), &table)?);
        }
        tables.push(table);
    }
    assemble_layout(disks, tables, found)
}

/// A volume of a disk with its contents.
struct FoundVolume {
    disk: usize,
    partition: Option<Partition>,
    extent: Extent,
    source: Arc<dyn BlockSource>,
    content: Content,
    group: Option<String>,
}

impl FoundVolume {
    /// A partition, or all of a disk that has none.
    fn load(disk: usize, on: &Arc<dyn BlockSource>, partition: Option<Partition>, table: &Table) -> Result<Self> {
        let extent = partition.as_ref().map_or(Extent::first(on.size()), |partition| partition.extent);
        let slice = Slice::new(Arc::clone(on), extent).map_err(|e| Error::read("volume", e))?;
        let source: Arc<dyn BlockSource> = Arc::new(slice);
        let content = match partition.as_ref().filter(|partition| ldm::is_shared(partition)) {
            Some(partition) => load_shared(&source, ldm::conditions(&**on, table, partition)),
            None => load_content(&source),
        };
        Ok(Self { disk, partition, extent, source, content, group: None })
    }

    fn number(&self) -> Option<u32> {
        self.partition.as_ref().map(|p| p.number)
    }

    fn describe(&self, used_bytes: ByteCount, parts: Vec<Part>) -> Volume {
        let partition = self.partition.as_ref();
        Volume {
            offset: self.extent.start(),
            size: self.extent.length(),
            number: self.number(),
            partition_type: partition.map(|p| p.type_id.clone()),
            partition_uuid: partition.and_then(|p| p.uuid.clone()),
            kind: self.content.probe.kind.clone(),
            label: self.content.probe.label.clone(),
            uuid: self.content.probe.uuid.clone(),
            used_bytes,
            mount_points: Vec::new(),
            conditions: self.content.conditions.clone(),
            volume_group: self.group.clone(),
            parts,
        }
    }

    fn filesystem(&self) -> Filesystem {
        let partition = self.partition.as_ref();
        Filesystem {
            kind: self.content.probe.kind.clone(),
            label: self.content.probe.label.clone(),
            uuid: self.content.probe.uuid.clone(),
            place: Place::Disk { disk: self.disk, offset: self.extent.start(), number: self.number() },
            partition_uuid: partition.and_then(|p| p.uuid.clone()),
            partition_type: partition.map(|p| p.type_id.clone()),
            used_bytes: self.content.used,
            source: Arc::clone(&self.source),
        }
    }
}

fn assemble_layout(disks: &[Arc<dyn BlockSource>], tables: Vec<Table>, mut found: Vec<FoundVolume>) -> Result<Layout> {
    let mut warnings: Vec<Warning> = Vec::new();
    for (disk, table) in tables.iter().enumerate() {
        warnings.extend(table.warnings.iter().map(|text| Warning { disk, offset: None, text: text.clone() }));
    }
    let is_member = |v: &FoundVolume| v.content.probe.kind == "LVM2_member" && v.content.probe.also.is_empty();
    let member_index: Vec<usize> = (0..found.len()).filter(|&i| is_member(&found[i])).collect();
    let members: Vec<Member> = member_index
        .iter()
        .map(|&i| Member { disk: found[i].disk, extent: found[i].extent, source: Arc::clone(&found[i].source) })
        .collect();
    let (assembled, inside) = assemble(&members);
    for (&index, result) in member_index.iter().zip(assembled) {
        let all = Extent::first(found[index].extent.length());
        let content = &mut found[index].content;
        content.used = used_bytes(&*result.map, all).map_err(|e| Error::read("allocation map", e))?;
        content.map = result.map;
        content.warnings.extend(result.warnings);
        found[index].group = result.group;
    }
    let mut swap: Vec<Vec<Extent>> = disks.iter().map(|_| Vec::new()).collect();
    let mut hidden = swap.clone();
    for volume in &found {
        let start = volume.extent.start();
        let whole =
            |content: Extent| Extent::between(start + from_start(content.start()), start + from_start(content.end()));
        swap[volume.disk].extend(volume.content.swap.iter().copied().map(whole));
        hidden[volume.disk].extend(volume.content.hidden.iter().copied().map(whole));
    }
    let mut parts: Vec<Vec<Part>> = found.iter().map(|_| Vec::new()).collect();
    let mut filesystems: Vec<Filesystem> =
        found.iter().filter(|v| v.content.probe.kind != "unknown").map(FoundVolume::filesystem).collect();
    let mut logical_volumes = Vec::new();
    for part in inside {
        let home = member_index[part.member];
        let probe = part.content.probe;
        warnings.extend(part.content.warnings.into_iter().map(|text| Warning {
            disk: found[home].disk,
            offset: Some(found[home].extent.start()),
            text: format!("{}: {text}", part.volume.name),
        }));
        for (disk, extent) in part.content.swap.iter().flat_map(|content| on_disks(&part.volume.segments, *content)) {
            swap[disk].push(extent);
        }
        for (disk, extent) in part.content.hidden.iter().flat_map(|content| on_disks(&part.volume.segments, *content)) {
            hidden[disk].push(extent);
        }
        let segment = |s: &crate::LinearSegment| Segment { disk: s.disk, offset: s.offset, length: s.length };
        parts[home].push(Part {
            name: part.volume.name.clone(),
            size: part.volume.size,
            kind: probe.kind.clone(),
            label: probe.label.clone(),
            uuid: probe.uuid.clone(),
            used_bytes: part.content.used,
            mount_points: Vec::new(),
            conditions: part.content.conditions,
            segments: part.volume.segments.iter().map(segment).collect(),
        });
        if probe.kind != "unknown" {
            filesystems.push(Filesystem {
                kind: probe.kind,
                label: probe.label,
                uuid: probe.uuid,
                place: Place::Logical(part.volume.name.clone()),
                partition_uuid: None,
                partition_type: None,
                used_bytes: part.content.used,
                source: Arc::clone(&part.volume.source),
            });
        }
        logical_volumes.push(part.volume);
    }
    let mut layouts: Vec<DiskLayout> = tables
        .iter()
        .map(|t| DiskLayout { partition_table: t.kind, partition_table_id: t.id.clone(), volumes: Vec::new() })
        .collect();
    let mut regions: Vec<Vec<Region>> = disks.iter().map(|_| Vec::new()).collect();
    for (volume, parts) in found.iter().zip(parts) {
        layouts[volume.disk].volumes.push(volume.describe(volume.content.used, parts));
        let usage = Usage::Mapped { map: Arc::clone(&volume.content.map), offset: ByteOffset::ZERO };
        regions[volume.disk].push(Region { extent: volume.extent, usage });
        let offset = Some(volume.extent.start());
        let texts = volume.content.warnings.iter().cloned();
        warnings.extend(texts.map(|text| Warning { disk: volume.disk, offset, text }));
    }
    let maps = disks
        .iter()
        .zip(regions)
        .map(|(disk, regions)| Arc::new(Composite::new(disk.size(), regions)) as Arc<dyn AllocationMap>)
        .collect();
    let sector_sizes =
        disks.iter().zip(&tables).map(|(d, t)| t.sector_size.unwrap_or(d.logical_sector_size())).collect();
    let firmware = detect_firmware(disks, &tables, &filesystems);
    Ok(Layout { disks: layouts, maps, swap, hidden, sector_sizes, filesystems, logical_volumes, firmware, warnings })
}

/// As a length: the distance from the start.
fn from_start(offset: ByteOffset) -> ByteCount {
    ByteCount(offset.0)
}

impl Layout {
    /// What lies on each disk, in the order in which the disks were given.
    pub fn disks(&self) -> &[DiskLayout] {
        &self.disks
    }

    /// What must be copied of a disk: used blocks, partition tables, boot code and all that lies in no partition; of swap
    /// areas only their headers, and nothing of Windows' page files, hibernation file and storage of shadow copies.
    ///
    /// # Panics
    /// If there is no disk of that index.
    pub fn used(&self, disk: usize) -> Arc<dyn AllocationMap> {
        Arc::clone(&self.maps[disk])
    }

    /// As [`Layout::used`], with the content of swap areas and of what else it leaves out.
    ///
    /// # Panics
    /// If there is no disk of that index.
    pub fn used_with_swap(&self, disk: usize) -> Arc<dyn AllocationMap> {
        let swap = Ranges::new(self.swap[disk].clone());
        match swap.is_empty() {
            true => self.used(disk),
            false => Arc::new(Scoped::new(self.used(disk), swap, Ranges::default())),
        }
    }

    /// What of a disk must read as zeros where only [`Layout::used`] is taken of it, though what is read in one piece with its
    /// surroundings would bring it along: the page by which a hibernated Windows is found.
    ///
    /// # Panics
    /// If there is no disk of that index.
    pub fn hidden(&self, disk: usize) -> Ranges {
        Ranges::new(self.hidden[disk].clone())
    }

    /// Leaves out the content of swap files that the table of a guest names. Those on its root filesystem are found; where it
    /// is not sure which blocks are theirs, they are copied, with a warning.
    pub fn leave_out_swap_files(&mut self, mounts: &[Mount]) {
        let is_file = |mount: &&Mount| {
            mount.kind == "swap" && mount.device.starts_with('/') && !mount.device.starts_with("/dev/")
        };
        let named: Vec<&Mount> = mounts.iter().filter(is_file).take(SWAP_FILES_MAX).collect();
        if named.is_empty() {
            return;
        }
        let mut content = Vec::new();
        for filesystem in &self.filesystems {
            let holds_table = || {
                let files = Files::open(Arc::clone(&filesystem.source)).ok();
                files.is_some_and(|files| files.target_metadata("/etc/fstab").is_ok())
            };
            if !filesystem.kind.starts_with("ext") || !holds_table() {
                continue;
            }
            for mount in &named {
                match swap_file::content(&filesystem.source, Path::new(&mount.device)) {
                    Ok(extents) => {
                        let extents = extents.unwrap_or_default();
                        content.extend(extents.into_iter().flat_map(|extent| self.on_disks(&filesystem.place, extent)));
                    }
                    Err(reason) => self.warnings.push(Warning {
                        disk: self
                            .on_disks(&filesystem.place, Extent::first(ByteCount(1)))
                            .first()
                            .map_or(0, |(disk, _)| *disk),
                        offset: None,
                        text: format!("the swap file {} is copied: {reason}", mount.device),
                    }),
                }
            }
        }
        for disk in 0..self.maps.len() {
            let here = content.iter().filter(|(on, _)| *on == disk).map(|(_, extent)| *extent);
            let removed = Ranges::new(here.collect());
            if !removed.is_empty() {
                self.swap[disk].extend(removed.iter());
                let map = Arc::clone(&self.maps[disk]);
                self.maps[disk] = Arc::new(Scoped::new(map, Ranges::default(), removed));
            }
        }
    }

    /// Where an extent of a filesystem lies on the disks.
    fn on_disks(&self, place: &Place, extent: Extent) -> Vec<(usize, Extent)> {
        match place {
            Place::Disk { disk, offset, .. } => {
                let start = *offset + from_start(extent.start());
                vec![(*disk, Extent::between(start, start + extent.length()))]
            }
            Place::Logical(name) => {
                let volume = self.logical_volumes.iter().find(|volume| volume.name == *name);
                volume.map(|volume| on_disks(&volume.segments, extent)).unwrap_or_default()
            }
        }
    }

    /// The sector size that a disk's partition table counts in; it tells that of an image, which does not say.
    ///
    /// # Panics
    /// If there is no disk of that index.
    pub fn logical_sector_size(&self, disk: usize) -> SectorSize {
        self.sector_sizes[disk]
    }

    /// What starts the machine, as far as its disks tell.
    pub fn firmware(&self) -> FirmwareKind {
        self.firmware
    }

    /// The files of each filesystem that can be read in user space.
    pub fn file_trees(&self) -> impl Iterator<Item = Files> + '_ {
        self.filesystems.iter().filter_map(|filesystem| Files::open(Arc::clone(&filesystem.source)).ok())
    }

    /// What is copied whole and why, and other oddities.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// All volumes with known contents: those on partitions by disk and offset, then those in logical volumes.
    pub fn filesystems(&self) -> &[Filesystem] {
        &self.filesystems
    }

    /// Logical volumes with linear segments.
    pub fn logical_volumes(&self) -> &[LogicalVolume] {
        &self.logical_volumes
    }
}
