//! What the controller must know to enter sources and targets.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;
use crate::{Error, ErrorKind, Result, Timestamp};

/// Longest name of a credential, and of the user in it, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A credential as the API shows it: everything but the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Credential {
    /// What tasks and machines refer to.
    pub name: String,
    /// What the secret is.
    pub kind: CredentialKind,
    /// Who logs in with it; empty where the kind has no user.
    pub user: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its secret was set last.
    pub changed_at: Timestamp,
}

/// A credential that is set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCredential {
    /// What the secret is.
    pub kind: CredentialKind,
    /// Who logs in with it.
    #[serde(default)]
    pub user: String,
    /// The password, key or token itself.
    pub secret: Secret,
}

/// What a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialKind {
    /// Password of a Unix user.
    SshPassword,
    /// Private key of a Unix user (OpenSSH's format).
    SshKey,
    /// Password of a Windows user, `DOMAIN\user` or `user@domain`.
    WindowsPassword,
    /// Password for a hypervisor or its management server.
    HypervisorPassword,
    /// API token of a hypervisor or its management server.
    HypervisorToken,
    /// Password of a server's management controller (BMC).
    BmcPassword,
    /// Password of a mail server.
    SmtpPassword,
}

impl CredentialKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SshPassword,
        Self::SshKey,
        Self::WindowsPassword,
        Self::HypervisorPassword,
        Self::HypervisorToken,
        Self::BmcPassword,
        Self::SmtpPassword,
    ];

    /// As it is typed, kept and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SshPassword => "ssh-password",
            Self::SshKey => "ssh-key",
            Self::WindowsPassword => "windows-password",
            Self::HypervisorPassword => "hypervisor-password",
            Self::HypervisorToken => "hypervisor-token",
            Self::BmcPassword => "bmc-password",
            Self::SmtpPassword => "smtp-password",
        }
    }
}

impl fmt::Display for CredentialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for CredentialKind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Error::new(ErrorKind::Invalid, format!("kind of credential: expected one of {known}"))
        })
    }
}

impl NewCredential {
    /// Whether it can be one: a name, a user where the kind has one, a secret.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let invalid = |text: String| Err(Error::new(ErrorKind::Invalid, text));
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_name) {
            return invalid(format!(
                "name of a credential: expected 1 to {NAME_BYTES_MAX} letters, digits, dots, hyphens and underscores"
            ));
        }
        if self.user.len() > NAME_BYTES_MAX || self.user.chars().any(char::is_control) {
            return invalid(format!("user of a credential: expected at most {NAME_BYTES_MAX} bytes, none of control"));
        }
        if self.user.is_empty() && self.kind != CredentialKind::HypervisorToken {
            return invalid(format!("a credential of kind {} has a user", self.kind));
        }
        if self.secret.is_empty() {
            return invalid("the secret is empty".into());
        }
        Ok(())
    }
}
