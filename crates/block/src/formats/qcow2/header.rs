//! The header and its extensions (specification, sections "Header" and "Header extensions"). No image is trusted.
#![forbid(unsafe_code)]

use machine::{ByteCount, ByteOffset};

use super::MAGIC;
use crate::{Error, ErrorKind, Result};

/// Enough for the header, its extensions and the name of a backing file: they lie in the first cluster, and what
/// matters to a reader lies at its start.
pub(crate) const HEADER_READ_MAX: usize = 64 << 10;
/// The longest name of a backing file that the specification allows.
const BACKING_NAME_MAX: usize = 1023;
/// The largest L1 table that QEMU opens: 32 MiB.
const L1_ENTRIES_MAX: u64 = (32 << 20) / 8;

const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA_FILE: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;

/// How compressed clusters are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Deflate,
    Zstd,
}

/// What a reader needs to know of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// 2 or 3.
    pub(crate) version: u32,
    /// A cluster has `1 << cluster_bits` bytes; 9 to 21.
    pub(crate) cluster_bits: u32,
    /// Size of the disk.
    pub(crate) size: ByteCount,
    /// Where the L1 table lies.
    pub(crate) l1_offset: ByteOffset,
    /// How many of its entries the disk needs.
    pub(crate) l1_entries: u64,
    pub(crate) compression: Compression,
    /// L2 entries have 128 bits and 32 subclusters.
    pub(crate) extended_l2: bool,
    pub(crate) backing: Option<BackingName>,
}

/// What an image says about its backing file; nothing of it is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackingName {
    pub(crate) name: String,
    pub(crate) format: Option<String>,
}

impl Header {
    pub(crate) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of one L2 entry.
    pub(crate) fn entry_size(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Entries of one L2 table.
    pub(crate) fn l2_entries(&self) -> u64 {
        self.cluster_size() / self.entry_size()
    }
}

/// Parses the header at the start of `bytes`, the first [`HEADER_READ_MAX`] bytes of the file or all of it.
pub(crate) fn parse_header(bytes: &[u8]) -> Result<Header> {
    if bytes.get(..4) != Some(&MAGIC) {
        return malformed(0, "expected the signature QFI\\xfb, found another");
    }
    let version = u32_at(bytes, 4)?;
    if version == 1 {
        return unsupported("qcow (version 1): convert it by `qemu-img convert -O qcow2` first");
    }
    if !(2..=3).contains(&version) {
        return unsupported(format!("qcow2 version: expected 2 or 3, found {version}"));
    }
    let cluster_bits = u32_at(bytes, 20)?;
    if !(9..=21).contains(&cluster_bits) {
        return malformed(20, format!("cluster_bits: expected 9 to 21, found {cluster_bits}"));
    }
    let size = u64_at(bytes, 24)?;
    match u32_at(bytes, 32)? {
        0 => {}
        method => {
            return unsupported(format!(
                "qcow2 is encrypted (method {method}): decrypt it by `qemu-img convert` first"
            ));
        }
    }
    let incompatible = if version == 3 { u64_at(bytes, 72)? } else { 0 };
    check_features(incompatible)?;
    let header_length = if version == 3 { u32_at(bytes, 100)? } else { 72 };
    if version == 3 && (header_length < 104 || !header_length.is_multiple_of(8)) {
        return malformed(100, format!("header_length: expected a multiple of 8 from 104, found {header_length}"));
    }
    let compression = parse_compression(bytes, incompatible, header_length)?;
    let extended_l2 = incompatible & EXTENDED_L2 != 0;
    if extended_l2 && cluster_bits < 14 {
        return malformed(
            20,
            format!("cluster_bits: expected 14 to 21 with extended L2 entries, found {cluster_bits}"),
        );
    }
    let mut header = Header {
        version,
        cluster_bits,
        size: ByteCount(size),
        l1_offset: ByteOffset(u64_at(bytes, 40)?),
        l1_entries: 0,
        compression,
        extended_l2,
        backing: None,
    };
    header.l1_entries = check_l1(&header, u32_at(bytes, 36)?)?;
    header.backing = parse_backing(bytes, &header, header_length)?;
    Ok(header)
}

fn check_features(incompatible: u64) -> Result<()> {
    if incompatible & CORRUPT != 0 {
        return unsupported("qcow2 is marked corrupt: repair a copy of it by `qemu-img check -r all` first");
    }
    if incompatible & EXTERNAL_DATA_FILE != 0 {
        return unsupported("qcow2 keeps its data in another file: join them by `qemu-img convert -O qcow2` first");
    }
    // Dirty tells that refcounts may be stale (lazy refcounts); reading does not use them.
    let unknown = incompatible & !(DIRTY | COMPRESSION_TYPE | EXTENDED_L2);
    if unknown != 0 {
        return unsupported(format!("qcow2 has unknown incompatible features {unknown:#x}"));
    }
    Ok(())
}

fn parse_compression(bytes: &[u8], incompatible: u64, header_length: u32) -> Result<Compression> {
    let kind = if header_length >= 112 { *bytes.get(104).ok_or_else(|| short(104))? } else { 0 };
    let flagged = incompatible & COMPRESSION_TYPE != 0;
    match (kind, flagged) {
        (0, _) => Ok(Compression::Deflate),
        (1, true) => Ok(Compression::Zstd),
        (1, false) => malformed(104, "compression type zstd without its incompatible bit"),
        (kind, _) => unsupported(format!("qcow2 compression type: expected 0 or 1, found {kind}")),
    }
}

/// The entries that the disk needs, if the table has and QEMU would accept them.
fn check_l1(header: &Header, entries: u32) -> Result<u64> {
    let covered = header.l2_entries() * header.cluster_size();
    let needed = header.size.0.div_ceil(covered);
    if needed > L1_ENTRIES_MAX {
        return unsupported(format!("qcow2 of {}: its L1 table would exceed 32 MiB", header.size));
    }
    if u64::from(entries) < needed {
        return malformed(36, format!("l1_size: expected at least {needed}, found {entries}"));
    }
    if needed > 0 && !header.l1_offset.0.is_multiple_of(header.cluster_size()) {
        return malformed(40, format!("l1_table_offset: expected the start of a cluster, found {}", header.l1_offset));
    }
    Ok(needed)
}

fn parse_backing(bytes: &[u8], header: &Header, header_length: u32) -> Result<Option<BackingName>> {
    let (offset, length) = (u64_at(bytes, 8)?, u32_at(bytes, 16)? as usize);
    if offset == 0 {
        return Ok(None);
    }
    if length == 0 || length > BACKING_NAME_MAX {
        return malformed(16, format!("backing_file_size: expected 1 to {BACKING_NAME_MAX}, found {length}"));
    }
    let name = usize::try_from(offset)
        .ok()
        .filter(|offset| offset.saturating_add(length) as u64 <= header.cluster_size())
        .and_then(|offset| bytes.get(offset..offset.checked_add(length)?));
    let Some(name) = name else {
        return malformed(8, format!("backing_file_offset: expected within the first cluster, found {offset:#x}"));
    };
    let Ok(name) = std::str::from_utf8(name) else {
        return unsupported("qcow2 names a backing file that is not UTF-8");
    };
    let format = find_extension(bytes, header_length as usize, EXTENSION_BACKING_FORMAT)?;
    let format = format.map(|format| String::from_utf8_lossy(format).into_owned());
    Ok(Some(BackingName { name: name.to_owned(), format }))
}

/// The content of the first header extension of `kind`. Each step is forward, so the walk ends with the bytes.
fn find_extension(bytes: &[u8], mut at: usize, kind: u32) -> Result<Option<&[u8]>> {
    while at + 8 <= bytes.len() {
        let (found, length) = (u32_at(bytes, at)?, u32_at(bytes, at + 4)? as usize);
        if found == EXTENSION_END {
            return Ok(None);
        }
        let Some(content) = bytes.get(at + 8..(at + 8).saturating_add(length)) else {
            return malformed(
                at as u64,
                format!("header extension of {length} bytes: expected it in the first cluster"),
            );
        };
        if found == kind {
            return Ok(Some(content));
        }
        at += 8 + length.next_multiple_of(8);
    }
    Ok(None)
}

fn malformed<T>(at: u64, context: impl AsRef<str>) -> Result<T> {
    Err(Error::malformed(ByteOffset(at), format!("qcow2 header: {}", context.as_ref())))
}

fn unsupported<T>(context: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, context))
}

fn short(at: usize) -> Error {
    Error::malformed(ByteOffset(at as u64), "qcow2 header: the file ends within it")
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(|| short(at))?;
    Ok(u32::from_be_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(|| short(at))?;
    Ok(u64::from_be_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A version 3 header of a disk of 1 GiB with 64 KiB clusters.
    fn plain() -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&16u32.to_be_bytes());
        bytes[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        bytes[36..40].copy_from_slice(&2u32.to_be_bytes());
        bytes[40..48].copy_from_slice(&(3u64 << 16).to_be_bytes());
        bytes[100..104].copy_from_slice(&112u32.to_be_bytes());
        bytes
    }

    fn with(at: usize, field: &[u8]) -> Result<Header> {
        let mut bytes = plain();
        bytes[at..at + field.len()].copy_from_slice(field);
        parse_header(&bytes)
    }

    #[test]
    fn features_that_would_be_misread_are_refused_and_a_dirty_image_is_read() {
        assert_eq!(parse_header(&plain()).unwrap().l1_entries, 2);
        assert!(with(79, &[1]).is_ok());
        for (at, field) in [(79, 2), (79, 4), (79, 0x20), (72, 0x80), (35, 1), (35, 2), (7, 1), (7, 4), (104, 2)] {
            assert_eq!(with(at, &[field]).unwrap_err().kind, ErrorKind::Unsupported, "byte {at} = {field}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        for (at, field) in [(23, 8), (23, 22), (39, 1), (46, 1), (103, 100), (103, 113), (104, 1)] {
            assert_eq!(with(at, &[field]).unwrap_err().kind, ErrorKind::Malformed, "byte {at} = {field}");
        }
        assert_eq!(with(24, &[0x7f]).unwrap_err().kind, ErrorKind::Unsupported);
        for length in 0..111 {
            assert!(parse_header(&plain()[..length]).is_err() || length >= 105, "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(at in 0usize..512, garbage in proptest::collection::vec(any::<u8>(), 1..64)) {
            let mut bytes = plain();
            for (to, from) in bytes[at..].iter_mut().zip(&garbage) {
                *to = *from;
            }
            let _ = parse_header(&bytes);
            let _ = parse_header(&bytes[..at]);
        }
    }
}
