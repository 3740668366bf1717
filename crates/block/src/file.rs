//! A raw image file or a block device as a source. Opened read-only, never written.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use machine::{ByteCount, ByteOffset, SectorSize};
use rustix::fs::{OFlags, SeekFrom, seek};

use crate::{AllocationMap, BlockSource, Error, ErrorKind, Everything, Extent, ExtentIter, Result, check_bounds};

/// A file or block device whose bytes are the disk's bytes.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    size: ByteCount,
    logical_sector_size: SectorSize,
    /// Holes can be asked for: a regular file, not a device.
    has_holes: bool,
}

impl FileSource {
    /// Opens `path` read-only. A block device tells its own sector size; for a file it is `logical_sector_size` or 512.
    ///
    /// # Errors
    /// What the operating system said, and [`ErrorKind::Unsupported`] for what is neither file nor
    /// block device.
    pub fn open(path: &Path, logical_sector_size: Option<SectorSize>) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(format!("cannot open {}", path.display()), e))?;
        Self::from_file(file, logical_sector_size)
            .map_err(|e| Error { context: format!("{}: {}", path.display(), e.context), ..e })
    }

    /// Opens a regular file that is no symbolic link: for names that are not trusted.
    pub(crate) fn open_regular(path: &Path) -> Result<Self> {
        let no_follow = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(no_follow).open(path);
        let file = file.map_err(|e| Error::io(format!("cannot open {}", path.display()), e))?;
        let source = Self::from_file(file, None)?;
        match source.is_block_device() {
            false => Ok(source),
            true => Err(Error::new(ErrorKind::Unsupported, format!("{}: expected a regular file", path.display()))),
        }
    }

    /// The same for a file that is already open.
    ///
    /// # Errors
    /// As [`FileSource::open`].
    pub fn from_file(file: File, logical_sector_size: Option<SectorSize>) -> Result<Self> {
        let metadata = file.metadata().map_err(|e| Error::io("cannot read its metadata", e))?;
        let kind = metadata.file_type();
        let (size, sector) = if kind.is_block_device() {
            let size =
                seek(&file, SeekFrom::End(0)).map_err(|e| Error::io("cannot find the size of the device", e.into()))?;
            (size, rustix::fs::ioctl_blksszget(&file).ok().and_then(|n| SectorSize::try_from(n).ok()))
        } else if kind.is_file() {
            (metadata.len(), None)
        } else {
            return Err(Error::new(ErrorKind::Unsupported, "expected a file or a block device"));
        };
        Ok(Self {
            file,
            size: ByteCount(size),
            logical_sector_size: logical_sector_size.or(sector).unwrap_or(SectorSize::B512),
            has_holes: kind.is_file(),
        })
    }

    /// Whether it is a block device rather than a file.
    pub fn is_block_device(&self) -> bool {
        !self.has_holes
    }
}

impl BlockSource for FileSource {
    fn size(&self) -> ByteCount {
        self.size
    }

    fn logical_sector_size(&self) -> SectorSize {
        self.logical_sector_size
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        check_bounds(offset, buffer, self.size)?;
        self.file.read_exact_at(buffer, offset.0).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => shrank(offset, self.size),
            _ => Error::io("cannot read", e).at(offset),
        })
    }

    fn allocated(&self, within: Extent) -> ExtentIter<'_> {
        let within = within.intersection(Extent::first(self.size));
        if !self.has_holes {
            return Everything.extents(within);
        }
        Box::new(DataExtents { file: &self.file, size: self.size, rest: within })
    }

    fn raw_file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// The error of a source that ended before its size, while it was read.
pub(crate) fn shrank(offset: ByteOffset, size: ByteCount) -> Error {
    Error {
        offset: Some(offset),
        ..Error::new(
            ErrorKind::OutOfBounds,
            format!("the source ended early: it had {} bytes when it was opened and became shorter", size.0),
        )
    }
}

/// Walks the data of a sparse file by SEEK_DATA and SEEK_HOLE.
struct DataExtents<'a> {
    file: &'a File,
    /// Of the file when it was opened.
    size: ByteCount,
    rest: Extent,
}

impl Iterator for DataExtents<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::replace(&mut self.rest, Extent::first(ByteCount::ZERO));
        let data = match seek(self.file, SeekFrom::Data(rest.start().0)) {
            Ok(offset) => ByteOffset(offset),
            // No data behind here: a hole up to the end, unless the end has come nearer since the file was opened.
            Err(rustix::io::Errno::NXIO) => {
                let end = seek(self.file, SeekFrom::End(0)).map_or(rest.end(), ByteOffset);
                return (end < rest.end()).then(|| Err(shrank(end, self.size)));
            }
            Err(_) => return Some(Ok(rest)), // cannot be asked: everything counts
        };
        let hole = match seek(self.file, SeekFrom::Hole(data.0)) {
            Ok(offset) if offset > data.0 => ByteOffset(offset),
            _ => rest.end(),
        };
        let found = Extent::between(data, hole).intersection(rest);
        self.rest = Extent::between(hole.max(rest.start()), rest.end());
        (!found.is_empty()).then_some(Ok(found))
    }
}
