//! Network interfaces with an IPv4 address, asked of the kernel by netlink: the files under /sys tell of another network
//! namespace than that of this process when it was moved to one.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::Ipv4Addr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, ErrorKind, Mac, Result};

const AF_NETLINK: i32 = 16;
const AF_INET: u8 = 2;
const NETLINK_ROUTE: i32 = 0;
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
/// NLM_F_REQUEST and NLM_F_DUMP
const DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 0x10000;
/// More is no machine of this world.
const INTERFACES_MAX: usize = 65_536;

/// An interface that the service can work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name: `eth0`.
    pub name: String,
    /// Its first IPv4 address, by which clients reach us.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: Mac,
    /// Whether its cable is plugged in.
    pub has_link: bool,
}

/// The interfaces named, or all that are up with an IPv4 address where none is.
///
/// # Errors
/// [`ErrorKind::NoInterface`], with the reason for each that cannot be used.
pub fn load_interfaces(wanted: &[String]) -> Result<Vec<Interface>> {
    let links = load_links().map_err(|e| Error::io("ask the kernel for network interfaces", e))?;
    let mut names: Vec<String> = links.values().map(|link| link.name.clone()).collect();
    names.sort();
    let (mut found, mut reasons) = (Vec::new(), Vec::new());
    for name in if wanted.is_empty() { &names } else { wanted } {
        match links.values().find(|link| link.name == *name).map(Link::interface) {
            None => reasons.push(format!("there is no interface {name}; there are {}", names.join(", "))),
            Some(Ok(interface)) => found.push(interface),
            Some(Err(reason)) => reasons.push(format!("{name}: {reason}")),
        }
    }
    if found.is_empty() || (!wanted.is_empty() && !reasons.is_empty()) {
        let context = format!("no network interface that can be used: {}", reasons.join("; "));
        return Err(Error::new(ErrorKind::NoInterface, context));
    }
    Ok(found)
}

/// What the kernel says of an interface.
#[derive(Debug, Default)]
struct Link {
    name: String,
    kind: u16,
    flags: u32,
    mac: Vec<u8>,
    address: Option<Ipv4Addr>,
}

impl Link {
    fn interface(&self) -> std::result::Result<Interface, &'static str> {
        let mac = <[u8; 6]>::try_from(self.mac.as_slice()).ok().filter(|_| self.kind == ARPHRD_ETHER);
        let mac = mac.ok_or("it is no Ethernet")?;
        if self.flags & IFF_UP == 0 {
            return Err("it is down");
        }
        let address = self.address.ok_or("it has no IPv4 address")?;
        let has_link = self.flags & IFF_LOWER_UP != 0;
        Ok(Interface { name: self.name.clone(), address, mac: Mac(mac), has_link })
    }
}

fn load_links() -> io::Result<BTreeMap<u32, Link>> {
    let mut links: BTreeMap<u32, Link> = BTreeMap::new();
    ask(RTM_GETLINK, HEADER, &mut |message| {
        // ifinfomsg: family, padding, type, index, flags, change
        let (Some(kind), Some(index), Some(flags)) = (short(message, 2), long(message, 4), long(message, 8)) else {
            return;
        };
        let mut link = Link { kind, flags, ..Link::default() };
        for (code, value) in attributes(message.get(16..).unwrap_or_default()) {
            match code {
                IFLA_ADDRESS => link.mac = value.to_vec(),
                IFLA_IFNAME => link.name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
                _ => {}
            }
        }
        if links.len() < INTERFACES_MAX {
            links.insert(index, link);
        }
    })?;
    ask(RTM_GETADDR, 8, &mut |message| {
        // ifaddrmsg: family, prefix length, flags, scope, index
        let Some(link) = long(message, 4).and_then(|index| links.get_mut(&index)) else { return };
        if message.first() != Some(&AF_INET) || link.address.is_some() {
            return;
        }
        let all: Vec<_> = attributes(message.get(8..).unwrap_or_default()).collect();
        // On a point-to-point link only IFA_LOCAL is ours.
        let ours = [IFA_LOCAL, IFA_ADDRESS].iter().find_map(|wanted| all.iter().find(|(code, _)| code == wanted));
        link.address = ours.and_then(|(_, value)| <[u8; 4]>::try_from(*value).ok()).map(Ipv4Addr::from);
    })?;
    Ok(links)
}

/// Dumps one table of the kernel: each message's content goes to `take`.
fn ask(table: u16, body: usize, take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_ROUTE)))?;
    let mut request = vec![0; HEADER + body];
    let length = u32::try_from(request.len()).unwrap_or(0);
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&table.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    socket.send(&request)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = (&socket).read(&mut buffer)?;
        let mut rest = &buffer[..length];
        while let (Some(length), Some(kind)) = (long(rest, 0), short(rest, 4)) {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length < HEADER || length > rest.len() {
                break;
            }
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return Err(io::Error::other("the kernel refused to list them")),
                _ => take(&rest[HEADER..length]),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, code) = (usize::from(short(rest, 0)?), short(rest, 2)?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((code, value))
    })
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_cannot_be_used_is_named_with_the_reason() {
        let error = load_interfaces(&["nowhere0".into()]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoInterface);
        assert!(error.context.contains("there is no interface nowhere0") && error.context.contains("lo"), "{error}");
        let error = load_interfaces(&["lo".into()]).unwrap_err();
        assert!(error.context.contains("lo: it is no Ethernet"), "{error}");
    }

    #[test]
    fn broken_attributes_end_the_list() {
        assert_eq!(attributes(&[5, 0, 1, 0, 9]).collect::<Vec<_>>(), [(1, [9].as_slice())]);
        for broken in [[].as_slice(), &[8, 0, 1], &[200, 0, 1, 0, 0], &[0, 0, 1, 0, 0], &[3, 0, 1, 0]] {
            assert_eq!(attributes(broken).count(), 0, "{broken:?}");
        }
    }
}
