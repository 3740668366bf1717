//! The kernel's own filesystems. Of a source's filesystems only those are mounted that a pushed boot image was started from, by
//! `restore`.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::{Error, Result};

struct KernelFilesystem {
    kind: &'static str,
    target: &'static str,
    options: &'static str,
    executable: bool,
}

const KERNEL_FILESYSTEMS: &[KernelFilesystem] = &[
    KernelFilesystem { kind: "proc", target: "/proc", options: "", executable: false },
    KernelFilesystem { kind: "sysfs", target: "/sys", options: "", executable: false },
    KernelFilesystem { kind: "devtmpfs", target: "/dev", options: "mode=0755", executable: true },
    KernelFilesystem { kind: "tmpfs", target: "/run", options: "mode=0755", executable: false },
    KernelFilesystem { kind: "tmpfs", target: "/tmp", options: "mode=1777", executable: false },
];

/// Mounts `/proc`, `/sys`, `/dev`, `/run` and `/tmp`. What is mounted already stays as it is.
///
/// # Errors
/// The first that cannot be mounted.
pub fn mount_kernel_filesystems() -> Result<()> {
    for filesystem in KERNEL_FILESYSTEMS {
        let target = Path::new(filesystem.target);
        fs::create_dir_all(target).map_err(|e| Error::path("create", target, e))?;
        let mut flags = MountFlags::NOSUID;
        if !filesystem.executable {
            flags |= MountFlags::NODEV | MountFlags::NOEXEC;
        }
        let options = CString::new(filesystem.options).map_err(|e| Error::io("mount options", e))?;
        match mount(filesystem.kind, target, filesystem.kind, flags, options.as_c_str()) {
            Ok(()) | Err(Errno::BUSY) => {}
            Err(errno) => return Err(Error::path(&format!("mount {} on", filesystem.kind), target, errno)),
        }
    }
    Ok(())
}

/// What the kernel forbids under Secure Boot (kernel_lockdown(7)): `none`, `integrity` or `confidentiality`; empty where
/// it does not say.
pub fn lockdown() -> String {
    let target = Path::new("/sys/kernel/security");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    // What it says is for people: without it they are told a little less.
    let _ = mount("securityfs", target, "securityfs", flags, c"");
    chosen(&fs::read_to_string(target.join("lockdown")).unwrap_or_default())
}

/// The word in brackets of `none [integrity] confidentiality`.
fn chosen(text: &str) -> String {
    let word = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    word.unwrap_or_default().to_owned()
}

/// Mounts a CD read-only.
///
/// # Errors
/// There is none in the drive, or none with this filesystem.
pub fn mount_cd(device: &Path, target: &Path, kind: &str) -> Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(device, target, kind, flags, c"").map_err(|e| Error::path("mount the CD in", device, e))
}

/// Mounts the firmware's variables read-only, where there are any (UEFI) and the kernel can.
///
/// # Errors
/// The mount failed, though the machine was started by UEFI.
pub fn mount_firmware_variables() -> Result<()> {
    let target = Path::new("/sys/firmware/efi/efivars");
    if !target.is_dir() {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    match mount("efivarfs", target, "efivarfs", flags, c"") {
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(Error::path("mount efivarfs on", target, errno)),
    }
}

/// Makes the firmware's variables writable, or read-only again; where there are none there is nothing to do.
///
/// # Errors
/// They are not mounted, or the kernel refuses.
pub fn set_firmware_variables_writable(writable: bool) -> Result<()> {
    let target = Path::new("/sys/firmware/efi/efivars");
    if !target.is_dir() {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let flags = if writable { flags } else { flags | MountFlags::RDONLY };
    let what = if writable { "make writable" } else { "set read-only" };
    rustix::mount::mount_remount(target, flags, c"").map_err(|e| Error::path(what, target, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_is_the_word_in_brackets() {
        assert_eq!(chosen("none [integrity] confidentiality\n"), "integrity");
        assert_eq!(chosen(""), "");
    }
}
