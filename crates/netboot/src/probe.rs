//! Asks the network of an interface who gives addresses and boot files there: one DHCPDISCOVER of a PXE client, to which
//! nothing follows, so that no address is taken.
//!
//! Answers are read from the wire (a packet socket), where neither a firewall nor a DHCP client of this machine is in
//! the way.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::Interface;
use crate::dhcp::{BOOT_FILE, Options};
use crate::port::udp;
use crate::proxy::{CLIENT_PORT, DHCP_PORT};

/// Ethernet's number of IPv4.
const IPV4: u16 = 0x0800;
const UDP: u8 = 17;
/// Servers that are remembered.
const ANSWERS_MAX: usize = 16;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) server: Ipv4Addr,
    /// It offered an address.
    pub(crate) gives_address: bool,
    /// The boot file that it named.
    pub(crate) boot_file: Option<String>,
}

/// Sends the question on `interface` and collects answers for `patience`, asking a second time at half of it.
pub(crate) fn probe(interface: &Interface, patience: Duration) -> io::Result<Vec<Answer>> {
    let wire = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(IPV4.to_be()))))?;
    wire.set_read_timeout(Some(Duration::from_millis(100)))?;
    // A DHCP client of this machine may have the port to itself; servers answer to it all the same.
    let sender = udp(interface, Ipv4Addr::UNSPECIFIED, CLIENT_PORT, true)
        .or_else(|_| udp(interface, Ipv4Addr::UNSPECIFIED, 0, true))?;
    let transaction = transaction(interface);
    let everybody = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_PORT)).into();
    let start = Instant::now();
    let (mut asked, mut answers) = (0, Vec::new());
    let mut buffer = [0; 2048];
    while start.elapsed() < patience {
        if asked == 0 || (asked == 1 && answers.is_empty() && start.elapsed() > patience / 2) {
            asked += 1;
            sender.send_to(&question(interface, transaction), &everybody)?;
        }
        let Ok(length) = (&wire).read(&mut buffer) else { continue };
        let Some(answer) = parse_packet(&buffer[..length], transaction) else { continue };
        if answer.server != interface.address && answers.len() < ANSWERS_MAX && !answers.contains(&answer) {
            answers.push(answer);
        }
    }
    Ok(answers)
}

/// A number that nobody else uses just now.
fn transaction(interface: &Interface) -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.subsec_nanos() ^ u32::from(interface.address) ^ std::process::id().rotate_left(16)
}

fn question(interface: &Interface, transaction: u32) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[4..8].copy_from_slice(&transaction.to_be_bytes());
    bytes[10] = 0x80; // answers are to be broadcast
    bytes[28..34].copy_from_slice(&interface.mac.0);
    bytes.extend_from_slice(&[99, 130, 83, 99, 53, 1, 1]);
    let class = b"PXEClient:Arch:00000:UNDI:002001";
    bytes.extend_from_slice(&[60, 32]);
    bytes.extend_from_slice(class);
    bytes.extend_from_slice(&[93, 2, 0, 0, 55, 5, 1, 3, 43, 66, 67, 255]);
    bytes.resize(300, 0);
    bytes
}

/// An IPv4 packet with an offer of this transaction.
fn parse_packet(packet: &[u8], transaction: u32) -> Option<Answer> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    if packet[0] >> 4 != 4 || header < 20 || *packet.get(9)? != UDP {
        return None;
    }
    let udp = packet.get(header..)?;
    if udp.get(2..4)? != CLIENT_PORT.to_be_bytes() {
        return None;
    }
    let message = udp.get(8..)?;
    if *message.first()? != 2 || message.get(4..8)? != transaction.to_be_bytes() {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(message.get(at..at + 4)?).ok()?));
    let source = Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?);
    let field = message.get(108..236)?.split(|byte| *byte == 0).next().unwrap_or_default();
    // dnsmasq names it in the option only, where the question asks for that.
    let option = Options(message.get(240..).unwrap_or_default()).get(BOOT_FILE);
    let file = if field.is_empty() { option.as_slice() } else { field };
    let text: String = String::from_utf8_lossy(file).chars().filter(|c| !c.is_control()).take(128).collect();
    let boot_file = Some(text).filter(|text| !text.is_empty());
    Some(Answer { server: source, gives_address: !address(16)?.is_unspecified(), boot_file })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(transaction: u32, address: [u8; 4], file: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 28 + 240];
        bytes[0] = 0x45;
        bytes[9] = UDP;
        bytes[12..16].copy_from_slice(&[10, 0, 0, 1]);
        bytes[20..24].copy_from_slice(&[0, 67, 0, 68]);
        bytes[28] = 2;
        bytes[32..36].copy_from_slice(&transaction.to_be_bytes());
        bytes[44..48].copy_from_slice(&address);
        bytes[136..136 + file.len()].copy_from_slice(file);
        bytes
    }

    #[test]
    fn offers_of_dhcp_servers_and_pxe_servers_are_told_apart() {
        let server = Ipv4Addr::new(10, 0, 0, 1);
        let plain = Answer { server, gives_address: true, boot_file: None };
        assert_eq!(parse_packet(&packet(7, [10, 0, 0, 9], b""), 7), Some(plain));
        let pxe = Answer { server, gives_address: false, boot_file: Some("x.0".into()) };
        assert_eq!(parse_packet(&packet(7, [0; 4], b"x.0"), 7), Some(pxe));
        let mut by_option = packet(7, [10, 0, 0, 9], b"");
        by_option.extend_from_slice(&[67, 4, b'x', b'.', b'0', 0, 255]);
        assert_eq!(parse_packet(&by_option, 7).unwrap().boot_file.as_deref(), Some("x.0"));
        assert_eq!(parse_packet(&packet(7, [0; 4], b""), 8), None, "of another transaction");
        let good = packet(7, [0; 4], b"");
        for length in 0..good.len() {
            let _ = parse_packet(&good[..length], 7);
        }
    }

    #[test]
    fn the_question_is_one_that_servers_read() {
        let interface = Interface {
            name: "x".into(),
            address: Ipv4Addr::LOCALHOST,
            mac: machine::MacAddress([2; 6]),
            has_link: true,
        };
        let request = crate::dhcp::parse_request(&question(&interface, 9)).unwrap();
        assert_eq!(
            (request.kind, request.transaction, request.mac),
            (crate::dhcp::MessageKind::Discover, 9, interface.mac)
        );
        assert_eq!((request.class.len(), request.architecture), (32, Some(0)));
    }
}
