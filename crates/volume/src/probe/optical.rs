//! ISO 9660 and UDF.

use block::BlockSource;

use super::Found;
use crate::field::{be16, le16, le32, peek, text};

/// Volume descriptors that are read in search of the Joliet one.
const DESCRIPTORS_MAX: u64 = 64;

/// Identifiers of the volume recognition sequence; the first two are UDF's own.
const SEQUENCE: [&[u8]; 7] = [b"NSR02", b"NSR03", b"BEA01", b"TEA01", b"BOOT2", b"CD001", b"CDW02"];

/// ISO 9660 (ECMA-119, section 8); label from Joliet where there is one, UUID from the date of the last change.
pub(super) fn iso9660(source: &dyn BlockSource) -> Option<Found> {
    let primary = peek(source, 32768, 2048).filter(|d| d[0] == 1 && &d[1..6] == b"CD001")?;
    let ascii = text(&primary[40..72]);
    let mut joliet = None;
    for n in 1..DESCRIPTORS_MAX {
        let Some(descriptor) = peek(source, 32768 + n * 2048, 2048).filter(|d| &d[1..6] == b"CD001" && d[0] != 255)
        else {
            break;
        };
        let escape = &descriptor[88..91];
        if descriptor[0] == 2 && (escape == b"%/@" || escape == b"%/C" || escape == b"%/E") {
            joliet = crate::field::utf16(&descriptor[40..72], be16);
            break;
        }
    }
    let label = match (joliet, ascii) {
        // Joliet holds 16 characters: the plain label has the rest of a longer one.
        (Some(wide), Some(plain)) if wide.chars().count() == 16 && plain.is_ascii() && plain.len() > 16 => {
            Some(wide + &plain[16..])
        }
        (wide, plain) => wide.or(plain),
    };
    let date = |at: usize| {
        let digits = &primary[at..at + 16];
        let known = digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|&d| d != b'0');
        known.then(|| {
            let d = String::from_utf8_lossy(digits);
            let [year, month, day] = [&d[..4], &d[4..6], &d[6..8]];
            format!("{year}-{month}-{day}-{}-{}-{}-{}", &d[8..10], &d[10..12], &d[12..14], &d[14..16])
        })
    };
    Found::new("iso9660", label, date(830).or_else(|| date(813)))
}

/// UDF (ECMA-167): a volume recognition sequence, an anchor, and the logical volume descriptor for the label.
pub(super) fn udf(source: &dyn BlockSource) -> Option<Found> {
    // Descriptors of the sequence are 2048 bytes apart, or a block of 4096.
    let recognized = |step: u64| {
        (0..DESCRIPTORS_MAX)
            .map_while(|n| {
                peek(source, 32768 + n * step, 6).and_then(|d| SEQUENCE.iter().position(|id| &d[1..6] == *id))
            })
            .any(|id| id < 2)
    };
    let blocks: &[u64] = match (recognized(2048), recognized(4096)) {
        (true, _) => &[512, 1024, 2048],
        (_, true) => &[4096],
        _ => return None,
    };
    for &block in blocks {
        let last = (source.size().0 / block).saturating_sub(1);
        for anchor in [256, last.saturating_sub(256), last, 512] {
            let tag = |at: u64, id: u16| {
                peek(source, at * block, 512).filter(|d| le16(d, 0) == id && u64::from(le32(d, 12)) == at)
            };
            let Some(descriptor) = tag(anchor, 2) else { continue };
            let count = u64::from(le32(&descriptor, 16)) / block;
            let start = u64::from(le32(&descriptor, 20));
            let (mut label, mut id) = (None, None);
            for at in (start..).take(usize::try_from(count.min(DESCRIPTORS_MAX)).unwrap_or(0)) {
                let Some(d) = peek(source, at * block, 512).filter(|d| u64::from(le32(d, 12)) == at) else { break };
                match le16(&d, 0) {
                    1 => id = id.or_else(|| set_uuid(&d[72..200])),
                    6 => label = label.or_else(|| dstring(&d[84..212])),
                    8 => break,
                    _ => {}
                }
            }
            return Found::new("udf", label, id);
        }
    }
    None
}

/// OSTA compressed Unicode: a byte that tells the width, then characters; the field's last byte is their length.
fn dstring(field: &[u8]) -> Option<String> {
    let (&length, field) = field.split_last()?;
    let field = field.get(..usize::from(length))?;
    let (&width, characters) = field.split_first()?;
    match width {
        8 | 254 => text(characters.iter().map(|&b| char::from(b)).collect::<String>().as_bytes()),
        16 | 255 => crate::field::utf16(characters, be16),
        _ => None,
    }
}

/// The unique part of the volume set's name as blkid makes a UUID of it: its first 16 hexadecimal digits, or the first
/// characters in hexadecimal where they are not.
fn set_uuid(field: &[u8]) -> Option<String> {
    let name = dstring(field)?;
    let bytes = name.as_bytes();
    if bytes.len() < 8 {
        return None;
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let digits = bytes.iter().take(16).take_while(|b| b.is_ascii_hexdigit()).count();
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().max(16), 0);
    Some(match digits {
        16 => name[..16].to_lowercase(),
        8..16 => name[..8].to_lowercase() + &hex(&padded[8..12]),
        _ => hex(&padded[..8]),
    })
}
