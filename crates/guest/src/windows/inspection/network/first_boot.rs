//! The network settings that the first start gives to the VM's adapters, out of those of the source's.
//!
//! Adapters in hardware are counted in the order of the PCI bus. A team's settings go to the first adapter that has
//! none of its own: its members have none, and the VM has no team. Default routes of IPv4 are left to the gateways of
//! the adapters.

use std::net::IpAddr;

use machine::firstboot::{self, AdapterSettings, IpSettings, NetbiosMode, NetworkSettings};

use super::{Adapter, AdapterKind, Gateway, NetBios, Network, Route};

impl Network {
    /// What the first start has to give to new adapters.
    pub fn for_first_boot(&self) -> NetworkSettings {
        let of_kind = |kind: AdapterKind| self.adapters.iter().filter(move |adapter| adapter.kind == kind);
        let mut teams = of_kind(AdapterKind::Team).filter(|team| team.has_fixed_settings());
        let is_shared = |route: &&Route| route.adapter.is_none() && !route.is_default();
        let adapters = of_kind(AdapterKind::Hardware).zip(0..).map(|(adapter, order)| {
            let team = if adapter.has_fixed_settings() { None } else { teams.next() };
            self.settings(adapter, team.unwrap_or(adapter), order)
        });
        NetworkSettings {
            adapters: adapters.collect(),
            routes: self.routes.iter().filter(is_shared).map(kept).collect(),
        }
    }

    /// The settings of `owner` for the hardware of `adapter`.
    fn settings(&self, adapter: &Adapter, owner: &Adapter, order: u32) -> AdapterSettings {
        let (v4, v6) = (&owner.ipv4, &owner.ipv6);
        let own_routes = self.routes.iter().filter(|route| route.adapter.as_ref() == Some(&owner.id));
        let address = |address: &IpAddr| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        };
        AdapterSettings {
            interface: adapter.id.trim_matches(['{', '}']).to_ascii_lowercase(),
            name: owner.shown_name().to_owned(),
            description: adapter.description.clone(),
            mac: adapter.mac.map(|mac| mac.address),
            instance_id: adapter.device.clone(),
            order,
            ipv4: IpSettings {
                // One without any settings of IPv4 never had TCP/IP on it: a team's member.
                automatic: v4.is_dhcp || v4.addresses.is_empty(),
                addresses: v4.addresses.clone(),
                gateways: gateways(&v4.gateways),
                dns: v4.dns.clone(),
                routes: Vec::new(),
                metric: v4.metric,
            },
            ipv6: IpSettings {
                automatic: true,
                addresses: v6.addresses.clone(),
                gateways: gateways(&v6.gateways),
                dns: v6.dns.clone(),
                routes: own_routes.map(kept).collect(),
                metric: None,
            },
            dns_suffix: v4.dns_suffix.clone(),
            dns_registration: v4.registers_in_dns,
            wins: v4.wins.iter().filter_map(address).collect(),
            netbios: match v4.netbios {
                NetBios::Default => NetbiosMode::FromDhcp,
                NetBios::On => NetbiosMode::On,
                NetBios::Off => NetbiosMode::Off,
            },
            mtu: v4.mtu,
        }
    }
}

fn gateways(all: &[Gateway]) -> Vec<firstboot::Gateway> {
    all.iter().map(|&Gateway { address, metric }| firstboot::Gateway { address, metric }).collect()
}

fn kept(route: &Route) -> firstboot::Route {
    firstboot::Route { destination: route.destination, next_hop: route.gateway, metric: route.metric }
}
