//! Which driver fits a device best on a release, as "How Windows Ranks Driver Packages" has it.
//!
//! A rank is 0xSSGGTHHH. The signature's score SS is left aside but for one thing: a driver whose catalog names the
//! release goes before one whose catalog does not. GG is the feature score, THHH tells which identifier of the device
//! matched which of the file. Equal ranks are told apart by date, then by version. What Windows leaves open is decided
//! by the release that the catalog lists and by the closer decoration, so that the answer is always the same.

use std::cmp::Reverse;
use std::fmt;

use serde::Serialize;

use super::catalog::{Catalog, Said};
use crate::Result;
use crate::windows::Release;
use crate::windows::inf::{DriverDate, DriverVersion, Inf, Model, Target};

/// Highest position of an identifier in a list that a rank can tell.
const POSITION_MAX: usize = 0xfff;

/// A device by its identifiers, the most specific first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Hardware ids.
    pub hardware_ids: Vec<String>,
    /// Compatible ids.
    pub compatible_ids: Vec<String>,
}

/// Kind of the two identifiers that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Identifier {
    /// A hardware id of the device is the hardware id of the file.
    Hardware,
    /// A hardware id of the device is a compatible id of the file.
    HardwareOfCompatible,
    /// A compatible id of the device is the hardware id of the file.
    CompatibleOfHardware,
    /// A compatible id of both.
    Compatible,
}

/// How well a driver fits; less is better.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ranking {
    /// Whether its catalog names the release.
    unnamed: bool,
    rank: u32,
    date: Reverse<DriverDate>,
    version: Reverse<DriverVersion>,
    /// What Windows leaves open: the closest build that the catalog lists, then the decoration.
    listed: Reverse<Option<u32>>,
    target_version: Reverse<Option<(u16, u16)>>,
    target_build: Reverse<Option<u32>>,
}

/// An entry of a file that fits a device on a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// How well.
    pub ranking: Ranking,
    /// The entry.
    pub model: Model,
    /// Its manufacturer.
    pub manufacturer: String,
    /// Decoration of the section that it stands in.
    pub target: Target,
    /// The identifier that matched.
    pub id: String,
    /// Of which kind.
    pub identifier: Identifier,
    /// What the catalog says of the release; nothing where there is none.
    pub said: Said,
}

/// A match of one of several drivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<T> {
    /// The driver.
    pub driver: T,
    /// How it fits.
    pub found: Match,
}

impl Device {
    /// A device as the bus driver of PCI reports it, from its longest identifier; any other is taken as its only one.
    ///
    /// Follows "Identifiers for PCI Devices". An identifier without subsystem, revision or class gives fewer.
    pub fn from_id(id: &str) -> Self {
        let id = id.trim();
        let rest = id.get(..4).filter(|bus| bus.eq_ignore_ascii_case("PCI\\")).map(|_| &id[4..]);
        let part = |name: &str| {
            let parts = rest.into_iter().flat_map(|rest| rest.split('&'));
            parts
                .filter_map(|part| part.split_once('_'))
                .find(|(own, _)| own.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let (Some(vendor), Some(device)) = (part("VEN"), part("DEV")) else {
            return Self { hardware_ids: vec![id.to_owned()], compatible_ids: Vec::new() };
        };
        let base = format!("PCI\\VEN_{vendor}&DEV_{device}");
        let class = part("CC").map(|class| (class, class.get(..4).unwrap_or(class)));
        let mut hardware_ids = Vec::new();
        if let Some(subsystem) = part("SUBSYS") {
            hardware_ids.extend(part("REV").map(|revision| format!("{base}&SUBSYS_{subsystem}&REV_{revision}")));
            hardware_ids.push(format!("{base}&SUBSYS_{subsystem}"));
        }
        let mut compatible_ids: Vec<String> =
            part("REV").map(|revision| format!("{base}&REV_{revision}")).into_iter().collect();
        compatible_ids.push(base.clone());
        if let Some((class, short)) = class {
            hardware_ids.extend([format!("{base}&CC_{class}"), format!("{base}&CC_{short}")]);
            compatible_ids.extend([format!("PCI\\VEN_{vendor}&CC_{class}"), format!("PCI\\VEN_{vendor}&CC_{short}")]);
            compatible_ids.push(format!("PCI\\VEN_{vendor}"));
            compatible_ids.extend([format!("PCI\\CC_{class}"), format!("PCI\\CC_{short}")]);
        }
        if hardware_ids.is_empty() {
            hardware_ids.push(base);
            compatible_ids.retain(|id| !hardware_ids.contains(id));
        }
        hardware_ids.dedup();
        Self { hardware_ids, compatible_ids }
    }

    fn position(ids: &[String], wanted: &str) -> Option<usize> {
        ids.iter().position(|id| !wanted.is_empty() && id.eq_ignore_ascii_case(wanted)).map(|at| at.min(POSITION_MAX))
    }

    /// The best identifier score of an entry, with the identifier that gave it.
    fn score(&self, model: &Model) -> Option<(usize, Identifier, String)> {
        let mut best: Option<(usize, Identifier, String)> = None;
        let mut offer = |score: usize, identifier: Identifier, id: &str| {
            if best.as_ref().is_none_or(|(known, ..)| score < *known) {
                best = Some((score, identifier, id.to_owned()));
            }
        };
        let own = &model.hardware_id;
        if let Some(at) = Self::position(&self.hardware_ids, own) {
            offer(at, Identifier::Hardware, own);
        }
        if let Some(at) = Self::position(&self.compatible_ids, own) {
            offer(0x2000 + at, Identifier::CompatibleOfHardware, own);
        }
        for (k, id) in model.compatible_ids.iter().enumerate() {
            if let Some(at) = Self::position(&self.hardware_ids, id) {
                offer(0x1000 + at, Identifier::HardwareOfCompatible, id);
            }
            if let Some(at) = Self::position(&self.compatible_ids, id) {
                let position = k.saturating_mul(0x100).saturating_add(at).min(POSITION_MAX);
                offer(0x3000 + position, Identifier::Compatible, id);
            }
        }
        best
    }
}

/// The entry of a file that fits a device best on a release; `None` where none does.
///
/// A file whose catalog names only newer releases is for none of the older ones: it was made with what they lack.
///
/// # Errors
/// [`crate::ErrorKind::Malformed`] or [`crate::ErrorKind::TooLarge`] for what the file says.
pub fn matches(inf: &Inf, catalog: Option<&Catalog>, device: &Device, release: &Release) -> Result<Option<Match>> {
    let said = catalog.map_or(Said::Nothing, |catalog| catalog.says_of(release));
    if said == Said::NewerOnly {
        return Ok(None);
    }
    let version = inf.version()?;
    let mut best: Option<Match> = None;
    for models in inf.models_for(release)? {
        for model in models.models {
            let Some((score, identifier, id)) = device.score(&model) else { continue };
            // Feature scores came with Vista.
            let feature = match release.major {
                6.. => inf.installation(&model.install_section, release).map_or(0xff, |found| found.feature_score),
                _ => 0,
            };
            let ranking = Ranking {
                unnamed: said == Said::OlderOnly,
                rank: u32::from(feature) << 16 | u32::try_from(score).unwrap_or(u32::MAX),
                date: Reverse(version.date),
                version: Reverse(version.version),
                listed: Reverse(catalog.and_then(|catalog| catalog.closest_build(release))),
                target_version: Reverse(models.target.version),
                target_build: Reverse(models.target.build),
            };
            if best.as_ref().is_none_or(|best| ranking < best.ranking) {
                let (manufacturer, target) = (models.manufacturer.clone(), models.target.clone());
                best = Some(Match { ranking, model, manufacturer, target, id, identifier, said });
            }
        }
    }
    Ok(best)
}

/// Drivers that fit, the best one first; equal ones stay in their order.
pub fn best<T>(mut candidates: Vec<Candidate<T>>) -> Vec<Candidate<T>> {
    candidates.sort_by(|a, b| a.found.ranking.cmp(&b.found.ranking));
    candidates
}

impl Ranking {
    /// The rank without a signature's score: 0x00GGTHHH.
    pub fn rank(&self) -> u32 {
        self.rank
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hardware => "hardware id",
            Self::HardwareOfCompatible => "hardware id of the device, a compatible id of the driver",
            Self::CompatibleOfHardware => "compatible id of the device, the hardware id of the driver",
            Self::Compatible => "compatible id",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::Architecture;

    fn release(text: &str) -> Release {
        Release::parse(text, Architecture::Amd64).unwrap()
    }

    fn inf(version: &str, models: &str) -> Inf {
        let text = format!(
            "[Version]\nSignature=$Windows NT$\nDriverVer={version}\n[Manufacturer]\nm=s,NTamd64\n[s.NTamd64]\n{models}\n\
             [i]\n[good]\nFeatureScore=10\n"
        );
        Inf::parse(text.as_bytes()).unwrap()
    }

    fn rank(device: &Device, models: &str) -> Option<u32> {
        let found = matches(&inf("01/01/2020,1.0", models), None, device, &release("10")).unwrap();
        found.map(|found| found.ranking.rank())
    }

    /// The table of "Driver Package Rank Example".
    #[test]
    fn ranks_are_those_of_the_documentation() {
        let ids = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
        let device = Device { hardware_ids: ids(&["H1", "H2"]), compatible_ids: ids(&["C1", "C2"]) };
        let table = [
            ("h1", 0),
            ("h2", 1),
            ("c1", 0x2000),
            ("c2", 0x2001),
            ("x,H1", 0x1000),
            ("x,H2", 0x1001),
            ("x,C1", 0x3000),
            ("x,C2", 0x3001),
            ("x,y,H1", 0x1000),
            ("x,y,H2", 0x1001),
            ("x,y,C1", 0x3100),
            ("x,y,C2", 0x3101),
        ];
        for (models, expected) in table {
            assert_eq!(rank(&device, &format!("d=i,{models}")), Some(0xff_0000 + expected), "{models}");
        }
        assert_eq!(rank(&device, "d=i,other"), None);
        assert_eq!(rank(&device, "d=i,,other"), None);
        assert_eq!(rank(&device, "d=i,C1\nd=good,C2"), Some(0x10_2001));
    }

    #[test]
    fn equal_ranks_are_told_apart_by_date_then_version() {
        let device = Device::from_id("ROOT\\X");
        let candidate = |version: &str| {
            let found = matches(&inf(version, "d=i,root\\x"), None, &device, &release("10")).unwrap().unwrap();
            Candidate { driver: version.to_owned(), found }
        };
        let all = ["01/01/2020,9.0", "02/01/2020,1.0", "02/01/2020,1.0.0.1", "12/31/2019,99.0"];
        let order: Vec<String> =
            best(all.map(candidate).into()).into_iter().map(|candidate| candidate.driver).collect();
        assert_eq!(order, [all[2], all[1], all[0], all[3]]);
    }

    #[test]
    fn a_pci_device_has_the_identifiers_that_its_bus_reports() {
        let device = Device::from_id("pci\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00&CC_010000");
        let base = "PCI\\VEN_1AF4&DEV_1001";
        let hardware = ["&SUBSYS_00021AF4&REV_00", "&SUBSYS_00021AF4", "&CC_010000", "&CC_0100"];
        assert_eq!(device.hardware_ids, hardware.map(|rest| format!("{base}{rest}")));
        assert_eq!(device.compatible_ids[..2], [format!("{base}&REV_00"), base.to_owned()]);
        assert_eq!(device.compatible_ids.last().unwrap(), "PCI\\CC_0100");
        let short = Device::from_id(base);
        assert_eq!((short.hardware_ids, short.compatible_ids), (vec![base.to_owned()], vec![]));
        let plain = Device::from_id("PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4");
        assert_eq!((plain.hardware_ids.len(), plain.compatible_ids), (1, vec![base.to_owned()]));
    }
}
