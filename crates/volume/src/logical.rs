//! Logical volumes over all disks of a machine: volume groups put together from their physical volumes, and logical
//! volumes as block sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::{AllocationMap, BlockSource, Everything, Extent, check_bounds};
use machine::{ByteCount, ByteOffset, SectorSize};

use crate::content::{Content, load_content};
use crate::lvm::{AreaText, PhysicalVolume, VolumeGroup, parse_group};
use crate::map::{Composite, Region, Usage};

/// A logical volume whose segments are all linear.
#[derive(Clone)]
pub struct LogicalVolume {
    /// `vg0/root`.
    pub name: String,
    /// UUID as LVM2 prints it.
    pub uuid: String,
    /// Size in bytes.
    pub size: ByteCount,
    /// Where it lies, in its own order, without gaps.
    pub segments: Vec<LinearSegment>,
    /// Its bytes.
    pub source: Arc<dyn BlockSource>,
}

/// A run of bytes of a logical volume on one disk: one line of a device-mapper table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearSegment {
    /// Index of the disk.
    pub disk: usize,
    /// First byte, from the start of that disk.
    pub offset: ByteOffset,
    /// Length in bytes.
    pub length: ByteCount,
}

/// A volume that is a physical volume of LVM2.
pub(crate) struct Member {
    /// Index of the disk.
    pub disk: usize,
    /// Where on the disk.
    pub extent: Extent,
    pub source: Arc<dyn BlockSource>,
}

/// What became of a physical volume.
pub(crate) struct Assembled {
    pub map: Arc<dyn AllocationMap>,
    /// Name of its group.
    pub group: Option<String>,
    pub warnings: Vec<String>,
}

/// A logical volume with its contents; the member that holds its first byte is where it is listed.
pub(crate) struct Inside {
    pub volume: LogicalVolume,
    pub content: Content,
    pub member: usize,
}

/// Puts the volume groups on `members` together. The first result has an entry for each member.
pub(crate) fn assemble(members: &[Member]) -> (Vec<Assembled>, Vec<Inside>) {
    let mut assembled: Vec<Assembled> =
        members.iter().map(|_| Assembled { map: Arc::new(Everything), group: None, warnings: Vec::new() }).collect();
    let mut labels: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut texts: BTreeMap<String, Vec<(VolumeGroup, usize)>> = BTreeMap::new();
    let mut damaged = vec![None; members.len()];
    for (index, member) in members.iter().enumerate() {
        let Some(label) = PhysicalVolume::load(&*member.source) else { continue };
        let (areas, damage) = label.load_texts(&*member.source);
        damaged[index] = damage;
        labels.entry(label.uuid).or_default().push(index);
        for area in areas {
            match area {
                AreaText::Empty => {}
                AreaText::Group(text) => match parse_group(&text) {
                    Ok(group) => texts.entry(group.uuid.clone()).or_default().push((group, index)),
                    Err(reason) => damaged[index] = Some(reason),
                },
            }
        }
    }
    for (index, damage) in damaged.iter().enumerate() {
        if let Some(reason) = damage {
            assembled[index].warnings.push(format!("LVM2_member is copied whole: {reason}"));
        }
    }
    let mut inside = Vec::new();
    for found in texts.into_values() {
        let holders: Vec<usize> = found.iter().map(|&(_, index)| index).collect();
        let Some(group) = found.iter().map(|(group, _)| group).max_by_key(|group| group.seqno).cloned() else {
            continue;
        };
        let places: Vec<Option<usize>> = group
            .physical
            .iter()
            .map(|p| labels.get(&p.uuid).filter(|found| found.len() == 1).map(|found| found[0]))
            .collect();
        for &index in places.iter().flatten().chain(&holders) {
            assembled[index].group = Some(group.name.clone());
        }
        let doubt = doubt(&group, &found, &places, members, &damaged);
        if let Some(reason) = doubt {
            let mut affected: Vec<usize> = places.iter().flatten().copied().chain(holders).collect();
            affected.sort_unstable();
            affected.dedup();
            for index in affected {
                let warning = format!("LVM2_member of volume group {} is copied whole: {reason}", group.name);
                assembled[index].warnings.push(warning);
            }
            continue;
        }
        let places: Vec<usize> = places.into_iter().flatten().collect();
        open_group(&group, &places, members, &mut assembled, &mut inside);
    }
    (assembled, inside)
}

/// Why the group's text cannot be trusted to say all that is used.
fn doubt(
    group: &VolumeGroup,
    found: &[(VolumeGroup, usize)],
    places: &[Option<usize>],
    members: &[Member],
    damaged: &[Option<String>],
) -> Option<String> {
    if found.iter().any(|(other, _)| other.seqno == group.seqno && other != group) {
        return Some("its metadata areas contradict each other".into());
    }
    if let Some(reason) = &group.doubt {
        return Some(reason.clone());
    }
    for (physical, place) in group.physical.iter().zip(places) {
        let Some(place) = *place else {
            return Some(format!("its physical volume {} is missing, or there twice", physical.uuid));
        };
        if let Some(reason) = &damaged[place] {
            return Some(reason.clone());
        }
        let end = physical.start.saturating_add(physical.extents.saturating_mul(group.extent_bytes));
        if end > members[place].source.size().0 {
            return Some(format!("its physical volume {} is larger than what holds it", physical.uuid));
        }
    }
    None
}

fn open_group(
    group: &VolumeGroup,
    places: &[usize],
    members: &[Member],
    assembled: &mut [Assembled],
    inside: &mut Vec<Inside>,
) {
    let mut regions: Vec<Vec<Region>> = places.iter().map(|_| Vec::new()).collect();
    for logical in &group.logical {
        let mut segments = Vec::new();
        let mut pieces = Vec::new();
        let mut position = ByteOffset::ZERO;
        let mut spans = Vec::new();
        for segment in &logical.segments {
            // The products were bounded when the text was parsed: each segment lies in its physical volume.
            let start = group.physical[segment.physical].start + segment.first * group.extent_bytes;
            let length = ByteCount(segment.count * group.extent_bytes);
            let member = &members[places[segment.physical]];
            let Some(extent) = Extent::new(ByteOffset(start), length) else { continue };
            let offset = member.extent.start() + ByteCount(start);
            segments.push(LinearSegment { disk: member.disk, offset, length });
            pieces.push(Piece { at: position, extent, source: Arc::clone(&member.source) });
            spans.push((segment.physical, extent, position));
            position += length;
        }
        let size = ByteCount(position.0);
        let source: Arc<dyn BlockSource> = Arc::new(Linear { pieces, size });
        let content = load_content(&source);
        for (physical, extent, offset) in spans {
            let usage = Usage::Mapped { map: Arc::clone(&content.map), offset };
            regions[physical].push(Region { extent, usage });
        }
        if logical.visible {
            let name = format!("{}/{}", group.name, logical.name);
            let volume = LogicalVolume { name, uuid: logical.uuid.clone(), size, segments, source };
            inside.push(Inside { volume, content, member: places[logical.segments[0].physical] });
        }
    }
    for ((physical, regions), &place) in group.physical.iter().zip(regions).zip(places) {
        let start = ByteOffset(physical.start);
        let area = Extent::between(start, start + ByteCount(physical.extents * group.extent_bytes));
        let regions = with_free_gaps(area, regions);
        assembled[place].map = Arc::new(Composite::new(members[place].source.size(), regions));
    }
}

/// The regions of a physical volume's extents: those of logical volumes, and free ones between them.
fn with_free_gaps(area: Extent, mut regions: Vec<Region>) -> Vec<Region> {
    regions.sort_by_key(|r| r.extent.start());
    let mut all = Vec::new();
    let mut position = area.start();
    for region in regions {
        all.push(Region { extent: Extent::between(position, region.extent.start()), usage: Usage::Free });
        position = region.extent.end();
        all.push(region);
    }
    all.push(Region { extent: Extent::between(position, area.end()), usage: Usage::Free });
    all
}

/// Sources one behind the other.
struct Linear {
    pieces: Vec<Piece>,
    size: ByteCount,
}

struct Piece {
    /// Where in the whole.
    at: ByteOffset,
    /// Where in `source`.
    extent: Extent,
    source: Arc<dyn BlockSource>,
}

/// Where the bytes of `extent` of a volume with these segments lie, each with its disk.
pub(crate) fn on_disks(segments: &[LinearSegment], extent: Extent) -> Vec<(usize, Extent)> {
    let mut position = ByteOffset::ZERO;
    let mut found = Vec::new();
    for segment in segments {
        let part = Extent::between(position, position + segment.length).intersection(extent);
        if !part.is_empty() {
            let start = segment.offset + (part.start() - position);
            found.push((segment.disk, Extent::between(start, start + part.length())));
        }
        position += segment.length;
    }
    found
}

impl BlockSource for Linear {
    fn size(&self) -> ByteCount {
        self.size
    }

    fn logical_sector_size(&self) -> SectorSize {
        self.pieces.iter().map(|p| p.source.logical_sector_size()).max().unwrap_or(SectorSize::B512)
    }

    fn read_at(&self, offset: ByteOffset, mut buffer: &mut [u8]) -> block::Result<()> {
        check_bounds(offset, buffer, self.size)?;
        let mut offset = offset;
        let mut index = self.pieces.partition_point(|p| p.at + p.extent.length() <= offset);
        while !buffer.is_empty() {
            let piece = &self.pieces[index];
            let inside = offset - piece.at;
            let left = piece.extent.length() - inside;
            let length = left.to_usize().unwrap_or(usize::MAX).min(buffer.len());
            let (head, rest) = buffer.split_at_mut(length);
            piece.source.read_at(piece.extent.start() + inside, head)?;
            offset += ByteCount::from(length);
            buffer = rest;
            index += 1;
        }
        Ok(())
    }
}
