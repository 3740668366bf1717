//! The restore role: what started a pushed boot image is undone on the machine's own disks, before anything is copied.
//!
//! The push brought a record of what it changed and of how the boot path was (`oneshot`). Of the machine's disks exactly the
//! filesystems that the record names are made writable, for this time alone: found by UUID, partition and size together, and only
//! where one device is meant; mounted by a driver of the kernel whose kind the record names; unmounted and read-only again
//! before the agent starts. The firmware's variables are writable for the same time. What could not be undone is told, to the
//! agent and on the screen; the machine's own system undoes it then.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use machine::push::BootPathReport;
use oneshot::{Change, Filesystem, Record, parse_record};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use volume::table::load_table;

use crate::console::log;
use crate::disks::{Held, Writable, device_path, is_read_only, list_disks, partitions, size};
use crate::status::Status;
use crate::{Error, Result, modules, mounts};

/// Where the push puts its record.
const RECORD: &str = "/vconverter.record.json";
/// Records are not longer, in bytes.
const RECORD_BYTES_MAX: u64 = 4 << 20;
/// Where the report is put for the agent.
pub const REPORT: &str = "/run/vconverter/boot-path.json";
const MOUNTS: &str = "/run/vconverter/restore";
/// Disks behind slow controllers come late.
const DISKS_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// A filesystem that was just written to may be busy for a moment.
const UNMOUNT_TRIES: u32 = 20;

/// Undoes what the record says and keeps the report for the agent; `task` is whose push this is. It waits for the record's disks.
pub fn run(task: &str, status: &Status) {
    status.update(|picture| picture.boot_path = Some("being restored".into()));
    let report = match load_record(Path::new(RECORD)) {
        Ok(record) => restore(&record),
        Err(error) => BootPathReport {
            task: task.to_owned(),
            differences: vec![format!("nothing was restored: {}", error.chain())],
            ..BootPathReport::default()
        },
    };
    for line in &report.undone {
        log(format!("restore: {line}"));
    }
    for line in &report.differences {
        log(format!("restore: not as it was: {line}"));
    }
    let text = match report.differences.as_slice() {
        [] => "as it was".to_owned(),
        [first, rest @ ..] => format!("NOT as it was: {first}{}", if rest.is_empty() { "" } else { " …" }),
    };
    match report.differences.len() {
        0 => log("restore: the boot path is as it was"),
        n => log(format!("restore: the boot path is not as it was, in {n} points; the controller is told")),
    }
    if let Err(error) = keep(&report, Path::new(REPORT)) {
        log(error.chain());
    }
    status.update(|picture| picture.boot_path = Some(text));
}

fn load_record(path: &Path) -> Result<Record> {
    let length = fs::metadata(path).map_err(|e| Error::path("read", path, e))?.len();
    if length > RECORD_BYTES_MAX {
        return Err(Error::new(format!("{}: expected at most {RECORD_BYTES_MAX} bytes", path.display())));
    }
    let bytes = fs::read(path).map_err(|e| Error::path("read", path, e))?;
    parse_record(&bytes).map_err(|e| Error::new(e.chain()))
}

fn keep(report: &BootPathReport, path: &Path) -> Result<()> {
    let new = path.with_extension("new");
    let json = serde_json::to_vec(report).map_err(|e| Error::io("write the report", e))?;
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&new, json)?;
        fs::rename(&new, path)
    };
    write().map_err(|e| Error::path("write", path, e))
}

/// Undoes, with the record's filesystems and the firmware's variables writable meanwhile.
fn restore(record: &Record) -> BootPathReport {
    let changes_variables = record.changes.iter().any(|change| matches!(change, Change::Variable { .. }));
    let mut failures = Vec::new();
    if changes_variables {
        failures.extend(mounts::set_firmware_variables_writable(true).err());
    }
    let mut mounted = Mounted::default();
    let places = wait_for(record);
    let mut report = oneshot::restore(record, &mut |filesystem| {
        let place = places.get(filesystem).ok_or_else(|| Error::new("it was not looked for")).cloned();
        let opened = place.and_then(|place| mounted.open(&place.map_err(Error::new)?, filesystem));
        opened.map_err(|e| oneshot::Error::new(oneshot::ErrorKind::Io, e.chain()))
    });
    failures.extend(mounted.close());
    if changes_variables {
        failures.extend(mounts::set_firmware_variables_writable(false).err());
    }
    report.differences.extend(failures.into_iter().map(|error| error.chain()));
    report
}

/// A block device of the machine's disks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    /// Name of the disk.
    disk: String,
    /// Name of the partition, or of the disk where the filesystem has no partition.
    device: String,
}

/// What is known of a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Candidate {
    place: Place,
    bytes: u64,
    kind: String,
    uuid: String,
    partition_uuid: Option<String>,
}

/// The places of a record's filesystems, or why there is none, when all of them are found or the time is over.
fn wait_for(record: &Record) -> BTreeMap<Filesystem, std::result::Result<Place, String>> {
    let started = Instant::now();
    loop {
        let wanted = record.filesystems();
        let candidates = if wanted.is_empty() { Vec::new() } else { list_candidates(&record.filesystems()) };
        let found: BTreeMap<_, _> = wanted
            .into_iter()
            .map(|filesystem| (filesystem.clone(), choose(filesystem, &candidates).map_err(|e| e.context)))
            .collect();
        if found.values().all(std::result::Result::is_ok) || started.elapsed() > DISKS_MAX {
            for (filesystem, place) in &found {
                if let Ok(place) = place {
                    log(format!(
                        "restore: the {} filesystem {} is on {}",
                        filesystem.kind, filesystem.uuid, place.device
                    ));
                }
            }
            return found;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The devices that have the size of a wanted filesystem, looked into.
fn list_candidates(wanted: &std::collections::BTreeSet<&Filesystem>) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for disk in list_disks().into_iter().map(|disk| disk.name) {
        let of_size = |name: &str| size(name).is_some_and(|size| wanted.iter().any(|other| other.bytes == size.0));
        let names: Vec<String> =
            partitions(&disk).into_iter().chain([disk.clone()]).filter(|name| of_size(name)).collect();
        if names.is_empty() {
            continue;
        }
        let partition_uuids = partition_uuids(&disk);
        for device in names {
            let Ok(opened) = block::open_source(&device_path(&device)) else { continue };
            let probe = volume::probe(&*opened.source);
            candidates.push(Candidate {
                bytes: size(&device).unwrap_or_default().0,
                kind: probe.kind,
                uuid: probe.uuid.unwrap_or_default(),
                partition_uuid: crate::disks::partition_number(&device).and_then(|n| partition_uuids.get(&n).cloned()),
                place: Place { disk: disk.clone(), device },
            });
        }
    }
    candidates
}

/// Number of each partition → its UUID; none where the table cannot be trusted.
fn partition_uuids(disk: &str) -> BTreeMap<u32, String> {
    let Ok(opened) = block::open_source(&device_path(disk)) else { return BTreeMap::new() };
    let table = load_table(&*opened.source).unwrap_or_default();
    table.partitions.into_iter().filter_map(|partition| Some((partition.number, partition.uuid?))).collect()
}

/// The one device that is a filesystem of the record's.
fn choose(filesystem: &Filesystem, candidates: &[Candidate]) -> Result<Place> {
    let same = |a: &str, b: &str| !a.is_empty() && a.eq_ignore_ascii_case(b);
    let is_ext = |kind: &str| matches!(kind, "ext2" | "ext3" | "ext4");
    let is_meant = |candidate: &&Candidate| {
        candidate.bytes == filesystem.bytes
            && same(&candidate.uuid, &filesystem.uuid)
            && (candidate.kind == filesystem.kind || is_ext(&candidate.kind) && is_ext(&filesystem.kind))
            && filesystem
                .partition_uuid
                .as_ref()
                .is_none_or(|uuid| candidate.partition_uuid.as_ref().is_some_and(|candidate| same(candidate, uuid)))
    };
    let found: Vec<&Candidate> = candidates.iter().filter(is_meant).collect();
    let named = format!("the {} filesystem {} of {} bytes", filesystem.kind, filesystem.uuid, filesystem.bytes);
    match found.as_slice() {
        [one] => Ok(one.place.clone()),
        [] => Err(Error::new(format!("{named} is on none of the disks"))),
        several => {
            let names: Vec<&str> = several.iter().map(|candidate| candidate.place.device.as_str()).collect();
            Err(Error::new(format!("{named} is on {}: none of them is written to", names.join(" and "))))
        }
    }
}

/// Filesystems that are mounted writable.
#[derive(Default)]
struct Mounted {
    open: Vec<(PathBuf, Place, Writable)>,
}

impl Mounted {
    fn open(&mut self, place: &Place, filesystem: &Filesystem) -> Result<PathBuf> {
        let (kind, options) = driver(&filesystem.kind)?;
        modules::load(&[kind])?;
        let target = Path::new(MOUNTS).join(self.open.len().to_string());
        fs::create_dir_all(&target).map_err(|e| Error::path("create", &target, e))?;
        let names = if place.device == place.disk { vec![&*place.disk] } else { vec![&*place.disk, &*place.device] };
        // From here on the names mean these devices, even when they are pulled out.
        let writable = Held::open(&names)?.make_writable()?;
        let device = device_path(&place.device);
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let options = CString::new(options).map_err(|e| Error::io("mount options", e))?;
        mount(&device, &target, kind, flags, options.as_c_str()).map_err(|e| Error::path("mount", &device, e))?;
        log(format!("restore: {} is writable for now", place.device));
        self.open.push((target.clone(), place.clone(), writable));
        Ok(target)
    }

    /// Unmounts everything, and then makes everything read-only; returns what went wrong.
    fn close(self) -> Vec<Error> {
        let mut failures = Vec::new();
        rustix::fs::sync();
        for (target, _, _) in &self.open {
            failures.extend(unmount_patiently(target).err());
        }
        // Of two filesystems on one disk none is read-only before both are unmounted.
        let places: Vec<Place> = self.open.iter().map(|(_, place, _)| place.clone()).collect();
        for (_, _, writable) in self.open {
            failures.extend(writable.flush().err());
            drop(writable);
        }
        for place in places {
            for name in [&place.disk, &place.device] {
                if !is_read_only(name) {
                    failures.push(Error::new(format!("{name} could not be set read-only again")));
                }
            }
            log(format!("restore: {} is read-only again", place.device));
        }
        failures
    }
}

fn unmount_patiently(target: &Path) -> Result<()> {
    let mut tries = 0;
    loop {
        match unmount(target, UnmountFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::BUSY) if tries < UNMOUNT_TRIES => {
                tries += 1;
                std::thread::sleep(PAUSE);
            }
            Err(errno) => return Err(Error::path("unmount", target, errno)),
        }
    }
}

/// The kernel's driver of a kind of filesystem, and its mount options. No other kind is ever mounted.
fn driver(kind: &str) -> Result<(&'static str, &'static str)> {
    match kind {
        "vfat" => Ok(("vfat", "")),
        "ext2" | "ext3" | "ext4" => Ok(("ext4", "errors=remount-ro")),
        "xfs" => Ok(("xfs", "")),
        _ => Err(Error::new(format!("a filesystem {kind:?} is not written to"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

    fn candidate(device: &str) -> Candidate {
        Candidate {
            place: Place { disk: "sda".into(), device: device.into() },
            bytes: 1 << 29,
            kind: "vfat".into(),
            uuid: "1A2B-3C4D".into(),
            partition_uuid: Some(GUID.to_uppercase()),
        }
    }

    fn filesystem() -> Filesystem {
        Filesystem { kind: "vfat".into(), uuid: "1a2b-3c4d".into(), partition_uuid: Some(GUID.into()), bytes: 1 << 29 }
    }

    #[test]
    fn a_filesystem_is_meant_by_uuid_partition_size_and_kind_together() {
        assert_eq!(choose(&filesystem(), &[candidate("sda1")]).unwrap().device, "sda1");
        let others = [
            Candidate { bytes: 1 << 28, ..candidate("a") },
            Candidate { uuid: "1A2B-3C4E".into(), ..candidate("b") },
            Candidate { uuid: String::new(), ..candidate("c") },
            Candidate { kind: "exfat".into(), ..candidate("d") },
            Candidate { partition_uuid: None, ..candidate("e") },
            Candidate { partition_uuid: Some("0-0".into()), ..candidate("f") },
        ];
        let error = choose(&filesystem(), &others).unwrap_err();
        assert!(error.context.contains("1a2b-3c4d of 536870912 bytes is on none"), "{}", error.context);
        let plain = Filesystem { kind: "ext4".into(), partition_uuid: None, ..filesystem() };
        let ext = Candidate { kind: "ext3".into(), partition_uuid: None, ..candidate("sda2") };
        assert_eq!(choose(&plain, &[ext]).unwrap().device, "sda2");
    }

    #[test]
    fn of_two_disks_that_are_copies_of_each_other_none_is_written_to() {
        let error = choose(&filesystem(), &[candidate("sda1"), candidate("sdb1")]).unwrap_err();
        assert!(error.context.ends_with("is on sda1 and sdb1: none of them is written to"), "{}", error.context);
    }

    #[test]
    fn only_three_drivers_ever_write() {
        for (kind, expected) in [("vfat", "vfat"), ("ext2", "ext4"), ("ext4", "ext4"), ("xfs", "xfs")] {
            assert_eq!(driver(kind).unwrap().0, expected);
        }
        for other in ["ntfs", "btrfs", "", "exfat", "ext4 ", "overlay"] {
            assert!(driver(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_push_without_a_record_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record");
        assert!(load_record(&file).unwrap_err().chain().contains("No such file"));
        for wrong in ["", "{}", "x"] {
            fs::write(&file, wrong).unwrap();
            let error = load_record(&file).unwrap_err().chain();
            println!("{error}");
            assert!(error.starts_with("record: "), "{error}");
        }
        fs::write(&file, vec![b' '; 5 << 20]).unwrap();
        assert!(load_record(&file).unwrap_err().context.contains("expected at most"));
    }

    #[test]
    fn the_report_is_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/boot-path.json");
        let report = BootPathReport { task: "7".into(), undone: vec!["removed x".into()], ..BootPathReport::default() };
        keep(&report, &path).unwrap();
        let read: BootPathReport = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(read, report);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
