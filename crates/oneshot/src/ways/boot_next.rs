//! UEFI: our own signed chain on the EFI system partition, a boot entry for it, and `BootNext` (UEFI specification 2.10, section 3.1.2).
//!
//! shim starts `grubx64.efi` beside it, which is Debian's loader for media (`gcdx64.efi`). Where `/boot/grub` is not on its own partition, it
//! searches all disks for an installation medium and goes on with what it finds there; where that folder has no `grub.cfg`, it reads the one
//! beside itself, which is ours. So the folder is made, empty, and one that has a configuration is refused.

use std::path::Path;

use crate::efi::{self, HardDrive};
use crate::located::{self, Located};
use crate::partitions::Kind;
use crate::record::{Change, to_hex};
use crate::undo::ENTRY_DESCRIPTION;
use crate::{Error, ErrorKind, Result};

use super::{ARCHIVES, Facts, KERNEL, Layout, Look, leftovers};

const FOLDER: &str = "EFI/vconverter";
/// What our loader would read in place of our configuration.
const THEIRS: [&str; 2] = ["boot/grub/grub.cfg", "boot/grub/x86_64-efi/grub.cfg"];
const LOADER: &str = "\\EFI\\vconverter\\shimx64.efi";
/// Where the ESP is mounted by habit.
const POINTS: [&str; 3] = ["/boot/efi", "/efi", "/boot"];
/// Who signed the shim, as the certificates in the firmware name it.
const SIGNERS: [&str; 2] = ["Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023"];
/// The firmware's certificates (UEFI specification 2.10, section 32.4.1).
const SIGNATURES: &str = "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f";

pub(super) fn look(facts: &Facts<'_>) -> Look {
    let mut look = Look::default();
    if !facts.is_uefi {
        look.refused.push("the machine was not started by UEFI firmware".to_owned());
        return look;
    }
    let size = facts.system.text("/sys/firmware/efi/fw_platform_size").map(|text| text.trim().to_owned());
    if size.as_deref() != Some("64") && !(size.is_none() && is_before_mixed_mode(facts)) {
        let found = size.unwrap_or_else(|| "an unknown number".to_owned());
        look.refused.push(format!("the UEFI firmware has {found} bits, our loaders are for 64"));
    }
    look.refused.extend(variables_refusal(facts));
    if facts.is_secure_boot && !trusts_our_signer(facts) {
        look.refused.push(
            "Secure Boot is on, and the firmware does not trust Microsoft's UEFI CA, which signed our loader"
                .to_owned(),
        );
    }
    match find_esp(facts) {
        Ok(located) => {
            if THEIRS.iter().any(|path| located.place(path).exists()) {
                look.refused
                    .push("the ESP has a /boot/grub/grub.cfg, which our loader would read in place of ours".to_owned());
            }
            look.refused.extend(leftovers(&located, FOLDER));
            look.located = Some(located);
        }
        Err(why) => look.refused.push(why),
    }
    look
}

/// Kernels before 3.15 did not say how many bits the firmware has, and one of 64 bits did not start on another.
fn is_before_mixed_mode(facts: &Facts<'_>) -> bool {
    let release = facts.system.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(3), Some(minor)) if minor < 15)
}

/// A sentence if the firmware's variables cannot be set.
pub(super) fn variables_refusal(facts: &Facts<'_>) -> Option<String> {
    let mount = facts.mounts.iter().rfind(|mount| mount.point == Path::new(efi::VARIABLES) && mount.kind == "efivarfs");
    match mount {
        None => Some(format!("efivarfs is not mounted at {}", efi::VARIABLES)),
        Some(mount) if mount.has("ro") => Some("efivarfs is mounted read-only".to_owned()),
        Some(_) => None,
    }
}

fn trusts_our_signer(facts: &Facts<'_>) -> bool {
    let Some(certificates) = facts.variables.value(SIGNATURES) else { return false };
    SIGNERS.iter().any(|signer| certificates.windows(signer.len()).any(|window| window == signer.as_bytes()))
}

/// The EFI system partition; of several, the one that this system was started from.
///
/// # Errors
/// A sentence that says why there is none for us.
pub(super) fn find_esp(facts: &Facts<'_>) -> std::result::Result<Located, String> {
    let current = current_drive(facts);
    let mut refusals = Vec::new();
    let mut found = Vec::new();
    for point in POINTS {
        // One that is mounted when it is looked at.
        let _ = std::fs::read_dir(facts.system.path(point)).map(|mut entries| entries.next());
    }
    let mounts = crate::mounts::load(facts.system);
    for mount in mounts.iter().filter(|mount| mount.kind == "vfat") {
        match located::locate_mounted(facts.system, mount, &mount.point) {
            Ok(located) if located.partition.entry.as_ref().is_some_and(|e| e.kind == Kind::Esp) => found.push(located),
            Ok(_) => {}
            Err(why) => refusals.push(why),
        }
    }
    let signature = |located: &Located| located.partition.entry.as_ref().map(|entry| entry.drive.signature);
    let point = |located: &Located| POINTS.iter().position(|point| located.mount.point == Path::new(point));
    found.sort_by_key(|located| {
        (current.is_none() || signature(located) != current, point(located).unwrap_or(POINTS.len()))
    });
    found.into_iter().next().ok_or_else(|| match refusals.is_empty() {
        true => "no EFI system partition is mounted".to_owned(),
        false => format!("no EFI system partition is mounted that can be used: {}", refusals.join("; ")),
    })
}

/// The partition that the firmware started this system from.
fn current_drive(facts: &Facts<'_>) -> Option<[u8; 16]> {
    let number = efi::numbers(&facts.variables.value(&efi::global("BootCurrent"))?).first().copied()?;
    efi::drive_signature(&facts.variables.value(&efi::boot_entry(number))?)
}

pub(super) fn layout(located: Located, command_line: &str) -> Layout {
    let archives = ARCHIVES.map(|name| format!("$cmdpath/{name}")).join(" ");
    let configuration = format!(
        "set timeout=0\n\
         set gfxpayload=keep\n\
         echo 'vconverter: starting the boot image'\n\
         if linux $cmdpath/{KERNEL} {command_line}; then\n\
         \x20 if initrd {archives}; then\n\
         \x20   boot\n\
         \x20 fi\n\
         fi\n\
         echo 'vconverter: the boot image cannot be started; the machine goes back to its own system'\n\
         sleep 10\n\
         reboot\n"
    );
    Layout {
        located,
        folders: ["boot", "boot/grub", "EFI", FOLDER].map(str::to_owned).into(),
        staged: vec!["shimx64.efi", "grubx64.efi", "mmx64.efi", KERNEL, "initramfs.img", "configuration.img"],
        made: vec![(format!("{FOLDER}/grub.cfg"), configuration)],
        lines: None,
        watched: vec!["EFI".to_owned()],
    }
}

pub(super) fn arming(facts: &Facts<'_>, located: &Located) -> Result<Vec<Change>> {
    let drive: &HardDrive = match &located.partition.entry {
        Some(entry) => &entry.drive,
        None => return Err(Error::new(ErrorKind::Refused, "the partition table of the ESP's disk cannot be read")),
    };
    let order = facts.variables.read(&efi::global("BootOrder"))?;
    // An order may name entries that are not there (yet): their numbers are not free either.
    let named = efi::numbers(order.as_deref().and_then(|order| order.get(4..)).unwrap_or_default());
    let taken: Vec<u16> =
        facts.variables.names().iter().filter_map(|name| efi::entry_number(name)).chain(named).collect();
    let number = (0..=u16::MAX).find(|number| !taken.contains(number));
    let number = number.ok_or_else(|| Error::new(ErrorKind::Refused, "the firmware has no boot entry left"))?;
    let with_attributes = |value: &[u8]| Some(to_hex(&[&efi::ATTRIBUTES[..], value].concat()));
    let option = efi::load_option(ENTRY_DESCRIPTION, drive, LOADER);
    let change = |name, before: Option<&[u8]>, after| Change::Variable { name, before: before.map(to_hex), after };
    Ok(vec![
        change(efi::global("BootOrder"), order.as_deref(), with_attributes(&number.to_le_bytes())),
        change(efi::boot_entry(number), None, with_attributes(&option)),
        change(efi::global("BootNext"), None, with_attributes(&number.to_le_bytes())),
    ])
}
