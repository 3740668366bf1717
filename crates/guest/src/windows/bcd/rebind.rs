//! What of a store has to change where partitions have other names by now, and what names partitions that are not there.
//!
//! Boot variables of the firmware that the store repeats (`Description\FirmwareVariable`) are left alone: Windows makes
//! them anew from the firmware's own.

use std::fmt;

use machine::Disk;
use serde::Serialize;

use super::{Bcd, Element, ElementType, Object, Value, well_known_name};
use crate::windows::{Guid, Partition, PartitionMove, RegistryEdit};

/// The name of an element's only value.
const VALUE: &str = "Element";

/// A device element that names a partition which the machine has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Misfit {
    /// The object.
    pub object: Guid,
    /// The element.
    pub element: ElementType,
    /// What it names.
    pub partition: Partition,
    /// Whether Windows cannot start because of it: it is the boot manager's, or that of what it starts by itself.
    pub is_fatal: bool,
    /// Which, and what is there instead, for people.
    pub text: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Bcd {
    /// The edits by which every device element names the partitions of `moves` as they are named by now, those within RAM
    /// disks and virtual disks too.
    pub fn plan_rebind(&self, moves: &[PartitionMove]) -> Vec<RegistryEdit> {
        let mut edits = Vec::new();
        for (object, element) in self.elements() {
            let Value::Device(device) = &element.value else { continue };
            let Some(rebound) = device.rebound(moves) else { continue };
            let new = Value::Device(rebound.clone()).to_data();
            let reason = format!("{}: {device} is {rebound} by now", of(object, element));
            edits.extend(RegistryEdit::change(&element.key, VALUE, &element.data, &new, reason));
        }
        edits
    }

    /// The edits by which boot applications show themselves again: `graphicsmodedisabled`, which set-up writes where a
    /// machine has no screen, leaves a virtual machine's screen black until Windows itself draws.
    pub fn plan_graphics_mode(&self) -> Vec<RegistryEdit> {
        let disabled = self.elements().filter(|(_, element)| element.kind == ElementType::GRAPHICS_MODE_DISABLED);
        let remove = |(object, element): (&Object, &Element)| {
            let reason = format!("{}: the virtual machine has a screen", of(object, element));
            RegistryEdit::remove_key(&element.key, VALUE, &element.data, reason)
        };
        disabled.map(remove).collect()
    }

    /// The device elements that name no partition of `disks`.
    pub fn fits(&self, disks: &[Disk]) -> Vec<Misfit> {
        let there = Partition::of_all(disks);
        let started = self.default_object().map(|object| object.guid);
        let mut misfits = Vec::new();
        for (object, element) in self.elements() {
            let Value::Device(device) = &element.value else { continue };
            for partition in device.partitions() {
                if there.iter().any(|(_, found)| *found == partition) {
                    continue;
                }
                let is_named = matches!(element.kind, ElementType::APPLICATION_DEVICE | ElementType::OS_DEVICE);
                let is_fatal = is_named && (object.guid == super::BOOT_MANAGER || Some(object.guid) == started);
                let text = format!("{} is ({partition}): {}", of(object, element), instead(partition, &there, disks));
                misfits.push(Misfit { object: object.guid, element: element.kind, partition, is_fatal, text });
            }
        }
        misfits
    }

    fn elements(&self) -> impl Iterator<Item = (&Object, &Element)> {
        self.objects.iter().flat_map(|object| object.elements.iter().map(move |element| (object, element)))
    }
}

/// `osdevice of {guid} (Windows 10)`.
fn of(object: &Object, element: &Element) -> String {
    let guid = well_known_name(object.guid).map_or_else(|| object.guid.to_string(), str::to_owned);
    let described: String = object.description().map(|text| format!(" ({text})")).unwrap_or_default();
    format!("{} of {guid}{}", object.name_of(element.kind), described.replace(char::is_control, "\u{fffd}"))
}

/// What is there of a partition that is not.
fn instead(wanted: Partition, there: &[(usize, Partition)], disks: &[Disk]) -> String {
    let path = |at: usize| disks.get(at).map_or("", |disk| disk.path.as_str()).escape_debug().to_string();
    match wanted {
        Partition::Mbr { signature, offset } => {
            let of_disk = |found: &Partition| matches!(found, Partition::Mbr { signature: s, .. } if *s == signature);
            let at_offset = |found: &Partition| matches!(found, Partition::Mbr { offset: o, .. } if *o == offset);
            if let Some((at, _)) = there.iter().find(|(_, found)| of_disk(found)) {
                return format!("{} has no partition there", path(*at));
            }
            match there.iter().find(|(_, found)| at_offset(found)) {
                Some((at, found)) => {
                    format!("no disk has this signature; {} has a partition there ({found})", path(*at))
                }
                None => "no disk has this signature".into(),
            }
        }
        Partition::Gpt { disk, partition } => {
            let same = |found: &Partition| matches!(found, Partition::Gpt { partition: p, .. } if *p == partition);
            let of_disk = |found: &Partition| matches!(found, Partition::Gpt { disk: d, .. } if *d == disk);
            if let Some((at, found)) = there.iter().find(|(_, found)| same(found)) {
                return format!("{} has the partition, under another disk GUID ({found})", path(*at));
            }
            match there.iter().find(|(_, found)| of_disk(found)) {
                Some((at, _)) => format!("{} has no such partition", path(*at)),
                None => "no disk has this GUID".into(),
            }
        }
    }
}
