//! The label of a physical volume and its metadata areas: which text describes its volume group.

use block::BlockSource;

use crate::checksum::crc32;
use crate::field::{le32, le64, peek};

/// LVM2's CRC-32 begins with this instead of all ones, and is not inverted.
const CRC_START: u32 = 0xf597_a6cf;
const AREA_MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";
/// The header of a metadata area takes one sector; the text's ring begins behind it.
const AREA_HEADER: u64 = 512;
/// Metadata text that is read; LVM2's own areas are 1 MiB unless made larger by hand.
pub(super) const TEXT_MAX: u64 = 16 << 20;
/// Data and metadata areas that a label can list in its sector.
const AREAS_MAX: usize = 28;

/// A physical volume, by its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PhysicalVolume {
    /// As LVM2 prints it: `V9N6H5-MXlo-JmEE-TLHs-KyAo-kLv5-JL0RY7`.
    pub uuid: String,
    /// Metadata areas (start, size) in bytes.
    areas: Vec<(u64, u64)>,
}

/// What a metadata area holds.
pub(crate) enum AreaText {
    /// The current text of the volume group.
    Group(Vec<u8>),
    /// No volume group uses the area.
    Empty,
}

/// A 32-character identifier in LVM2's printed form.
pub(crate) fn print_uuid(raw: &[u8]) -> Option<String> {
    if raw.len() != 32 || !raw.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'!' | b'#')) {
        return None;
    }
    let text = std::str::from_utf8(raw).ok()?;
    let mut parts = Vec::new();
    let mut at = 0;
    for length in [6, 4, 4, 4, 4, 4, 6] {
        parts.push(&text[at..at + length]);
        at += length;
    }
    Some(parts.join("-"))
}

impl PhysicalVolume {
    /// Reads the label, which lies in one of the first four sectors; `None` where there is none.
    pub(crate) fn load(source: &dyn BlockSource) -> Option<Self> {
        let head = peek(source, 0, 2048)?;
        head.chunks_exact(512).zip(0u64..).find_map(|(sector, number)| Self::parse(sector, number))
    }

    /// Reads the label from sector `number`.
    pub(crate) fn parse(sector: &[u8], number: u64) -> Option<Self> {
        let valid = sector.len() == 512
            && sector.starts_with(b"LABELONE")
            && &sector[24..32] == b"LVM2 001"
            && le64(sector, 8) == number
            && crc32(CRC_START, &sector[20..]) == le32(sector, 16);
        let header = sector.get(usize::try_from(le32(sector, 20)).ok()?..).filter(|h| valid && h.len() >= 40)?;
        let uuid = print_uuid(&header[..32])?;
        // Two lists of (offset, size), each ended by zeros: data areas, then metadata areas.
        let mut lists = [Vec::new(), Vec::new()];
        let mut entries = header[40..].chunks_exact(16).map(|entry| (le64(entry, 0), le64(entry, 8)));
        for list in &mut lists {
            list.extend(entries.by_ref().take_while(|&(offset, _)| offset != 0).take(AREAS_MAX));
        }
        let [_, areas] = lists;
        Some(Self { uuid, areas })
    }

    /// The texts of the metadata areas that can be trusted, and whether any of them could not be.
    pub(crate) fn load_texts(&self, source: &dyn BlockSource) -> (Vec<AreaText>, Option<String>) {
        let mut texts = Vec::new();
        let mut damage = None;
        for &(start, size) in &self.areas {
            match load_text(source, start, size) {
                Ok(text) => texts.push(text),
                Err(reason) => damage = Some(reason),
            }
        }
        (texts, damage)
    }
}

fn load_text(source: &dyn BlockSource, start: u64, size: u64) -> Result<AreaText, String> {
    let header = peek(source, start, 512).ok_or("a metadata area lies beyond the end or cannot be read")?;
    if crc32(CRC_START, &header[4..]) != le32(&header, 0) || &header[4..20] != AREA_MAGIC {
        return Err("the header of a metadata area is damaged".into());
    }
    if le32(&header, 20) != 1 || le64(&header, 24) != start || le64(&header, 32) > size.max(AREA_HEADER) {
        return Err("the header of a metadata area belongs to another place or version".into());
    }
    let ring = le64(&header, 32);
    let (offset, length, checksum, flags) =
        (le64(&header, 40), le64(&header, 48), le32(&header, 56), le32(&header, 60));
    if offset == 0 || length == 0 || flags & 1 != 0 {
        return Ok(AreaText::Empty);
    }
    if offset < AREA_HEADER || offset >= ring || length > ring - AREA_HEADER || length > TEXT_MAX {
        return Err(format!("metadata text: {length} bytes at {offset} do not fit an area of {ring} bytes"));
    }
    // The text wraps around to the start of the ring.
    let first = length.min(ring - offset);
    let read = |at: u64, length: u64| {
        let at = start.checked_add(at).ok_or("metadata text beyond 2^64")?;
        peek(source, at, usize::try_from(length).unwrap_or(0)).ok_or("the metadata text cannot be read")
    };
    let mut text = read(offset, first)?;
    text.extend(read(AREA_HEADER, length - first)?);
    let found = crc32(CRC_START, &text);
    if found != checksum {
        return Err(format!("metadata text checksum: expected {checksum:08x}, found {found:08x}"));
    }
    Ok(AreaText::Group(text))
}
