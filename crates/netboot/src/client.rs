//! Who asks: a machine in its firmware, as its DHCP options tell.

use std::fmt;

use machine::MacAddress;

/// What starts the machine (option 93, RFC 4578, section 2.1, and IANA's registry of processor architecture types).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Firmware {
    /// BIOS with a PXE ROM.
    Bios,
    /// UEFI on x86-64 by PXE (7 and, of older firmware, 9).
    UefiPxe,
    /// UEFI on x86-64 by HTTP boot.
    UefiHttp,
    /// Anything else: there is no boot image for it.
    Other(u16),
}

impl Firmware {
    /// Those that there is a boot image for.
    pub(crate) const SERVED: [Self; 3] = [Self::Bios, Self::UefiPxe, Self::UefiHttp];

    /// The firmware of an architecture type.
    pub fn of(architecture: u16) -> Self {
        match architecture {
            0 => Self::Bios,
            7 | 9 => Self::UefiPxe,
            16 => Self::UefiHttp,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bios => f.write_str("BIOS PXE"),
            Self::UefiPxe => f.write_str("UEFI PXE"),
            Self::UefiHttp => f.write_str("UEFI HTTP boot"),
            Self::Other(number) => write!(f, "architecture {number}"),
        }
    }
}

/// A machine that asks for a boot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Address of the network card that it starts from.
    pub mac: MacAddress,
    /// SMBIOS UUID, as the client sent its bytes (option 97).
    pub uuid: Option<[u8; 16]>,
    /// What starts it.
    pub firmware: Firmware,
    /// It is iPXE already: as the card's ROM, or loaded from here (option 77).
    pub is_ipxe: bool,
}

impl Client {
    /// The ways in which the UUID may be written, the likely one first: SMBIOS keeps the first three fields
    /// little-endian (since 2.6), and firmware disagrees on whether to swap them for the wire.
    pub fn uuids(&self) -> Vec<String> {
        let Some(wire) = self.uuid.map(|bytes| uuid_text(&bytes)) else { return Vec::new() };
        let swapped = swapped_uuid(&wire);
        if swapped == wire { vec![wire] } else { vec![swapped, wire] }
    }
}

/// The other way to write a UUID: its first three fields in the other byte order.
pub fn swapped_uuid(text: &str) -> String {
    let swap = |(at, group): (usize, &str)| match at {
        0..=2 => group.as_bytes().rchunks(2).map(String::from_utf8_lossy).collect(),
        _ => group.to_owned(),
    };
    text.split('-').enumerate().map(swap).collect::<Vec<String>>().join("-")
}

fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_known_in_both_byte_orders() {
        let uuid = Some([0x44, 0x45, 0x4c, 0x4c, 0x42, 0, 0x10, 0x35, 0x80, 0x52, 0xb4, 0xc0, 0x4f, 0x4e, 0x31, 0x32]);
        let client = Client { mac: MacAddress([0; 6]), uuid, firmware: Firmware::Bios, is_ipxe: false };
        let expected = ["4c4c4544-0042-3510-8052-b4c04f4e3132", "44454c4c-4200-1035-8052-b4c04f4e3132"];
        assert_eq!(client.uuids(), expected);
    }
}
