//! Who asks: a machine in its firmware, as its DHCP options tell.

use std::fmt;
use std::str::FromStr;

/// A hardware address of Ethernet; prints and parses as `52:54:00:12:34:56`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Without punctuation, as it stands in the paths of boot files: `525400123456`.
    pub fn plain(self) -> String {
        self.0.iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = ();
    /// Twelve hexadecimal digits, in pairs with `:` or `-` between them or without.
    fn from_str(text: &str) -> Result<Self, ()> {
        let digits: Vec<u8> = match text.len() {
            12 => text.bytes().collect(),
            17 => {
                let separator = text.as_bytes()[2];
                let is_separated = text.bytes().skip(2).step_by(3).all(|byte| byte == separator);
                if !matches!(separator, b':' | b'-') || !is_separated {
                    return Err(());
                }
                text.bytes().enumerate().filter(|(at, _)| at % 3 != 2).map(|(_, byte)| byte).collect()
            }
            _ => return Err(()),
        };
        let mut octets = [0; 6];
        for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok()).ok_or(());
            *octet = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(octets))
    }
}

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
    pub mac: Mac,
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
        let Some(wire) = self.uuid else { return Vec::new() };
        let mut swapped = wire;
        swapped[..4].reverse();
        swapped[4..6].reverse();
        swapped[6..8].reverse();
        let written = [uuid_text(&swapped), uuid_text(&wire)];
        if written[0] == written[1] { written[..1].to_vec() } else { written.to_vec() }
    }
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
    fn macs_are_read_in_three_spellings() {
        let mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0xab]);
        for text in ["52:54:00:12:34:ab", "52-54-00-12-34-AB", "5254001234ab"] {
            assert_eq!(text.parse(), Ok(mac));
        }
        for text in ["", "52:54:00:12:34", "52:54-00:12:34:ab", "52540012345g", "+2:54:00:12:34:ab", "ééé:00:12:34:ab"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
        assert_eq!((mac.to_string().as_str(), mac.plain().as_str()), ("52:54:00:12:34:ab", "5254001234ab"));
    }

    #[test]
    fn a_uuid_is_known_in_both_byte_orders() {
        let uuid = Some([0x44, 0x45, 0x4c, 0x4c, 0x42, 0, 0x10, 0x35, 0x80, 0x52, 0xb4, 0xc0, 0x4f, 0x4e, 0x31, 0x32]);
        let client = Client { mac: Mac([0; 6]), uuid, firmware: Firmware::Bios, is_ipxe: false };
        let expected = ["4c4c4544-0042-3510-8052-b4c04f4e3132", "44454c4c-4200-1035-8052-b4c04f4e3132"];
        assert_eq!(client.uuids(), expected);
    }
}
