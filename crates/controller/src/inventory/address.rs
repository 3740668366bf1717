//! Where a machine is to be found: an IP address or a host name (RFC 1123, section 2.1).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IP address as it is usually written, or a host name in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineAddress(String);

impl MachineAddress {
    /// The IP address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// The host name, if it is one.
    pub fn host_name(&self) -> Option<&str> {
        self.ip().is_none().then_some(&self.0)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MachineAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(ip) = text.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            if ip.is_unspecified() || ip.is_multicast() {
                return Err(format!("expected the address of one machine, found {ip}"));
            }
            return Ok(Self(ip.to_string()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let is_label = |label: &str| {
            let has_only = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            (1..=63).contains(&label.len()) && has_only && !label.starts_with('-') && !label.ends_with('-')
        };
        // A last label of digits only is an IP address that was mistyped: 192.0.2.300.
        let is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if name.len() > 253 || is_number || !name.split('.').all(is_label) {
            return Err(format!("expected a host name or an IP address, found {}", super::shortened(text)));
        }
        Ok(Self(name))
    }
}

impl fmt::Display for MachineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for MachineAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MachineAddress> for String {
    fn from(address: MachineAddress) -> Self {
        address.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_is_read_back_as_it_is_kept(text in "[0-9a-zA-Z.:%_-]{0,80}|\\PC{0,40}") {
            if let Ok(address) = text.parse::<MachineAddress>() {
                prop_assert_eq!(address.as_str().parse::<MachineAddress>(), Ok(address.clone()));
                prop_assert!(address.as_str().is_ascii() && address.as_str().len() <= 253);
            }
        }
    }

    #[test]
    fn an_address_has_one_way_to_be_written() {
        for (typed, kept) in [
            ("192.0.2.10", "192.0.2.10"),
            (" WEB1 ", "web1"),
            ("web1.example.org.", "web1.example.org"),
            ("2001:DB8:0:0::1", "2001:db8::1"),
            ("::ffff:192.0.2.10", "192.0.2.10"),
            ("old_pc-7", "old_pc-7"),
        ] {
            let address: MachineAddress = typed.parse().unwrap();
            assert_eq!(address.as_str(), kept);
            assert_eq!(address.ip().is_none(), address.host_name().is_some());
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for typed in ["", ".", "192.0.2.300", "192.0.2", "web 1", "-a", "a..b", "ab:22", "0.0.0.0", "224.0.0.1", "ä"] {
            println!("{}", typed.parse::<MachineAddress>().unwrap_err());
        }
        "a.".repeat(200).parse::<MachineAddress>().unwrap_err();
    }
}
