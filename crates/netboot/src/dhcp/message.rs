//! The two messages: what a firmware sends, and what we answer.
//!
//! ```text
//!   0 op  1 htype  2 hlen  3 hops  4 xid  8 secs  10 flags  12 ciaddr  16 yiaddr  20 siaddr  24 giaddr  28 chaddr(16)
//!  44 sname(64)  108 file(128)  236 magic 63 82 53 63  240 options: code, length, value; 0 is padding, 255 the end
//! ```

use std::net::Ipv4Addr;

use machine::MacAddress;

/// Longer datagrams are no request of a firmware.
pub const MESSAGE_LENGTH_MAX: usize = 1500;
/// Relays of old drop what is shorter than a BOOTP message (RFC 1542, section 2.1).
const MESSAGE_LENGTH_MIN: usize = 300;
const OPTIONS: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const FILE: std::ops::Range<usize> = 108..236;
const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const BROADCAST: u16 = 0x8000;

const VENDOR: u8 = 43;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const CLASS: u8 = 60;
pub(crate) const BOOT_FILE: u8 = 67;
const USER_CLASS: u8 = 77;
const ARCHITECTURE: u8 = 93;
const MACHINE: u8 = 97;

/// The messages that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Who gives addresses and boot files?
    Discover,
    /// An answer to it.
    Offer,
    /// This one, please; or of a PXE client: which boot file?
    Request,
    /// An answer to it.
    Ack,
    /// I have an address; tell me the rest.
    Inform,
}

impl MessageKind {
    fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Discover),
            2 => Some(Self::Offer),
            3 => Some(Self::Request),
            5 => Some(Self::Ack),
            8 => Some(Self::Inform),
            _ => None,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Offer => 2,
            Self::Request => 3,
            Self::Ack => 5,
            Self::Inform => 8,
        }
    }
}

/// What a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it wants.
    pub kind: MessageKind,
    /// Its number for this exchange.
    pub transaction: u32,
    /// Flags: whether answers are to be broadcast.
    pub flags: u16,
    /// Its address, if it has one.
    pub address: Ipv4Addr,
    /// The relay that passed it on.
    pub relay: Ipv4Addr,
    /// Its network card.
    pub mac: MacAddress,
    /// Option 60: `PXEClient:Arch:00000:UNDI:002001`.
    pub class: Vec<u8>,
    /// Option 54: whom it chose.
    pub server: Option<Ipv4Addr>,
    /// Option 77 says that it is iPXE.
    pub is_ipxe: bool,
    /// Option 93: the first architecture type.
    pub architecture: Option<u16>,
    /// Option 97 as it came, to be echoed.
    pub machine: Vec<u8>,
    /// Option 43 as it came.
    pub vendor: Vec<u8>,
}

impl Request {
    /// The UUID of option 97: type 0 and 16 bytes.
    pub fn uuid(&self) -> Option<[u8; 16]> {
        match self.machine.split_first() {
            // All zeros or ones are what a board has whose maker did not set it.
            Some((0, uuid)) if uuid.iter().any(|byte| *byte != 0) && uuid.iter().any(|byte| *byte != 255) => {
                uuid.try_into().ok()
            }
            _ => None,
        }
    }
}

/// Reads a client's request on Ethernet; `None` for anything else.
pub fn parse_request(bytes: &[u8]) -> Option<Request> {
    if bytes.len() > MESSAGE_LENGTH_MAX || bytes.get(OPTIONS - 4..OPTIONS)? != MAGIC {
        return None;
    }
    if bytes[0] != BOOT_REQUEST || bytes[1] != ETHERNET || bytes[2] != 6 {
        return None;
    }
    let options = Options(&bytes[OPTIONS..]);
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
    let short = |value: &[u8]| Some(u16::from_be_bytes(value.get(..2)?.try_into().ok()?));
    Some(Request {
        kind: MessageKind::of(*options.get(MESSAGE_TYPE).first()?)?,
        transaction: u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?),
        flags: short(&bytes[10..])?,
        address: address(12)?,
        relay: address(24)?,
        mac: MacAddress(bytes.get(28..34)?.try_into().ok()?),
        class: options.get(CLASS),
        server: <[u8; 4]>::try_from(options.get(SERVER).as_slice()).ok().map(Ipv4Addr::from),
        is_ipxe: options.get(USER_CLASS) == b"iPXE",
        architecture: short(&options.get(ARCHITECTURE)),
        machine: options.get(MACHINE),
        vendor: options.get(VENDOR),
    })
}

/// The options of a message. Each look walks over them once; the message's length bounds that.
pub(crate) struct Options<'a>(pub(crate) &'a [u8]);

impl Options<'_> {
    /// The value of an option, its parts joined where it stands more than once (RFC 3396); empty where it is absent.
    pub(crate) fn get(&self, wanted: u8) -> Vec<u8> {
        let (mut rest, mut found) = (self.0, Vec::new());
        while let Some((&code, behind)) = rest.split_first() {
            match code {
                0 => rest = behind,
                255 => break,
                _ => {
                    let Some((&length, behind)) = behind.split_first() else { break };
                    let Some(value) = behind.get(..usize::from(length)) else { break };
                    if code == wanted {
                        found.extend_from_slice(value);
                    }
                    rest = &behind[usize::from(length)..];
                }
            }
        }
        found
    }
}

/// What we answer. It never holds an address for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Offer or acknowledgement.
    pub kind: MessageKind,
    /// Our address on the client's network.
    pub server: Ipv4Addr,
    /// Option 60: `PXEClient` or `HTTPClient`.
    pub class: &'static str,
    /// Name or URL of the boot file.
    pub file: Option<String>,
    /// Option 43.
    pub vendor: Vec<u8>,
}

impl Reply {
    /// The bytes of the answer to `request`.
    pub fn encode(&self, request: &Request) -> Vec<u8> {
        let mut bytes = vec![0; OPTIONS];
        bytes[0] = BOOT_REPLY;
        bytes[1] = ETHERNET;
        bytes[2] = 6;
        bytes[4..8].copy_from_slice(&request.transaction.to_be_bytes());
        bytes[10..12].copy_from_slice(&(request.flags | BROADCAST).to_be_bytes());
        bytes[12..16].copy_from_slice(&request.address.octets());
        bytes[20..24].copy_from_slice(&self.server.octets());
        bytes[24..28].copy_from_slice(&request.relay.octets());
        bytes[28..34].copy_from_slice(&request.mac.0);
        bytes[OPTIONS - 4..].copy_from_slice(&MAGIC);
        if let Some(file) = &self.file {
            // BIOS ROMs read the field, UEFI the option; with the field's last byte kept as its end.
            if file.len() < FILE.len() {
                bytes[FILE.start..FILE.start + file.len()].copy_from_slice(file.as_bytes());
            }
        }
        let mut option = |code: u8, value: &[u8]| {
            if let Ok(length) = u8::try_from(value.len())
                && length > 0
            {
                bytes.extend_from_slice(&[code, length]);
                bytes.extend_from_slice(value);
            }
        };
        option(MESSAGE_TYPE, &[self.kind.number()]);
        option(SERVER, &self.server.octets());
        option(CLASS, self.class.as_bytes());
        if let Some(file) = &self.file {
            option(BOOT_FILE, file.as_bytes());
        }
        option(MACHINE, &request.machine);
        option(VENDOR, &self.vendor);
        bytes.push(255);
        bytes.resize(bytes.len().max(MESSAGE_LENGTH_MIN), 0);
        bytes
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A request as a ROM writes it.
    pub(crate) fn request_bytes(options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; OPTIONS];
        bytes[..3].copy_from_slice(&[BOOT_REQUEST, ETHERNET, 6]);
        bytes[4..8].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
        bytes[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        bytes[236..].copy_from_slice(&MAGIC);
        for (code, value) in options {
            bytes.extend_from_slice(&[*code, u8::try_from(value.len()).unwrap()]);
            bytes.extend_from_slice(value);
        }
        bytes.push(255);
        bytes
    }

    #[test]
    fn a_discovery_of_a_rom_is_read() {
        let uuid: Vec<u8> = (0..17).collect();
        let bytes = request_bytes(&[
            (53, &[1]),
            (60, b"PXEClient:Arch:00007:UNDI:003016"),
            (93, &[0, 7, 0, 9]),
            (97, &uuid),
            (12, b""),
            (43, &[71, 4, 0, 1, 0, 0]),
        ]);
        let request = parse_request(&bytes).unwrap();
        assert_eq!(
            (request.kind, request.transaction, request.architecture),
            (MessageKind::Discover, 0x1234_5678, Some(7))
        );
        assert_eq!((request.mac.to_string().as_str(), request.uuid().unwrap()[15]), ("52:54:00:12:34:56", 16));
        assert_eq!((request.vendor.len(), request.server), (6, None));
    }

    #[test]
    fn a_uuid_that_nobody_set_is_none() {
        for byte in [0, 255] {
            let machine = [[0].as_slice(), &[byte; 16]].concat();
            let bytes = request_bytes(&[(53, &[1]), (97, &machine)]);
            assert_eq!(parse_request(&bytes).unwrap().uuid(), None);
        }
    }

    #[test]
    fn what_is_no_request_on_ethernet_is_not_read() {
        let good = request_bytes(&[(53, &[1])]);
        assert!(parse_request(&good).is_some());
        for (at, value) in [(0, 2), (1, 6), (2, 16), (236, 0)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(parse_request(&bad), None, "byte {at}");
        }
        let mut long = good.clone();
        long.resize(MESSAGE_LENGTH_MAX + 1, 0);
        assert_eq!(parse_request(&long), None);
        assert_eq!(parse_request(&request_bytes(&[])), None, "BOOTP without a message type");
        for length in 0..good.len() - 1 {
            let _ = parse_request(&good[..length]);
        }
    }

    #[test]
    fn an_answer_offers_no_address_and_names_its_file_twice() {
        let request = parse_request(&request_bytes(&[(53, &[1]), (97, &[0; 17])])).unwrap();
        let reply = Reply {
            kind: MessageKind::Offer,
            server: Ipv4Addr::new(192, 0, 2, 1),
            class: "PXEClient",
            file: Some("pxelinux.0".into()),
            vendor: vec![6, 1, 8, 255],
        };
        let bytes = reply.encode(&request);
        assert!(bytes.len() >= MESSAGE_LENGTH_MIN);
        assert_eq!((bytes[0], &bytes[16..20], &bytes[20..24]), (2, [0; 4].as_slice(), [192, 0, 2, 1].as_slice()));
        assert_eq!(&bytes[108..119], b"pxelinux.0\0");
        let options = Options(&bytes[OPTIONS..]);
        assert_eq!(options.get(53), [2]);
        assert_eq!(options.get(54), [192, 0, 2, 1]);
        assert_eq!(options.get(60), b"PXEClient");
        assert_eq!(options.get(67), b"pxelinux.0");
        assert_eq!(options.get(97), [0; 17]);
        assert_eq!(options.get(43), [6, 1, 8, 255]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(head in proptest::collection::vec(any::<u8>(), 0..40), tail in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut bytes = request_bytes(&[(53, &[1])]);
            bytes.truncate(bytes.len() - 1);
            bytes.extend(tail);
            for (at, byte) in head.into_iter().enumerate().skip(3) {
                bytes[at] = byte;
            }
            crate::dhcp::fuzz_message(&bytes);
        }
    }
}
