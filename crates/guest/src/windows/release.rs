//! A release of Windows as drivers ask for it: version, build, architecture, product type and suites.
//!
//! Names and numbers follow Microsoft's "Operating System Version" table and, for builds, "Windows 10/11 release
//! information" and "Windows Server release information".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Processor architecture, with the spelling of INF files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// 32-bit x86.
    X86,
    /// 64-bit x86.
    Amd64,
    /// Itanium.
    Ia64,
    /// 32-bit ARM.
    Arm,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    const ALL: [Self; 5] = [Self::X86, Self::Amd64, Self::Ia64, Self::Arm, Self::Arm64];

    /// As INF files write it: `amd64`.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86",
            Self::Amd64 => "amd64",
            Self::Ia64 => "ia64",
            Self::Arm => "arm",
            Self::Arm64 => "arm64",
        }
    }

    /// `PROCESSOR_ARCHITECTURE_…` of Winnt.h, as the driver database stores it.
    pub fn number(self) -> u16 {
        match self {
            Self::X86 => 0,
            Self::Arm => 5,
            Self::Ia64 => 6,
            Self::Amd64 => 9,
            Self::Arm64 => 12,
        }
    }

    /// Machine type of programs for it in their PE header.
    pub fn pe_machine(self) -> u16 {
        match self {
            Self::X86 => 0x14c,
            Self::Arm => 0x1c4,
            Self::Ia64 => 0x200,
            Self::Amd64 => 0x8664,
            Self::Arm64 => 0xaa64,
        }
    }

    /// Whether programs are 64-bit ones.
    pub fn is_64_bit(self) -> bool {
        !matches!(self, Self::X86 | Self::Arm)
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = match text.to_ascii_lowercase().as_str() {
            "x86_64" | "x64" => "amd64".to_owned(),
            "i386" | "i686" => "x86".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        };
        let known = Self::ALL.into_iter().find(|one| one.name() == name);
        known.ok_or_else(|| format!("{text:?} is no architecture of Windows: x86, amd64, ia64, arm or arm64"))
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `VER_NT_…` of Winnt.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Product {
    /// `VER_NT_WORKSTATION`.
    Workstation = 1,
    /// `VER_NT_DOMAIN_CONTROLLER`.
    DomainController = 2,
    /// `VER_NT_SERVER`.
    Server = 3,
}

/// A release of Windows on one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Release {
    /// Major version: 10 for Windows 10, 11 and Server 2016 to 2025.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
    /// Build.
    pub build: u32,
    /// Architecture.
    pub architecture: Architecture,
    /// Product type.
    pub product: Product,
    /// `VER_SUITE_…` of Winnt.h.
    pub suites: u32,
}

/// What is typed for a release: name, version, build, whether it is a server.
const NAMED: &[(&str, u16, u16, u32, bool)] = &[
    ("xp", 5, 1, 2600, false),
    ("2003", 5, 2, 3790, true),
    ("vista", 6, 0, 6002, false),
    ("2008", 6, 0, 6002, true),
    ("7", 6, 1, 7601, false),
    ("2008r2", 6, 1, 7601, true),
    ("8", 6, 2, 9200, false),
    ("2012", 6, 2, 9200, true),
    ("8.1", 6, 3, 9600, false),
    ("2012r2", 6, 3, 9600, true),
    ("10", 10, 0, 19045, false),
    ("2016", 10, 0, 14393, true),
    ("2019", 10, 0, 17763, true),
    ("2022", 10, 0, 20348, true),
    ("11", 10, 0, 22621, false),
    ("2025", 10, 0, 26100, true),
];

impl Release {
    /// A release by its version, build and architecture: a workstation without suites.
    pub fn new(version: (u16, u16), build: u32, architecture: Architecture) -> Self {
        Self { major: version.0, minor: version.1, build, architecture, product: Product::Workstation, suites: 0 }
    }

    /// Every release that has a name of its own, on one architecture.
    pub fn all(architecture: Architecture) -> Vec<Self> {
        NAMED.iter().filter_map(|named| Self::parse(named.0, architecture).ok()).collect()
    }

    /// A release as people write it: `10.0.17763`, `6.1`, `2008r2`, `11`.
    ///
    /// # Errors
    /// What may be written.
    pub fn parse(text: &str, architecture: Architecture) -> Result<Self, String> {
        let name = text.trim().to_ascii_lowercase().replace("windows", "").replace("server", "").replace(' ', "");
        if let Some(&(_, major, minor, build, server)) = NAMED.iter().find(|named| named.0 == name) {
            let product = if server { Product::Server } else { Product::Workstation };
            return Ok(Self { product, ..Self::new((major, minor), build, architecture) });
        }
        let wrong = || {
            let names: Vec<&str> = NAMED.iter().map(|named| named.0).collect();
            format!("{text:?} is no release of Windows: a version such as 10.0.17763, or one of {}", names.join(", "))
        };
        let numbers: Option<Vec<u32>> = name.split('.').map(|number| number.parse().ok()).collect();
        let numbers = numbers.filter(|numbers| (2..=4).contains(&numbers.len())).ok_or_else(wrong)?;
        let version = |at: usize| u16::try_from(numbers[at]).map_err(|_| wrong());
        let version = (version(0)?, version(1)?);
        let first = NAMED.iter().find(|named| (named.1, named.2) == version).map_or(0, |named| named.3);
        Ok(Self::new(version, numbers.get(2).copied().unwrap_or(first), architecture))
    }

    /// This release as each product type.
    pub fn of_each_product(self) -> [Self; 3] {
        [Product::Workstation, Product::DomainController, Product::Server].map(|product| Self { product, ..self })
    }

    /// Major and minor version.
    pub fn version(&self) -> (u16, u16) {
        (self.major, self.minor)
    }

    /// What it is called, as far as version, build and product type tell.
    pub fn name(&self) -> &'static str {
        let server = self.product != Product::Workstation;
        match (self.version(), self.build, server) {
            ((5, 0), ..) => "Windows 2000",
            ((5, 1), ..) => "Windows XP",
            ((5, 2), _, true) => "Windows Server 2003",
            ((5, 2), _, false) => "Windows XP x64 or Server 2003",
            ((6, 0), _, true) => "Windows Server 2008",
            ((6, 0), _, false) => "Windows Vista",
            ((6, 1), _, true) => "Windows Server 2008 R2",
            ((6, 1), _, false) => "Windows 7",
            ((6, 2), _, true) => "Windows Server 2012",
            ((6, 2), _, false) => "Windows 8",
            ((6, 3), _, true) => "Windows Server 2012 R2",
            ((6, 3), _, false) => "Windows 8.1",
            ((10, 0), 26100.., true) => "Windows Server 2025",
            ((10, 0), 20348.., true) => "Windows Server 2022",
            ((10, 0), 17763.., true) => "Windows Server 2019",
            ((10, 0), _, true) => "Windows Server 2016",
            ((10, 0), 22000.., false) => "Windows 11",
            ((10, 0), _, false) => "Windows 10",
            _ => "Windows",
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}.{}.{}, {})", self.name(), self.major, self.minor, self.build, self.architecture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_written_by_its_name_or_version() {
        let parse = |text: &str| Release::parse(text, Architecture::Amd64).unwrap();
        assert_eq!(parse("10.0.17763").to_string(), "Windows 10 (10.0.17763, amd64)");
        assert_eq!(parse("Windows Server 2019").to_string(), "Windows Server 2019 (10.0.17763, amd64)");
        assert_eq!(parse("6.1").build, 7601);
        assert_eq!(parse("2008R2").product, Product::Server);
        assert_eq!(parse("8.1").version(), (6, 3));
        for wrong in ["", "nt", "12", "10.0.x", "70000.0", "1.2.3.4.5"] {
            assert!(Release::parse(wrong, Architecture::X86).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_architecture_is_read_as_people_write_it() {
        assert_eq!("x86_64".parse(), Ok(Architecture::Amd64));
        assert_eq!("ARM64".parse(), Ok(Architecture::Arm64));
        assert!("mips".parse::<Architecture>().is_err());
    }
}
