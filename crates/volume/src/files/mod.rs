//! Read-only access to files by path, in user space, on ext2/3/4, NTFS, FAT and ISO 9660.
//!
//! For identifying guests and for comparing disks. Nothing is mounted and nothing is replayed: on a filesystem that was
//! not cleanly unmounted the latest changes may be missing. Every read has a bound that the caller gives; paths stay
//! inside of the filesystem, absolute links begin at its root.

mod ext;
mod fat;
mod iso9660;
mod ntfs;
mod tree;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use block::BlockSource;
use machine::ByteCount;

use crate::error::{Error, ErrorKind, Result};
use crate::ext::Superblock;
use crate::fat::Geometry;
use crate::field::peek;
use crate::ntfs::Boot;

use ext::ExtFiles;
use fat::FatFiles;
use iso9660::IsoFiles;
use ntfs::NtfsFiles;

/// Links that are followed on one path, as in Linux.
const LINKS_MAX: usize = 40;
/// Size of a directory that is read.
const DIRECTORY_MAX: ByteCount = ByteCount::mib(256);
/// Length of a symbolic link, as in Linux.
const LINK_MAX: ByteCount = ByteCount(4096);

/// The files of one filesystem.
pub struct Files {
    tree: Box<dyn Tree>,
}

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// Plain file.
    Regular,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
}

/// What is known of a file beside its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Kind.
    pub kind: FileKind,
    /// Permission bits, with set-user-ID, set-group-ID and sticky: `0o4755`. FAT and NTFS have none; 0o755 stands for them.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: ByteCount,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Name, without a path.
    pub name: OsString,
    /// Kind.
    pub kind: FileKind,
}

/// A file found by its path: an inode number, or the place of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node(u64);

/// What each filesystem does in its own way; paths are walked here.
trait Tree: Send + Sync {
    fn root(&self) -> Node;
    fn metadata(&self, node: Node) -> Result<Metadata>;
    fn list(&self, directory: Node) -> Result<Vec<Entry>>;
    fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>>;
    /// `length` bytes from `offset`, which the file has by its size; holes read as zeros.
    fn read(&self, node: Node, offset: u64, length: usize) -> Result<Vec<u8>>;
    fn read_link(&self, node: Node) -> Result<Vec<u8>>;
    /// Where a file's blocks lie, as the filesystem holds them now; `None` where that cannot be told for sure.
    fn runs(&self, node: Node) -> Result<Option<Vec<Run>>>;
    /// The same, sure or not: as what can be read of the filesystem says it.
    fn stored_runs(&self, node: Node) -> Result<Vec<Run>> {
        Ok(self.runs(node)?.unwrap_or_default())
    }
    /// Whether a file's data are kept compressed somewhere else than where they seem to be.
    fn is_overlaid(&self, _node: Node) -> bool {
        false
    }
}

/// Bytes of a file that lie in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Where in the file.
    pub(crate) at: u64,
    /// Where in the filesystem.
    pub(crate) start: u64,
    pub(crate) length: u64,
}

impl Files {
    /// Opens the filesystem on `source`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where there is none of a known kind, [`ErrorKind::Malformed`] where its geometry does
    /// not add up.
    pub fn open(source: Arc<dyn BlockSource>) -> Result<Self> {
        let fat = peek(&*source, 0, 512).and_then(|sector| Geometry::parse(&sector));
        let tree: Box<dyn Tree> = match (Superblock::load(&*source), fat) {
            (Some(superblock), None) => Box::new(ExtFiles::open(source, superblock)?),
            (None, Some(geometry)) => Box::new(FatFiles::open(source, geometry)?),
            _ => match (Boot::load(&*source), IsoFiles::open(&source)?) {
                (Some(boot), _) => Box::new(NtfsFiles::open(source, boot)?),
                (None, Some(files)) => Box::new(files),
                (None, None) => {
                    return Err(Error::new(ErrorKind::Unsupported, "no filesystem whose files can be read"));
                }
            },
        };
        Ok(Self { tree })
    }

    /// Reads a whole file, following links.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::TooLarge`] for one larger than `limit`; [`ErrorKind::Unsupported`] for
    /// what is no plain file, or is encrypted.
    pub fn read(&self, path: impl AsRef<Path>, limit: ByteCount) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let (node, size) = self.plain_file(path)?;
        match size.to_usize().filter(|_| size <= limit) {
            Some(length) => self.tree.read(node, 0, length),
            None => {
                let context = format!("{}: {} bytes, the limit is {}", path.display(), size.0, limit.0);
                Err(Error::new(ErrorKind::TooLarge, context))
            }
        }
    }

    /// Reads a part of a file, following links: from `offset`, at most `length` bytes, less only at its end.
    ///
    /// # Errors
    /// As [`Files::read`], but never [`ErrorKind::TooLarge`].
    pub fn read_range(&self, path: impl AsRef<Path>, offset: u64, length: usize) -> Result<Vec<u8>> {
        let (node, size) = self.plain_file(path.as_ref())?;
        let left = size.0.saturating_sub(offset);
        match usize::try_from(left).unwrap_or(usize::MAX).min(length) {
            0 => Ok(Vec::new()),
            length => self.tree.read(node, offset, length),
        }
    }

    /// Lists a directory, following links; without `.` and `..`, by name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::TooLarge`], [`ErrorKind::Unsupported`] for what is no directory.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Vec<Entry>> {
        let path = path.as_ref();
        let node = self.walk(path, true)?;
        if self.tree.metadata(node)?.kind != FileKind::Directory {
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: not a directory", path.display())));
        }
        let mut entries = self.tree.list(node)?;
        entries.sort();
        Ok(entries)
    }

    /// What is known of a file; of a link itself, not of what it points to.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        self.tree.metadata(self.walk(path.as_ref(), false)?)
    }

    /// What is known of a file, links followed to the end.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], for a link that leads nowhere too.
    pub fn target_metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        self.tree.metadata(self.walk(path.as_ref(), true)?)
    }

    /// Where a link points to, as it is written.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Unsupported`] for what is no link.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<OsString> {
        let path = path.as_ref();
        let node = self.walk(path, false)?;
        if self.tree.metadata(node)?.kind != FileKind::Symlink {
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: not a link", path.display())));
        }
        Ok(std::ffi::OsStr::from_bytes(&self.tree.read_link(node)?).to_owned())
    }

    /// Where the bytes of a plain file lie; the file itself, no link to it. `None` where that cannot be told for sure.
    pub(crate) fn runs(&self, path: &Path) -> Result<Option<Vec<Run>>> {
        let node = self.walk(path, false)?;
        match self.tree.metadata(node)?.kind {
            FileKind::Regular => self.tree.runs(node),
            _ => Err(Error::new(ErrorKind::Unsupported, format!("{}: not a plain file", path.display()))),
        }
    }

    /// Where the bytes of a plain file were when the filesystem was last written, sure or not.
    pub(crate) fn stored_runs(&self, path: &Path) -> Result<Vec<Run>> {
        self.tree.stored_runs(self.walk(path, false)?)
    }

    /// Whether Windows keeps the file compressed by its overlay ("compact OS").
    pub(crate) fn is_overlaid(&self, path: &str) -> bool {
        self.walk(Path::new(path), true).is_ok_and(|node| self.tree.is_overlaid(node))
    }

    fn plain_file(&self, path: &Path) -> Result<(Node, ByteCount)> {
        let node = self.walk(path, true)?;
        let metadata = self.tree.metadata(node)?;
        if metadata.kind != FileKind::Regular {
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: not a plain file", path.display())));
        }
        Ok((node, metadata.size))
    }

    /// Finds the file of a path, from the root; a link at its end is followed only if told to.
    fn walk(&self, path: &Path, follow_last: bool) -> Result<Node> {
        let not_found = || Error::new(ErrorKind::NotFound, format!("{}: no such file", path.display()));
        let split = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|&b| b == b'/').filter(|n| !n.is_empty() && *n != b".").rev().map(<[u8]>::to_vec).collect()
        };
        // What is left, last name first; where we are, root first.
        let mut left = split(path.as_os_str().as_bytes());
        let mut here = vec![self.tree.root()];
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                if here.len() > 1 {
                    here.pop();
                }
                continue;
            }
            let directory = here.last().copied().unwrap_or(self.tree.root());
            if self.tree.metadata(directory)?.kind != FileKind::Directory {
                return Err(not_found());
            }
            let node = self.tree.find(directory, &name)?.ok_or_else(not_found)?;
            if self.tree.metadata(node)?.kind != FileKind::Symlink || left.is_empty() && !follow_last {
                here.push(node);
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                let context = format!("{}: more than {LINKS_MAX} links on the way", path.display());
                return Err(Error::new(ErrorKind::NotFound, context));
            }
            let target = self.tree.read_link(node)?;
            if target.starts_with(b"/") {
                here.truncate(1);
            }
            left.extend(split(&target));
        }
        Ok(here.last().copied().unwrap_or(self.tree.root()))
    }
}
