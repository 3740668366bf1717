//! What a boot image is told: its controller and its network. A plain TOML file, `/vconverter.toml` on the ISO and in the
//! initramfs, which GRUB puts together from two archives: the one for all, and the one with this file.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// Contents of `vconverter.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// The controller as `HOST:PORT`; asked on the screen where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// SHA-256 of the controller's CA certificate, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_fingerprint: Option<String>,
    /// How the machine gets its address.
    #[serde(default)]
    pub network: Network,
}

/// The network of the boot image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// DHCP, or as told here.
    #[serde(default)]
    pub mode: NetworkMode,
    /// Static only: the address with its prefix length, `192.0.2.7/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Static only: the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Name servers; with DHCP they come before those that it gives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Only this interface, by its name in the boot image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Only the interface with this MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// Where an address comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// DHCP on every interface that has a link.
    #[default]
    Dhcp,
    /// `address` and `gateway` of the configuration.
    Static,
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
        match (self.network.mode, &self.network.address) {
            (NetworkMode::Static, None) => wrong("network.address: needed where network.mode is static".into()),
            (NetworkMode::Static, Some(address)) if !is_address_with_prefix(address) => {
                wrong(format!("network.address: expected an IPv4 address as 192.0.2.7/24, found {address:?}"))
            }
            _ => Ok(()),
        }
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

fn is_address_with_prefix(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, prefix)| {
        address.parse::<std::net::Ipv4Addr>().is_ok() && prefix.parse::<u8>().is_ok_and(|bits| (1..=32).contains(&bits))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_reads_back_as_it_was_written() {
        let configuration = Configuration {
            controller: Some("controller.example:8443".into()),
            ca_fingerprint: Some("ab".repeat(32)),
            network: Network {
                mode: NetworkMode::Static,
                address: Some("192.0.2.7/24".into()),
                gateway: Some("192.0.2.1".parse().unwrap()),
                dns: vec!["192.0.2.53".parse().unwrap()],
                ..Network::default()
            },
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
        assert!(with(|c| c.network.mode = NetworkMode::Static).starts_with("network.address"));
        Configuration { controller: Some("[2001:db8::1]:8443".into()), ..Configuration::default() }.to_toml().unwrap();
    }
}
