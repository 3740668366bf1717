//! The driver of a library for a device on a release: the best one that can be loaded, the others behind it, and why the
//! rest is out of the question.

use std::rc::Rc;

use serde::Serialize;

use super::catalog::{Catalog, Said, Signature};
use super::library::{Library, StoredPackage};
use super::rank::{self, Candidate, Device, Match};
use super::signer::Signer;
use crate::windows::Release;
use crate::windows::inf::{Inf, Installation, Target};
use crate::{Error, ErrorKind, Result};

/// A driver that fits.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The release of drivers that has it.
    pub release: String,
    /// The package.
    pub package: StoredPackage,
    /// Its INF file.
    pub inf: Rc<Inf>,
    /// The publisher that its catalog names.
    pub signer: Option<Signer>,
    /// How it fits.
    pub found: Match,
    /// What installing it does.
    pub installation: Installation,
    /// Why Windows could not load it; empty for a good one.
    pub obstacles: Vec<String>,
    /// Who signed its catalog.
    pub signature: Signature,
}

/// A package that lists the device and is not for the release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The release of drivers that has it.
    pub release: String,
    /// The package's INF file.
    pub path: String,
    /// Why it is not for this Windows.
    pub why: String,
}

/// What a library has for a device.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Those that fit, the best first; those that could not be loaded come last.
    pub fitting: Vec<Choice>,
    /// Those that list the device, for other releases.
    pub refused: Vec<Refusal>,
}

/// The packages of a library for a release of Windows, read once for any number of devices.
#[derive(Debug)]
pub struct Shelf<'l> {
    library: &'l Library,
    windows: Release,
    packages: Vec<Shelved>,
}

/// A package whose INF file and catalog are read.
#[derive(Debug)]
struct Shelved {
    release: String,
    package: StoredPackage,
    inf: Rc<Inf>,
    catalog: Option<Catalog>,
}

impl Library {
    /// Its packages for a release; of one release of drivers only, if it is named.
    ///
    /// # Errors
    /// Those of [`Library::releases`] and [`Library::content`].
    pub fn shelf(&self, windows: &Release, only: Option<&str>) -> Result<Shelf<'_>> {
        let releases = match only {
            Some(name) => vec![self.release(name)?],
            None => self.releases()?,
        };
        let mut packages = Vec::new();
        for release in releases {
            for package in release.packages {
                let inf = Rc::new(self.inf(&package)?);
                let catalog = self.catalog(&package, &inf, windows)?;
                packages.push(Shelved { release: release.name.clone(), package, inf, catalog });
            }
        }
        Ok(Shelf { library: self, windows: *windows, packages })
    }

    /// What is there for one device: a [`Shelf`] answers for several.
    ///
    /// # Errors
    /// Those of [`Library::shelf`] and [`Shelf::choices`].
    pub fn choices(&self, device: &Device, windows: &Release, only: Option<&str>) -> Result<Choices> {
        self.shelf(windows, only)?.choices(device)
    }

    fn inf(&self, package: &StoredPackage) -> Result<Inf> {
        let file =
            package.files.first().ok_or_else(|| Error::new(ErrorKind::Malformed, "a package without an INF file"))?;
        Inf::parse(&self.content(file)?).map_err(|error| error.at(&file.path))
    }

    fn catalog(&self, package: &StoredPackage, inf: &Inf, windows: &Release) -> Result<Option<Catalog>> {
        let version = inf.version()?;
        let file = version.catalog(windows.architecture).and_then(|name| package.file(name));
        // One that cannot be read was told when the package was added.
        file.map_or(Ok(None), |file| Ok(Catalog::parse(&self.content(file)?).ok()))
    }
}

impl Shelf<'_> {
    /// What is there for a device.
    ///
    /// # Errors
    /// What an INF file says; those of [`Library::content`].
    pub fn choices(&self, device: &Device) -> Result<Choices> {
        let mut choices = Choices::default();
        let mut candidates = Vec::new();
        for shelved in &self.packages {
            match rank::matches(&shelved.inf, shelved.catalog.as_ref(), device, &self.windows)? {
                Some(found) => {
                    candidates.push(Candidate { driver: self.choice(shelved, found.clone())?, found });
                }
                None => choices.refused.extend(refusal(shelved, device, &self.windows)),
            }
        }
        choices.fitting = rank::best(candidates).into_iter().map(|candidate| candidate.driver).collect();
        choices.fitting.sort_by_key(|choice| !choice.obstacles.is_empty());
        Ok(choices)
    }

    fn choice(&self, shelved: &Shelved, found: Match) -> Result<Choice> {
        let Shelved { release, package, inf, .. } = shelved;
        let windows = &self.windows;
        let installation =
            inf.installation(&found.model.install_section, windows).map_err(|error| error.at(package.name()))?;
        let mut obstacles = Vec::new();
        for copy in installation.copies.iter().filter(|copy| copy.cabinet.is_none()) {
            if package.file(&copy.source).is_none() {
                obstacles.push(format!("{} is missing in the package", copy.source));
            }
        }
        for service in installation.services.iter().filter(|service| service.service_type == 1) {
            let name = service.binary.path.rsplit('\\').next().unwrap_or_default().to_owned();
            let copied = installation
                .copies
                .iter()
                .find(|copy| copy.destination.path.eq_ignore_ascii_case(&service.binary.path));
            let Some(file) = package.file(copied.map_or(&name, |copy| &copy.source)) else { continue };
            match pe_machine(&self.library.content(file)?) {
                Some(machine) if machine == windows.architecture.pe_machine() => {}
                Some(machine) => obstacles
                    .push(format!("{name} is a program for machine 0x{machine:x}, not for {}", windows.architecture)),
                None => obstacles.push(format!("{name} is no program of Windows")),
            }
        }
        let signature = shelved.catalog.as_ref().map(|catalog| catalog.signature).unwrap_or_default();
        let (release, package, inf) = (release.clone(), package.clone(), Rc::clone(inf));
        let signer = shelved.catalog.as_ref().and_then(|catalog| catalog.signer.clone());
        Ok(Choice { release, package, inf, signer, found, installation, obstacles, signature })
    }
}

/// Why a package that lists the device is not for the release; `None` for one that does not list it.
fn refusal(shelved: &Shelved, device: &Device, windows: &Release) -> Option<Refusal> {
    let Shelved { release, package, inf, catalog } = shelved;
    let wanted =
        |id: &str| device.hardware_ids.iter().chain(&device.compatible_ids).any(|own| own.eq_ignore_ascii_case(id));
    let listed = inf
        .sections()
        .iter()
        .flat_map(|section| &section.entries)
        .any(|entry| entry.key.is_some() && entry.values.iter().skip(1).any(|value| wanted(&inf.expand(value))));
    if !listed {
        return None;
    }
    let by_catalog =
        catalog.as_ref().filter(|catalog| catalog.says_of(windows) == Said::NewerOnly && takes(inf, windows));
    let why = match by_catalog.and_then(|catalog| catalog.attribute("OSAttr")) {
        Some(versions) => format!("its catalog is for newer releases ({versions})"),
        None if package
            .targets
            .iter()
            .any(|target| Target::parse(target).is_some_and(|target| target.takes(windows))) =>
        {
            "its section for this release does not have the device".to_owned()
        }
        None => format!("it is for {}", package.targets.join(", ")),
    };
    let path = package.paths.first().cloned().unwrap_or_default();
    Some(Refusal { release: release.clone(), path, why })
}

fn takes(inf: &Inf, windows: &Release) -> bool {
    inf.targets().unwrap_or_default().iter().any(|target| target.takes(windows))
}

/// Machine type of a program (PE/COFF).
pub(in crate::windows) fn pe_machine(bytes: &[u8]) -> Option<u16> {
    let at = bytes.get(0x3c..0x40).filter(|_| bytes.starts_with(b"MZ"))?;
    let at = usize::try_from(u32::from_le_bytes(at.try_into().ok()?)).ok()?;
    let header = bytes.get(at..at.checked_add(6)?)?.strip_prefix(b"PE\0\0")?;
    Some(u16::from_le_bytes(header.try_into().ok()?))
}
