//! Fields of on-disk structures: fixed-width integers, identifiers and text at byte positions. Nothing here panics; a
//! field outside of its structure reads as zero, so structures are cut to their full length before they are read.

use block::BlockSource;
use machine::ByteOffset;

/// `N` bytes at `at`, zeros where `bytes` is shorter.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    if let Some(found) = at.checked_add(N).and_then(|end| bytes.get(at..end)) {
        field.copy_from_slice(found);
    }
    field
}

/// Little-endian 16-bit integer.
pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

/// Little-endian 32-bit integer.
pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

/// Little-endian 64-bit integer.
pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// Big-endian 16-bit integer.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

/// Big-endian 32-bit integer.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

/// Big-endian 64-bit integer.
pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(bytes, at))
}

/// A UUID of 16 bytes in printing order; `None` when it is all zeros, as blkid leaves such a one out.
pub(crate) fn uuid(bytes: &[u8], at: usize) -> Option<String> {
    let id: [u8; 16] = array(bytes, at);
    (id != [0; 16]).then(|| {
        let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    })
}

/// A GUID as UEFI stores it (first three fields little-endian), lower case.
pub(crate) fn guid(bytes: &[u8], at: usize) -> String {
    let tail: String = array::<8>(bytes, at + 8).iter().map(|b| format!("{b:02x}")).collect();
    let (first, second, third) = (le32(bytes, at), le16(bytes, at + 4), le16(bytes, at + 6));
    format!("{first:08x}-{second:04x}-{third:04x}-{}-{}", &tail[..4], &tail[4..])
}

/// Text up to the first zero byte, without the blanks at its end; `None` when nothing is left.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// UTF-16 text up to the first zero unit; `None` when nothing is left.
pub(crate) fn utf16(bytes: &[u8], unit: fn(&[u8], usize) -> u16) -> Option<String> {
    let units: Vec<u16> = (0..bytes.len() / 2).map(|i| unit(bytes, i * 2)).take_while(|&u| u != 0).collect();
    let text = String::from_utf16_lossy(&units);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// `length` bytes of `source` at `offset`; `None` where it is shorter or cannot be read there, so that a probe of what
/// is not there finds nothing. Callers bound `length`.
pub(crate) fn peek(source: &dyn BlockSource, offset: u64, length: usize) -> Option<Vec<u8>> {
    if offset.checked_add(length as u64)? > source.size().0 {
        return None;
    }
    let mut bytes = vec![0; length];
    source.read_at(ByteOffset(offset), &mut bytes).ok()?;
    Some(bytes)
}
