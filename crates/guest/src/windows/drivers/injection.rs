//! What puts a driver into a Windows that does not run, as data: files to be written and changes of the SYSTEM hive.
//!
//! A driver that starts at boot is put where its INF file says, with its service, its event log, and the entry by which
//! Plug and Play finds it at boot: among the critical devices before Windows 8, in the driver database since. Any other
//! driver only is staged. All are staged, for the first boot to install them as Windows itself does. Nothing is applied
//! here, and what only a running Windows can do is told in notes.
//!
//! Sources: the keys that Windows 7 SP1 and 10 wrote themselves for drivers of Microsoft, LSI and VMware (hives of the
//! test data), the INF reference, and what virt-v2v's documentation says boots.

use std::collections::BTreeSet;
use std::fmt;

use machine::firstboot;
use serde::Serialize;

use super::database;
use crate::windows::Release;
use crate::windows::inf::{
    Change, Data, Directories, Inf, Installation, Location, Model, RegistryChange, Root, Service, StartType, Version,
};
use crate::{Error, ErrorKind, Result};

/// Where drivers wait for the first boot, below the root of the system drive.
fn staged(package: &str) -> String {
    let folder = firstboot::FOLDER.trim_start_matches('/').replace('/', "\\");
    format!("{folder}\\{}\\{package}", firstboot::DRIVERS_FOLDER)
}
/// Where Windows looks for catalogs of drivers (`DRIVER_ACTION_VERIFY`), below the Windows folder.
const CATALOGS: &str = "System32\\CatRoot\\{F750E6C3-38EE-11D1-85E5-00C04FC295EE}";

/// How a guest is laid out, as far as a driver must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The Windows folder below the root of the system drive: `Windows`.
    pub windows: String,
    /// The name under which the INF file is published: the first `oemN.inf` that is free.
    pub published: String,
}

/// What injecting a driver does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Injection {
    /// The INF file.
    pub driver: String,
    /// Its folder in the driver store.
    pub package: String,
    /// Whether it starts at boot: without it the guest may not find its disk.
    pub is_boot_critical: bool,
    /// Files to be written.
    pub files: Vec<FilePlacement>,
    /// Changes of the SYSTEM hive, in their order.
    pub edits: Vec<Edit>,
    /// What `DevicePath` in the SOFTWARE hive gets at its end.
    pub device_path: String,
    /// What is left to the first boot, or to the operator.
    pub notes: Vec<String>,
}

/// A file of the package in the guest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FilePlacement {
    /// Where it goes: a path below the root of the system drive, with `\`.
    pub destination: String,
    /// Path in the package.
    pub source: String,
}

/// Which part of the SYSTEM hive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Every control set that `Select` names.
    ControlSets,
    /// The hive's root.
    Hive,
}

/// A key of the SYSTEM hive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Key {
    /// What it is below.
    pub scope: Scope,
    /// Path with `\`.
    pub path: String,
}

/// A change of the SYSTEM hive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// Sets a value; keys are made as needed.
    Set {
        /// Its key.
        key: Key,
        /// Its name; empty for the unnamed one.
        name: String,
        /// What it is set to.
        data: Data,
        /// Not where it is there already.
        unless_present: bool,
    },
    /// Adds strings to a `REG_MULTI_SZ` that it has not.
    Append {
        /// Its key.
        key: Key,
        /// Its name.
        name: String,
        /// Strings.
        strings: Vec<String>,
    },
    /// Makes a key.
    MakeKey {
        /// The key.
        key: Key,
    },
    /// Removes a key with all below it, if it is there.
    RemoveKey {
        /// The key.
        key: Key,
    },
    /// Removes a value, if it is there.
    RemoveValue {
        /// Its key.
        key: Key,
        /// Its name.
        name: String,
    },
}

impl Key {
    /// A key.
    pub fn new(scope: Scope, path: impl Into<String>) -> Self {
        Self { scope, path: path.into() }
    }
}

impl Edit {
    /// The key that it changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Set { key, .. }
            | Self::Append { key, .. }
            | Self::MakeKey { key }
            | Self::RemoveKey { key }
            | Self::RemoveValue { key, .. } => key,
        }
    }

    pub(super) fn set(scope: Scope, path: &str, name: &str, data: Data) -> Self {
        Self::Set { key: Key::new(scope, path), name: name.into(), data, unless_present: false }
    }

    pub(super) fn set_unless(scope: Scope, path: &str, name: &str, data: Data) -> Self {
        Self::Set { key: Key::new(scope, path), name: name.into(), data, unless_present: true }
    }
}

/// A GUID as Windows writes it among critical devices.
pub(super) fn class_key(guid: &str) -> String {
    guid.to_ascii_uppercase()
}

/// Plans the injection of the driver that an INF file describes, for every device that it has on a release.
///
/// `name` is the INF file's, `files` are the paths of all files of its package.
///
/// # Errors
/// [`ErrorKind::Missing`] where the file has no device for the release, or the package lacks a file that boot needs;
/// [`ErrorKind::Malformed`] and [`ErrorKind::TooLarge`] for what the INF file says.
pub fn plan_injection(
    inf: &Inf,
    name: &str,
    files: &[String],
    release: &Release,
    placement: &Placement,
) -> Result<Injection> {
    let version = inf.version()?;
    let mut models: Vec<(String, Model)> = Vec::new();
    for found in inf.models_for(release)? {
        models.extend(found.models.into_iter().map(|model| (found.manufacturer.clone(), model)));
    }
    if models.is_empty() {
        return Err(Error::new(ErrorKind::Missing, format!("it has no device for {release}")).at(name));
    }
    let mut sections = BTreeSet::new();
    let mut installations = Vec::new();
    for (_, model) in &models {
        if sections.insert(model.install_section.to_lowercase()) {
            installations.push((model.install_section.clone(), inf.installation(&model.install_section, release)?));
        }
    }
    let package = package_name(inf, name, release);
    let mut plan = Planner {
        name,
        files,
        release,
        placement,
        directories: Directories {
            windows: placement.windows.clone(),
            package: format!("System32\\DriverStore\\FileRepository\\{package}"),
            is_64_bit: release.architecture.is_64_bit(),
        },
        placed: BTreeSet::new(),
        edits: Vec::new(),
        notes: Vec::new(),
    };
    let starts_at_boot = |installation: &Installation| {
        installation.services.iter().any(|service| service.start == StartType::Boot && service.service_type == 1)
    };
    let is_boot_critical = installations.iter().any(|(_, installation)| starts_at_boot(installation));
    if is_boot_critical {
        plan.place_catalog(&version);
        for (_, installation) in installations.iter().filter(|(_, installation)| starts_at_boot(installation)) {
            plan.install(installation)?;
        }
        let critical: Vec<_> = installations.iter().filter(|(_, installation)| starts_at_boot(installation)).collect();
        let database = database::Entries {
            name,
            package: &package,
            published: &placement.published,
            version: &version,
            models: &models,
        };
        plan.edits.extend(database.edits(&critical, release));
    } else {
        plan.notes.push("it does not start at boot: the first boot installs it".into());
    }
    for need in installations.iter().flat_map(|(_, installation)| &installation.needs).filter(|need| !need.is_inbox) {
        plan.notes.push(format!("it needs [{}] of {}", need.section, need.included.join(", ")));
    }
    for file in files {
        let destination = format!("{}\\{}", staged(&package), file.replace('/', "\\"));
        plan.place(&Location { directory: Some(24), path: destination }, file)?;
    }
    plan.notes.dedup();
    Ok(Injection {
        driver: name.to_owned(),
        device_path: format!("%SystemDrive%\\{}", staged(&package)),
        package,
        is_boot_critical,
        files: plan.placed.into_iter().collect(),
        edits: plan.edits,
        notes: plan.notes,
    })
}

/// The package's folder in the driver store: `viostor.inf_amd64_…`, before Windows 8 with the language. Windows takes a hash
/// of its own at the end; any other that is nobody else's will do.
fn package_name(inf: &Inf, name: &str, release: &Release) -> String {
    let digest = blake3::hash(&inf.to_bytes()).to_hex();
    let neutral = if release.version() < (6, 2) { "neutral_" } else { "" };
    format!("{}_{}_{neutral}{}", name.to_lowercase(), release.architecture, &digest[..16])
}

struct Planner<'p> {
    name: &'p str,
    files: &'p [String],
    release: &'p Release,
    placement: &'p Placement,
    directories: Directories,
    placed: BTreeSet<FilePlacement>,
    edits: Vec<Edit>,
    notes: Vec<String>,
}

impl Planner<'_> {
    /// A file of the package at a place of the guest.
    fn place(&mut self, destination: &Location, source: &str) -> Result<()> {
        let Some(path) = destination.resolve(&self.directories) else {
            self.notes.push(format!("{source}: its folder is not known offline: the first boot copies it"));
            return Ok(());
        };
        let wanted = source.replace('\\', "/");
        let Some(file) = self.files.iter().find(|file| file.eq_ignore_ascii_case(&wanted)) else {
            return Err(Error::new(ErrorKind::Missing, format!("the package has no {source}")).at(self.name));
        };
        self.placed.insert(FilePlacement { destination: path, source: file.clone() });
        Ok(())
    }

    fn place_catalog(&mut self, version: &Version) {
        let Some(name) = version.catalog(self.release.architecture) else { return };
        let Some(file) = self.files.iter().find(|file| file.eq_ignore_ascii_case(name)) else { return };
        let published = self.placement.published.trim_end_matches(".inf");
        let destination = format!("{}\\{CATALOGS}\\{published}.cat", self.placement.windows);
        self.placed.insert(FilePlacement { destination, source: file.clone() });
    }

    fn install(&mut self, installation: &Installation) -> Result<()> {
        for copy in &installation.copies {
            match &copy.cabinet {
                Some(cabinet) => {
                    self.notes.push(format!("{}: it is in {cabinet}: the first boot copies it", copy.source))
                }
                None => self.place(&copy.destination, &copy.source)?,
            }
        }
        for service in installation.services.iter().filter(|service| !service.name.is_empty()) {
            // A program that is run from the package's own folder.
            if service.binary.directory == Some(13) {
                for file in self.files {
                    self.place(&Location { directory: Some(13), path: file.replace('/', "\\") }, file)?;
                }
            }
            self.service(service)?;
        }
        Ok(())
    }

    fn service(&mut self, service: &Service) -> Result<()> {
        let key = format!("Services\\{}", service.name);
        let image = self.image_path(service)?;
        let mut set = |name: &str, data: Data| self.edits.push(Edit::set(Scope::ControlSets, &key, name, data));
        set("Type", Data::Dword(service.service_type));
        set("Start", Data::Dword(service.start as u32));
        set("ErrorControl", Data::Dword(service.error_control));
        set("ImagePath", Data::ExpandSz(image));
        for (name, text) in
            [("DisplayName", &service.display_name), ("Description", &service.description), ("Group", &service.group)]
        {
            if let Some(text) = text {
                set(name, Data::Sz(text.clone()));
            }
        }
        let (groups, services): (Vec<&String>, Vec<&String>) =
            service.dependencies.iter().partition(|name| name.starts_with('+'));
        if !services.is_empty() {
            set("DependOnService", Data::MultiSz(services.into_iter().cloned().collect()));
        }
        if !groups.is_empty() {
            set("DependOnGroup", Data::MultiSz(groups.into_iter().map(|name| name[1..].to_owned()).collect()));
        }
        if self.release.version() >= (6, 2) {
            set("Owners", Data::MultiSz(vec![self.placement.published.clone()]));
        }
        for change in &service.registry {
            self.change(&key, change);
        }
        // Windows 10 keeps drivers of hardware that was absent from starting with this.
        self.edits.push(Edit::RemoveKey { key: Key::new(Scope::ControlSets, format!("{key}\\StartOverride")) });
        if let Some(log) = &service.event_log {
            let key = format!("Services\\EventLog\\{}\\{}", log.log, log.source);
            for change in &log.registry {
                self.change(&key, change);
            }
        }
        Ok(())
    }

    /// As Windows writes it: relative to the Windows folder for what its loader loads, from `\SystemRoot` for other drivers,
    /// with the variable for programs.
    fn image_path(&self, service: &Service) -> Result<String> {
        let wrong = || {
            let what =
                format!("service {}: its program {} is in no folder of Windows", service.name, service.binary.path);
            Error::new(ErrorKind::Unsupported, what).at(self.name)
        };
        let path = service.binary.resolve(&self.directories).ok_or_else(wrong)?;
        let below =
            path.strip_prefix(&self.directories.windows).and_then(|path| path.strip_prefix('\\')).ok_or_else(wrong)?;
        Ok(match (service.service_type, service.start) {
            (1, StartType::Boot) => below.to_owned(),
            (1 | 2, _) => format!("\\SystemRoot\\{below}"),
            _ => format!("%SystemRoot%\\{below}"),
        })
    }

    /// A registry change below a key of each control set.
    fn change(&mut self, base: &str, change: &RegistryChange) {
        let lower = change.key.to_ascii_lowercase();
        let current = "system\\currentcontrolset\\";
        let path = match change.root {
            Root::Relative if change.key.is_empty() => base.to_owned(),
            Root::Relative => format!("{base}\\{}", change.key),
            Root::LocalMachine if lower.starts_with(current) => change.key[current.len()..].to_owned(),
            _ => {
                self.notes.push(format!("{}: a key outside of the SYSTEM hive: the first boot writes it", change.key));
                return;
            }
        };
        let key = Key::new(Scope::ControlSets, path);
        self.edits.push(match change.change.clone() {
            Change::MakeKey => Edit::MakeKey { key },
            Change::Set { name, data, unless_present, if_present: false } => {
                Edit::Set { key, name, data, unless_present }
            }
            Change::Append { name, strings } => Edit::Append { key, name, strings },
            Change::RemoveKey => Edit::RemoveKey { key },
            Change::RemoveValue { name } => Edit::RemoveValue { key, name },
            Change::Set { .. } | Change::RemoveStrings { .. } | Change::Bits { .. } => {
                self.notes.push(format!("{}: a change of what is there: the first boot makes it", key.path));
                return;
            }
        });
    }
}

impl fmt::Display for Injection {
    /// A reviewable text: one line for each file, value and note.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let critical = if self.is_boot_critical { "boot-critical" } else { "staged" };
        writeln!(f, "driver {} as {} ({critical})", self.driver, self.package)?;
        for file in &self.files {
            writeln!(f, "file {} <- {}", file.destination, file.source)?;
        }
        let mut before = None;
        for edit in &self.edits {
            let key = edit.key();
            if before != Some(key) {
                let scope = match key.scope {
                    Scope::ControlSets => "ControlSet*\\",
                    Scope::Hive => "",
                };
                writeln!(f, "[{scope}{}]", key.path)?;
                before = Some(key);
            }
            match edit {
                Edit::Set { name, data, unless_present, .. } => {
                    let unless = if *unless_present { " unless present" } else { "" };
                    writeln!(f, "  {name:?} = {}{unless}", Shown(data))?;
                }
                Edit::Append { name, strings, .. } => writeln!(f, "  {name:?} += {strings:?}")?,
                Edit::MakeKey { .. } => writeln!(f, "  made")?,
                Edit::RemoveKey { .. } => writeln!(f, "  removed")?,
                Edit::RemoveValue { name, .. } => writeln!(f, "  {name:?} removed")?,
            }
        }
        writeln!(f, "DevicePath += {}", self.device_path)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

struct Shown<'d>(&'d Data);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Data::Sz(text) => write!(f, "sz {text:?}"),
            Data::ExpandSz(text) => write!(f, "expand_sz {text:?}"),
            Data::MultiSz(texts) => write!(f, "multi_sz {texts:?}"),
            Data::Dword(number) => write!(f, "dword 0x{number:x}"),
            Data::Bytes(kind, bytes) => {
                write!(f, "type {kind}")?;
                bytes.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
            }
        }
    }
}
