//! Roles that need care: what a copy of such a machine can break, in itself or elsewhere.
//!
//! A role is told by the services that its setup installs (Microsoft's documentation of each), and counts unless they
//! are disabled. Domain controllers: Microsoft, "Virtualizing domain controllers". BitLocker keeps
//! `BitLockerStatus\BootStatus` 1 while the system volume is protected.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fields::Reader;
use crate::Result;
use crate::windows::Product;
use machine::{Note, Severity};

const DISABLED: u32 = 4;
const ON_DEMAND: u32 = 3;

/// A role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleKind {
    /// Active Directory.
    DomainController,
    /// A node of a failover cluster.
    Cluster,
    /// Microsoft Exchange.
    Exchange,
    /// Microsoft SQL Server.
    SqlServer,
    /// Active Directory Certificate Services.
    CertificateAuthority,
    /// Hyper-V.
    HyperVHost,
    /// Disks over iSCSI.
    IscsiInitiator,
    /// Gives disks over iSCSI.
    IscsiTarget,
    /// Several paths to one disk.
    Multipath,
    /// Volumes with data deduplication.
    Deduplication,
    /// DHCP server.
    DhcpServer,
    /// Licences of remote desktops.
    RemoteDesktopLicensing,
    /// BitLocker.
    BitLocker,
}

/// A role that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Which.
    pub kind: RoleKind,
    /// The services by which it was found.
    pub services: Vec<String>,
}

/// All roles that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// In the order of the table.
    pub roles: Vec<Role>,
}

/// Role, services (`*` at the end: all that begin so), and the highest `Start` with which they count.
const TABLE: &[(RoleKind, &[&str], u32)] = &[
    (RoleKind::DomainController, &["NTDS"], ON_DEMAND),
    (RoleKind::Cluster, &["ClusSvc"], ON_DEMAND),
    (RoleKind::Exchange, &["MSExchange*"], ON_DEMAND),
    (RoleKind::SqlServer, &["MSSQLSERVER", "MSSQL$*"], ON_DEMAND),
    (RoleKind::CertificateAuthority, &["CertSvc"], ON_DEMAND),
    (RoleKind::HyperVHost, &["vmms"], ON_DEMAND),
    // Every Windows has the initiator, on demand.
    (RoleKind::IscsiInitiator, &["MSiSCSI"], 2),
    (RoleKind::IscsiTarget, &["WinTarget"], ON_DEMAND),
    // And so it is with the drivers of several paths.
    (RoleKind::Multipath, &["mpio"], 0),
    (RoleKind::Deduplication, &["ddpsvc"], ON_DEMAND),
    (RoleKind::DhcpServer, &["DHCPServer"], ON_DEMAND),
    (RoleKind::RemoteDesktopLicensing, &["TermServLicensing"], ON_DEMAND),
    (RoleKind::BitLocker, &["BDESVC"], 2),
];

impl Roles {
    pub(super) fn read(reader: &Reader<'_>) -> Result<Self> {
        let mut active = Vec::new();
        for (name, fields) in reader.current("Services")?.children()? {
            if let Some(start) = fields.number("Start")?.filter(|start| *start < DISABLED) {
                active.push((name, start));
            }
        }
        let is_protected = reader.control("BitLockerStatus")?.number("BootStatus")? == Some(1);
        let is_controller = reader.windows.release.product == Product::DomainController;
        let found = TABLE.iter().filter_map(|&(kind, names, start_max)| {
            let is_of = |name: &str| {
                names.iter().any(|known| match known.strip_suffix('*') {
                    Some(start) => name.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start)),
                    None => name.eq_ignore_ascii_case(known),
                })
            };
            let services = active.iter().filter(|(name, start)| *start <= start_max && is_of(name));
            let services: Vec<String> = services.map(|(name, _)| name.clone()).collect();
            let is_told = match kind {
                RoleKind::DomainController => is_controller,
                RoleKind::BitLocker => is_protected,
                _ => false,
            };
            (is_told || !services.is_empty()).then_some(Role { kind, services })
        });
        Ok(Self { roles: found.collect() })
    }

    /// Whether there is such a role.
    pub fn has(&self, kind: RoleKind) -> bool {
        self.roles.iter().any(|role| role.kind == kind)
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let note = |role: &Role| {
            let (severity, meaning) = role.kind.meaning();
            Note { severity, what: role.kind.to_string(), meaning: meaning.to_owned() }
        };
        self.roles.iter().map(note).collect()
    }
}

impl RoleKind {
    /// How much it matters, and what it means for the conversion.
    pub fn meaning(self) -> (Severity, &'static str) {
        use Severity::{Info, Warning};
        match self {
            Self::DomainController => (
                Warning,
                "convert it cold and never start the source again: an older copy of a domain controller in the network \
                 rolls the directory back (USN rollback)",
            ),
            Self::Cluster => (Warning, "shared disks do not come along: take the node out of its cluster first"),
            Self::Exchange => (
                Warning,
                "databases must be whole: convert it cold, or with its writers, and keep its name and addresses",
            ),
            Self::SqlServer => (Warning, "databases must be whole: convert it cold, or with its writers"),
            Self::CertificateAuthority => (
                Warning,
                "two running copies would issue the same serial numbers: keys in hardware modules do not come along",
            ),
            Self::HyperVHost => (Warning, "its VMs run in the VM only with nested virtualization: move them elsewhere"),
            Self::IscsiInitiator => (Warning, "it connects to the same disks as the source: both at once destroy them"),
            Self::IscsiTarget => {
                (Warning, "the disks it gives to others are on its own volumes: their users must be stopped meanwhile")
            }
            Self::Multipath => {
                (Warning, "disks behind several paths are seen once in the VM: the module may hold them back")
            }
            Self::Deduplication => {
                (Info, "its volumes are copied as they are: fixing them up needs nothing that is deduplicated")
            }
            Self::DhcpServer => (Info, "source and VM must not both serve the network"),
            Self::RemoteDesktopLicensing => {
                (Info, "its licences are bound to the machine: they may have to be activated anew")
            }
            Self::BitLocker => (
                Warning,
                "a protected volume opens by the source's TPM: suspend the protection first, or have the recovery key",
            ),
        }
    }
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DomainController => "domain controller",
            Self::Cluster => "node of a failover cluster",
            Self::Exchange => "Exchange",
            Self::SqlServer => "SQL Server",
            Self::CertificateAuthority => "certificate authority",
            Self::HyperVHost => "Hyper-V host",
            Self::IscsiInitiator => "iSCSI initiator in use",
            Self::IscsiTarget => "iSCSI target",
            Self::Multipath => "multipath disks",
            Self::Deduplication => "data deduplication",
            Self::DhcpServer => "DHCP server",
            Self::RemoteDesktopLicensing => "remote desktop licensing",
            Self::BitLocker => "BitLocker in use",
        })
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.roles.iter().try_for_each(|role| match role.services.is_empty() {
            true => writeln!(f, "role: {}", role.kind),
            false => writeln!(f, "role: {} ({})", role.kind, role.services.join(", ")),
        })
    }
}
