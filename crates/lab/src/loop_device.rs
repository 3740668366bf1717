//! A loop device that ends with our process, however that ends: the kernel detaches it when its last descriptor closes.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

// linux/loop.h
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_config`, with its `struct loop_info64`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    device: [u64; 2],
    inode: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    file_name: [u8; 64],
    encryption_name: [u8; 64],
    encryption_key: [u8; 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// A file as a block device. Dropping it detaches it.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    path: PathBuf,
    _device: File,
}

impl LoopDevice {
    pub(crate) fn attach(file: &Path) -> Result<Self> {
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).map_err(|e| Error::file(path, e));
        let backing = open(file)?;
        let control = open(Path::new("/dev/loop-control"))?;
        for _ in 0..16 {
            // SAFETY: this request takes no argument and returns the number of a free device.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(Error::io("looking for a free loop device", std::io::Error::last_os_error()));
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open(&path)?;
            // SAFETY: a structure of numbers and bytes is valid when zeroed.
            let mut config: Config = unsafe { std::mem::zeroed() };
            config.fd = backing.as_raw_fd().cast_unsigned();
            config.flags = LO_FLAGS_AUTOCLEAR;
            // SAFETY: `config` has the layout of the kernel's structure and lives through the call.
            if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } == 0 {
                return Ok(Self { path, _device: device });
            }
            let error = std::io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EBUSY) {
                return Err(Error::io(format!("attaching {} to {}", file.display(), path.display()), error));
            } // else another process took it in between
        }
        Err(Error::new("no free loop device after 16 tries"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_has_the_size_of_the_kernels() {
        assert_eq!(size_of::<Config>(), 304); // 8 + sizeof(struct loop_info64) 232 + 64
    }

    #[test]
    fn a_dropped_device_is_detached() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: not root");
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let device = LoopDevice::attach(file.path()).unwrap();
        let name = device.path().file_name().unwrap().to_owned();
        let backing = Path::new("/sys/block").join(name).join("loop/backing_file");
        let shown = || std::fs::read_to_string(&backing).unwrap_or_default().trim().to_owned();
        assert_eq!(shown(), file.path().display().to_string());
        drop(device);
        assert_ne!(shown(), file.path().display().to_string());
    }
}
