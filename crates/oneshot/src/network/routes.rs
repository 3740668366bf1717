//! Routes through gateways: `/proc/net/route` and `/proc/net/ipv6_route`, which show the main table.

use std::net::{Ipv4Addr, Ipv6Addr};

use machine::IpNet;
use machine::push::Route;

use crate::system::System;

/// Most routes that are taken.
const ROUTES_MAX: usize = 256;
/// Longest table in lines.
const LINES_MAX: usize = 65_536;
/// Flags of both files (`include/uapi/linux/route.h`, `ipv6_route.h`).
const UP: u32 = 0x1;
const GATEWAY: u32 = 0x2;
const REJECT: u32 = 0x200;
const CACHE: u32 = 0x100_0000;

/// All of them with the names of their interfaces.
pub(super) fn load(system: &System) -> Vec<(String, Route)> {
    let ipv4 = system.text("/proc/net/route").unwrap_or_default();
    let ipv6 = system.text("/proc/net/ipv6_route").unwrap_or_default();
    let ipv4 = ipv4.lines().take(LINES_MAX).filter_map(parse_ipv4);
    let ipv6 = ipv6.lines().take(LINES_MAX).filter_map(parse_ipv6);
    ipv4.chain(ipv6).take(ROUTES_MAX).collect()
}

/// `eth0 00000000 0102A8C0 0003 0 0 100 00000000 0 0 0`: addresses as the machine keeps them in memory, written as numbers.
fn parse_ipv4(line: &str) -> Option<(String, Route)> {
    let fields: Vec<&str> = line.split_whitespace().take(8).collect();
    let [name, destination, gateway, flags, _, _, metric, mask] = fields[..] else { return None };
    let address = |text: &str| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
    if !leads_through_a_gateway(u32::from_str_radix(flags, 16).ok()?) {
        return None;
    }
    let prefix_length = u8::try_from(u32::from(address(mask)?).leading_ones()).ok()?;
    let destination = IpNet { address: address(destination)?.into(), prefix_length };
    Some((name.to_owned(), Route { destination, gateway: address(gateway)?.into(), metric: metric.parse().ok()? }))
}

/// Destination, its prefix, source, its prefix, gateway, metric, references, uses, flags, name; numbers are hexadecimal.
fn parse_ipv6(line: &str) -> Option<(String, Route)> {
    let fields: Vec<&str> = line.split_whitespace().take(10).collect();
    let [destination, prefix, _, source_prefix, gateway, metric, _, _, flags, name] = fields[..] else { return None };
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let address = |text: &str| Some(Ipv6Addr::from(u128::from_str_radix(text, 16).ok()?));
    if !leads_through_a_gateway(number(flags)?) || number(source_prefix)? != 0 {
        return None;
    }
    let prefix_length = u8::try_from(number(prefix)?).ok().filter(|length| *length <= 128)?;
    let destination = IpNet { address: address(destination)?.into(), prefix_length };
    Some((name.to_owned(), Route { destination, gateway: address(gateway)?.into(), metric: number(metric)? }))
}

fn leads_through_a_gateway(flags: u32) -> bool {
    flags & (UP | GATEWAY) == UP | GATEWAY && flags & (REJECT | CACHE) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let line = "eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0";
        let (name, route) = parse_ipv4(line).unwrap();
        assert_eq!((name.as_str(), route.metric), ("eth0", 100));
        assert_eq!(
            (route.destination.to_string().as_str(), route.gateway.to_string().as_str()),
            ("0.0.0.0/0", "192.168.2.1")
        );
        let line = "eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        assert_eq!(parse_ipv4(line), None, "no gateway");
        let zero = "0".repeat(32);
        let line = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003     eth0"
        );
        let (_, route) = parse_ipv6(&line).unwrap();
        assert_eq!((route.destination.to_string().as_str(), route.gateway.to_string().as_str()), ("::/0", "fe80::1"));
        assert_eq!(route.metric, 1024);
        let rejected = line.replace("00450003", "00200203");
        assert_eq!(parse_ipv6(&rejected), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_without_panic(line in "[a-z0-9A-F \t]{0,120}", any: String) {
            let _ = (parse_ipv4(&line), parse_ipv6(&line), parse_ipv4(&any), parse_ipv6(&any));
        }
    }
}
