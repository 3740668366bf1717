//! Ranges of addresses as operators write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses of a range: a /16, or a /112 of IPv6.
pub const ADDRESSES_MAX: u32 = 1 << 16;

/// Addresses without a gap, at most [`ADDRESSES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    count: u32,
    written: String,
}

impl AddressRange {
    /// How many there are; at least one.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Never: there is at least one.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them, ascending.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let first = self.first;
        (0..self.count).map(move |further| match first {
            IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits().wrapping_add(further))),
            IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits().wrapping_add(u128::from(further)))),
        })
    }

    /// From `first` to `last`.
    fn between(first: IpAddr, last: IpAddr, written: String) -> Result<Self, String> {
        let apart = match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => last.to_bits().checked_sub(first.to_bits()).map(u128::from),
            (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().checked_sub(first.to_bits()),
            _ => return Err(format!("expected two addresses of one kind, found {first} and {last}")),
        };
        let Some(apart) = apart else { return Err(format!("expected the lower address first, found {written}")) };
        let Some(apart) = u32::try_from(apart).ok().filter(|apart| *apart < ADDRESSES_MAX) else {
            return Err(format!(
                "expected at most {ADDRESSES_MAX} addresses, found more in {written}: search it in parts"
            ));
        };
        for end in [first, last] {
            if !is_of_a_machine(end) {
                return Err(format!("expected addresses of machines, found {end}"));
            }
        }
        Ok(Self { first, count: apart + 1, written })
    }

    /// A network; of IPv4 without its own address and that of its broadcast, where it has them.
    fn network(address: IpAddr, prefix: u8) -> Result<Self, String> {
        let (bits, most) = match address {
            IpAddr::V4(_) => (32, 16),
            IpAddr::V6(_) => (128, 112),
        };
        if !(most..=bits).contains(&prefix) {
            return Err(format!(
                "expected a prefix from /{most} ({ADDRESSES_MAX} addresses) to /{bits}, found /{prefix}"
            ));
        }
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
                let (low, high) = (address.to_bits() & mask, address.to_bits() | !mask);
                let written = format!("{}/{prefix}", Ipv4Addr::from_bits(low));
                let edge = u32::from(prefix <= 30);
                let (low, high) = (Ipv4Addr::from_bits(low + edge), Ipv4Addr::from_bits(high - edge));
                Self::between(low.into(), high.into(), written)
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
                let (low, high) = (address.to_bits() & mask, address.to_bits() | !mask);
                let low = Ipv6Addr::from_bits(low);
                Self::between(low.into(), Ipv6Addr::from_bits(high).into(), format!("{low}/{prefix}"))
            }
        }
    }
}

/// Neither multicast nor broadcast, nor one that means something else on each link.
fn is_of_a_machine(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] != 0 && address.octets()[0] < 224,
        IpAddr::V6(address) => {
            !address.is_unspecified()
                && !address.is_multicast()
                && !address.is_unicast_link_local()
                && address.to_ipv4_mapped().is_none()
        }
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || {
            let start: String = text.chars().take(40).collect();
            format!("expected 192.0.2.0/24, 192.0.2.10-192.0.2.50 or one address, found {start:?}")
        };
        let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
        if let Some((address, prefix)) = text.split_once('/') {
            let is_plain = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
            let prefix = prefix.parse().ok().filter(|_| is_plain).ok_or_else(wrong)?;
            return Self::network(parse(address)?, prefix);
        }
        let Some((first, last)) = text.split_once('-') else {
            let address = parse(text)?;
            return Self::between(address, address, address.to_string());
        };
        let first = parse(first)?;
        let last = match (first, last.trim().parse::<u8>()) {
            (IpAddr::V4(first), Ok(last)) => {
                let [a, b, c, _] = first.octets();
                IpAddr::V4(Ipv4Addr::new(a, b, c, last))
            }
            _ => parse(last)?,
        };
        Self::between(first, last, format!("{first}-{last}"))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(text: &str) -> (String, String, u32) {
        let range: AddressRange = text.parse().unwrap();
        let all: Vec<IpAddr> = range.addresses().collect();
        assert_eq!(all.len(), range.len() as usize);
        assert!(all.windows(2).all(|two| two[0] < two[1]));
        (all[0].to_string(), all[all.len() - 1].to_string(), range.len())
    }

    #[test]
    fn a_range_has_the_addresses_that_machines_can_have() {
        for (text, first, last, count) in [
            ("192.0.2.0/24", "192.0.2.1", "192.0.2.254", 254),
            ("192.0.2.77/24", "192.0.2.1", "192.0.2.254", 254),
            ("10.0.0.0/16", "10.0.0.1", "10.0.255.254", 65_534),
            ("192.0.2.4/31", "192.0.2.4", "192.0.2.5", 2),
            ("192.0.2.4/32", "192.0.2.4", "192.0.2.4", 1),
            ("192.0.2.4", "192.0.2.4", "192.0.2.4", 1),
            ("192.0.2.10 - 192.0.3.1", "192.0.2.10", "192.0.3.1", 248),
            ("192.0.2.10-50", "192.0.2.10", "192.0.2.50", 41),
            ("2001:db8::/112", "2001:db8::", "2001:db8::ffff", 65_536),
            ("2001:db8::1-2001:db8::9", "2001:db8::1", "2001:db8::9", 9),
        ] {
            assert_eq!(ends(text), (first.into(), last.into(), count), "{text}");
        }
        assert_eq!("192.0.2.77/24".parse::<AddressRange>().unwrap().to_string(), "192.0.2.0/24");
        assert_eq!("192.0.2.10-50".parse::<AddressRange>().unwrap().to_string(), "192.0.2.10-192.0.2.50");
    }

    #[test]
    fn what_is_too_large_or_no_range_is_refused() {
        for text in [
            "",
            "-",
            "/",
            "192.0.2.0/",
            "192.0.2.0/+24",
            "192.0.2.0/33",
            "10.0.0.0/15",
            "10.0.0.0-10.1.0.0",
            "192.0.2.9-192.0.2.1",
            "192.0.2.1-2001:db8::1",
            "2001:db8::/64",
            "224.0.0.0/24",
            "0.0.0.0/16",
            "255.255.255.0/24",
            "fe80::/112",
            "web1",
            "192.0.2.0/24,10.0.0.0/24",
        ] {
            println!("{text:?}: {}", text.parse::<AddressRange>().unwrap_err());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_bounded_range_or_none(text in "[0-9a-f.:/\\-]{0,60}") {
            if let Ok(range) = text.parse::<AddressRange>() {
                prop_assert!((1..=ADDRESSES_MAX).contains(&range.len()));
                prop_assert_eq!(range.addresses().count(), range.len() as usize);
                prop_assert_eq!(range.to_string().parse::<AddressRange>().unwrap(), range);
            }
        }
    }
}
