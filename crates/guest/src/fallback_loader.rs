//! The UEFI fallback loader: a virtual machine's firmware starts with empty boot variables, so it tries
//! `\EFI\BOOT\BOOTX64.EFI` of the EFI system partition (UEFI specification 2.10, section 3.5.1.1). What becomes that file
//! is for each family of guests to say; a foreign one that is there stays under another name.

use crate::plan::{Change, Fixup};
use crate::{FileTree, Result};

/// The fix-up's id.
const ID: &str = "uefi-fallback-loader";

/// Longest loader.
pub(crate) const LOADER_MAX: u64 = 16 << 20;

/// The fix-up of these changes.
pub(crate) fn fixup(changes: Vec<Change>) -> Fixup {
    let reason = "the virtual machine's firmware has no boot entries yet and starts this file";
    Fixup::new(ID, "fallback loader on the EFI system partition", reason, changes)
}

/// What is told of a machine with UEFI on whose EFI system partition there is no `loader` of its guest's.
pub(crate) fn missing(loader: &str) -> String {
    format!("no {loader} was found on the EFI system partition")
}

/// The fallback folder below `efi`, the ESP's folder of that name.
pub(crate) fn folder(tree: &dyn FileTree, efi: &str) -> Result<String> {
    Ok(child(tree, efi, "BOOT")?.unwrap_or_else(|| format!("{efi}/BOOT")))
}

/// Puts `wanted` into the fallback folder, names with their contents; the loader that is `present` there, under the first
/// of the names, is kept with the ending `.OLD`.
pub(crate) fn changes(
    tree: &dyn FileTree,
    folder: &str,
    present: Option<&[u8]>,
    wanted: &[(&str, Vec<u8>)],
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    if let (Some(present), Some((loader, _))) = (present, wanted.first()) {
        let kept = format!("{}.OLD", loader.rsplit_once('.').map_or(*loader, |(stem, _)| stem));
        let path = child(tree, folder, &kept)?.unwrap_or_else(|| format!("{folder}/{kept}"));
        changes.extend(Change::write(tree, &path, present, 0o700)?);
    }
    for (name, contents) in wanted {
        let path = child(tree, folder, name)?.unwrap_or_else(|| format!("{folder}/{name}"));
        changes.extend(Change::write(tree, &path, contents, 0o700)?);
    }
    Ok(changes)
}

/// The contents of the file that is `name` in `folder`, in any spelling.
pub(crate) fn read(tree: &dyn FileTree, folder: &str, name: &str) -> Result<Option<Vec<u8>>> {
    match child(tree, folder, name)? {
        Some(path) => Ok(tree.read(&path, LOADER_MAX)?),
        None => Ok(None),
    }
}

/// The name in `folder` that is `name` in any spelling: FAT ignores case.
pub(crate) fn child(tree: &dyn FileTree, folder: &str, name: &str) -> Result<Option<String>> {
    let found = tree.list(folder)?.into_iter().find(|entry| entry.name.eq_ignore_ascii_case(name));
    Ok(found.map(|entry| format!("{}/{}", folder.trim_end_matches('/'), entry.name)))
}
