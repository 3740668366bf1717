//! Installed software that belongs to the old machine: tools of other hypervisors, agents of hardware makers.
//!
//! It is found by its services and by what it registered for removal (`Uninstall`, of both word sizes). All other
//! software is counted only. What is known is a table (`known`).

mod known;

pub use known::{KNOWN, Known, SoftwareKind};

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fields::Reader;
use crate::Result;
use machine::Note;

const UNINSTALL: [&str; 2] =
    ["Microsoft\\Windows\\CurrentVersion\\Uninstall", "WOW6432Node\\Microsoft\\Windows\\CurrentVersion\\Uninstall"];

/// A service or driver of such software.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundService {
    /// Its name.
    pub name: String,
    /// `Start`: 0 boot, 1 system, 2 automatic, 3 on demand, 4 disabled.
    pub start: u32,
    /// `Type`: 1 and 2 are drivers.
    pub kind: Option<u32>,
    /// Its program.
    pub image: Option<String>,
}

/// What it registered for its removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uninstall {
    /// The key of SOFTWARE.
    pub key: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// Its maker.
    pub publisher: Option<String>,
    /// The command.
    pub command: Option<String>,
    /// The command that asks nothing.
    pub quiet_command: Option<String>,
}

/// Software of the table that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What it is called.
    pub product: String,
    /// What it is for.
    pub kind: SoftwareKind,
    /// Its services and drivers.
    pub services: Vec<FoundService>,
    /// What it registered.
    pub uninstall: Vec<Uninstall>,
}

/// Installed software.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Software {
    /// What belongs to the old machine.
    pub found: Vec<Found>,
    /// How many programs are registered in all.
    pub installed: usize,
}

impl Software {
    pub(super) fn read(reader: &Reader<'_>) -> Result<Self> {
        let mut services = Vec::new();
        for (name, fields) in reader.current("Services")?.children()? {
            // Parameters of a service that is gone, or was never installed, start nothing.
            let Some(start) = fields.number("Start")? else { continue };
            services.push(FoundService { start, kind: fields.number("Type")?, image: fields.text("ImagePath")?, name });
        }
        let mut programs = Vec::new();
        for path in UNINSTALL {
            for (key, fields) in reader.software(path)?.children()? {
                let Some(name) = fields.label("DisplayName")? else { continue };
                programs.push(Uninstall {
                    key: format!("{path}\\{key}"),
                    name,
                    version: fields.text("DisplayVersion")?,
                    publisher: fields.text("Publisher")?,
                    command: fields.text("UninstallString")?,
                    quiet_command: fields.text("QuietUninstallString")?,
                });
            }
        }
        let found = KNOWN.iter().filter_map(|known| {
            let found = Found {
                product: known.product.to_owned(),
                kind: known.kind,
                services: services.iter().filter(|service| known.has_service(&service.name)).cloned().collect(),
                uninstall: programs.iter().filter(|program| known.has_program(&program.name)).cloned().collect(),
            };
            (!found.services.is_empty() || !found.uninstall.is_empty()).then_some(found)
        });
        Ok(Self { found: found.collect(), installed: programs.len() })
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let note = |found: &Found| {
            let name = found.uninstall.first().map_or(found.product.as_str(), |program| program.name.as_str());
            match found.kind.is_urgent() {
                true => Note::warning(name, found.kind.meaning()),
                false => Note::info(name, found.kind.meaning()),
            }
        };
        self.found.iter().map(note).collect()
    }
}

impl fmt::Display for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "programs registered: {}", self.installed)?;
        for found in &self.found {
            writeln!(f, "{}: {}", found.kind, found.product)?;
            for program in &found.uninstall {
                let version = program.version.as_deref().unwrap_or("no version");
                writeln!(f, "  program: {}, {version}", program.name)?;
            }
            for service in &found.services {
                let start = match service.start {
                    0 => "boot",
                    1 => "system",
                    2 => "automatic",
                    3 => "on demand",
                    _ => "disabled",
                };
                writeln!(
                    f,
                    "  service: {}, {start}, {}",
                    service.name,
                    service.image.as_deref().unwrap_or("no program")
                )?;
            }
        }
        Ok(())
    }
}
