//! Which network interfaces a guest's configuration names, and what it says of their hardware: interfaces(5), netplan,
//! NetworkManager keyfiles, systemd-networkd, udev rules and link files.

use std::collections::BTreeMap;
use std::net::IpAddr;

use machine::MacAddress;

use crate::{FileTree, Result};

/// Files read of one folder.
const FILES_MAX: usize = 256;

/// Longest interface name (IFNAMSIZ without its NUL).
const NAME_MAX: usize = 15;

/// Starts of names that belong to interfaces without hardware of their own, and of `lo`.
const VIRTUAL: [&str; 20] = [
    "lo", "br", "bond", "virbr", "docker", "vlan", "tun", "tap", "wg", "dummy", "veth", "ppp", "sit", "wl", "ww",
    "team", "vxlan", "macvtap", "ib", "ip6tnl",
];

/// One interface of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Configured {
    /// Address of the network card, where the configuration or a rule names it.
    pub(super) mac: Option<MacAddress>,
    /// Static addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether a link file of the guest already gives it this name by that address.
    pub(super) linked: bool,
}

/// What was found, by interface name.
#[derive(Default)]
struct Found {
    interfaces: BTreeMap<String, Configured>,
}

impl Found {
    /// The entry of an interface with hardware; `None` for other names.
    fn interface(&mut self, name: &str) -> Option<&mut Configured> {
        // eth0:1 is a second address, eth0.5 a VLAN of eth0.
        let name = name.split([':', '.']).next().unwrap_or(name);
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if name.is_empty() || name.len() > NAME_MAX || !plain || VIRTUAL.iter().any(|v| name.starts_with(v)) {
            return None;
        }
        Some(self.interfaces.entry(name.to_owned()).or_default())
    }

    fn note(&mut self, name: &str, mac: Option<MacAddress>, addresses: &[IpAddr]) {
        if let Some(interface) = self.interface(name) {
            interface.mac = interface.mac.or(mac);
            interface.addresses.extend(addresses);
        }
    }
}

/// Reads every configuration that is there.
pub(super) fn read(tree: &dyn FileTree) -> Result<BTreeMap<String, Configured>> {
    let mut found = Found::default();
    if let Some(text) = tree.text("/etc/network/interfaces")? {
        interfaces(&text, &mut found);
    }
    each(tree, "/etc/network/interfaces.d", "", &mut |text| interfaces(text, &mut found))?;
    each(tree, "/etc/netplan", ".yaml", &mut |text| netplan(text, &mut found))?;
    each(tree, "/etc/NetworkManager/system-connections", "", &mut |text| keyfile(text, &mut found))?;
    each(tree, "/etc/systemd/network", ".network", &mut |text| networkd(text, &mut found))?;
    // Rules and link files say only which name a card has: an interface is configured, or is not, without them.
    if let Some(text) = tree.text(super::PERSISTENT_RULES)? {
        rules(&text, &mut found);
    }
    each(tree, "/etc/systemd/network", ".link", &mut |text| link(text, &mut found))?;
    Ok(found.interfaces)
}

fn each(tree: &dyn FileTree, folder: &str, ending: &str, visit: &mut dyn FnMut(&str)) -> Result<()> {
    for entry in tree.list(folder)?.into_iter().filter(|entry| entry.name.ends_with(ending)).take(FILES_MAX) {
        if let Some(text) = tree.text(&format!("{folder}/{}", entry.name))? {
            visit(&text);
        }
    }
    Ok(())
}

fn address(text: &str) -> Option<IpAddr> {
    text.trim().trim_matches(['"', '\'']).split('/').next()?.parse().ok()
}

/// interfaces(5): stanzas of `iface`, the ports of bridges and bonds.
fn interfaces(text: &str, found: &mut Found) {
    let mut current = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["iface", name, ..] => {
                current = (*name).to_owned();
                found.note(name, None, &[]);
            }
            ["auto" | "allow-hotplug" | "allow-auto", names @ ..]
            | ["bridge_ports" | "bridge-ports" | "bond-slaves" | "slaves" | "vlan-raw-device", names @ ..] => {
                names.iter().for_each(|name| found.note(name, None, &[]));
            }
            ["address", value, ..] => found.note(&current, None, address(value).as_slice()),
            ["hwaddress", rest @ ..] => {
                let mac = rest.last().and_then(|mac| mac.parse().ok());
                found.note(&current, mac, &[]);
            }
            _ => {}
        }
    }
    found.interfaces.remove("none");
}

/// netplan's YAML, as far as indentation tells: the keys below `ethernets`, and what is below them.
fn netplan(text: &str, found: &mut Found) {
    // Key path with the indentation of each key.
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut device = (String::new(), None, Vec::new());
    let flush = |device: &mut (String, Option<MacAddress>, Vec<IpAddr>), found: &mut Found| {
        let (name, mac, addresses) = std::mem::take(device);
        if !name.is_empty() {
            found.note(&name, mac, &addresses);
        }
    };
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or(line);
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let indent = line.len() - trimmed.len();
        if let Some(item) = trimmed.strip_prefix("- ") {
            if path.iter().any(|(_, key)| key == "addresses") && !path.iter().any(|(_, key)| key == "nameservers") {
                device.2.extend(address(item.trim_end_matches(':')));
            }
            continue;
        }
        let Some((key, value)) = trimmed.split_once(':') else { continue };
        let (key, value) = (key.trim().trim_matches(['"', '\'']), value.trim().trim_matches(['"', '\'']));
        while path.last().is_some_and(|(above, _)| *above >= indent) {
            path.pop();
        }
        let keys: Vec<&str> = path.iter().map(|(_, key)| key.as_str()).collect();
        match (keys.as_slice(), key) {
            (["network", "ethernets"] | ["ethernets"], name) => {
                flush(&mut device, found);
                device.0 = name.to_owned();
            }
            ([.., "ethernets", _], "set-name") => device.0 = value.to_owned(),
            ([.., "ethernets", _, "match"], "macaddress") => device.1 = value.parse().ok(),
            ([.., "ethernets", _, "match"], "name") => device.0 = value.to_owned(),
            ([.., "ethernets", _], "addresses") => {
                device.2.extend(value.trim_matches(['[', ']']).split(',').filter_map(address));
            }
            (["network"] | [], key) if key != "ethernets" => flush(&mut device, found),
            _ => {}
        }
        if path.len() < 16 {
            path.push((indent, key.to_owned()));
        }
    }
    flush(&mut device, found);
}

/// Sections and keys of an INI file, with their values.
fn sections(text: &str) -> Vec<(&str, &str, &str)> {
    let mut section = "";
    let mut values = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with(['#', ';'])) {
            values.push((section, key.trim(), value.trim()));
        }
    }
    values
}

/// NetworkManager's nm-settings-keyfile(5).
fn keyfile(text: &str, found: &mut Found) {
    let values = sections(text);
    let value = |section: &str, key: &str| {
        values.iter().find(|(s, k, _)| *s == section && *k == key).map(|(_, _, value)| *value)
    };
    if !matches!(value("connection", "type"), Some("ethernet" | "802-3-ethernet")) {
        return;
    }
    let mac = value("ethernet", "mac-address").or(value("802-3-ethernet", "mac-address"));
    let addresses: Vec<IpAddr> = values
        .iter()
        .filter(|(section, key, _)| section.starts_with("ipv") && key.starts_with("address"))
        .filter_map(|(_, _, value)| address(value.split(',').next()?))
        .collect();
    if let Some(name) = value("connection", "interface-name") {
        found.note(name, mac.and_then(|mac| mac.parse().ok()), &addresses);
    }
}

/// systemd.network(5); patterns name no single interface.
fn networkd(text: &str, found: &mut Found) {
    let values = sections(text);
    let mac = values.iter().find(|(s, k, _)| (*s, *k) == ("Match", "MACAddress")).and_then(|(_, _, v)| v.parse().ok());
    let addresses: Vec<IpAddr> =
        values.iter().filter(|(_, key, _)| *key == "Address").filter_map(|(_, _, value)| address(value)).collect();
    for (_, _, names) in values.iter().filter(|(s, k, _)| (*s, *k) == ("Match", "Name")) {
        names.split_ascii_whitespace().for_each(|name| found.note(name, mac, &addresses));
    }
}

/// Rules of udev's former generator: `ATTR{address}=="…"` and `NAME="…"`.
fn rules(text: &str, found: &mut Found) {
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let quoted = |key: &str| line.split_once(key)?.1.split('"').next();
        let mac = quoted("ATTR{address}==\"").or_else(|| quoted("SYSFS{address}==\"")).and_then(|m| m.parse().ok());
        if let (Some(mac), Some(name)) = (mac, quoted(" NAME=\"")) {
            found.note(name, Some(mac), &[]);
        }
    }
}

/// systemd.link(5) files that name one card.
fn link(text: &str, found: &mut Found) {
    let values = sections(text);
    let value = |section: &str, keys: &[&str]| {
        values.iter().find(|(s, k, _)| *s == section && keys.contains(k)).map(|(_, _, value)| *value)
    };
    let mac = value("Match", &["MACAddress", "PermanentMACAddress"]).and_then(|mac| mac.parse().ok());
    if let (Some(mac), Some(name)) = (mac, value("Link", &["Name"]))
        && let Some(interface) = found.interface(name)
    {
        interface.mac = interface.mac.or(Some(mac));
        interface.linked = interface.mac == Some(mac);
    }
}
