//! The persistent tables of Windows' network store, where fixed IPv6 addresses and routes stand since Vista.
//!
//! `Control\Nsi\{eb004a01-9b1a-11d4-9123-0050047759bc}`, IPv6: below `10` each unicast address is a value whose name is
//! the interface's LUID and the address in hexadecimal digits, with the length of its prefix at byte 16 of its data;
//! below `16` each route is one whose name has the destination at byte 4, the length of its prefix at 20, the LUID at
//! 40 and the next hop at 56 of 72 bytes, with the metric at byte 12 of its data. Microsoft does not document them. The
//! addresses' form is that of the same table of IPv4 (`{eb004a00-…}`) in the Windows 7 hive of the test data, where
//! `Tcpip\Parameters\Interfaces` tells the same addresses, and of <https://stackoverflow.com/questions/8155700>; the
//! routes' that of IPv4's in the same hive, with longer addresses. No real hive with fixed IPv6 addresses was seen. A
//! LUID is the interface's type and an index (ifdef.h, `NET_LUID_LH`), which the adapter's class key has as `*IfType`
//! and `NetLuidIndex`.

use std::net::Ipv6Addr;

use machine::IpNet;

use super::super::fields::Reader;
use super::Route;
use super::adapter::Adapter;
use super::settings::Gateway;
use crate::Result;

const IPV6: &str = "Nsi\\{eb004a01-9b1a-11d4-9123-0050047759bc}";
/// `RouteMetric` and lifetimes that are not set.
const UNSET: u32 = u32::MAX;

/// `NET_LUID_LH`: reserved bits, index and type of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Luid(u64);

impl Luid {
    pub(super) fn new(kind: u32, index: u32) -> Self {
        Self(u64::from(kind & 0xffff) << 48 | u64::from(index & 0xff_ffff) << 24)
    }

    fn parse(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes) & !0xff_ffff)
    }
}

/// Fixed addresses and routes of IPv6.
pub(super) struct Tables {
    addresses: Vec<(Luid, IpNet)>,
    routes: Vec<(Luid, IpNet, Ipv6Addr, Option<u32>)>,
}

impl Tables {
    pub(super) fn read(reader: &Reader<'_>) -> Result<Self> {
        let (mut addresses, mut routes) = (Vec::new(), Vec::new());
        let key = reader.control(&format!("{IPV6}\\10"))?;
        for name in key.value_names()? {
            addresses.extend(parse_address(&name, &key.bytes(&name)?.unwrap_or_default()));
        }
        let key = reader.control(&format!("{IPV6}\\16"))?;
        for name in key.value_names()? {
            routes.extend(parse_route(&name, &key.bytes(&name)?.unwrap_or_default()));
        }
        Ok(Self { addresses, routes })
    }

    pub(super) fn addresses(&self, luid: Luid) -> Vec<IpNet> {
        self.addresses.iter().filter(|(owner, _)| *owner == luid).map(|(_, address)| *address).collect()
    }

    /// The default routes of an interface.
    pub(super) fn gateways(&self, luid: Luid) -> Vec<Gateway> {
        let own = self.routes.iter().filter(|(owner, network, ..)| *owner == luid && network.prefix_length == 0);
        own.map(|(_, _, next_hop, metric)| Gateway { address: (*next_hop).into(), metric: *metric }).collect()
    }

    /// All other routes.
    pub(super) fn routes(&self, adapters: &[Adapter]) -> Vec<Route> {
        let others = self.routes.iter().filter(|(_, network, ..)| network.prefix_length != 0);
        let route = |(luid, destination, next_hop, metric): &(Luid, IpNet, Ipv6Addr, Option<u32>)| Route {
            destination: *destination,
            gateway: (*next_hop).into(),
            metric: *metric,
            adapter: adapters.iter().find(|adapter| adapter.luid == Some(*luid)).map(|adapter| adapter.id.clone()),
        };
        others.map(route).collect()
    }
}

fn parse_address(name: &str, data: &[u8]) -> Option<(Luid, IpNet)> {
    let key: [u8; 24] = digits(name)?;
    let prefix_length = u8::try_from(le32(data, 16)?).ok().filter(|length| *length <= 128)?;
    Some((Luid::parse(part(&key, 0)?), IpNet { address: Ipv6Addr::from(part::<16>(&key, 8)?).into(), prefix_length }))
}

fn parse_route(name: &str, data: &[u8]) -> Option<(Luid, IpNet, Ipv6Addr, Option<u32>)> {
    let key: [u8; 72] = digits(name)?;
    let address = Ipv6Addr::from(part::<16>(&key, 4)?).into();
    let network = IpNet { address, prefix_length: Some(key[20]).filter(|length| *length <= 128)? };
    let metric = le32(data, 12).filter(|metric| *metric != UNSET && *metric != 0);
    Some((Luid::parse(part(&key, 40)?), network, Ipv6Addr::from(part::<16>(&key, 56)?), metric))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(part(bytes, at)?))
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The bytes of `N` pairs of hexadecimal digits.
fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != N * 2 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_luid_and_address_in_digits() {
        // The LUID of the answer cited, and data as Windows 7 has them for IPv4.
        let mut data = [0xff; 44];
        data[16..20].copy_from_slice(&64u32.to_le_bytes());
        let (luid, address) = parse_address("000000090000060020010000000000000000000000000001", &data).unwrap();
        assert_eq!((luid, address.to_string().as_str()), (Luid::new(6, 9), "2001::1/64"));
        assert!(parse_address("00000009000006002001000000000000000000000000000", &data).is_none());
        assert!(parse_address("000000090000060020010000000000000000000000000001", &data[..19]).is_none());
    }

    #[test]
    fn a_route_has_destination_interface_and_next_hop() {
        let luid = "0000000900000600";
        let network = format!("00000000{}40{}", "20010db8000100000000000000000000", "00".repeat(19));
        let name = format!("{network}{luid}{luid}fe800000000000000000000000000001");
        let (luid, destination, gateway, metric) = parse_route(&name, &[0xff; 56]).unwrap();
        assert_eq!((luid, destination.to_string().as_str()), (Luid::new(6, 9), "2001:db8:1::/64"));
        assert_eq!((gateway.to_string().as_str(), metric), ("fe80::1", None));
    }

    proptest::proptest! {
        #[test]
        fn any_name_and_data_are_survived(name in "[0-9a-f]{0,150}", data: Vec<u8>) {
            let _ = (parse_address(&name, &data), parse_route(&name, &data));
            let _ = parse_address(&format!("{name:0<48.48}"), &data);
            let _ = parse_route(&format!("{name:0<144.144}"), &data);
        }
    }
}
