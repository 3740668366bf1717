//! Addresses of interfaces, and the one that an adapter's maker gave it.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use machine::{IpNet, MacAddress};

use crate::system::System;

/// Most addresses of the machine.
const ADDRESSES_MAX: usize = 4096;
/// Flags of `/proc/net/if_inet6` (`include/uapi/linux/if_addr.h`): temporary ones, those that failed, and those about to go.
const UNSTABLE: u8 = 0x01 | 0x08 | 0x20;

/// IPv6 addresses with their interfaces, those of links' own and short-lived ones left out.
pub(super) fn load_ipv6(system: &System) -> Vec<(String, IpNet)> {
    let text = system.text("/proc/net/if_inet6").unwrap_or_default();
    text.lines().take(ADDRESSES_MAX).filter_map(parse_ipv6).collect()
}

/// `20010db8000000000000000000000007 02 40 00 80     eth0`: address, index, prefix, scope, flags, name.
fn parse_ipv6(line: &str) -> Option<(String, IpNet)> {
    let mut fields = line.split_whitespace();
    let address = fields.next().filter(|text| text.len() == 32)?;
    let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
    let prefix_length = u8::from_str_radix(fields.nth(1)?, 16).ok().filter(|length| *length <= 128)?;
    let flags = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
    let name = fields.next()?.to_owned();
    let is_ours = flags & UNSTABLE == 0 && !address.is_unicast_link_local() && !address.is_loopback();
    is_ours.then_some((name, IpNet { address: address.into(), prefix_length }))
}

/// IPv4 addresses with their interfaces, the loopback's left out.
pub(super) fn load_ipv4() -> Vec<(String, IpNet)> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` is a valid place for the pointer.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() && found.len() < ADDRESSES_MAX {
        // SAFETY: the list is ours until freeifaddrs, and `next` is one of its members.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        // SAFETY: the kernel's addresses are null or of the length that their family says.
        let (address, mask) = unsafe { (ipv4_of(entry.ifa_addr), ipv4_of(entry.ifa_netmask)) };
        let Some(address) = address.filter(|address| !address.is_loopback()) else { continue };
        // SAFETY: a name is a C string.
        let label = unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy();
        // Second addresses may be labelled `eth0:1`.
        let name = label.split(':').next().unwrap_or_default().to_owned();
        let prefix_length = mask.map_or(32, |mask| u8::try_from(u32::from(mask).leading_ones()).unwrap_or(32));
        found.push((name, IpNet { address: IpAddr::V4(address), prefix_length }));
    }
    // SAFETY: the list came from getifaddrs and no reference into it is left.
    unsafe { libc::freeifaddrs(list) };
    found
}

/// # Safety
/// `address` is null or points to a socket address as long as its family says.
unsafe fn ipv4_of(address: *const libc::sockaddr) -> Option<Ipv4Addr> {
    // SAFETY: where it is not null, every socket address begins with its family.
    if address.is_null() || i32::from(unsafe { (*address).sa_family }) != libc::AF_INET {
        return None;
    }
    // SAFETY: of this family, so of this length; the copy needs no alignment.
    let address: libc::sockaddr_in = unsafe { std::ptr::read_unaligned(address.cast()) };
    Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)))
}

/// The address that an adapter's maker gave it (`ETHTOOL_GPERMADDR`), whatever it wears now.
pub(super) fn permanent_mac(name: &str) -> Option<MacAddress> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    const ETHTOOL_GPERMADDR: u32 = 0x20;
    const ADDRESS_BYTES_MAX: u32 = 32;
    #[repr(C)]
    struct PermanentAddress {
        command: u32,
        size: u32,
        data: [u8; ADDRESS_BYTES_MAX as usize],
    }
    let mut answer =
        PermanentAddress { command: ETHTOOL_GPERMADDR, size: ADDRESS_BYTES_MAX, data: [0; ADDRESS_BYTES_MAX as usize] };
    // SAFETY: zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    if name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut answer).cast();
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // SAFETY: the request names an interface and points to an answer with the room that its size field says.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } != 0 {
        return None;
    }
    let mac: [u8; 6] = answer.data.get(..answer.size as usize)?.try_into().ok()?;
    (mac != [0; 6] && mac != [0xff; 6]).then_some(MacAddress(mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_stay_are_read() {
        let (name, net) = parse_ipv6("20010db8000000000000000000000007 02 40 00 80     eth0").unwrap();
        assert_eq!((name.as_str(), net.to_string().as_str()), ("eth0", "2001:db8::7/64"));
        for other in [
            "fe80000000000000505400fffe123456 02 40 20 80     eth0",
            "20010db8000000000000000000000008 02 40 00 01     eth0",
            "00000000000000000000000000000001 01 80 10 80       lo",
            "20010db8 02 40 00 80 eth0",
            "",
        ] {
            assert_eq!(parse_ipv6(other), None, "{other}");
        }
    }

    #[test]
    fn the_loopback_interface_has_no_address_for_us() {
        assert!(load_ipv4().iter().all(|(name, _)| name != "lo"));
        assert_eq!(permanent_mac("lo"), None);
        assert_eq!(permanent_mac("a-name-that-is-too-long-for-linux"), None);
    }
}
