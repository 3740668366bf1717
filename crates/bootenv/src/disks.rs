//! The source's disks: set read-only when they appear, before anything else opens them.
//!
//! Read-only is a flag of the kernel for whole disks and partitions (BLKROSET); every write to them then fails, whoever
//! tries. CD drives, loop and memory devices are no disks of the machine. A stick for settings is made writable for the
//! time of saving ([`Held`]); so are the filesystems by which a pushed boot image was started, for the time of undoing that
//! (`restore`). Nothing else ever is.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// The node of the block device `name`; a `/` in its name stands as `!` in sysfs.
pub fn device_path(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

/// Whether a disk can be taken out: it says so, or it hangs on USB.
pub fn is_removable(disk: &str) -> bool {
    let folder = Path::new("/sys/block").join(disk);
    let is_usb = |part: &std::ffi::OsStr| {
        part.to_string_lossy().strip_prefix("usb").is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let on_usb = || folder.canonicalize().is_ok_and(|path| path.iter().any(is_usb));
    is_disk(disk) && (read(&folder.join("removable")) == "1" || on_usb())
}

/// Maker and model of a disk, as far as it says them.
pub fn model(disk: &str) -> String {
    let folder = Path::new("/sys/block").join(disk).join("device");
    let text = format!("{} {}", read(&folder.join("vendor")), read(&folder.join("model")));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Names of a disk's partitions.
pub fn partitions(disk: &str) -> Vec<String> {
    partitions_in(&Path::new("/sys/block").join(disk))
}

/// Number of a partition as the kernel counts it; `None` for a disk.
pub fn partition_number(name: &str) -> Option<u32> {
    read(&Path::new("/sys/class/block").join(name).join("partition")).parse().ok()
}

/// Size of a block device.
pub fn size(name: &str) -> Option<ByteCount> {
    size_in(&Path::new("/sys/class/block").join(name))
}

/// Whether the kernel refuses writes to the block device `name`.
pub fn is_read_only(name: &str) -> bool {
    read(&Path::new("/sys/class/block").join(name).join("ro")) == "1"
}

/// Sets the block device `name` read-only, unless it is a [`Writable`].
///
/// # Errors
/// The device cannot be opened, or refuses.
pub fn set_read_only(name: &str) -> Result<()> {
    if writable().iter().any(|other| other == name) {
        return Ok(());
    }
    set_flag(name, &open(name)?, true)
}

fn open(name: &str) -> Result<File> {
    let path = device_path(name);
    File::open(&path).map_err(|e| Error::path("open", &path, e))
}

#[allow(unsafe_code)]
fn set_flag(name: &str, device: &File, read_only: bool) -> Result<()> {
    const BLKROSET: libc::Ioctl = 0x125d;
    let value = libc::c_int::from(read_only);
    // SAFETY: BLKROSET reads one int from the address, which outlives the call.
    if unsafe { libc::ioctl(device.as_raw_fd(), BLKROSET, &raw const value) } != 0 {
        let what = if read_only { "set read-only" } else { "make writable" };
        return Err(Error::path(what, &device_path(name), std::io::Error::last_os_error()));
    }
    Ok(())
}

/// Devices that are open, so that their names mean them: a name is given to another device only when they are closed.
pub struct Held(Vec<(String, File)>);

/// Devices that are writable until this is dropped.
pub struct Writable(Held);

/// Names of the devices that are to be left writable.
static WRITABLE: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Held {
    /// Opens devices for reading.
    ///
    /// # Errors
    /// One cannot be opened.
    pub fn open(names: &[&str]) -> Result<Self> {
        names.iter().map(|&name| Ok((name.to_owned(), open(name)?))).collect::<Result<_>>().map(Self)
    }

    /// Makes them writable. A partition is writable only together with its disk.
    ///
    /// # Errors
    /// The kernel refuses; they are read-only then as before.
    pub fn make_writable(self) -> Result<Writable> {
        writable().extend(self.0.iter().map(|(name, _)| name.clone()));
        let writable = Writable(self);
        writable.0.0.iter().try_for_each(|(name, device)| set_flag(name, device, false))?;
        Ok(writable)
    }
}

impl Writable {
    /// Has the devices keep what was written, and forgets what is known of their content: a filesystem writes past that.
    ///
    /// # Errors
    /// One of them could not keep it.
    pub fn flush(&self) -> Result<()> {
        for (name, device) in &self.0.0 {
            device.sync_all().map_err(|e| Error::path("flush", &device_path(name), e))?;
            flush_buffers(name, device)?;
        }
        Ok(())
    }
}

#[allow(unsafe_code)]
fn flush_buffers(name: &str, device: &File) -> Result<()> {
    const BLKFLSBUF: libc::Ioctl = 0x1261;
    // SAFETY: BLKFLSBUF takes no argument.
    if unsafe { libc::ioctl(device.as_raw_fd(), BLKFLSBUF, 0) } != 0 {
        return Err(Error::path("flush the buffers of", &device_path(name), std::io::Error::last_os_error()));
    }
    Ok(())
}

impl Drop for Writable {
    fn drop(&mut self) {
        for (name, device) in &self.0.0 {
            // One that was pulled out cannot be written either.
            let _ = set_flag(name, device, true);
        }
        writable().retain(|name| !self.0.0.iter().any(|(other, _)| other == name));
    }
}

fn writable() -> MutexGuard<'static, Vec<String>> {
    WRITABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets all disks and partitions that are there read-only, as [`set_read_only`] does. Returns what could not be.
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
    let size = size_in(folder)?;
    let is_set = |folder: PathBuf| read(&folder.join("ro")) == "1";
    let read_only =
        is_set(folder.to_owned()) && partitions_in(folder).into_iter().all(|part| is_set(folder.join(part)));
    let either = |a: &str, b: &str| {
        Some(read(&folder.join(a))).filter(|t| !t.is_empty()).unwrap_or_else(|| read(&folder.join(b)))
    };
    let serial = either("device/serial", "serial");
    let serial = if serial.is_empty() { serial_page(&folder.join("device/vpd_pg80")) } else { serial };
    Some(DiskFacts { size, model: either("device/model", "device/name"), serial, read_only, name })
}

/// sysfs counts in units of 512 bytes, whatever the disk's sector size is.
fn size_in(folder: &Path) -> Option<ByteCount> {
    let sectors = read(&folder.join("size")).parse::<u64>().ok()?;
    sectors.checked_mul(512).filter(|size| *size > 0).map(ByteCount)
}

fn partitions_in(folder: &Path) -> Vec<String> {
    names(folder).into_iter().filter(|entry| folder.join(entry).join("partition").is_file()).collect()
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
    fn what_cannot_be_made_writable_is_left_to_be_protected() {
        let error = Held::open(&["null"]).unwrap().make_writable().map(drop).unwrap_err();
        assert!(error.context.contains("make writable /dev/null"), "{}", error.context);
        assert!(!writable().contains(&"null".to_owned()));
        assert!(Held::open(&["null", "no-such-device"]).is_err());
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
