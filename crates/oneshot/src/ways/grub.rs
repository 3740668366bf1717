//! GRUB 2: an entry in `custom.cfg`, and `next_entry` in the environment block (GRUB manual 2.06, sections "Simple configuration handling"
//! and "The GRUB environment block").
//!
//! GRUB clears `next_entry` before it starts what that names. It can do so only on a filesystem whose blocks it can write in place; anywhere
//! else the entry would be started again and again, so that everything which is not proven is refused.

use crate::environment_block::{self, BLOCK_BYTES, NEXT_ENTRY};
use crate::located::{self, Located};
use crate::record::{BEFORE_BYTES_MAX, Change, to_hex};
use crate::system::read_bounded;
use crate::{Error, ErrorKind, Result, efi, extents, partitions};

use super::{ARCHIVES, ENTRY_ID, Facts, KERNEL, Layout, Look, leftovers};

/// Where distributions have it.
const FOLDERS: [&str; 2] = ["/boot/grub", "/boot/grub2"];
const BEGIN: &str = "### BEGIN vconverter boot image ###";
const END: &str = "### END vconverter boot image ###";
/// Largest `grub.cfg`, in bytes.
const CONFIGURATION_BYTES_MAX: u64 = 4 << 20;
/// A BIOS counts sectors in 32 bits.
const BIOS_BYTES_MAX: u64 = 512 << 32;

pub(super) fn look(facts: &Facts<'_>) -> Look {
    let mut look = Look::default();
    if facts.is_secure_boot {
        look.refused.push("Secure Boot is on: the machine's own GRUB would refuse our kernel".to_owned());
    }
    let located = match find(facts) {
        Ok(located) => located,
        Err(why) => {
            look.refused.push(why);
            return look;
        }
    };
    if facts.is_uefi {
        look.refused.extend(uefi_refusal(facts));
    } else {
        look.refused.extend(bios_refusal(facts, &located));
    }
    match load_configuration(&located) {
        Ok(configuration) => look.refused.extend(configuration.refusals()),
        Err(e) => look.refused.push(e.chain()),
    }
    look.refused.extend(environment_refusals(&located));
    look.refused.extend(custom_refusal(&located));
    look.refused.extend(leftovers(&located, &files_folder(&located)));
    if located.mount.has("data=journal") {
        look.refused
            .push(format!("{} keeps data in its journal, which GRUB does not read", located.mount.point.display()));
    }
    look.located = Some(located);
    look
}

fn find(facts: &Facts<'_>) -> std::result::Result<Located, String> {
    let folder = FOLDERS.into_iter().find(|folder| facts.system.path(folder).join("grub.cfg").is_file());
    let folder = folder.ok_or_else(|| format!("there is no grub.cfg in {}", FOLDERS.join(" or ")))?;
    located::locate(facts.system, &facts.mounts, folder)
}

/// The folder of our files, beside GRUB's: on its filesystem.
fn files_folder(located: &Located) -> String {
    match located.inside.rsplit_once('/') {
        Some((parent, _)) => format!("{parent}/vconverter"),
        None => "vconverter".to_owned(),
    }
}

/// A sentence if the firmware's loader is not known to be GRUB.
fn uefi_refusal(facts: &Facts<'_>) -> Option<String> {
    let number =
        facts.variables.value(&efi::global("BootCurrent")).and_then(|value| efi::numbers(&value).first().copied());
    let option = number.and_then(|number| facts.variables.value(&efi::boot_entry(number)));
    let Some(file) = option.and_then(|option| efi::parse_load_option(&option)).and_then(|(_, file)| file) else {
        return Some("the firmware does not say what it started: it may not be GRUB".to_owned());
    };
    let name = file.rsplit('\\').next().unwrap_or_default().to_ascii_lowercase();
    let is_grub = name.starts_with("grub") || name.starts_with("shim");
    (!is_grub).then(|| format!("the firmware started {file}, which is not known to be GRUB"))
}

fn bios_refusal(facts: &Facts<'_>, located: &Located) -> Option<String> {
    let partition = &located.partition;
    if partition.start_bytes.saturating_add(partition.bytes) > BIOS_BYTES_MAX {
        return Some(format!("{} ends beyond 2 TiB, which a BIOS may not reach", partition.name));
    }
    let disks = facts.system.list("/sys/block");
    // Floppy and CD drives take their time, and hold no GRUB that is started by itself.
    let is_removable = |name: &String| name.starts_with("fd") || name.starts_with("sr");
    let disks = disks.iter().filter(|name| partitions::stacked(name).is_none() && !is_removable(name));
    let is_grubs =
        |name: &String| located::boot_sector_is_grubs(&partitions::node(facts.system, &name.replace('!', "/")));
    let has_grub = disks.into_iter().any(is_grubs);
    (!has_grub).then(|| "no disk's boot sector is GRUB's".to_owned())
}

/// What `grub.cfg` does, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Configuration {
    loads_environment: bool,
    takes_next_entry: bool,
    clears_next_entry: bool,
    reads_custom: bool,
    checks_signatures: bool,
    /// Whether it waits at its menu for somebody, always.
    waits_for_ever: bool,
}

fn load_configuration(located: &Located) -> Result<Configuration> {
    let path = located.place(&located.inside).join("grub.cfg");
    let bytes = read_bounded(&path, CONFIGURATION_BYTES_MAX).map_err(|e| Error::path("read", &path, e))?;
    Ok(parse_configuration(&String::from_utf8_lossy(&bytes)))
}

fn parse_configuration(text: &str) -> Configuration {
    let mut found = Configuration::default();
    let (mut timeouts, mut endless) = (0_u32, 0_u32);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split([' ', '\t', ';']).filter(|word| !word.is_empty()).take(16).collect();
        let [first, rest @ ..] = words.as_slice() else { continue };
        match *first {
            "load_env" => found.loads_environment = true,
            "save_env" => found.clears_next_entry |= rest.contains(&"next_entry"),
            "source" | "." => found.reads_custom |= rest.first().is_some_and(|file| is_custom(file)),
            "set" => match rest.first().and_then(|word| word.split_once('=')) {
                Some(("default", value)) => found.takes_next_entry |= value.contains("next_entry"),
                Some(("check_signatures", value)) => found.checks_signatures |= value.contains("enforce"),
                Some(("timeout", value)) => {
                    timeouts += 1;
                    endless += u32::from(value.trim_matches(['"', '\'']) == "-1");
                }
                _ => {}
            },
            _ => {}
        }
        // `then load_env` and the like on one line.
        found.loads_environment |= words.windows(2).any(|pair| pair == ["then", "load_env"]);
    }
    found.waits_for_ever = timeouts > 0 && timeouts == endless;
    found
}

/// `${config_directory}/custom.cfg`, `$prefix/custom.cfg`.
fn is_custom(file: &str) -> bool {
    let file = file.trim_matches('"');
    ["${config_directory}", "$config_directory", "${prefix}", "$prefix"]
        .iter()
        .any(|folder| file == format!("{folder}/custom.cfg"))
}

impl Configuration {
    fn refusals(self) -> Vec<String> {
        let needed = [
            (self.loads_environment, "grub.cfg does not load the environment block"),
            (self.takes_next_entry, "grub.cfg does not look at next_entry"),
            (self.clears_next_entry, "grub.cfg does not clear next_entry: the entry would be started again and again"),
            (self.reads_custom, "grub.cfg does not read custom.cfg"),
            (!self.checks_signatures, "GRUB checks signatures of what it reads"),
            (!self.waits_for_ever, "grub.cfg waits at its menu until somebody comes (timeout=-1)"),
        ];
        needed.into_iter().filter(|(is_so, _)| !is_so).map(|(_, why)| why.to_owned()).collect()
    }
}

fn environment_path(located: &Located) -> String {
    format!("{}/grubenv", located.inside)
}

fn load_environment(located: &Located) -> Result<Vec<u8>> {
    let path = located.place(&environment_path(located));
    read_bounded(&path, BLOCK_BYTES as u64).map_err(|e| Error::path("read", &path, e))
}

/// Sentences if GRUB may not be able to write the environment block.
fn environment_refusals(located: &Located) -> Vec<String> {
    let path = located.place(&environment_path(located));
    let shown = environment_path(located);
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return vec![format!("{shown} is no plain file, which GRUB could not write")],
        Err(e) => return vec![format!("{shown}: {e}")],
    }
    let mut refused = Vec::new();
    match load_environment(located).and_then(|block| environment_block::parse(&block)) {
        Ok(block) if block.get(NEXT_ENTRY).is_some_and(|next| !next.is_empty()) => {
            refused.push("next_entry is set already: the next restart is somebody else's".to_owned());
        }
        Ok(mut block) => {
            block.set(NEXT_ENTRY, ENTRY_ID.as_bytes());
            refused.extend(block.to_bytes().err().map(|_| format!("{shown} is full")));
        }
        Err(e) => refused.push(format!("{shown}: {}", e.chain())),
    }
    refused.extend(extents::in_place_refusal(&path, &located.mount.kind).map(|why| format!("{shown} {why}")));
    refused
}

fn custom_path(located: &Located) -> String {
    format!("{}/custom.cfg", located.inside)
}

fn load_custom(located: &Located) -> Result<Vec<u8>> {
    let path = located.place(&custom_path(located));
    match read_bounded(&path, BEFORE_BYTES_MAX as u64) {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::path("read", &path, e)),
    }
}

fn custom_refusal(located: &Located) -> Option<String> {
    let shown = custom_path(located);
    let metadata = std::fs::symlink_metadata(located.place(&shown));
    if metadata.is_ok_and(|metadata| !metadata.is_file()) {
        return Some(format!("{shown} is no plain file"));
    }
    match load_custom(located) {
        Ok(bytes) if String::from_utf8_lossy(&bytes).contains(ENTRY_ID) => {
            Some(format!("{shown} has our entry already: an earlier push left it, and its record is gone"))
        }
        Ok(_) => None,
        Err(e) => Some(e.chain()),
    }
}

pub(super) fn layout(facts: &Facts<'_>, located: Located, command_line: &str) -> Layout {
    let folder = files_folder(&located);
    let custom = custom_path(&located);
    let ends_line = load_custom(&located).is_ok_and(|bytes| bytes.last().is_none_or(|byte| *byte == b'\n'));
    let lead = if ends_line { "" } else { "\n" };
    let entry = menu_entry(&located, &folder, command_line, facts.is_uefi);
    Layout {
        folders: vec![folder],
        staged: vec![KERNEL, "initramfs.img", "configuration.img"],
        made: Vec::new(),
        lines: Some((custom, format!("{lead}{entry}"))),
        watched: vec![format!("{}/grub.cfg", located.inside)],
        located,
    }
}

fn menu_entry(located: &Located, folder: &str, command_line: &str, is_uefi: bool) -> String {
    let module = match located.filesystem.kind.as_str() {
        "vfat" => "fat",
        "xfs" => "xfs",
        _ => "ext2",
    };
    let table = match &located.partition.entry {
        Some(entry) if !entry.drive.is_gpt => "part_msdos",
        _ => "part_gpt",
    };
    let graphics = if is_uefi { "  insmod all_video\n  set gfxpayload=keep\n" } else { "" };
    let archives = ARCHIVES.map(|name| format!("/{folder}/{name}")).join(" ");
    format!(
        "{BEGIN}\n\
         menuentry 'vconverter boot image (once)' --unrestricted --id {ENTRY_ID} {{\n\
         {graphics}\
         \x20 insmod {table}\n\
         \x20 insmod {module}\n\
         \x20 search --no-floppy --fs-uuid --set=root {uuid}\n\
         \x20 if linux /{folder}/{KERNEL} {command_line}; then\n\
         \x20   if initrd {archives}; then\n\
         \x20     boot\n\
         \x20   fi\n\
         \x20 fi\n\
         \x20 echo 'vconverter: the boot image cannot be started; the machine goes back to its own system'\n\
         \x20 sleep 10\n\
         \x20 reboot\n\
         }}\n\
         {END}\n",
        uuid = located.filesystem.uuid,
    )
}

pub(super) fn arming(located: &Located) -> Result<Vec<Change>> {
    let before = load_environment(located)?;
    let block = environment_block::parse(&before)?;
    if block.get(NEXT_ENTRY).is_some_and(|next| !next.is_empty()) {
        return Err(Error::new(ErrorKind::Refused, "next_entry is set already: the next restart is somebody else's"));
    }
    Ok(vec![Change::Environment {
        filesystem: located.filesystem.clone(),
        path: environment_path(located),
        before: to_hex(&before),
        entry: ENTRY_ID.to_owned(),
    }])
}

/// The block with our entry in it.
pub(crate) fn armed_block(before: &[u8], entry: &str) -> Result<Vec<u8>> {
    let mut block = environment_block::parse(before)?;
    block.set(NEXT_ENTRY, entry.as_bytes());
    block.to_bytes()
}

/// For the fuzzer.
pub fn fuzz_grub_configuration(bytes: &[u8]) {
    let _ = parse_configuration(&String::from_utf8_lossy(bytes)).refusals();
}
