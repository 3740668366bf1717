//! The firmware is told from what the disks could be booted by.
#![allow(clippy::unwrap_used)] // a test fails by it
mod support;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use machine::FirmwareKind;
use support::{disk, sh};
use tempfile::TempDir;
use volume::detect_layout;

fn partitioned(script: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    sh(&format!("truncate -s 64M $1; printf '{script}' | sfdisk -q $1 2>/dev/null"), &[&image]);
    (folder, image)
}

fn firmware(image: &Path) -> FirmwareKind {
    detect_layout(&[disk(image)]).unwrap().firmware()
}

/// Something that a BIOS would run.
fn write_boot_code(image: &Path, code: &[u8]) {
    std::fs::File::options().write(true).open(image).unwrap().write_all_at(code, 0).unwrap();
}

#[test]
fn an_esp_with_a_loader_tells_uefi() {
    let (_folder, image) = partitioned("label: gpt\\nsize=40M,type=uefi\\nsize=8M\\n");
    sh("mkfs.vfat -F 32 --offset 2048 $1 40960 >/dev/null", &[&image]);
    assert_eq!(firmware(&image), FirmwareKind::Unknown);
    let loader = "export MTOOLS_SKIP_CHECK=1; mmd -i $1@@1M ::/EFI ::/EFI/debian; echo x | mcopy -i $1@@1M - ::/EFI/debian/shimx64.efi";
    sh(loader, &[&image]);
    assert_eq!(firmware(&image), FirmwareKind::Uefi);
    // A boot manager that left its code on the disk too does not change that.
    write_boot_code(&image, b"\xeb\x63GRUB");
    assert_eq!(firmware(&image), FirmwareKind::Uefi);
}

#[test]
fn boot_code_that_can_find_something_tells_bios() {
    let (_folder, image) = partitioned("label: dos\\nsize=8M,bootable\\n");
    assert_eq!(firmware(&image), FirmwareKind::Unknown);
    write_boot_code(&image, b"\xfa\x33\xc0");
    assert_eq!(firmware(&image), FirmwareKind::Bios);
    let (_folder, image) = partitioned("label: dos\\nsize=8M\\n");
    write_boot_code(&image, b"\xfa\x33\xc0");
    assert_eq!(firmware(&image), FirmwareKind::Unknown);
    write_boot_code(&image, b"\xeb\x63\x90GRUB");
    assert_eq!(firmware(&image), FirmwareKind::Bios);
    let (_folder, image) = partitioned("label: gpt\\nsize=1M,type=21686148-6449-6E6F-744E-656564454649\\nsize=8M\\n");
    write_boot_code(&image, b"\xeb\x63\x90");
    assert_eq!(firmware(&image), FirmwareKind::Bios);
}
