//! Device names: what names a disk by its bus or its model (`/dev/sda1`, `/dev/cciss/c0d0p2`, `by-id`, `by-path`) is
//! told to use the filesystem's UUID, which moves with the disk. Names of device-mapper, LABEL, UUID, PARTUUID stay. What the
//! VM does not have at all is no longer waited for.

use machine::{Disk, Machine, Volume, VolumePlace};

use super::absent::without_absent;
use crate::plan::{Change, Fixup};
use crate::{FileTree, Result};

/// Where command lines of the kernel are kept.
const COMMAND_LINES: [&str; 5] = [
    "/etc/default/grub",
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/grub/custom.cfg",
    "/etc/kernel/cmdline",
];

/// Folder of initramfs-tools whose files may set `RESUME`.
const RESUME_FOLDER: &str = "/etc/initramfs-tools/conf.d";

/// Plans the fix-up `device-names` for a guest whose VM lacks the `absent` volumes of `machine`.
pub(super) fn plan(
    tree: &dyn FileTree,
    machine: &Machine,
    absent: &[VolumePlace],
    warnings: &mut Vec<String>,
) -> Result<Vec<Fixup>> {
    let volumes = Volumes { disks: &machine.disks };
    let table = |path| tree.text(path).map(Option::unwrap_or_default);
    let without = without_absent(&table("/etc/fstab")?, &table("/etc/crypttab")?, machine, absent);
    warnings.extend(without.said);
    let mut changes = Vec::new();
    let mut unknown = Vec::new();
    let mut edit = |path: &str, rewrite: &dyn Fn(&str, &mut Vec<String>) -> String| -> Result<()> {
        if let Some(bytes) = tree.read(path, crate::tree::TEXT_MAX)? {
            // What is not UTF-8 could not be written back as it was.
            let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(()) };
            changes.extend(Change::write(tree, path, rewrite(text, &mut unknown).as_bytes(), 0o644)?);
        }
        Ok(())
    };
    edit("/etc/fstab", &|_, unknown| rewrite_table(&without.fstab, 0, Some(2), &volumes, unknown))?;
    edit("/etc/crypttab", &|_, unknown| rewrite_table(&without.crypttab, 1, None, &volumes, unknown))?;
    for path in COMMAND_LINES {
        edit(path, &|text, unknown| {
            let text = rewrite_option(text, "root=", None, &volumes, unknown);
            rewrite_option(&text, "resume=", Some("swap"), &volumes, unknown)
        })?;
    }
    for entry in tree.list(RESUME_FOLDER)? {
        let path = format!("{RESUME_FOLDER}/{}", entry.name);
        edit(&path, &|text, unknown| rewrite_option(text, "RESUME=", Some("swap"), &volumes, unknown))?;
    }
    unknown.sort();
    unknown.dedup();
    warnings.extend(unknown.iter().map(|name| format!("{name} names no filesystem that was found: left as it is")));
    let reason = "names that follow bus, slot or model of the source's disks lead nowhere on virtual hardware";
    let title = match absent.is_empty() {
        true => "filesystems named by UUID",
        false => "filesystems named by UUID, and those that were left out not waited for",
    };
    Ok(vec![Fixup::new("device-names", title, reason, changes)])
}

/// Notes with each volume of `machine` where its guest mounts it, as far as its table could be read.
pub fn place_mounts(machine: &mut Machine) {
    for mount in machine.guest.mounts.clone() {
        if !mount.mount_point.starts_with('/') {
            continue;
        }
        for place in places_of_device(machine, &mount.device, &mount.kind) {
            let volumes = machine.disks.get_mut(place.disk).map(|disk| &mut disk.layout.volumes);
            let Some(volume) = volumes.and_then(|v| v.iter_mut().find(|v| v.offset == place.offset)) else { continue };
            let points = match &place.part {
                None => Some(&mut volume.mount_points),
                Some(name) => {
                    volume.parts.iter_mut().find(|part| part.name == *name).map(|part| &mut part.mount_points)
                }
            };
            if let Some(points) = points.filter(|points| !points.contains(&mount.mount_point)) {
                points.push(mount.mount_point.clone());
            }
        }
    }
}

/// The volumes that `device` names, as fstab(5) has it; several where they share a name. `kind` is the filesystem that it
/// should hold.
pub fn places_of_device(machine: &Machine, device: &str, kind: &str) -> Vec<VolumePlace> {
    let volumes = Volumes { disks: &machine.disks };
    match volumes.find(device, Some(kind)) {
        Ok(Some((disk, volume))) => vec![VolumePlace { disk, offset: volume.offset, part: None }],
        Ok(None) => volumes.named(device),
        Err(()) => Vec::new(),
    }
}

/// `UUID=…` of the volume that `device` names by bus, slot or model, holding a filesystem of `kind` (as fstab(5) names
/// it); `None` for other names and unknown volumes.
pub fn uuid_of_device(machine: &Machine, device: &str, kind: &str) -> Option<String> {
    Volumes { disks: &machine.disks }.uuid(device, Some(kind)).ok().flatten()
}

/// What a device name says.
#[derive(Debug, PartialEq, Eq)]
struct Named<'n> {
    /// Position of the disk, where the name tells it.
    disk: Option<usize>,
    /// What identifies the disk, in a name by id.
    id: Option<&'n str>,
    /// Partition number; `None` for the whole disk.
    partition: Option<u32>,
}

/// Parses a name that depends on hardware; `None` for every other name.
fn parse_name(device: &str) -> Option<Named<'_>> {
    let name = device.strip_prefix("/dev/")?;
    if let Some(id) = name.strip_prefix("disk/by-id/").or_else(|| name.strip_prefix("disk/by-path/")) {
        // These are made by device-mapper, md and LVM, from their own UUIDs.
        if ["dm-", "md-", "lvm-"].iter().any(|prefix| id.starts_with(prefix)) {
            return None;
        }
        return Some(match id.rsplit_once("-part").and_then(|(id, n)| Some((id, n.parse().ok()?))) {
            Some((id, partition)) => Named { disk: None, id: Some(id), partition: Some(partition) },
            None => Named { disk: None, id: Some(id), partition: None },
        });
    }
    let numbers = |text: &str, separator: char| -> Option<(usize, usize, Option<u32>)> {
        let (first, rest) = text.split_once(separator)?;
        let (second, partition) = match rest.split_once('p') {
            Some((second, partition)) => (second, Some(partition.parse().ok()?)),
            None => (rest, None),
        };
        Some((first.parse().ok()?, second.parse().ok()?, partition))
    };
    for controller in ["cciss/c", "ida/c", "rd/c"] {
        if let Some(rest) = name.strip_prefix(controller) {
            let (_, disk, partition) = numbers(rest, 'd')?;
            return Some(Named { disk: Some(disk), id: None, partition });
        }
    }
    if let Some(rest) = name.strip_prefix("nvme") {
        let (disk, _, partition) = numbers(rest, 'n')?;
        return Some(Named { disk: Some(disk), id: None, partition });
    }
    let rest = ["xvd", "sd", "hd", "vd"].iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
    let (letters, digits) = rest.split_at(letters);
    if letters.is_empty() || letters.len() > 3 {
        return None;
    }
    let disk = letters.bytes().fold(0, |n, letter| n * 26 + usize::from(letter - b'a') + 1) - 1;
    let partition = if digits.is_empty() { None } else { Some(digits.parse().ok()?) };
    Some(Named { disk: Some(disk), id: None, partition })
}

/// The volumes of a machine, by the names that a guest may have for them.
struct Volumes<'m> {
    disks: &'m [Disk],
}

impl Volumes<'_> {
    /// `UUID=…` of the volume that `device` names; `kind` is the filesystem that it should hold, where that is known.
    /// `Ok(None)` if the name need not change, `Err` if its volume is not known.
    fn uuid(&self, device: &str, kind: Option<&str>) -> std::result::Result<Option<String>, ()> {
        let Some((_, volume)) = self.find(device, kind)? else { return Ok(None) };
        match volume.uuid.as_deref().filter(|uuid| uuid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')) {
            Some(uuid) => Ok(Some(format!("UUID={uuid}"))),
            None => Err(()),
        }
    }

    /// The volume that a name by bus, slot or model means, with its disk, as [`Volumes::uuid`].
    fn find(&self, device: &str, kind: Option<&str>) -> std::result::Result<Option<(usize, &Volume)>, ()> {
        let Some(named) = parse_name(device) else { return Ok(None) };
        let fitting: Vec<(usize, &Volume)> = self
            .disks
            .iter()
            .enumerate()
            .flat_map(|(disk, d)| d.layout.volumes.iter().map(move |volume| (disk, volume)))
            .filter(|(_, volume)| volume.number == named.partition)
            .filter(|(_, volume)| kind.is_none_or(|kind| fits(kind, &volume.kind)))
            .filter(|(_, volume)| volume.uuid.is_some())
            .collect();
        let identified = |disk: usize| named.id.is_some_and(|id| identifies(id, &self.disks[disk]));
        // The position of a disk may differ between the source's system and the inventory: it decides only between
        // volumes that fit equally.
        match fitting.as_slice() {
            [] => Err(()),
            [one] => Ok(Some(*one)),
            several => {
                let is_meant = |(disk, _): &&(usize, &Volume)| identified(*disk) || named.disk == Some(*disk);
                several.iter().find(is_meant).copied().map(Some).ok_or(())
            }
        }
    }

    /// The volumes that a name means that follows their contents, or LVM.
    fn named(&self, device: &str) -> Vec<VolumePlace> {
        let mut found = Vec::new();
        for (disk, layout) in self.disks.iter().enumerate().map(|(disk, d)| (disk, &d.layout)) {
            for volume in &layout.volumes {
                let offset = volume.offset;
                let known = Known { uuid: &volume.uuid, label: &volume.label, partition_uuid: &volume.partition_uuid };
                if known.is(device) {
                    found.push(VolumePlace { disk, offset, part: None });
                }
                for part in &volume.parts {
                    let known = Known { uuid: &part.uuid, label: &part.label, partition_uuid: &None };
                    // device-mapper writes - for / and -- for -.
                    let mapped = part.name.split('/').map(|name| name.replace('-', "--")).collect::<Vec<_>>().join("-");
                    let by_name = device.strip_prefix("/dev/mapper/") == Some(&mapped)
                        || device.strip_prefix("/dev/") == Some(&part.name);
                    if by_name || known.is(device) {
                        found.push(VolumePlace { disk, offset, part: Some(part.name.clone()) });
                    }
                }
            }
        }
        found
    }
}

/// What a volume is known by.
struct Known<'v> {
    uuid: &'v Option<String>,
    label: &'v Option<String>,
    partition_uuid: &'v Option<String>,
}

impl Known<'_> {
    fn is(&self, device: &str) -> bool {
        let name = |prefixes: [&str; 2]| {
            prefixes.iter().find_map(|prefix| device.strip_prefix(prefix)).map(|name| name.trim_matches('"'))
        };
        let same = |value: &Option<String>, name: &str| value.as_deref().is_some_and(|v| v.eq_ignore_ascii_case(name));
        if let Some(uuid) = name(["UUID=", "/dev/disk/by-uuid/"]) {
            return same(self.uuid, uuid);
        }
        if let Some(uuid) = name(["PARTUUID=", "/dev/disk/by-partuuid/"]) {
            return same(self.partition_uuid, uuid);
        }
        name(["LABEL=", "/dev/disk/by-label/"]).is_some_and(|label| self.label.as_deref() == Some(label))
    }
}

/// Whether a filesystem named `kind` in a table can be what was found.
fn fits(kind: &str, found: &str) -> bool {
    let family = |kind: &str| match kind {
        "ext2" | "ext3" | "ext4" => "ext",
        "msdos" | "vfat" | "fat" => "vfat",
        // A hibernated system's is a swap area again when its VM starts.
        "swap" | "sw" | "swsuspend" => "swap",
        _ => "",
    };
    kind == "auto" || kind == found || (!family(kind).is_empty() && family(kind) == family(found))
}

/// Whether a name by id carries the disk's serial number or WWN.
fn identifies(id: &str, disk: &Disk) -> bool {
    let plain =
        |text: &str| -> String { text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase() };
    let id = plain(id);
    let carried = |value: &Option<String>| value.as_deref().map(plain).is_some_and(|v| v.len() >= 4 && id.contains(&v));
    carried(&disk.identity.serial) || carried(&disk.identity.wwn)
}

/// Replaces device names in column `column` of a table; column `kind` names the filesystem.
fn rewrite_table(
    text: &str,
    column: usize,
    kind: Option<usize>,
    volumes: &Volumes<'_>,
    unknown: &mut Vec<String>,
) -> String {
    let mut out = String::with_capacity(text.len() + 128);
    for line in text.split_inclusive('\n') {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let device = fields.get(column).filter(|_| !line.trim_start().starts_with('#'));
        let kind = match kind {
            Some(kind) => fields.get(kind).copied(),
            None => Some("crypto_LUKS"),
        };
        match device.map(|device| (device, volumes.uuid(device, kind))) {
            Some((device, Ok(Some(uuid)))) => {
                let at = device.as_ptr() as usize - line.as_ptr() as usize;
                out.push_str(&line[..at]);
                out.push_str(&uuid);
                out.push_str(&line[at + device.len()..]);
            }
            Some((device, Err(()))) => {
                unknown.push((*device).to_owned());
                out.push_str(line);
            }
            _ => out.push_str(line),
        }
    }
    out
}

/// Replaces device names behind `option` wherever it starts a word.
fn rewrite_option(
    text: &str,
    option: &str,
    kind: Option<&str>,
    volumes: &Volumes<'_>,
    unknown: &mut Vec<String>,
) -> String {
    let mut out = String::with_capacity(text.len() + 128);
    let mut done = 0;
    for (at, _) in text.match_indices(option) {
        let before = text[..at].chars().next_back();
        let starts_word = before.is_none_or(|c| c.is_whitespace() || c == '"' || c == '\'');
        let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        if !starts_word || text[line..at].trim_start().starts_with('#') {
            continue;
        }
        let start = at + option.len();
        let rest = &text[start..];
        let end = rest.find(|c: char| c.is_whitespace() || c == '"' || c == '\'').unwrap_or(rest.len());
        match volumes.uuid(&rest[..end], kind) {
            Ok(Some(uuid)) => {
                out.push_str(&text[done..start]);
                out.push_str(&uuid);
                done = start + end;
            }
            Ok(None) => {}
            Err(()) => unknown.push(rest[..end].to_owned()),
        }
    }
    out.push_str(&text[done..]);
    out
}

#[cfg(test)]
mod tests {
    use machine::{ByteCount, ByteOffset, DiskIdentity, DiskLayout, SectorSize, Volume};

    use super::*;
    use crate::MemoryTree;

    fn volume(number: u32, kind: &str, uuid: &str) -> Volume {
        Volume {
            offset: ByteOffset(0),
            size: ByteCount(0),
            number: Some(number),
            kind: kind.into(),
            uuid: Some(uuid.into()),
            ..Volume::default()
        }
    }

    fn machine(disks: Vec<Vec<Volume>>) -> Machine {
        let disk = |(index, volumes): (usize, Vec<Volume>)| Disk {
            path: "disk.raw".into(),
            format: "raw".into(),
            virtual_size: ByteCount(0),
            logical_sector_size: SectorSize::B512,
            identity: DiskIdentity { serial: Some(format!("SERIAL{index}")), ..DiskIdentity::default() },
            layout: DiskLayout { volumes, ..DiskLayout::default() },
        };
        Machine { disks: disks.into_iter().enumerate().map(disk).collect(), ..Machine::default() }
    }

    fn after(tree: &MemoryTree, machine: &Machine, path: &str) -> (String, Vec<String>) {
        let mut warnings = Vec::new();
        let fixup = plan(tree, machine, &[], &mut warnings).unwrap().remove(0);
        let mut tree = tree.clone();
        for change in &fixup.changes {
            let Change::Write { path, contents, mode, .. } = change else { panic!("{change:?}") };
            crate::WritableTree::replace(&mut tree, path, contents.as_deref().unwrap(), *mode).unwrap();
        }
        let again = plan(&tree, machine, &[], &mut Vec::new()).unwrap().remove(0);
        assert!(again.already_so, "{again}");
        (tree.text(path).unwrap().unwrap(), warnings)
    }

    #[test]
    fn names_by_bus_slot_and_model_become_uuids_and_others_stay() {
        let machine = machine(vec![vec![volume(1, "ext4", "aaaa-1"), volume(5, "swsuspend", "bbbb-5")]]);
        let fstab = "# /dev/sda1 was root\n/dev/sda1\t/ ext3 defaults 0 1\n/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part5 \
                     none swap sw 0 0\n/dev/mapper/vg0-home /home ext4 defaults 0 2\nLABEL=x /x ext4\n/dev/sr0 /media/cdrom0 \
                     udf,iso9660 user,noauto 0 0\n/dev/cciss/c0d0p1 /same ext4\n";
        let tree = MemoryTree::new().with("/etc/fstab", fstab);
        let (text, warnings) = after(&tree, &machine, "/etc/fstab");
        let expected = fstab
            .replace("\n/dev/sda1\t", "\nUUID=aaaa-1\t")
            .replace("/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part5", "UUID=bbbb-5")
            .replace("/dev/cciss/c0d0p1", "UUID=aaaa-1");
        assert_eq!((text, warnings), (expected, vec![]));
    }

    #[test]
    fn kernel_lines_and_resume_are_rewritten_and_device_mapper_is_not() {
        let machine = machine(vec![vec![volume(1, "ext4", "aaaa-1"), volume(5, "swap", "bbbb-5")]]);
        let config = "GRUB_CMDLINE_LINUX=\"root=/dev/nvme0n1p1 resume=/dev/sda5 x-root=/dev/sda1\"\n# root=/dev/sda1\n";
        let tree = MemoryTree::new()
            .with("/etc/default/grub", config)
            .with("/boot/grub/grub.cfg", "\tlinux /vmlinuz root=/dev/hda1 ro\n\tlinux /v root=/dev/mapper/vg-root ro\n")
            .with("/etc/initramfs-tools/conf.d/resume", "RESUME=/dev/sda5\n");
        assert_eq!(
            after(&tree, &machine, "/etc/default/grub").0,
            "GRUB_CMDLINE_LINUX=\"root=UUID=aaaa-1 resume=UUID=bbbb-5 x-root=/dev/sda1\"\n# root=/dev/sda1\n"
        );
        let grub = after(&tree, &machine, "/boot/grub/grub.cfg").0;
        assert!(grub.contains("root=UUID=aaaa-1 ro") && grub.contains("root=/dev/mapper/vg-root"), "{grub}");
        assert_eq!(after(&tree, &machine, "/etc/initramfs-tools/conf.d/resume").0, "RESUME=UUID=bbbb-5\n");
    }

    #[test]
    fn several_disks_are_told_apart_by_serial_kind_and_position() {
        let machine = machine(vec![
            vec![volume(1, "ext4", "a-1"), volume(2, "swap", "a-2")],
            vec![volume(1, "ext4", "b-1"), volume(2, "xfs", "b-2")],
        ]);
        let volumes = Volumes { disks: &machine.disks };
        assert_eq!(volumes.uuid("/dev/sdb1", Some("ext4")), Ok(Some("UUID=b-1".into())));
        assert_eq!(volumes.uuid("/dev/sda2", Some("xfs")), Ok(Some("UUID=b-2".into())));
        let by_id = "/dev/disk/by-id/ata-MODEL_SERIAL1-part1";
        assert_eq!(volumes.uuid(by_id, Some("ext4")), Ok(Some("UUID=b-1".into())));
        assert_eq!(volumes.uuid("/dev/disk/by-path/pci-1-part1", Some("ext4")), Err(()));
        assert_eq!(volumes.uuid("/dev/sdc9", None), Err(()));
        assert_eq!(volumes.uuid("/dev/disk/by-uuid/a-1", None), Ok(None));
        assert_eq!(volumes.uuid("/dev/disk/by-id/dm-name-x", None), Ok(None));
    }
}
