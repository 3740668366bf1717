//! Keys from the bytes that a terminal sends for them (console_codes(4), ECMA-48; xterm's and VT220's sequences).

/// A key of a keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A printable ASCII character.
    Character(char),
    /// Return or Enter.
    Enter,
    /// Escape, or Control-C.
    Escape,
    /// Deletes to the left.
    Backspace,
    /// Empties the line (Control-U).
    Clear,
    /// To the next field.
    Tab,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow to the left.
    Left,
    /// Arrow to the right.
    Right,
    /// F1 to F12.
    Function(u8),
}

/// Longest sequence that is looked at.
const SEQUENCE_MAX: usize = 8;

/// Puts the bytes of one terminal together.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// Bytes behind ESC; `None` outside a sequence.
    sequence: Option<Vec<u8>>,
}

impl Decoder {
    /// Takes a byte; a key, when one is complete.
    pub fn take(&mut self, byte: u8) -> Option<Key> {
        let Some(sequence) = &mut self.sequence else {
            return match byte {
                27 => {
                    self.sequence = Some(Vec::new());
                    None
                }
                b'\r' | b'\n' => Some(Key::Enter),
                b'\t' => Some(Key::Tab),
                3 => Some(Key::Escape),
                8 | 127 => Some(Key::Backspace),
                21 => Some(Key::Clear),
                b' '..=b'~' => Some(Key::Character(char::from(byte))),
                _ => None,
            };
        };
        if byte == 27 {
            // Escape, and the beginning of something else.
            sequence.clear();
            return Some(Key::Escape);
        }
        // Of a sequence without end, what is too long is passed over up to its last byte.
        if sequence.len() < SEQUENCE_MAX {
            sequence.push(byte);
        }
        let is_over = match sequence.as_slice() {
            // The Linux console's F1 to F5 are ESC [ [ A to E.
            [b'[' | b'O'] | [b'[', b'['] => false,
            [b'[' | b'O', ..] => byte.is_ascii_alphabetic() || byte == b'~',
            _ => true,
        };
        if !is_over {
            return None;
        }
        let sequence = self.sequence.take().unwrap_or_default();
        key(&sequence)
    }

    /// Nothing more came for a while: an ESC that stands alone is the key.
    pub fn pause(&mut self) -> Option<Key> {
        self.sequence.take().filter(Vec::is_empty).map(|_| Key::Escape)
    }

    /// Whether more bytes decide what it is.
    pub fn is_waiting(&self) -> bool {
        self.sequence.is_some()
    }
}

fn key(sequence: &[u8]) -> Option<Key> {
    match sequence {
        [b'[' | b'O', b'A'] => Some(Key::Up),
        [b'[' | b'O', b'B'] => Some(Key::Down),
        [b'[' | b'O', b'C'] => Some(Key::Right),
        [b'[' | b'O', b'D'] => Some(Key::Left),
        [b'O', f @ b'P'..=b'S'] => Some(Key::Function(f - b'P' + 1)),
        [b'[', b'[', f @ b'A'..=b'E'] => Some(Key::Function(f - b'A' + 1)),
        [b'[', digits @ .., b'~'] => {
            let number: u8 = std::str::from_utf8(digits).ok()?.parse().ok()?;
            // VT220: 11 to 15, 17 to 21, 23 and 24.
            match number {
                11..=15 => Some(Key::Function(number - 10)),
                17..=21 => Some(Key::Function(number - 11)),
                23 | 24 => Some(Key::Function(number - 12)),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        let mut keys: Vec<Key> = bytes.iter().filter_map(|&byte| decoder.take(byte)).collect();
        keys.extend(decoder.pause());
        keys
    }

    #[test]
    fn arrows_and_function_keys_of_every_terminal_are_known() {
        assert_eq!(keys(b"\x1b[A\x1b[B\x1bOC\x1bOD"), [Key::Up, Key::Down, Key::Right, Key::Left]);
        assert_eq!(keys(b"\x1bOP\x1b[[A\x1b[11~\x1b[21~\x1b[24~"), [1, 1, 1, 10, 12].map(Key::Function));
        assert_eq!(keys(b"a\x7f\r\t\x15"), [Key::Character('a'), Key::Backspace, Key::Enter, Key::Tab, Key::Clear]);
    }

    #[test]
    fn an_escape_that_stands_alone_is_a_key() {
        assert_eq!(keys(b"\x1b"), [Key::Escape]);
        assert_eq!(keys(b"\x1b\x1b[A"), [Key::Escape, Key::Up]);
        assert_eq!(keys(b"\x1b["), [], "half a sequence is nothing");
    }

    #[test]
    fn what_is_unknown_or_endless_is_nothing() {
        assert_eq!(keys(b"\x1b[3;5~x"), [Key::Character('x')]);
        assert_eq!(keys(b"\x1b[999999999999999Ax"), [Key::Character('x')]);
        assert_eq!(keys(&[0xff, 0, 1, b'x']), [Key::Character('x')]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            keys(&bytes);
        }
    }
}
