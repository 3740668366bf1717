//! The source's disks: set read-only when they appear, before anything else opens them.
//!
//! Read-only is a flag of the kernel for whole disks and partitions (BLKROSET); every write to them then fails, whoever
//! tries. CD drives, loop and memory devices are no disks of the machine.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use machine::ByteCount;

use crate::{Error, Result};

/// A disk as the screen shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// Name in this kernel.
    pub name: String,
    /// Size in bytes.
    pub size: ByteCount,
    /// Model, where the disk says one.
    pub model: String,
    /// Serial number, where the disk says one.
    pub serial: String,
    /// Whether the kernel refuses writes to it and to all its partitions.
    pub read_only: bool,
}

/// Whether the block device `name` (a whole disk or a partition) belongs to the machine's disks.
pub fn is_disk(name: &str) -> bool {
    const OTHERS: [&str; 8] = ["loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd"];
    !OTHERS
        .iter()
        .any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())))
}

/// Sets the block device `name` read-only.
///
/// # Errors
/// The device cannot be opened, or refuses.
#[allow(unsafe_code)]
pub fn set_read_only(name: &str) -> Result<()> {
    const BLKROSET: libc::Ioctl = 0x125d;
    let path = Path::new("/dev").join(name.replace('!', "/"));
    let device = File::open(&path).map_err(|e| Error::path("open", &path, e))?;
    let on: libc::c_int = 1;
    // SAFETY: BLKROSET reads one int from the address, which outlives the call.
    if unsafe { libc::ioctl(device.as_raw_fd(), BLKROSET, &raw const on) } != 0 {
        return Err(Error::path("set read-only", &path, std::io::Error::last_os_error()));
    }
    Ok(())
}

/// Sets all disks and partitions that are there read-only. Returns what could not be.
pub fn set_all_read_only() -> Vec<Error> {
    let mut failures = Vec::new();
    for name in names(Path::new("/sys/class/block")) {
        let is_writable = || read(&Path::new("/sys/class/block").join(&name).join("ro")) == "0";
        if is_disk(&name) && is_writable() {
            failures.extend(set_read_only(&name).err());
        }
    }
    failures
}

/// The disks that are there, by name. Empty slots of card readers and the like are left out.
pub fn list_disks() -> Vec<DiskFacts> {
    let folder = Path::new("/sys/block");
    let disks = names(folder).into_iter().filter(|name| is_disk(name));
    disks.filter_map(|name| disk_facts(&folder.join(&name), name)).collect()
}

fn disk_facts(folder: &Path, name: String) -> Option<DiskFacts> {
    // sysfs counts in units of 512 bytes, whatever the disk's sector size is.
    let size = read(&folder.join("size")).parse::<u64>().ok()?.checked_mul(512).filter(|size| *size > 0)?;
    let is_set = |folder: PathBuf| read(&folder.join("ro")) == "1";
    let partitions = names(folder).into_iter().filter(|entry| folder.join(entry).join("partition").is_file());
    let read_only = is_set(folder.to_owned()) && partitions.into_iter().all(|part| is_set(folder.join(part)));
    let either = |a: &str, b: &str| {
        Some(read(&folder.join(a))).filter(|t| !t.is_empty()).unwrap_or_else(|| read(&folder.join(b)))
    };
    let serial = either("device/serial", "serial");
    let serial = if serial.is_empty() { serial_page(&folder.join("device/vpd_pg80")) } else { serial };
    Some(DiskFacts { size: ByteCount(size), model: either("device/model", "device/name"), serial, read_only, name })
}

/// The unit serial number page of a SCSI disk (SPC-4, section 7.8.14): four bytes of header, then text.
fn serial_page(path: &Path) -> String {
    let page = fs::read(path).unwrap_or_default();
    let text = page.get(4..).unwrap_or_default().iter().filter(|b| b.is_ascii_graphic() || **b == b' ');
    text.take(64).map(|&b| char::from(b)).collect::<String>().trim().to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cd_loop_and_memory_devices_are_no_disks() {
        for disk in ["sda", "sda1", "nvme0n1", "nvme0n1p2", "vda", "mmcblk0", "cciss!c0d0", "xvda", "hda", "srx"] {
            assert!(is_disk(disk), "{disk}");
        }
        for other in ["sr0", "loop7", "ram0", "zram1", "fd0", "dm-0", "md127", "nbd0"] {
            assert!(!is_disk(other), "{other}");
        }
    }

    #[test]
    fn facts_follow_sysfs_and_a_writable_partition_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |name: &str, text: &[u8]| {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), text).unwrap();
        };
        write("size", b"2048\n");
        write("ro", b"1\n");
        write("device/model", b"QEMU HARDDISK   \n");
        write("device/vpd_pg80", b"\0\x80\0\x08QM00001 ");
        write("sda1/partition", b"1\n");
        write("sda1/ro", b"1\n");
        let facts = disk_facts(root, "sda".into()).unwrap();
        assert_eq!(
            (facts.size, facts.model.as_str(), facts.serial.as_str()),
            (ByteCount::mib(1), "QEMU HARDDISK", "QM00001")
        );
        assert!(facts.read_only);
        write("sda1/ro", b"0\n");
        assert!(!disk_facts(root, "sda".into()).unwrap().read_only);
        write("size", b"0\n");
        assert_eq!(disk_facts(root, "sda".into()), None);
    }
}
