//! Disks with a Windows on them, as far as one can be had without Microsoft's files: partitions and filesystems as its set-up
//! makes them, real hives and a real boot store in their places. No such disk boots; everything that a conversion reads and changes
//! is there.
//!
//! NTFS is filled through ntfs-3g, in namespaces of mounts and processes that end with the one that fills it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::tool::Tool;
use crate::{Error, Result};

/// How the disk is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowsLayout {
    /// A Master Boot Record: the small active partition of the boot loader, and Windows' own.
    Bios,
    /// A GPT: EFI system partition, Microsoft's reserved one, and Windows' own; GUIDs are those of the real boot store.
    Uefi,
}

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// First byte and size of the boot loader's volume and of Windows'.
const BOOT: (u64, u64) = (MIB, 64 * MIB);
const SYSTEM_OFFSET: u64 = 96 * MIB;
/// Signature of the disk with a Master Boot Record.
const SIGNATURE: u32 = 0x5EED_1234;
/// Those that the boot store of the test data names.
const DISK_GUID: &str = "0b2394a9-095e-487d-8d48-719ecd4d78ca";
const ESP_GUID: &str = "36be3955-63bf-4068-a6ab-00195cca3a22";
const SYSTEM_GUID: &str = "8e0f2c38-e4ea-47ba-b7fc-9d8c74dccf0b";

/// A disk with a Windows.
#[derive(Clone, Debug)]
pub struct WindowsDisk {
    /// The disk, raw.
    pub path: PathBuf,
    layout: WindowsLayout,
    system_size: u64,
}

impl WindowsDisk {
    /// Makes `path` of `size` bytes: `system` and `boot` are folders with what the two volumes hold. Their boot sectors tell of `heads`.
    ///
    /// # Errors
    /// What a tool says.
    pub fn make(path: &Path, layout: WindowsLayout, size: u64, heads: u8, system: &Path, boot: &Path) -> Result<Self> {
        let create = |path: &Path, size: u64| File::create(path).and_then(|file| file.set_len(size));
        create(path, size).map_err(|e| Error::file(path, e))?;
        let system_size = size - SYSTEM_OFFSET - 16 * MIB;
        let disk = Self { path: path.to_owned(), layout, system_size };
        disk.partition()?;
        let part = path.with_extension("part");
        create(&part, system_size).map_err(|e| Error::file(&part, e))?;
        make_ntfs(&part, SYSTEM_OFFSET, heads, "Windows")?;
        fill_ntfs(&part, system)?;
        place(&part, path, SYSTEM_OFFSET)?;
        create(&part, BOOT.1).map_err(|e| Error::file(&part, e))?;
        match layout {
            WindowsLayout::Bios => {
                make_ntfs(&part, BOOT.0, heads, "System Reserved")?;
                fill_ntfs(&part, boot)?;
            }
            WindowsLayout::Uefi => {
                Tool::new("mkfs.fat", "dosfstools").args(["-F", "32", "-n", "SYSTEM"]).arg(&part).run()?;
                let entries = fs::read_dir(boot).map_err(|e| Error::file(boot, e))?;
                for entry in entries {
                    let entry = entry.map_err(|e| Error::file(boot, e))?.path();
                    Tool::new("mcopy", "mtools").args(["-s", "-i"]).arg(&part).arg(entry).arg("::/").run()?;
                }
            }
        }
        place(&part, path, BOOT.0)?;
        fs::remove_file(&part).map_err(|e| Error::file(&part, e))?;
        Ok(disk)
    }

    /// First byte of Windows' own volume.
    pub fn system_offset(&self) -> u64 {
        SYSTEM_OFFSET
    }

    fn partition(&self) -> Result<()> {
        let sectors = |bytes: u64| bytes / SECTOR;
        let (boot, size) = (sectors(BOOT.0), sectors(BOOT.1));
        let (system, system_size) = (sectors(SYSTEM_OFFSET), sectors(self.system_size));
        let script = match self.layout {
            WindowsLayout::Bios => format!(
                "label: dos\nlabel-id: 0x{SIGNATURE:08x}\nstart={boot}, size={size}, type=7, bootable\nstart={system}, size={system_size}, \
                 type=7\n"
            ),
            WindowsLayout::Uefi => format!(
                "label: gpt\nlabel-id: {DISK_GUID}\nstart={boot}, size={size}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, \
                 uuid={ESP_GUID}\nstart={}, size={}, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\nstart={system}, size={system_size}, \
                 type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, uuid={SYSTEM_GUID}\n",
                boot + size,
                sectors(16 * MIB)
            ),
        };
        let file = self.path.with_extension("sfdisk");
        fs::write(&file, script).map_err(|e| Error::file(&file, e))?;
        let run = r#"sfdisk -q "$1" < "$2""#;
        Tool::new("sh", "dash").args(["-c", run, "sh"]).arg(&self.path).arg(&file).run()?;
        fs::remove_file(&file).map_err(|e| Error::file(&file, e))
    }

    /// Copies what the volumes of `disk`, a raw disk that was made of this one, hold into `system` and `boot` below `folder`.
    ///
    /// # Errors
    /// What a tool says: a filesystem that was left dirty, for one.
    pub fn read(&self, disk: &Path, folder: &Path) -> Result<()> {
        let part = folder.join("part");
        for (name, offset, size) in [("system", SYSTEM_OFFSET, self.system_size), ("boot", BOOT.0, BOOT.1)] {
            let to = folder.join(name);
            fs::create_dir_all(&to).map_err(|e| Error::file(&to, e))?;
            let cut = r#"dd if="$1" of="$2" bs=1M skip="$3" count="$4" conv=sparse status=none"#;
            let (skip, count) = ((offset / MIB).to_string(), (size / MIB).to_string());
            Tool::new("sh", "dash").args(["-c", cut, "sh"]).arg(disk).arg(&part).args([skip, count]).run()?;
            match (name, self.layout) {
                ("boot", WindowsLayout::Uefi) => {
                    Tool::new("mcopy", "mtools").args(["-s", "-n", "-i"]).arg(&part).arg("::/*").arg(&to).run()?;
                }
                _ => {
                    with_ntfs(&part, "ro", r#"cp -r "$2/." "$3/""#, &to)?;
                    // Its own judge: metadata that do not agree.
                    Tool::new("ntfsfix", "ntfs-3g").arg("-n").arg(&part).run()?;
                }
            }
            fs::remove_file(&part).map_err(|e| Error::file(&part, e))?;
        }
        Ok(())
    }
}

fn make_ntfs(part: &Path, offset: u64, heads: u8, label: &str) -> Result<()> {
    let (start, heads) = ((offset / SECTOR).to_string(), heads.to_string());
    let options = ["-F", "-q", "-f", "-s", "512", "-p", &start, "-H", &heads, "-S", "63", "-L", label];
    Tool::new("mkntfs", "ntfs-3g").args(options).arg(part).run().map(drop)
}

fn fill_ntfs(part: &Path, from: &Path) -> Result<()> {
    with_ntfs(part, "rw", r#"cp -r "$3/." "$2/""#, from)
}

/// Mounts a volume for one command, which finds it at `$2`, and `folder` at `$3`.
fn with_ntfs(part: &Path, access: &str, command: &str, folder: &Path) -> Result<()> {
    let script = format!(
        r#"set -e; mkdir -p "$1.mnt"; ntfs-3g -o {access} "$1" "$1.mnt"; set -- "$1" "$1.mnt" "$2"; {command}; umount "$1.mnt"; rmdir "$1.mnt"
        # The driver writes the last of it after the unmount has returned.
        while pidof ntfs-3g >/dev/null 2>&1; do sleep 0.05; done"#
    );
    Tool::new("unshare", "util-linux")
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", &script, "sh"])
        .arg(part)
        .arg(folder)
        .run()
        .map(drop)
}

/// Puts a volume into its place on a disk.
fn place(part: &Path, disk: &Path, offset: u64) -> Result<()> {
    let copy = r#"dd if="$1" of="$2" bs=1M seek="$3" conv=notrunc,sparse status=none"#;
    let seek = (offset / MIB).to_string();
    Tool::new("sh", "dash").args(["-c", copy, "sh"]).arg(part).arg(disk).arg(seek).run().map(drop)
}
