//! What a Windows installation says of itself, and what each fact means for its conversion.
//!
//! Facts are in a struct for each theme; each theme has its notes, and text for operators. Nothing here changes
//! anything, and nothing is executed: hives and a few files are read. A theme that cannot be read is left out with a
//! warning, the others are told. What operators see is short and printable, whatever the hive holds. Fix-ups take their
//! facts from here.

mod boot;
mod boot_drivers;
mod boot_ini;
mod fields;
mod hal;
mod letters;
mod licensing;
pub mod network;
mod pending;
mod power;
mod product;
mod roles;
mod settings;
pub mod software;

pub use boot::{Boot, Surroundings};
pub use boot_drivers::{BootDriver, BootDrivers, Filter};
pub use hal::Hal;
pub use licensing::Licensing;
pub use network::Network;
pub use pending::Pending;
pub use power::{HibernationFile, Power};
pub use product::{Identity, Membership};
pub use roles::{Role, RoleKind, Roles};
pub use settings::{CrashDump, SanPolicy, Settings};
pub use software::Software;

use std::fmt;

use machine::Note;
use serde::{Deserialize, Serialize};

use super::Windows;
use super::drive_letters::DriveLetters;
use crate::tree::FileTree;
use crate::{Error, Result};
use fields::Reader;

/// All facts; a theme that cannot be read is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Product, version, names.
    pub identity: Option<Identity>,
    /// Firmware and boot configuration.
    pub boot: Option<Boot>,
    /// What stands between the kernel and the machine, before Vista.
    pub hal: Option<Hal>,
    /// Drivers that the boot loader loads.
    pub boot_drivers: Option<BootDrivers>,
    /// Adapters and their settings.
    pub network: Option<Network>,
    /// Drive letters and volume names.
    pub drive_letters: Option<DriveLetters>,
    /// Software of the old hardware.
    pub software: Option<Software>,
    /// Work that waits for the next start.
    pub pending: Option<Pending>,
    /// Hibernation and Fast Startup.
    pub power: Option<Power>,
    /// Roles that need care.
    pub roles: Option<Roles>,
    /// Licences and signatures.
    pub licensing: Option<Licensing>,
    /// Clock, page files, crash dumps, new disks.
    pub settings: Option<Settings>,
    /// What the facts mean, the weightiest first.
    pub notes: Vec<Note>,
}

impl Inspection {
    /// Inspects an installation on `tree`, with what the caller knows of the machine.
    pub fn of(windows: &Windows, tree: &dyn FileTree, known: &Surroundings) -> Self {
        let reader = Reader::new(windows, tree);
        let mut notes = Vec::new();
        let has_bcd = windows.release.version() >= (6, 0);
        let letter = windows.system_root.as_str();
        let mut facts = Self {
            identity: told("identity", Identity::read(&reader), Identity::notes, &mut notes),
            boot: told("boot", Boot::read(&reader, known), |boot| boot.notes(has_bcd), &mut notes),
            hal: told("hal", Hal::read(&reader), |hal| hal.iter().flat_map(Hal::notes).collect(), &mut notes).flatten(),
            boot_drivers: told("boot drivers", BootDrivers::read(&reader), BootDrivers::notes, &mut notes),
            network: told("network", Network::read(&reader), Network::notes, &mut notes),
            drive_letters: told(
                "drive letters",
                DriveLetters::read(&windows.system),
                |found| letters::notes(found, letter),
                &mut notes,
            ),
            software: told("software", Software::read(&reader), Software::notes, &mut notes),
            pending: told("pending work", Pending::read(&reader), Pending::notes, &mut notes),
            power: told("power", Power::read(&reader), Power::notes, &mut notes),
            roles: told("roles", Roles::read(&reader), Roles::notes, &mut notes),
            licensing: told("licensing", Licensing::read(&reader), Licensing::notes, &mut notes),
            settings: told("settings", Settings::read(&reader), |theme| theme.notes(letter), &mut notes),
            notes: Vec::new(),
        };
        notes.sort_by_key(|note| std::cmp::Reverse(note.severity));
        facts.notes = notes;
        facts
    }
}

/// A theme with its notes, or a note that it cannot be read.
fn told<T>(theme: &str, read: Result<T>, meaning: impl FnOnce(&T) -> Vec<Note>, notes: &mut Vec<Note>) -> Option<T> {
    match read {
        Ok(facts) => {
            notes.extend(meaning(&facts));
            Some(facts)
        }
        Err(error) => {
            notes.push(Note::warning(format!("{theme}: {}", chain(&error)), "nothing is known of it"));
            None
        }
    }
}

fn chain(error: &Error) -> String {
    match &error.source {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut theme = |name: &str, facts: Option<&dyn fmt::Display>| match facts {
            Some(facts) => write!(f, "[{name}]\n{facts}"),
            None => writeln!(f, "[{name}]\nnot readable"),
        };
        fn shown<T: fmt::Display>(facts: &Option<T>) -> Option<&dyn fmt::Display> {
            facts.as_ref().map(|facts| facts as &dyn fmt::Display)
        }
        theme("identity", shown(&self.identity))?;
        theme("boot", shown(&self.boot))?;
        if let Some(hal) = &self.hal {
            theme("hal", Some(hal))?;
        }
        theme("boot drivers", shown(&self.boot_drivers))?;
        theme("network", shown(&self.network))?;
        theme("drive letters", shown(&self.drive_letters))?;
        theme("software", shown(&self.software))?;
        theme("pending", shown(&self.pending))?;
        theme("power", shown(&self.power))?;
        theme("roles", shown(&self.roles))?;
        theme("licensing", shown(&self.licensing))?;
        theme("settings", shown(&self.settings))?;
        if !self.notes.is_empty() {
            writeln!(f, "[notes]")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}
