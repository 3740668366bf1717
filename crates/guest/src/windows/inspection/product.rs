//! What Windows it is, and what it is called in its network.
//!
//! `ProductName` of Windows 11 still says "Windows 10" (builds from 22000 on: Microsoft, "Windows 11 release
//! information"), so it is corrected by the build. A member of a domain starts Netlogon by itself, any other machine on
//! demand (Microsoft, "How to configure a computer to be a member of a domain"); a device of Entra ID has a key below
//! `CloudDomainJoin\JoinInfo`. Workgroups' names stand in the hive SECURITY, which is not read.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fields::{Reader, answer};
use crate::Result;
use crate::windows::{Product, Release, Windows};
use machine::Note;

/// First build of Windows 11.
const WINDOWS_11: u32 = 22_000;
/// `Start` of a service that Windows starts by itself.
const AUTOMATIC: u32 = 2;

/// A Windows and its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What to call it: `Windows 11 Pro`.
    pub product: String,
    /// `ProductName` where that is something else.
    pub product_name: Option<String>,
    /// `Professional`, `ServerStandard`: since Vista.
    pub edition: Option<String>,
    /// `Client`, `Server`, `Server Core`: since Vista.
    pub installation: Option<String>,
    /// Version, build, architecture, product type.
    pub release: Release,
    /// `22H2`, `1809`: since Windows 10.
    pub feature_update: Option<String>,
    /// The number after the build: since Windows 10.
    pub revision: Option<u32>,
    /// `Service Pack 1`: before Windows 8.
    pub service_pack: Option<String>,
    /// Host name of TCP/IP after the next start, else the NetBIOS name.
    pub hostname: Option<String>,
    /// A host name that is in use until the next start.
    pub hostname_until_restart: Option<String>,
    /// Whether it belongs to a domain of Active Directory; the domain's DNS name, if it is told.
    pub membership: Membership,
    /// Whether it is a device of Entra ID (Azure AD).
    pub is_cloud_joined: bool,
}

/// What the machine belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// No domain.
    Workgroup,
    /// A domain, by its DNS name, or its NetBIOS name where there is no other.
    Domain(Option<String>),
}

impl Identity {
    /// The identity of an installation.
    ///
    /// # Errors
    /// What the hives say; what is not told is `None`.
    pub fn of(windows: &Windows, tree: &dyn crate::FileTree) -> Result<Self> {
        Self::read(&Reader::new(windows, tree))
    }

    pub(super) fn read(reader: &Reader<'_>) -> Result<Self> {
        let version = reader.software("Microsoft\\Windows NT\\CurrentVersion")?;
        let release = reader.windows.release;
        let registered = version.text("ProductName")?;
        let product = product(registered.as_deref(), &release);
        let feature_update = match version.text("DisplayVersion")? {
            Some(name) => Some(name),
            None => version.text("ReleaseId")?,
        };
        let tcpip = reader.service("Tcpip\\Parameters")?;
        let (now, next) = (tcpip.text("Hostname")?, tcpip.text("NV Hostname")?);
        let netbios = reader.control("ComputerName\\ComputerName")?.text("ComputerName")?;
        let is_member = reader.service("Netlogon")?.number("Start")? == Some(AUTOMATIC)
            || release.product == Product::DomainController;
        let membership = match is_member {
            true => Membership::Domain(domain(reader)?),
            false => Membership::Workgroup,
        };
        Ok(Self {
            product_name: registered.filter(|name| *name != product),
            product,
            edition: version.text("EditionID")?,
            installation: version.text("InstallationType")?,
            release,
            feature_update,
            revision: version.number("UBR")?,
            service_pack: version.text("CSDVersion")?,
            hostname_until_restart: now.clone().filter(|now| next.as_ref().is_some_and(|next| next != now)),
            hostname: next.or(now).or(netbios),
            membership,
            is_cloud_joined: !reader.control("CloudDomainJoin\\JoinInfo")?.children()?.is_empty(),
        })
    }

    /// Version and build in one: `10.0.19045.4170`.
    pub fn version(&self) -> String {
        let Release { major, minor, build, .. } = self.release;
        match self.revision {
            Some(revision) => format!("{major}.{minor}.{build}.{revision}"),
            None => format!("{major}.{minor}.{build}"),
        }
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        if let Membership::Domain(name) = &self.membership {
            let name = name.as_deref().unwrap_or("of unknown name");
            notes.push(Note::info(
                format!("member of the domain {name}"),
                "the VM takes the machine's account over: source and VM must not run at the same time, and a long stay \
                 of either lets its password run out",
            ));
        }
        if self.is_cloud_joined {
            notes.push(Note::warning(
                "joined to Entra ID",
                "the device's key may be sealed in the source's TPM: the VM may have to be joined anew",
            ));
        }
        if let Some(old) = &self.hostname_until_restart {
            let new = self.hostname.as_deref().unwrap_or_default();
            notes.push(Note::info(format!("renamed from {old} to {new}"), "the VM starts with the new name"));
        }
        if self.release.version() < (5, 1) {
            notes.push(Note::warning(
                format!("{}", self.release),
                "no driver library has virtio for it: disks and network stay on emulated IDE and NIC",
            ));
        }
        notes
    }
}

/// The name to show: the registered one, with Windows 11 where the build says so.
fn product(registered: Option<&str>, release: &Release) -> String {
    match registered {
        Some(name) if release.build >= WINDOWS_11 && release.product == Product::Workstation => {
            name.replacen("Windows 10", "Windows 11", 1)
        }
        Some(name) => name.to_owned(),
        None => release.name().to_owned(),
    }
}

fn domain(reader: &Reader<'_>) -> Result<Option<String>> {
    let tcpip = reader.service("Tcpip\\Parameters")?;
    for name in ["NV Domain", "Domain"] {
        if let Some(domain) = tcpip.text(name)? {
            return Ok(Some(domain));
        }
    }
    let policy = reader.software("Microsoft\\Windows\\CurrentVersion\\Group Policy\\History")?;
    if let Some(domain) = policy.text("MachineDomain")? {
        return Ok(Some(domain));
    }
    reader.software("Microsoft\\Windows NT\\CurrentVersion\\Winlogon")?.text("CachePrimaryDomain")
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [Some(self.product.as_str()), self.feature_update.as_deref(), self.service_pack.as_deref()];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        writeln!(f, "product: {}", words.join(" "))?;
        if let Some(name) = &self.product_name {
            writeln!(f, "product name in the registry: {name}")?;
        }
        writeln!(f, "version: {}, {}", self.version(), self.release.architecture)?;
        let edition = self.edition.as_deref().unwrap_or("not told");
        let installation = self.installation.as_deref().unwrap_or("not told");
        writeln!(f, "edition: {edition}, installation: {installation}")?;
        let kind = match self.release.product {
            Product::Workstation => "workstation",
            Product::Server => "server",
            Product::DomainController => "domain controller",
        };
        writeln!(f, "product type: {kind}, suites {:#x}", self.release.suites)?;
        writeln!(f, "host name: {}", self.hostname.as_deref().unwrap_or("not told"))?;
        if let Some(name) = &self.hostname_until_restart {
            writeln!(f, "host name until the next start: {name}")?;
        }
        match &self.membership {
            Membership::Workgroup => writeln!(f, "domain: none")?,
            Membership::Domain(name) => writeln!(f, "domain: {}", name.as_deref().unwrap_or("of unknown name"))?,
        }
        writeln!(f, "joined to entra id: {}", answer(Some(self.is_cloud_joined)))
    }
}
