//! One network adapter: what it is, where it is plugged in, its hardware address.
//!
//! `Characteristics` tells hardware from software (Microsoft, "Registry keys for network adapters": `NCF_…`). The
//! hardware address is the one that was set by hand (`NetworkAddress`), else the one that Windows 10 and later keep
//! below `NetworkSetup2`, else that of the PCI Express serial number with which Windows names the device (PCI Express
//! Base Specification 7.9.3: an EUI-64, in which NICs put FF FF or FF FE between the halves of their address; ports of
//! one card share it).

use std::fmt;

use machine::MacAddress;
use serde::{Deserialize, Serialize};

use super::super::fields::{Fields, Reader};
use super::nsi::{Luid, Tables};
use super::settings::{Ipv4, Ipv6, NetBios};
use crate::Result;

/// The setup class of network adapters.
pub(super) const CLASS: &str = "{4D36E972-E325-11CE-BFC1-08002BE10318}";

const NCF_VIRTUAL: u32 = 0x01;
const NCF_SOFTWARE_ENUMERATED: u32 = 0x02;
const NCF_PHYSICAL: u32 = 0x04;
const NCF_HIDDEN: u32 = 0x08;

/// Component ids of teams: Windows' own, Intel's, Broadcom's, HP's.
const TEAMS: [&str; 9] =
    ["ms_implat", "ms_implat_mp", "iansminiport", "ansmp", "basp", "blfm", "brcm_blfm", "cpqteam", "cpq_teammp"];
/// Component ids of switches and bridges: Hyper-V's, Windows' bridge.
const BRIDGES: [&str; 4] = ["vms_mp", "vms_pp", "ms_bridgemp", "ms_bridge"];

/// Types of interfaces without a wire (IANA ifType): IEEE 802.11, mobile broadband.
const WIRELESS: [u32; 3] = [71, 243, 244];

/// What kind of adapter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// A device.
    Hardware,
    /// A device without a wire, of which a VM has none.
    Wireless,
    /// Several adapters as one.
    Team,
    /// A virtual switch's port of the machine itself, or a bridge.
    Bridge,
    /// Other software: tunnels, debuggers.
    Virtual,
    /// No adapter any more: settings only.
    Gone,
}

/// Where an address was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MacSource {
    /// Set by hand, in place of the device's own.
    Set,
    /// The device's own, as Windows noted it.
    Permanent,
    /// The serial number of the card: its first port's address.
    SerialNumber,
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mac {
    /// The address.
    pub address: MacAddress,
    /// Where it was found.
    pub source: MacSource,
}

/// Where a device is on the PCI bus. Bus numbers are those of the last start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PciPlace {
    /// Bus.
    pub bus: u32,
    /// Device.
    pub device: u32,
    /// Function.
    pub function: u32,
}

/// A network adapter with its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// Its interface's GUID, in braces and upper case: where its settings stand.
    pub id: String,
    /// The connection's name: `Local Area Connection`.
    pub name: Option<String>,
    /// The driver's words for it.
    pub description: Option<String>,
    /// What it is.
    pub kind: AdapterKind,
    /// Its key below the class: `0007`.
    pub class_key: Option<String>,
    /// Its device: `PCI\VEN_8086&DEV_100F&…\4&B70F118&0&0888`.
    pub device: Option<String>,
    /// `ms_implat`, `pci\ven_8086&dev_100f`.
    pub component: Option<String>,
    /// Its driver's service.
    pub service: Option<String>,
    /// Where it is plugged in.
    pub place: Option<PciPlace>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Addresses and names.
    pub ipv4: Ipv4,
    /// IPv6.
    pub ipv6: Ipv6,
    /// Settings that could not be understood.
    pub unread: Vec<String>,
    #[serde(skip)]
    pub(super) luid: Option<Luid>,
    #[serde(skip)]
    pub(super) is_hidden: bool,
}

impl Adapter {
    /// The adapter of the key `class_key` of the class, if it is one.
    pub(super) fn installed(
        reader: &Reader<'_>,
        class_key: &str,
        fields: &Fields<'_>,
        tables: &Tables,
    ) -> Result<Option<Self>> {
        let Some(id) = fields.text("NetCfgInstanceId")?.map(|id| id.to_ascii_uppercase()) else { return Ok(None) };
        let connection = connection(reader, &id)?;
        let device = match fields.text("DeviceInstanceID")? {
            Some(device) => Some(device),
            // Before Vista the connection alone says so.
            None => connection.text("PnpInstanceID")?,
        };
        let enumerated = match &device {
            Some(device) => Some(reader.current(&format!("Enum\\{device}"))?),
            None => None,
        };
        let enumerated_text = |name: &str| enumerated.map(|fields| fields.text(name)).transpose();
        let characteristics = fields.number("Characteristics")?.unwrap_or(0);
        let component = fields.text("ComponentId")?;
        let luid = match (fields.number("*IfType")?, fields.number("NetLuidIndex")?) {
            (Some(kind), Some(index)) => Some(Luid::new(kind, index)),
            _ => None,
        };
        let interface = reader.service(&format!("Tcpip\\Parameters\\Interfaces\\{id}"))?;
        let mut ipv4 = Ipv4::read(reader, &id, &interface)?;
        Ok(Some(Self {
            name: connection.text("Name")?,
            description: fields.text("DriverDesc")?,
            kind: match kind(component.as_deref(), characteristics) {
                AdapterKind::Hardware if is_wireless(fields, &connection)? => AdapterKind::Wireless,
                kind => kind,
            },
            class_key: Some(class_key.to_owned()),
            service: enumerated_text("Service")?.flatten(),
            place: enumerated_text("LocationInformation")?.flatten().and_then(|text| parse_place(&text)),
            mac: mac(reader, &id, fields, device.as_deref())?,
            unread: std::mem::take(&mut ipv4.unread),
            ipv6: Ipv6 {
                addresses: luid.map(|luid| tables.addresses(luid)).unwrap_or_default(),
                gateways: luid.map(|luid| tables.gateways(luid)).unwrap_or_default(),
                dns: Ipv6::name_servers(reader, &id)?,
            },
            ipv4,
            device,
            component,
            luid,
            is_hidden: characteristics & NCF_HIDDEN != 0,
            id,
        }))
    }

    /// Settings of an interface without an adapter.
    pub(super) fn left_behind(reader: &Reader<'_>, id: String, mut ipv4: Ipv4) -> Result<Self> {
        Ok(Self {
            name: connection(reader, &id)?.text("Name")?,
            description: None,
            kind: AdapterKind::Gone,
            class_key: None,
            device: None,
            component: None,
            service: None,
            place: None,
            mac: None,
            unread: std::mem::take(&mut ipv4.unread),
            ipv6: Ipv6 { dns: Ipv6::name_servers(reader, &id)?, ..Ipv6::default() },
            ipv4,
            luid: None,
            is_hidden: false,
            id,
        })
    }

    /// Whether anything was set that another adapter would lack.
    pub fn has_fixed_settings(&self) -> bool {
        let (v4, v6) = (&self.ipv4, &self.ipv6);
        !(v4.addresses.is_empty() && v4.dns.is_empty() && v4.wins.is_empty() && v4.gateways.is_empty())
            || !(v6.addresses.is_empty() && v6.gateways.is_empty() && v6.dns.is_empty())
    }

    pub(super) fn shown_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }
}

fn connection<'w>(reader: &Reader<'w>, id: &str) -> Result<Fields<'w>> {
    reader.control(&format!("Network\\{CLASS}\\{id}\\Connection"))
}

fn kind(component: Option<&str>, characteristics: u32) -> AdapterKind {
    let component = component.unwrap_or_default().to_ascii_lowercase();
    let is_one_of = |names: &[&str]| names.iter().any(|name| component.rsplit('\\').next() == Some(name));
    match characteristics {
        _ if is_one_of(&TEAMS) => AdapterKind::Team,
        _ if is_one_of(&BRIDGES) => AdapterKind::Bridge,
        bits if bits & NCF_PHYSICAL != 0 => AdapterKind::Hardware,
        bits if bits & (NCF_VIRTUAL | NCF_SOFTWARE_ENUMERATED) != 0 => AdapterKind::Virtual,
        _ => AdapterKind::Hardware,
    }
}

/// By the interface's type, or by what Windows XP knew of the connection (netcon.h, `NCSM_WIRELESS`).
fn is_wireless(fields: &Fields<'_>, connection: &Fields<'_>) -> Result<bool> {
    const NCSM_WIRELESS: u32 = 2;
    let is_type = fields.number("*IfType")?.is_some_and(|kind| WIRELESS.contains(&kind));
    Ok(is_type || connection.number("MediaSubType")? == Some(NCSM_WIRELESS))
}

fn mac(reader: &Reader<'_>, id: &str, fields: &Fields<'_>, device: Option<&str>) -> Result<Option<Mac>> {
    let found = |address: MacAddress, source: MacSource| Ok(Some(Mac { address, source }));
    if let Some(address) = fields.text("NetworkAddress")?.and_then(|text| parse_digits(&text)) {
        return found(address, MacSource::Set);
    }
    let noted = reader.control(&format!("NetworkSetup2\\Interfaces\\{id}\\Kernel"))?.bytes("PermanentAddress")?;
    if let Some(address) = noted.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()) {
        return found(MacAddress(address), MacSource::Permanent);
    }
    match device.and_then(parse_serial_number) {
        Some(address) => found(address, MacSource::SerialNumber),
        None => Ok(None),
    }
}

/// Twelve hexadecimal digits, with or without separators.
fn parse_digits(text: &str) -> Option<MacAddress> {
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | ':' | '.')).collect();
    let is_address = digits.len() == 12 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u64::from_str_radix(&digits, 16).ok().filter(|_| is_address)?;
    let [_, _, address @ ..] = number.to_be_bytes();
    Some(MacAddress(address))
}

/// The address in `PCI\…\000C29FFFF661AA200`: the serial number, and two digits for the function.
fn parse_serial_number(device: &str) -> Option<MacAddress> {
    let instance = device.strip_prefix("PCI\\").and_then(|rest| rest.rsplit('\\').next())?;
    let is_number = instance.len() == 18 && instance.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(instance, 16).ok().filter(|_| is_number)?;
    let [.., a, b, c, d, e, f, g, h, _] = number.to_be_bytes();
    matches!((d, e), (0xff, 0xff | 0xfe)).then_some(MacAddress([a, b, c, f, g, h]))
}

/// `PCI bus 0, device 10, function 0`, or with the numbers at the end: `@…;PCI bus %1, device %2, function %3;(2,1,0)`.
fn parse_place(text: &str) -> Option<PciPlace> {
    let numbers = match text.rsplit_once(";(") {
        Some((_, numbers)) => numbers,
        None => text.strip_prefix("PCI")?,
    };
    let mut numbers = numbers.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
    Some(PciPlace { bus: numbers.next()?, device: numbers.next()?, function: numbers.next()? })
}

impl fmt::Display for PciPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pci bus {}, device {}, function {}", self.bus, self.device, self.function)
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            AdapterKind::Hardware => "hardware",
            AdapterKind::Wireless => "wireless",
            AdapterKind::Team => "team",
            AdapterKind::Bridge => "bridge",
            AdapterKind::Virtual => "software",
            AdapterKind::Gone => "gone",
        };
        writeln!(f, "adapter {} ({kind}): {}", self.id, self.name.as_deref().unwrap_or("without a name"))?;
        let line = |f: &mut fmt::Formatter<'_>, what: &str, text: &str| match text {
            "" => Ok(()),
            text => writeln!(f, "  {what}: {text}"),
        };
        line(f, "description", self.description.as_deref().unwrap_or_default())?;
        line(f, "device", self.device.as_deref().unwrap_or_default())?;
        line(f, "driver", self.service.as_deref().unwrap_or_default())?;
        line(f, "place", &self.place.map(|place| place.to_string()).unwrap_or_default())?;
        if let Some(mac) = self.mac {
            let source = match mac.source {
                MacSource::Set => "set by hand",
                MacSource::Permanent => "its own",
                MacSource::SerialNumber => "by the card's serial number",
            };
            writeln!(f, "  hardware address: {}, {source}", mac.address)?;
        }
        let v4 = &self.ipv4;
        let how = match (v4.is_dhcp, v4.addresses.is_empty()) {
            (true, _) => "dhcp",
            (false, false) => "fixed",
            (false, true) => "no addresses",
        };
        line(f, "ipv4", how)?;
        line(f, "addresses", &list(&v4.addresses))?;
        let gateway = |gateway: &super::Gateway| match gateway.metric {
            Some(metric) => format!("{} (metric {metric})", gateway.address),
            None => gateway.address.to_string(),
        };
        line(f, "gateways", &list(&v4.gateways.iter().map(gateway).collect::<Vec<_>>()))?;
        line(f, "metric", &v4.metric.map(|metric| metric.to_string()).unwrap_or_default())?;
        line(f, "name servers", &list(&v4.dns))?;
        line(f, "dns suffix", v4.dns_suffix.as_deref().unwrap_or_default())?;
        line(f, "registers in dns", if v4.registers_in_dns == Some(false) { "no" } else { "" })?;
        line(f, "wins", &list(&v4.wins))?;
        line(
            f,
            "netbios",
            match v4.netbios {
                NetBios::Default => "",
                NetBios::On => "on",
                NetBios::Off => "off",
            },
        )?;
        line(f, "mtu", &v4.mtu.map(|mtu| mtu.to_string()).unwrap_or_default())?;
        line(f, "alternate configuration", if v4.has_alternate { "yes" } else { "" })?;
        if let Some(lease) = &v4.lease {
            let parts = [
                ("", lease.address.to_string()),
                (" gateways ", list(&lease.gateways)),
                (" name servers ", list(&lease.dns)),
                (" wins ", list(&lease.wins)),
                (" domain ", lease.domain.clone().unwrap_or_default()),
                (" from ", lease.server.map(|server| server.to_string()).unwrap_or_default()),
            ];
            let told = parts.iter().filter(|(_, text)| !text.is_empty()).map(|(what, text)| format!("{what}{text}"));
            writeln!(f, "  last lease: {}", told.collect::<Vec<_>>().join(","))?;
        }
        line(f, "ipv6 addresses", &list(&self.ipv6.addresses))?;
        line(f, "ipv6 gateways", &list(&self.ipv6.gateways.iter().map(gateway).collect::<Vec<_>>()))?;
        line(f, "ipv6 name servers", &list(&self.ipv6.dns))?;
        self.unread.iter().try_for_each(|text| line(f, "not understood", text))
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_on_its_bus_whatever_the_language() {
        let place = PciPlace { bus: 2, device: 3, function: 0 };
        let text = "@system32\\drivers\\pci.sys,#65536;PCI bus %1, device %2, function %3;(2,3,0)";
        assert_eq!(parse_place(text), Some(place));
        assert_eq!(parse_place("PCI bus 2, device 3, function 0"), Some(place));
        assert_eq!(parse_place("PCI-Bus 2, Gerät 3, Funktion 0"), Some(place));
        assert_eq!(parse_place("Port_#0004.Hub_#0001"), None);
    }

    #[test]
    fn a_hardware_address_is_read_from_digits_and_from_a_serial_number() {
        let shown = |mac: Option<MacAddress>| mac.map(|mac| mac.to_string()).unwrap_or_default();
        assert_eq!(shown(parse_digits("000C2971073C")), "00:0c:29:71:07:3c");
        assert_eq!(shown(parse_digits("00-0C-29-71-07-3C")), "00:0c:29:71:07:3c");
        assert_eq!((shown(parse_digits("")), shown(parse_digits("+00C2971073C"))), (String::new(), String::new()));
        // The device of Windows 10 (19041) in the test data, whose NetworkSetup2 says the same.
        let device = "PCI\\VEN_8086&DEV_10D3&SUBSYS_07D015AD&REV_00\\000C29FFFF661AA200";
        assert_eq!(shown(parse_serial_number(device)), "00:0c:29:66:1a:a2");
        assert_eq!(parse_serial_number("PCI\\VEN_8086&DEV_100F\\4&B70F118&0&0888"), None);
        assert_eq!(parse_serial_number("PCI\\VEN_8086\\000000000000000000"), None);
    }

    #[test]
    fn a_team_is_told_from_hardware_by_its_component() {
        assert_eq!(kind(Some("COMPOSITEBUS\\MS_IMPLAT"), 0x1), AdapterKind::Team);
        assert_eq!(kind(Some("vms_mp"), 0x9), AdapterKind::Bridge);
        assert_eq!(kind(Some("pci\\ven_8086&dev_100f"), 0x84), AdapterKind::Hardware);
        assert_eq!(kind(Some("*isatap"), 0x9), AdapterKind::Virtual);
    }
}
