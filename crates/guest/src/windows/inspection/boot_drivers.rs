//! Drivers that the boot loader loads: services with start 0, their programs, and whether those are there.
//!
//! Without `ImagePath` a driver is `System32\drivers\NAME.sys` (Microsoft, "INF AddService directive"). Windows 8 and
//! later disable a boot-start driver that was not needed by a `StartOverride`. A critical one (error control 3) that is
//! missing stops the start.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fields::Reader;
use crate::Result;
use machine::Note;

/// Kinds of services that are drivers: of devices, of filesystems, and those that recognize filesystems.
const DRIVERS: u32 = 0x1 | 0x2 | 0x8;
/// `SERVICE_ERROR_SEVERE` and above.
const SEVERE: u32 = 2;
/// Setup classes below whose drivers filters stand in every request to a disk.
const FILTERED: [(&str, &str); 5] = [
    ("disk drives", "{4d36e967-e325-11ce-bfc1-08002be10318}"),
    ("volumes", "{71a27cdd-812a-11d0-bec7-08002be2092f}"),
    ("scsi adapters", "{4d36e97b-e325-11ce-bfc1-08002be10318}"),
    ("ide controllers", "{4d36e96a-e325-11ce-bfc1-08002be10318}"),
    ("network adapters", "{4d36e972-e325-11ce-bfc1-08002be10318}"),
];
/// Filters that Windows itself puts there.
const OWN_FILTERS: [&str; 11] = [
    "partmgr",
    "acpi",
    "volsnap",
    "fvevol",
    "rdyboost",
    "iorate",
    "ehstorclass",
    "ehstortcgdrv",
    "volume",
    "diskperf",
    "storqosflt",
];

/// A boot-start driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootDriver {
    /// Its service.
    pub name: String,
    /// The group by which drivers are ordered.
    pub group: Option<String>,
    /// `ErrorControl`.
    pub error_control: u32,
    /// Its program, as the registry has it or as it is by default.
    pub image: String,
    /// The program in the tree, if it is there.
    pub file: Option<String>,
    /// `StartOverride\0`: the start that counts instead.
    pub start_override: Option<u32>,
}

/// A filter driver that is not Windows' own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Which devices it filters.
    pub devices: String,
    /// The GUID of their setup class.
    pub class: String,
    /// `UpperFilters` or `LowerFilters`.
    pub value: String,
    /// Its service.
    pub service: String,
    /// Whether there is such a service.
    pub is_installed: bool,
}

/// What is loaded before Windows can read its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootDrivers {
    /// Drivers, by name.
    pub drivers: Vec<BootDriver>,
    /// Filters of other makers in the way to disks and networks.
    pub filters: Vec<Filter>,
}

impl BootDrivers {
    pub(super) fn read(reader: &Reader<'_>) -> Result<Self> {
        let mut drivers = Vec::new();
        for (name, fields) in reader.current("Services")?.children()? {
            let is_driver = fields.number("Type")?.is_some_and(|kind| kind & DRIVERS != 0);
            if fields.number("Start")? != Some(0) || !is_driver {
                continue;
            }
            let image = fields.text("ImagePath")?.unwrap_or_else(|| format!("System32\\drivers\\{name}.sys"));
            let file = match reader.windows.tree_path(&image) {
                // A path that cannot be is one where nothing is.
                Some(path) => reader.paths.resolve(&path).ok().flatten(),
                None => None,
            };
            drivers.push(BootDriver {
                group: fields.text("Group")?,
                error_control: fields.number("ErrorControl")?.unwrap_or(0),
                file,
                image,
                start_override: fields.child("StartOverride")?.number("0")?,
                name,
            });
        }
        let mut filters = Vec::new();
        for (devices, class) in FILTERED {
            let fields = reader.control(&format!("Class\\{class}"))?;
            for value in ["UpperFilters", "LowerFilters"] {
                for service in fields.texts(value)? {
                    if OWN_FILTERS.iter().any(|own| own.eq_ignore_ascii_case(&service)) {
                        continue;
                    }
                    let is_installed = reader.service(&service)?.is_there();
                    let (devices, class, value) = (devices.into(), class.into(), value.into());
                    filters.push(Filter { devices, class, value, service, is_installed });
                }
            }
        }
        Ok(Self { drivers, filters })
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        let is_lost = |driver: &&BootDriver| driver.file.is_none() && driver.start_override != Some(4);
        let (needed, others): (Vec<&BootDriver>, Vec<&BootDriver>) =
            self.drivers.iter().filter(is_lost).partition(|driver| driver.error_control >= SEVERE);
        let names = |drivers: &[&BootDriver]| {
            let names: Vec<&str> = drivers.iter().map(|driver| driver.name.as_str()).collect();
            format!("boot drivers without a program: {}", names.join(" "))
        };
        if !needed.is_empty() {
            notes.push(Note::warning(names(&needed), "Windows refuses to start without them"));
        }
        if !others.is_empty() {
            notes.push(Note::info(names(&others), "Windows starts without them"));
        }
        for filter in &self.filters {
            let Filter { devices, service, .. } = filter;
            let what = format!("filter {service} of all {devices}");
            notes.push(match filter.is_installed {
                true => Note::warning(
                    what,
                    "made by another maker, it stays in the way in the VM: see that it can do without its hardware",
                ),
                false => Note::warning(what, "its service is missing: no such device starts while the filter is named"),
            });
        }
        notes
    }
}

impl fmt::Display for BootDrivers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for driver in &self.drivers {
            let BootDriver { name, image, error_control, .. } = driver;
            let group = driver.group.as_deref().unwrap_or("no group");
            let found = if driver.file.is_some() { "there" } else { "missing" };
            write!(f, "boot driver {name} ({group}, error control {error_control}): {image}, {found}")?;
            match driver.start_override {
                Some(start) => writeln!(f, ", start overridden by {start}")?,
                None => writeln!(f)?,
            }
        }
        self.filters.iter().try_for_each(|filter| {
            let Filter { devices, value, service, is_installed, .. } = filter;
            let found = if *is_installed { "installed" } else { "not installed" };
            writeln!(f, "filter of {devices}: {service} ({value}), {found}")
        })
    }
}
