//! Files of ext2/3/4: inodes, extent trees, indirect blocks, directories, inline data.
//!
//! Refused: encrypted files and names, extent trees that are not ascending, directories whose records do not fit their
//! blocks. Directories are read from front to back: the hash tree lies in records that look empty.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};

use block::BlockSource;
use machine::ByteCount;

use super::{DIRECTORY_MAX, Entry, FileKind, LINK_MAX, Metadata, Node, Run, Tree};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{Geometry, Superblock};
use crate::field::{le16, le32, peek};

const ROOT_INODE: u64 = 2;
const FLAG_ENCRYPTED: u32 = 0x800;
const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_INLINE_DATA: u32 = 0x1000_0000;
/// Extents longer than this are allocated and never written: zeros.
const EXTENT_LENGTH_MAX: u32 = 32768;
/// Depth of an extent tree.
const DEPTH_MAX: u16 = 5;
/// Blocks of an extent tree or of pointers that are read for one file.
const NODES_MAX: usize = 1 << 20;
/// Pieces of a file whose places are told.
const RUNS_MAX: usize = 1 << 16;
/// Directories whose entries are kept, so that many files can be found by their paths quickly.
const DIRECTORIES_KEPT: usize = 64;

/// The files of an ext2/3/4 filesystem.
pub(super) struct ExtFiles {
    source: Arc<dyn BlockSource>,
    superblock: Superblock,
    geometry: Geometry,
    directories: Mutex<Vec<(u64, Arc<Vec<Record>>)>>,
}

/// A directory entry.
#[derive(Clone, Debug)]
struct Record {
    inode: u64,
    /// File type, if the filesystem keeps it in directories.
    kind: Option<FileKind>,
    name: Vec<u8>,
}

struct Inode {
    number: u64,
    bytes: Vec<u8>,
}

impl Inode {
    fn flags(&self) -> u32 {
        le32(&self.bytes, 32)
    }

    fn size(&self) -> u64 {
        u64::from(le32(&self.bytes, 4)) | u64::from(le32(&self.bytes, 108)) << 32
    }

    /// The 60 bytes of block pointers, extent root, short link or inline data.
    fn root(&self) -> &[u8] {
        &self.bytes[40..100]
    }
}

/// A walk over the blocks of a file.
struct Visit<'a> {
    /// Blocks of the file that are asked for.
    wanted: std::ops::Range<u64>,
    /// The file's next block that has not been seen.
    next: u64,
    /// Blocks of the tree that were read.
    nodes: usize,
    /// Takes a run: its first block in the file, its first block on the disk, its length.
    put: &'a mut dyn FnMut(u64, u64, u64) -> Result<()>,
}

fn kind_of_mode(mode: u16) -> Option<FileKind> {
    Some(match mode >> 12 {
        0x1 => FileKind::Fifo,
        0x2 => FileKind::CharDevice,
        0x4 => FileKind::Directory,
        0x6 => FileKind::BlockDevice,
        0x8 => FileKind::Regular,
        0xa => FileKind::Symlink,
        0xc => FileKind::Socket,
        _ => return None,
    })
}

fn kind_of_record(kind: u8) -> Option<FileKind> {
    Some(match kind {
        1 => FileKind::Regular,
        2 => FileKind::Directory,
        3 => FileKind::CharDevice,
        4 => FileKind::BlockDevice,
        5 => FileKind::Fifo,
        6 => FileKind::Socket,
        7 => FileKind::Symlink,
        _ => return None,
    })
}

impl ExtFiles {
    pub(super) fn open(source: Arc<dyn BlockSource>, superblock: Superblock) -> Result<Self> {
        if let Some(unknown) = superblock.unreadable() {
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: {unknown}", superblock.kind())));
        }
        let malformed = |reason| Error::malformed(1024, format!("{}: {reason}", superblock.kind()));
        let geometry = superblock.geometry(source.size().0).map_err(malformed)?;
        Ok(Self { source, superblock, geometry, directories: Mutex::default() })
    }

    fn block(&self, block: u64) -> Result<Vec<u8>> {
        let wrong = || Error::malformed(block.saturating_mul(self.geometry.block_size), "ext: no readable block there");
        let length = usize::try_from(self.geometry.block_size).map_err(|_| wrong())?;
        let at = block.checked_mul(self.geometry.block_size).filter(|_| block < self.geometry.blocks);
        at.and_then(|at| peek(&*self.source, at, length)).ok_or_else(wrong)
    }

    fn inode(&self, number: u64) -> Result<Inode> {
        let wrong = |what: &str| Error::new(ErrorKind::Malformed, format!("ext: inode {number}: {what}"));
        let (per_group, size) = self.superblock.inodes();
        let index = number.checked_sub(1).ok_or_else(|| wrong("there is no inode 0"))?;
        let group = index / per_group;
        if group >= self.geometry.groups {
            return Err(wrong("beyond the last group"));
        }
        let per_block = self.geometry.block_size / self.geometry.descriptor_size;
        let block = self.geometry.descriptor_block(&self.superblock, group / per_block);
        let at = block.saturating_mul(self.geometry.block_size) + group % per_block * self.geometry.descriptor_size;
        let descriptor = usize::try_from(self.geometry.descriptor_size)
            .ok()
            .and_then(|length| peek(&*self.source, at, length))
            .ok_or_else(|| wrong("its group descriptor cannot be read"))?;
        let high = if descriptor.len() >= 64 { u64::from(le32(&descriptor, 40)) << 32 } else { 0 };
        let at = (u64::from(le32(&descriptor, 8)) | high)
            .checked_mul(self.geometry.block_size)
            .and_then(|table| table.checked_add(index % per_group * size))
            .filter(|&at| at < self.geometry.blocks * self.geometry.block_size);
        let length = usize::try_from(size).unwrap_or(128);
        let bytes = at.and_then(|at| peek(&*self.source, at, length)).ok_or_else(|| wrong("cannot be read"))?;
        Ok(Inode { number, bytes })
    }

    /// All of an inode's contents, which are not longer than `limit`.
    fn contents(&self, inode: &Inode, limit: ByteCount) -> Result<Vec<u8>> {
        let size = inode.size();
        match usize::try_from(size).ok().filter(|_| size <= limit.0) {
            Some(length) => self.read_inode(inode, 0, length),
            None => {
                let context = format!("ext: inode {}: {size} bytes, the limit is {}", inode.number, limit.0);
                Err(Error::new(ErrorKind::TooLarge, context))
            }
        }
    }

    /// `length` bytes of an inode's contents from `offset`.
    fn read_inode(&self, inode: &Inode, offset: u64, length: usize) -> Result<Vec<u8>> {
        let wrong = |what: &str| Error::new(ErrorKind::Malformed, format!("ext: inode {}: {what}", inode.number));
        if inode.flags() & FLAG_ENCRYPTED != 0 {
            return Err(Error::new(ErrorKind::Unsupported, format!("ext: inode {}: encrypted", inode.number)));
        }
        let end = offset.checked_add(length as u64).ok_or_else(|| wrong("a range beyond 2^64"))?;
        if inode.flags() & FLAG_INLINE_DATA != 0 {
            let mut bytes = inode.root().to_vec();
            bytes.extend(self.inline_rest(inode).unwrap_or_default());
            let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
            let part = range.and_then(|(start, end)| bytes.get(start..end)).map(<[u8]>::to_vec);
            return part.ok_or_else(|| wrong("inline data shorter than its size"));
        }
        let block_size = self.geometry.block_size;
        let mut contents = vec![0; length];
        let mut put = |first: u64, start: u64, count: u64| -> Result<()> {
            if start.checked_add(count).is_none_or(|end| end > self.geometry.blocks) {
                return Err(wrong("a block outside of the filesystem"));
            }
            // The part of the run that was asked for.
            let from = (first * block_size).max(offset);
            let until = ((first + count) * block_size).min(end);
            if from >= until {
                return Ok(());
            }
            let place = usize::try_from(from - offset).ok().zip(usize::try_from(until - offset).ok());
            let place = place.and_then(|(from, until)| contents.get_mut(from..until));
            let place = place.ok_or_else(|| wrong("too large for memory"))?;
            let at = machine::ByteOffset(start * block_size + (from - first * block_size));
            self.source.read_at(at, place).map_err(|e| Error::read(format!("ext: inode {}", inode.number), e))
        };
        let mut visit =
            Visit { wanted: offset / block_size..end.div_ceil(block_size), next: 0, nodes: 0, put: &mut put };
        if inode.flags() & FLAG_EXTENTS != 0 {
            self.extents(inode.root(), le16(inode.root(), 6), &mut visit)?;
        } else {
            for slot in 0..15 {
                let level = u32::try_from(slot).unwrap_or(0).saturating_sub(11);
                self.pointer(le32(inode.root(), slot * 4).into(), level, &mut visit)?;
            }
        }
        Ok(contents)
    }

    /// Visits the extents of a tree's node that lie in the wanted range, in ascending order.
    fn extents(&self, node: &[u8], depth: u16, visit: &mut Visit<'_>) -> Result<()> {
        let wrong = |what: &str| Error::new(ErrorKind::Malformed, format!("ext: extent tree: {what}"));
        visit.nodes += 1;
        if le16(node, 0) != 0xf30a || le16(node, 6) != depth || depth > DEPTH_MAX || visit.nodes > NODES_MAX {
            return Err(wrong("not a node of that depth"));
        }
        let count = usize::from(le16(node, 2));
        let entries = node.get(12..12 + count * 12).ok_or_else(|| wrong("more entries than fit the node"))?;
        for (index, entry) in entries.chunks_exact(12).enumerate() {
            let first = u64::from(le32(entry, 0));
            if first < visit.next {
                return Err(wrong("entries that are not ascending"));
            }
            if first >= visit.wanted.end {
                break;
            }
            if depth > 0 {
                // A child ends where the next one begins.
                let following = entries.get((index + 1) * 12..).filter(|rest| !rest.is_empty());
                visit.next = first;
                if following.is_some_and(|next| u64::from(le32(next, 0)) <= visit.wanted.start) {
                    continue;
                }
                let child = self.block(u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32)?;
                self.extents(&child, depth - 1, visit)?;
                continue;
            }
            let length = u32::from(le16(entry, 4));
            let start = u64::from(le32(entry, 8)) | u64::from(le16(entry, 6)) << 32;
            let written = length <= EXTENT_LENGTH_MAX;
            let length = u64::from(if written { length } else { length - EXTENT_LENGTH_MAX });
            visit.next = first + length;
            if written && length > 0 && visit.next > visit.wanted.start {
                (visit.put)(first, start, length)?;
            }
        }
        Ok(())
    }

    /// Visits the blocks that a pointer names, through `level` blocks of pointers.
    fn pointer(&self, block: u64, level: u32, visit: &mut Visit<'_>) -> Result<()> {
        if visit.next >= visit.wanted.end {
            return Ok(());
        }
        let span = (self.geometry.block_size / 4).saturating_pow(level);
        if block == 0 || visit.next.saturating_add(span) <= visit.wanted.start {
            visit.next = visit.next.saturating_add(span);
            return Ok(());
        }
        if level == 0 {
            (visit.put)(visit.next, block, 1)?;
            visit.next += 1;
            return Ok(());
        }
        visit.nodes += 1;
        if visit.nodes > NODES_MAX {
            return Err(Error::new(ErrorKind::Malformed, "ext: too many blocks of pointers"));
        }
        let table = self.block(block)?;
        for entry in table.chunks_exact(4) {
            self.pointer(le32(entry, 0).into(), level - 1, visit)?;
        }
        Ok(())
    }

    /// Inline data behind the first 60 bytes: the attribute `system.data` inside of the inode.
    fn inline_rest(&self, inode: &Inode) -> Option<Vec<u8>> {
        let attributes = inode.bytes.get(128 + usize::from(le16(&inode.bytes, 128))..)?;
        if le32(attributes, 0) != 0xea02_0000 {
            return None;
        }
        let entries = attributes.get(4..)?;
        let mut at = 0;
        while let Some(entry) = entries.get(at..).filter(|e| e.len() >= 16 && le32(e, 0) != 0) {
            let name_length = usize::from(entry[0]);
            if entry[1] == 7 && entry.get(16..16 + name_length)? == b"data" && le32(entry, 4) == 0 {
                let start = usize::from(le16(entry, 2));
                let size = usize::try_from(le32(entry, 8)).ok()?;
                return entries.get(start..start.checked_add(size)?).map(<[u8]>::to_vec);
            }
            at += (16 + name_length).next_multiple_of(4);
        }
        None
    }

    /// The entries of a directory, `.` and `..` left out.
    fn records(&self, directory: Node) -> Result<Arc<Vec<Record>>> {
        let mut kept = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = kept.iter().position(|(inode, _)| *inode == directory.0) {
            let found = kept.remove(index);
            let records = Arc::clone(&found.1);
            kept.insert(0, found);
            return Ok(records);
        }
        drop(kept);
        let inode = self.inode(directory.0)?;
        let contents = self.contents(&inode, DIRECTORY_MAX)?;
        let mut records = Vec::new();
        if inode.flags() & FLAG_INLINE_DATA != 0 {
            // Four bytes for the parent's number, then records in what the inode has, then in its attribute.
            let (head, rest) = contents.split_at(contents.len().min(60));
            self.parse_records(head.get(4..).unwrap_or_default(), &inode, &mut records)?;
            self.parse_records(rest, &inode, &mut records)?;
        } else {
            for block in contents.chunks(usize::try_from(self.geometry.block_size).unwrap_or(1024)) {
                self.parse_records(block, &inode, &mut records)?;
            }
        }
        let records = Arc::new(records);
        kept = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(DIRECTORIES_KEPT - 1);
        kept.insert(0, (directory.0, Arc::clone(&records)));
        Ok(records)
    }

    fn parse_records(&self, mut block: &[u8], inode: &Inode, records: &mut Vec<Record>) -> Result<()> {
        while block.len() >= 8 {
            let length = match le16(block, 4) {
                // A record that fills a block of 64 KiB does not fit its field.
                0 | u16::MAX if block.len() == 65536 => block.len(),
                n => n.into(),
            };
            let name_length = usize::from(block[6]);
            if length < 8 || length % 4 != 0 || length > block.len() || name_length + 8 > length {
                let context = format!("ext: directory {}: a record that does not fit its block", inode.number);
                return Err(Error::new(ErrorKind::Malformed, context));
            }
            let number = u64::from(le32(block, 0));
            let name = &block[8..8 + name_length];
            if number != 0 && !name.is_empty() && name != b"." && name != b".." {
                let kind = if self.superblock.has_filetype() { kind_of_record(block[7]) } else { None };
                records.push(Record { inode: number, kind, name: name.to_vec() });
            }
            block = &block[length..];
        }
        Ok(())
    }
}

impl Tree for ExtFiles {
    fn root(&self) -> Node {
        Node(ROOT_INODE)
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        let inode = self.inode(node.0)?;
        let mode = le16(&inode.bytes, 0);
        let kind = kind_of_mode(mode)
            .ok_or_else(|| Error::new(ErrorKind::Malformed, format!("ext: inode {}: mode {mode:o}", node.0)))?;
        let id =
            |low: usize, high: usize| u32::from(le16(&inode.bytes, low)) | u32::from(le16(&inode.bytes, high)) << 16;
        Ok(Metadata {
            kind,
            mode: u32::from(mode & 0o7777),
            uid: id(2, 120),
            gid: id(24, 122),
            size: ByteCount(inode.size()),
        })
    }

    fn list(&self, directory: Node) -> Result<Vec<Entry>> {
        self.records(directory)?
            .iter()
            .map(|record| {
                let kind = record.kind.map_or_else(|| self.metadata(Node(record.inode)).map(|m| m.kind), Ok)?;
                Ok(Entry { name: OsStr::from_bytes(&record.name).to_owned(), kind })
            })
            .collect()
    }

    fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>> {
        Ok(self.records(directory)?.iter().find(|record| record.name == name).map(|record| Node(record.inode)))
    }

    fn read(&self, node: Node, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.read_inode(&self.inode(node.0)?, offset, length)
    }

    fn runs(&self, node: Node) -> Result<Option<Vec<Run>>> {
        let inode = self.inode(node.0)?;
        let links = le16(&inode.bytes, 26);
        if self.superblock.doubt().is_some()
            || inode.flags() & (FLAG_ENCRYPTED | FLAG_INLINE_DATA) != 0
            || inode.flags() & FLAG_EXTENTS == 0
            || links != 1
        {
            return Ok(None);
        }
        let block_size = self.geometry.block_size;
        let mut runs = Vec::new();
        let mut put = |first: u64, start: u64, count: u64| -> Result<()> {
            if start.checked_add(count).is_none_or(|end| end > self.geometry.blocks) || runs.len() == RUNS_MAX {
                return Err(Error::new(ErrorKind::Malformed, format!("ext: inode {}: its extents", node.0)));
            }
            runs.push(Run { at: first * block_size, start: start * block_size, length: count * block_size });
            Ok(())
        };
        let wanted = 0..inode.size().div_ceil(block_size);
        let mut visit = Visit { wanted, next: 0, nodes: 0, put: &mut put };
        self.extents(inode.root(), le16(inode.root(), 6), &mut visit)?;
        Ok(Some(runs))
    }

    fn read_link(&self, node: Node) -> Result<Vec<u8>> {
        let inode = self.inode(node.0)?;
        let length = usize::try_from(inode.size()).unwrap_or(usize::MAX);
        // Short targets lie in the inode itself, in place of block pointers.
        if length < 60 && inode.flags() & (FLAG_EXTENTS | FLAG_INLINE_DATA) == 0 {
            return Ok(inode.root()[..length].to_vec());
        }
        self.contents(&inode, LINK_MAX)
    }
}
