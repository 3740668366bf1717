//! The console's keymap: what the builder compiled of one of Debian's, given to the kernel. Serial ports have none.
//!
//! The file is what `loadkeys --bkeymap` writes: `bkeymap`, a byte for each of 256 tables that tells whether it follows,
//! then 128 keys of 16 bits for each that does, in this machine's byte order.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::{Error, Result};

/// Where the builder puts it.
const PATH: &str = "/vconverter.keymap";
const MAGIC: &[u8] = b"bkeymap";
const TABLES: usize = 256;
const KEYS: usize = 128;
/// All tables.
const LENGTH_MAX: u64 = (7 + TABLES + TABLES * KEYS * 2) as u64;

/// A table of the keymap: which modifiers it is for, and what its keys mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The kernel's number of the modifiers.
    pub modifiers: u8,
    /// What each key means, by the kernel's number of the key.
    pub keys: Vec<u16>,
}

/// Gives the keymap of the image to the kernel; `None` where there is none.
///
/// # Errors
/// A damaged file, or a machine without a screen.
pub fn load() -> Option<Result<()>> {
    let length = fs::metadata(PATH).ok()?.len();
    Some(read(length).and_then(|bytes| give(&parse_keymap(&bytes)?)))
}

fn read(length: u64) -> Result<Vec<u8>> {
    if length > LENGTH_MAX {
        return Err(Error::new(format!("keymap: expected at most {LENGTH_MAX} bytes, found {length}")));
    }
    fs::read(PATH).map_err(|e| Error::path("read", Path::new(PATH), e))
}

/// Reads the file's bytes.
///
/// # Errors
/// Anything else than a keymap.
pub fn parse_keymap(bytes: &[u8]) -> Result<Vec<Table>> {
    let wrong = || Error::new("keymap: expected a binary keymap of loadkeys");
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(wrong)?;
    let (present, mut rest) = rest.split_at_checked(TABLES).ok_or_else(wrong)?;
    let mut tables = Vec::new();
    for (modifiers, _) in (0..=u8::MAX).zip(present).filter(|(_, present)| **present != 0) {
        let (table, further) = rest.split_at_checked(2 * KEYS).ok_or_else(wrong)?;
        rest = further;
        let keys = table.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
        tables.push(Table { modifiers, keys });
    }
    if rest.is_empty() { Ok(tables) } else { Err(wrong()) }
}

/// One entry, as the kernel takes it (`struct kbentry`, ioctl_console(2)).
#[repr(C)]
struct Entry {
    table: u8,
    index: u8,
    value: u16,
}

#[allow(unsafe_code)]
fn give(tables: &[Table]) -> Result<()> {
    const KDSKBENT: libc::Ioctl = 0x4b47;
    let path = Path::new("/dev/tty0");
    let screen = File::open(path).map_err(|e| Error::path("open", path, e))?;
    let mut refused = 0;
    for table in tables {
        for (index, &value) in (0..=u8::MAX).zip(&table.keys) {
            let entry = Entry { table: table.modifiers, index, value };
            // SAFETY: KDSKBENT reads one kbentry from the address, which outlives the call.
            if unsafe { libc::ioctl(screen.as_raw_fd(), KDSKBENT, &raw const entry) } != 0 {
                refused += 1;
            }
        }
    }
    // The kernel keeps a few keys to itself.
    match refused < KEYS {
        true => Ok(()),
        false => Err(Error::io(format!("keymap: {refused} keys are refused"), std::io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keymap(tables: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((0..=u8::MAX).map(|n| u8::from(tables.contains(&n))));
        for table in tables {
            bytes.extend((0..128_u16).flat_map(|key| (key + 100 * u16::from(*table)).to_ne_bytes()));
        }
        bytes
    }

    #[test]
    fn a_keymap_is_read_by_its_tables() {
        let tables = parse_keymap(&keymap(&[0, 1, 12])).unwrap();
        assert_eq!(tables.iter().map(|table| table.modifiers).collect::<Vec<_>>(), [0, 1, 12]);
        assert_eq!((tables[2].keys.len(), tables[2].keys[21]), (128, 1_221));
        assert_eq!(parse_keymap(&keymap(&[])).unwrap(), []);
    }

    #[test]
    fn a_keymap_that_is_cut_or_goes_on_is_refused() {
        let whole = keymap(&[0, 4]);
        for cut in 0..whole.len() {
            assert!(parse_keymap(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(parse_keymap(&[&whole[..], b"x"].concat()).is_err());
        assert!(whole.len() as u64 <= LENGTH_MAX && keymap(&(0..=255).collect::<Vec<_>>()).len() as u64 == LENGTH_MAX);
    }
}
