//! Windows' boot manager on the volume that it starts from: what its store needs, and the fallback loader that starts it.
//!
//! The boot manager reads `\EFI\Microsoft\Boot\BCD` of the partition that it was started from, whatever its own name is:
//! Windows' set-up itself puts a copy of `bootmgfw.efi` into the fallback folder. A copy of another version is replaced,
//! because its signature may be revoked by now; it is kept beside the new one.

use machine::{FirmwareKind, Machine};

use super::bcd::Bcd;
use super::hive::{Unfinished, file};
use super::{LoaderSignature, PartitionMove, RegistryEdit, path};
use crate::fallback_loader;
use crate::plan::{Change, Fixup};
use crate::{Error, ErrorKind, FileTree, Result};

/// The store of a machine that starts by UEFI, from the root of its EFI system partition.
const UEFI_STORE: &str = "EFI/Microsoft/Boot/BCD";
/// The store of a machine that starts by BIOS, from the root of its active partition.
const BIOS_STORE: &str = "Boot/BCD";
const FOLDER: &str = "EFI/Microsoft/Boot";
const LOADER: &str = "bootmgfw.efi";

/// The stores of boot configuration data on a volume that is mounted at `mount`, real paths; UEFI's first.
///
/// # Errors
/// What the tree says.
pub fn store_paths(tree: &dyn FileTree, mount: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for store in [UEFI_STORE, BIOS_STORE] {
        found.extend(path::resolve(tree, &below(mount, store))?);
    }
    Ok(found)
}

/// Plans `boot-configuration` and `uefi-fallback-loader` for the volume mounted at `mount`, from which the boot manager of
/// `machine` starts and whose store names partitions that have other names by `moves`.
///
/// A store that cannot be read is left as it is, and told; so is one that names partitions which the machine had not.
///
/// # Errors
/// What the tree says.
pub fn plan(
    tree: &dyn FileTree,
    mount: &str,
    machine: &Machine,
    moves: &[PartitionMove],
    warnings: &mut Vec<String>,
) -> Result<Vec<Fixup>> {
    let mut edits: Vec<RegistryEdit> = Vec::new();
    let mut changes = Vec::new();
    let stores = store_paths(tree, mount)?;
    for store in &stores {
        let read = file::open(tree, store, Unfinished::Refuse).and_then(|hive| Bcd::read(&hive));
        let bcd = match read {
            Ok(bcd) => bcd,
            Err(error) if error.kind == ErrorKind::Io => return Err(error),
            Err(error) => {
                let what = error.context;
                warnings.push(format!("{}: the boot configuration is left as it is: {what}", store.escape_debug()));
                continue;
            }
        };
        if is_in_use(store, machine) {
            let fatal = bcd.fits(&machine.disks).into_iter().filter(|misfit| misfit.is_fatal);
            warnings.extend(fatal.map(|misfit| format!("Windows' boot configuration: {misfit}")));
        }
        let of_store: Vec<RegistryEdit> = bcd.plan_rebind(moves).into_iter().chain(bcd.plan_graphics_mode()).collect();
        if !of_store.is_empty() {
            let made = of_store.iter().flat_map(|edit| edit.changes.clone()).collect();
            // New data are as long as the old, and take their place.
            changes.push(Change::Registry { path: store.clone(), changes: made, grows: 0 });
        }
        edits.extend(of_store);
    }
    let mut fixups = Vec::new();
    if !stores.is_empty() {
        let reasons: Vec<&str> = edits.iter().map(|edit| edit.reason.as_str()).collect();
        let reason = match reasons.as_slice() {
            [] => "it names the partitions that Windows starts from, and draws on the screen".to_owned(),
            reasons => reasons.join("; "),
        };
        fixups.push(Fixup::new("boot-configuration", "what Windows' boot manager starts", reason, changes));
    }
    fixups.extend(plan_fallback_loader(tree, mount, machine, warnings)?);
    Ok(fixups)
}

/// Whether the firmware of `machine` comes to the boot manager that reads this store.
fn is_in_use(store: &str, machine: &Machine) -> bool {
    let is_uefi = store.to_ascii_lowercase().ends_with("/efi/microsoft/boot/bcd");
    match machine.firmware.kind {
        FirmwareKind::Uefi => is_uefi,
        FirmwareKind::Bios => !is_uefi,
        FirmwareKind::Unknown => true,
    }
}

/// Plans the fix-up `uefi-fallback-loader` for the EFI system partition that is mounted at `esp`; nothing for BIOS.
///
/// # Errors
/// What the tree says; [`ErrorKind::Unsupported`] for a boot manager of a processor that has no fallback loader.
pub fn plan_fallback_loader(
    tree: &dyn FileTree,
    esp: &str,
    machine: &Machine,
    warnings: &mut Vec<String>,
) -> Result<Vec<Fixup>> {
    if machine.firmware.kind == FirmwareKind::Bios {
        return Ok(Vec::new());
    }
    let (efi, folder) = (path::resolve(tree, &below(esp, "EFI"))?, path::resolve(tree, &below(esp, FOLDER))?);
    let loader = match &folder {
        Some(folder) => fallback_loader::read(tree, folder, LOADER)?,
        None => None,
    };
    let (Some(efi), Some(loader)) = (efi, loader) else {
        if machine.firmware.kind == FirmwareKind::Uefi {
            warnings.push(fallback_loader::missing("Windows boot manager"));
        }
        return Ok(Vec::new());
    };
    let name = fallback_name(&loader).map_err(|error| error.at(below(esp, &format!("{FOLDER}/{LOADER}"))))?;
    if let Some(other) = started_by_another(machine) {
        warnings.push(format!(
            "the machine was started by {}: the virtual machine starts Windows' boot manager",
            other.escape_debug()
        ));
    }
    let fallback = fallback_loader::folder(tree, &efi)?;
    let present = fallback_loader::read(tree, &fallback, name)?.filter(|present| *present != loader);
    let changes = fallback_loader::changes(tree, &fallback, present.as_deref(), &[(name, loader)])?;
    Ok(vec![fallback_loader::fixup(changes)])
}

/// Who signed the boot manager on the EFI system partition that is mounted at `esp`; `None` where there is none.
///
/// # Errors
/// What the tree says.
pub(super) fn signature(tree: &dyn FileTree, esp: &str) -> Result<Option<LoaderSignature>> {
    let path = path::resolve(tree, &below(esp, &format!("{FOLDER}/{LOADER}")))?;
    let program = path.map(|path| tree.read(&path, fallback_loader::LOADER_MAX)).transpose()?.flatten();
    Ok(program.map(|program| LoaderSignature::of(&program)))
}

fn below(mount: &str, path: &str) -> String {
    format!("{}/{path}", mount.trim_end_matches('/'))
}

/// The loader of the boot variable in use, if it is none of Windows or the fallback itself.
fn started_by_another(machine: &Machine) -> Option<&str> {
    let loader = machine.firmware.boot_variables.iter().find(|variable| variable.current)?.loader.as_deref()?;
    let lower = loader.replace('/', "\\").to_ascii_lowercase();
    let is_windows = lower.starts_with("\\efi\\microsoft\\") || lower.starts_with("\\efi\\boot\\");
    (lower.starts_with("\\efi\\") && !is_windows).then_some(loader)
}

/// The name of the fallback loader for the processor that `program` is for, by its PE header ("PE Format", COFF file
/// header; UEFI specification 2.10, table 3.8).
fn fallback_name(program: &[u8]) -> Result<&'static str> {
    let field = |at: usize| program.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes);
    let header = field(0x3c).and_then(|at| usize::try_from(at).ok()).filter(|_| program.starts_with(b"MZ"));
    let machine = header.filter(|at| field(*at) == Some(u32::from_le_bytes(*b"PE\0\0"))).and_then(|at| field(at + 4));
    match machine.map(|found| found & 0xffff) {
        Some(0x8664) => Ok("BOOTX64.EFI"),
        Some(0x014c) => Ok("BOOTIA32.EFI"),
        Some(0xaa64) => Ok("BOOTAA64.EFI"),
        Some(other) => Err(Error::new(ErrorKind::Unsupported, format!("a program for the processor {other:#06x}"))),
        None => Err(Error::new(ErrorKind::Malformed, "expected an EFI program, found no PE header")),
    }
}

#[cfg(test)]
mod tests {
    use machine::{BootVariable, Firmware};

    use super::*;
    use crate::plan::apply;
    use crate::{MemoryTree, Plan, State};

    /// An EFI program, to its processor.
    fn program(processor: u16, text: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x80];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x40;
        bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
        bytes[0x44..0x46].copy_from_slice(&processor.to_le_bytes());
        bytes.extend(text.bytes());
        bytes
    }

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

    fn made(fixup: &Fixup, tree: &mut MemoryTree) -> State {
        let plan =
            Plan { fixups: vec![fixup.clone()], ..Plan::without_fixups(FirmwareKind::Uefi, machine::Family::Windows) };
        apply(&plan, &[], tree)[0].state
    }

    #[test]
    fn the_boot_manager_becomes_the_fallback_loader_and_an_older_copy_stays() {
        let (new, old) = (program(0x8664, "new"), program(0x8664, "old"));
        let mut tree = MemoryTree::new()
            .with("/esp/efi/MICROSOFT/Boot/BootMgFw.efi", new.clone())
            .with("/esp/efi/MICROSOFT/Boot/bcd", "store")
            .with("/esp/efi/Boot/bootx64.efi", old.clone());
        assert_eq!(store_paths(&tree, "/esp").unwrap(), ["/esp/efi/MICROSOFT/Boot/bcd"]);
        let mut warnings = Vec::new();
        let plan = |tree: &MemoryTree, warnings: &mut Vec<String>| {
            let machine = machine(Some("\\EFI\\Microsoft\\Boot\\bootmgfw.efi"));
            plan_fallback_loader(tree, "/esp", &machine, warnings).unwrap().remove(0)
        };
        let fixup = plan(&tree, &mut warnings);
        let paths: Vec<&str> = fixup.changes.iter().map(Change::path).collect();
        assert_eq!(paths, ["/esp/efi/Boot/BOOTX64.OLD", "/esp/efi/Boot/bootx64.efi"]);
        assert_eq!(made(&fixup, &mut tree), State::Done);
        assert_eq!(tree.read("/esp/efi/Boot/bootx64.efi", 1 << 20).unwrap(), Some(new));
        assert_eq!(tree.read("/esp/efi/Boot/BOOTX64.OLD", 1 << 20).unwrap(), Some(old));
        assert!(plan(&tree, &mut warnings).already_so);
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn the_name_is_that_of_the_processor_and_other_loaders_are_told() {
        let mut warnings = Vec::new();
        for (processor, path) in [(0x014c, "/EFI/BOOT/BOOTIA32.EFI"), (0xaa64, "/EFI/BOOT/BOOTAA64.EFI")] {
            let mut tree = MemoryTree::new().with("/EFI/Microsoft/Boot/bootmgfw.efi", program(processor, ""));
            let machine = machine(Some("\\EFI\\ubuntu\\shimx64.efi"));
            let fixup = plan_fallback_loader(&tree, "/", &machine, &mut warnings).unwrap().remove(0);
            assert_eq!(made(&fixup, &mut tree), State::Done);
            assert!(tree.exists(path).unwrap(), "{path}");
        }
        assert!(warnings[0].contains("ubuntu"), "{warnings:?}");
        for (program, said) in [
            (program(0x0200, ""), "/EFI/Microsoft/Boot/bootmgfw.efi: a program for the processor 0x0200"),
            (b"MZ".to_vec(), "/EFI/Microsoft/Boot/bootmgfw.efi: expected an EFI program, found no PE header"),
        ] {
            let tree = MemoryTree::new().with("/EFI/Microsoft/Boot/bootmgfw.efi", program);
            let error = plan_fallback_loader(&tree, "/", &machine(None), &mut warnings).unwrap_err();
            assert_eq!(error.to_string(), said);
        }
    }

    #[test]
    fn a_partition_without_a_boot_manager_is_told_and_bios_needs_none() {
        let mut warnings = Vec::new();
        let tree = MemoryTree::new().with("/EFI/debian/grubx64.efi", "G");
        assert!(plan_fallback_loader(&tree, "/", &machine(None), &mut warnings).unwrap().is_empty());
        assert_eq!(warnings, ["no Windows boot manager was found on the EFI system partition"]);
        let bios =
            Machine { firmware: Firmware { kind: FirmwareKind::Bios, ..Firmware::default() }, ..Machine::default() };
        let tree =
            MemoryTree::new().with("/EFI/Microsoft/Boot/bootmgfw.efi", program(0x8664, "")).with("/Boot/BCD", "s");
        assert!(plan_fallback_loader(&tree, "/", &bios, &mut warnings).unwrap().is_empty());
        assert_eq!((store_paths(&tree, "/").unwrap(), warnings.len()), (vec!["/Boot/BCD".to_owned()], 1));
    }

    #[test]
    fn a_store_that_cannot_be_read_is_told_and_left() {
        let tree = MemoryTree::new()
            .with("/boot/EFI/Microsoft/Boot/BCD", "no hive")
            .with("/boot/EFI/Microsoft/Boot/bootmgfw.efi", program(0x8664, ""));
        let mut warnings = Vec::new();
        let fixups = plan(&tree, "/boot", &machine(None), &[], &mut warnings).unwrap();
        let states: Vec<(&str, bool)> = fixups.iter().map(|fixup| (fixup.id.as_str(), fixup.already_so)).collect();
        assert_eq!(states, [("boot-configuration", true), ("uefi-fallback-loader", false)]);
        assert_eq!(warnings.len(), 1);
        let said = "/boot/EFI/Microsoft/Boot/BCD: the boot configuration is left as it is: ";
        assert!(warnings[0].starts_with(said), "{warnings:?}");
    }
}
