//! Addresses of network interfaces, and the ones that their makers gave them: the two system calls that the kernel
//! shows in no file.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use machine::{IpNet, MacAddress};

/// Whether any interface but the loopback has an address other than a link-local one.
pub fn has_network_address() -> bool {
    load_addresses().iter().any(|(_, net)| match net.address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    })
}

/// Every address with the name of its interface.
pub(super) fn load_addresses() -> Vec<(String, IpNet)> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` is a valid place for the pointer.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: the list is ours until freeifaddrs, and `next` is one of its members.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        // SAFETY: the kernel's addresses are null or of the length that their family says.
        let (address, mask) = unsafe { (ip_of(entry.ifa_addr), ip_of(entry.ifa_netmask)) };
        let Some(address) = address else { continue };
        // SAFETY: a name is a C string.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy().into_owned();
        let prefix_length = mask.map_or(0, prefix_of);
        found.push((name, IpNet { address, prefix_length }));
    }
    // SAFETY: the list came from getifaddrs and no reference into it is left.
    unsafe { libc::freeifaddrs(list) };
    found
}

fn prefix_of(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => u32::from(mask).leading_ones(),
        IpAddr::V6(mask) => u128::from(mask).leading_ones(),
    };
    u8::try_from(ones).unwrap_or(0)
}

/// # Safety
/// `address` is null or points to a socket address as long as its family says.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: not null, and every socket address begins with its family.
    match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            // SAFETY: of this family, so of this length; the copy needs no alignment.
            let address: libc::sockaddr_in = unsafe { std::ptr::read_unaligned(address.cast()) };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: of this family, so of this length; the copy needs no alignment.
            let address: libc::sockaddr_in6 = unsafe { std::ptr::read_unaligned(address.cast()) };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// The address that an interface's maker gave it (`ETHTOOL_GPERMADDR`), whatever it wears now.
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
    fn the_loopback_interface_has_its_address() {
        let lo = IpNet { address: Ipv4Addr::LOCALHOST.into(), prefix_length: 8 };
        assert!(load_addresses().contains(&("lo".to_owned(), lo)));
        assert_eq!(permanent_mac("lo"), None);
        assert_eq!(permanent_mac("a-name-that-is-too-long-for-linux"), None);
    }
}
