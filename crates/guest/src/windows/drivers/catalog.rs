//! Catalog files (`.cat`): what they say of the files of a driver, and of the releases and devices that it is for.
//!
//! A catalog is a certificate trust list in PKCS #7 SignedData (RFC 2315): Microsoft's OIDs 1.3.6.1.4.1.311.10.1 (the
//! list), 12.1.x (its members) and 12.2.1 (names with values). It is read, its signature is not verified: whether it
//! holds is decided by the Windows that loads the driver.

use serde::Serialize;

use super::der::{BMP_STRING, CONTEXT_0, Der, OBJECT_ID, OCTETS, SEQUENCE, SET};
use super::signer::Signer;
use crate::windows::{Architecture, Product, Release};
use crate::{Error, ErrorKind, Result};

/// Largest catalog, in bytes; those of a whole Windows have 3 MiB.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Members and attributes that are taken over.
const MEMBERS_MAX: usize = 65_536;
const ATTRIBUTES_MAX: usize = 65_536;

/// Releases of Windows 10 and later as catalogs name them, with the builds of workstations and servers.
const CODES: &[(&str, u32, u32)] = &[
    ("TH2", 10586, 14393),
    ("RS", 14393, 14393),
    ("RS1", 14393, 14393),
    ("RS2", 15063, 14393),
    ("RS3", 16299, 16299),
    ("RS4", 17134, 17134),
    ("RS5", 17763, 17763),
    ("19H1", 18362, 18362),
    ("Vb", 19041, 19041),
    ("21H2", 22000, 20348),
    ("FE", 20348, 20348),
    ("CO", 22000, 20348),
    ("22H2", 22621, 20348),
    ("NI", 22621, 20348),
    ("24H2", 26100, 26100),
    ("GE", 26100, 26100),
    ("25H2", 26200, 26100),
];

const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
/// 1.3.6.1.4.1.311.10.1, a certificate trust list.
const TRUST_LIST: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 1];
/// 1.3.6.1.4.1.311.2.1.4, the digest of a member.
const INDIRECT_DATA: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 4];
/// 1.3.6.1.4.1.311.10.3.5, "Windows Hardware Driver Verification", whole with tag and length: what the certificate is for with
/// which Microsoft signs drivers (Microsoft, "How to validate the Microsoft signature").
const CERTIFIED: &[u8] = &[OBJECT_ID, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 5];
/// 1.3.6.1.4.1.311.10.3.5.1, "Windows Hardware Driver Attested Verification": drivers that nobody tested.
const ATTESTED: &[u8] = &[OBJECT_ID, 11, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 5, 1];
/// 1.3.6.1.4.1.311.12.2.1, a name with a value.
const NAME_VALUE: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 12, 2, 1];

/// What a catalog says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Its files.
    pub members: Vec<Member>,
    /// Names with values, of the catalog itself.
    pub attributes: Vec<(String, String)>,
    /// Who signed it, by what the certificates are for.
    pub signature: Signature,
    /// The publisher that it names, where that can be read.
    pub signer: Option<Signer>,
}

/// Who signed a catalog, by what its certificates are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signature {
    /// Nobody.
    #[default]
    None,
    /// Its maker, or somebody on his behalf.
    Maker,
    /// Microsoft, on its maker's word.
    Attested,
    /// Microsoft, after its tests.
    Certified,
}

impl Signature {
    /// By the certificates of a PKCS #7 message.
    fn of(certificates: &[u8]) -> Self {
        let has = |purpose: &[u8]| certificates.windows(purpose.len()).any(|part| part == purpose);
        match certificates {
            [] => Self::None,
            // One that is attested is marked as both.
            _ if has(ATTESTED) => Self::Attested,
            _ if has(CERTIFIED) => Self::Certified,
            _ => Self::Maker,
        }
    }
}

/// A file of a catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Name without a path, in lower case as a rule; absent in some catalogs.
    pub file: Option<String>,
    /// SHA-1 or SHA-256: of the whole file, or for a program of what a signature covers.
    pub digest: Vec<u8>,
    /// Releases that this file is for, where they are said (`OSAttr`).
    pub targets: Option<Releases>,
}

/// Releases that a catalog names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Releases {
    /// As it is written: `2:6.1,2:6.2`.
    pub written: String,
    /// Versions of NT among them; no minor one means any.
    pub versions: Vec<(u16, Option<u16>)>,
}

/// Whether a catalog names a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It names it.
    Named,
    /// It says nothing of releases.
    Nothing,
    /// It names older ones only: Windows still loads the driver, and ranks it below those that are for it.
    OlderOnly,
    /// It names newer ones only: the driver may want what this one lacks.
    NewerOnly,
}

impl Catalog {
    /// Reads a catalog.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`]; [`ErrorKind::Malformed`] for what is none, with the place.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(Error::new(ErrorKind::TooLarge, format!("catalog of more than {} MiB", FILE_BYTES_MAX >> 20)));
        }
        let mut file = Der { bytes, base: 0 };
        let mut content_info = file.enter(SEQUENCE)?;
        content_info.oid(SIGNED_DATA, "PKCS #7 signed data")?;
        let mut signed = content_info.enter(CONTEXT_0)?.enter(SEQUENCE)?;
        signed.any()?; // version
        signed.enter(SET)?; // digest algorithms
        let mut content = signed.enter(SEQUENCE)?;
        content.oid(TRUST_LIST, "a certificate trust list")?;
        let mut list = content.enter(CONTEXT_0)?.enter(SEQUENCE)?;
        let mut catalog = Self::default();
        // Usage, id, time and algorithm come before the members, the attributes after them; ids and times are no sequences.
        let mut sequences = 0;
        while let Some((tag, mut inner)) = list.next()? {
            sequences += usize::from(tag == SEQUENCE);
            match (tag, sequences) {
                (SEQUENCE, 3) => catalog.read_members(&mut inner)?,
                (CONTEXT_0, _) => catalog.read_attributes(&mut inner)?,
                _ => {}
            }
        }
        // What it says of its files counts without it.
        catalog.signer = Signer::read(&mut signed.clone()).ok().flatten();
        if let Some((CONTEXT_0, certificates)) = signed.next()? {
            catalog.signature = Signature::of(certificates.bytes);
        }
        Ok(catalog)
    }

    /// The value of an attribute, by its name in any case.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Devices that it names (`HWID1`, `HWID2` …).
    pub fn device_ids(&self) -> impl Iterator<Item = &str> {
        let is_id = |name: &str| {
            let number = name.get(..4).filter(|head| head.eq_ignore_ascii_case("HWID")).map(|_| &name[4..]);
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        };
        self.attributes.iter().filter(move |(name, _)| is_id(name)).map(|(_, value)| value.as_str())
    }

    /// Whether the file has the digest of a member; `None` where the catalog has no digest of a kind known here.
    pub fn holds(&self, content: &[u8]) -> Option<bool> {
        let mut compared = None;
        for (algorithm, length) in [(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, 20), (&ring::digest::SHA256, 32)] {
            if !self.members.iter().any(|member| member.digest.len() == length) {
                continue;
            }
            let digest = ring::digest::digest(algorithm, content);
            let found = self.members.iter().any(|member| member.digest == digest.as_ref());
            compared = Some(compared.unwrap_or(false) || found);
        }
        compared
    }

    /// What it says of a release: by the catalog's own attribute, or those of its files together.
    pub fn says_of(&self, release: &Release) -> Said {
        let own = self.attribute("OSAttr").map(Releases::parse);
        let all: Vec<&Releases> = match &own {
            Some(own) => vec![own],
            None => self.members.iter().filter_map(|member| member.targets.as_ref()).collect(),
        };
        let versions: Vec<(u16, Option<u16>)> =
            all.iter().flat_map(|releases| releases.versions.iter().copied()).collect();
        let is = |&(major, minor): &(u16, Option<u16>)| {
            major == release.major && minor.is_none_or(|minor| minor == release.minor)
        };
        if versions.is_empty() {
            Said::Nothing
        } else if versions.iter().any(is) {
            Said::Named
        } else if versions.iter().all(|&(major, minor)| (major, minor.unwrap_or(0)) > release.version()) {
            Said::NewerOnly
        } else {
            Said::OlderOnly
        }
    }

    /// The build of the release closest to this one that its attribute `OS` names, as `inf2cat` writes them:
    /// `_v100_X64_24H2`, `Server_v100_X64_RS5`. It tells catalogs apart that name all of Windows 10 and later.
    pub fn closest_build(&self, release: &Release) -> Option<u32> {
        let server = release.product != Product::Workstation;
        let names = self.attributes.iter().filter(|(name, _)| name.eq_ignore_ascii_case("OS"));
        let builds = names.flat_map(|(_, names)| names.split(',')).filter_map(|name| {
            let (head, rest) = name.trim().split_once("_v100").or_else(|| name.trim().split_once("_V100"))?;
            let mut parts = rest.split('_').filter(|part| !part.is_empty()).peekable();
            let architecture = parts.next_if(|part| matches!(part.to_ascii_uppercase().as_str(), "X64" | "ARM64"));
            let architecture = architecture.map_or(Ok(Architecture::X86), str::parse).ok()?;
            let fits = architecture == release.architecture && head.eq_ignore_ascii_case("server") == server;
            let build = match parts.next() {
                None => Some(if server { 14393 } else { 10240 }),
                Some(code) => {
                    let known = CODES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(code))?;
                    Some(if server { known.2 } else { known.1 })
                }
            };
            build.filter(|&build| fits && build <= release.build && release.version() == (10, 0))
        });
        builds.max()
    }

    fn read_members(&mut self, members: &mut Der<'_>) -> Result<()> {
        while let Some((tag, mut inner)) = members.next()? {
            if tag != SEQUENCE {
                continue;
            }
            if self.members.len() == MEMBERS_MAX {
                return Err(Error::new(ErrorKind::TooLarge, format!("catalog of more than {MEMBERS_MAX} files")));
            }
            // A name of its own, or its digest in hexadecimal; the digest stands in the attributes as well.
            let (tag, tagged) = inner.any()?;
            let mut member = Member { digest: digest_of_tag(tag, tagged.bytes), ..Member::default() };
            if let Some((SET, mut attributes)) = inner.next()? {
                while let Some((SEQUENCE, mut attribute)) = attributes.next()? {
                    member.read(&mut attribute)?;
                }
            }
            self.members.push(member);
        }
        Ok(())
    }

    fn read_attributes(&mut self, outer: &mut Der<'_>) -> Result<()> {
        let mut extensions = outer.enter(SEQUENCE)?;
        while let Some((SEQUENCE, mut extension)) = extensions.next()? {
            let (OBJECT_ID, oid) = extension.any()? else { continue };
            let mut value = extension.any()?;
            // A critical extension has a boolean before its value.
            if value.0 == 0x01 {
                value = extension.any()?;
            }
            if oid.bytes == NAME_VALUE && value.0 == OCTETS {
                if self.attributes.len() == ATTRIBUTES_MAX {
                    return Err(Error::new(
                        ErrorKind::TooLarge,
                        format!("catalog of more than {ATTRIBUTES_MAX} attributes"),
                    ));
                }
                self.attributes.extend(name_value(&mut value.1)?);
            }
        }
        Ok(())
    }
}

impl Member {
    fn read(&mut self, attribute: &mut Der<'_>) -> Result<()> {
        let (OBJECT_ID, oid) = attribute.any()? else { return Ok(()) };
        let mut values = attribute.enter(SET)?;
        if oid.bytes == INDIRECT_DATA {
            // SpcIndirectDataContent: what it is of, then algorithm and digest.
            let mut data = values.enter(SEQUENCE)?;
            data.any()?;
            let mut digest = data.enter(SEQUENCE)?;
            digest.any()?;
            if let (OCTETS, octets) = digest.any()? {
                self.digest = octets.bytes.to_vec();
            }
        } else if oid.bytes == NAME_VALUE {
            while !values.bytes.is_empty() {
                match name_value(&mut values)? {
                    Some((name, value)) if name.eq_ignore_ascii_case("File") => self.file = Some(value),
                    Some((name, value)) if name.eq_ignore_ascii_case("OSAttr") => {
                        self.targets = Some(Releases::parse(&value))
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl Releases {
    /// `platform:version`, several between commas; platform 2 is NT. What has another form names no release here.
    pub fn parse(written: &str) -> Self {
        let one = |item: &str| {
            let (platform, version) = item.trim().split_once(':')?;
            let (major, minor) = version.split_once('.')?;
            let minor = minor.split('.').next().unwrap_or(minor);
            let any = minor.eq_ignore_ascii_case("x") || minor == "*";
            let minor = if any { None } else { Some(minor.parse().ok()?) };
            (platform.trim() == "2").then_some((major.parse().ok()?, minor))
        };
        Self { written: written.to_owned(), versions: written.split(',').filter_map(one).collect() }
    }
}

/// `SEQUENCE { BMPString name, INTEGER flags, OCTET STRING value }`, the value in UTF-16LE with its NUL.
fn name_value(der: &mut Der<'_>) -> Result<Option<(String, String)>> {
    let mut pair = der.enter(SEQUENCE)?;
    let (BMP_STRING, name) = pair.any()? else { return Ok(None) };
    pair.any()?;
    let (OCTETS, value) = pair.any()? else { return Ok(None) };
    Ok(Some((text(name.bytes, u16::from_be_bytes), text(value.bytes, u16::from_le_bytes))))
}

/// A member's tag: bytes of its digest, or the same in hexadecimal UTF-16.
fn digest_of_tag(tag: u8, bytes: &[u8]) -> Vec<u8> {
    if tag != OCTETS || matches!(bytes.len(), 20 | 32) {
        return bytes.to_vec();
    }
    let digits = text(bytes, u16::from_le_bytes);
    let pairs = digits.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect::<Option<Vec<u8>>>().unwrap_or_default()
}

/// Text of 16-bit units up to a NUL.
fn text(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units: Vec<u16> =
        bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).take_while(|&unit| unit != 0).collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82, length[0], length[1]][..], &content].concat()
    }

    fn wide(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    fn pair(name: &str, value: &str) -> Vec<u8> {
        let value = wide(&format!("{value}\0"), u16::to_le_bytes);
        let name = der(BMP_STRING, &[&wide(name, u16::to_be_bytes)]);
        der(SEQUENCE, &[&name, &[2, 1, 0], &der(OCTETS, &[&value])])
    }

    /// A catalog of one file, with its attributes.
    fn catalog(content: &[u8], attributes: &[(&str, &str)], of_file: &[(&str, &str)]) -> Vec<u8> {
        signed(content, attributes, of_file, &[])
    }

    /// The same with certificates.
    fn signed(content: &[u8], attributes: &[(&str, &str)], of_file: &[(&str, &str)], certificates: &[u8]) -> Vec<u8> {
        let digest = ring::digest::digest(&ring::digest::SHA256, content);
        let digest = der(SEQUENCE, &[&der(SEQUENCE, &[]), &der(OCTETS, &[digest.as_ref()])]);
        let data = der(SEQUENCE, &[&der(SEQUENCE, &[]), &digest]);
        let mut member = der(SEQUENCE, &[&der(OBJECT_ID, &[INDIRECT_DATA]), &der(SET, &[&data])]);
        for (name, value) in of_file {
            member.extend(der(SEQUENCE, &[&der(OBJECT_ID, &[NAME_VALUE]), &der(SET, &[&pair(name, value)])]));
        }
        let members = der(SEQUENCE, &[&der(SEQUENCE, &[&der(OCTETS, &[b"tag"]), &der(SET, &[&member])])]);
        let mut extensions = Vec::new();
        for (name, value) in attributes {
            extensions.extend(der(SEQUENCE, &[&der(OBJECT_ID, &[NAME_VALUE]), &der(OCTETS, &[&pair(name, value)])]));
        }
        let extensions = der(CONTEXT_0, &[&der(SEQUENCE, &[&extensions])]);
        let [usage, algorithm] = [der(SEQUENCE, &[]), der(SEQUENCE, &[])];
        let list =
            der(SEQUENCE, &[&usage, &der(OCTETS, &[b"id"]), &der(0x17, &[b"time"]), &algorithm, &members, &extensions]);
        let content = der(SEQUENCE, &[&der(OBJECT_ID, &[TRUST_LIST]), &der(CONTEXT_0, &[&list])]);
        let mut parts: Vec<&[u8]> = vec![&[2, 1, 1], &[SET, 0], &content];
        let certificates = der(CONTEXT_0, &[certificates]);
        if certificates.len() > 4 {
            parts.push(&certificates);
        }
        let signed = der(SEQUENCE, &parts);
        der(SEQUENCE, &[&der(OBJECT_ID, &[SIGNED_DATA]), &der(CONTEXT_0, &[&signed])])
    }

    fn said(os_attr: &str, release: &str) -> Said {
        let bytes = catalog(b"x", &[("OSAttr", os_attr)], &[]);
        Catalog::parse(&bytes).unwrap().says_of(&Release::parse(release, Architecture::Amd64).unwrap())
    }

    #[test]
    fn files_and_attributes_are_read() {
        let bytes =
            catalog(b"[Version]", &[("HWID1", "pci\\ven_1af4"), ("HWIDs", "no"), ("OS", "7X64")], &[("File", "a.inf")]);
        let catalog = Catalog::parse(&bytes).unwrap();
        assert_eq!(catalog.members[0].file.as_deref(), Some("a.inf"));
        assert_eq!(catalog.device_ids().collect::<Vec<_>>(), ["pci\\ven_1af4"]);
        assert_eq!(catalog.attribute("os"), Some("7X64"));
        assert_eq!((catalog.holds(b"[Version]"), catalog.holds(b"[Version] ")), (Some(true), Some(false)));
        assert_eq!(Catalog::default().holds(b""), None);
    }

    #[test]
    fn a_catalog_names_releases() {
        assert_eq!((said("2:6.1", "7"), said("2:5.1,2:5.2", "7")), (Said::Named, Said::OlderOnly));
        assert_eq!((said("2:10.0", "2008r2"), said("2:10.0", "11")), (Said::NewerOnly, Said::Named));
        assert_eq!((said("2:6.1,2:10.0", "8"), said("2:6.x", "8.1")), (Said::OlderOnly, Said::Named));
        assert_eq!((said("", "8"), said("1:6.1,foo", "8")), (Said::Nothing, Said::Nothing));
        // Without one of the catalog's own, those of its files count.
        let bytes = catalog(b"x", &[], &[("OSAttr", "2:6.2")]);
        let release = Release::parse("8", Architecture::Amd64).unwrap();
        assert_eq!(Catalog::parse(&bytes).unwrap().says_of(&release), Said::Named);
    }

    #[test]
    fn the_closest_of_the_releases_that_a_catalog_lists_is_told() {
        let os = "_v100,_v100_X64,_v100_X64_24H2,Server_v100_X64_RS5,Server_v100_X64_21H2,7X64,_v100_ARM64_22H2";
        let catalog = Catalog::parse(&catalog(b"x", &[("OS", os)], &[])).unwrap();
        let closest = |release: &str| catalog.closest_build(&Release::parse(release, Architecture::Amd64).unwrap());
        assert_eq!((closest("10"), closest("10.0.26200")), (Some(10240), Some(26100)));
        assert_eq!((closest("2016"), closest("2019"), closest("2025")), (None, Some(17763), Some(20348)));
        assert_eq!(closest("7"), None);
    }

    #[test]
    fn who_signed_it_is_told_by_what_the_certificates_are_for() {
        let of = |certificates: &[u8]| Catalog::parse(&signed(b"x", &[], &[], certificates)).unwrap().signature;
        let with = |purposes: &[&[u8]]| of(&der(SEQUENCE, &[&der(SEQUENCE, purposes)]));
        assert_eq!((of(&[]), with(&[b"a maker's"])), (Signature::None, Signature::Maker));
        assert_eq!((with(&[CERTIFIED]), with(&[CERTIFIED, ATTESTED])), (Signature::Certified, Signature::Attested));
    }

    #[test]
    fn what_is_no_catalog_is_refused_with_its_place() {
        let error = |bytes: &[u8]| Catalog::parse(bytes).unwrap_err().to_string();
        assert_eq!(error(b""), "catalog at 0x0: expected a value");
        assert_eq!(error(b"[Version]"), "catalog at 0x0: expected 86 bytes, found 7");
        assert_eq!(error(&[0x30, 0x80]), "catalog at 0x0: a length that DER has not");
        assert_eq!(error(&[0x30, 0x03, 0x06, 1, 9]), "catalog at 0x4: this is not PKCS #7 signed data");
        let whole = catalog(b"x", &[("a", "b")], &[("File", "x")]);
        for end in 0..whole.len() {
            assert!(Catalog::parse(&whole[..end]).is_err(), "{end} of {}", whole.len());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_changed_byte_is_survived(at in 0usize..600, byte in proptest::prelude::any::<u8>()) {
            let mut bytes = catalog(b"x", &[("a", "b"), ("OSAttr", "2:6.1")], &[("File", "x")]);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let _ = Catalog::parse(&bytes);
        }
    }
}
