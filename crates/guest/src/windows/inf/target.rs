//! "Combining Platform Extensions with Operating System Versions": the release that a models section is for.

use std::cmp::Reverse;
use std::fmt;

use super::parse_number;
use crate::windows::{Architecture, Product, Release};

/// First build of Windows 10 that reads a build number here; an older one does not take the decoration as valid.
const BUILD_READ_SINCE: u32 = 14310;

/// `TargetOSVersion`: `NT[architecture][.[major][.[minor][.[product type][.[suites][.[build]]]]]]`.
///
/// The default one is for any release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// Architecture.
    pub architecture: Option<Architecture>,
    /// Lowest version, a minor one that is left out being 0.
    pub version: Option<(u16, u16)>,
    /// Product type.
    pub product: Option<u32>,
    /// Suites that must all be there.
    pub suites: Option<u32>,
    /// Lowest build, if the version is exactly that.
    pub build: Option<u32>,
}

impl Target {
    /// Reads a decoration.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.split_once('.').map_or((text, None), |(head, rest)| (head, Some(rest)));
        let name = head.get(..2).filter(|nt| nt.eq_ignore_ascii_case("nt")).map(|_| &head[2..])?;
        let mut target = Self::default();
        if !name.is_empty() {
            target.architecture = Some(name.parse().ok()?);
        }
        let fields: Vec<&str> = rest.map(|rest| rest.split('.').collect()).unwrap_or_default();
        if fields.len() > 5 {
            return None;
        }
        let number = |at: usize| -> Option<Option<u32>> {
            match fields.get(at).map(|field| field.trim()) {
                None | Some("") => Some(None),
                Some(field) => parse_number(field).map(Some),
            }
        };
        let [major, minor] = [number(0)?, number(1)?];
        if let Some(major) = major {
            target.version = Some((u16::try_from(major).ok()?, u16::try_from(minor.unwrap_or(0)).ok()?));
        } else if minor.is_some() {
            return None;
        }
        [target.product, target.suites, target.build] = [number(2)?, number(3)?, number(4)?];
        Some(target)
    }

    /// Whether a release takes it.
    pub fn takes(&self, release: &Release) -> bool {
        let architecture = match self.architecture {
            Some(architecture) => architecture == release.architecture,
            // Since Server 2003 SP1 only x86 may do without.
            None => release.architecture == Architecture::X86 || release.version() < (5, 2),
        };
        let version = self.version.is_none_or(|version| release.version() >= version);
        let product = self.product.is_none_or(|product| product == release.product as u32);
        let suites = self.suites.is_none_or(|suites| release.suites & suites == suites);
        let build = self.build.is_none_or(|build| {
            (release.version(), release.build) >= ((10, 0), BUILD_READ_SINCE)
                && (Some(release.version()) != self.version || release.build >= build)
        });
        architecture && version && product && suites && build
    }

    /// Of several that a release takes, the smallest is the closest: the highest version, then build, product type,
    /// suites, and one that names the architecture.
    pub(super) fn distance(&self) -> impl Ord + use<> {
        let suites = self.suites.map_or(0, u32::count_ones);
        let named = self.architecture.is_some();
        Reverse((self.version, self.build, self.product.is_some(), suites, named))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = vec![format!("NT{}", self.architecture.map_or("", Architecture::name))];
        fields.push(self.version.map_or(String::new(), |version| version.0.to_string()));
        fields.push(self.version.map_or(String::new(), |version| version.1.to_string()));
        fields.push(self.product.map_or(String::new(), |product| product.to_string()));
        fields.push(self.suites.map_or(String::new(), |suites| format!("0x{suites:x}")));
        fields.push(self.build.map_or(String::new(), |build| build.to_string()));
        f.write_str(fields.join(".").trim_end_matches('.'))
    }
}

impl Product {
    /// By its number in a decoration.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Workstation, Self::DomainController, Self::Server].into_iter().find(|&product| product as u32 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(target: &str, release: &str, architecture: Architecture) -> bool {
        Target::parse(target).unwrap().takes(&Release::parse(release, architecture).unwrap())
    }

    #[test]
    fn a_decoration_is_a_lowest_version() {
        let amd64 = Architecture::Amd64;
        assert!(takes("NTamd64.6.1", "6.1", amd64) && takes("ntAMD64.6.1", "10.0.17763", amd64));
        assert!(!takes("NTamd64.6.1", "6.0", amd64) && !takes("NTx86.6.1", "6.1", amd64));
        assert!(takes("NT.5.1", "xp", Architecture::X86) && !takes("NT", "7", amd64));
        assert!(takes("NT.5", "xp", Architecture::X86) && !takes("NT.5.5", "xp", Architecture::X86));
        assert!(takes("NTx86...1", "7", Architecture::X86) && !takes("NTx86...3", "7", Architecture::X86));
        assert!(takes("NTamd64...3", "2008r2", amd64));
        assert!(!takes("NTx86....0x80", "xp", Architecture::X86));
    }

    #[test]
    fn a_build_counts_for_its_own_version_only() {
        let amd64 = Architecture::Amd64;
        assert!(takes("NTamd64.10.0...16299", "10.0.17763", amd64));
        assert!(takes("NTamd64.10.0...16299", "10.0.16299", amd64));
        assert!(!takes("NTamd64.10.0...16299", "10.0.14393", amd64));
        assert!(!takes("NTamd64.10.0...16299", "8.1", amd64));
        assert!(takes("NTamd64.10.0...16299", "10.1.5", amd64));
        // 10240 does not know builds in decorations at all.
        assert!(!takes("NTamd64.6.1...7600", "10.0.10240", amd64));
    }

    #[test]
    fn what_is_no_decoration_is_none() {
        for wrong in ["", "n", "ntfoo", "amd64", "NTamd64.x", "NT..1", "NT.1.2.3.4.5.6", "NT.70000", "ñt"] {
            assert_eq!(Target::parse(wrong), None, "{wrong}");
        }
        for text in ["NT", "NTamd64", "NTamd64.10.0...16299", "NTx86.5.1", "NTx86....0x80", "NT.6.1.3"] {
            assert_eq!(Target::parse(text).unwrap().to_string(), text);
        }
    }
}
