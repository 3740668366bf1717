//! A packet socket for DHCP: it works before the interface has an address, and sees answers sent to one it has not yet.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::dhcp::{Answer, parse_datagram};
use crate::{Error, Result};

const PACKET_LENGTH_MAX: usize = 2048;

/// Open on one interface.
pub struct PacketSocket {
    socket: OwnedFd,
    index: i32,
}

/// Lets only UDP to port 68 through, so that a copy's traffic does not pass here. Instructions of linux/bpf_common.h
/// on the IPv4 header: protocol, fragment offset, header length, destination port.
const FILTER: [libc::sock_filter; 8] = [
    instruction(0x30, 0, 0, 9),      // load the protocol
    instruction(0x15, 0, 5, 17),     // UDP?
    instruction(0x28, 0, 0, 6),      // load the fragment offset
    instruction(0x45, 3, 0, 0x1fff), // not the first fragment?
    instruction(0xb1, 0, 0, 0),      // x = length of the header
    instruction(0x48, 0, 0, 2),      // load the destination port
    instruction(0x15, 1, 0, 68),     // the client's? then over the refusal
    instruction(0x06, 0, 0, 0),      // refuse
];

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

const ACCEPT: libc::sock_filter = instruction(0x06, 0, 0, 0xffff);

impl PacketSocket {
    /// Opens one on the interface number `index`.
    ///
    /// # Errors
    /// The operating system's.
    #[allow(unsafe_code)]
    pub fn open(index: u32) -> Result<Self> {
        let failed = |what: &str| Error::io(format!("packet socket: {what}"), io::Error::last_os_error());
        let protocol = libc::c_int::from(ip_protocol());
        // SAFETY: plain system call, the result is checked.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(failed("open"));
        }
        // SAFETY: `raw` is a new descriptor that nothing else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut filter: Vec<libc::sock_filter> = FILTER.to_vec();
        filter.push(ACCEPT);
        let program = libc::sock_fprog { len: 9, filter: filter.as_mut_ptr() };
        let length = libc::socklen_t::try_from(size_of_val(&program)).unwrap_or_default();
        // SAFETY: the program points to 9 instructions that outlive the call; the kernel copies them.
        let attached = unsafe {
            libc::setsockopt(raw, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const program).cast(), length)
        };
        if attached != 0 {
            return Err(failed("set the filter"));
        }
        let index = i32::try_from(index).map_err(|_| Error::new("packet socket: no such interface"))?;
        let mut address = link_address(index);
        address.sll_protocol = u16::try_from(protocol).unwrap_or_default();
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
        // SAFETY: the address is initialised, `length` is its size.
        if unsafe { libc::bind(raw, (&raw const address).cast(), length) } != 0 {
            return Err(failed("bind"));
        }
        Ok(Self { socket, index })
    }

    /// Sends a DHCP message to everyone on the link, from `source` (0.0.0.0 while we have no address).
    ///
    /// # Errors
    /// The operating system's.
    #[allow(unsafe_code)]
    pub fn broadcast(&self, message: &[u8], source: Ipv4Addr) -> Result<()> {
        let packet = datagram(message, source, Ipv4Addr::BROADCAST)
            .ok_or_else(|| Error::new("packet socket: the message is too long"))?;
        let address = link_address(self.index);
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
        // SAFETY: packet and address are initialised and their lengths are given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                length,
            )
        };
        if sent < 0 {
            return Err(Error::io("send a DHCP message", io::Error::last_os_error()));
        }
        Ok(())
    }

    /// Waits for a DHCP answer, for `timeout` at most.
    ///
    /// # Errors
    /// The operating system's; the link may just be down.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Answer>> {
        let mut events = [PollFd::new(&self.socket, PollFlags::IN)];
        let limit =
            Timespec { tv_sec: timeout.as_secs().try_into().unwrap_or(3600), tv_nsec: timeout.subsec_nanos().into() };
        match poll(&mut events, Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(errno) => return Err(Error::io("wait for DHCP answers", errno)),
        }
        let mut buffer = [0; PACKET_LENGTH_MAX];
        match rustix::net::recv(&self.socket, buffer.as_mut_slice(), rustix::net::RecvFlags::DONTWAIT) {
            Ok((length, _)) => Ok(parse_datagram(&buffer[..length])),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(errno) => Err(Error::io("receive DHCP answers", errno)),
        }
    }
}

/// ETH_P_IP in network order.
fn ip_protocol() -> u16 {
    0x0800u16.to_be()
}

#[allow(unsafe_code)]
fn link_address(index: i32) -> libc::sockaddr_ll {
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = ip_protocol();
    address.sll_ifindex = index;
    address.sll_halen = 6;
    address.sll_addr = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
    address
}

/// An IPv4 packet with a UDP datagram from port 68 to 67 (RFC 791, RFC 768).
fn datagram(message: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> Option<Vec<u8>> {
    let udp_length = u16::try_from(message.len().checked_add(8)?).ok()?;
    let total = udp_length.checked_add(20)?;
    let mut packet = vec![0x45, 0x10];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum = checksum(&packet, 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut udp = vec![0, 68, 0, 67];
    udp.extend(udp_length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(message);
    let pseudo =
        [source.octets(), destination.octets(), [0, 17, udp_length.to_be_bytes()[0], udp_length.to_be_bytes()[1]]];
    let sum = match checksum(&udp, add(&pseudo.concat(), 0)) {
        0 => 0xffff, // zero stands for "not computed"
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    packet.extend(udp);
    Some(packet)
}

fn add(bytes: &[u8], start: u64) -> u64 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    words.fold(start, |sum, word| sum + word)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8], start: u64) -> u16 {
    let mut sum = add(bytes, start);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_has_right_lengths_and_checksums() {
        for message in [vec![1; 300], vec![0xab; 301]] {
            let packet = datagram(&message, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST).unwrap();
            assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
            assert_eq!(checksum(&packet[..20], 0), 0, "header");
            let pseudo = [&packet[12..20], &[0, 17], &packet[24..26]].concat();
            assert_eq!(checksum(&packet[20..], add(&pseudo, 0)), 0, "datagram");
            assert_eq!(packet[20..24], [0, 68, 0, 67]);
        }
        assert!(datagram(&[0; 70_000], Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST).is_none());
    }

    /// What the kernel does with the filter, as far as it is used.
    fn accepted(packet: &[u8]) -> bool {
        let filter: Vec<_> = FILTER.iter().copied().chain([ACCEPT]).collect();
        let byte = |at: usize| packet.get(at).copied().map(u32::from);
        let half = |at: usize| Some(byte(at)? << 8 | byte(at + 1)?);
        let (mut at, mut a, mut x) = (0, 0, 0);
        loop {
            let step = filter[at];
            let k = usize::try_from(step.k).unwrap();
            let loaded = match step.code {
                0x30 => byte(k),
                0x28 => half(k),
                0x48 => half(x + k),
                0xb1 => byte(k).map(|b| {
                    x = usize::try_from(b & 15).unwrap() * 4;
                    a
                }),
                0x06 => return step.k != 0,
                _ => Some(a),
            };
            let Some(loaded) = loaded else { return false };
            a = loaded;
            let jump = match step.code {
                0x15 => usize::from(if a == step.k { step.jt } else { step.jf }),
                0x45 => usize::from(if a & step.k != 0 { step.jt } else { step.jf }),
                _ => 0,
            };
            at += 1 + jump;
        }
    }

    #[test]
    fn the_filter_lets_only_answers_to_clients_through() {
        let mut answer = datagram(&[1; 300], Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST).unwrap();
        assert!(!accepted(&answer), "port 67");
        answer[23] = 68;
        assert!(accepted(&answer));
        let with = |at: usize, value: u8| {
            let mut packet = answer.clone();
            packet[at] = value;
            accepted(&packet)
        };
        assert!(!with(9, 6) && !with(7, 1) && !with(23, 67) && !with(22, 1));
        assert!(with(6, 0x40), "don't fragment");
    }
}
