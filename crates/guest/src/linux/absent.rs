//! Filesystems that the VM does not have: volumes that were left out of the conversion. A system waits at its start for
//! everything that its fstab(5) and crypttab(5) name, and ends in its emergency shell; so those lines become comments.
//!
//! What lies inside of something left out that nobody could look into (an encrypted volume, a RAID) is not known: lines
//! whose filesystem is nowhere to be found get `nofail` then.

use machine::{Machine, VolumePlace};

use super::names::places_of_device;

/// What stands before a line that was made a comment. The line itself stays readable, for when the disk comes back.
const MARK: &str = "# left out by vconverter: ";

/// The tables without what was left out.
pub(super) struct Tables {
    pub(super) fstab: String,
    pub(super) crypttab: String,
    /// What became of which line.
    pub(super) said: Vec<String>,
}

/// Takes out of both tables what lies on the `absent` volumes of `machine`.
pub(super) fn without_absent(fstab: &str, crypttab: &str, machine: &Machine, absent: &[VolumePlace]) -> Tables {
    let mut tables = Tables { fstab: fstab.into(), crypttab: crypttab.into(), said: Vec::new() };
    if absent.is_empty() {
        return tables;
    }
    // Both halves of a mirror may bear one name: it is gone when all of them are.
    let is_absent = |device: &str, kind: &str| {
        let places = places_of_device(machine, device, kind);
        !places.is_empty() && places.iter().all(|place| covers(absent, place))
    };
    let mut opened = Vec::new();
    tables.crypttab = comment_out(crypttab, &mut |fields| {
        let gone = fields.get(1).is_some_and(|device| is_absent(device, "crypto_LUKS"));
        if gone {
            opened.push(format!("/dev/mapper/{}", fields[0]));
        }
        gone
    });
    let lines: Vec<Vec<&str>> = fstab.lines().map(fields).filter(|fields| fields.len() > 2).collect();
    let mut gone: Vec<&str> = Vec::new();
    for line in &lines {
        if is_absent(line[0], line[2]) || opened.iter().any(|name| name == line[0]) {
            gone.push(line[1]);
        }
    }
    tables.fstab = comment_out(fstab, &mut |line| {
        let (Some(device), Some(place), Some(kind)) = (line.first(), line.get(1), line.get(2)) else { return false };
        // Bind mounts, loop mounts and swap files of a filesystem that is gone.
        let inside = |place: &str| {
            place.len() > 1 && device.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        is_absent(device, kind) || opened.iter().any(|name| name == device) || {
            gone.iter().any(|mount| inside(mount)) && *place != "/"
        }
    });
    for (before, after) in fstab.lines().zip(tables.fstab.lines()) {
        if before != after {
            let line = fields(before);
            let what = if line[1].starts_with('/') { line[1] } else { line[2] };
            tables.said.push(format!("{what} was left out: its line in /etc/fstab ({}) is a comment now", line[0]));
        }
    }
    if absent.iter().any(|place| is_opaque(machine, place)) {
        tables.fstab = allow_missing(&tables.fstab, machine, &mut tables.said);
    }
    tables
}

/// Whether `place` is one of `absent`, or inside of one.
pub(super) fn covers(absent: &[VolumePlace], place: &VolumePlace) -> bool {
    let holds = |one: &VolumePlace| {
        (one.disk, one.offset) == (place.disk, place.offset) && (one.part.is_none() || one.part == place.part)
    };
    absent.iter().any(holds)
}

/// Fields of a line that is no comment.
fn fields(line: &str) -> Vec<&str> {
    if line.trim_start().starts_with('#') { Vec::new() } else { line.split_ascii_whitespace().collect() }
}

fn comment_out(text: &str, is_gone: &mut dyn FnMut(&[&str]) -> bool) -> String {
    let mut out = String::with_capacity(text.len() + 128);
    for line in text.split_inclusive('\n') {
        let fields = fields(line);
        if !fields.is_empty() && is_gone(&fields) {
            out.push_str(MARK);
        }
        out.push_str(line);
    }
    out
}

/// Whether something may lie in a volume that nobody could look into.
fn is_opaque(machine: &Machine, place: &VolumePlace) -> bool {
    let volumes = machine.disks.get(place.disk).map_or(&[][..], |disk| &disk.layout.volumes);
    let Some(volume) = volumes.iter().find(|volume| volume.offset == place.offset) else { return true };
    let part = place.part.as_ref().and_then(|name| volume.parts.iter().find(|part| part.name == *name));
    let kind = part.map_or(volume.kind.as_str(), |part| part.kind.as_str());
    let is_plain = kind.starts_with("ext") || ["vfat", "xfs", "btrfs", "swap", "ntfs", "swsuspend"].contains(&kind);
    !is_plain && (kind != "LVM2_member" || volume.parts.is_empty())
}

/// Lets the system start without filesystems that were not found on any volume.
fn allow_missing(text: &str, machine: &Machine, said: &mut Vec<String>) -> String {
    let mut out = String::with_capacity(text.len() + 128);
    for line in text.split_inclusive('\n') {
        let fields = fields(line);
        let names_volume = |device: &str| {
            ["UUID=", "LABEL=", "PARTUUID=", "/dev/mapper/", "/dev/md", "/dev/disk/by-"]
                .iter()
                .any(|p| device.starts_with(p))
        };
        let is_missing = fields.len() > 2
            && fields[1] != "/"
            && names_volume(fields[0])
            && places_of_device(machine, fields[0], fields[2]).is_empty()
            && !fields.get(3).is_some_and(|options| options.split(',').any(|o| o == "nofail" || o == "noauto"));
        if !is_missing {
            out.push_str(line);
            continue;
        }
        said.push(format!("{} was not found and may have been left out: the system no longer waits for it", fields[1]));
        let last = fields.get(3).unwrap_or(&fields[2]);
        let end = last.as_ptr() as usize - line.as_ptr() as usize + last.len();
        out.push_str(&line[..end]);
        out.push_str(if fields.len() > 3 { ",nofail" } else { " nofail" });
        out.push_str(&line[end..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use machine::{ByteOffset, Disk, DiskIdentity, DiskLayout, Part, SectorSize, Volume};

    use super::*;

    fn disk(path: &str, volumes: Vec<Volume>) -> Disk {
        Disk {
            path: path.into(),
            format: "raw".into(),
            virtual_size: machine::ByteCount::gib(1),
            logical_sector_size: SectorSize::B512,
            identity: DiskIdentity::default(),
            layout: DiskLayout { volumes, ..DiskLayout::default() },
        }
    }

    fn volume(number: u32, kind: &str, uuid: &str) -> Volume {
        let offset = ByteOffset(u64::from(number) << 20);
        Volume { offset, number: Some(number), kind: kind.into(), uuid: Some(uuid.into()), ..Volume::default() }
    }

    fn machine() -> Machine {
        let mut group = volume(2, "LVM2_member", "pv");
        let part = |name: &str, uuid: &str| Part {
            name: name.into(),
            kind: "ext4".into(),
            uuid: Some(uuid.into()),
            ..Part::default()
        };
        group.parts = vec![part("vg0/srv-a", "srv"), part("vg0/home", "home")];
        let first = disk("/dev/sda", vec![volume(1, "ext4", "root"), group]);
        let second = disk(
            "/dev/sdb",
            vec![volume(1, "ext4", "data"), volume(2, "swap", "swap"), volume(3, "crypto_LUKS", "luks")],
        );
        Machine { disks: vec![first, second], ..Machine::default() }
    }

    fn place(disk: usize, number: u64, part: Option<&str>) -> VolumePlace {
        VolumePlace { disk, offset: ByteOffset(number << 20), part: part.map(Into::into) }
    }

    const FSTAB: &str = "# /dev/sdb1 /old ext4\nUUID=root / ext4 errors=remount-ro 0 1\n/dev/sdb1\t/data ext4 defaults 0 2\n\
                         UUID=swap none swap sw 0 0\n/data/srv /srv/x none bind 0 0\n/data/swapfile none swap sw 0 0\n\
                         /database /d none bind\n/dev/mapper/vg0-srv--a /srv ext4 defaults 0 2\n\
                         /dev/vg0/home /home ext4 defaults 0 2\n/dev/mapper/safe /safe ext4 defaults 0 2\n";

    #[test]
    fn lines_of_volumes_that_were_left_out_are_comments_and_others_are_as_they_were() {
        let absent = [place(1, 1, None), place(1, 2, None), place(0, 2, Some("vg0/srv-a"))];
        let tables = without_absent(FSTAB, "", &machine(), &absent);
        println!("{}{:#?}", tables.fstab, tables.said);
        let mut expected = FSTAB.to_owned();
        for line in ["/dev/sdb1\t/data", "UUID=swap", "/data/srv /srv/x", "/data/swapfile", "/dev/mapper/vg0-srv--a"] {
            expected = expected.replace(&format!("\n{line}"), &format!("\n{MARK}{line}"));
        }
        assert_eq!(tables.fstab, expected);
        assert_eq!(tables.said.len(), 5);
        let again = without_absent(&tables.fstab, "", &machine(), &absent);
        assert_eq!((again.fstab, again.said), (tables.fstab, Vec::<String>::new()));
        assert_eq!(without_absent(FSTAB, "", &machine(), &[]).fstab, FSTAB);
    }

    #[test]
    fn what_lay_in_an_encrypted_volume_goes_with_it_and_what_cannot_be_known_is_not_waited_for() {
        let crypttab = "safe UUID=luks none luks\nother UUID=elsewhere none luks\n";
        let fstab = format!("{FSTAB}UUID=inside /inside xfs\nUUID=inside2 /inside2 xfs noatime 0 2\n");
        let tables = without_absent(&fstab, crypttab, &machine(), &[place(1, 3, None)]);
        println!("{}{}{:#?}", tables.crypttab, tables.fstab, tables.said);
        assert_eq!(tables.crypttab, format!("{MARK}{crypttab}"));
        assert!(tables.fstab.contains(&format!("\n{MARK}/dev/mapper/safe /safe")));
        assert!(
            tables.fstab.contains("UUID=inside /inside xfs nofail\nUUID=inside2 /inside2 xfs noatime,nofail 0 2\n")
        );
        assert!(tables.fstab.contains("\n/dev/sdb1\t/data ext4 defaults 0 2\n"));
    }

    proptest::proptest! {
        #[test]
        fn any_table_is_survived(text in "[\\\\a-z/=, \t\n#\u{e9}]{0,200}", crypt in "[a-z/= \n#]{0,80}") {
            let absent = [place(1, 1, None), place(1, 3, None)];
            let tables = without_absent(&text, &crypt, &machine(), &absent);
            proptest::prop_assert_eq!(tables.fstab.lines().count(), text.lines().count());
        }
    }
}
