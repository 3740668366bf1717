//! Files of ISO 9660 (ECMA-119), by their Joliet names where there are some, else by those of Rock Ridge (IEEE P1282).
//!
//! Names are found without regard to case where no name is exactly the one asked for: drivers are written on Windows, where
//! that is the same name. Refused: interleaved files, and what lies outside of the medium.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use block::BlockSource;
use machine::{ByteCount, ByteOffset};

use super::{DIRECTORY_MAX, Entry, FileKind, Metadata, Node, Run, Tree};
use crate::error::{Error, ErrorKind, Result};
use crate::field::{be16, le16, le32, peek, utf16};

/// Volume descriptors that are read.
const DESCRIPTORS_MAX: u64 = 64;
/// Extents of one file.
const EXTENTS_MAX: usize = 4096;
/// Where a volume descriptor has the record of its root.
const ROOT_RECORD: u64 = 156;
/// Fixed part of a directory record.
const RECORD_HEADER: usize = 33;

const DIRECTORY: u8 = 0x02;
/// The file goes on in the next record.
const CONTINUED: u8 = 0x80;

/// The files of a medium. A node is the place of its directory record.
pub(super) struct IsoFiles {
    source: Arc<dyn BlockSource>,
    root: Node,
    block: u64,
    joliet: bool,
}

/// A directory record.
struct Record {
    place: u64,
    length: u64,
    start: u64,
    size: u64,
    flags: u8,
    bytes: Vec<u8>,
}

impl IsoFiles {
    /// The files of a medium with ISO 9660 on it; `None` where there is none.
    pub(super) fn open(source: &Arc<dyn BlockSource>) -> Result<Option<Self>> {
        let (mut primary, mut joliet) = (None, None);
        for n in 0..DESCRIPTORS_MAX {
            let at = 32768 + n * 2048;
            let Some(descriptor) = peek(&**source, at, 2048).filter(|d| &d[1..6] == b"CD001") else { break };
            let found = (at + ROOT_RECORD, u64::from(le16(&descriptor, 128)));
            match descriptor[0] {
                1 => primary = primary.or(Some(found)),
                2 if [&b"%/@"[..], b"%/C", b"%/E"].contains(&&descriptor[88..91]) => joliet = joliet.or(Some(found)),
                255 => break,
                _ => {}
            }
        }
        let Some((root, block)) = joliet.or(primary).filter(|_| primary.is_some()) else { return Ok(None) };
        if !matches!(block, 512 | 1024 | 2048) {
            return Err(Error::malformed(root, format!("iso9660: blocks of {block} bytes")));
        }
        Ok(Some(Self { source: source.clone(), root: Node(root), block, joliet: joliet.is_some() }))
    }

    fn record(&self, place: u64) -> Result<Option<Record>> {
        let wrong = |what: &str| Error::malformed(place, format!("iso9660: {what}"));
        let length = peek(&*self.source, place, 1).ok_or_else(|| wrong("no readable directory record"))?[0];
        if length == 0 {
            return Ok(None);
        }
        let bytes =
            peek(&*self.source, place, usize::from(length)).ok_or_else(|| wrong("no readable directory record"))?;
        if bytes.len() <= RECORD_HEADER || bytes.len() < RECORD_HEADER + usize::from(bytes[32]) {
            return Err(wrong("a directory record that is too short for its name"));
        }
        if bytes[26] != 0 || bytes[27] != 0 {
            return Err(Error::new(ErrorKind::Unsupported, "iso9660: an interleaved file"));
        }
        let first = u64::from(le32(&bytes, 2)) + u64::from(bytes[1]);
        let (start, size) = (first * self.block, u64::from(le32(&bytes, 10)));
        Ok(Some(Record { place, length: u64::from(length), start, size, flags: bytes[25], bytes }))
    }

    /// The next record of a directory: a record never crosses the end of a block.
    fn next(&self, place: u64, end: u64) -> Result<Option<Record>> {
        let mut place = place;
        while place < end {
            if let Some(record) = self.record(place)? {
                return Ok(Some(record));
            }
            place = (place / self.block + 1) * self.block;
        }
        Ok(None)
    }

    /// Where a file lies.
    fn pieces(&self, node: Node) -> Result<Vec<(u64, u64)>> {
        let mut pieces = Vec::new();
        let mut place = node.0;
        loop {
            // The next record of the same file is the next one there is.
            let Some(record) = self.next(place, place.saturating_add(2 * self.block))? else {
                return Err(Error::malformed(place, "iso9660: a file that should go on here"));
            };
            pieces.push((record.start, record.size));
            if record.flags & CONTINUED == 0 {
                return Ok(pieces);
            }
            if pieces.len() == EXTENTS_MAX {
                return Err(Error::malformed(node.0, format!("iso9660: a file of more than {EXTENTS_MAX} pieces")));
            }
            place = record.place + record.length;
        }
    }

    /// Names and records of a directory, without itself and the one above it.
    fn records(&self, directory: Node) -> Result<Vec<(Vec<u8>, Record)>> {
        let mut records = Vec::new();
        for (start, size) in self.pieces(directory)? {
            if size > DIRECTORY_MAX.0 || start.saturating_add(size) > self.source.size().0 {
                return Err(Error::malformed(directory.0, format!("iso9660: a directory of {size} bytes at {start}")));
            }
            let mut continued = false;
            let mut place = start;
            while let Some(record) = self.next(place, start + size)? {
                place = record.place + record.length;
                let is_first = !continued;
                continued = record.flags & CONTINUED != 0;
                match self.name(&record) {
                    Some(name) if is_first => records.push((name, record)),
                    _ => {}
                }
            }
        }
        Ok(records)
    }

    /// A record's name; `None` for the directory itself, the one above it, and names that no path can hold.
    fn name(&self, record: &Record) -> Option<Vec<u8>> {
        let length = usize::from(record.bytes[32]);
        let plain = &record.bytes[RECORD_HEADER..RECORD_HEADER + length];
        if plain == [0] || plain == [1] {
            return None;
        }
        let name = if self.joliet {
            without_version(&utf16(plain, be16)?).as_bytes().to_vec()
        } else {
            // The system use area begins at an even place.
            let area = record.bytes.get(RECORD_HEADER + length + (length + 1) % 2..).unwrap_or(&[]);
            rock_ridge_name(area)
                .unwrap_or_else(|| without_version(&String::from_utf8_lossy(plain)).as_bytes().to_vec())
        };
        let usable = !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0);
        usable.then_some(name)
    }
}

/// `README.TXT;1` without its version, and without the dot of a name that has no extension.
fn without_version(name: &str) -> &str {
    let name = match name.rsplit_once(';') {
        Some((name, version)) if version.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => name,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// The name that the `NM` entries of a system use area have together.
fn rock_ridge_name(mut area: &[u8]) -> Option<Vec<u8>> {
    let mut name: Option<Vec<u8>> = None;
    while let [a, b, length, _, ..] = *area {
        if length < 4 {
            break;
        }
        let (entry, rest) = area.split_at_checked(usize::from(length))?;
        // Flags 2 and 4 are for the directory itself and the one above it.
        if [a, b] == *b"NM" && entry.len() >= 5 && entry[4] & 6 == 0 {
            name.get_or_insert_default().extend(&entry[5..]);
        }
        area = rest;
    }
    name
}

impl Tree for IsoFiles {
    fn root(&self) -> Node {
        self.root
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        let record = self.record(node.0)?.ok_or_else(|| Error::malformed(node.0, "iso9660: no directory record"))?;
        let kind = if record.flags & DIRECTORY != 0 { FileKind::Directory } else { FileKind::Regular };
        let size = self.pieces(node)?.iter().map(|(_, size)| size).sum();
        Ok(Metadata { kind, mode: 0o555, uid: 0, gid: 0, size: ByteCount(size) })
    }

    fn list(&self, directory: Node) -> Result<Vec<Entry>> {
        let entry = |(name, record): (Vec<u8>, Record)| Entry {
            name: OsString::from_vec(name),
            kind: if record.flags & DIRECTORY != 0 { FileKind::Directory } else { FileKind::Regular },
        };
        Ok(self.records(directory)?.into_iter().map(entry).collect())
    }

    fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>> {
        let records = self.records(directory)?;
        let exact = records.iter().find(|(own, _)| own == name);
        let any = || records.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        Ok(exact.or_else(any).map(|(_, record)| Node(record.place)))
    }

    fn read(&self, node: Node, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        let mut skip = offset;
        for (start, size) in self.pieces(node)? {
            if skip >= size {
                skip -= size;
                continue;
            }
            let part = usize::try_from(size - skip).unwrap_or(usize::MAX).min(length - filled);
            let target = &mut bytes[filled..filled + part];
            self.source.read_at(ByteOffset(start + skip), target).map_err(|e| Error::read("iso9660: a file", e))?;
            filled += part;
            skip = 0;
        }
        if filled < length {
            return Err(Error::malformed(node.0, "iso9660: a file that is shorter than its size"));
        }
        Ok(bytes)
    }

    fn read_link(&self, node: Node) -> Result<Vec<u8>> {
        let context = format!("iso9660: no link at {}", ByteOffset(node.0));
        Err(Error::new(ErrorKind::Unsupported, context))
    }

    fn runs(&self, _node: Node) -> Result<Option<Vec<Run>>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_rock_ridge_are_taken_off_names() {
        assert_eq!(without_version("VIOSTOR.INF;1"), "VIOSTOR.INF");
        assert_eq!(without_version("README.;1"), "README");
        assert_eq!(without_version("a;b"), "a;b");
        let area = b"RR\x05\x01\x09NM\x09\x01\x01viosNM\x0c\x01\x00tor.infxx";
        assert_eq!(rock_ridge_name(area), Some(b"viostor.inf".to_vec()));
        assert_eq!(rock_ridge_name(b"NM\x05\x01\x02"), None);
        assert_eq!(rock_ridge_name(b"NM\xff\x01\x00a"), None);
        assert_eq!(rock_ridge_name(b"NM\x00\x01"), None);
    }
}
