//! USB sticks and CDs with drivers: those that carry a folder for us, and no other.
//!
//! A stick is read by our own readers of FAT and ext: it is not mounted, and as every disk it is set read-only. When its
//! drivers are read the kernel lets it go, so that nobody takes it for a disk of the machine. A CD, which is never one, is
//! mounted read-only for the time of reading.

use std::fs;
use std::path::{Path, PathBuf};

use machine::files::{FileKind, FileTree};
use rustix::mount::{UnmountFlags, unmount};

use crate::console::log;
use crate::disks::{is_removable, list_disks};
use crate::installation::{DriverFile, FILE_BYTES_MAX, FILES_MAX, TOTAL_BYTES_MAX, free_memory};
use crate::{Error, Result, modules, mounts, stick};

/// The folder that is meant for us.
pub const FOLDER: &str = "vconverter-drivers";
/// Below it: firmware as in `/lib/firmware`.
const FIRMWARE: &str = "firmware";
const FIRMWARE_DEPTH_MAX: usize = 6;
/// Filesystems of CDs.
const CD_KINDS: [(&str, &str); 2] = [("isofs", "iso9660"), ("udf", "udf")];
const CD_MOUNT: &str = "/run/vconverter/cd";

/// A medium with drivers.
pub struct Medium {
    /// What it is: `sdb (SanDisk Cruzer)`.
    pub name: String,
    /// The files on it.
    pub files: Vec<DriverFile>,
}

/// Reads the drivers of all sticks and CDs that are there.
///
/// # Errors
/// None carries the folder; it says what was looked at.
pub fn load_media() -> Result<Vec<Medium>> {
    let (mut media, mut looked_at) = (Vec::new(), Vec::new());
    for disk in list_disks().into_iter().filter(|disk| is_removable(&disk.name)) {
        let name = format!("{} ({})", disk.name, disk.model);
        match load_stick(&disk.name) {
            Ok(files) if files.is_empty() => looked_at.push(name),
            Ok(files) => {
                // One for settings, too, is no disk of the machine already.
                if !stick::is_ours(&disk.name) {
                    let_go(&disk.name, &name);
                }
                media.push(Medium { name, files });
            }
            Err(error) => {
                log(format!("{name}: {}", error.chain()));
                looked_at.push(name);
            }
        }
    }
    for name in cd_drives() {
        match load_cd(&name) {
            Ok(files) if files.is_empty() => looked_at.push(name),
            Ok(files) => media.push(Medium { name, files }),
            Err(error) => log(error.chain()),
        }
    }
    match (media.is_empty(), looked_at.is_empty()) {
        (false, _) => Ok(media),
        (true, true) => Err(Error::new("no USB stick and no CD is there")),
        (true, false) => Err(Error::new(format!(
            "no folder {FOLDER} with drivers on {} (sticks are read as FAT or ext)",
            looked_at.join(", ")
        ))),
    }
}

fn let_go(disk: &str, name: &str) {
    let delete = Path::new("/sys/block").join(disk).join("device/delete");
    match fs::write(&delete, "1") {
        Ok(()) => log(format!("disk {name}: its drivers are read; it can be removed")),
        Err(error) => log(Error::path("let the stick go:", &delete, error).chain()),
    }
}

fn load_stick(name: &str) -> Result<Vec<DriverFile>> {
    let failed = |error: &dyn std::fmt::Display| Error::new(error.to_string());
    let source = block::open_source(&Path::new("/dev").join(name)).map_err(|e| failed(&e))?.source;
    let layout = volume::detect_layout(&[source]).map_err(|e| failed(&e))?;
    let mut basket = Basket::default();
    for tree in layout.file_trees() {
        basket.collect(&Tree(&tree))?;
    }
    Ok(basket.files)
}

fn cd_drives() -> Vec<String> {
    let names = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.strip_prefix("sr").is_some_and(|number| number.parse::<u32>().is_ok()));
    names.sort();
    names
}

fn load_cd(name: &str) -> Result<Vec<DriverFile>> {
    let (device, target) = (Path::new("/dev").join(name), Path::new(CD_MOUNT));
    fs::create_dir_all(target).map_err(|e| Error::path("create", target, e))?;
    let mut mounted = Err(Error::new("no filesystem of CDs"));
    for (module, kind) in CD_KINDS {
        modules::load(&[module])?;
        mounted = mounts::mount_cd(&device, target, kind);
        if mounted.is_ok() {
            break;
        }
    }
    mounted?;
    let mut basket = Basket::default();
    let collected = basket.collect(&Mounted(target.to_owned()));
    let unmounted = unmount(target, UnmountFlags::DETACH).map_err(|e| Error::path("unmount", target, e));
    collected.and(unmounted)?;
    Ok(basket.files)
}

/// What a folder is looked into with.
trait Source {
    /// Names and kinds; empty where there is no such folder.
    fn list(&self, path: &str) -> Result<Vec<(String, FileKind)>>;
    /// At most [`FILE_BYTES_MAX`] bytes.
    fn read(&self, path: &str) -> Result<Vec<u8>>;
}

/// A filesystem read by ourselves.
struct Tree<'a>(&'a dyn FileTree);

impl Source for Tree<'_> {
    fn list(&self, path: &str) -> Result<Vec<(String, FileKind)>> {
        let entries = self.0.list(path).map_err(|e| Error::io(format!("list {path}"), e))?;
        Ok(entries.into_iter().map(|entry| (entry.name, entry.kind)).collect())
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let read = self.0.read(path, FILE_BYTES_MAX).map_err(|e| Error::io(format!("read {path}"), e))?;
        read.ok_or_else(|| Error::new(format!("read {path}: it is no file")))
    }
}

/// A mounted one, whose links are not followed.
struct Mounted(PathBuf);

impl Source for Mounted {
    fn list(&self, path: &str) -> Result<Vec<(String, FileKind)>> {
        let folder = self.0.join(path.trim_start_matches('/'));
        if !folder.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&folder).map_err(|e| Error::path("list", &folder, e))?;
        let kind = |entry: &fs::DirEntry| match entry.file_type() {
            Ok(kind) if kind.is_file() => FileKind::File,
            Ok(kind) if kind.is_dir() => FileKind::Folder,
            _ => FileKind::Other,
        };
        let named = |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, kind(&entry)));
        Ok(entries.flatten().take(FILES_MAX).filter_map(named).collect())
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        use std::io::Read;
        let path = self.0.join(path.trim_start_matches('/'));
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        read.map_err(|e| Error::path("read", &path, e))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(Error::new(format!("{}: larger than {} MiB", path.display(), FILE_BYTES_MAX >> 20)));
        }
        Ok(bytes)
    }
}

/// Files that were found, within bounds.
struct Basket {
    files: Vec<DriverFile>,
    /// Bytes that may still be taken.
    room: u64,
}

impl Default for Basket {
    fn default() -> Self {
        Self { files: Vec::new(), room: TOTAL_BYTES_MAX.min(free_memory() / 2) }
    }
}

impl Basket {
    /// Takes what is in our folder, and the firmware below it.
    fn collect(&mut self, source: &dyn Source) -> Result<()> {
        let named = |entries: Vec<(String, FileKind)>, wanted: &str| {
            let is_folder =
                |(name, kind): &(String, FileKind)| *kind == FileKind::Folder && name.eq_ignore_ascii_case(wanted);
            entries.into_iter().find(is_folder).map(|(name, _)| name)
        };
        let Some(folder) = named(source.list("/")?, FOLDER) else { return Ok(()) };
        let folder = format!("/{folder}");
        for (name, kind) in source.list(&folder)? {
            // What a Mac or an editor leaves beside files.
            if kind == FileKind::File && !name.starts_with('.') {
                self.take(source, &format!("{folder}/{name}"), name)?;
            }
        }
        match named(source.list(&folder)?, FIRMWARE) {
            Some(name) => self.collect_firmware(source, &format!("{folder}/{name}"), "", 0),
            None => Ok(()),
        }
    }

    fn collect_firmware(&mut self, source: &dyn Source, path: &str, below: &str, depth: usize) -> Result<()> {
        for (name, kind) in source.list(path)? {
            let (path, below) = (format!("{path}/{name}"), format!("{below}{name}"));
            match kind {
                FileKind::File => self.take(source, &path, below)?,
                FileKind::Folder if depth < FIRMWARE_DEPTH_MAX => {
                    self.collect_firmware(source, &path, &format!("{below}/"), depth + 1)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, source: &dyn Source, path: &str, name: String) -> Result<()> {
        let content = source.read(path)?;
        let room = self.room.checked_sub(content.len() as u64);
        let Some(room) = room.filter(|_| self.files.len() < FILES_MAX) else {
            let what = format!("{FOLDER}: more than {FILES_MAX} files, or than the memory of this machine takes");
            return Err(Error::new(what));
        };
        self.room = room;
        self.files.push(DriverFile { name, content });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut basket = Basket::default();
        basket.collect(&Mounted(folder.to_owned())).unwrap();
        let mut names: Vec<String> = basket.files.into_iter().map(|file| file.name).collect();
        names.sort();
        names
    }

    #[test]
    fn only_our_folder_is_read_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        };
        write("secret.ko");
        assert_eq!(names(folder.path()), [""; 0]);
        write("VCONVERTER-DRIVERS/raid.ko");
        write("VCONVERTER-DRIVERS/._raid.ko");
        write("VCONVERTER-DRIVERS/other/deep.ko");
        write("VCONVERTER-DRIVERS/Firmware/bnx2/a.fw");
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("VCONVERTER-DRIVERS/link.ko")).unwrap();
        assert_eq!(names(folder.path()), ["bnx2/a.fw", "raid.ko"]);
    }

    #[test]
    fn a_stick_is_read_without_mounting_it() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("stick.img");
        fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
        fs::write(folder.path().join("raid.ko"), b"module").unwrap();
        let script = "mformat -i stick.img -T 8192 -h 16 -s 32 :: && mmd -i stick.img ::/vconverter-drivers && \
            mcopy -i stick.img raid.ko ::/vconverter-drivers/megaraid_sas.ko";
        let made = std::process::Command::new("sh").args(["-c", script]).current_dir(folder.path()).status().unwrap();
        assert!(made.success());
        let source = block::open_source(&image).unwrap().source;
        let layout = volume::detect_layout(&[source]).unwrap();
        let mut basket = Basket::default();
        layout.file_trees().for_each(|tree| basket.collect(&Tree(&tree)).unwrap());
        assert_eq!(
            (basket.files[0].name.as_str(), basket.files[0].content.as_slice()),
            ("megaraid_sas.ko", &b"module"[..])
        );
    }
}
