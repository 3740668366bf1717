//! Links, addresses and routes of the kernel, by rtnetlink(7): IPv4 and IPv6, VLANs and bonds alike.
//!
//! One request, one answer, on a socket of its own: nothing is kept between calls, and no answer can be taken for another's.

use std::io;
use std::net::IpAddr;

use machine::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeader, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    BondMode, InfoBond, InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::{Error, Result};

/// Messages of a dump that are read at most: a machine has fewer addresses.
const DUMP_MESSAGES_MAX: usize = 4096;
/// RT_TABLE_MAIN of linux/rtnetlink.h.
const TABLE_MAIN: u8 = 254;
/// How often a bond looks at its members' links, in milliseconds.
const BOND_LINK_INTERVAL: u32 = 100;

/// Switches a link on or off.
///
/// # Errors
/// The kernel's; so for all of these, with what was attempted.
pub fn switch(index: u32, on: bool) -> Result<()> {
    let mut link = link_message(index);
    link.header.change_mask = LinkFlags::Up;
    link.header.flags = if on { LinkFlags::Up } else { LinkFlags::empty() };
    ask(RouteNetlinkMessage::SetLink(link), 0, || format!("switch link {index} {}", if on { "on" } else { "off" }))
}

/// Sets the largest packet of a link, in bytes.
///
/// # Errors
/// See [`switch`].
pub fn set_mtu(index: u32, mtu: u32) -> Result<()> {
    let mut link = link_message(index);
    link.attributes.push(LinkAttribute::Mtu(mtu));
    ask(RouteNetlinkMessage::SetLink(link), 0, || format!("set the MTU {mtu}"))
}

/// Makes a VLAN on a link; 802.1Q.
///
/// # Errors
/// See [`switch`].
pub fn create_vlan(parent: u32, id: u16, name: &str) -> Result<()> {
    let mut link = LinkMessage::default();
    let info = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)]))];
    link.attributes =
        vec![LinkAttribute::IfName(name.into()), LinkAttribute::Link(parent), LinkAttribute::LinkInfo(info)];
    ask(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL, || format!("make VLAN {id}"))
}

/// Makes a bond without members.
///
/// # Errors
/// See [`switch`].
pub fn create_bond(name: &str, mode: BondMode) -> Result<()> {
    let mut link = LinkMessage::default();
    let data = vec![InfoBond::Mode(mode), InfoBond::MiiMon(BOND_LINK_INTERVAL)];
    let info = vec![LinkInfo::Kind(InfoKind::Bond), LinkInfo::Data(InfoData::Bond(data))];
    link.attributes = vec![LinkAttribute::IfName(name.into()), LinkAttribute::LinkInfo(info)];
    ask(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL, || format!("make the bond {name}"))
}

/// Puts a link into a bond; the link is off. 0 takes it out.
///
/// # Errors
/// See [`switch`].
pub fn set_bond(index: u32, bond: u32) -> Result<()> {
    let mut link = link_message(index);
    link.attributes.push(LinkAttribute::Controller(bond));
    ask(RouteNetlinkMessage::SetLink(link), 0, || "put the link into the bond".into())
}

/// Removes a VLAN or a bond.
///
/// # Errors
/// See [`switch`].
pub fn delete_link(index: u32) -> Result<()> {
    ask(RouteNetlinkMessage::DelLink(link_message(index)), 0, || format!("remove link {index}"))
}

/// Gives a link an address. One that is there is no error.
///
/// # Errors
/// See [`switch`].
pub fn add_address(index: u32, net: IpNet) -> Result<()> {
    let mut message = address_message(index, net);
    if net.address.is_ipv6() {
        // Duplicate detection would keep the address from use for a second, on a machine that had it before.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE, || format!("set the address {net}"))
}

/// Takes an address, and the routes that came with it, from a link.
///
/// # Errors
/// See [`switch`].
pub fn remove_address(index: u32, net: IpNet) -> Result<()> {
    ask(RouteNetlinkMessage::DelAddress(address_message(index, net)), 0, || format!("remove the address {net}"))
}

/// The addresses of a link, those that the kernel gave it itself (link-local ones) left out.
///
/// # Errors
/// See [`switch`].
pub fn addresses(index: u32) -> Result<Vec<IpNet>> {
    let what = || "list addresses".to_owned();
    let answers = exchange(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP, &what)?;
    let found = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) if message.header.index == index => {
            let is_wide = message.header.scope == AddressScope::Universe;
            let tentative = message.header.flags.intersects(AddressHeaderFlags::Tentative);
            // On a point-to-point link `Address` is the peer's, and `Local` ours.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let any = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            let address = local.or(any).filter(|_| is_wide && !tentative)?;
            Some(IpNet { address, prefix_length: message.header.prefix_len })
        }
        _ => None,
    });
    Ok(found.collect())
}

/// A route over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// By whom; directly on the link where there is nobody.
    pub gateway: Option<IpAddr>,
    /// Of two to the same destination the kernel takes the one with the lower metric.
    pub metric: u32,
    /// Whether the gateway is on the link although it is in none of its networks.
    pub on_link: bool,
}

/// Adds or replaces a route.
///
/// # Errors
/// See [`switch`].
pub fn add_route(index: u32, route: &Route) -> Result<()> {
    let message = route_message(index, route);
    ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE, || {
        let by = route.gateway.map(|gateway| format!(" by {gateway}")).unwrap_or_default();
        format!("add the route {}{by}", route.destination)
    })
}

/// Removes a route that was added with the same values.
///
/// # Errors
/// See [`switch`].
pub fn remove_route(index: u32, route: &Route) -> Result<()> {
    let message = route_message(index, route);
    ask(RouteNetlinkMessage::DelRoute(message), 0, || format!("remove the route {}", route.destination))
}

fn route_message(index: u32, route: &Route) -> RouteMessage {
    let &Route { destination, gateway, metric, on_link } = route;
    let mut message = RouteMessage::default();
    let is_any = destination.address.is_unspecified() && destination.prefix_length == 0;
    message.header = RouteHeader {
        address_family: family(destination.address),
        destination_prefix_length: destination.prefix_length,
        table: TABLE_MAIN,
        protocol: RouteProtocol::Boot,
        scope: if gateway.is_some() || destination.address.is_ipv6() { RouteScope::Universe } else { RouteScope::Link },
        kind: RouteType::Unicast,
        flags: if on_link { RouteFlags::Onlink } else { RouteFlags::empty() },
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Oif(index), RouteAttribute::Priority(metric)];
    if !is_any {
        message.attributes.push(RouteAttribute::Destination(destination.address.into()));
    }
    message.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message
}

fn link_message(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}

fn address_message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header =
        AddressHeader { family: family(net.address), prefix_len: net.prefix_length, index, ..AddressHeader::default() };
    message.attributes = vec![AddressAttribute::Local(net.address), AddressAttribute::Address(net.address)];
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn ask(message: RouteNetlinkMessage, flags: u16, what: impl Fn() -> String) -> Result<()> {
    exchange(message, flags | NLM_F_ACK, &what).map(drop)
}

/// Sends a request and reads the kernel's answers to its last one.
fn exchange(message: RouteNetlinkMessage, flags: u16, what: &dyn Fn() -> String) -> Result<Vec<RouteNetlinkMessage>> {
    let failed = |source: io::Error| Error::io(what(), source);
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
    socket.send(&bytes, 0).map_err(failed)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full().map_err(failed)?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|e| Error::new(format!("{}: an answer of the kernel: {e}", what())))?;
            // Messages are aligned to four bytes (NLMSG_ALIGN).
            let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX).max(1).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            match answer.payload {
                NetlinkPayload::Done(_) => return Ok(answers),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(failed(error.to_io())),
                NetlinkPayload::Error(_) => return Ok(answers),
                NetlinkPayload::InnerMessage(message) if answers.len() < DUMP_MESSAGES_MAX => answers.push(message),
                _ => {}
            }
        }
    }
}
