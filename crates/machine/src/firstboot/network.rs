//! Network settings of a Windows machine's adapters, as its registry holds them and as they are given to other ones.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::{IpNet, MacAddress};

/// All settings of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NetworkSettings {
    /// Adapters, by hardware order.
    #[serde(default)]
    pub adapters: Vec<AdapterSettings>,
    /// Persistent routes that name no adapter (`Tcpip\Parameters\PersistentRoutes`): they belong to the one whose network holds their next hop.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// What one adapter was set to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AdapterSettings {
    /// GUID of its interface, lower case, without braces.
    pub interface: String,
    /// Name of its connection: `Local Area Connection 2`. The new adapter gets it.
    pub name: String,
    /// Name of the device: `Broadcom BCM5709C NetXtreme II GigE`.
    #[serde(default)]
    pub description: Option<String>,
    /// Hardware address; the VM's NIC has the same.
    #[serde(default)]
    pub mac: Option<MacAddress>,
    /// Instance id of the device: `PCI\VEN_…\…`.
    #[serde(default)]
    pub instance_id: Option<String>,
    /// Position among the machine's physical adapters, by bus, slot and function; from 0.
    pub order: u32,
    /// IPv4.
    pub ipv4: IpSettings,
    /// IPv6.
    pub ipv6: IpSettings,
    /// Suffix of this connection's names (`Domain`).
    #[serde(default)]
    pub dns_suffix: Option<String>,
    /// Whether its addresses are registered in DNS (`RegistrationEnabled`); `None` where nothing is set.
    #[serde(default)]
    pub dns_registration: Option<bool>,
    /// WINS servers that were set by hand.
    #[serde(default)]
    pub wins: Vec<Ipv4Addr>,
    /// NetBIOS over TCP/IP (`NetbiosOptions`).
    #[serde(default)]
    pub netbios: NetbiosMode,
    /// Largest packet in bytes, where one is set.
    #[serde(default)]
    pub mtu: Option<u32>,
}

/// Settings of one family of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IpSettings {
    /// Whether addresses come by DHCP (IPv4), or by router advertisements and DHCPv6 (IPv6, where it is the ordinary case
    /// that static ones come on top).
    pub automatic: bool,
    /// Static addresses, the first one first. What DHCP gave is not among them.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Static default gateways.
    #[serde(default)]
    pub gateways: Vec<Gateway>,
    /// Static DNS servers, in order; empty where DHCP names them.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Static persistent routes of this very adapter, without default gateways.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Metric of the interface; `None` where Windows chooses it.
    #[serde(default)]
    pub metric: Option<u32>,
}

impl IpSettings {
    /// Whether nothing was set by hand.
    pub fn is_untouched(&self) -> bool {
        self.automatic
            && self.addresses.is_empty()
            && self.gateways.is_empty()
            && self.dns.is_empty()
            && self.routes.is_empty()
            && self.metric.is_none()
    }
}

/// A default gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// Metric of the route; `None` where Windows chooses it.
    #[serde(default)]
    pub metric: Option<u32>,
}

/// A persistent route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Through whom; the unspecified address where the destination is on the link.
    pub next_hop: IpAddr,
    /// Metric of the route; `None` where Windows chooses it.
    #[serde(default)]
    pub metric: Option<u32>,
}

/// NetBIOS over TCP/IP, with the numbers of `NetbiosOptions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NetbiosMode {
    /// 0: as the DHCP server says, else on.
    #[default]
    FromDhcp,
    /// 1: on.
    On,
    /// 2: off.
    Off,
}
