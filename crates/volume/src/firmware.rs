//! Which firmware starts a machine, as its disks tell it.

use std::path::Path;
use std::sync::Arc;

use block::BlockSource;
use machine::{FirmwareKind, PartitionTable};

use crate::field::peek;
use crate::files::Files;
use crate::layout::Filesystem;
use crate::table::Table;

/// Type of an EFI system partition in a GPT, and in an MBR.
const ESP: [&str; 2] = ["C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "ef"];
/// Type of the partition that GRUB's BIOS core lies in on GPT disks.
const BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";

/// Directories of the system partition that are looked into.
const VENDORS_MAX: usize = 64;

/// Tells the firmware: UEFI where an EFI system partition holds a boot loader, BIOS where a disk has boot code that
/// could find something to boot.
pub(crate) fn detect_firmware(
    disks: &[Arc<dyn BlockSource>],
    tables: &[Table],
    filesystems: &[Filesystem],
) -> FirmwareKind {
    let is_esp = |fs: &&Filesystem| fs.partition_type.as_deref().is_some_and(|t| ESP.contains(&t));
    if filesystems.iter().filter(is_esp).any(|fs| fs.kind == "vfat" && has_loader(fs)) {
        return FirmwareKind::Uefi;
    }
    if disks.iter().zip(tables).any(|(disk, table)| boots_by_bios(&**disk, table)) {
        return FirmwareKind::Bios;
    }
    FirmwareKind::Unknown
}

/// Whether there is a boot loader where UEFI systems have theirs: `EFI/*/*.efi`.
fn has_loader(esp: &Filesystem) -> bool {
    let Ok(files) = Files::open(Arc::clone(&esp.source)) else { return false };
    let vendors = files.list("/EFI").unwrap_or_default();
    vendors.iter().take(VENDORS_MAX).any(|vendor| {
        let loaders = files.list(Path::new("/EFI").join(&vendor.name)).unwrap_or_default();
        loaders.iter().any(|loader| loader.name.to_string_lossy().to_lowercase().ends_with(".efi"))
    })
}

/// Boot code alone is not enough: partitioning programs write some on data disks too. It must be GRUB's or LILO's, which
/// know their way, or there must be a partition for it to start.
fn boots_by_bios(disk: &dyn BlockSource, table: &Table) -> bool {
    if !table.boot_code || table.kind == PartitionTable::None {
        return false;
    }
    let code = peek(disk, 0, 440).unwrap_or_default();
    let names = |name: &[u8]| code.windows(name.len()).any(|w| w == name);
    table.partitions.iter().any(|p| p.active || p.type_id == BIOS_BOOT) || names(b"GRUB") || names(b"LILO")
}
