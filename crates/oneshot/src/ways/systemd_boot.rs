//! systemd-boot: an entry of type 1 (Boot Loader Specification), and the variable `LoaderEntryOneShot` (Boot Loader Interface).

use crate::efi;
use crate::located::{self, Located};
use crate::partitions::Kind;
use crate::record::{Change, to_hex};
use crate::{Error, ErrorKind, Result};

use super::{ARCHIVES, ENTRY_ID, Facts, KERNEL, Layout, Look, boot_next, leftovers};

const FOLDER: &str = "vconverter";
const ENTRIES: &str = "loader/entries";
/// `EFI_LOADER_FEATURE_ENTRY_ONESHOT`.
const FEATURE_ONE_SHOT: u64 = 1 << 3;

pub(super) fn look(facts: &Facts<'_>) -> Look {
    let mut look = Look::default();
    if !facts.is_uefi {
        look.refused.push("the machine was not started by UEFI firmware".to_owned());
        return look;
    }
    let loader = facts.variables.value(&efi::loader("LoaderInfo")).map(|value| efi::text(&value));
    if !loader.as_deref().is_some_and(|loader| loader.starts_with("systemd-boot")) {
        let found = loader.map_or("it does not say its name".to_owned(), |loader| format!("it is {loader}"));
        look.refused.push(format!("the boot loader is not systemd-boot ({found})"));
        return look;
    }
    let features = facts.variables.value(&efi::loader("LoaderFeatures"));
    let features = features.and_then(|value| value.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)));
    if features.unwrap_or(0) & FEATURE_ONE_SHOT == 0 {
        look.refused.push("this systemd-boot does not say that it knows LoaderEntryOneShot".to_owned());
    }
    if facts.is_secure_boot {
        look.refused.push("Secure Boot is on: systemd-boot would refuse our kernel".to_owned());
    }
    if facts.variables.value(&efi::loader("LoaderEntryOneShot")).is_some() {
        look.refused.push("LoaderEntryOneShot is set already: the next restart is somebody else's".to_owned());
    }
    look.refused.extend(boot_next::variables_refusal(facts));
    match find_partition(facts) {
        Ok(located) => {
            if located.place(&entry_path()).exists() {
                look.refused.push(format!(
                    "{} is there already: an earlier push left it, and its record is gone",
                    entry_path()
                ));
            }
            look.refused.extend(leftovers(&located, FOLDER));
            look.located = Some(located);
        }
        Err(why) => look.refused.push(why),
    }
    look
}

fn entry_path() -> String {
    format!("{ENTRIES}/{ENTRY_ID}.conf")
}

/// The partition that systemd-boot reads entries from: the ESP, or else XBOOTLDR on its disk.
fn find_partition(facts: &Facts<'_>) -> std::result::Result<Located, String> {
    let esp = boot_next::find_esp(facts)?;
    if esp.place(ENTRIES).is_dir() {
        return Ok(esp);
    }
    let mounts = facts.mounts.iter().filter(|mount| mount.kind == "vfat");
    let others = mounts.filter_map(|mount| located::locate_mounted(facts.system, mount, &mount.point).ok());
    let is_for_it = |located: &Located| {
        let is_of_kind = located.partition.entry.as_ref().is_some_and(|entry| entry.kind == Kind::ExtendedBoot);
        is_of_kind && located.partition.disk == esp.partition.disk && located.place(ENTRIES).is_dir()
    };
    others.into_iter().find(is_for_it).ok_or_else(|| format!("no folder {ENTRIES} is on the ESP or on XBOOTLDR"))
}

pub(super) fn layout(located: Located, command_line: &str) -> Layout {
    let archives = ARCHIVES.map(|name| format!("initrd /{FOLDER}/{name}\n")).concat();
    let entry =
        format!("title vconverter boot image (once)\nlinux /{FOLDER}/{KERNEL}\n{archives}options {command_line}\n");
    Layout {
        located,
        folders: vec![FOLDER.to_owned()],
        staged: vec![KERNEL, "initramfs.img", "configuration.img"],
        made: vec![(entry_path(), entry)],
        lines: None,
        watched: vec!["loader".to_owned(), "EFI".to_owned()],
    }
}

pub(super) fn arming(facts: &Facts<'_>) -> Result<Vec<Change>> {
    let one_shot = efi::loader("LoaderEntryOneShot");
    if facts.variables.read(&one_shot)?.is_some() {
        return Err(Error::new(
            ErrorKind::Refused,
            "LoaderEntryOneShot is set already: the next restart is somebody else's",
        ));
    }
    let after = Some(to_hex(&[&efi::ATTRIBUTES[..], &efi::utf16(&identifier(facts))].concat()));
    // With `default @saved` the loader would go on with ours.
    let last_booted = efi::loader("LoaderEntryLastBooted");
    let last = facts.variables.read(&last_booted)?;
    Ok(vec![
        Change::Variable { name: last_booted, before: last.as_deref().map(to_hex), after: after.clone() },
        Change::Variable { name: one_shot, before: None, after },
    ])
}

/// Our entry as this version of the loader calls it: older ones leave out `.conf`.
fn identifier(facts: &Facts<'_>) -> String {
    let known = facts.variables.value(&efi::loader("LoaderEntries")).unwrap_or_default();
    let words = efi::numbers(&known);
    let names: Vec<String> =
        words.split(|word| *word == 0).map(String::from_utf16_lossy).filter(|n| !n.is_empty()).collect();
    let is_plain = |name: &String| !name.ends_with(".conf") && !name.starts_with("auto-") && !name.ends_with(".efi");
    let leaves_out = !names.iter().any(|name| name.ends_with(".conf")) && names.iter().any(is_plain);
    if leaves_out { ENTRY_ID.to_owned() } else { format!("{ENTRY_ID}.conf") }
}
