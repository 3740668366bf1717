//! What the [`fallback_loader`] of a Linux guest is.
//!
//! A shim or GRUB of a vendor's folder works from there too: Debian's and Ubuntu's signed GRUB look for their
//! configuration in the vendor's folder, an installed one has the place of its configuration built in.

use machine::{FirmwareKind, Machine};

use crate::fallback_loader::{self, child, read};
use crate::linux::shell;
use crate::plan::{Change, Fixup};
use crate::tree::FileKind;
use crate::{FileTree, Result};

/// Where distributions mount the ESP.
const ESP_MOUNTS: [&str; 3] = ["/boot/efi", "/efi", "/boot"];

/// Plans the fix-up `uefi-fallback-loader`; nothing for BIOS.
pub(super) fn plan(tree: &dyn FileTree, machine: &Machine, warnings: &mut Vec<String>) -> Result<Vec<Fixup>> {
    if machine.firmware.kind == FirmwareKind::Bios {
        return Ok(Vec::new());
    }
    let folders = vendor_folders(tree)?;
    if folders.is_empty() {
        if machine.firmware.kind == FirmwareKind::Uefi {
            warnings.push(fallback_loader::missing("boot loader"));
        }
        return Ok(Vec::new());
    }
    let Some(vendor) = choose(tree, machine, &folders)? else {
        warnings.push("the EFI system partition has several loaders and none is known to be the one in use".to_owned());
        return Ok(Vec::new());
    };
    let efi = vendor.rsplit_once('/').map_or("", |(efi, _)| efi);
    let changes = fallback_changes(tree, vendor, &fallback_loader::folder(tree, efi)?)?;
    Ok(vec![fallback_loader::fixup(changes)])
}

/// Folders of the ESP with a GRUB or a shim in them: `/boot/efi/EFI/debian`.
pub(super) fn vendor_folders(tree: &dyn FileTree) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for mount in ESP_MOUNTS {
        let efi = child(tree, mount, "EFI")?;
        let Some(efi) = efi else { continue };
        for entry in tree.list(&efi)? {
            let system = ["BOOT", "Microsoft"].iter().any(|name| entry.name.eq_ignore_ascii_case(name));
            let folder = format!("{efi}/{}", entry.name);
            if entry.kind == FileKind::Folder
                && !system
                && (child(tree, &folder, "grubx64.efi")?.is_some() || child(tree, &folder, "shimx64.efi")?.is_some())
            {
                found.push(folder);
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// The folder whose loader the source uses.
fn choose<'f>(tree: &dyn FileTree, machine: &Machine, folders: &'f [String]) -> Result<Option<&'f String>> {
    let named = |name: &str| {
        folders.iter().find(|folder| folder.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(name)))
    };
    let variables = &machine.firmware.boot_variables;
    let booted = variables.iter().find(|v| v.current).or_else(|| variables.iter().find(|v| v.active));
    let by_firmware = booted.and_then(|v| v.loader.as_deref()).and_then(|loader| {
        let mut parts = loader.split(['\\', '/']).filter(|part| !part.is_empty());
        parts.next().filter(|efi| efi.eq_ignore_ascii_case("EFI"))?;
        named(parts.next()?)
    });
    let id = tree.text("/etc/os-release")?.and_then(|text| shell::value(&text, "ID"));
    Ok(by_firmware.or_else(|| id.and_then(|id| named(&id))).or(match folders {
        [only] => Some(only),
        _ => None,
    }))
}

/// Shim (with GRUB and MokManager beside it) or GRUB alone, from `vendor` to `fallback`.
fn fallback_changes(tree: &dyn FileTree, vendor: &str, fallback: &str) -> Result<Vec<Change>> {
    let shim = read(tree, vendor, "shimx64.efi")?;
    let grub = read(tree, vendor, "grubx64.efi")?;
    let present = read(tree, fallback, "BOOTX64.EFI")?;
    // One that is there is right if it is the same, or the same program in another version.
    if let Some(present) = &present {
        let same = [&shim, &grub].into_iter().flatten().any(|loader| loader == present);
        if same || is_grub(present) || is_shim(present) && read(tree, fallback, "fbx64.efi")?.is_some() {
            return Ok(Vec::new());
        }
    }
    let mut wanted: Vec<(&str, Vec<u8>)> = Vec::new();
    match (shim, grub) {
        (Some(shim), grub) => {
            wanted.push(("BOOTX64.EFI", shim));
            wanted.extend(grub.map(|grub| ("grubx64.efi", grub)));
            wanted.extend(read(tree, vendor, "mmx64.efi")?.map(|manager| ("mmx64.efi", manager)));
        }
        (None, Some(grub)) => wanted.push(("BOOTX64.EFI", grub)),
        (None, None) => {}
    }
    fallback_loader::changes(tree, fallback, present.as_deref(), &wanted)
}

fn is_grub(program: &[u8]) -> bool {
    contains(program, b"GRUB")
}

fn is_shim(program: &[u8]) -> bool {
    contains(program, b"UEFI SHIM")
}

fn contains(program: &[u8], text: &[u8]) -> bool {
    program.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use machine::{BootVariable, Firmware};

    use super::*;
    use crate::{MemoryTree, plan::apply};

    fn machine(loader: Option<&str>) -> Machine {
        let variable = |loader: &str| BootVariable {
            number: 1,
            description: "x".into(),
            loader: Some(loader.into()),
            active: true,
            current: true,
        };
        let boot_variables = loader.map(variable).into_iter().collect();
        let firmware = Firmware { kind: FirmwareKind::Uefi, secure_boot: None, boot_variables };
        Machine { firmware, ..Machine::default() }
    }

    #[test]
    fn shim_and_what_it_loads_are_copied_where_the_firmware_looks() {
        let mut tree = MemoryTree::new()
            .with("/boot/efi/EFI/debian/shimx64.efi", "S UEFI SHIM")
            .with("/boot/efi/EFI/debian/grubx64.efi", "G GRUB")
            .with("/boot/efi/EFI/debian/mmx64.efi", "M")
            .with("/boot/efi/EFI/Microsoft/Boot/bootmgfw.efi", "W");
        let fixup = plan(&tree, &machine(None), &mut vec![]).unwrap().remove(0);
        let made = crate::Plan {
            fixups: vec![fixup],
            ..crate::Plan::without_fixups(FirmwareKind::Uefi, machine::Family::Linux)
        };
        apply(&made, &[], &mut tree);
        assert_eq!(tree.text("/boot/efi/EFI/BOOT/BOOTX64.EFI").unwrap().unwrap(), "S UEFI SHIM");
        assert_eq!(tree.text("/boot/efi/EFI/BOOT/grubx64.efi").unwrap().unwrap(), "G GRUB");
        assert!(plan(&tree, &machine(None), &mut vec![]).unwrap()[0].already_so);
        assert!(
            plan(
                &tree,
                &Machine {
                    firmware: Firmware { kind: FirmwareKind::Bios, ..Firmware::default() },
                    ..Machine::default()
                },
                &mut vec![]
            )
            .unwrap()
            .is_empty()
        );
    }

    #[test]
    fn a_foreign_fallback_loader_is_kept_under_another_name() {
        let tree = MemoryTree::new()
            .with("/boot/efi/EFI/Debian/grubx64.efi", "G GRUB")
            .with("/boot/efi/EFI/boot/bootx64.efi", "Windows");
        let fixup = plan(&tree, &machine(Some("\\EFI\\debian\\grubx64.efi")), &mut vec![]).unwrap().remove(0);
        let paths: Vec<&str> = fixup.changes.iter().map(Change::path).collect();
        assert_eq!(paths.len(), 2, "{paths:?}");
    }
}
