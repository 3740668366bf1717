//! A Windows guest: its volumes are mounted by `ntfs-3g`, a program, because Debian's kernel has no driver of NTFS, and
//! stand in one tree as [`guest::windows::volumes`] says.
//!
//! A volume that was not unmounted cleanly is taken as it is for a look, and brought in order when it is to be changed; one
//! that hibernated is refused by the program itself.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guest::Directory;
use guest::appliance::{FIRST_BOOT_PATH, Job, Mode, Report, SCRIPTS_PATH, WINDOWS_DRIVERS_PATH};
use guest::windows::drivers::Library;
use guest::windows::volumes::{BOOT, SYSTEM, Subtree};
use guest::windows::{Additions, FirstBoot, Script, SystemVolume, boot_sector, path};
use machine::{ByteOffset, Family};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::devices::Device;
use super::report::Reporter;
use super::{GUEST, apply, fault};
use crate::{Error, Result, modules};

/// The driver of NTFS.
const NTFS: &str = "/bin/ntfs-3g";
/// How new files get their access rights: as Windows would give them, by those of the folder.
const OPTIONS: &str = "no_detach,inherit,noatime,nosuid,nodev,noexec,streams_interface=none";
/// Time in which a volume must be mounted, and be written out after it was unmounted.
const MOUNT_TIME: Duration = Duration::from_secs(120);
const END_TIME: Duration = Duration::from_secs(300);
/// What a boot loader's volume holds, of UEFI and of BIOS.
const STORES: [&str; 2] = ["/EFI/Microsoft/Boot/BCD", "/Boot/BCD"];

/// Bytes of a boot sector.
const SECTOR: usize = 512;

/// The volumes of a Windows.
#[derive(Debug)]
pub(super) struct Found {
    system: Device,
    /// Where its boot loader is, if that is another one.
    boot: Option<Device>,
}

/// A volume that is mounted.
#[derive(Debug)]
struct Mounted {
    target: PathBuf,
    /// The driver's process, where it is one.
    driver: Option<Child>,
}

/// Looks, read-only, for the volume with Windows and for the one with its boot loader.
pub(super) fn find(devices: &[Device], mut log: impl FnMut(&str)) -> Result<Option<Found>> {
    let mut systems = Vec::new();
    for device in devices.iter().filter(|device| device.kind == "ntfs") {
        match look(device, SYSTEM, is_system) {
            Ok(true) => systems.push(device.clone()),
            Ok(false) => {}
            Err(error) => log(&error.chain()),
        }
    }
    let list: Vec<String> = systems.iter().map(|device| device.node.display().to_string()).collect();
    if systems.len() > 1 {
        log(&format!("several systems were found: {}", list.join(", ")));
    }
    let Some(system) = systems.into_iter().next() else { return Ok(None) };
    let mut boot = None;
    let others = devices.iter().filter(|device| device.node != system.node);
    for device in others.filter(|device| ["vfat", "ntfs"].contains(&device.kind.as_str())) {
        match look(device, BOOT, |tree| has_store(tree, BOOT)) {
            Ok(true) => {
                boot = Some(device.clone());
                break;
            }
            Ok(false) => {}
            Err(error) => log(&error.chain()),
        }
    }
    Ok(Some(Found { system, boot }))
}

fn is_system(tree: &Directory) -> bool {
    guest::identify(&Subtree::new(tree, SYSTEM)).family == Family::Windows
}

fn has_store(tree: &Directory, folder: &str) -> bool {
    let is_there = |store: &&str| path::resolve(tree, &format!("{folder}{store}")).ok().flatten().is_some();
    STORES.iter().any(is_there)
}

/// Mounts a volume for a question.
fn look(device: &Device, place: &str, question: impl FnOnce(&Directory) -> bool) -> Result<bool> {
    let mounted = mount_at(device, place, false)?;
    let answer = Directory::open(GUEST).map(|tree| question(&tree)).map_err(fault);
    mounted.unmount()?;
    answer
}

/// Plans, and applies what is wanted, in a Windows.
pub(super) fn work(job: &Job, found: &Found, disks: &[PathBuf], writable: bool, reporter: &mut Reporter) -> Result<()> {
    if let Mode::Proof(_) = &job.mode {
        return Err(Error::new("the boot of a Windows guest is proven by its first boot, not by a probe"));
    }
    let mut mounted = vec![mount_at(&found.system, SYSTEM, writable)?];
    reporter.log(&format!("Windows is on {}", found.system.node.display()));
    let result = match &found.boot {
        Some(boot) => mount_at(boot, BOOT, writable).map(|boot| mounted.push(boot)),
        None => Ok(()),
    };
    // The tree is closed before anything is unmounted.
    let result = result.and_then(|()| change(job, found, disks, reporter));
    rustix::fs::sync();
    let unmounted = mounted.into_iter().rev().map(Mounted::unmount).fold(Ok(()), Result::and);
    result.and(unmounted)
}

fn change(job: &Job, found: &Found, disks: &[PathBuf], reporter: &mut Reporter) -> Result<()> {
    let mut tree = Directory::open(GUEST).map_err(fault)?.with_disks(disks.to_vec());
    let additions = Additions { system: system_volume(job, &found.system)?, ..additions(job)? };
    let plan = guest::windows::plan(&tree, &job.source(), &job.refused, &additions).map_err(fault)?;
    reporter.send(&Report::Plan { plan: plan.clone() })?;
    match job.mode {
        Mode::Plan => Ok(()),
        _ => apply(&plan, job, &mut tree, reporter),
    }
}

/// Where Windows is on the appliance's disks, with the first bytes there.
fn system_volume(job: &Job, device: &Device) -> Result<Option<SystemVolume>> {
    let Some((disk, offset)) = device.place else { return Ok(None) };
    let Some(disk_size) = job.facts.disks.get(disk).map(|disk| disk.virtual_size) else { return Ok(None) };
    let mut sector = vec![0; SECTOR];
    let failed = |e| Error::path("read", &device.node, e);
    let node = fs::File::open(&device.node).map_err(failed)?;
    node.read_exact_at(&mut sector, 0).map_err(failed)?;
    // A copy that lies elsewhere, or is not equal, is left alone.
    let copy = boot_sector::copy_offset(&sector).filter(|at| {
        let mut copy = vec![0; SECTOR];
        node.read_exact_at(&mut copy, *at).is_ok() && copy == sector
    });
    let copy = copy.and_then(|at| offset.0.checked_add(at)).map(ByteOffset);
    Ok(Some(SystemVolume { disk, disk_size, offset, sector, copy }))
}

/// What the host put beside the job.
fn additions(job: &Job) -> Result<Additions> {
    let drivers = Path::new(WINDOWS_DRIVERS_PATH);
    let mut additions = Additions {
        drivers: drivers.exists().then(|| Library::new(drivers)),
        hypervisors: job.windows.hypervisors.clone(),
        first_boot: None,
        absent: job.absent.clone(),
        system: None,
    };
    if let Some(wanted) = &job.windows.first_boot {
        let read = |path: PathBuf| fs::read(&path).map_err(|e| Error::path("read", &path, e));
        let script = |script: &machine::firstboot::Script| -> Result<Script> {
            let contents = read(Path::new(SCRIPTS_PATH).join(&script.file))?;
            Ok(Script { name: script.file.clone(), contents, timeout_s: script.timeout_s })
        };
        let paths = FirstBoot::PROGRAMS.map(|(built, name)| (built, Path::new(FIRST_BOOT_PATH).join(name)));
        let programs = paths.into_iter().filter(|(_, path)| path.exists());
        additions.first_boot = Some(FirstBoot {
            programs: programs.map(|(built, path)| Ok((built, read(path)?))).collect::<Result<_>>()?,
            nonce: wanted.nonce.clone(),
            scripts: wanted.scripts.iter().map(script).collect::<Result<_>>()?,
        });
    }
    Ok(additions)
}

/// Mounts a volume at a place of the guest's tree.
fn mount_at(device: &Device, place: &str, writable: bool) -> Result<Mounted> {
    let target = PathBuf::from(format!("{GUEST}{place}"));
    fs::create_dir_all(&target).map_err(|e| Error::path("create", &target, e))?;
    if device.kind == "ntfs" {
        return mount_ntfs(device, target, writable);
    }
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    if !writable {
        flags |= MountFlags::RDONLY;
    }
    mount(&device.node, &target, "vfat", flags, c"iocharset=utf8,shortname=mixed")
        .map_err(|errno| Error::path("mount vfat on", &device.node, errno))?;
    Ok(Mounted { target, driver: None })
}

fn mount_ntfs(device: &Device, target: PathBuf, writable: bool) -> Result<Mounted> {
    // No hardware asks for it.
    modules::load(&["fuse"])?;
    let access = if writable { "rw" } else { "ro" };
    let mut command = Command::new(NTFS);
    command.arg(&device.node).arg(&target).args(["-o", &format!("{access},{OPTIONS}")]).stdin(Stdio::null());
    let outside = fs::metadata(&target).map_err(|e| Error::path("look at", &target, e))?;
    let mut driver = command.spawn().map_err(|e| Error::path("start", Path::new(NTFS), e))?;
    let end = Instant::now() + MOUNT_TIME;
    loop {
        use std::os::unix::fs::MetadataExt;
        let status = driver.try_wait().map_err(|e| Error::path("wait for", Path::new(NTFS), e))?;
        if let Some(status) = status {
            return Err(Error::new(format!(
                "{}: NTFS cannot be mounted: {}",
                device.node.display(),
                meaning(status.code())
            )));
        }
        // Only what is mounted has another device number.
        if fs::metadata(&target).is_ok_and(|inside| inside.dev() != outside.dev()) {
            return Ok(Mounted { target, driver: Some(driver) });
        }
        if Instant::now() > end {
            let _ = driver.kill();
            let _ = driver.wait();
            return Err(Error::new(format!("{}: NTFS was not mounted in time", device.node.display())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Exit codes of ntfs-3g(8).
fn meaning(code: Option<i32>) -> String {
    match code {
        Some(12) => "no NTFS".into(),
        Some(13) => "its metadata are inconsistent: let Windows check the volume (chkdsk /f)".into(),
        Some(14) => "Windows is hibernated on it, or was shut down by Fast Startup: shut it down fully first".into(),
        Some(15) => "it was not unmounted cleanly".into(),
        Some(19) => "it is part of a RAID".into(),
        Some(code) => format!("ntfs-3g ended with exit code {code}"),
        None => "ntfs-3g was ended by a signal".into(),
    }
}

impl Mounted {
    /// Unmounts it, and waits until its driver has written everything.
    fn unmount(self) -> Result<()> {
        unmount(&self.target, UnmountFlags::NOFOLLOW).map_err(|errno| Error::path("unmount", &self.target, errno))?;
        let Some(mut driver) = self.driver else { return Ok(()) };
        let end = Instant::now() + END_TIME;
        loop {
            match driver.try_wait().map_err(|e| Error::path("wait for", Path::new(NTFS), e))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(Error::new(format!("NTFS: {}", meaning(status.code())))),
                None if Instant::now() > end => return Err(Error::new("NTFS was not written out in time")),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ntfs_3g_says_is_told_with_what_to_do() {
        assert!(meaning(Some(14)).contains("shut it down fully"));
        assert_eq!(meaning(Some(3)), "ntfs-3g ended with exit code 3");
    }
}
