//! LZNT1 ([MS-XCA] section 2.5), by which files are compressed in units: chunks of up to 4096 bytes, each with a head that tells
//! its length and whether it is compressed; in a compressed one a byte of flags tells for each of eight items whether it
//! is a byte or a pair of distance and length, whose widths change as the chunk grows.

use crate::field::le16;

const CHUNK: usize = 4096;
const FLAG_COMPRESSED: u16 = 0x8000;
/// Shortest repetition.
const LENGTH_MIN: usize = 3;

/// The `length` bytes that `stored` holds; what is not in it is zeros. `None` where it is no LZNT1.
pub(crate) fn decompress(stored: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    let mut rest = stored;
    while bytes.len() < length && rest.len() >= 2 {
        let head = le16(rest, 0);
        if head == 0 {
            break;
        }
        let size = usize::from(head & 0xfff) + 1;
        let chunk = rest.get(2..2 + size)?;
        rest = &rest[2 + size..];
        // Each chunk but the last stands for as many bytes, whatever it holds.
        let start = bytes.len();
        if head & FLAG_COMPRESSED == 0 {
            bytes.extend_from_slice(chunk);
        } else {
            decompress_chunk(chunk, &mut bytes)?;
        }
        if bytes.len() - start > CHUNK {
            return None;
        }
        if bytes.len() < length && !rest.is_empty() && le16(rest, 0) != 0 {
            bytes.resize(start + CHUNK, 0);
        }
    }
    bytes.resize(length, 0);
    Some(bytes)
}

fn decompress_chunk(chunk: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let start = bytes.len();
    let mut rest = chunk.iter();
    while let Some(&flags) = rest.next() {
        for item in 0..8 {
            if flags >> item & 1 == 0 {
                match rest.next() {
                    Some(&byte) => bytes.push(byte),
                    None => return Some(()),
                }
                continue;
            }
            let Some(&low) = rest.next() else { return Some(()) };
            let pair = usize::from(u16::from_le_bytes([low, *rest.next()?]));
            let done = bytes.len() - start;
            // The distance has as many bits as the place in the chunk needs, but at least four.
            let distance_bits = (usize::BITS - done.saturating_sub(1).leading_zeros()).clamp(4, 12);
            let length_bits = 16 - distance_bits;
            let distance = (pair >> length_bits) + 1;
            let length = (pair & ((1 << length_bits) - 1)) + LENGTH_MIN;
            if distance > done || done + length > CHUNK {
                return None;
            }
            for _ in 0..length {
                bytes.push(bytes[bytes.len() - distance]);
            }
        }
        if bytes.len() - start > CHUNK {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of [MS-XCA] section 3.3.
    #[test]
    fn the_specifications_example_is_read() {
        let stored = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2, 0x47, 0x01, 0xa0, 0x45,
            0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0, 0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4,
            0x02, 0x4a, 0x44, 0xef, 0x03, 0x58, 0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00,
            0x04, 0x01, 0x18, 0x90, 0x00,
        ];
        let expected = "F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G \
                        F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        assert_eq!(String::from_utf8(decompress(&stored, expected.len()).unwrap()).unwrap(), expected);
        assert_eq!(decompress(&stored, 200).unwrap().len(), 200);
    }

    #[test]
    fn distances_before_the_chunk_and_torn_ends_are_refused() {
        assert_eq!(decompress(&[2, 0xb0, 1, 0, 0], 10), None);
        assert_eq!(decompress(&[9, 0xb0, 0, b'a'], 10), None);
        assert_eq!(decompress(&[0, 0], 3).unwrap(), [0; 3]);
        assert_eq!(decompress(&[3, 0x30, 1, 2, 3, 4], 6).unwrap(), [1, 2, 3, 4, 0, 0]);
    }
}
