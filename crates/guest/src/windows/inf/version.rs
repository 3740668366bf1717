//! "INF Version Section" and "INF DriverVer Directive".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Inf, Section};
use crate::windows::Architecture;
use crate::{Error, ErrorKind, Result};

/// What `[Version]` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `$Windows NT$`, `$Chicago$` or `$Windows 95$`, as it is written.
    pub signature: String,
    /// Name of the setup class: `SCSIAdapter`.
    pub class: Option<String>,
    /// GUID of the setup class, in lower case with its braces.
    pub class_guid: Option<String>,
    /// Who provides the driver.
    pub provider: Option<String>,
    /// Date of the driver; 00/00/0000 where none is given, as for Windows.
    pub date: DriverDate,
    /// Version of the driver.
    pub version: DriverVersion,
    /// Catalog files with the architecture that each is for; the default one has none.
    pub catalogs: Vec<(Option<Architecture>, String)>,
    /// `PnpLockdown`: its files are protected from changes by programs.
    pub lockdown: bool,
    /// Layout files that say what is on which disk.
    pub layout_files: Vec<String>,
}

impl Inf {
    /// What `[Version]` says.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] where it is absent, has no known signature, or a date or number of no form.
    pub fn version(&self) -> Result<Version> {
        let missing =
            || Error::new(ErrorKind::Malformed, "no [Version] with a signature: this is no INF file of Windows");
        let section = self.section("Version").ok_or_else(missing)?;
        let mut texts = self.texts();
        let signature = texts.of_key(section, "Signature")?.ok_or_else(missing)?;
        if !["$windows nt$", "$chicago$", "$windows 95$"].contains(&signature.to_ascii_lowercase().as_str()) {
            return Err(Error::new(ErrorKind::Malformed, format!("signature {signature:?} is none of Windows'")));
        }
        let (date, version) = self.driver_version(section)?;
        Ok(Version {
            class: texts.of_key(section, "Class")?,
            class_guid: texts.of_key(section, "ClassGuid")?.map(|guid| guid.to_ascii_lowercase()),
            provider: texts.of_key(section, "Provider")?,
            date,
            version,
            catalogs: self.catalogs(section)?,
            lockdown: texts.number_of_key(section, "PnpLockdown")?.is_some_and(|number| number != 0),
            layout_files: texts.names(section, "LayoutFile")?,
            signature,
        })
    }

    fn driver_version(&self, section: &Section) -> Result<(DriverDate, DriverVersion)> {
        let Some(entry) = section.entry("DriverVer") else { return Ok(Default::default()) };
        let mut texts = self.texts();
        let date = texts.value(entry, 0)?.parse().map_err(|what: String| super::wrong(entry, what))?;
        let version = match texts.present(entry, 1)? {
            Some(version) => version.parse().map_err(|what: String| super::wrong(entry, what))?,
            None => DriverVersion::default(),
        };
        Ok((date, version))
    }

    fn catalogs(&self, section: &Section) -> Result<Vec<(Option<Architecture>, String)>> {
        let mut texts = self.texts();
        let mut catalogs = Vec::new();
        for entry in &section.entries {
            let Some(key) = entry.key.as_deref().map(str::to_ascii_lowercase) else { continue };
            let architecture = match key.strip_prefix("catalogfile") {
                Some("" | ".nt") => None,
                Some(decoration) => match decoration.strip_prefix(".nt").and_then(|name| name.parse().ok()) {
                    Some(architecture) => Some(architecture),
                    None => continue,
                },
                None => continue,
            };
            catalogs.extend(texts.present(entry, 0)?.map(|name| (architecture, name)));
        }
        Ok(catalogs)
    }
}

impl Version {
    /// The catalog for an architecture: its own, or the one for all.
    pub fn catalog(&self, architecture: Architecture) -> Option<&str> {
        let of = |wanted: Option<Architecture>| self.catalogs.iter().find(|(for_one, _)| *for_one == wanted);
        of(Some(architecture)).or_else(|| of(None)).map(|(_, name)| name.as_str())
    }
}

/// Date of a driver. The later one is the better driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DriverDate {
    /// Year.
    pub year: u16,
    /// Month, from 1.
    pub month: u8,
    /// Day, from 1.
    pub day: u8,
}

impl DriverDate {
    /// `FILETIME` of its midnight: 100 ns since 1601-01-01. 0 without a date.
    pub fn filetime(self) -> u64 {
        if self.year < 1601 {
            return 0;
        }
        // Days since 0000-03-01 of the Gregorian calendar; 1601-01-01 is day 584694.
        let (year, month) = match self.month {
            0..=2 => (u64::from(self.year) - 1, u64::from(self.month) + 9),
            month => (u64::from(self.year), u64::from(month) - 3),
        };
        let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + u64::from(self.day) - 1;
        days.saturating_sub(584_694) * 864_000_000_000
    }
}

impl FromStr for DriverDate {
    type Err = String;

    /// `mm/dd/yyyy`, or with `-`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("expected a date mm/dd/yyyy, found {text:?}");
        let fields: Vec<&str> = text.trim().split(['/', '-']).collect();
        let [month, day, year] = fields[..] else { return Err(wrong()) };
        let number = |field: &str| field.trim().parse::<u16>().map_err(|_| wrong());
        let (month, day, year) = (number(month)?, number(day)?, number(year)?);
        match (u8::try_from(month), u8::try_from(day)) {
            (Ok(month @ 1..=12), Ok(day @ 1..=31)) if (1601..=9999).contains(&year) => Ok(Self { year, month, day }),
            (Ok(0), Ok(0)) if year == 0 => Ok(Self::default()),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for DriverDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl From<DriverDate> for String {
    fn from(date: DriverDate) -> Self {
        date.to_string()
    }
}

impl TryFrom<String> for DriverDate {
    type Error = String;

    /// `yyyy-mm-dd`, as [`fmt::Display`] writes it.
    fn try_from(text: String) -> std::result::Result<Self, String> {
        let fields: Vec<&str> = text.split('-').collect();
        let [year, month, day] = fields[..] else { return Err(format!("{text:?} is no date")) };
        format!("{month}/{day}/{year}").parse()
    }
}

/// Version of a driver, `w.x.y.z`; what is left out is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DriverVersion(pub [u16; 4]);

impl DriverVersion {
    /// As the driver database stores it: the first number in the highest 16 bits.
    pub fn packed(self) -> u64 {
        self.0.iter().fold(0, |packed, &number| packed << 16 | u64::from(number))
    }
}

impl FromStr for DriverVersion {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("expected a version w.x.y.z of numbers up to 65535, found {text:?}");
        let mut version = [0; 4];
        for (at, field) in text.trim().split('.').enumerate() {
            *version.get_mut(at).ok_or_else(wrong)? = field.trim().parse().map_err(|_| wrong())?;
        }
        Ok(Self(version))
    }
}

impl fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [w, x, y, z] = self.0;
        write!(f, "{w}.{x}.{y}.{z}")
    }
}

impl From<DriverVersion> for String {
    fn from(version: DriverVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for DriverVersion {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_section_is_read() {
        let text = "[version]\nSIGNATURE=\"$WINDOWS NT$\"\nClass=Net\nClassGUID={4D36E972-E325-11CE-BFC1-08002BE10318}\n\
                    Provider=%v%\nDriverVer=05/21/2022,100.90.104.22100 ; stamped\nCatalogFile=a.cat\n\
                    CatalogFile.NTamd64=b.cat\nCatalogFile.foo=c.cat\nPnpLockDown=1\n[Strings]\nv=\"Red Hat, Inc.\"\n";
        let version = Inf::parse(text.as_bytes()).unwrap().version().unwrap();
        assert_eq!(version.class_guid.as_deref(), Some("{4d36e972-e325-11ce-bfc1-08002be10318}"));
        assert_eq!(version.provider.as_deref(), Some("Red Hat, Inc."));
        assert_eq!(
            (version.date.to_string(), version.version.to_string()),
            ("2022-05-21".into(), "100.90.104.22100".into())
        );
        assert_eq!(
            (version.catalog(Architecture::Amd64), version.catalog(Architecture::X86)),
            (Some("b.cat"), Some("a.cat"))
        );
        assert!(version.lockdown);
    }

    #[test]
    fn what_is_no_inf_file_says_so() {
        let error = |text: &str| Inf::parse(text.as_bytes()).unwrap().version().unwrap_err().to_string();
        assert!(error("[foo]\na=b").contains("no [Version]"));
        assert!(error("[Version]\nSignature=x").contains("signature \"x\""));
        let dated = |date: &str| error(&format!("[Version]\nSignature=$Chicago$\nDriverVer={date}"));
        assert_eq!(dated("13/01/2020"), "line 3: expected a date mm/dd/yyyy, found \"13/01/2020\"");
        assert!(dated("12/01/2020,1.2.3.70000").contains("65535") && dated("12/01/2020,1.2.3.4.5").contains("w.x.y.z"));
    }

    /// As Windows itself wrote them: see `injection/database.rs`.
    #[test]
    fn dates_and_versions_are_packed_as_in_the_driver_database() {
        assert_eq!(
            "07/11/2019".parse::<DriverDate>().unwrap().filetime().to_le_bytes(),
            [0, 0x80, 0x24, 0x95, 0x7b, 0x37, 0xd5, 1]
        );
        assert_eq!("01/01/1601".parse::<DriverDate>().unwrap().filetime(), 0);
        assert_eq!("9.8.16.0".parse::<DriverVersion>().unwrap().packed().to_le_bytes(), [0, 0, 16, 0, 8, 0, 9, 0]);
        let date: DriverDate = "02/29/2024".parse().unwrap();
        assert_eq!(DriverDate::try_from(String::from(date)), Ok(date));
    }
}
