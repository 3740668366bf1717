//! Compression of a frame's content.

use std::io;

use crate::frame::CONTENT_BYTES_MAX;
use crate::{Error, ErrorKind, Result};

/// zstd level: the fastest ordinary one.
const LEVEL: i32 = 1;

/// Compresses contents one by one with one reused context.
pub struct Compressor {
    context: zstd::bulk::Compressor<'static>,
}

/// Decompresses payloads one by one with one reused context.
pub struct Decompressor {
    context: zstd::bulk::Decompressor<'static>,
}

impl Compressor {
    /// A compressor.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`] never; out of memory as [`ErrorKind::Malformed`].
    pub fn new() -> Result<Self> {
        Ok(Self { context: zstd::bulk::Compressor::new(LEVEL).map_err(|e| unusable(&e))? })
    }

    /// Compresses `content` into `payload`, replacing what it holds. False, with `payload` empty, if that gains less
    /// than a tenth: then it is better stored.
    pub fn compress(&mut self, content: &[u8], payload: &mut Vec<u8>) -> bool {
        payload.clear();
        let worth = content.len() - content.len() / 10;
        payload.reserve(worth);
        // Too little room is an error of zstd's, and the answer to our question.
        match self.context.compress_to_buffer(content, payload) {
            Ok(length) if length <= worth => true,
            _ => {
                payload.clear();
                false
            }
        }
    }
}

impl Decompressor {
    /// A decompressor.
    ///
    /// # Errors
    /// Out of memory, as [`ErrorKind::Malformed`].
    pub fn new() -> Result<Self> {
        Ok(Self { context: zstd::bulk::Decompressor::new().map_err(|e| unusable(&e))? })
    }

    /// Decompresses `payload` into exactly `content`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is not zstd or holds more or less.
    pub fn decompress(&mut self, payload: &[u8], content: &mut [u8]) -> Result<()> {
        debug_assert!(content.len() <= CONTENT_BYTES_MAX);
        let expected = content.len();
        match self.context.decompress_to_buffer(payload, content) {
            Ok(found) if found == expected => Ok(()),
            Ok(found) => {
                let text = format!("compressed frame: expected {expected} bytes, found {found}");
                Err(Error::new(ErrorKind::Corrupt, text))
            }
            Err(error) => Err(Error::new(ErrorKind::Corrupt, "compressed frame cannot be decompressed").because(error)),
        }
    }
}

fn unusable(error: &io::Error) -> Error {
    Error::malformed(format!("zstd cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_shrinks_and_noise_is_stored() {
        let mut compressor = Compressor::new().unwrap();
        let mut payload = Vec::new();
        let text: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7).to_string().into_bytes()).collect();
        assert!(compressor.compress(&text, &mut payload));
        let mut back = vec![0; text.len()];
        Decompressor::new().unwrap().decompress(&payload, &mut back).unwrap();
        assert_eq!(back, text);

        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .take(100_000)
        .collect();
        assert!(!compressor.compress(&noise, &mut payload));
    }

    #[test]
    fn a_payload_that_holds_more_or_less_than_announced_is_corrupt() {
        let mut payload = Vec::new();
        assert!(Compressor::new().unwrap().compress(&[7; 5000], &mut payload));
        let mut decompressor = Decompressor::new().unwrap();
        for length in [0, 4999, 5001] {
            assert_eq!(decompressor.decompress(&payload, &mut vec![0; length]).unwrap_err().kind, ErrorKind::Corrupt);
        }
        assert_eq!(decompressor.decompress(b"no zstd", &mut [0; 10]).unwrap_err().kind, ErrorKind::Corrupt);
    }
}
