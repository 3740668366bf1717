//! A volume group by its metadata text: physical volumes, logical volumes and their segments.
//!
//! Refused: a group whose segments leave gaps, overlap, lie outside of their physical volumes, or are anything but
//! linear (a stripe over one volume is).

use std::collections::BTreeMap;

use super::label::print_uuid;
use super::text::{Section, Value, parse};

/// A volume group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeGroup {
    pub name: String,
    pub uuid: String,
    /// Grows with each change: the highest text is the current one.
    pub seqno: u64,
    /// Bytes of one physical extent.
    pub extent_bytes: u64,
    pub physical: Vec<Physical>,
    pub logical: Vec<Logical>,
    /// Why the segments say nothing about what is used; `None` if they say all.
    pub doubt: Option<String>,
}

/// A physical volume of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Physical {
    pub uuid: String,
    /// First byte of the first extent.
    pub start: u64,
    /// Number of extents.
    pub extents: u64,
}

/// A logical volume of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logical {
    pub name: String,
    pub uuid: String,
    /// Whether it is one that users see.
    pub visible: bool,
    pub segments: Vec<Segment>,
}

/// A run of extents on one physical volume; segments follow one another without gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Index in [`VolumeGroup::physical`].
    pub physical: usize,
    /// First extent there.
    pub first: u64,
    /// Number of extents.
    pub count: u64,
}

/// Parses the text of a volume group.
///
/// # Errors
/// What is missing or malformed. Segments that are merely not linear are a doubt, not an error.
pub(crate) fn parse_group(text: &[u8]) -> Result<VolumeGroup, String> {
    let root = parse(text)?;
    let mut groups = root.sections.iter();
    let (Some((name, group)), None) = (groups.next(), groups.next()) else {
        return Err("metadata text: expected one volume group".into());
    };
    let missing = |what: &str| format!("volume group {name}: no usable {what}");
    let uuid = identifier(group).ok_or_else(|| missing("id"))?;
    let extent_bytes = group.number("extent_size").and_then(|n| n.checked_mul(512)).filter(|&n| n > 0);
    let mut found = VolumeGroup {
        name: name.clone(),
        uuid,
        seqno: group.number("seqno").ok_or_else(|| missing("seqno"))?,
        extent_bytes: extent_bytes.ok_or_else(|| missing("extent size"))?,
        physical: Vec::new(),
        logical: Vec::new(),
        doubt: None,
    };
    let mut index = BTreeMap::new();
    for (key, section) in group.section("physical_volumes").into_iter().flat_map(|s| &s.sections) {
        let physical = (|| {
            let start = section.number("pe_start")?.checked_mul(512)?;
            let extents = section.number("pe_count")?;
            extents.checked_mul(found.extent_bytes)?.checked_add(start)?;
            Some(Physical { uuid: identifier(section)?, start, extents })
        })();
        index.insert(key.as_str(), found.physical.len());
        found.physical.push(physical.ok_or_else(|| missing(&format!("physical volume {key}")))?);
        if section.array("flags").contains(&Value::Text("MISSING".into())) {
            found.doubt = Some(format!("physical volume {key} is marked missing"));
        }
    }
    for (name, section) in group.section("logical_volumes").into_iter().flat_map(|s| &s.sections) {
        match logical(name, section, &index) {
            Ok(volume) => found.logical.push(volume),
            Err(reason) => found.doubt = Some(reason),
        }
    }
    if found.doubt.is_none() {
        found.doubt = overlap(&found);
    }
    Ok(found)
}

fn identifier(section: &Section) -> Option<String> {
    print_uuid(section.text("id")?.replace('-', "").as_bytes())
}

fn logical(name: &str, section: &Section, index: &BTreeMap<&str, usize>) -> Result<Logical, String> {
    let wrong = |what: &str| format!("logical volume {name}: {what}");
    let status = section.array("status");
    let has = |flag: &str| status.contains(&Value::Text(flag.into()));
    if has("PVMOVE") || has("LOCKED") || section.array("flags").iter().any(|f| f == &Value::Text("LOCKED".into())) {
        return Err(wrong("it is being moved"));
    }
    let mut parts = Vec::new();
    let count = section.number("segment_count").ok_or_else(|| wrong("no segment count"))?;
    for (_, part) in section.sections.iter().filter(|(key, _)| key.starts_with("segment")) {
        let kind = part.text("type").unwrap_or_default();
        if kind != "striped" && kind != "linear" || part.number("stripe_count").unwrap_or(1) != 1 {
            return Err(wrong(&format!("segments of type {kind} are not linear")));
        }
        let [Value::Text(physical), Value::Number(first)] = part.array("stripes") else {
            return Err(wrong("a segment without its place"));
        };
        let numbers = part.number("start_extent").zip(part.number("extent_count")).zip(u64::try_from(*first).ok());
        let ((start, count), first) = numbers.ok_or_else(|| wrong("a segment without numbers"))?;
        let physical = *index.get(physical.as_str()).ok_or_else(|| wrong("a segment on an unknown physical volume"))?;
        parts.push((start, Segment { physical, first, count }));
    }
    parts.sort_by_key(|&(start, _)| start);
    let mut next = 0u64;
    for &(start, segment) in &parts {
        if start != next || segment.count == 0 {
            return Err(wrong("segments that leave gaps or overlap"));
        }
        next = start.checked_add(segment.count).ok_or_else(|| wrong("segments beyond 2^64"))?;
    }
    if parts.len() as u64 != count || parts.is_empty() {
        return Err(wrong(&format!("expected {count} segments, found {}", parts.len())));
    }
    Ok(Logical {
        name: name.into(),
        uuid: identifier(section).ok_or_else(|| wrong("no usable id"))?,
        visible: has("VISIBLE"),
        segments: parts.into_iter().map(|(_, segment)| segment).collect(),
    })
}

/// Two segments in one place, or one outside of its physical volume.
fn overlap(group: &VolumeGroup) -> Option<String> {
    for (number, physical) in group.physical.iter().enumerate() {
        let mut taken: Vec<(u64, u64, &str)> = Vec::new();
        for volume in &group.logical {
            for segment in volume.segments.iter().filter(|s| s.physical == number) {
                match segment.first.checked_add(segment.count).filter(|&end| end <= physical.extents) {
                    Some(end) => taken.push((segment.first, end, &volume.name)),
                    None => {
                        return Some(format!("logical volume {}: a segment leaves its physical volume", volume.name));
                    }
                }
            }
        }
        taken.sort_unstable();
        if let Some(pair) = taken.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            return Some(format!("logical volumes {} and {} overlap", pair[0].2, pair[1].2));
        }
    }
    None
}
