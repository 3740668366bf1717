//! Linear device-mapper devices, by the ioctls of `linux/dm-ioctl.h` (interface version 4).
//!
//! A call is a header of 312 bytes and what follows it: for a table one `dm_target_spec` (40 bytes) for each line, with
//! its parameters as text, padded to 8 bytes. No tool and no udev is needed: devtmpfs makes the nodes.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Error, Result};

const CONTROL: &str = "/dev/mapper/control";
const HEADER: usize = 312;
const SPEC: usize = 40;

/// Lines of one table.
const LINES_MAX: usize = 65_536;

const DEV_CREATE: u32 = 3;
const DEV_REMOVE: u32 = 4;
const DEV_SUSPEND: u32 = 6;
const TABLE_LOAD: u32 = 9;

/// `DM_READONLY_FLAG`.
const READ_ONLY: u32 = 1;

/// One line of a table: a run of 512-byte sectors on another device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Linear {
    /// Major and minor number.
    pub(super) device: (u32, u32),
    /// First sector there.
    pub(super) start: u64,
    /// Sectors.
    pub(super) length: u64,
}

/// Makes the device and returns its node.
pub(super) fn create(name: &str, lines: &[Linear], read_only: bool) -> Result<PathBuf> {
    let fault = |what: &'static str| move |e: io::Error| Error::io(format!("device-mapper {name}: {what}"), e);
    if lines.is_empty() || lines.len() > LINES_MAX {
        return Err(Error::new(format!("device-mapper {name}: {} lines in the table", lines.len())));
    }
    let control = OpenOptions::new().read(true).write(true).open(CONTROL).map_err(fault("open"))?;
    let flags = if read_only { READ_ONLY } else { 0 };
    let answer = call(&control, DEV_CREATE, &mut request(name, flags, 0, &[])).map_err(fault("create"))?;
    let (table, count) = table(lines);
    call(&control, TABLE_LOAD, &mut request(name, flags, count, &table)).map_err(fault("load table"))?;
    // Without the suspend flag this is "resume": the table comes into force.
    call(&control, DEV_SUSPEND, &mut request(name, flags, 0, &[])).map_err(fault("resume"))?;
    // The kernel's long form of device numbers.
    let minor = (answer & 0xff) | ((answer >> 12) & 0xfff00);
    let node = Path::new("/dev").join(format!("dm-{minor}"));
    let end = Instant::now() + Duration::from_secs(5);
    while !node.exists() {
        if Instant::now() > end {
            return Err(Error::new(format!("{} did not appear", node.display())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(node)
}

/// Removes the device; nothing is said if that fails.
pub(super) fn remove(name: &str) {
    if let Ok(control) = OpenOptions::new().read(true).write(true).open(CONTROL) {
        let _ = call(&control, DEV_REMOVE, &mut request(name, 0, 0, &[]));
    }
}

/// `struct dm_ioctl` with `data` behind it.
fn request(name: &str, flags: u32, targets: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    let size = u32::try_from(HEADER + data.len()).unwrap_or(u32::MAX);
    let fields = [4, 0, 0, size, 312, targets, 0, flags];
    for (field, value) in bytes.chunks_exact_mut(4).zip(fields) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
    // Names are ours and short; the last byte stays NUL.
    let name = &name.as_bytes()[..name.len().min(127)];
    bytes[48..48 + name.len()].copy_from_slice(name);
    bytes.extend_from_slice(data);
    bytes
}

/// The lines as target specifications, and their number.
fn table(lines: &[Linear]) -> (Vec<u8>, u32) {
    let (mut bytes, mut sector) = (Vec::new(), 0u64);
    for line in lines {
        let (major, minor) = line.device;
        let mut parameters = format!("{major}:{minor} {}", line.start).into_bytes();
        parameters.resize((parameters.len() + 1).next_multiple_of(8), 0);
        bytes.extend(sector.to_ne_bytes());
        bytes.extend(line.length.to_ne_bytes());
        bytes.extend(0i32.to_ne_bytes());
        bytes.extend(u32::try_from(SPEC + parameters.len()).unwrap_or(0).to_ne_bytes());
        bytes.extend(b"linear\0\0\0\0\0\0\0\0\0\0");
        bytes.extend(parameters);
        sector = sector.saturating_add(line.length);
    }
    (bytes, u32::try_from(lines.len()).unwrap_or(u32::MAX))
}

/// Makes the call; the device number of the answer.
fn call(control: &File, command: u32, request: &mut [u8]) -> io::Result<u64> {
    // _IOWR(0xfd, command, struct dm_ioctl)
    let code = (3u32 << 30) | (312 << 16) | (0xfd << 8) | command;
    // SAFETY: the buffer begins with a dm_ioctl whose data_size is its length, so the kernel reads and writes within it.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), code as _, request.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let device = request[40..48].first_chunk().copied().unwrap_or_default();
    Ok(u64::from_ne_bytes(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_kernels_layout() {
        let lines = [
            Linear { device: (253, 3), start: 2048, length: 8192 },
            Linear { device: (253, 3), start: 20480, length: 4096 },
        ];
        let (bytes, count) = table(&lines);
        assert_eq!(count, 2);
        assert_eq!(&bytes[16..24], [0, 0, 0, 0, 56, 0, 0, 0]);
        assert_eq!(&bytes[24..30], b"linear");
        assert_eq!(&bytes[40..52], b"253:3 2048\0\0");
        assert_eq!(u64::from_ne_bytes(*bytes[56..].first_chunk().unwrap()), 8192);
        let request = request("guest0", READ_ONLY, count, &bytes);
        assert_eq!(request.len(), HEADER + bytes.len());
        assert_eq!(&request[48..55], b"guest0\0");
    }
}
