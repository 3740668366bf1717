//! What a boot image is told: its controller and its network. A plain TOML file, `/vconverter.toml` on the ISO and in the
//! initramfs, which GRUB puts together from two archives: the one for all, and the one with this file.

use serde::{Deserialize, Serialize};

use crate::network::Network;
use crate::{Error, ErrorKind, Result};

/// Contents of `vconverter.toml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// The controller as `HOST:PORT`; asked on the screen where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// SHA-256 of the controller's CA certificate, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_fingerprint: Option<String>,
    /// Name of the console's keymap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keymap: Option<String>,
    /// The public key that the rescue shell's SSH server accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue_key: Option<String>,
    /// What a boot image is told that was pushed onto its machine; a section of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushSettings>,
    /// How the machine gets its address.
    #[serde(default, skip_serializing_if = "Network::is_empty")]
    pub network: Network,
}

/// The section `[push]`: nobody stands in front of the machine, which is to be back in its own system whatever happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushSettings {
    /// Which task it is for.
    pub task: String,
    /// Seconds without the controller after which the machine's own system is started again.
    pub contact_seconds: u32,
    /// Seconds after which the watchdog resets a machine that hangs; none where no watchdog is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog_seconds: Option<u32>,
}

impl Configuration {
    /// The file's text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfiguration`] with the field that is wrong.
    pub fn to_toml(&self) -> Result<String> {
        self.check()?;
        let body = toml::to_string(self)
            .map_err(|e| Error::new(ErrorKind::InvalidConfiguration, format!("boot image configuration: {e}")))?;
        Ok(format!("# Configuration of the vconverter boot image.\n{body}"))
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::InvalidConfiguration, what));
        if let Some(controller) = &self.controller
            && !is_host_and_port(controller)
        {
            return wrong(format!("controller: expected HOST:PORT, found {controller:?}"));
        }
        if let Some(fingerprint) = &self.ca_fingerprint
            && !(fingerprint.len() == 64 && fingerprint.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return wrong(format!("ca_fingerprint: expected 64 hexadecimal digits, found {fingerprint:?}"));
        }
        Ok(())
    }
}

/// `HOST:PORT` with a name, an IPv4 address or an IPv6 address in brackets.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let host_is_fine = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.len() <= 253 && host.chars().all(named),
    };
    host_is_fine && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_reads_back_as_it_was_written() {
        let configuration = Configuration {
            controller: Some("controller.example:8443".into()),
            ca_fingerprint: Some("ab".repeat(32)),
            keymap: Some("de-latin1".into()),
            rescue_key: None,
            push: Some(PushSettings { task: "t-1".into(), contact_seconds: 900, watchdog_seconds: Some(300) }),
            network: Network::parse_words("address=192.0.2.7/24,gateway=192.0.2.1,dns=192.0.2.53").unwrap(),
        };
        let text = configuration.to_toml().unwrap();
        assert_eq!(toml::from_str::<Configuration>(&text).unwrap(), configuration);
        assert!(text.contains("mode = \"static\""), "{text}");
    }

    #[test]
    fn wrong_values_are_named() {
        let with = |change: fn(&mut Configuration)| {
            let mut configuration = Configuration::default();
            change(&mut configuration);
            configuration.to_toml().unwrap_err().context
        };
        assert!(with(|c| c.controller = Some("host".into())).starts_with("controller"));
        assert!(with(|c| c.controller = Some("ho\"st:1".into())).starts_with("controller"));
        assert!(with(|c| c.controller = Some("host:0".into())).starts_with("controller"));
        assert!(with(|c| c.ca_fingerprint = Some("zz".repeat(32))).starts_with("ca_fingerprint"));
        Configuration { controller: Some("[2001:db8::1]:8443".into()), ..Configuration::default() }.to_toml().unwrap();
    }
}
