//! The adapters that the converted machine has, and which of them takes the place of which old one.

use machine::firstboot::AdapterSettings;
use machine::{IpNet, MacAddress};
use serde::{Deserialize, Serialize};

use crate::plan::ADAPTERS_MAX;
use crate::{Error, ErrorKind, Result};

/// Largest recorded list, in bytes.
const RECORDED_BYTES_MAX: usize = 4 << 20;

/// An adapter of the running system, as `GetAdaptersAddresses` and the device tree say it. A list of them as JSON is what
/// `--list-adapters` prints and `--dry-run` reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// Name of the connection: `Ethernet 2`.
    pub name: String,
    /// GUID of its interface, lower case, without braces.
    pub interface: String,
    /// Name of the device.
    #[serde(default)]
    pub description: String,
    /// Instance id of the device: `PCI\VEN_1AF4&DEV_1041&…\…`.
    #[serde(default)]
    pub instance_id: Option<String>,
    /// Hardware address.
    #[serde(default)]
    pub mac: Option<MacAddress>,
    /// Where it is plugged in.
    #[serde(default)]
    pub location: Option<Location>,
    /// Whether its IPv4 addresses come by DHCP.
    #[serde(default)]
    pub dhcp: bool,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
}

/// Place on a bus (`SPDRP_BUSNUMBER`, `SPDRP_ADDRESS`); on PCI the address is the slot times 65536 plus the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    /// Number of the bus.
    pub bus: u32,
    /// Place on it.
    pub address: u32,
}

impl Adapter {
    /// Whether a device is behind it that the machine has, rather than software: teams, tunnels, the loopback.
    pub fn is_hardware(&self) -> bool {
        let Some(id) = &self.instance_id else { return false };
        let bus = id.split('\\').next().unwrap_or_default().to_ascii_uppercase();
        self.mac.is_some() && !matches!(bus.as_str(), "ROOT" | "SW" | "SWD" | "BTH" | "COMPOSITEBUS")
    }
}

/// What was recorded by `--list-adapters`.
///
/// # Errors
/// [`ErrorKind::Malformed`] for anything else.
pub fn parse_adapters(bytes: &[u8]) -> Result<Vec<Adapter>> {
    let wrong = |text: String| Error::new(ErrorKind::Malformed, format!("recorded adapters: {text}"));
    if bytes.len() > RECORDED_BYTES_MAX {
        return Err(wrong(format!("expected at most {RECORDED_BYTES_MAX} bytes, found {}", bytes.len())));
    }
    let adapters: Vec<Adapter> = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    if adapters.len() > ADAPTERS_MAX {
        return Err(wrong(format!("expected at most {ADAPTERS_MAX}, found {}", adapters.len())));
    }
    Ok(adapters)
}

/// An old adapter and the one that takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairing<'a> {
    /// What was set.
    pub old: &'a AdapterSettings,
    /// What is there now; `None` where the machine has fewer adapters.
    pub new: Option<&'a Adapter>,
    /// Why this one.
    pub by: MatchedBy,
}

/// What an adapter was known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchedBy {
    /// It is the same interface: its settings are in force already.
    Interface,
    /// Its hardware address.
    Mac,
    /// Its place among those that are left on both sides.
    Order,
    /// Nothing: there is none.
    Nothing,
}

/// Which new adapter takes the place of which old one: the same interface, else the same hardware address, else by hardware
/// order among those that are left. One with software behind it takes no place.
pub fn pair_adapters<'a>(old: &'a [AdapterSettings], new: &'a [Adapter]) -> Vec<Pairing<'a>> {
    let mut free: Vec<&Adapter> = new.iter().filter(|adapter| adapter.is_hardware()).collect();
    free.sort_by_key(|adapter| (adapter.location.is_none(), adapter.location, adapter.instance_id.clone()));
    let mut ordered: Vec<&AdapterSettings> = old.iter().collect();
    ordered.sort_by_key(|settings| settings.order);
    let mut pairings: Vec<Pairing<'_>> =
        ordered.into_iter().map(|old| Pairing { old, new: None, by: MatchedBy::Nothing }).collect();
    for by in [MatchedBy::Interface, MatchedBy::Mac, MatchedBy::Order] {
        for pairing in pairings.iter_mut().filter(|pairing| pairing.new.is_none()) {
            let old = pairing.old;
            let at = free.iter().position(|adapter| match by {
                MatchedBy::Interface => adapter.interface.eq_ignore_ascii_case(&old.interface),
                MatchedBy::Mac => old.mac.is_some() && adapter.mac == old.mac,
                MatchedBy::Order | MatchedBy::Nothing => true,
            });
            if let Some(at) = at {
                (pairing.new, pairing.by) = (Some(free.remove(at)), by);
            }
        }
    }
    pairings
}

/// A connection's new name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// Name that it has.
    pub from: String,
    /// Name that it gets.
    pub to: String,
}

/// How connections get the names of the old ones, in this order: two that change names do so by way of a third name. What
/// has its name already, and a name that another connection keeps, are left.
pub fn plan_renames(pairings: &[Pairing<'_>], all: &[Adapter]) -> Vec<Rename> {
    let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
    let mut wanted: Vec<(&Adapter, &str)> = pairings
        .iter()
        .filter_map(|pairing| Some((pairing.new?, pairing.old.name.as_str())))
        .filter(|(adapter, name)| !name.is_empty() && adapter.name != *name)
        .collect();
    // A name that is kept makes another adapter keep its own, which may be wanted too: until nothing changes.
    loop {
        let moves = |adapter: &Adapter| wanted.iter().any(|(moving, _)| moving.interface == adapter.interface);
        let kept: Vec<&str> =
            all.iter().filter(|adapter| !moves(adapter)).map(|adapter| adapter.name.as_str()).collect();
        let before = wanted.len();
        let mut seen: Vec<&str> = Vec::new();
        wanted.retain(|(_, name)| {
            let free = !kept.iter().chain(&seen).any(|taken| same(taken, name));
            seen.push(name);
            free
        });
        if wanted.len() == before {
            break;
        }
    }
    let (mut renames, mut current) = (Vec::new(), Vec::new());
    for (number, (adapter, _)) in wanted.iter().enumerate() {
        let stands_in_the_way =
            wanted.iter().any(|(other, name)| other.interface != adapter.interface && same(name, &adapter.name));
        let between = format!("vconverter {}", number + 1);
        if stands_in_the_way {
            renames.push(Rename { from: adapter.name.clone(), to: between.clone() });
        }
        current.push(if stands_in_the_way { between } else { adapter.name.clone() });
    }
    renames.extend(wanted.iter().zip(current).map(|((_, name), from)| Rename { from, to: (*name).to_owned() }));
    renames
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn old(name: &str, mac: u8, order: u32) -> AdapterSettings {
        AdapterSettings {
            name: name.into(),
            interface: format!("old-{order}"),
            mac: (mac != 0).then_some(MacAddress([2, 0, 0, 0, 0, mac])),
            order,
            ..Default::default()
        }
    }

    fn new(name: &str, mac: u8, slot: u32) -> Adapter {
        Adapter {
            name: name.into(),
            interface: format!("new-{name}"),
            instance_id: Some(format!(r"PCI\VEN_1AF4&DEV_1041\{slot}")),
            mac: Some(MacAddress([2, 0, 0, 0, 0, mac])),
            location: Some(Location { bus: 0, address: slot << 16 }),
            ..Default::default()
        }
    }

    fn names<'a>(pairings: &'a [Pairing<'_>]) -> Vec<(&'a str, &'a str, MatchedBy)> {
        pairings.iter().map(|p| (p.old.name.as_str(), p.new.map_or("", |new| new.name.as_str()), p.by)).collect()
    }

    #[test]
    fn hardware_addresses_come_before_order() {
        let olds = [old("LAN", 1, 0), old("SAN", 2, 1), old("spare", 9, 2)];
        let news = [new("Ethernet", 2, 3), new("Ethernet 2", 7, 1), new("Ethernet 3", 1, 2)];
        let pairings = pair_adapters(&olds, &news);
        let expected = [
            ("LAN", "Ethernet 3", MatchedBy::Mac),
            ("SAN", "Ethernet", MatchedBy::Mac),
            ("spare", "Ethernet 2", MatchedBy::Order),
        ];
        assert_eq!(names(&pairings), expected);
    }

    #[test]
    fn without_hardware_addresses_the_order_of_slots_counts() {
        let olds = [old("b", 0, 1), old("a", 0, 0), old("c", 0, 2)];
        let mut teamed = new("Team", 8, 0);
        teamed.instance_id = Some(r"ROOT\MS_NDISIMPLATFORM\0000".into());
        let news = [teamed, new("Ethernet 2", 5, 9), new("Ethernet", 6, 4)];
        let pairings = pair_adapters(&olds, &news);
        let expected =
            [("a", "Ethernet", MatchedBy::Order), ("b", "Ethernet 2", MatchedBy::Order), ("c", "", MatchedBy::Nothing)];
        assert_eq!(names(&pairings), expected);
    }

    #[test]
    fn an_adapter_that_stayed_is_known_by_its_interface() {
        let olds = [old("LAN", 1, 0)];
        let mut same = new("LAN", 5, 1);
        same.interface = "OLD-0".into();
        assert_eq!(names(&pair_adapters(&olds, &[new("x", 1, 0), same])), [("LAN", "LAN", MatchedBy::Interface)]);
    }

    #[test]
    fn names_that_change_places_go_by_way_of_a_third() {
        let olds = [old("Ethernet", 1, 0), old("ethernet 2", 2, 1)];
        let news = [new("Ethernet 2", 1, 0), new("Ethernet", 2, 1)];
        let renames = plan_renames(&pair_adapters(&olds, &news), &news);
        let shown: Vec<String> = renames.iter().map(|one| format!("{} -> {}", one.from, one.to)).collect();
        let expected = [
            "Ethernet 2 -> vconverter 1",
            "Ethernet -> vconverter 2",
            "vconverter 1 -> Ethernet",
            "vconverter 2 -> ethernet 2",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_name_that_another_connection_keeps_is_left_to_it() {
        let olds = [old("Team", 1, 0), old("Ethernet", 2, 1)];
        let mut team = new("Team", 9, 5);
        team.instance_id = Some(r"ROOT\NET\0000".into());
        let news = [new("Ethernet", 1, 0), new("Ethernet 2", 2, 1), team];
        assert_eq!(plan_renames(&pair_adapters(&olds, &news), &news), []);
    }

    proptest! {
        #[test]
        fn renames_end_with_distinct_names(
            olds in proptest::collection::vec(("[a-d]", 0..5_u8), 0..5),
            news in proptest::sample::subsequence(vec!["a", "b", "c", "d", "e", "A1"], 0..6),
        ) {
            let olds: Vec<_> = olds.iter().zip(0..).map(|((name, mac), order)| old(name, *mac, order)).collect();
            let news: Vec<_> = news.iter().zip(1..).map(|(name, number)| new(name, number, u32::from(number))).collect();
            let pairings = pair_adapters(&olds, &news);
            let mut names: Vec<String> = news.iter().map(|adapter| adapter.name.clone()).collect();
            for rename in plan_renames(&pairings, &news) {
                prop_assert!(!names.contains(&rename.to), "{} is taken: {:?}", rename.to, names);
                let at = names.iter().position(|name| *name == rename.from).unwrap();
                names[at] = rename.to;
            }
        }
    }
}
