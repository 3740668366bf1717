//! Device Installer: loads the kernel modules that the hardware asks for, and those asked for by name.
//!
//! What depmod found is read once; modules are given to the kernel by `finit_module`. No modprobe is needed, and where the
//! kernel calls one ([`run_modprobe`]), it is this program.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use kernel_modules::{Index, IndexText, module_name, parse_index};
use rustix::io::Errno;

use crate::{Error, Result};

/// Folders below `/sys` that are looked through for devices.
const DEVICES: &str = "/sys/devices";
/// Deeper than any device lies (a USB disk behind hubs is at about 20).
const DEVICE_DEPTH_MAX: usize = 48;
/// Rounds in which a loaded driver may bring devices that ask for further drivers.
const ROUNDS_MAX: usize = 16;

/// The modules of the running kernel and what was done with them.
#[derive(Debug)]
pub struct Modules {
    folder: PathBuf,
    index: Index,
    tried: Mutex<HashSet<String>>,
}

/// The modules of the running kernel, read at the first call; empty where there are none (a kernel without modules).
pub fn running() -> &'static Modules {
    static RUNNING: OnceLock<Modules> = OnceLock::new();
    RUNNING.get_or_init(|| {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        load_modules(&Path::new("/lib/modules").join(release))
    })
}

/// Reads the index in `folder`; files that are missing count as empty.
pub fn load_modules(folder: &Path) -> Modules {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (dep, alias) = (read("modules.dep"), read("modules.alias"));
    let (softdep, builtin) = (read("modules.softdep"), read("modules.builtin"));
    let index = parse_index(IndexText { dep: &dep, alias: &alias, softdep: &softdep, builtin: &builtin });
    Modules { folder: folder.to_owned(), index, tried: Mutex::default() }
}

/// Loads drivers for all devices present, again and again until no further one appears. Returns the names of the
/// modules that were loaded and what failed. Devices that come later: [`Modules::load_alias`] with their modalias.
pub fn load_for_hardware() -> Loaded {
    let modules = running();
    let mut loaded = Loaded::default();
    let mut seen = HashSet::new();
    for _ in 0..ROUNDS_MAX {
        let mut aliases = Vec::new();
        collect_modaliases(Path::new(DEVICES), 0, &mut aliases);
        let new: Vec<String> = aliases.into_iter().filter(|alias| seen.insert(alias.clone())).collect();
        if new.is_empty() {
            break;
        }
        for alias in new {
            loaded.extend(modules.load_alias(&alias));
        }
        // Buses announce what they find a moment later (SCSI, USB); later ones come as events.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    loaded
}

/// Loads modules by name, `ext4` or `dm-mod`; a built-in one counts as loaded.
///
/// # Errors
/// The first that the kernel refuses.
pub fn load(names: &[&str]) -> Result<()> {
    for name in names {
        if let Some(failure) = running().load_alias(name).failures.into_iter().next() {
            return Err(failure);
        }
    }
    Ok(())
}

/// Acts as the kernel's usermode helper `/sbin/modprobe -q -- ALIAS`; `arguments` are those behind the program's name.
/// Returns the exit code.
pub fn run_modprobe(arguments: &[String]) -> u8 {
    let mut code = 0;
    for alias in arguments.iter().filter(|argument| !argument.starts_with('-')) {
        let loaded = running().load_alias(alias);
        if !loaded.failures.is_empty() {
            code = 1;
        }
    }
    code
}

/// What loading did.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Names of modules that are in the kernel now and were not before.
    pub names: Vec<String>,
    /// What was refused.
    pub failures: Vec<Error>,
}

impl Loaded {
    fn extend(&mut self, other: Self) {
        self.names.extend(other.names);
        self.failures.extend(other.failures);
    }
}

impl Modules {
    /// Loads what serves `alias` with all it needs. Each module is tried once.
    pub fn load_alias(&self, alias: &str) -> Loaded {
        let mut loaded = Loaded::default();
        for name in self.index.resolve(alias) {
            for path in self.index.load_order(name) {
                self.insert(path, &mut loaded);
            }
        }
        loaded
    }

    fn insert(&self, path: &str, loaded: &mut Loaded) {
        // Held while the kernel initialises the module, so that who needs it next finds it ready.
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if !tried.insert(path.to_owned()) {
            return;
        }
        let file = self.folder.join(path);
        let opened = File::open(&file).map_err(|e| Error::path("open module", &file, e));
        let inserted = opened.and_then(|module| match rustix::system::finit_module(&module, c"", 0) {
            // Not for this processor (crc32c-intel without SSE 4.2) or no such hardware: as good as absent.
            Ok(()) | Err(Errno::EXIST) => Ok(true),
            Err(Errno::NODEV) => Ok(false),
            Err(errno) => Err(Error::path("load module", &file, errno)),
        });
        match inserted {
            Ok(true) => loaded.names.push(module_name(path)),
            Ok(false) => {}
            Err(error) => loaded.failures.push(error),
        }
    }
}

fn collect_modaliases(folder: &Path, depth: usize, aliases: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < DEVICE_DEPTH_MAX {
            collect_modaliases(&entry.path(), depth + 1, aliases);
        } else if entry.file_name() == "modalias"
            && let Ok(alias) = fs::read_to_string(entry.path())
            && !alias.trim().is_empty()
        {
            aliases.push(alias.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modaliases_of_this_machine_are_found() {
        let mut aliases = Vec::new();
        collect_modaliases(Path::new(DEVICES), 0, &mut aliases);
        assert!(aliases.iter().all(|alias| !alias.contains('\n')));
    }

    #[test]
    fn a_folder_without_index_has_no_modules() {
        let modules = load_modules(Path::new("/nonexistent"));
        let loaded = modules.load_alias("pci:v00008086d0000100Esv0sd0bc02sc00i00");
        assert!(loaded.names.is_empty() && loaded.failures.is_empty());
    }
}
