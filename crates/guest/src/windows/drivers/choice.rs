//! The driver of a library for a device on a release: the best one that can be loaded, the others behind it, and why the
//! rest is out of the question.

use serde::Serialize;

use super::catalog::{Catalog, Said, Signature};
use super::library::{DriverRelease, Library, StoredPackage};
use super::rank::{self, Candidate, Device, Match};
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

impl Library {
    /// What is there for a device on a release; of one release of drivers only, if it is named.
    ///
    /// # Errors
    /// Those of [`Library::releases`] and [`Library::content`].
    pub fn choices(&self, device: &Device, windows: &Release, only: Option<&str>) -> Result<Choices> {
        let mut choices = Choices::default();
        let releases = match only {
            Some(name) => vec![self.release(name)?],
            None => self.releases()?,
        };
        let mut candidates = Vec::new();
        for release in &releases {
            for package in &release.packages {
                let inf = self.inf(package)?;
                let catalog = self.catalog(package, &inf, windows)?;
                match rank::matches(&inf, catalog.as_ref(), device, windows)? {
                    Some(found) => candidates.push(Candidate {
                        driver: Choice {
                            signature: catalog.map(|catalog| catalog.signature).unwrap_or_default(),
                            ..self.choice(release, package, &inf, found.clone(), windows)?
                        },
                        found,
                    }),
                    None => choices.refused.extend(refusal(release, package, &inf, catalog.as_ref(), device, windows)?),
                }
            }
        }
        choices.fitting = rank::best(candidates).into_iter().map(|candidate| candidate.driver).collect();
        choices.fitting.sort_by_key(|choice| !choice.obstacles.is_empty());
        Ok(choices)
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

    fn choice(
        &self,
        release: &DriverRelease,
        package: &StoredPackage,
        inf: &Inf,
        found: Match,
        windows: &Release,
    ) -> Result<Choice> {
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
            match pe_machine(&self.content(file)?) {
                Some(machine) if machine == windows.architecture.pe_machine() => {}
                Some(machine) => obstacles
                    .push(format!("{name} is a program for machine 0x{machine:x}, not for {}", windows.architecture)),
                None => obstacles.push(format!("{name} is no program of Windows")),
            }
        }
        let (release, package) = (release.name.clone(), package.clone());
        Ok(Choice { release, package, found, installation, obstacles, signature: Signature::None })
    }
}

/// Why a package that lists the device is not for the release; `None` for one that does not list it.
fn refusal(
    release: &DriverRelease,
    package: &StoredPackage,
    inf: &Inf,
    catalog: Option<&Catalog>,
    device: &Device,
    windows: &Release,
) -> Result<Option<Refusal>> {
    let wanted =
        |id: &str| device.hardware_ids.iter().chain(&device.compatible_ids).any(|own| own.eq_ignore_ascii_case(id));
    let listed = inf
        .sections()
        .iter()
        .flat_map(|section| &section.entries)
        .any(|entry| entry.key.is_some() && entry.values.iter().skip(1).any(|value| wanted(&inf.expand(value))));
    if !listed {
        return Ok(None);
    }
    let by_catalog = catalog.filter(|catalog| catalog.says_of(windows) == Said::NewerOnly && takes(inf, windows));
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
    Ok(Some(Refusal { release: release.name.clone(), path, why }))
}

fn takes(inf: &Inf, windows: &Release) -> bool {
    inf.targets().unwrap_or_default().iter().any(|target| target.takes(windows))
}

/// Machine type of a program (PE/COFF).
fn pe_machine(bytes: &[u8]) -> Option<u16> {
    let at = bytes.get(0x3c..0x40).filter(|_| bytes.starts_with(b"MZ"))?;
    let at = usize::try_from(u32::from_le_bytes(at.try_into().ok()?)).ok()?;
    let header = bytes.get(at..at.checked_add(6)?)?.strip_prefix(b"PE\0\0")?;
    Some(u16::from_le_bytes(header.try_into().ok()?))
}
