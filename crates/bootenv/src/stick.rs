//! A USB stick that carries settings from one machine to the next: what was set in the Network Configurator is saved on it,
//! and read when the boot image finds it.
//!
//! It is any medium that can be taken out and has a FAT filesystem of the label `VCSETTINGS`. The builder leaves a small
//! one behind the ISO, so that a stick the ISO was written to is one. Nothing else is ever written to, and that only when
//! somebody at the machine asks for it. Such a stick, and the medium that we came from, are no disks of the machine: they
//! stay with the kernel, read-only, and nobody is told of them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::BlockSource;
use machine::ByteCount;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use volume::files::Files;

use crate::configuration::{Configuration, parse_configuration};
use crate::console::log;
use crate::disks::{Held, device_path, is_removable, list_disks, model, partitions};
use crate::{Error, Result, medium, modules};

/// The label that says that a filesystem is meant for us.
const LABEL: &str = "VCSETTINGS";
const FILE: &str = "vconverter.toml";
/// The file while it is being written.
const NEW_FILE: &str = "vconvert.new";
/// Longest file of settings.
const FILE_BYTES_MAX: ByteCount = ByteCount(64 << 10);
const MOUNT: &str = "/run/vconverter/stick";
/// Partitions of a stick that are looked at.
const PARTITIONS_MAX: usize = 16;

/// Settings that were found on a stick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Where: `vconverter.toml on sdb3 (SanDisk Cruzer)`.
    pub place: String,
    /// The settings.
    pub configuration: Configuration,
}

/// A medium of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stick {
    /// Name of its disk.
    disk: String,
    /// Maker and model.
    model: String,
    /// Whether the image came from it.
    is_own: bool,
    /// Name of the device with the filesystem for settings.
    settings: Option<String>,
}

/// What is known of the disks that are there.
#[derive(Default)]
struct Seen {
    /// By name; `None` is a disk of the machine.
    disks: BTreeMap<String, Option<Stick>>,
    /// Settings that nobody asked for yet.
    found: Vec<Saved>,
}

static SEEN: Mutex<Option<Seen>> = Mutex::new(None);

/// Looks whether a disk that is new, or has changed, is a medium of ours, and reads what was saved on it.
pub fn look_at(disk: &str) {
    let stick = find_stick(disk);
    let before = with(|seen| seen.disks.insert(disk.to_owned(), stick.clone())).flatten();
    let Some(stick) = stick.filter(|stick| before.as_ref() != Some(stick)) else { return };
    let what = if stick.is_own { "the boot medium; it is no longer needed" } else { "a stick for settings" };
    log(format!("disk {disk}: {what} and can be removed; it is no disk of the machine"));
    let Some(place) = stick.place() else { return };
    match stick.settings.as_deref().map_or(Ok(None), |name| load(&device_path(name))) {
        Ok(Some(configuration)) => with(|seen| seen.found.push(Saved { place, configuration })),
        Ok(None) => log(format!("settings: none were saved yet as {place}")),
        Err(error) => log(format!("settings: {place}: {}", error.chain())),
    }
}

/// Forgets a disk that is gone.
pub fn forget(disk: &str) {
    with(|seen| seen.disks.remove(disk));
}

/// Whether it is known that a disk is one of the machine's.
pub fn is_of_machine(disk: &str) -> bool {
    with(|seen| seen.disks.get(disk) == Some(&None))
}

/// Whether it is known that a disk is a medium of ours.
pub fn is_ours(disk: &str) -> bool {
    with(|seen| matches!(seen.disks.get(disk), Some(Some(_))))
}

/// The next settings that were found on a stick and not asked for yet.
pub fn take_saved() -> Option<Saved> {
    with(|seen| if seen.found.is_empty() { None } else { Some(seen.found.remove(0)) })
}

/// Saves settings on the stick that is there: another one before the one that the image came from. Returns where.
///
/// # Errors
/// What is wrong, and what to do, for the screen.
pub fn save(configuration: &Configuration) -> Result<String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut sticks: Vec<Stick> = with(|seen| seen.disks.values().flatten().cloned().collect());
    sticks.sort_by_key(|stick| stick.is_own);
    let text = to_text(configuration)?;
    let mut failure = Error::new(format!(
        "no USB stick for settings is there: plug in one with a FAT filesystem of the label {LABEL}, or one that the ISO \
         was written to"
    ));
    for stick in sticks {
        let Some(place) = stick.place() else { continue };
        match stick.save(&text) {
            Ok(()) => return Ok(place),
            Err(error) => failure = Error { context: format!("{place}: {}", error.context), ..error },
        }
    }
    Err(failure)
}

impl Stick {
    fn place(&self) -> Option<String> {
        self.settings.as_ref().map(|name| format!("{FILE} on {name} ({})", self.model))
    }

    fn save(&self, text: &str) -> Result<()> {
        let another = || Error::new("it is another stick by now, or gone: plug it in again");
        let name = self.settings.as_deref().ok_or_else(another)?;
        // From here on the names mean these devices, even when they are pulled out.
        let held = Held::open(&[&self.disk, name])?;
        if find_stick(&self.disk).as_ref() != Some(self) {
            return Err(another());
        }
        let writable = held.make_writable()?;
        let written = mount_and_write(&device_path(name), text);
        drop(writable);
        written?;
        let found = load(&device_path(name))?;
        if found == Some(parse_saved(text)?) { Ok(()) } else { Err(Error::new("it did not keep what was written")) }
    }
}

fn to_text(configuration: &Configuration) -> Result<String> {
    let body = toml::to_string(configuration).map_err(|e| Error::new(format!("settings cannot be written: {e}")))?;
    Ok(format!("# Saved by the Network Configurator of the vconverter boot image.\n{body}"))
}

/// The medium that we came from wherever it is; a filesystem for settings only where it can be taken out.
fn find_stick(disk: &str) -> Option<Stick> {
    let is_own = medium::is_own(disk);
    let settings = if is_removable(disk) { find_settings(disk) } else { None };
    (is_own || settings.is_some()).then(|| Stick { disk: disk.to_owned(), model: model(disk), is_own, settings })
}

/// The device with the filesystem: a partition, or a disk without any.
fn find_settings(disk: &str) -> Option<String> {
    let mut names = partitions(disk);
    names.truncate(PARTITIONS_MAX);
    names.push(disk.to_owned());
    names.into_iter().find(|name| is_for_settings(&device_path(name)))
}

fn is_for_settings(device: &Path) -> bool {
    open(device).is_ok_and(|source| {
        let found = volume::probe(&*source);
        found.kind == "vfat" && found.label.as_deref().map(str::trim_end) == Some(LABEL)
    })
}

fn open(device: &Path) -> Result<Arc<dyn BlockSource>> {
    block::open_source(device).map(|opened| opened.source).map_err(|e| Error::new(e.to_string()))
}

/// What was saved on a FAT filesystem, read without mounting it.
fn load(device: &Path) -> Result<Option<Configuration>> {
    let failed = |e: volume::Error| Error::new(e.to_string());
    let files = Files::open(open(device)?).map_err(failed)?;
    match files.read(FILE, FILE_BYTES_MAX) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| Error::new("expected text in UTF-8"))?;
            parse_saved(&text).map(Some)
        }
        Err(error) if error.kind == volume::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// A stick may set the network and say where the controller is, and nothing that is a matter of trust.
fn parse_saved(text: &str) -> Result<Configuration> {
    let saved = parse_configuration(text)?;
    Ok(Configuration { controller: saved.controller, network: saved.network, ..Configuration::default() })
}

fn mount_and_write(device: &Path, text: &str) -> Result<()> {
    let target = PathBuf::from(MOUNT);
    fs::create_dir_all(&target).map_err(|e| Error::path("create", &target, e))?;
    modules::load(&["vfat"])?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(device, &target, "vfat", flags, c"").map_err(|e| advise("mount it", e.into()))?;
    let written = write_file(&target, text);
    let unmounted = unmount(&target, UnmountFlags::empty()).map_err(|e| advise("unmount it", e.into()));
    written.and(unmounted)
}

/// In place of what was there, which stays until the new file is whole.
fn write_file(folder: &Path, text: &str) -> Result<()> {
    let (path, new) = (folder.join(FILE), folder.join(NEW_FILE));
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        drop(file);
        fs::rename(&new, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| {
        // On a full stick it would take the room that somebody makes.
        let _ = fs::remove_file(&new);
        advise("write it", error)
    })
}

/// What to do about a stick that cannot be written.
fn advise(what: &str, error: std::io::Error) -> Error {
    let gone = [Errno::IO, Errno::NXIO, Errno::NODEV, Errno::NOMEDIUM].map(Errno::raw_os_error);
    let advice = match error.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            "it is write-protected, or its filesystem is damaged"
        }
        ErrorKind::StorageFull => "it is full: delete something from it",
        ErrorKind::InvalidInput => "its FAT filesystem is damaged: format it again",
        _ if error.raw_os_error().is_some_and(|number| gone.contains(&number)) => {
            "it does not answer any more: plug it in again"
        }
        _ => what,
    };
    Error::io(advice, error)
}

fn with<T>(act: impl FnOnce(&mut Seen) -> T) -> T {
    let mut guard: MutexGuard<'_, Option<Seen>> = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    act(guard.get_or_insert_with(Seen::default))
}

/// Looks at all disks that are there anew, and forgets those that are not.
pub fn look_at_all() {
    let names: Vec<String> = list_disks().into_iter().map(|disk| disk.name).collect();
    with(|seen| seen.disks.retain(|name, _| names.contains(name)));
    names.iter().for_each(|name| look_at(name));
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A stick's filesystem in a file.
    fn fat(folder: &Path, label: &str) -> PathBuf {
        let image = folder.join(format!("{label}.img"));
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let mut command = Command::new("mformat");
        command.args(["-v", label, "-h", "16", "-s", "63", "-T", "2048", "-i"]).arg(&image).arg("::");
        assert!(command.status().unwrap().success());
        image
    }

    fn put(image: &Path, folder: &Path, text: &str) {
        let file = folder.join("text");
        fs::write(&file, text).unwrap();
        let mut command = Command::new("mcopy");
        command.arg("-o").arg("-i").arg(image).arg(&file).arg(format!("::/{FILE}"));
        assert!(command.status().unwrap().success());
    }

    #[test]
    fn what_is_saved_on_a_fat_filesystem_is_what_is_read_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let image = fat(folder.path(), LABEL);
        assert!(is_for_settings(&image) && !is_for_settings(&fat(folder.path(), "HOLIDAY")));
        assert_eq!(load(&image).unwrap(), None, "nothing was saved yet");
        let network = "dns = [\"192.0.2.53\"]\nmode = \"static\"\naddress = \"192.0.2.7/24\"\nvlan = 12\n[[nic]]\n\
            mac = \"52:54:00:12:34:56\"\nmtu = 9000\n";
        let configuration = Configuration {
            controller: Some("192.0.2.10:7770".into()),
            network: toml::from_str(network).unwrap(),
            ..Configuration::default()
        };
        put(&image, folder.path(), &to_text(&configuration).unwrap());
        assert_eq!(load(&image).unwrap(), Some(configuration));
    }

    #[test]
    fn a_stick_sets_nothing_that_is_a_matter_of_trust_and_nothing_of_no_use() {
        let folder = tempfile::tempdir().unwrap();
        let image = fat(folder.path(), LABEL);
        let fingerprint = "ab".repeat(32);
        let text = format!(
            "controller = \"c:1\"\nca_fingerprint = \"{fingerprint}\"\nrescue_key = \"ssh-ed25519 A\"\nkeymap = \"de\"\n"
        );
        put(&image, folder.path(), &text);
        let read = load(&image).unwrap().unwrap();
        assert_eq!(read, Configuration { controller: Some("c:1".into()), ..Configuration::default() });
        for wrong in ["[network]\nvlan = 9999\n", "controller = \"nowhere\"\n", "=", &"x".repeat(100_000)] {
            put(&image, folder.path(), wrong);
            let error = load(&image).unwrap_err().chain();
            println!("{wrong:.40}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn a_file_is_replaced_when_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["one", "two"] {
            write_file(folder.path(), text).unwrap();
            assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_file(&folder.path().join("absent"), "x").is_err());
        // Nothing of the new one stays where it cannot take the old one's place.
        fs::remove_file(folder.path().join(FILE)).unwrap();
        fs::create_dir(folder.path().join(FILE)).unwrap();
        write_file(folder.path(), "three").unwrap_err();
        assert!(!folder.path().join(NEW_FILE).exists());
    }

    #[test]
    fn what_the_kernel_says_of_a_stick_becomes_what_to_do() {
        let said = |errno: Errno| advise("write it", errno.into()).context;
        assert!(said(Errno::ROFS).contains("write-protected") && said(Errno::ACCESS).contains("write-protected"));
        assert!(said(Errno::NOSPC).contains("it is full"));
        assert!(said(Errno::IO).contains("plug it in again") && said(Errno::NODEV).contains("plug it in again"));
        assert!(said(Errno::INVAL).contains("format it again"));
        assert_eq!(said(Errno::NOMEM), "write it");
    }

    #[test]
    fn a_disk_is_the_machines_once_it_was_looked_at_and_until_it_is_gone() {
        let name = "no-such-disk";
        assert!(!is_of_machine(name) && !is_ours(name));
        look_at(name);
        assert!(is_of_machine(name) && !is_ours(name));
        forget(name);
        assert!(!is_of_machine(name));
    }

    #[test]
    fn what_cannot_be_taken_out_or_is_another_stick_by_now_is_not_written_to() {
        assert!(!is_removable("loop0") && !is_removable("nonexistent"));
        let error = save(&Configuration::default()).unwrap_err();
        assert!(error.context.contains("label VCSETTINGS"), "{}", error.context);
        let null = Stick { disk: "null".into(), model: String::new(), is_own: false, settings: Some("null".into()) };
        assert!(null.save("").unwrap_err().context.contains("another stick"));
    }
}
