//! What can be known of a conversion before anything is touched: what keeps it from being made, what will not be as one
//! would expect, and what to do about it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use machine::{ByteCount, Condition, Disk, Family, FirmwareKind, Machine, Severity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::choices::{Selection, TakenDisk};
use crate::{Allocation, Request, programs};

/// What the result takes beside the used blocks: overlays of the fix-ups and of the boot proof, logs, the record.
const SCAFFOLDING: ByteCount = ByteCount::gib(1);
/// Of the used blocks, what an image adds to them: qcow2's tables, and blocks that are widened to 64 KiB.
const IMAGE_SHARE: u64 = 50;

/// Something that is known beforehand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Stable name of the rule: `space`, `encryption`.
    pub rule: String,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, and where.
    pub found: String,
    /// What to do about it.
    pub remedy: String,
}

/// What is known before a conversion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Preflight {
    /// Bytes that are to be read: the used blocks of the disks that are taken.
    pub bytes: ByteCount,
    /// The disks that are taken.
    #[serde(default)]
    pub disks: Vec<PlannedDisk>,
    /// Bytes that are free where the result will be; `None` where that cannot be known.
    pub free_bytes: Option<ByteCount>,
    /// What was found, what matters most first.
    pub findings: Vec<Finding>,
}

/// What is made of one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedDisk {
    /// Its path on the source.
    pub disk: String,
    /// Bytes that are to be read of it.
    pub bytes: ByteCount,
    /// Bytes that its image takes at most in the beginning.
    pub image_bytes: ByteCount,
    /// Room of the image.
    pub allocation: Allocation,
    /// Its folder, where that is another than the result's.
    pub folder: Option<PathBuf>,
}

impl Preflight {
    /// What keeps the conversion from being made.
    pub fn blockers(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Blocker)
    }

    /// One more finding, in its place.
    pub fn find(&mut self, rule: &str, severity: Severity, found: impl Into<String>, remedy: impl Into<String>) {
        let finding = Finding { rule: rule.into(), severity, found: found.into(), remedy: remedy.into() };
        let place = self.findings.partition_point(|other| other.severity >= severity);
        self.findings.insert(place, finding);
    }
}

/// Looks at what is known of a machine, and at the place of the result. Nothing is written.
pub fn preflight(machine: &Machine, request: &Request) -> Preflight {
    let mut preflight = Preflight::default();
    let mut machine = machine.clone();
    crate::place_mounts(&mut machine);
    let selection = match Selection::of(&machine, request) {
        Ok(selection) => selection,
        Err(error) => {
            let remedy = "name disks and volumes that the machine has, and folders that exist";
            preflight.find("disks", Severity::Blocker, error.to_string(), remedy);
            return preflight;
        }
    };
    let left = selection.left_out(&machine);
    if !left.is_empty() {
        let found = format!("{} left out: what the guest has there will be missing", left.join(", "));
        preflight.find(
            "disks",
            Severity::Info,
            found,
            "nothing, if that is meant: it will not wait for them at its start",
        );
    }
    for reason in selection.missing(&machine) {
        let (severity, remedy) = match request.choices.allow_unbootable {
            true => (Severity::Warning, "look whether the VM starts in another way"),
            false => (Severity::Blocker, "take it, or say that an unbootable VM is meant (--allow-unbootable)"),
        };
        preflight.find("unbootable", severity, format!("{reason}: the VM would not start"), remedy);
    }
    preflight.disks = selection.disks.iter().map(|taken| planned(&machine, taken)).collect();
    preflight.bytes = preflight.disks.iter().map(|disk| disk.bytes).sum();
    space(&mut preflight, request);
    names(&mut preflight, request, &selection);
    let machine = selection.of_vm(&machine);
    if let Err(error) = programs::check(&machine, request) {
        preflight.find("programs", Severity::Blocker, error.to_string(), "install them where the conversion runs");
    }
    content(&mut preflight, &machine);
    preflight
}

/// What is known of the content of a machine's disks, whatever is asked for, what matters most first.
pub(crate) fn findings(machine: &Machine) -> Vec<Finding> {
    let mut preflight = Preflight::default();
    content(&mut preflight, machine);
    preflight.findings
}

fn content(preflight: &mut Preflight, machine: &Machine) {
    for disk in &machine.disks {
        volumes(preflight, disk);
    }
    guest(preflight, machine);
}

fn planned(machine: &Machine, taken: &TakenDisk) -> PlannedDisk {
    let disk = &machine.disks[taken.index];
    let image = match taken.allocation {
        Allocation::Thin => taken.bytes,
        Allocation::Full => disk.virtual_size,
    };
    PlannedDisk {
        disk: disk.path.clone(),
        bytes: taken.bytes,
        image_bytes: image,
        allocation: taken.allocation,
        folder: taken.folder.clone(),
    }
}

/// Whether the result will fit, on each filesystem that gets some of it. The bound is what is used, not what compresses.
fn space(preflight: &mut Preflight, request: &Request) {
    preflight.free_bytes = free_bytes(&request.output);
    let folder_of = |disk: &PlannedDisk| disk.folder.clone().unwrap_or_else(|| request.output.clone());
    let mut folders: Vec<PathBuf> = vec![request.output.clone()];
    folders.extend(preflight.disks.iter().map(folder_of));
    let mut seen: Vec<u64> = Vec::new();
    for folder in folders {
        let (Some(device), Some(free)) = (device_of(&folder), free_bytes(&folder)) else { continue };
        if seen.contains(&device) {
            continue;
        }
        seen.push(device);
        let here = preflight.disks.iter().filter(|disk| device_of(&folder_of(disk)) == Some(device));
        // Room that is set aside is taken at once, whatever the disk holds.
        let (images, certain): (Vec<u64>, Vec<u64>) = here
            .map(|disk| (disk.image_bytes.0, if disk.allocation == Allocation::Full { disk.image_bytes.0 } else { 0 }))
            .unzip();
        let total = |all: &[u64]| all.iter().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
        let (images, certain) = (ByteCount(total(&images)), ByteCount(total(&certain)));
        let scaffolding = if device_of(&request.output) == Some(device) { SCAFFOLDING.0 } else { 0 };
        let needed = ByteCount(images.0.saturating_add(images.0 / IMAGE_SHARE).saturating_add(scaffolding));
        let shown = folder.display();
        let aside = match certain.is_zero() {
            true => format!("{images} are used on the disks"),
            false => format!("{images} are used on the disks or set aside"),
        };
        let found = format!("{shown} has {free} free, and {needed} are needed at most: {aside}");
        if free < images {
            preflight.find("space", Severity::Blocker, found, "make room there, or choose another folder");
        } else if free < needed {
            preflight.find("space", Severity::Warning, found, "zeros are not written, so it may fit; else make room");
        }
    }
}

fn device_of(folder: &Path) -> Option<u64> {
    folder.metadata().ok().map(|metadata| metadata.dev())
}

/// Whether the VM's name is free in the folders of single disks; that of the result's is looked at by whoever asks.
fn names(preflight: &mut Preflight, request: &Request, selection: &Selection) {
    for folder in selection.disks.iter().filter_map(|taken| taken.folder.as_ref()) {
        let path = folder.join(&request.name);
        if path.symlink_metadata().is_ok() {
            let found = format!("{} exists already", path.display());
            preflight.find("name", Severity::Blocker, found, "choose another name, or move it away");
        }
    }
}

fn free_bytes(folder: &Path) -> Option<ByteCount> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(ByteCount(found.f_bavail.saturating_mul(found.f_frsize)))
}

/// What lies on a disk and is not as one would expect.
fn volumes(preflight: &mut Preflight, disk: &Disk) {
    if disk.logical_sector_size.bytes() != 512 {
        let found = format!("{} has sectors of {} bytes", disk.path, disk.logical_sector_size.bytes());
        preflight.find("sectors", Severity::Info, found, "the VM gets the same; its hypervisor must know such disks");
    }
    for volume in &disk.layout.volumes {
        let place = match volume.number {
            Some(number) => format!("partition {number} of {}", disk.path),
            None => disk.path.clone(),
        };
        let kinds = std::iter::once((place.clone(), volume.kind.as_str()))
            .chain(volume.parts.iter().map(|part| (format!("{} on {place}", part.name), part.kind.as_str())));
        for (place, kind) in kinds {
            if let Some((rule, severity, says, remedy)) = rule_of(kind) {
                preflight.find(rule, severity, format!("{place} {says}"), remedy);
            }
        }
        let states = std::iter::once((place.clone(), &volume.conditions))
            .chain(volume.parts.iter().map(|part| (format!("{} on {place}", part.name), &part.conditions)));
        for (place, condition) in states.flat_map(|(place, all)| all.iter().map(move |one| (place.clone(), *one))) {
            let (rule, severity, means, remedy) = rule_of_condition(condition);
            preflight.find(rule, severity, format!("{place} {condition}: {means}"), remedy);
        }
    }
}

type Rule = (&'static str, Severity, &'static str, &'static str);

/// What a kind of content (as blkid names it) means for a conversion.
fn rule_of(kind: &str) -> Option<Rule> {
    use Severity::{Info, Warning};
    Some(match kind {
        "crypto_LUKS" => (
            "encryption",
            Warning,
            "is encrypted (LUKS): it is copied whole, and cannot be fixed up",
            "have the passphrase at hand: the VM asks for it at its console, and its boot proof will be inconclusive",
        ),
        "BitLocker" => (
            "encryption",
            Warning,
            "is encrypted (BitLocker): it is copied whole, and cannot be fixed up",
            "suspend the protection before (manage-bde -protectors -disable), or have the recovery key at hand",
        ),
        "swsuspend" => (
            "hibernation",
            Warning,
            "holds a hibernated system: the VM starts afresh, and what was open then is lost",
            "start the machine and shut it down before it is converted",
        ),
        "linux_raid_member" => (
            "layout",
            Info,
            "is a member of a Linux software RAID: it is copied whole",
            "take all members; in the VM the set may be dissolved later",
        ),
        "isw_raid_member" | "ddf_raid_member" => (
            "layout",
            Warning,
            "is a member of a firmware RAID that is not put together",
            "look at the machine's warnings for the reason",
        ),
        "zfs_member" | "bcache" | "bcachefs" | "btrfs" | "xfs" | "ReFS" | "jfs" | "reiserfs" | "nilfs2" | "f2fs" => (
            "layout",
            Info,
            "has a filesystem whose used blocks are not known: it is copied whole",
            "nothing; it takes longer",
        ),
        "VMFS" | "VMFS_volume_member" | "vxfs" | "ocfs2" | "gfs2" => (
            "layout",
            Warning,
            "belongs to a cluster: others may write there during the copy",
            "take only the machine's own disks (--disk)",
        ),
        _ => return None,
    })
}

/// What a state of a volume means for a conversion.
fn rule_of_condition(condition: Condition) -> Rule {
    use Severity::{Info, Warning};
    const SHARED: &str = "it is copied whole, and what it is part of works in the VM only with all of its disks";
    const ALL_DISKS: &str = "take all disks of the machine; their system cannot be fixed up";
    match condition {
        Condition::Hibernated => (
            "hibernation",
            Warning,
            "the VM starts afresh, and what was open then is lost",
            "start the machine and shut it down before it is converted: shutdown /s /f /t 0 (not by Fast Startup), or restart it",
        ),
        Condition::Dirty => (
            "filesystem",
            Warning,
            "it is copied whole, and Windows checks it when the VM starts",
            "run chkdsk /f on the machine before it is converted",
        ),
        Condition::LogInUse => (
            "filesystem",
            Warning,
            "it is copied whole, and its latest changes are carried out when the VM starts",
            "start the machine and shut it down before it is converted",
        ),
        Condition::SystemCompressed => (
            "filesystem",
            Info,
            "such files are copied as they are, and cannot be read before",
            "nothing; if something of the guest is not recognised, decompress it (compact /compactos:never)",
        ),
        Condition::ClearKey => (
            "encryption",
            Info,
            "the VM starts without asking for a key, but nothing on it can be fixed up from outside",
            "decrypt the volume before (manage-bde -off), or convert the machine while it runs",
        ),
        Condition::DynamicDisk | Condition::DynamicSimple => ("layout", Warning, SHARED, ALL_DISKS),
        Condition::DynamicMirrored => (
            "layout",
            Warning,
            SHARED,
            "take all disks of the machine, or break the mirror before; their system cannot be fixed up",
        ),
        Condition::DynamicSpanned | Condition::DynamicStriped | Condition::DynamicRaid5 => {
            ("layout", Warning, SHARED, ALL_DISKS)
        }
        Condition::StorageSpaces => ("layout", Warning, SHARED, ALL_DISKS),
    }
}

fn guest(preflight: &mut Preflight, machine: &Machine) {
    match machine.guest.family {
        Family::Unknown => preflight.find(
            "guest",
            Severity::Warning,
            "no operating system was recognised on the disks",
            "they are converted as they are; look at the boot proof",
        ),
        Family::Windows => preflight.find(
            "licence",
            Severity::Warning,
            "Windows that came with the hardware (OEM) may have to be activated again, and so may what is bound to a dongle or a MAC",
            "have the licence at hand",
        ),
        Family::Linux => {}
    }
    for note in &machine.guest.notes {
        preflight.find("guest", note.severity, note.what.clone(), note.meaning.clone());
    }
    if machine.firmware.kind == FirmwareKind::Uefi && machine.firmware.secure_boot == Some(true) {
        preflight.find(
            "secure-boot",
            Severity::Info,
            "Secure Boot is on",
            "the VM has it too, with Microsoft's keys alone: what other keys signed (a machine's owner's, MOK) is refused until they are \
             enrolled again, or it is switched off in the definition",
        );
    }
}

#[cfg(test)]
mod tests {
    use machine::{ByteOffset, DiskIdentity, DiskLayout, Guest, Part, SectorSize, Volume};

    use super::*;

    fn volume(kind: &str, used: ByteCount) -> Volume {
        Volume {
            offset: ByteOffset(1 << 20),
            size: ByteCount::gib(8),
            number: Some(1),
            kind: kind.into(),
            used_bytes: used,
            ..Volume::default()
        }
    }

    fn machine(volumes: Vec<Volume>) -> Machine {
        let disk = Disk {
            path: "/dev/sda".into(),
            format: "raw".into(),
            virtual_size: ByteCount::gib(8),
            logical_sector_size: SectorSize::B512,
            identity: DiskIdentity::default(),
            layout: DiskLayout { volumes, ..DiskLayout::default() },
        };
        let guest = Guest { family: Family::Linux, ..Guest::default() };
        Machine { disks: vec![disk], guest, ..Machine::default() }
    }

    fn rules(found: &Preflight) -> Vec<(&str, Severity)> {
        let of_this_machine = |finding: &&Finding| finding.rule != "programs";
        found.findings.iter().filter(of_this_machine).map(|one| (one.rule.as_str(), one.severity)).collect()
    }

    #[test]
    fn what_lies_on_the_disks_is_said_with_what_to_do_about_it() {
        let folder = tempfile::tempdir().unwrap();
        let request = Request { name: "vm".into(), output: folder.path().into(), ..Request::default() };
        assert_eq!(rules(&preflight(&machine(vec![volume("ext4", ByteCount(5))]), &request)), []);

        let mut lvm = volume("LVM2_member", ByteCount(7));
        let part = |name: &str, kind: &str| Part {
            name: name.into(),
            size: ByteCount::gib(1),
            kind: kind.into(),
            used_bytes: ByteCount(3),
            ..Part::default()
        };
        lvm.parts = vec![part("vg0/root", "xfs"), part("vg0/swap", "swsuspend")];
        let found = preflight(&machine(vec![volume("crypto_LUKS", ByteCount(5)), lvm]), &request);
        for finding in &found.findings {
            println!("{:?} {}: {}; {}", finding.severity, finding.rule, finding.found, finding.remedy);
        }
        let expected =
            [("encryption", Severity::Warning), ("hibernation", Severity::Warning), ("layout", Severity::Info)];
        assert_eq!(rules(&found), expected);
        assert_eq!((found.bytes, found.free_bytes.is_some()), (ByteCount(12), true));
        assert!(found.findings.iter().any(|one| one.found.starts_with("vg0/swap on partition 1 of /dev/sda holds")));
    }

    #[test]
    fn states_of_volumes_are_said_with_what_they_mean() {
        let folder = tempfile::tempdir().unwrap();
        let request = Request { name: "vm".into(), output: folder.path().into(), ..Request::default() };
        let conditions = vec![Condition::Hibernated, Condition::LogInUse, Condition::SystemCompressed];
        let system = Volume { conditions, ..volume("ntfs", ByteCount(5)) };
        let dynamic = Volume { conditions: vec![Condition::DynamicStriped], ..volume("unknown", ByteCount(5)) };
        let found = preflight(&machine(vec![system, dynamic]), &request);
        for finding in &found.findings {
            println!("{:?} {}: {}; {}", finding.severity, finding.rule, finding.found, finding.remedy);
        }
        let expected = [
            ("hibernation", Severity::Warning),
            ("filesystem", Severity::Warning),
            ("layout", Severity::Warning),
            ("filesystem", Severity::Info),
        ];
        assert_eq!(rules(&found), expected);
        let hibernated = found.findings.iter().find(|one| one.rule == "hibernation").unwrap();
        assert!(hibernated.found.starts_with("partition 1 of /dev/sda holds a hibernated Windows"), "{hibernated:?}");
    }

    #[test]
    fn what_cannot_be_is_a_blocker() {
        let folder = tempfile::tempdir().unwrap();
        let request = Request { name: "vm".into(), output: folder.path().into(), ..Request::default() };
        let huge = preflight(&machine(vec![volume("ext4", ByteCount(1 << 60))]), &request);
        assert_eq!(rules(&huge), [("space", Severity::Blocker)]);
        assert_eq!(
            huge.blockers().count(),
            huge.findings.iter().filter(|one| one.severity == Severity::Blocker).count()
        );
        let other = Request { disks: vec!["/dev/sdz".into()], ..request };
        assert_eq!(rules(&preflight(&machine(vec![]), &other)), [("disks", Severity::Blocker)]);
    }
}
