//! The machine's disks, from `/sys/block`, known by what they are and not by their names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::{BlockSource, Format, OpenOptions};
use machine::{DiskIdentity, SectorSize};
use volume::raid::{self, Candidate, MachineDisk};

use super::{list, read_file, read_line, read_number, sector_size};

/// A disk that was found and not opened yet.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) identity: DiskIdentity,
    logical_sector_size: Option<SectorSize>,
}

impl Found {
    /// A device or raw image that was named.
    pub(super) fn file(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default();
        let sys = Path::new("/sys/class/block").join(name);
        let is_device = path.starts_with("/dev") && sys.exists();
        Self {
            path: path.to_owned(),
            identity: if is_device { load_identity(&sys) } else { DiskIdentity::default() },
            logical_sector_size: is_device.then(|| sector_size(read_number(sys.join("queue/logical_block_size")))),
        }
    }

    /// Opens it for reading, and for nothing else.
    pub(super) fn open(&self) -> block::Result<Arc<dyn BlockSource>> {
        let options = OpenOptions {
            format: Some(Format::Raw),
            logical_sector_size: self.logical_sector_size,
            ..OpenOptions::default()
        };
        Ok(block::open_source_with(&self.path, &options)?.source)
    }
}

/// A disk open for reading.
pub(super) type Opened = (Found, Arc<dyn BlockSource>);

/// Puts sets of firmware RAID together: each volume of theirs is one disk, and their members are none.
pub(super) fn assemble(opened: Vec<Opened>, warnings: &mut Vec<String>) -> Vec<Opened> {
    let candidate =
        |(found, source): &Opened| Candidate { source: Arc::clone(source), serial: found.identity.serial.clone() };
    let assembly = raid::assemble(&opened.iter().map(candidate).collect::<Vec<_>>());
    let paths = |members: &[usize]| {
        members.iter().map(|&place| opened[place].0.path.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    for refused in &assembly.refused {
        let text = format!(
            "{}: no disks for themselves, and their set is left out: {}",
            paths(&refused.members),
            refused.reason
        );
        warnings.push(text);
    }
    let disk = |disk: MachineDisk<'_>| match disk {
        MachineDisk::Plain(place) => opened[place].clone(),
        MachineDisk::Array(array) => {
            if array.missing > 0 {
                warnings.push(format!(
                    "{} {}: {} of its members are missing or not up to date",
                    array.level, array.name, array.missing
                ));
            }
            let members = paths(&array.members);
            let identity = DiskIdentity {
                wwn: None,
                serial: Some(array.id.clone()),
                model: Some(format!("{} {} of {members}", array.level, array.name)),
            };
            let found = Found { path: members.into(), identity, logical_sector_size: None };
            (found, Arc::clone(&array.source))
        }
    };
    assembly.disks().into_iter().map(disk).collect()
}

/// All real disks that the file `only` names, if there is to be one, in the order of their buses.
pub(super) fn find_disks(only: Option<&Path>) -> Vec<Found> {
    let only = only.map(|file| read_file(file).unwrap_or_default());
    let mut disks: Vec<(PathBuf, Found)> = list("/sys/block")
        .into_iter()
        .filter(|sys| is_real(sys) && only.as_ref().is_none_or(|names| is_named(sys, names)))
        .filter_map(|sys| {
            // A `/` in a kernel name stands as `!` here: cciss!c0d0.
            let name = sys.file_name()?.to_str()?.replace('!', "/");
            let found = Found {
                path: Path::new("/dev").join(name),
                identity: load_identity(&sys),
                logical_sector_size: Some(sector_size(read_number(sys.join("queue/logical_block_size")))),
            };
            Some((std::fs::canonicalize(&sys).unwrap_or(sys), found))
        })
        .collect();
    disks.sort_by_key(|(bus, _)| natural_order(&bus.to_string_lossy()));
    disks.into_iter().map(|(_, found)| found).collect()
}

/// Whether a file with a name a line has that of a disk.
fn is_named(sys: &Path, names: &[u8]) -> bool {
    use std::os::unix::ffi::OsStrExt;
    sys.file_name().is_some_and(|own| names.split(|&byte| byte == b'\n').any(|name| name == own.as_bytes()))
}

/// Whether it is a disk with hardware behind it and a medium in it.
fn is_real(sys: &Path) -> bool {
    let name = sys.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let numbered =
        |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    // sr CD, fd floppy, loop, ram and zram memory, dm and md made of others, nbd and rbd not of this machine.
    let made = ["sr", "scd", "fd", "loop", "ram", "zram", "dm-", "md", "nbd", "rbd"].into_iter().any(numbered);
    let hidden = read_number(sys.join("hidden")) == Some(1);
    let scsi_cd = read_line(sys.join("device/type")).as_deref() == Some("5");
    let emmc_part = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    !made
        && !hidden
        && !scsi_cd
        && !emmc_part
        && sys.join("device").exists()
        && read_number(sys.join("size")).unwrap_or(0) > 0
}

/// What a disk calls itself, from wherever its driver shows it.
fn load_identity(sys: &Path) -> DiskIdentity {
    let text = |name: &str| read_line(sys.join(name)).map(|t| squeeze(&t)).filter(|t| !t.is_empty());
    let serial_page = || {
        // SCSI's unit serial number page (SPC, vital product data 80h): four bytes of header, then text.
        let page = read_file(sys.join("device/vpd_pg80"))?;
        let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
        let text = squeeze(&String::from_utf8_lossy(page.get(4..4 + length)?));
        (!text.is_empty()).then_some(text)
    };
    let model = text("device/model").map(|model| match text("device/vendor") {
        Some(vendor) if vendor != "ATA" && !vendor.starts_with("0x") => format!("{vendor} {model}"),
        _ => model,
    });
    DiskIdentity {
        wwn: text("wwid").or_else(|| text("device/wwid")),
        serial: text("serial").or_else(|| text("device/serial")).or_else(serial_page),
        model,
    }
}

/// Without control characters, and one blank for many.
fn squeeze(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(256).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A key that orders numbers in names by their value: `ata2` before `ata10`.
fn natural_order(name: &str) -> Vec<(bool, u128, String)> {
    let mut parts: Vec<(bool, u128, String)> = Vec::new();
    for c in name.chars() {
        match (c.is_ascii_digit(), parts.last_mut()) {
            (true, Some((true, value, text))) => {
                *value = value.saturating_mul(10).saturating_add(u128::from(c as u32 - '0' as u32));
                text.push(c);
            }
            (false, Some((false, _, text))) => text.push(c),
            (digit, _) => parts.push((digit, c.to_digit(10).map_or(0, u128::from), c.to_string())),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(folder: &Path, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let sys = folder.join(name);
        for (file, content) in files {
            let path = sys.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        sys
    }

    #[test]
    fn disks_of_all_buses_are_known_by_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let ata = fake(
            folder.path(),
            "sda",
            &[
                ("size", b"2048\n"),
                ("device/vendor", b"ATA     \n"),
                ("device/model", b"QEMU HARDDISK   \n"),
                ("device/wwid", b"t10.ATA     QEMU HARDDISK                           QM00001             \n"),
                ("device/vpd_pg80", b"\0\x80\0\x14             QM00001"),
            ],
        );
        assert!(is_real(&ata));
        let identity = load_identity(&ata);
        assert_eq!(identity.serial.as_deref(), Some("QM00001"));
        assert_eq!(identity.model.as_deref(), Some("QEMU HARDDISK"));
        assert_eq!(identity.wwn.as_deref(), Some("t10.ATA QEMU HARDDISK QM00001"));
        let nvme = fake(
            folder.path(),
            "nvme0n1",
            &[
                ("size", b"2048\n"),
                ("wwid", b"eui.0025385b91b0b1a2\n"),
                ("device/serial", b"S4EV    \n"),
                ("device/model", b"Samsung SSD 970\n"),
            ],
        );
        assert!(is_real(&nvme));
        let identity = load_identity(&nvme);
        assert_eq!(identity.wwn.as_deref(), Some("eui.0025385b91b0b1a2"));
        assert_eq!(identity.serial.as_deref(), Some("S4EV"));
    }

    #[test]
    fn only_disks_that_are_named_are_the_machines() {
        let named = |name: &str| is_named(&Path::new("/sys/block").join(name), b"sda\ncciss!c0d0\n");
        assert!(named("sda") && named("cciss!c0d0"));
        assert!(!named("sdaa") && !named("sd") && !named("sdb") && !is_named(Path::new("/sys/block/sda"), b""));
    }

    #[test]
    fn what_is_no_disk_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["sr0", "fd0", "loop3", "ram1", "zram0", "dm-0", "md127", "mmcblk0boot0"] {
            let sys = fake(folder.path(), name, &[("size", b"2048\n"), ("device/model", b"x")]);
            assert!(!is_real(&sys), "{name}");
        }
        assert!(!is_real(&fake(folder.path(), "sdb", &[("size", b"0\n"), ("device/model", b"card reader")])));
        assert!(!is_real(&fake(folder.path(), "sdc", &[("size", b"9\n"), ("device/type", b"5\n")])));
        assert!(!is_real(&fake(
            folder.path(),
            "nvme0c0n1",
            &[("size", b"9\n"), ("hidden", b"1\n"), ("device/x", b"")]
        )));
    }

    #[test]
    fn buses_are_in_the_order_of_their_numbers() {
        let mut names = vec!["ata10/sda", "ata2/sdb", "ata1/sdc"];
        names.sort_by_key(|name| natural_order(name));
        assert_eq!(names, ["ata1/sdc", "ata2/sdb", "ata10/sda"]);
    }
}
