//! What is set on one adapter: IPv4, DNS, WINS, IPv6; and what DHCP gave it.

use std::net::{IpAddr, Ipv4Addr};

use machine::IpNet;
use serde::{Deserialize, Serialize};

use super::super::fields::{Fields, Reader};
use crate::Result;

/// Addresses of one value that are looked at.
const ADDRESSES_MAX: usize = 256;

/// A gateway of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// Its metric; `None`: Windows chooses.
    pub metric: Option<u32>,
}

/// NetBIOS over TCP/IP: `NetbiosOptions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetBios {
    /// As the DHCP server says, else on.
    #[default]
    Default,
    /// On.
    On,
    /// Off.
    Off,
}

/// What DHCP gave at last: shown, never taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address with its network.
    pub address: IpNet,
    /// Gateways.
    pub gateways: Vec<IpAddr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// WINS servers.
    pub wins: Vec<IpAddr>,
    /// The domain.
    pub domain: Option<String>,
    /// Who gave it.
    pub server: Option<IpAddr>,
}

/// IPv4 and names as they were set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv4 {
    /// Whether addresses come from DHCP. Name servers may be set nevertheless.
    pub is_dhcp: bool,
    /// Fixed addresses, the first one first; none with DHCP.
    pub addresses: Vec<IpNet>,
    /// Fixed gateways; with DHCP, those that were added to it.
    pub gateways: Vec<Gateway>,
    /// The adapter's metric; `None`: Windows chooses by its speed.
    pub metric: Option<u32>,
    /// Fixed name servers, in their order.
    pub dns: Vec<IpAddr>,
    /// The DNS suffix of this connection.
    pub dns_suffix: Option<String>,
    /// Whether the machine registers this connection's addresses in DNS, where that was set.
    pub registers_in_dns: Option<bool>,
    /// Fixed WINS servers.
    pub wins: Vec<IpAddr>,
    /// NetBIOS over TCP/IP.
    pub netbios: NetBios,
    /// Largest packet in bytes, where that was set.
    pub mtu: Option<u32>,
    /// Whether there is another configuration for when DHCP does not answer.
    pub has_alternate: bool,
    /// What DHCP gave at last.
    pub lease: Option<Lease>,
    /// What could not be understood.
    pub unread: Vec<String>,
}

/// IPv6 as it was set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6 {
    /// Fixed addresses.
    pub addresses: Vec<IpNet>,
    /// Fixed gateways.
    pub gateways: Vec<Gateway>,
    /// Fixed name servers.
    pub dns: Vec<IpAddr>,
}

impl Ipv4 {
    /// The settings of the interface `id` (`{…}`), whose key below `Tcpip\Parameters\Interfaces` is `fields`.
    pub(super) fn read(reader: &Reader<'_>, id: &str, fields: &Fields<'_>) -> Result<Self> {
        let is_dhcp = fields.flag("EnableDHCP")?.unwrap_or(false);
        let mut unread = Vec::new();
        // With DHCP on, what stands here was given up (Windows 2000 to 2003 write 0.0.0.0).
        let addresses = if is_dhcp { Vec::new() } else { fixed_addresses(fields, &mut unread)? };
        let metrics = fields.texts("DefaultGatewayMetric")?;
        let metric = |at: usize| metrics.get(at).and_then(|text| text.parse().ok()).filter(|metric| *metric != 0);
        let gateways = fields.texts("DefaultGateway")?;
        let gateways = gateways.iter().enumerate().take(ADDRESSES_MAX).filter_map(|(at, text)| {
            let address = text.parse().ok().filter(|address: &IpAddr| !address.is_unspecified())?;
            Some(Gateway { address, metric: metric(at) })
        });
        let netbt = reader.service(&format!("NetBT\\Parameters\\Interfaces\\Tcpip_{id}"))?;
        let wins = |name: &str| -> Result<Vec<IpAddr>> { Ok(addresses_in(&netbt.texts(name)?.join(" "))) };
        let active = fields.texts("ActiveConfigurations")?;
        Ok(Self {
            is_dhcp,
            addresses,
            gateways: gateways.collect(),
            metric: fields.number("InterfaceMetric")?.filter(|metric| *metric != 0),
            dns: addresses_in(&fields.text("NameServer")?.unwrap_or_default()),
            dns_suffix: fields.text("Domain")?,
            registers_in_dns: fields.flag("RegistrationEnabled")?,
            wins: wins("NameServerList")?,
            netbios: match netbt.number("NetbiosOptions")? {
                Some(1) => NetBios::On,
                Some(2) => NetBios::Off,
                _ => NetBios::Default,
            },
            mtu: fields.number("MTU")?.filter(|mtu| (1..u32::MAX).contains(mtu)),
            has_alternate: is_dhcp && active.iter().any(|name| name.starts_with("Alternate_")),
            lease: lease(fields, is_dhcp, wins("DhcpNameServerList")?)?,
            unread,
        })
    }
}

impl Ipv6 {
    /// Name servers of the interface `id`; addresses and gateways come from elsewhere.
    pub(super) fn name_servers(reader: &Reader<'_>, id: &str) -> Result<Vec<IpAddr>> {
        let fields = reader.service(&format!("Tcpip6\\Parameters\\Interfaces\\{id}"))?;
        Ok(addresses_in(&fields.text("NameServer")?.unwrap_or_default()))
    }
}

fn fixed_addresses(fields: &Fields<'_>, unread: &mut Vec<String>) -> Result<Vec<IpNet>> {
    let masks = fields.texts("SubnetMask")?;
    let mut addresses = Vec::new();
    for (at, text) in fields.texts("IPAddress")?.iter().enumerate().take(ADDRESSES_MAX) {
        let mask = masks.get(at).map(String::as_str).unwrap_or_default();
        match (text.parse::<Ipv4Addr>().ok(), mask.parse().ok().and_then(prefix_length)) {
            (Some(Ipv4Addr::UNSPECIFIED), _) => {}
            (Some(address), Some(prefix_length)) => addresses.push(IpNet { address: address.into(), prefix_length }),
            _ => unread.push(format!("address {text:?} with mask {mask:?}")),
        }
    }
    Ok(addresses)
}

fn lease(fields: &Fields<'_>, is_dhcp: bool, wins: Vec<IpAddr>) -> Result<Option<Lease>> {
    let address = fields.text("DhcpIPAddress")?.and_then(|text| text.parse::<Ipv4Addr>().ok());
    let mask = fields.text("DhcpSubnetMask")?.and_then(|text| text.parse().ok()).and_then(prefix_length);
    let (Some(address), Some(prefix_length), true) = (address, mask, is_dhcp) else { return Ok(None) };
    if address == Ipv4Addr::UNSPECIFIED {
        return Ok(None);
    }
    let all = |name: &str| -> Result<Vec<IpAddr>> { Ok(addresses_in(&fields.texts(name)?.join(" "))) };
    Ok(Some(Lease {
        address: IpNet { address: address.into(), prefix_length },
        gateways: all("DhcpDefaultGateway")?,
        dns: all("DhcpNameServer")?,
        wins,
        domain: fields.text("DhcpDomain")?,
        server: all("DhcpServer")?.first().copied(),
    }))
}

/// The addresses in a list with spaces, commas or semicolons.
pub(super) fn addresses_in(text: &str) -> Vec<IpAddr> {
    let addresses = text.split([' ', ',', ';']).filter_map(|address| address.parse().ok());
    addresses.take(ADDRESSES_MAX).collect()
}

/// The length of the prefix that `mask` stands for; `None` where its ones have gaps.
pub(super) fn prefix_length(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let length = bits.leading_ones();
    (bits.count_ones() == length).then(|| u8::try_from(length).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_without_gaps_is_a_prefix_length() {
        let length = |text: &str| prefix_length(text.parse().unwrap());
        assert_eq!(length("255.255.255.0"), Some(24));
        assert_eq!((length("0.0.0.0"), length("255.255.255.255")), (Some(0), Some(32)));
        assert_eq!((length("255.0.255.0"), length("0.0.0.255")), (None, None));
    }

    #[test]
    fn name_servers_are_separated_by_commas_or_spaces() {
        let shown: Vec<String> = addresses_in("10.0.0.1,10.0.0.2 fd00::1; x").iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["10.0.0.1", "10.0.0.2", "fd00::1"]);
    }
}
