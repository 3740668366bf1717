//! The adapters with their addresses. Unsafe for `GetAdaptersAddresses`, which answers with a list of pointers.
#![allow(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use machine::{IpNet, MacAddress};
use windows_sys::Win32::Foundation::{ERROR_BUFFER_OVERFLOW, ERROR_NO_DATA, ERROR_SUCCESS};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    GAA_FLAG_INCLUDE_ALL_INTERFACES, GAA_FLAG_SKIP_ANYCAST, GAA_FLAG_SKIP_DNS_SERVER, GAA_FLAG_SKIP_MULTICAST,
    GetAdaptersAddresses, IP_ADAPTER_ADDRESSES_LH, IP_ADAPTER_DHCP_ENABLED, IP_ADAPTER_UNICAST_ADDRESS_LH,
};
use windows_sys::Win32::Networking::WinSock::{AF_INET, AF_INET6, AF_UNSPEC, SOCKADDR_IN, SOCKADDR_IN6};

use super::{code_error, devices};
use crate::Result;
use crate::adapters::Adapter;

/// First and largest length of the answer, in bytes.
const ANSWER_BYTES: u32 = 64 << 10;
const ANSWER_BYTES_MAX: u32 = 16 << 20;
/// Longest lists and texts that are followed.
const ADAPTERS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 1000;
const TEXT_UNITS_MAX: usize = 1024;

/// The adapters that are there.
pub(super) fn adapters() -> Result<Vec<Adapter>> {
    let answer = answer()?;
    let devices = devices::network_devices().unwrap_or_default();
    let mut found = Vec::new();
    let mut next: *const IP_ADAPTER_ADDRESSES_LH = answer.as_ptr().cast();
    while !next.is_null() && found.len() < ADAPTERS_MAX {
        // SAFETY: Windows wrote the list into `answer`, which lives until the end; the last one points nowhere. Where in it the others
        // lie is its own matter, on 32 bits too.
        let one = unsafe { next.read_unaligned() };
        let mut adapter = adapter(&one);
        let braced = format!("{{{}}}", adapter.interface);
        if let Some(device) = devices.iter().find(|device| device.interface.eq_ignore_ascii_case(&braced)) {
            adapter.instance_id = Some(device.instance_id.clone());
            adapter.location = device.location;
        }
        found.push(adapter);
        next = one.Next;
    }
    Ok(found)
}

/// The list, in units that are aligned for what it begins with; empty where there is no adapter.
fn answer() -> Result<Vec<u64>> {
    let flags =
        GAA_FLAG_SKIP_ANYCAST | GAA_FLAG_SKIP_MULTICAST | GAA_FLAG_SKIP_DNS_SERVER | GAA_FLAG_INCLUDE_ALL_INTERFACES;
    let mut length = ANSWER_BYTES;
    loop {
        // Zeros where Windows wrote nothing: a list without an end is one with an end.
        let mut buffer = vec![0_u64; length as usize / 8 + size_of::<IP_ADAPTER_ADDRESSES_LH>() / 8 + 1];
        // SAFETY: the buffer is at least as long as `length` says, which is written to.
        let code = unsafe {
            GetAdaptersAddresses(
                u32::from(AF_UNSPEC),
                flags,
                std::ptr::null(),
                buffer.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        match code {
            ERROR_SUCCESS => return Ok(buffer),
            ERROR_NO_DATA => return Ok(vec![0; size_of::<IP_ADAPTER_ADDRESSES_LH>() / 8 + 1]),
            ERROR_BUFFER_OVERFLOW if length <= ANSWER_BYTES_MAX => length += ANSWER_BYTES,
            code => return Err(code_error("adapters", code)),
        }
    }
}

fn adapter(one: &IP_ADAPTER_ADDRESSES_LH) -> Adapter {
    let octets: Option<[u8; 6]> =
        (one.PhysicalAddressLength == 6).then(|| one.PhysicalAddress[..6].try_into().ok()).flatten();
    // SAFETY: the flags are the union's one field that is read by this name.
    let flags = unsafe { one.Anonymous2.Flags };
    let mut addresses = Vec::new();
    let mut next: *const IP_ADAPTER_UNICAST_ADDRESS_LH = one.FirstUnicastAddress;
    while !next.is_null() && addresses.len() < ADDRESSES_MAX {
        // SAFETY: the list lies in the same answer as `one`; the last one points nowhere.
        let unicast = unsafe { next.read_unaligned() };
        addresses.extend(address(&unicast));
        next = unicast.Next;
    }
    let guid = narrow(one.AdapterName);
    Adapter {
        name: text(one.FriendlyName),
        interface: guid.trim_matches(['{', '}']).to_ascii_lowercase(),
        description: text(one.Description),
        instance_id: None,
        mac: octets.filter(|octets| *octets != [0; 6]).map(MacAddress),
        location: None,
        dhcp: flags & IP_ADAPTER_DHCP_ENABLED != 0,
        addresses,
    }
}

fn address(unicast: &IP_ADAPTER_UNICAST_ADDRESS_LH) -> Option<IpNet> {
    let socket = unicast.Address.lpSockaddr;
    if socket.is_null() {
        return None;
    }
    // SAFETY: Windows wrote a socket address there.
    let family = unsafe { socket.read_unaligned() }.sa_family;
    let address = match family {
        AF_INET => {
            // SAFETY: of this family the address is one of this type, whose bytes have one meaning.
            let number = unsafe { socket.cast::<SOCKADDR_IN>().read_unaligned().sin_addr.S_un.S_addr };
            IpAddr::V4(Ipv4Addr::from(number.to_ne_bytes()))
        }
        AF_INET6 => {
            // SAFETY: of this family the address is one of this type, whose bytes have one meaning.
            IpAddr::V6(Ipv6Addr::from(unsafe { socket.cast::<SOCKADDR_IN6>().read_unaligned().sin6_addr.u.Byte }))
        }
        _ => return None,
    };
    Some(IpNet { address, prefix_length: unicast.OnLinkPrefixLength })
}

fn text(start: *const u16) -> String {
    let units = (0..TEXT_UNITS_MAX).map_while(|at| {
        // SAFETY: the text is one of the answer's, or there is none; it is read to its zero and no further.
        (!start.is_null()).then(|| unsafe { start.add(at).read_unaligned() }).filter(|unit| *unit != 0)
    });
    String::from_utf16_lossy(&units.collect::<Vec<u16>>())
}

fn narrow(start: *const u8) -> String {
    let bytes = (0..TEXT_UNITS_MAX).map_while(|at| {
        // SAFETY: the text is one of the answer's, or there is none; it is read to its zero and no further.
        (!start.is_null()).then(|| unsafe { *start.add(at) }).filter(|byte| *byte != 0)
    });
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}
