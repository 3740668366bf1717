//! What a volume holds, with label and UUID as `blkid -p` prints them.
//!
//! Members of RAID sets and encrypted volumes are looked for first and end the search, as in blkid: what else is found
//! inside of them belongs to what they hold. Otherwise all signatures are collected: a volume with two of them holds
//! the remains of something, and nothing that one of them says about free space can be trusted.

mod linux;
mod member;
mod optical;
mod windows;

use block::BlockSource;

use crate::fat::Geometry;

/// What a volume holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// As blkid names it, or `unknown`.
    pub kind: String,
    /// Label.
    pub label: Option<String>,
    /// UUID or serial number, in the form that is usual for its kind.
    pub uuid: Option<String>,
    /// Further signatures; with one, blkid calls the volume ambivalent.
    pub also: Vec<String>,
}

/// One signature found.
#[derive(Clone, Debug, Default)]
struct Found {
    kind: &'static str,
    label: Option<String>,
    uuid: Option<String>,
}

impl Found {
    fn new(kind: &'static str, label: Option<String>, uuid: Option<String>) -> Option<Self> {
        Some(Self { kind, label, uuid })
    }
}

type Look = fn(&dyn BlockSource) -> Option<Found>;

/// Those that end the search.
const MEMBERS: [Look; 8] = [
    member::linux_raid,
    member::ddf,
    member::intel,
    member::bcache,
    member::lvm2,
    member::luks,
    windows::bitlocker,
    member::vmfs_volume,
];

const FILESYSTEMS: [Look; 21] = [
    windows::fat,
    linux::swap,
    linux::xfs,
    linux::ext,
    linux::reiserfs,
    linux::jfs,
    linux::hfs_plus,
    linux::zfs,
    linux::squashfs,
    linux::ocfs2,
    linux::gfs2,
    linux::f2fs,
    linux::nilfs2,
    windows::exfat,
    linux::btrfs,
    windows::ntfs,
    windows::refs,
    linux::erofs,
    linux::vmfs,
    linux::vxfs,
    linux::zonefs,
];

/// Found beside others without making them doubtful: hybrid media carry them on purpose.
const TOLERANT: [Look; 2] = [optical::udf, optical::iso9660];

/// Looks at a volume. What cannot be read there is not found.
pub fn probe(source: &dyn BlockSource) -> Probe {
    let member = MEMBERS.iter().find_map(|look| look(source));
    let mut all: Vec<Found> = match member {
        Some(found) => vec![found],
        None => FILESYSTEMS.iter().filter_map(|look| look(source)).collect(),
    };
    if all.is_empty() {
        all.extend(TOLERANT.iter().find_map(|look| look(source)));
    }
    let mut all = all.into_iter();
    match all.next() {
        Some(Found { kind, label, uuid }) => {
            Probe { kind: kind.into(), label, uuid, also: all.map(|f| f.kind.to_owned()).collect() }
        }
        None => Probe { kind: "unknown".into(), ..Probe::default() },
    }
}

/// Whether the sector is the boot sector of a FAT filesystem that begins `disk`, and no partition table.
pub(crate) fn is_fat(disk: &dyn BlockSource, sector: &[u8]) -> bool {
    Geometry::parse(sector).is_some_and(|geometry| geometry.total_bytes <= disk.size().0)
}
