//! Network adapters with everything that an administrator set on them: what a new adapter must be given.
//!
//! Adapters are those of the class `{4d36e972-e325-11ce-bfc1-08002be10318}` that Windows does not hide, and those that
//! are gone but left addresses. What DHCP gave is kept apart from what was set. IPv4, DNS and WINS stand in the same
//! values from Windows 2000 on (Microsoft, "TCP/IP and NBT configuration parameters for Windows XP", 314053); fixed
//! IPv6 addresses and routes in the persistent tables of the network store since Vista (`nsi`), in no hive before. No
//! value says which adapter was plugged in last: the place on the PCI bus gives the order.

mod adapter;
mod first_boot;
mod nsi;
mod settings;

pub use adapter::{Adapter, AdapterKind, Mac, MacSource, PciPlace};
pub use settings::{Gateway, Ipv4, Ipv6, Lease, NetBios};

use std::fmt;
use std::net::IpAddr;

use machine::IpNet;
use serde::{Deserialize, Serialize};

use super::fields::{Fields, Reader};
use crate::Result;
use adapter::CLASS;
use machine::Note;
use settings::{addresses_in, prefix_length};

/// The network settings of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Adapters: those in hardware by their place, then the others by name.
    pub adapters: Vec<Adapter>,
    /// Routes that are kept over a restart.
    pub routes: Vec<Route>,
    /// Domains in which short names are looked up.
    pub search: Vec<String>,
    /// Whether it forwards packets between its networks.
    pub is_router: bool,
    /// `DisabledComponents` of IPv6, where it is set.
    pub ipv6_disabled: Option<u32>,
}

/// A route that is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The network.
    pub destination: IpNet,
    /// The next hop; unspecified for a network that is on the link.
    pub gateway: IpAddr,
    /// Its metric; `None`: Windows chooses.
    pub metric: Option<u32>,
    /// The id of its adapter, where it is bound to one (IPv6).
    pub adapter: Option<String>,
}

impl Route {
    /// Whether it is a default route: those of IPv4 stand at the adapter as well, as gateways.
    pub fn is_default(&self) -> bool {
        self.destination.prefix_length == 0
    }
}

impl Network {
    pub(super) fn read(reader: &Reader<'_>) -> Result<Self> {
        let tcpip = reader.service("Tcpip\\Parameters")?;
        let tables = nsi::Tables::read(reader)?;
        let mut adapters = Vec::new();
        for (key, fields) in reader.control(&format!("Class\\{CLASS}"))?.children()? {
            adapters.extend(Adapter::installed(reader, &key, &fields, &tables)?);
        }
        let mut left_behind = Vec::new();
        for (id, fields) in tcpip.child("Interfaces")?.children()? {
            let id = id.to_ascii_uppercase();
            let ipv4 = Ipv4::read(reader, &id, &fields)?;
            if !ipv4.addresses.is_empty() && !adapters.iter().any(|adapter: &Adapter| adapter.id == id) {
                left_behind.push(Adapter::left_behind(reader, id, ipv4)?);
            }
        }
        adapters.retain(|adapter| !adapter.is_hidden || adapter.has_fixed_settings());
        adapters.sort_by_key(|adapter| {
            (adapter.kind != AdapterKind::Hardware, adapter.place, adapter.name.clone(), adapter.id.clone())
        });
        adapters.append(&mut left_behind);
        let mut routes = ipv4_routes(&tcpip.child("PersistentRoutes")?)?;
        routes.extend(tables.routes(&adapters));
        let search = tcpip.text("SearchList")?.unwrap_or_default();
        Ok(Self {
            adapters,
            routes,
            search: search.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            is_router: tcpip.flag("IPEnableRouter")?.unwrap_or(false),
            ipv6_disabled: reader
                .service("Tcpip6\\Parameters")?
                .number("DisabledComponents")?
                .filter(|bits| *bits != 0),
        })
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        for adapter in &self.adapters {
            let name = adapter.shown_name();
            match adapter.kind {
                AdapterKind::Gone => notes.push(Note::info(
                    format!("{name}: settings of an adapter that is no longer there"),
                    "nothing takes them over",
                )),
                AdapterKind::Team => notes.push(Note::warning(
                    format!("{name}: a team of adapters"),
                    "its members do not exist in the VM: its addresses go to one adapter, the team is given up",
                )),
                AdapterKind::Bridge => notes.push(Note::warning(
                    format!("{name}: a virtual switch or bridge with settings of its own"),
                    "the hardware adapter behind it is another one in the VM: connect it again",
                )),
                AdapterKind::Wireless => notes.push(Note::info(
                    format!("{name}: a wireless adapter"),
                    "the VM has none: what it was connected to must be reached another way",
                )),
                AdapterKind::Hardware if adapter.has_fixed_settings() => notes.push(Note::info(
                    format!("{name}: fixed addresses or name servers"),
                    "the VM's adapter is a new one to Windows: they have to be given to it",
                )),
                AdapterKind::Hardware | AdapterKind::Virtual => {}
            }
            if adapter.mac.is_some_and(|mac| mac.source == MacSource::Set) {
                notes.push(Note::info(
                    format!("{name}: its hardware address was set by hand"),
                    "the VM keeps it only if its adapter is defined with it",
                ));
            }
            if adapter.ipv4.has_alternate {
                notes.push(Note::info(
                    format!("{name}: an alternate configuration for when DHCP does not answer"),
                    "it is not taken over",
                ));
            }
            for text in &adapter.unread {
                notes.push(Note::warning(format!("{name}: {text}"), "the setting is not taken over"));
            }
        }
        notes
    }
}

/// The routes of `PersistentRoutes`: the names of its values, `destination,mask,gateway,metric`.
fn ipv4_routes(key: &Fields<'_>) -> Result<Vec<Route>> {
    Ok(key.value_names()?.iter().filter_map(|name| parse_route(name)).collect())
}

fn parse_route(text: &str) -> Option<Route> {
    let mut parts = text.split(',').map(str::trim);
    let mut address = || addresses_in(parts.next()?).first().copied();
    let (destination, mask, gateway) = (address()?, address()?, address()?);
    let metric = parts.next().and_then(|metric| metric.parse().ok());
    let (IpAddr::V4(mask), IpAddr::V4(_), IpAddr::V4(_)) = (mask, destination, gateway) else { return None };
    let prefix_length = prefix_length(mask)?;
    Some(Route { destination: IpNet { address: destination, prefix_length }, gateway, metric, adapter: None })
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.destination, self.gateway)?;
        if let Some(metric) = self.metric {
            write!(f, ", metric {metric}")?;
        }
        match &self.adapter {
            Some(adapter) => write!(f, ", adapter {adapter}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.adapters.iter().try_for_each(|adapter| write!(f, "{adapter}"))?;
        self.routes.iter().try_for_each(|route| writeln!(f, "route: {route}"))?;
        if !self.search.is_empty() {
            writeln!(f, "dns search list: {}", self.search.join(" "))?;
        }
        if self.is_router {
            writeln!(f, "forwards packets: yes")?;
        }
        if let Some(bits) = self.ipv6_disabled {
            writeln!(f, "ipv6 components disabled: {bits:#x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persistent_route_is_its_values_name() {
        let shown = |text: &str| parse_route(text).map(|route| route.to_string());
        // Of Windows 7 in the test data: -1 is a metric that Windows chooses.
        assert_eq!(shown("0.0.0.0,0.0.0.0,10.3.58.1,-1").as_deref(), Some("0.0.0.0/0 by 10.3.58.1"));
        let other = shown("172.16.0.0,255.240.0.0,10.0.0.9,20");
        assert_eq!(other.as_deref(), Some("172.16.0.0/12 by 10.0.0.9, metric 20"));
        for wrong in ["", "1.2.3.4", "10.0.0.0,255.0.255.0,10.0.0.1,1", "10.0.0.0,x,10.0.0.1,1", ",,,"] {
            assert_eq!(parse_route(wrong), None, "{wrong}");
        }
    }
}
