//! Reads an initramfs as the kernel does: archives in the "newc" format one behind the other, each plain or compressed with
//! zstd, with zeros between them.

use std::io::Read;

use crate::{Error, ErrorKind, Result};

const MAGIC: &[u8] = b"070701";
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const HEADER_LENGTH: usize = 110;
const NAME_LENGTH_MAX: usize = 4096;
/// The largest module of Debian's kernels has 7 MiB, the largest firmware file 30.
const FILE_LENGTH_MAX: usize = 64 << 20;
const ENTRIES_MAX: usize = 200_000;
/// All files of one initramfs together.
const UNPACKED_MAX: u64 = 2 << 30;
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;

/// Calls `file` with path and content of each regular file in `initramfs`, in order; a later one replaces an earlier.
/// Returns the unpacked size in bytes.
///
/// # Errors
/// [`ErrorKind::NoBootImage`] for anything else than such archives, and for more than the bounds above.
pub(crate) fn read_initramfs(initramfs: &[u8], file: &mut dyn FnMut(&str, Vec<u8>)) -> Result<u64> {
    let mut rest = initramfs;
    let mut budget = Budget { bytes: UNPACKED_MAX, entries: ENTRIES_MAX };
    let mut archives = 0;
    loop {
        let zeros = rest.iter().take_while(|&&byte| byte == 0).count();
        rest = &rest[zeros..];
        if rest.is_empty() && archives > 0 {
            return Ok(UNPACKED_MAX - budget.bytes);
        }
        archives += 1;
        if rest.starts_with(&ZSTD_MAGIC) {
            let damaged = |e: std::io::Error| wrong(&format!("its compression is damaged: {e}"));
            let mut decoder = zstd::Decoder::with_buffer(rest).map_err(damaged)?.single_frame();
            read_archive(&mut decoder, &mut budget, file)?;
            // What follows the last archive is zeros, if anything.
            let left = std::io::copy(&mut (&mut decoder).take(1 << 20), &mut std::io::sink()).map_err(damaged)?;
            if left == 1 << 20 {
                return Err(wrong("there is something behind its last file"));
            }
            rest = decoder.finish();
        } else if rest.starts_with(MAGIC) {
            read_archive(&mut rest, &mut budget, file)?;
        } else {
            return Err(wrong("expected an archive in the newc format, plain or compressed with zstd"));
        }
    }
}

struct Budget {
    bytes: u64,
    entries: usize,
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::NoBootImage, format!("no initramfs: {what}"))
}

/// Reads one archive up to its trailer.
fn read_archive(input: &mut dyn Read, budget: &mut Budget, file: &mut dyn FnMut(&str, Vec<u8>)) -> Result<()> {
    loop {
        let mut header = [0; HEADER_LENGTH];
        fill(input, &mut header)?;
        budget.entries = budget.entries.checked_sub(1).ok_or_else(|| wrong("it holds too many files"))?;
        let field = |number: usize| {
            let digits = header.get(6 + number * 8..14 + number * 8)?;
            u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        };
        let fields = (field(1), field(6), field(11));
        let (Some(mode), Some(size), Some(name_size)) = fields else {
            return Err(wrong("the header of a file is damaged"));
        };
        let (size, name_size) = (size as usize, name_size as usize);
        if !header.starts_with(MAGIC) || name_size == 0 || name_size > NAME_LENGTH_MAX || size > FILE_LENGTH_MAX {
            return Err(wrong("the header of a file is damaged"));
        }
        budget.bytes =
            budget.bytes.checked_sub(size as u64).ok_or_else(|| wrong("its files are too large together"))?;
        // Header and name end at a multiple of 4, and so does the content.
        let mut name = vec![0; (HEADER_LENGTH + name_size).next_multiple_of(4) - HEADER_LENGTH];
        fill(input, &mut name)?;
        let mut content = vec![0; size.next_multiple_of(4)];
        fill(input, &mut content)?;
        content.truncate(size);
        let name = String::from_utf8_lossy(&name[..name_size - 1]).into_owned();
        if name == "TRAILER!!!" {
            return Ok(());
        }
        if mode & S_IFMT == S_IFREG {
            file(&name, content);
        }
    }
}

fn fill(input: &mut dyn Read, bytes: &mut [u8]) -> Result<()> {
    input.read_exact(bytes).map_err(|_| wrong("it is cut off or damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio::Archive;

    fn archive(name: &str, content: &[u8]) -> Vec<u8> {
        let mut archive = Archive::new();
        archive.add_bytes(name, 0o644, content).unwrap();
        archive.to_bytes().unwrap()
    }

    fn read(initramfs: &[u8]) -> Result<Vec<(String, usize)>> {
        let mut found = Vec::new();
        read_initramfs(initramfs, &mut |name, content| found.push((name.to_owned(), content.len())))?;
        Ok(found)
    }

    #[test]
    fn archives_one_behind_the_other_are_read() {
        let mut bytes = zstd::encode_all(archive("lib/a", &[1; 1001]).as_slice(), 3).unwrap();
        bytes.resize(bytes.len().next_multiple_of(4) + 8, 0);
        bytes.extend(archive("b", b"xyz"));
        bytes.extend([0; 12]);
        assert_eq!(read(&bytes).unwrap(), [("lib/a".to_owned(), 1001), ("b".into(), 3)]);
    }

    #[test]
    fn what_is_no_initramfs_is_refused() {
        assert!(read(b"").is_err() && read(&[0; 64]).is_err() && read(b"#!/bin/sh").is_err());
        let whole = archive("a", &[7; 100]);
        for length in [1, 50, 111, whole.len() - 20] {
            assert_eq!(read(&whole[..length]).unwrap_err().kind, ErrorKind::NoBootImage, "{length}");
        }
        let packed = zstd::encode_all(whole.as_slice(), 3).unwrap();
        assert!(read(&packed[..packed.len() / 2]).is_err());
    }

    #[test]
    fn a_size_that_is_not_there_is_not_allocated() {
        let mut bytes = archive("a", b"x");
        let at = bytes.windows(6).position(|w| w == MAGIC).unwrap();
        bytes[at + 6 + 6 * 8..at + 6 + 7 * 8].copy_from_slice(b"ffffffff");
        assert!(read(&bytes).unwrap_err().context.contains("damaged"));
    }
}
