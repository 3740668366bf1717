//! Loads the kernel modules that the hardware asks for, and those asked for by name.
//!
//! What depmod found is read once; modules are given to the kernel by `finit_module`. No modprobe is needed, and where the
//! kernel calls one ([`run_modprobe`]), it is this program.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use kernel_modules::{Index, IndexText, ModuleInfo, module_name, parse_index, parse_module};
use rustix::io::Errno;

use crate::{Error, Result};

/// Where the kernel looks for firmware.
pub const FIRMWARE: &str = "/lib/firmware";
/// Folder of modules that came later, below the modules folder.
const ADDED: &str = "updates";
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
    index: Mutex<Index>,
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
    Modules { folder: folder.to_owned(), index: Mutex::new(index), tried: Mutex::default() }
}

/// Loads drivers for all devices present, again and again until no further one appears. Returns the names of the
/// modules that were loaded and what failed. Devices that come later: [`Modules::load_alias`] with their modalias.
pub fn load_for_hardware() -> Loaded {
    let modules = running();
    let mut loaded = Loaded::default();
    let mut seen = HashSet::new();
    for _ in 0..ROUNDS_MAX {
        let new: Vec<String> = modaliases().into_iter().filter(|alias| seen.insert(alias.clone())).collect();
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

/// The modaliases of all devices that are there.
pub fn modaliases() -> Vec<String> {
    let mut aliases = Vec::new();
    collect_modaliases(Path::new(DEVICES), 0, &mut aliases);
    aliases
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
        for path in self.wanted_by(alias) {
            self.insert(&path, &mut loaded);
        }
        loaded
    }

    /// Names of the modules that serve `alias`.
    pub fn serving(&self, alias: &str) -> Vec<String> {
        self.index().resolve(alias).into_iter().map(str::to_owned).collect()
    }

    /// Paths of what is to be loaded for `alias`, in this order.
    fn wanted_by(&self, alias: &str) -> Vec<String> {
        let index = self.index();
        index.resolve(alias).into_iter().flat_map(|name| index.load_order(name)).map(str::to_owned).collect()
    }

    /// Firmware files that the module `name` and those that it needs name.
    pub fn firmware_of(&self, name: &str) -> BTreeSet<String> {
        let info = |path: String| parse_module(&fs::read(self.folder.join(path)).ok()?).ok();
        self.wanted_by(name).into_iter().filter_map(info).flat_map(|info| info.firmware).collect()
    }

    /// What the module `name` says of itself.
    pub fn info_of(&self, name: &str) -> Option<ModuleInfo> {
        let path = self.index().path(name).map(|path| self.folder.join(path))?;
        parse_module(&fs::read(path).ok()?).ok()
    }

    /// The text of a file beside the index; empty where it is not there.
    pub fn read_index_file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    /// Puts a module in, in the place of one of the same name that is not loaded. It is loaded when a device asks for it.
    ///
    /// # Errors
    /// A module that it needs is not there; the memory is full.
    pub fn add(&self, file: &str, info: &ModuleInfo, content: &[u8]) -> Result<()> {
        let below = format!("{ADDED}/{file}");
        let path = self.folder.join(&below);
        fs::create_dir_all(self.folder.join(ADDED)).map_err(|e| Error::path("create the folder of", &path, e))?;
        let needs = |missing: kernel_modules::MissingModule| {
            Error::new(format!("{file} needs the module {}, which is not here: install both together", missing.0))
        };
        // A module that stands in the index is there.
        fs::write(&path, content).map_err(|e| Error::path("write", &path, e))?;
        if let Err(error) = self.index().add(&below, info).map_err(needs) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(())
    }

    /// Loads the module `name` with all it needs, also where that failed before.
    pub fn load_again(&self, name: &str) -> Loaded {
        let mut loaded = Loaded::default();
        for path in self.wanted_by(name) {
            if !is_loaded(&module_name(&path)) {
                self.tried.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
            }
            self.insert(&path, &mut loaded);
        }
        loaded
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Whether the kernel has the module `name`, loaded or built in.
pub fn is_loaded(name: &str) -> bool {
    Path::new("/sys/module").join(name).join("initstate").exists()
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
pub(crate) mod tests {
    use super::*;

    /// The smallest object with these strings in its section `.modinfo`.
    pub(crate) fn module(strings: &[&str]) -> Vec<u8> {
        let modinfo: Vec<u8> = strings.iter().flat_map(|s| s.bytes().chain([0])).collect();
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (bytes[0x10], bytes[0x12]) = (1, 62);
        let headers = (64 + modinfo.len() + names.len()) as u64;
        bytes[0x28..0x30].copy_from_slice(&headers.to_le_bytes());
        (bytes[0x3a], bytes[0x3c], bytes[0x3e]) = (64, 3, 2);
        bytes.extend(&modinfo);
        bytes.extend(names);
        for (name, offset, length) in [(0, 0, 0), (1, 64, modinfo.len()), (10, 64 + modinfo.len(), names.len())] {
            let mut section = [0; 64];
            section[0] = name;
            section[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
            section[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
            bytes.extend(section);
        }
        bytes
    }

    #[test]
    fn a_module_that_comes_later_serves_its_device_and_names_its_firmware() {
        let folder = tempfile::tempdir().unwrap();
        let modules = load_modules(folder.path());
        let alias = "pci:v00001000d00000060sv0sd0bc01sc04i00";
        assert!(modules.serving(alias).is_empty());
        let bytes = module(&["name=raid", "alias=pci:v00001000d00000060sv*sd*bc*sc*i*", "firmware=raid.fw"]);
        modules.add("raid.ko", &parse_module(&bytes).unwrap(), &bytes).unwrap();
        assert_eq!(modules.serving(alias), ["raid"]);
        assert_eq!(modules.firmware_of("raid").into_iter().collect::<Vec<_>>(), ["raid.fw"]);
        let needy = module(&["name=x", "depends=none"]);
        let error = modules.add("x.ko", &parse_module(&needy).unwrap(), &needy).unwrap_err();
        assert!(error.context.contains("needs the module none"), "{error}");
        assert!(!folder.path().join("updates/x.ko").exists());
    }

    #[test]
    fn modaliases_of_this_machine_are_found() {
        let aliases = modaliases();
        assert!(aliases.iter().all(|alias| !alias.contains('\n')));
    }

    #[test]
    fn a_folder_without_index_has_no_modules() {
        let modules = load_modules(Path::new("/nonexistent"));
        let loaded = modules.load_alias("pci:v00008086d0000100Esv0sd0bc02sc00i00");
        assert!(loaded.names.is_empty() && loaded.failures.is_empty());
    }
}
