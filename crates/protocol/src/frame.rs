//! Frames: a disk's contents on a data connection, and their acknowledgement.
//!
//! The agent sends frames in ascending order of position, the controller answers with an [`Ack`] whenever more has
//! become durable. A frame is a header of [`HEADER_BYTES`] and a payload; numbers are little endian:
//!
//! | at | size | |
//! | --- | --- | --- |
//! | 0 | 1 | kind: 1 data, 2 zero, 3 unreadable, 4 end, 5 hash, 6 error, 7 idle |
//! | 1 | 1 | codec of the payload: 0 stored, 1 zstd |
//! | 2 | 2 | zero |
//! | 4 | 4 | length of the payload in bytes |
//! | 8 | 8 | position on the disk in bytes |
//! | 16 | 8 | length of the extent in bytes |
//! | 24 | 8 | XXH3-64 of the extent's raw content (of the payload, for hash and error) |
//!
//! Extents that nobody sends are not in use on the source.

use std::io::{Read, Write};

use machine::{ByteCount, ByteOffset};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Error, ErrorKind, Result};

/// Length of a header.
pub const HEADER_BYTES: usize = 32;
/// Most bytes that a data or hash frame speaks of.
pub const CONTENT_BYTES_MAX: usize = 1 << 20;
/// Length of the hash in a hash frame: BLAKE3.
pub const HASH_BYTES: usize = 32;
/// Longest text of an error frame.
pub const ERROR_BYTES_MAX: usize = 4096;
/// An agent that has nothing to send for this long sends an idle frame.
pub const IDLE_SECONDS: u64 = 5;
/// Length of an acknowledgement.
pub const ACK_BYTES: usize = 16;

/// How a payload holds its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Stored,
    /// One zstd frame.
    Zstd,
}

/// What a frame says of its extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its content.
    Data(Codec),
    /// It holds zeros.
    Zero,
    /// The source cannot read it; it stands for zeros.
    Unreadable,
    /// Everything was sent; the position is the disk's size, the length the sum of all extents sent on this connection.
    End,
    /// The BLAKE3 hash of its content.
    Hash,
    /// The agent stops here; the payload is a [`StreamError`].
    Error,
    /// Nothing yet.
    Idle,
}

/// A header that was checked: payload and extent are within bounds and fit the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame says.
    pub kind: Kind,
    /// First byte of the extent on the disk.
    pub offset: ByteOffset,
    /// Length of the extent; its end is below 2⁶⁴.
    pub length: ByteCount,
    /// Length of the payload that follows.
    pub payload_bytes: u32,
    /// XXH3-64.
    pub checksum: u64,
}

/// Why an agent stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamError {
    /// What failed.
    pub kind: StreamErrorKind,
    /// For a person, with all causes.
    pub text: String,
}

/// What failed on the agent's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamErrorKind {
    /// The extent of the frame cannot be read, and the stream was to stop there.
    Unreadable,
    /// The disk is gone, shrank, or its structures cannot be followed any more.
    Source,
    /// Something else.
    #[serde(other)]
    Other,
}

/// From the controller: everything in use before this position is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The position.
    pub durable: ByteOffset,
}

const ACK_MAGIC: &[u8; 8] = b"vcv-ack1";

impl Header {
    /// A frame with `content` stored or compressed; `payload_bytes` is the length of what will be sent for it.
    pub fn data(offset: ByteOffset, content: &[u8], codec: Codec, payload_bytes: usize) -> Self {
        Self {
            kind: Kind::Data(codec),
            offset,
            length: content.len().into(),
            payload_bytes: length32(payload_bytes),
            checksum: xxh3_64(content),
        }
    }

    /// A frame with a payload of its own: hash or error.
    pub fn about(kind: Kind, offset: ByteOffset, length: ByteCount, payload: &[u8]) -> Self {
        Self { kind, offset, length, payload_bytes: length32(payload.len()), checksum: xxh3_64(payload) }
    }

    /// A frame without payload: zero, unreadable, end, idle.
    pub fn bare(kind: Kind, offset: ByteOffset, length: ByteCount) -> Self {
        Self { kind, offset, length, payload_bytes: 0, checksum: 0 }
    }

    /// One past the last byte of the extent.
    pub fn end(&self) -> ByteOffset {
        self.offset + self.length
    }

    /// As it is sent.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let (kind, codec) = match self.kind {
            Kind::Data(Codec::Stored) => (1, 0),
            Kind::Data(Codec::Zstd) => (1, 1),
            Kind::Zero => (2, 0),
            Kind::Unreadable => (3, 0),
            Kind::End => (4, 0),
            Kind::Hash => (5, 0),
            Kind::Error => (6, 0),
            Kind::Idle => (7, 0),
        };
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = kind;
        bytes[1] = codec;
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.length.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    /// Reads and checks a header.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`], saying which field.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let payload_bytes = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let header = Self {
            kind: parse_kind(bytes[0], bytes[1])?,
            offset: ByteOffset(word(8)),
            length: ByteCount(word(16)),
            payload_bytes,
            checksum: word(24),
        };
        if bytes[2..4] != [0, 0] {
            return Err(Error::malformed("frame: reserved bytes are not zero"));
        }
        if header.offset.checked_add(header.length).is_none() {
            return Err(Error::malformed(format!("frame at {}: extent passes 2^64", header.offset)));
        }
        header.check_lengths()?;
        Ok(header)
    }

    fn check_lengths(&self) -> Result<()> {
        let (payload, length) = (self.payload_bytes as usize, self.length.0);
        let content = 1..=CONTENT_BYTES_MAX as u64;
        let fits = match self.kind {
            Kind::Data(Codec::Stored) => content.contains(&length) && payload as u64 == length,
            Kind::Data(Codec::Zstd) => content.contains(&length) && payload as u64 <= length && payload > 0,
            Kind::Zero | Kind::Unreadable => length > 0 && payload == 0,
            Kind::End => payload == 0,
            Kind::Idle => payload == 0 && length == 0,
            Kind::Hash => content.contains(&length) && payload == HASH_BYTES,
            Kind::Error => payload <= ERROR_BYTES_MAX,
        };
        if fits {
            return Ok(());
        }
        let text = format!("frame {:?} at {}: {length} bytes in a payload of {payload}", self.kind, self.offset);
        Err(Error::malformed(text))
    }

    /// Refuses content that is not what was sent.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`].
    pub fn check(&self, content: &[u8]) -> Result<()> {
        let found = xxh3_64(content);
        if found == self.checksum {
            return Ok(());
        }
        let text = format!("frame at {}: expected checksum {:016x}, found {found:016x}", self.offset, self.checksum);
        Err(Error::new(ErrorKind::Corrupt, text))
    }

    /// Receives one header.
    ///
    /// # Errors
    /// As [`Header::parse`]; the link's own errors.
    pub fn read_from(mut from: impl Read) -> Result<Self> {
        let mut bytes = [0; HEADER_BYTES];
        from.read_exact(&mut bytes).map_err(|e| Error::link("cannot receive a frame", e))?;
        Self::parse(&bytes)
    }
}

fn parse_kind(kind: u8, codec: u8) -> Result<Kind> {
    match (kind, codec) {
        (1, 0) => Ok(Kind::Data(Codec::Stored)),
        (1, 1) => Ok(Kind::Data(Codec::Zstd)),
        (2, 0) => Ok(Kind::Zero),
        (3, 0) => Ok(Kind::Unreadable),
        (4, 0) => Ok(Kind::End),
        (5, 0) => Ok(Kind::Hash),
        (6, 0) => Ok(Kind::Error),
        (7, 0) => Ok(Kind::Idle),
        _ => Err(Error::malformed(format!("frame: kind {kind} with codec {codec} is not known"))),
    }
}

/// Payloads are bounded far below 2³²; a longer one would be refused by the receiver's check of lengths.
fn length32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl StreamError {
    /// As the payload of an error frame: JSON, its text cut to fit.
    pub fn to_payload(&self) -> Vec<u8> {
        let mut fitting = self.clone();
        loop {
            let payload = serde_json::to_vec(&fitting).unwrap_or_default();
            if payload.len() <= ERROR_BYTES_MAX {
                return payload;
            }
            // JSON escapes at most six to one.
            fitting.text = fitting.text.chars().take(fitting.text.chars().count() / 2).collect();
        }
    }

    /// Reads the payload of an error frame; anything that is not understood becomes text.
    pub fn from_payload(payload: &[u8]) -> Self {
        serde_json::from_slice(payload).unwrap_or_else(|_| Self {
            kind: StreamErrorKind::Other,
            text: String::from_utf8_lossy(payload).chars().take(500).collect(),
        })
    }
}

impl Ack {
    /// As it is sent.
    pub fn to_bytes(self) -> [u8; ACK_BYTES] {
        let mut bytes = [0; ACK_BYTES];
        bytes[..8].copy_from_slice(ACK_MAGIC);
        bytes[8..].copy_from_slice(&self.durable.0.to_le_bytes());
        bytes
    }

    /// Reads an acknowledgement.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`].
    pub fn parse(bytes: &[u8; ACK_BYTES]) -> Result<Self> {
        let (magic, position) = bytes.split_at(8);
        if magic != ACK_MAGIC {
            return Err(Error::malformed("acknowledgement: expected its magic number"));
        }
        let mut word = [0; 8];
        word.copy_from_slice(position);
        Ok(Self { durable: ByteOffset(u64::from_le_bytes(word)) })
    }

    /// Sends it.
    ///
    /// # Errors
    /// The link's own.
    pub fn write_to(self, mut to: impl Write) -> Result<()> {
        to.write_all(&self.to_bytes()).and_then(|()| to.flush()).map_err(|e| Error::link("cannot acknowledge", e))
    }

    /// Receives one.
    ///
    /// # Errors
    /// As [`Ack::parse`]; the link's own errors.
    pub fn read_from(mut from: impl Read) -> Result<Self> {
        let mut bytes = [0; ACK_BYTES];
        from.read_exact(&mut bytes).map_err(|e| Error::link("cannot receive an acknowledgement", e))?;
        Self::parse(&bytes)
    }
}

/// For the fuzzer: everything that parses frames.
pub fn fuzz_frame(bytes: &[u8]) {
    if let Some((header, payload)) = bytes.split_first_chunk::<HEADER_BYTES>()
        && let Ok(parsed) = Header::parse(header)
    {
        assert_eq!(parsed.to_bytes(), *header, "a header that was read can be sent");
        let _ = parsed.end();
        if let (Kind::Data(Codec::Zstd), Some(length)) = (parsed.kind, parsed.length.to_usize()) {
            let mut content = vec![0; length];
            if let Ok(mut decompressor) = crate::codec::Decompressor::new() {
                let _ = decompressor.decompress(payload, &mut content).and_then(|()| parsed.check(&content));
            }
        }
        if parsed.kind == Kind::Error {
            let _ = StreamError::from_payload(payload);
        }
    }
    if let Some((ack, _)) = bytes.split_first_chunk::<ACK_BYTES>() {
        let _ = Ack::parse(ack);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_sent() {
        let content = [3; 1000];
        for header in [
            Header::data(ByteOffset(1 << 40), &content, Codec::Stored, 1000),
            Header::data(ByteOffset(0), &content, Codec::Zstd, 17),
            Header::bare(Kind::Zero, ByteOffset(512), ByteCount::gib(5000)),
            Header::bare(Kind::Unreadable, ByteOffset(512), ByteCount(512)),
            Header::bare(Kind::End, ByteOffset(1 << 50), ByteCount(0)),
            Header::about(Kind::Hash, ByteOffset(7), ByteCount(9), &[1; HASH_BYTES]),
            Header::about(Kind::Error, ByteOffset(7), ByteCount(9), b"{}"),
            Header::bare(Kind::Idle, ByteOffset(0), ByteCount(0)),
        ] {
            assert_eq!(Header::parse(&header.to_bytes()).unwrap(), header);
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let good = Header::data(ByteOffset(0), &[1; 100], Codec::Stored, 100);
        for wrong in [
            Header { payload_bytes: 99, ..good },
            Header { length: ByteCount(0), payload_bytes: 0, ..good },
            Header { length: ByteCount(1 + (1 << 20)), payload_bytes: 1 + (1 << 20), ..good },
            Header { kind: Kind::Data(Codec::Zstd), payload_bytes: 101, ..good },
            Header { kind: Kind::Zero, ..good },
            Header { offset: ByteOffset(u64::MAX), ..good },
            Header { kind: Kind::Error, payload_bytes: u32::MAX, ..good },
        ] {
            assert_eq!(Header::parse(&wrong.to_bytes()).unwrap_err().kind, ErrorKind::Malformed, "{wrong:?}");
        }
    }

    #[test]
    fn one_flipped_bit_of_content_is_noticed() {
        let mut content = vec![5; 4096];
        let header = Header::data(ByteOffset(0), &content, Codec::Stored, content.len());
        header.check(&content).unwrap();
        content[1234] ^= 4;
        assert_eq!(header.check(&content).unwrap_err().kind, ErrorKind::Corrupt);
    }

    #[test]
    fn a_long_error_is_cut_and_a_strange_one_is_text() {
        let error = StreamError { kind: StreamErrorKind::Unreadable, text: "\u{1}".repeat(9000) };
        let payload = error.to_payload();
        assert!(payload.len() <= ERROR_BYTES_MAX);
        assert_eq!(StreamError::from_payload(&payload).kind, StreamErrorKind::Unreadable);
        assert_eq!(StreamError::from_payload(b"\xff disk").text, "\u{fffd} disk");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_parse_without_panic(
            kind in 0_u8..9, codec in 0_u8..3, rest in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        ) {
            let mut bytes = vec![kind, codec, 0, 0];
            bytes.extend(rest);
            fuzz_frame(&bytes);
        }
    }
}
