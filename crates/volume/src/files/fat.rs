//! Files of FAT12, FAT16 and FAT32, with long names. Names are found without regard to case, as FAT has it.
//!
//! Refused: chains that loop, leave the filesystem or are shorter than the file's size.

use std::ffi::OsString;
use std::sync::Arc;

use block::BlockSource;
use machine::ByteCount;

use super::{DIRECTORY_MAX, Entry, FileKind, Metadata, Node, Run, Tree};
use crate::error::{Error, ErrorKind, Result};
use crate::fat::{FatKind, Geometry};
use crate::field::{le16, le32, peek};

const ATTR_VOLUME_ID: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_LONG_NAME: u8 = 0x0f;

/// The files of a FAT filesystem. A node is the place of its directory entry; the root has none and is 0.
pub(super) struct FatFiles {
    source: Arc<dyn BlockSource>,
    geometry: Geometry,
}

/// A directory entry with its long name.
struct Record {
    name: String,
    short: String,
    place: u64,
    attributes: u8,
}

impl FatFiles {
    pub(super) fn open(source: Arc<dyn BlockSource>, geometry: Geometry) -> Result<Self> {
        if geometry.total_bytes > source.size().0 {
            return Err(Error::malformed(0, "vfat: it ends beyond its volume"));
        }
        Ok(Self { source, geometry })
    }

    fn entry(&self, node: Node) -> Result<Vec<u8>> {
        peek(&*self.source, node.0, 32).ok_or_else(|| Error::malformed(node.0, "vfat: no readable directory entry"))
    }

    /// Places and lengths of the pieces that a chain is made of, up to `limit` bytes.
    fn chain(&self, first: u32, limit: u64) -> Result<Vec<(u64, u64)>> {
        let mut pieces = Vec::new();
        let mut cluster = Some(first);
        let mut length = 0;
        while let Some(n) = cluster.filter(|_| length < limit) {
            // A chain without loop visits each cluster once.
            let at = self.geometry.cluster_offset(n).filter(|_| pieces.len() < self.geometry.clusters as usize);
            let at =
                at.ok_or_else(|| Error::malformed(self.geometry.fat_start, format!("vfat: chain at cluster {n}")))?;
            pieces.push((at, self.geometry.cluster_bytes));
            length += self.geometry.cluster_bytes;
            cluster = self.geometry.next_cluster(&*self.source, n);
        }
        Ok(pieces)
    }

    fn pieces(&self, node: Node, limit: u64) -> Result<Vec<(u64, u64)>> {
        let first = if node == self.root() {
            if self.geometry.kind != FatKind::Fat32 {
                return Ok(vec![(self.geometry.root_start, self.geometry.data_start - self.geometry.root_start)]);
            }
            self.geometry.root_cluster
        } else {
            let entry = self.entry(node)?;
            let high = if self.geometry.kind == FatKind::Fat32 { u32::from(le16(&entry, 20)) << 16 } else { 0 };
            u32::from(le16(&entry, 26)) | high
        };
        if first == 0 { Ok(Vec::new()) } else { self.chain(first, limit) }
    }

    fn records(&self, directory: Node) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut long: Vec<u16> = Vec::new();
        for (at, length) in self.pieces(directory, DIRECTORY_MAX.0)? {
            let bytes = usize::try_from(length).ok().and_then(|length| peek(&*self.source, at, length));
            let bytes = bytes.ok_or_else(|| Error::malformed(at, "vfat: no readable directory there"))?;
            for (entry, place) in bytes.chunks_exact(32).zip((at..).step_by(32)) {
                match entry[0] {
                    0 => return Ok(records),
                    0xe5 => long.clear(),
                    _ if entry[11] & 0x3f == ATTR_LONG_NAME => {
                        // Pieces of a long name come last one first, 13 characters each.
                        if entry[0] & 0x40 != 0 {
                            long.clear();
                        }
                        let units = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30].map(|at| le16(entry, at));
                        if long.len() < 20 * 13 {
                            long.splice(0..0, units);
                        }
                    }
                    _ if entry[11] & ATTR_VOLUME_ID != 0 => long.clear(),
                    _ => {
                        let short = short_name(entry);
                        let end = long.iter().position(|&u| u == 0 || u == 0xffff).unwrap_or(long.len());
                        let name = match end {
                            0 => short.clone(),
                            _ => String::from_utf16_lossy(&long[..end]),
                        };
                        long.clear();
                        if short != "." && short != ".." {
                            records.push(Record { name, short, place, attributes: entry[11] });
                        }
                    }
                }
            }
        }
        Ok(records)
    }
}

/// A name of eight and three characters; lower case where the flags that Windows NT introduced say so.
fn short_name(entry: &[u8]) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text: String = bytes.iter().map(|&b| if b.is_ascii() { char::from(b) } else { '\u{fffd}' }).collect();
        let text = text.trim_end().to_owned();
        if lower { text.to_ascii_lowercase() } else { text }
    };
    let (base, extension) = (part(&entry[..8], entry[12] & 8 != 0), part(&entry[8..11], entry[12] & 16 != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

impl Tree for FatFiles {
    fn root(&self) -> Node {
        Node(0)
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        let (directory, size) = if node == self.root() {
            (true, 0)
        } else {
            let entry = self.entry(node)?;
            (entry[11] & ATTR_DIRECTORY != 0, le32(&entry, 28))
        };
        Ok(Metadata {
            kind: if directory { FileKind::Directory } else { FileKind::Regular },
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: ByteCount(if directory { 0 } else { size.into() }),
        })
    }

    fn list(&self, directory: Node) -> Result<Vec<Entry>> {
        let kind = |r: &Record| match r.attributes & ATTR_DIRECTORY {
            0 => FileKind::Regular,
            _ => FileKind::Directory,
        };
        Ok(self.records(directory)?.iter().map(|r| Entry { name: OsString::from(&r.name), kind: kind(r) }).collect())
    }

    fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>> {
        let name = String::from_utf8_lossy(name).to_lowercase();
        let records = self.records(directory)?;
        let found = records.iter().find(|r| r.name.to_lowercase() == name || r.short.to_lowercase() == name);
        Ok(found.map(|r| Node(r.place)))
    }

    fn read(&self, node: Node, offset: u64, length: usize) -> Result<Vec<u8>> {
        let end = offset.saturating_add(length as u64);
        let mut contents = Vec::new();
        let mut position = 0;
        for (at, bytes) in self.pieces(node, end)? {
            let (from, until) = (position.max(offset), (position + bytes).min(end));
            if from < until {
                let part = usize::try_from(until - from).ok();
                let part = part.and_then(|length| peek(&*self.source, at + (from - position), length));
                contents.extend(part.ok_or_else(|| Error::malformed(at, "vfat: no readable cluster there"))?);
            }
            position += bytes;
        }
        if contents.len() == length {
            Ok(contents)
        } else {
            Err(Error::malformed(node.0, format!("vfat: a chain of {position} bytes ends before byte {end}")))
        }
    }

    fn runs(&self, _node: Node) -> Result<Option<Vec<Run>>> {
        // Linux swaps to no file on FAT.
        Ok(None)
    }

    fn read_link(&self, _node: Node) -> Result<Vec<u8>> {
        Err(Error::new(ErrorKind::Unsupported, "vfat has no links"))
    }
}
