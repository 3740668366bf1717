//! The ISO: starts by BIOS and UEFI, from a CD and from a USB stick it was written to byte for byte.
//!
//! BIOS: GRUB as El Torito image and in the boot sector. UEFI: an EFI system partition with Debian's signed shim and GRUB
//! (`gcdx64`, the one that takes its configuration from the medium), so Secure Boot stays on. Where the signed packages
//! cannot be had, an unsigned GRUB is made instead, and said so.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::tool::{GRUB_MKIMAGE, MCOPY, MFORMAT, MMD, XORRISO, package_file};
use crate::{Error, Result, package};

pub(crate) const SHIM: &str = "/usr/lib/shim/shimx64.efi.signed";
pub(crate) const MOK_MANAGER: &str = "/usr/lib/shim/mmx64.efi.signed";
pub(crate) const SIGNED_GRUB: &str = "/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed";
/// By this label the boot image knows the filesystem for its settings.
const SETTINGS_LABEL: &str = "VCSETTINGS";
const SETTINGS_BYTES: u64 = 1 << 20;
const BIOS_FOLDER: &str = "/usr/lib/grub/i386-pc";
const EFI_FOLDER: &str = "/usr/lib/grub/x86_64-efi";

/// What GRUB needs to find the medium, show a menu and start Linux; nothing is loaded from the medium.
const GRUB_MODULES: &[&str] = &[
    "all_video",
    "configfile",
    "echo",
    "fat",
    "halt",
    "iso9660",
    "linux",
    "minicmd",
    "normal",
    "part_gpt",
    "part_msdos",
    "reboot",
    "search",
    "search_fs_file",
    "serial",
    "terminal",
    "test",
    "true",
];

/// What goes onto the ISO.
pub(crate) struct Contents<'a> {
    pub(crate) vmlinuz: &'a Path,
    pub(crate) initramfs: &'a Path,
    /// The configuration, to be read on the medium.
    pub(crate) configuration: &'a Path,
    /// The same as an archive that GRUB hands over. GRUB's own `newc:` leaves out the NUL behind names, which kernels
    /// refuse since 2025 ("initramfs name without nulterm").
    pub(crate) configuration_archive: &'a Path,
    /// Tells this medium from any other that GRUB may see.
    pub(crate) identity: &'a str,
    /// Seconds since 1970 of all time stamps.
    pub(crate) epoch: u64,
}

/// Writes the ISO to `output`.
pub(crate) fn write_iso(contents: &Contents<'_>, output: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let staging = tempfile::tempdir().map_err(|e| Error::io("create a temporary folder", e))?;
    let (tree, work) = (staging.path().join("tree"), staging.path().join("work"));
    let disk = Staging { root: &tree, epoch: contents.epoch };
    fs::create_dir(&work).map_err(|e| Error::path("create", &work, e))?;
    disk.copy("boot/vmlinuz", contents.vmlinuz)?;
    disk.copy("boot/initramfs.img", contents.initramfs)?;
    disk.copy("vconverter.toml", contents.configuration)?;
    disk.copy("boot/configuration.img", contents.configuration_archive)?;
    disk.write(&marker(contents.identity), b"vconverter boot image\n")?;
    disk.write("boot/grub/grub.cfg", menu().as_bytes())?;
    progress("making the boot loader for BIOS");
    let early = work.join("early.cfg");
    let find = find_medium(contents.identity);
    fs::write(&early, format!("{find}set prefix=($root)/boot/grub\n")).map_err(|e| Error::path("write", &early, e))?;
    let core = work.join("eltorito.img");
    make_grub("i386-pc-eltorito", BIOS_FOLDER, &["biosdisk"], &early, &core)?;
    disk.copy("boot/grub/eltorito.img", &core)?;
    progress("making the EFI system partition");
    let esp = write_esp(contents, &early, &work, progress)?;
    disk.copy("boot/grub/efi.img", &esp)?;
    let settings = write_settings(contents, &work)?;
    progress("writing the ISO");
    let hybrid = package_file(&format!("{BIOS_FOLDER}/boot_hybrid.img"), "grub-pc-bin")?;
    let mut command = XORRISO.command()?;
    command.env("SOURCE_DATE_EPOCH", contents.epoch.to_string());
    command.args(["-as", "mkisofs", "-quiet", "-r", "-V", "VCONVERTER", "-J", "-joliet-long", "-graft-points"]);
    command.args(["-b", "boot/grub/eltorito.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]);
    // SOURCE_DATE_EPOCH does not reach the times of folders, nor the access times of files.
    command.arg("--set_all_file_dates").arg(format!("={}", contents.epoch));
    // By this name bootenv knows the medium it came from.
    command.args(["-volset", contents.identity]);
    command.arg("--grub2-boot-info").arg("--grub2-mbr").arg(hybrid).arg("--protective-msdos-label");
    command.args(["--efi-boot", "boot/grub/efi.img", "-efi-boot-part", "--efi-boot-image"]);
    // A partition on a stick; on a CD nobody can write to it.
    command.args(["-append_partition", "3", "0x0c"]).arg(&settings).arg("-appended_part_as_gpt");
    command.arg("-o").arg(output).arg(&tree);
    XORRISO.run(&mut command).map(drop)
}

fn marker(identity: &str) -> String {
    format!(".vconverter/{identity}")
}

fn find_medium(identity: &str) -> String {
    format!("search --no-floppy --file --set=root /{}\n", marker(identity))
}

/// GRUB's configuration: one entry, on the screen and on the first serial port if there is one.
fn menu() -> String {
    "if serial --unit=0 --speed=115200; then\n\
     \x20 terminal_input console serial\n\
     \x20 terminal_output console serial\n\
     fi\n\
     set timeout=1\n\
     set default=0\n\
     menuentry 'vconverter boot image' {\n\
     \x20 echo 'Starting the vconverter boot image ...'\n\
     \x20 linux /boot/vmlinuz console=ttyS0,115200 console=tty0 loglevel=5 vconverter.boot=iso\n\
     \x20 initrd /boot/initramfs.img /boot/configuration.img\n\
     }\n"
    .into()
}

fn make_grub(format: &str, folder: &str, extra: &[&str], early: &Path, output: &Path) -> Result<()> {
    let package = if format.starts_with("i386-pc") { "grub-pc-bin" } else { "grub-efi-amd64-bin" };
    package_file(&format!("{folder}/kernel.img"), package)?;
    let mut command = GRUB_MKIMAGE.command()?;
    command.args(["-O", format, "-d", folder, "-p", "/boot/grub", "-c"]).arg(early).arg("-o").arg(output);
    GRUB_MKIMAGE.run(command.args(GRUB_MODULES).args(extra)).map(drop)
}

/// The EFI system partition as an image of a FAT filesystem.
fn write_esp(contents: &Contents<'_>, early: &Path, work: &Path, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let root = work.join("esp");
    let esp = Staging { root: &root, epoch: contents.epoch };
    let signed = [
        (SHIM, "shim-signed", "BOOTX64.EFI"),
        (SIGNED_GRUB, "grub-efi-amd64-signed", "grubx64.efi"),
        (MOK_MANAGER, "shim-helpers-amd64-signed", "mmx64.efi"),
    ];
    let found: Result<Vec<_>> =
        signed.iter().map(|(path, package, to)| Ok((package::find_file(path, package, progress)?, to))).collect();
    match found {
        Ok(files) => {
            for (from, to) in files {
                esp.copy(&format!("EFI/BOOT/{to}"), &from)?;
            }
        }
        Err(error) => {
            progress(&format!("{error}: the ISO will not start under Secure Boot"));
            let unsigned = work.join("BOOTX64.EFI");
            make_grub("x86_64-efi", EFI_FOLDER, &["efi_gop", "efi_uga"], early, &unsigned)?;
            esp.copy("EFI/BOOT/BOOTX64.EFI", &unsigned)?;
        }
    }
    // gcdx64 looks at its prefix first, then beside itself; both lead to the medium that we are on.
    let lead = format!("{}configfile ($root)/boot/grub/grub.cfg\n", find_medium(contents.identity));
    esp.write("boot/grub/grub.cfg", lead.as_bytes())?;
    esp.write("EFI/BOOT/grub.cfg", lead.as_bytes())?;
    let image = work.join("efi.img");
    let size = tree_size(&root)?.next_multiple_of(1 << 20) + (1 << 20);
    File::create(&image).and_then(|file| file.set_len(size)).map_err(|e| Error::path("create", &image, e))?;
    let epoch = contents.epoch.to_string();
    let mut format = MFORMAT.command()?;
    format.env("SOURCE_DATE_EPOCH", &epoch).args(["-N", "56434f4e", "-v", "VCONVERTER", "-h", "16", "-s", "63"]);
    MFORMAT.run(format.arg("-T").arg((size / 512).to_string()).arg("-i").arg(&image).arg("::"))?;
    for folder in ["::/EFI", "::/EFI/BOOT", "::/boot", "::/boot/grub"] {
        MMD.run(MMD.command()?.env("SOURCE_DATE_EPOCH", &epoch).arg("-i").arg(&image).arg(folder))?;
    }
    for folder in ["EFI/BOOT", "boot/grub"] {
        let mut files: Vec<PathBuf> = list(&root.join(folder))?;
        files.sort();
        let mut copy = MCOPY.command()?;
        copy.env("SOURCE_DATE_EPOCH", &epoch).env("TZ", "UTC").arg("-m").arg("-i").arg(&image).args(files);
        MCOPY.run(copy.arg(format!("::/{folder}/")))?;
    }
    Ok(image)
}

/// A small empty FAT filesystem, in which the boot image saves the settings of its Network Configurator.
fn write_settings(contents: &Contents<'_>, work: &Path) -> Result<PathBuf> {
    let image = work.join("settings.img");
    File::create(&image).and_then(|file| file.set_len(SETTINGS_BYTES)).map_err(|e| Error::path("create", &image, e))?;
    let mut format = MFORMAT.command()?;
    format.env("SOURCE_DATE_EPOCH", contents.epoch.to_string());
    format.args(["-N", "56435345", "-v", SETTINGS_LABEL, "-h", "16", "-s", "63"]);
    MFORMAT.run(format.arg("-T").arg((SETTINGS_BYTES / 512).to_string()).arg("-i").arg(&image).arg("::"))?;
    Ok(image)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    Ok(entries.map_err(|e| Error::path("list", folder, e))?.into_iter().map(|entry| entry.path()).collect())
}

fn tree_size(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for path in list(folder)? {
        size += if path.is_dir() {
            tree_size(&path)?
        } else {
            fs::metadata(&path).map_err(|e| Error::path("read", &path, e))?.len()
        };
    }
    Ok(size)
}

/// A folder that is filled with files of one time stamp.
struct Staging<'a> {
    root: &'a Path,
    epoch: u64,
}

impl Staging<'_> {
    fn path(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        let folder = path.parent().unwrap_or(self.root);
        fs::create_dir_all(folder).map_err(|e| Error::path("create", folder, e))?;
        Ok(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name)?;
        fs::write(&path, bytes).map_err(|e| Error::path("write", &path, e))?;
        self.stamp(&path)
    }

    fn copy(&self, name: &str, from: &Path) -> Result<()> {
        let path = self.path(name)?;
        fs::copy(from, &path).map_err(|e| Error::path("copy", from, e))?;
        self.stamp(&path)
    }

    fn stamp(&self, path: &Path) -> Result<()> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.epoch);
        let file = File::options().write(true).open(path).map_err(|e| Error::path("open", path, e))?;
        file.set_modified(time).map_err(|e| Error::path("set the time of", path, e))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn build(folder: &Path, name: &str) -> PathBuf {
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let contents = Contents {
            vmlinuz: &file("vmlinuz", &[1; 5000]),
            initramfs: &file("initramfs.img", &[2; 9000]),
            configuration: &file("vconverter.toml", b"controller = \"c:1\"\n"),
            configuration_archive: &file("configuration.img", &[3; 512]),
            identity: "0123456789abcdef",
            epoch: 1_700_000_000,
        };
        let output = folder.join(name);
        write_iso(&contents, &output, &mut |_| {}).unwrap();
        output
    }

    fn le64(bytes: &[u8]) -> u64 {
        u64::from_le_bytes(bytes[..8].try_into().unwrap())
    }

    fn xorriso(iso: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new("xorriso");
        let output = command.arg("-indev").arg(iso).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn an_iso_starts_by_bios_and_uefi_and_is_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let iso = build(folder.path(), "one.iso");
        let report = xorriso(&iso, &["-report_el_torito", "plain", "-report_system_area", "plain"]);
        assert!(report.contains("BIOS") && report.contains("UEFI"), "{report}");
        assert!(report.contains("grub2-mbr") && report.contains("GPT"), "{report}");
        // A stick it is written to has a partition for settings. Entries of a GPT: 128 bytes from the third sector, with
        // their first and last sector at 32; FAT's label at 43.
        let bytes = fs::read(&iso).unwrap();
        let lba = |entry: &[u8], at: usize| usize::try_from(le64(&entry[at..])).unwrap();
        let labelled = |entry: &&[u8]| bytes[lba(entry, 32) * 512 + 43..].starts_with(SETTINGS_LABEL.as_bytes());
        let settings: Vec<&[u8]> = bytes[1024..1024 + 32 * 128].chunks(128).filter(labelled).collect();
        assert_eq!(settings.len(), 1);
        assert_eq!((lba(settings[0], 40) + 1 - lba(settings[0], 32)) * 512, 1 << 20);
        let files = xorriso(&iso, &["-find", "/", "-type", "f"]);
        for name in ["/boot/vmlinuz", "/boot/initramfs.img", "/boot/configuration.img", "/vconverter.toml"] {
            assert!(files.contains(&format!("'{name}'")), "{name} in {files}");
        }
        // Time stamps of folders come from the clock unless something prevents it.
        std::thread::sleep(Duration::from_millis(2100));
        assert!(fs::read(&iso).unwrap() == fs::read(build(folder.path(), "two.iso")).unwrap(), "two builds differ");
        let bytes = fs::read(&iso).unwrap();
        assert_eq!(&bytes[32769..32774], b"CD001");
        assert_eq!(&bytes[32768 + 190..][..16], b"0123456789abcdef");
    }

    #[test]
    fn the_esp_holds_the_signed_chain() {
        let folder = tempfile::tempdir().unwrap();
        let iso = build(folder.path(), "one.iso");
        let esp = folder.path().join("efi.img");
        xorriso(&iso, &["-osirrox", "on", "-extract", "/boot/grub/efi.img", esp.to_str().unwrap()]);
        for (inside, packaged) in [("BOOTX64.EFI", SHIM), ("grubx64.efi", SIGNED_GRUB), ("mmx64.efi", MOK_MANAGER)] {
            let mut command = Command::new("mtype");
            let found = command.arg("-i").arg(&esp).arg(format!("::/EFI/BOOT/{inside}")).output().unwrap();
            assert!(found.stdout == fs::read(packaged).unwrap(), "{inside}");
        }
    }
}
