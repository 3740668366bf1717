//! A screen as pixels, to be compared with an earlier one: PPM (P6, netpbm's `ppm(5)`), as QEMU's `screendump` writes it.

use crate::{Error, ErrorKind, Result};

/// Pixels of a screen; more than an 8K one has is no screen of a PC.
const PIXELS_MAX: usize = 64 << 20;

/// A blinking cursor is no change: it fills one cell of text, of 9 × 16 pixels at most.
const CURSOR_PIXELS: usize = 9 * 16;

/// What a screen shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// Three bytes each: red, green, blue.
    pixels: Vec<u8>,
}

impl Picture {
    /// Reads a PPM with 8 bits a colour. Errors: [`ErrorKind::Qmp`] for anything else.
    pub(crate) fn parse_ppm(bytes: &[u8]) -> Result<Self> {
        let broken = |found: &str| Error::new(ErrorKind::Qmp, format!("screendump: expected a PPM, found {found}"));
        let mut rest = bytes;
        let mut word = || -> Option<&[u8]> {
            let start = rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
            let length = rest[start..].iter().position(u8::is_ascii_whitespace)?;
            let word = &rest[start..start + length];
            rest = &rest[start + length + 1..];
            Some(word)
        };
        if word() != Some(b"P6") {
            return Err(broken("another beginning"));
        }
        let mut number = || std::str::from_utf8(word()?).ok()?.parse::<usize>().ok();
        let (Some(width), Some(height), Some(255)) = (number(), number(), number()) else {
            return Err(broken("no size or another depth"));
        };
        match width.checked_mul(height) {
            Some(pixels) if pixels <= PIXELS_MAX && rest.len() == pixels * 3 => {
                Ok(Self { width, height, pixels: rest.to_vec() })
            }
            _ => Err(broken(&format!("{} bytes for {width} × {height} pixels", rest.len()))),
        }
    }

    /// Whether both show the same, a blinking cursor aside.
    pub fn is_like(&self, other: &Self) -> bool {
        let different = || self.pixels.chunks(3).zip(other.pixels.chunks(3)).filter(|(a, b)| a != b);
        (self.width, self.height) == (other.width, other.height) && different().nth(CURSOR_PIXELS).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(changed: usize) -> Picture {
        let mut bytes = b"P6\n40 20\n255\n".to_vec();
        bytes.extend((0..800).flat_map(|pixel| [u8::from(pixel < changed); 3]));
        Picture::parse_ppm(&bytes).unwrap()
    }

    #[test]
    fn a_cursor_is_no_change_and_more_is() {
        assert!(picture(0).is_like(&picture(CURSOR_PIXELS)));
        assert!(!picture(0).is_like(&picture(CURSOR_PIXELS + 1)));
        assert!(!picture(0).is_like(&Picture { width: 20, height: 40, ..picture(0) }));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for bytes in
            [&b""[..], b"P5 1 1 255\n123", b"P6 1 1 65535\n123", b"P6 2 1 255\n123", b"P6 1 1 255", b"P6\n9 -1 255\n"]
        {
            assert_eq!(Picture::parse_ppm(bytes).unwrap_err().kind, ErrorKind::Qmp);
        }
        let huge = format!("P6 {} {} 255\n", usize::MAX, 2);
        assert_eq!(Picture::parse_ppm(huge.as_bytes()).unwrap_err().kind, ErrorKind::Qmp);
    }
}
