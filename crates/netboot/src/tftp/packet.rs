//! Packets of TFTP: what a client may send, and what we send.

/// Block size without the option (RFC 1350).
pub(crate) const BLOCK_SIZE_DEFAULT: u16 = 512;
/// Larger blocks would be fragmented on Ethernet: 1500 less the headers of IPv4, UDP and TFTP.
pub(crate) const BLOCK_SIZE_MAX: u16 = 1468;
/// Blocks sent without an acknowledgement; UNDI drivers have few receive buffers.
pub(crate) const WINDOW_MAX: u16 = 32;
/// Seconds; a longer wish is left out of the answer, as each place is one of few.
pub(crate) const TIMEOUT_MAX: u64 = 8;
/// Longer packets of a client are none of TFTP.
pub(crate) const PACKET_LENGTH_MAX: usize = 1024;

const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OPTIONS_ACK: u16 = 6;

/// A packet of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientPacket {
    /// Asks for a file.
    Read(ReadRequest),
    /// Wants to write one.
    Write,
    /// Has this block and all before it.
    Ack(u16),
    /// Gives up.
    Error(String),
}

/// A request for a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadRequest {
    /// The file's name.
    pub name: String,
    /// Bytes of a block, as wanted (RFC 2348).
    pub block_size: Option<u16>,
    /// Seconds until a packet is sent again, as wanted (RFC 2349).
    pub timeout: Option<u8>,
    /// Whether the size of the file is wanted (RFC 2349).
    pub wants_size: bool,
    /// Blocks between two acknowledgements, as wanted (RFC 7440).
    pub window: Option<u16>,
}

/// An error that we tell a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TftpError {
    /// There is no such file.
    NotFound,
    /// Files are only read here.
    ReadOnly,
    /// Too many transfers, or the file cannot be read.
    Failed(&'static str),
}

/// Reads a packet of a client; `None` for what is no TFTP.
pub fn parse_packet(bytes: &[u8]) -> Option<ClientPacket> {
    if bytes.len() > PACKET_LENGTH_MAX {
        return None;
    }
    let number = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    match number(0)? {
        READ => parse_read(&bytes[2..]).map(ClientPacket::Read),
        WRITE => Some(ClientPacket::Write),
        ACK => number(2).map(ClientPacket::Ack),
        ERROR => {
            let text = bytes.get(4..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
            let text = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(80).collect();
            Some(ClientPacket::Error(text))
        }
        _ => None,
    }
}

fn parse_read(bytes: &[u8]) -> Option<ReadRequest> {
    // The last byte ends the last text; some ROMs leave padding behind it.
    let mut texts = bytes.split(|byte| *byte == 0).map(std::str::from_utf8);
    let name = texts.next()?.ok().filter(|name| !name.is_empty() && !name.contains(char::is_control))?.to_owned();
    let mode = texts.next()?.ok()?;
    if !mode.eq_ignore_ascii_case("octet") {
        return None;
    }
    let mut request = ReadRequest { name, ..ReadRequest::default() };
    while let (Some(Ok(option)), Some(Ok(value))) = (texts.next(), texts.next()) {
        let Ok(value) = value.parse::<u64>() else { continue };
        match option.to_ascii_lowercase().as_str() {
            "blksize" if (8..=65464).contains(&value) => request.block_size = u16::try_from(value).ok(),
            "timeout" if (1..=TIMEOUT_MAX).contains(&value) => request.timeout = u8::try_from(value).ok(),
            "tsize" => request.wants_size = true,
            "windowsize" if (1..=65535).contains(&value) => request.window = u16::try_from(value).ok(),
            _ => {} // RFC 2347: what is not known is left out of the answer
        }
    }
    Some(request)
}

/// The head of a data packet; its payload follows.
pub(crate) fn data_head(block: u64) -> [u8; 4] {
    let [high, low] = wire_block(block).to_be_bytes();
    [0, DATA.to_be_bytes()[1], high, low]
}

/// Block numbers go on from 65535 with 0, as every client does that was seen.
pub(crate) fn wire_block(block: u64) -> u16 {
    let [.., high, low] = block.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// The options that were agreed on.
pub(crate) fn options(agreed: &[(&str, u64)]) -> Vec<u8> {
    let mut bytes = OPTIONS_ACK.to_be_bytes().to_vec();
    for (name, value) in agreed {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(value.to_string().as_bytes());
        bytes.push(0);
    }
    bytes
}

/// An error.
pub(crate) fn error(error: TftpError) -> Vec<u8> {
    let (code, text) = match error {
        TftpError::NotFound => (1, "no such file"),
        TftpError::ReadOnly => (2, "files are only read here"),
        TftpError::Failed(text) => (0_u16, text),
    };
    let mut bytes = ERROR.to_be_bytes().to_vec();
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_with_options_is_read() {
        let bytes = b"\0\x01m/525400123456/vmlinuz\0OCTET\0tsize\x000\0BlkSize\x001408\0windowsize\x004\0x\x001\0timeout\x000\0\0\0";
        let Some(ClientPacket::Read(request)) = parse_packet(bytes) else { panic!() };
        let expected = ReadRequest {
            name: "m/525400123456/vmlinuz".into(),
            block_size: Some(1408),
            timeout: None,
            wants_size: true,
            window: Some(4),
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn what_is_no_request_is_not_read() {
        for bytes in [
            b"".as_slice(),
            b"\0",
            b"\0\x01",
            b"\0\x01\0octet\0",
            b"\0\x01name",
            b"\0\x01name\0netascii\0",
            b"\0\x01na\nme\0octet\0",
            b"\0\x01\xff\0octet\0",
            b"\0\x04\0",
            b"\0\x09\0\0",
        ] {
            assert_eq!(parse_packet(bytes), None, "{bytes:?}");
        }
        assert_eq!(parse_packet(b"\0\x02name\0octet\0"), Some(ClientPacket::Write));
        assert_eq!(parse_packet(b"\0\x05\0\0no\x1b[2J room\0"), Some(ClientPacket::Error("no[2J room".into())));
        assert_eq!(parse_packet(&[0; PACKET_LENGTH_MAX + 1]), None);
    }

    #[test]
    fn packets_are_written_as_the_rfc_says() {
        assert_eq!(data_head(65537), [0, 3, 0, 1]);
        assert_eq!(options(&[("tsize", 9)]), b"\0\x06tsize\x009\0");
        assert_eq!(error(TftpError::NotFound), b"\0\x05\0\x01no such file\0");
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            super::super::fuzz_packet(&bytes);
            super::super::fuzz_packet(&[b"\0\x01name\0octet\0blksize\x008\0windowsize\x00".as_slice(), &bytes].concat());
        }
    }
}
