//! DHCP messages, in the two forms that the client sends and the three that it takes.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};

use super::Lease;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const UDP: u8 = 17;
/// A DHCP message that we asked for is never longer.
const MESSAGE_LENGTH_MAX: usize = 1500;
/// What lies before the options, with their magic cookie (RFC 2131, section 2 and 3).
const HEADER_LENGTH: usize = 240;
const PAD: u8 = 0;
const END: u8 = 255;
/// The options that are read.
const READ: [OptionCode; 10] = [
    OptionCode::SubnetMask,
    OptionCode::Router,
    OptionCode::DomainNameServer,
    OptionCode::DomainName,
    OptionCode::AddressLeaseTime,
    OptionCode::MessageType,
    OptionCode::ServerIdentifier,
    OptionCode::Renewal,
    OptionCode::Rebinding,
    OptionCode::ClasslessStaticRoute,
];
const ROUTES_MAX: usize = 32;
const NAME_SERVERS_MAX: usize = 8;
/// What a lease without a time is taken for.
const LEASE_DEFAULT: u32 = 3600;
const LEASE_MIN: u32 = 60;
/// Renewals are never closer together, whatever a server says.
const RENEW_MIN: u32 = 30;
/// A year: "for ever" is 2³² − 1 seconds and would leave no room for sums.
const LEASE_MAX: u32 = 366 * 24 * 3600;

/// What a server proposes or acknowledges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The address for us.
    pub address: Ipv4Addr,
    /// Who offers it.
    pub server: Ipv4Addr,
    prefix_length: u8,
    routers: Vec<Ipv4Addr>,
    classless: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    dns: Vec<Ipv4Addr>,
    domain: Option<String>,
    seconds: u32,
    renew: Option<u32>,
    rebind: Option<u32>,
}

/// A message from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The transaction that it belongs to.
    pub transaction: u32,
    /// Whom it is for.
    pub mac: [u8; 6],
    /// Who sent it.
    pub server: Option<Ipv4Addr>,
    /// DHCPACK; else an offer, or with `offer` empty a refusal (DHCPNAK).
    pub is_acknowledgement: bool,
    /// What is given; `None` in a refusal.
    pub offer: Option<Offer>,
}

impl Offer {
    /// The offer as a lease, with times that follow from each other where the server's do not.
    pub(super) fn lease(&self) -> Lease {
        let seconds = self.seconds.clamp(LEASE_MIN, LEASE_MAX);
        let rebind = self.rebind.filter(|t2| (RENEW_MIN..seconds).contains(t2)).unwrap_or(seconds / 8 * 7);
        let renew = self.renew.filter(|t1| (RENEW_MIN..rebind).contains(t1)).unwrap_or((seconds / 2).min(rebind));
        // RFC 3442: where classless routes are given, the router option is not looked at.
        let default = self.classless.iter().find(|(_, prefix, _)| *prefix == 0).map(|(_, _, gateway)| *gateway);
        let gateway = if self.classless.is_empty() { self.routers.first().copied() } else { default };
        Lease {
            address: self.address,
            prefix_length: self.prefix_length,
            gateway: gateway.filter(|gateway| !gateway.is_unspecified()),
            routes: self.classless.iter().filter(|(_, prefix, _)| *prefix != 0).copied().collect(),
            dns: self.dns.clone(),
            domain: self.domain.clone(),
            server: self.server,
            duration: Duration::from_secs(seconds.into()),
            renew_after: Duration::from_secs(renew.into()),
            rebind_after: Duration::from_secs(rebind.into()),
        }
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    kind: MessageType,
    current: Option<Ipv4Addr>,
    wanted: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

impl Request {
    pub(super) fn discover() -> Self {
        Self { kind: MessageType::Discover, current: None, wanted: None, server: None }
    }

    pub(super) fn select(offer: &Offer) -> Self {
        Self { kind: MessageType::Request, current: None, wanted: Some(offer.address), server: Some(offer.server) }
    }

    pub(super) fn renew(address: Ipv4Addr) -> Self {
        Self { kind: MessageType::Request, current: Some(address), wanted: None, server: None }
    }
}

/// The bytes of a request. `seconds` since the search began.
pub(super) fn encode(request: &Request, mac: [u8; 6], hostname: &str, transaction: u32, seconds: u64) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(transaction, request.current.unwrap_or(none), none, none, none, &mac);
    message.set_secs(u16::try_from(seconds).unwrap_or(u16::MAX));
    // We hear datagrams for an address that is not yet ours, but some servers and relays cannot send them.
    message.set_flags(if request.current.is_none() { Flags::default().set_broadcast() } else { Flags::default() });
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(request.kind));
    options.insert(DhcpOption::ClientIdentifier([&[1], mac.as_slice()].concat()));
    options.insert(DhcpOption::MaxMessageSize(1472));
    options.insert(DhcpOption::ClassIdentifier(b"vconverter".to_vec()));
    options.insert(DhcpOption::Hostname(hostname.to_owned()));
    if let Some(wanted) = request.wanted {
        options.insert(DhcpOption::RequestedIpAddress(wanted));
    }
    if let Some(server) = request.server {
        options.insert(DhcpOption::ServerIdentifier(server));
    }
    options.insert(DhcpOption::ParameterRequestList(vec![
        OptionCode::SubnetMask,
        OptionCode::ClasslessStaticRoute,
        OptionCode::Router,
        OptionCode::DomainNameServer,
        OptionCode::DomainName,
        OptionCode::AddressLeaseTime,
        OptionCode::Renewal,
        OptionCode::Rebinding,
    ]));
    let mut bytes = message.to_vec().unwrap_or_default();
    // Relays of old drop what is shorter than a BOOTP message (RFC 1542, section 2.1).
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// Reads an IPv4 packet: a DHCP answer to a client, or `None`.
///
/// The UDP checksum is not looked at: between virtual machines it is often not computed.
pub fn parse_datagram(packet: &[u8]) -> Option<Answer> {
    let first = *packet.first()?;
    let header_length = usize::from(first & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
    if first >> 4 != 4 || header_length < 20 || packet.get(9) != Some(&UDP) || fragment != 0 {
        return None;
    }
    let udp = packet.get(header_length..total.min(packet.len()))?;
    let port = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
    let length = usize::from(port(4)?);
    if port(0)? != SERVER_PORT || port(2)? != CLIENT_PORT || length > MESSAGE_LENGTH_MAX {
        return None;
    }
    parse_message(udp.get(8..length)?)
}

fn parse_message(bytes: &[u8]) -> Option<Answer> {
    let message = Message::decode(&mut Decoder::new(&with_read_options(bytes)?)).ok()?;
    if message.opcode() != dhcproto::v4::Opcode::BootReply || message.hlen() != 6 {
        return None;
    }
    let options = message.opts();
    let mac: [u8; 6] = message.chaddr().get(..6)?.try_into().ok()?;
    let server = match options.get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
        _ => None,
    };
    let kind = options.msg_type()?;
    let offer = match kind {
        MessageType::Offer | MessageType::Ack => Some(parse_offer(&message, server)?),
        MessageType::Nak => None,
        _ => return None,
    };
    Some(Answer { transaction: message.xid(), mac, server, is_acknowledgement: kind == MessageType::Ack, offer })
}

/// The message without the options that are not read: a server's mistake in one of them is none of ours.
fn with_read_options(message: &[u8]) -> Option<Vec<u8>> {
    let (header, mut options) = message.split_at_checked(HEADER_LENGTH)?;
    let mut kept = header.to_vec();
    while let Some((&code, rest)) = options.split_first() {
        options = match code {
            PAD => rest,
            END => break,
            _ => {
                let (&length, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(usize::from(length))?;
                if READ.contains(&OptionCode::from(code)) {
                    kept.extend([code, length]);
                    kept.extend(value);
                }
                rest
            }
        };
    }
    kept.push(END);
    Some(kept)
}

fn parse_offer(message: &Message, server: Option<Ipv4Addr>) -> Option<Offer> {
    let options = message.opts();
    let address = message.yiaddr();
    if address.is_unspecified() || address.is_broadcast() || address.is_multicast() || address.is_loopback() {
        return None;
    }
    let mask = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => u32::from(*mask),
        _ => default_mask(address),
    };
    // Ones, then zeros; at least one of each would be pedantic: /32 is used by some clouds.
    let prefix_length = mask.leading_ones();
    if mask.checked_shl(prefix_length).unwrap_or(0) != 0 || prefix_length == 0 {
        return None;
    }
    let seconds = |option: Option<&DhcpOption>| match option {
        Some(DhcpOption::AddressLeaseTime(s) | DhcpOption::Renewal(s) | DhcpOption::Rebinding(s)) => Some(*s),
        _ => None,
    };
    let addresses = |code: OptionCode, max: usize| match options.get(code) {
        Some(DhcpOption::Router(list) | DhcpOption::DomainNameServer(list)) => {
            list.iter().take(max).copied().filter(|address| !address.is_unspecified()).collect()
        }
        _ => Vec::new(),
    };
    let classless = match options.get(OptionCode::ClasslessStaticRoute) {
        Some(DhcpOption::ClasslessStaticRoute(routes)) => {
            let routes = routes.iter().take(ROUTES_MAX);
            routes.map(|(net, gateway)| (net.trunc().addr(), net.prefix_len(), *gateway)).collect()
        }
        _ => Vec::new(),
    };
    let domain = match options.get(OptionCode::DomainName) {
        Some(DhcpOption::DomainName(name)) => Some(name.trim_end_matches('\0').to_owned()).filter(|n| is_domain(n)),
        _ => None,
    };
    Some(Offer {
        address,
        server: server.unwrap_or(message.siaddr()),
        prefix_length: u8::try_from(prefix_length).ok()?,
        routers: addresses(OptionCode::Router, 1),
        classless,
        dns: addresses(OptionCode::DomainNameServer, NAME_SERVERS_MAX),
        domain,
        seconds: seconds(options.get(OptionCode::AddressLeaseTime)).unwrap_or(LEASE_DEFAULT),
        renew: seconds(options.get(OptionCode::Renewal)),
        rebind: seconds(options.get(OptionCode::Rebinding)),
    })
}

/// The mask by the class of an address, where a server gives none.
fn default_mask(address: Ipv4Addr) -> u32 {
    match address.octets()[0] {
        0..=127 => 0xff00_0000,
        128..=191 => 0xffff_0000,
        _ => 0xffff_ff00,
    }
}

/// Whether `name` may be written into resolv.conf: it comes from the wire.
fn is_domain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.len() <= 253 && name.chars().all(fits)
}
