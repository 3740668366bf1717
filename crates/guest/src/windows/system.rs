//! A Windows installation on a filesystem: its system root, its hives SYSTEM and SOFTWARE after their logs, its control
//! sets and its release.
//!
//! Read only, and whole or not at all: an installation whose hives cannot be read is an error, not another system. Values
//! are those that Windows' own version functions report: `CurrentMajorVersionNumber` since Windows 10, where
//! `CurrentVersion` says 6.3 for ever; `ProductType` and `ProductSuite` of `Control\ProductOptions` (Microsoft,
//! "OSVERSIONINFOEX structure"); `PROCESSOR_ARCHITECTURE` of the system's environment.

use super::hive::{Hive, Key, Unfinished, file};
use super::path::Paths;
use super::{Architecture, Product, Release};
use crate::tree::FileTree;
use crate::{Error, ErrorKind, Result};

/// Names that Windows gives its system root, unless somebody chose another.
const ROOTS: [&str; 2] = ["/Windows", "/WINNT"];

/// What each text of `ProductSuite` stands for: `VER_SUITE_…` of Winnt.h.
const SUITES: [(&str, u32); 16] = [
    ("Small Business", 0x1),
    ("Enterprise", 0x2),
    ("BackOffice", 0x4),
    ("CommunicationServer", 0x8),
    ("Terminal Server", 0x10),
    ("Small Business(Restricted)", 0x20),
    ("EmbeddedNT", 0x40),
    ("DataCenter", 0x80),
    ("Single User TS", 0x100),
    ("Personal", 0x200),
    ("Blade", 0x400),
    ("Embedded(Restricted)", 0x800),
    ("Security Appliance", 0x1000),
    ("Storage Server", 0x2000),
    ("Compute Server", 0x4000),
    ("WH Server", 0x8000),
];

/// A Windows installation.
#[derive(Clone, Debug)]
pub struct Windows {
    /// The system root, as it is spelled in the tree: `/Windows`.
    pub root: String,
    /// The system root as Windows itself knows it: `C:\Windows`.
    pub system_root: String,
    /// The hive of control sets.
    pub system: Hive,
    /// The file of [`system`](Self::system).
    pub system_path: String,
    /// The hive of what is installed.
    pub software: Hive,
    /// The file of [`software`](Self::software).
    pub software_path: String,
    /// Version, architecture and product type.
    pub release: Release,
    /// All control sets that are there, sorted: a fix-up changes each of them, whatever `Select` calls it.
    pub control_sets: Vec<String>,
    /// The one of them with which Windows ran last.
    pub current: String,
}

impl Windows {
    /// The installation on `tree`; `None` where there is none in a system root of the usual name.
    ///
    /// # Errors
    /// `Missing` for a hive whose logs are not there, or which lacks what every Windows has; `Malformed` for a damaged one.
    pub fn open(tree: &dyn FileTree) -> Result<Option<Self>> {
        let paths = Paths::new(tree);
        for root in ROOTS {
            let Some(root) = paths.resolve(root)? else { continue };
            let hive = |name: &str| paths.resolve(&format!("{root}/System32/config/{name}"));
            let Some(system_path) = hive("SYSTEM")? else { continue };
            let software_path =
                hive("SOFTWARE")?.ok_or_else(|| Error::new(ErrorKind::Missing, "no hive SOFTWARE").at(&root))?;
            return Self::load(tree, root, system_path, software_path).map(Some);
        }
        Ok(None)
    }

    fn load(tree: &dyn FileTree, root: String, system_path: String, software_path: String) -> Result<Self> {
        let system = file::open(tree, &system_path, Unfinished::Refuse)?;
        let software = file::open(tree, &software_path, Unfinished::Refuse)?;
        let at_system = |error: Error| error.at(&system_path);
        let missing = |what: &str| Error::new(ErrorKind::Missing, what);
        let control_sets = system.control_sets().map_err(at_system)?;
        let selected = system.current_control_set().map_err(at_system)?;
        let selected = selected.ok_or_else(|| at_system(missing("no Select\\Current that names a control set")))?;
        let current = control_sets.iter().find(|set| set.eq_ignore_ascii_case(&selected)).cloned();
        let current =
            current.ok_or_else(|| at_system(missing(&format!("Select names {selected}, which is not there"))))?;
        let release = release(&system, &software, &current).map_err(|error| error.at(&root))?;
        let system_root = version_key(&software)?.and_then(|key| key.text("SystemRoot").transpose()).transpose()?;
        // A hive of an image that never ran lacks it.
        let system_root = system_root.unwrap_or_else(|| format!("C:{}", root.replace('/', "\\")));
        Ok(Self { root, system_root, system, system_path, software, software_path, release, control_sets, current })
    }

    /// The key at `path` (`Services\Disk`) of the control set in use.
    ///
    /// # Errors
    /// What the hive says; nothing there is no error.
    pub fn current_key(&self, path: &str) -> Result<Option<Key<'_>>> {
        self.control_set_key(&self.current, path)
    }

    /// The key at `path` of the control set `set`, one of [`control_sets`](Self::control_sets).
    ///
    /// # Errors
    /// As [`current_key`](Self::current_key).
    pub fn control_set_key(&self, set: &str, path: &str) -> Result<Option<Key<'_>>> {
        self.system.open(format!("{set}\\{path}").as_str()).map_err(|error| error.at(&self.system_path))
    }

    /// The key at `path` (`Microsoft\Windows NT\CurrentVersion`) of SOFTWARE.
    ///
    /// # Errors
    /// As [`current_key`](Self::current_key).
    pub fn software_key(&self, path: &str) -> Result<Option<Key<'_>>> {
        self.software.open(path).map_err(|error| error.at(&self.software_path))
    }

    /// A path of the registry (`\SystemRoot\System32\drivers\disk.sys`) as one of the tree, in whatever case:
    /// [`path::of_registry`](super::path::of_registry).
    pub fn tree_path(&self, path: &str) -> Option<String> {
        super::path::of_registry(path, &self.root, &self.system_root)
    }
}

fn version_key(software: &Hive) -> Result<Option<Key<'_>>> {
    software.open("Microsoft\\Windows NT\\CurrentVersion")
}

/// The release that both hives tell of, by the control set `current`.
fn release(system: &Hive, software: &Hive, current: &str) -> Result<Release> {
    let missing = |what: &str| Error::new(ErrorKind::Missing, what);
    let key = version_key(software)?.ok_or_else(|| missing("SOFTWARE has no Microsoft\\Windows NT\\CurrentVersion"))?;
    let dword = |name: &str| -> Result<Option<u16>> { Ok(key.dword(name)?.and_then(|n| u16::try_from(n).ok())) };
    let text = key.text("CurrentVersion")?.unwrap_or_default();
    let by_text = || -> Option<(u16, u16)> {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let version = match (dword("CurrentMajorVersionNumber")?, dword("CurrentMinorVersionNumber")?) {
        (Some(major), Some(minor)) => (major, minor),
        _ => by_text().ok_or_else(|| missing(&format!("CurrentVersion: expected a version, found {text:?}")))?,
    };
    let build = match key.text("CurrentBuildNumber")? {
        Some(build) => Some(build),
        None => key.text("CurrentBuild")?,
    };
    let build = build.and_then(|build| build.trim().parse().ok()).ok_or_else(|| missing("no CurrentBuildNumber"))?;
    let open = |path: &str| system.open(format!("{current}\\Control\\{path}").as_str());
    let named = match open("Session Manager\\Environment")? {
        Some(environment) => environment.text("PROCESSOR_ARCHITECTURE")?,
        None => None,
    };
    let architecture = named.and_then(|name| name.parse::<Architecture>().ok());
    let architecture = architecture.ok_or_else(|| missing("no PROCESSOR_ARCHITECTURE that is known"))?;
    let options = open("ProductOptions")?;
    let kind = options.map(|key| key.text("ProductType")).transpose()?.flatten().unwrap_or_default();
    let product = match kind.to_ascii_lowercase().as_str() {
        "lanmannt" => Product::DomainController,
        "servernt" => Product::Server,
        _ => Product::Workstation,
    };
    let names = options.map(|key| key.texts("ProductSuite")).transpose()?.flatten().unwrap_or_default();
    let bits =
        |name: &String| SUITES.iter().find(|suite| suite.0.eq_ignore_ascii_case(name)).map_or(0, |suite| suite.1);
    let suites = names.iter().map(bits).fold(0, |all, bit| all | bit);
    Ok(Release { product, suites, ..Release::new(version, build, architecture) })
}
