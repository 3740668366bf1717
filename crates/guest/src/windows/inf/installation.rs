//! "INF DDInstall Section" with its companions: what installing one device does.
//!
//! The section with the platform's extension is taken before the plain one (`.ntamd64`, `.nt`, none), and `.Services`,
//! `.HW`, `.Wdf`, `.CoInstallers` and `.Interfaces` are those of the section that was taken, as SetupAPI does it.
//! `Needs` is followed inside of the file; what is in a file of Windows is named.

use serde::Serialize;

use super::registry::{self, RegistryChange};
use super::service::{self, Service};
use super::{FileCopy, Inf, Location, Section, Texts, copying, folded, inbox_inf, parse_number, wrong};
use crate::windows::{Architecture, Release};
use crate::{Error, ErrorKind, Result};

/// Sections that one installation takes by `Needs`, each with what it needs itself.
const NEEDS_MAX: usize = 256;

/// Worst feature score, that of a driver that names none.
const FEATURE_SCORE: u8 = 0xff;

/// What installing a device does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installation {
    /// The section that was taken.
    pub section: String,
    /// Files that are copied.
    pub copies: Vec<FileCopy>,
    /// Files that are deleted.
    pub deletions: Vec<Location>,
    /// INF files of the package that are installed beside it.
    pub inf_copies: Vec<String>,
    /// Below the driver's own key.
    pub registry: Vec<RegistryChange>,
    /// Below the device's key.
    pub hardware: Vec<RegistryChange>,
    /// Services.
    pub services: Vec<Service>,
    /// Services that are removed.
    pub removed_services: Vec<String>,
    /// Libraries that take part in the installation, as `CoInstallers32` has them.
    pub coinstallers: Vec<RegistryChange>,
    /// Device interfaces: GUIDs of their classes.
    pub interfaces: Vec<String>,
    /// Services with the version of the kernel's driver framework that each needs.
    pub frameworks: Vec<(String, String)>,
    /// What it takes from files of Windows.
    pub needs: Vec<Need>,
    /// INF files that are included, whether or not anything of them is needed by name.
    pub includes: Vec<String>,
    /// How well the driver does its work: less is better.
    pub feature_score: u8,
}

/// A section of another INF file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The section.
    pub section: String,
    /// Files that it may be in: those that are included.
    pub included: Vec<String>,
    /// Whether all of those are Windows' own.
    pub is_inbox: bool,
}

/// The companions of an install section.
const COMPANIONS: [&str; 5] = ["Services", "HW", "CoInstallers", "Interfaces", "Wdf"];

impl Inf {
    /// The section that installs a device on an architecture.
    pub fn install_section(&self, name: &str, architecture: Architecture) -> Option<&Section> {
        let names = [format!("{name}.nt{architecture}"), format!("{name}.nt"), name.to_owned()];
        names.iter().find_map(|name| self.section(name))
    }

    /// What installing a device by its install section does on a release.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where the section is absent; [`ErrorKind::Malformed`], with the line; or
    /// [`ErrorKind::TooLarge`].
    pub fn installation(&self, name: &str, release: &Release) -> Result<Installation> {
        let architecture = release.architecture;
        let section = self.install_section(name, architecture).ok_or_else(|| {
            Error::new(ErrorKind::Missing, format!("no section [{name}] for {architecture} to install the device"))
        })?;
        let mut found = Installation {
            section: section.name.clone(),
            copies: Vec::new(),
            deletions: Vec::new(),
            inf_copies: Vec::new(),
            registry: Vec::new(),
            hardware: Vec::new(),
            services: Vec::new(),
            removed_services: Vec::new(),
            coinstallers: Vec::new(),
            interfaces: Vec::new(),
            frameworks: Vec::new(),
            needs: Vec::new(),
            includes: Vec::new(),
            feature_score: FEATURE_SCORE,
        };
        let mut texts = self.texts();
        found.feature_score = feature_score(section, &mut texts)?;
        let install = section.name.clone();
        for kind in [None].into_iter().chain(COMPANIONS.map(Some)) {
            let name = kind.map_or_else(|| install.clone(), |kind| format!("{install}.{kind}"));
            // Windows 10 reads file actions of drivers on a platform from here too.
            found.follow(&name, kind, architecture, &mut texts)?;
        }
        Ok(found)
    }
}

impl Installation {
    /// The service that drives the device: its own, or nothing where a file of Windows brings it.
    pub fn service(&self) -> Option<&Service> {
        self.services.iter().find(|service| service.is_associated() && !service.name.is_empty())
    }

    /// A section and those that it needs, each once.
    fn follow(
        &mut self,
        name: &str,
        kind: Option<&str>,
        architecture: Architecture,
        texts: &mut Texts<'_>,
    ) -> Result<()> {
        let mut left = vec![name.to_owned()];
        let mut seen = Vec::new();
        while let Some(name) = left.pop() {
            let Some(section) = texts.section(&name) else { continue };
            if seen.contains(&folded(&name)) {
                continue;
            }
            if seen.len() == NEEDS_MAX {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("[{name}]: more than {NEEDS_MAX} sections need each other"),
                ));
            }
            seen.push(folded(&name));
            self.read(section, kind, architecture, texts)?;
            let included = texts.names(section, "Include")?;
            for need in texts.names(section, "Needs")? {
                if texts.section(&need).is_some() {
                    left.push(need);
                    continue;
                }
                let is_inbox = !included.is_empty() && included.iter().all(|name| inbox_inf(name).is_some());
                self.needs.push(Need { section: need, included: included.clone(), is_inbox });
            }
            let new: Vec<String> = included.into_iter().filter(|name| !self.includes.contains(name)).collect();
            self.includes.extend(new);
        }
        Ok(())
    }

    fn read(
        &mut self,
        section: &Section,
        kind: Option<&str>,
        architecture: Architecture,
        texts: &mut Texts<'_>,
    ) -> Result<()> {
        match kind {
            None => {
                self.copies.extend(copying::copies(section, architecture, texts)?);
                self.deletions.extend(copying::listed(section, "DelFiles", texts)?);
                self.inf_copies.extend(texts.names(section, "CopyINF")?);
                self.registry.extend(registry::changes(section, texts)?);
            }
            Some("Services") => {
                self.services.extend(service::services(section, texts)?);
                self.removed_services.extend(service::removed(section, texts)?);
            }
            Some("HW") => self.hardware.extend(registry::changes(section, texts)?),
            Some("CoInstallers") => {
                self.copies.extend(copying::copies(section, architecture, texts)?);
                self.coinstallers.extend(registry::changes(section, texts)?);
            }
            Some("Interfaces") => {
                for entry in section.entries_of("AddInterface") {
                    self.interfaces.push(texts.value(entry, 0)?);
                }
            }
            _ => self.frameworks.extend(frameworks(section, texts)?),
        }
        Ok(())
    }
}

/// `KmdfService = service, section` with `KmdfLibraryVersion` in it.
fn frameworks(section: &Section, texts: &mut Texts<'_>) -> Result<Vec<(String, String)>> {
    let mut frameworks = Vec::new();
    for entry in section.entries_of("KmdfService") {
        let (service, name) = (texts.value(entry, 0)?, texts.value(entry, 1)?);
        let Some(section) = texts.section(&name) else { continue };
        frameworks.extend(texts.of_key(section, "KmdfLibraryVersion")?.map(|version| (service, version)));
    }
    Ok(frameworks)
}

fn feature_score(section: &Section, texts: &mut Texts<'_>) -> Result<u8> {
    let Some(entry) = section.entry("FeatureScore") else { return Ok(FEATURE_SCORE) };
    let text = texts.value(entry, 0)?;
    // Hexadecimal, with 0x or without.
    let digits = text.trim_start_matches("0x").trim_start_matches("0X");
    let hexadecimal = u8::from_str_radix(digits, 16).ok();
    hexadecimal
        .or_else(|| u8::try_from(parse_number(&text)?).ok())
        .ok_or_else(|| wrong(entry, format!("expected a feature score from 0 to FF, found {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Data, StartType};
    use super::*;

    /// The shape of a storage driver, and a device that a file of Windows drives.
    const FILE: &str = "[disk.NT]\nCopyFiles=list\nFeatureScore=F0\nCopyINF=second.inf\n[disk]\nCopyFiles=wrong\n\
        [disk.NT.Services]\nAddService = disk, 0x00000002, service, log\nAddService = helper,,helper\n\
        [disk.Services]\nAddService = wrong,2,wrong\n\
        [service]\nServiceType=1\nStartType=%BOOT%\nErrorControl=1\nServiceBinary=%12%\\disk.sys\nLoadOrderGroup=SCSI miniport\n\
        AddReg=parameters\nDependencies=+Group,Other\n\
        [helper]\nServiceType=0x10\nStartType=2\nErrorControl=1\nServiceBinary=\"%11%\\helper.exe\"\n\
        [log]\nAddReg=events\n[events]\nHKR,,TypesSupported,0x00010001,7\n[parameters]\nHKR,Parameters,BusType,0x00010001,1\n\
        [disk.NT.HW]\nAddReg=hw\n[hw]\nHKR,\"Interrupt Management\",,0x10\n\
        [disk.NT.Wdf]\nKmdfService=disk, wdf\n[wdf]\nKmdfLibraryVersion=1.9\n\
        [list]\ndisk.sys,,,2\n\
        [port]\nInclude=mf.inf\nNeeds=MFINSTALL.mf, more\n[more]\nInclude=other.inf\nNeeds=X, port\nAddReg=hw\n\
        [port.Services]\nInclude=mf.inf\nNeeds=MFINSTALL.mf.Services\n\
        [null.Services]\nAddService = ,2\n[null]\n[Strings]\nBOOT=0\n";

    fn installed(name: &str) -> Result<Installation> {
        let release = Release::parse("10.0.17763", Architecture::Amd64).unwrap();
        Inf::parse(FILE.as_bytes()).unwrap().installation(name, &release)
    }

    #[test]
    fn a_driver_is_installed_with_the_companions_of_the_section_that_was_taken() {
        let found = installed("disk").unwrap();
        assert_eq!((found.section.as_str(), found.feature_score), ("disk.NT", 0xf0));
        assert_eq!((found.copies.len(), found.copies[0].source.as_str()), (1, "disk.sys"));
        assert_eq!(found.inf_copies, ["second.inf"]);
        let names: Vec<&str> = found.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["disk", "helper"]);
        let service = found.service().unwrap();
        assert_eq!((service.start, service.service_type, service.error_control), (StartType::Boot, 1, 1));
        assert_eq!(service.binary, Location { directory: Some(12), path: "disk.sys".into() });
        assert_eq!((service.group.as_deref(), service.dependencies.len()), (Some("SCSI miniport"), 2));
        let log = service.event_log.as_ref().unwrap();
        assert_eq!((log.log.as_str(), log.source.as_str(), log.registry.len()), ("System", "disk", 1));
        let Change::Set { name, data, .. } = &service.registry[0].change else { panic!("{service:?}") };
        assert_eq!((name.as_str(), data), ("BusType", &Data::Dword(1)));
        assert_eq!(found.services[1].binary, Location { directory: Some(11), path: "helper.exe".into() });
        assert_eq!(found.hardware[0].change, Change::MakeKey);
        assert_eq!(found.frameworks, [("disk".to_owned(), "1.9".to_owned())]);
    }

    #[test]
    fn needs_are_followed_in_the_file_and_named_outside_of_it() {
        let found = installed("port").unwrap();
        let told: Vec<(&str, bool)> = found.needs.iter().map(|need| (need.section.as_str(), need.is_inbox)).collect();
        assert_eq!(told, [("MFINSTALL.mf", true), ("X", false), ("MFINSTALL.mf.Services", true)]);
        assert_eq!(found.includes, ["mf.inf", "other.inf"]);
        assert_eq!((found.registry.len(), found.service()), (1, None));
        // A device that needs no driver says so.
        let null = installed("null").unwrap();
        assert!(null.services[0].is_associated() && null.service().is_none());
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(installed("absent").unwrap_err().kind, ErrorKind::Missing);
        let of = |text: &str| {
            let release = Release::parse("7", Architecture::X86).unwrap();
            Inf::parse(text.as_bytes()).unwrap().installation("i", &release).unwrap_err().to_string()
        };
        assert_eq!(of("[i]\n[i.Services]\nAddService=s,2,none\n"), "line 3: no section [none] for service s");
        assert_eq!(of("[i]\n[i.Services]\nAddService=s,2,t\n[t]\nServiceType=1\n"), "line 3: [t] has no StartType");
        let own =
            "[i]\n[i.Services]\nAddService=s,2,t\n[t]\nServiceType=1\nErrorControl=1\nServiceBinary=x\nStartType=9\n";
        assert!(of(own).contains("start type 9"));
    }

    #[test]
    fn a_file_that_refers_to_itself_ends_with_an_error() {
        let names = "a,".repeat(200_000);
        let text = format!("[i]\nAddReg={names}\n[a]\n{}", "HKLM,%x%,%x%,,%x%\n".repeat(1000))
            + &format!("[Strings]\nx=\"{}\"\n", "y".repeat(4000));
        let release = Release::parse("7", Architecture::X86).unwrap();
        let error = Inf::parse(text.as_bytes()).unwrap().installation("i", &release).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLarge);
    }
}
