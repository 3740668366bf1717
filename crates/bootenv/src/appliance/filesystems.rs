//! Finds the guest's root filesystem and mounts what its own `fstab` puts around it, beneath one folder.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use guest::linux::{FilesystemLine, parse_fstab};
use machine::Machine;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::GUEST;
use super::devices::Device;
use crate::{Error, Result};

/// Places where parts of the system may have a filesystem of their own. Data elsewhere is none of our business.
const PLACES: [&str; 8] = ["/boot", "/boot/efi", "/efi", "/lib", "/usr", "/usr/lib", "/var", "/var/lib"];

/// A root filesystem that was found, with its `fstab`.
#[derive(Debug)]
pub(super) struct Root {
    device: Device,
    fstab: Vec<FilesystemLine>,
}

/// Filesystems that are mounted; dropped, they stay mounted.
#[derive(Debug)]
#[must_use]
pub(super) struct Mounted {
    targets: Vec<PathBuf>,
}

impl Mounted {
    /// Unmounts all, the last mounted first; fails if any is still in use.
    pub(super) fn unmount(self) -> Result<()> {
        let mut result = Ok(());
        for target in self.targets.iter().rev() {
            if let Err(errno) = unmount(target, UnmountFlags::NOFOLLOW) {
                result = Err(Error::path("unmount", target, errno));
            }
        }
        result
    }
}

/// The driver and options for a kind of filesystem; `None` for what is none, or is not supported.
fn driver(kind: &str, writable: bool) -> Option<(&'static str, &'static str)> {
    Some(match (kind, writable) {
        ("ext2" | "ext3" | "ext4", true) => ("ext4", "errors=remount-ro"),
        // The journal is not replayed where nothing may be written.
        ("ext2", false) => ("ext4", ""),
        ("ext3" | "ext4", false) => ("ext4", "noload"),
        ("vfat", _) => ("vfat", "iocharset=utf8,shortname=mixed"),
        ("xfs", true) => ("xfs", ""),
        ("xfs", false) => ("xfs", "norecovery"),
        ("btrfs", true) => ("btrfs", ""),
        ("btrfs", false) => ("btrfs", "rescue=nologreplay"),
        _ => return None,
    })
}

fn mount_device(device: &Device, target: &Path, writable: bool, more: &str) -> Result<()> {
    let (driver, options) = driver(&device.kind, writable)
        .ok_or_else(|| Error::new(format!("{}: {} cannot be mounted here", device.node.display(), device.kind)))?;
    let options: Vec<&str> = [options, more].into_iter().filter(|options| !options.is_empty()).collect();
    let options = CString::new(options.join(",")).map_err(|e| Error::io("mount options", e))?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    if !writable {
        flags |= MountFlags::RDONLY;
    }
    mount(&device.node, target, driver, flags, options.as_c_str())
        .map_err(|errno| Error::path(&format!("mount {driver} on"), &device.node, errno))
}

/// Looks, read-only and without replaying journals, for the filesystem that is the root of a Linux system.
///
/// `None` where all filesystems could be looked at, and none is one.
///
/// # Errors
/// None was found, and some filesystem could not be mounted: it may be there.
pub(super) fn find_root(devices: &[Device], mut log: impl FnMut(&str)) -> Result<Option<Root>> {
    let target = Path::new(GUEST);
    fs::create_dir_all(target).map_err(|e| Error::path("create", target, e))?;
    let mut found = Vec::new();
    let mut not_seen = None;
    for device in devices {
        if device.kind == "vfat" || driver(&device.kind, false).is_none() {
            continue;
        }
        if let Err(error) = mount_device(device, target, false, "") {
            log(&error.chain());
            not_seen = not_seen.or(Some(error));
            continue;
        }
        let root = look(device);
        unmount(target, UnmountFlags::NOFOLLOW).map_err(|e| Error::path("unmount", target, e))?;
        found.extend(root);
    }
    // Of several systems, the one whose own table says that it is the root.
    let own = found.iter().position(|root: &Root| {
        let line = root.fstab.iter().find(|line| line.mount_point == "/");
        line.is_some_and(|line| names(&line.device, &root.device))
    });
    if found.len() > 1 {
        let list: Vec<String> = found.iter().map(|root| root.device.node.display().to_string()).collect();
        log(&format!("several systems were found: {}", list.join(", ")));
    }
    if found.is_empty() {
        let unsure = |error: Error| {
            let context = format!(
                "no root filesystem of a Linux system was found, and one could not be looked at: {}",
                error.chain()
            );
            Err(Error::new(context))
        };
        return not_seen.map_or(Ok(None), unsure);
    }
    Ok(Some(found.swap_remove(own.unwrap_or(0))))
}

/// The root that is mounted for a look, if it is one.
fn look(device: &Device) -> Option<Root> {
    let tree = guest::Directory::open(GUEST).ok()?;
    let exists = |path: &str| guest::FileTree::exists(&tree, path).unwrap_or(false);
    let fstab = guest::FileTree::text(&tree, "/etc/fstab").ok().flatten();
    let system = exists("/etc/os-release") || exists("/etc/debian_version") || exists("/etc/passwd");
    // /etc/os-release may point into a /usr that is another filesystem.
    let linked = guest::FileTree::read_link(&tree, "/etc/os-release").ok().flatten().is_some();
    if !(system || linked) || (fstab.is_none() && !exists("/sbin/init")) {
        return None;
    }
    Some(Root { device: device.clone(), fstab: parse_fstab(&fstab.unwrap_or_default()) })
}

/// Whether `name`, as a table has it, is this device.
fn names(name: &str, device: &Device) -> bool {
    let is = |value: &Option<String>, wanted: &str| value.as_deref().is_some_and(|v| v.eq_ignore_ascii_case(wanted));
    let plain = |text: &str| text.trim_matches('"').to_owned();
    if let Some(uuid) = name.strip_prefix("UUID=").or_else(|| name.strip_prefix("/dev/disk/by-uuid/")) {
        return is(&device.uuid, &plain(uuid));
    }
    if let Some(uuid) = name.strip_prefix("PARTUUID=").or_else(|| name.strip_prefix("/dev/disk/by-partuuid/")) {
        return is(&device.partition_uuid, &plain(uuid));
    }
    if let Some(label) = name.strip_prefix("LABEL=").or_else(|| name.strip_prefix("/dev/disk/by-label/")) {
        return device.label.as_deref() == Some(plain(label).as_str());
    }
    let Some(volume) = &device.logical_volume else { return false };
    // device-mapper writes - for / and -- for -.
    let mapped = volume.split('/').map(|part| part.replace('-', "--")).collect::<Vec<_>>().join("-");
    name.strip_prefix("/dev/mapper/") == Some(&mapped) || name.strip_prefix("/dev/") == Some(volume)
}

/// Mounts the root and, around it, what its `fstab` names of [`PLACES`].
///
/// # Errors
/// The root, or a filesystem that holds the boot files, cannot be mounted; nothing is left mounted then.
pub(super) fn mount_guest(
    root: Root,
    devices: &[Device],
    machine: &Machine,
    writable: bool,
    mut log: impl FnMut(&str),
) -> Result<Mounted> {
    let target = PathBuf::from(GUEST);
    let line = root.fstab.iter().find(|line| line.mount_point == "/");
    mount_device(&root.device, &target, writable, line.map_or("", |line| subvolume(&root.device, line)))?;
    log(&format!("root filesystem: {} on {}", root.device.kind, root.device.node.display()));
    let mut mounted = Mounted { targets: vec![target] };
    let mut lines: Vec<&FilesystemLine> =
        root.fstab.iter().filter(|line| PLACES.contains(&line.mount_point.trim_end_matches('/'))).collect();
    lines.sort_by_key(|line| line.mount_point.matches('/').count());
    for line in lines {
        let by_bus = guest::linux::uuid_of_device(machine, &line.device, &line.kind);
        let name = by_bus.as_deref().unwrap_or(&line.device);
        let result = match devices.iter().find(|device| names(name, device)) {
            Some(device) => mount_within(device, line, writable).map(|target| mounted.targets.push(target)),
            None => Err(Error::new(format!("{} is {name}, which was not found", line.mount_point))),
        };
        let Err(error) = result else { continue };
        // Without its boot files a guest cannot be made to boot; anything else can be left as it is.
        if ["/boot", "/usr"].contains(&line.mount_point.as_str()) {
            mounted.unmount()?;
            return Err(error);
        }
        log(&error.chain());
    }
    Ok(mounted)
}

/// Mounts a device at its place in the guest. Links on the way are followed inside the guest only: the place is opened
/// beneath the root, and mounted by that descriptor.
fn mount_within(device: &Device, line: &FilesystemLine, writable: bool) -> Result<PathBuf> {
    let place = open_within(&line.mount_point)?;
    let target = fs::read_link(descriptor(&place)).map_err(|e| Error::io(format!("open {}", line.mount_point), e))?;
    if !target.starts_with(GUEST) || target == Path::new(GUEST) {
        return Err(Error::new(format!("{} leads out of the guest", line.mount_point)));
    }
    mount_device(device, &descriptor(&place), writable, subvolume(device, line))?;
    Ok(target)
}

fn open_within(path: &str) -> Result<OwnedFd> {
    let fault = |errno| Error::io(format!("open {path} of the guest"), errno);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(GUEST, flags, Mode::empty()).map_err(fault)?;
    let relative = path.trim_start_matches('/');
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&root, relative, flags, Mode::empty(), resolve).map_err(fault)
}

/// Opens a plain file of the mounted guest; links on the way are followed inside the guest only, its own name is none.
pub(super) fn open_file_within(path: &str, writable: bool) -> Result<fs::File> {
    let fault = |errno| Error::io(format!("open {path} of the guest"), errno);
    let root = rustix::fs::open(GUEST, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let relative = path.trim_start_matches('/');
    let file = rustix::fs::openat2(root.map_err(fault)?, relative, flags, Mode::empty(), resolve).map_err(fault)?;
    let file = fs::File::from(file);
    let is_file = file.metadata().map_err(|e| Error::io(format!("look at {path} of the guest"), e))?.is_file();
    if is_file { Ok(file) } else { Err(Error::new(format!("{path} of the guest is no plain file"))) }
}

fn descriptor(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// The one option that decides what a btrfs filesystem shows; options of the guest are not taken otherwise.
fn subvolume<'l>(device: &Device, line: &'l FilesystemLine) -> &'l str {
    if device.kind != "btrfs" {
        return "";
    }
    line.options
        .split(',')
        .find(|option| option.starts_with("subvol=") || option.starts_with("subvolid="))
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_table_find_their_device() {
        let device = Device {
            node: "/dev/dm-0".into(),
            kind: "ext4".into(),
            uuid: Some("ABCD-1".into()),
            label: Some("root".into()),
            logical_volume: Some("vg-0/root".into()),
            partition_uuid: None,
            place: None,
        };
        for name in ["UUID=abcd-1", "UUID=\"ABCD-1\"", "LABEL=root", "/dev/mapper/vg--0-root", "/dev/vg-0/root"] {
            assert!(names(name, &device), "{name}");
        }
        for name in ["UUID=abcd", "/dev/mapper/vg-0-root", "/dev/sda1", "LABEL=Root", "PARTUUID=", "tmpfs"] {
            assert!(!names(name, &device), "{name}");
        }
    }

    #[test]
    fn only_what_is_a_filesystem_is_mounted_and_journals_are_not_replayed_for_a_look() {
        assert_eq!(driver("ext4", false), Some(("ext4", "noload")));
        assert_eq!(driver("swap", true), None);
        assert_eq!(driver("crypto_LUKS", false), None);
    }
}
