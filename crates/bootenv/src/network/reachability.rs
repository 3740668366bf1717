//! Whether the controller can be reached, and if not, at which step of the way it ends, in words for whoever stands there.
//!
//! What it is that answers there, and with which certificate, the agent finds out.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use machine::IpNet;

use super::resolver::name_servers;
use super::settings::contains;
use crate::configuration::parse_controller;
use crate::status::Picture;

/// What a machine in the same house, or behind a slow line, needs to answer.
const CONNECT_MAX: Duration = Duration::from_secs(6);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// The step at which the way ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Something listens there.
    Reachable(SocketAddr),
    /// The address is none.
    NoController(String),
    /// No network card has a driver.
    NoInterface,
    /// No cable.
    NoLink,
    /// No interface has an address.
    NoAddress,
    /// Nobody to ask for a name.
    NoNameServer(String),
    /// The name servers do not answer.
    NameServersSilent(String, Vec<String>),
    /// The name servers do not know the name.
    NameNotFound(String),
    /// No route leads there.
    NoRoute(IpAddr),
    /// The gateway does not answer, or knows no way.
    GatewaySilent(IpAddr, Vec<Ipv4Addr>),
    /// In our own network, and nobody answers for the address.
    NobodyThere(IpAddr),
    /// Packets go, and nothing comes back.
    NoAnswer(SocketAddr),
    /// The machine answers, and nothing listens on the port.
    Refused(SocketAddr),
    /// Something else, as the operating system says it.
    Other(SocketAddr, String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reachable(address) => write!(f, "reachable: {address} answers"),
            Self::NoController(why) => write!(f, "{why}"),
            Self::NoInterface => {
                write!(f, "no network card with a driver: see Device Installer")
            }
            Self::NoLink => write!(f, "no link: no card sees a cable or a switch"),
            Self::NoAddress => write!(f, "no address: no DHCP server answers; set a static address"),
            Self::NoNameServer(name) => {
                write!(f, "name not found: no name server is known to ask for {name}; set one, or use an address")
            }
            Self::NameServersSilent(name, servers) => {
                write!(f, "name not found: no answer from name server {} about {name}", servers.join(", "))
            }
            Self::NameNotFound(name) => write!(f, "name not found: the name servers know no {name}"),
            Self::NoRoute(address) => write!(f, "no route: {address} is in another network; set a gateway"),
            Self::GatewaySilent(address, gateways) if gateways.is_empty() => {
                write!(f, "no route: the gateway does not answer or knows no way to {address}")
            }
            Self::GatewaySilent(address, gateways) => {
                let gateways: Vec<String> = gateways.iter().map(Ipv4Addr::to_string).collect();
                write!(f, "no route: gateway {} does not answer or knows no way to {address}", gateways.join(", "))
            }
            Self::NobodyThere(address) => {
                write!(f, "nobody answers for {address} in this network: is it right, is it on?")
            }
            Self::NoAnswer(address) => write!(f, "no answer from {address}: a firewall may drop it, or it is off"),
            Self::Refused(address) => {
                write!(f, "refused: {} answers, but nothing listens on port {}", address.ip(), address.port())
            }
            Self::Other(address, why) => write!(f, "{address}: {why}"),
        }
    }
}

/// Goes the way to the controller at `HOST:PORT`; takes some seconds where something does not answer.
pub fn check(controller: &str, picture: &Picture) -> Verdict {
    let controller = match parse_controller(controller) {
        Ok(controller) => controller,
        Err(error) => return Verdict::NoController(error.context),
    };
    let nics = || picture.nics.values();
    if nics().next().is_none() {
        return Verdict::NoInterface;
    }
    if !nics().any(|nic| nic.link) {
        return Verdict::NoLink;
    }
    let own: Vec<IpNet> = nics().flat_map(|nic| nic.addresses.iter().copied()).collect();
    if own.is_empty() {
        return Verdict::NoAddress;
    }
    let addresses = match resolve(&controller) {
        Ok(addresses) => addresses,
        Err(verdict) => return verdict,
    };
    let mut verdict = Verdict::NoController(format!("{controller}: no address"));
    for address in addresses.into_iter().take(ADDRESSES_MAX) {
        match connect(&address) {
            Ok(_) => return Verdict::Reachable(address),
            Err(error) => {
                let gateways = if address.is_ipv4() { gateways() } else { Vec::new() };
                verdict = judge(address, &error, &own, &gateways);
            }
        }
    }
    verdict
}

/// Connects; once more where the connection ended without a reason: the kernel forgets the one of an unanswered ARP
/// question when it comes at the wrong moment.
fn connect(address: &SocketAddr) -> io::Result<TcpStream> {
    match TcpStream::connect_timeout(address, CONNECT_MAX) {
        Err(error) if error.raw_os_error().is_none() && error.kind() != io::ErrorKind::TimedOut => {
            TcpStream::connect_timeout(address, CONNECT_MAX)
        }
        done => done,
    }
}

/// The addresses of `HOST:PORT`, or why there are none.
pub(crate) fn resolve(controller: &str) -> Result<Vec<SocketAddr>, Verdict> {
    if let Ok(address) = controller.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    let (name, port) = controller.rsplit_once(':').unwrap_or((controller, ""));
    let port = port.parse().unwrap_or_default();
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    match getaddrinfo(Some(name), None, Some(hints)) {
        Ok(found) => Ok(found.flatten().map(|info| SocketAddr::new(info.sockaddr.ip(), port)).collect()),
        Err(error) => {
            let servers = name_servers();
            Err(match error.kind() {
                _ if servers.is_empty() => Verdict::NoNameServer(name.into()),
                LookupErrorKind::Again => Verdict::NameServersSilent(name.into(), servers),
                _ => Verdict::NameNotFound(name.into()),
            })
        }
    }
}

fn judge(address: SocketAddr, error: &io::Error, own: &[IpNet], gateways: &[Ipv4Addr]) -> Verdict {
    let near = own.iter().any(|net| contains(net, address.ip()));
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Verdict::Refused(address),
        io::ErrorKind::NetworkUnreachable if gateways.is_empty() => Verdict::NoRoute(address.ip()),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable if !near => {
            Verdict::GatewaySilent(address.ip(), gateways.to_vec())
        }
        io::ErrorKind::HostUnreachable => Verdict::NobodyThere(address.ip()),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Verdict::NoAnswer(address),
        _ => Verdict::Other(address, error.to_string()),
    }
}

/// The default gateways, from /proc/net/route (proc_pid_net(5)).
fn gateways() -> Vec<Ipv4Addr> {
    parse_gateways(&fs::read_to_string("/proc/net/route").unwrap_or_default())
}

/// Columns: interface, destination, gateway (hexadecimal in the machine's byte order), flags, …
fn parse_gateways(text: &str) -> Vec<Ipv4Addr> {
    let gateway = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (destination, gateway) = (fields.next()?, fields.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        (destination == "00000000" && gateway != 0).then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    };
    text.lines().filter_map(gateway).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::NicStatus;

    fn picture(link: bool, addresses: &[&str]) -> Picture {
        let mut picture = Picture::default();
        let net = |text: &&str| {
            let (address, bits) = text.split_once('/').unwrap();
            IpNet { address: address.parse().unwrap(), prefix_length: bits.parse().unwrap() }
        };
        let nic = NicStatus {
            name: "eth0".into(),
            driver: "e1000e".into(),
            mac: machine::MacAddress([2; 6]),
            link,
            speed: None,
            addresses: addresses.iter().map(net).collect(),
            note: String::new(),
        };
        picture.nics.insert(1, nic);
        picture
    }

    #[test]
    fn each_step_of_the_way_has_its_own_words() {
        assert_eq!(check("192.0.2.1:7770", &Picture::default()), Verdict::NoInterface);
        assert_eq!(check("192.0.2.1:7770", &picture(false, &[])), Verdict::NoLink);
        assert_eq!(check("192.0.2.1:7770", &picture(true, &[])), Verdict::NoAddress);
        assert!(matches!(check("nothing", &picture(true, &[])), Verdict::NoController(_)));
        let own = [IpNet { address: [192, 0, 2, 7].into(), prefix_length: 24 }];
        let (near, far) = (SocketAddr::from(([192, 0, 2, 1], 7770)), SocketAddr::from(([198, 51, 100, 1], 7770)));
        let gateway = [Ipv4Addr::new(192, 0, 2, 99)];
        let judged = |address, kind: io::ErrorKind, gateways| judge(address, &kind.into(), &own, gateways).to_string();
        let words = [
            judged(far, io::ErrorKind::NetworkUnreachable, &[]),
            judged(far, io::ErrorKind::HostUnreachable, &gateway),
            judged(near, io::ErrorKind::HostUnreachable, &gateway),
            judged(near, io::ErrorKind::TimedOut, &gateway),
            judged(near, io::ErrorKind::ConnectionRefused, &gateway),
        ];
        assert_eq!(words[0], "no route: 198.51.100.1 is in another network; set a gateway");
        assert_eq!(words[1], "no route: gateway 192.0.2.99 does not answer or knows no way to 198.51.100.1");
        assert!(words[2].starts_with("nobody answers for 192.0.2.1"));
        assert!(words[3].starts_with("no answer from 192.0.2.1:7770"));
        assert_eq!(words[4], "refused: 192.0.2.1 answers, but nothing listens on port 7770");
    }

    #[test]
    fn a_listening_port_is_reachable_and_a_closed_one_refuses() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let picture = picture(true, &["127.0.0.1/8"]);
        assert_eq!(check(&address.to_string(), &picture), Verdict::Reachable(address));
        drop(listener);
        assert_eq!(check(&address.to_string(), &picture), Verdict::Refused(address));
    }

    #[test]
    fn gateways_are_read_from_the_kernels_table() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t010200C0\t0003\t0\t0\t1\t0\n\
                    eth0\t000200C0\t00000000\t0001\t0\t0\t1\t00FFFFFF\n";
        assert_eq!(parse_gateways(text), [Ipv4Addr::new(192, 0, 2, 1)]);
    }
}
