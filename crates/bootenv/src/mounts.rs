//! The kernel's own filesystems. A source's filesystems are never mounted in the boot image.

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
