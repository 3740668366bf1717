//! What can be read like a disk.

use std::os::fd::BorrowedFd;

use machine::{ByteCount, ByteOffset, SectorSize};

use crate::{AllocationMap, Error, Everything, Extent, ExtentIter, Result};

/// A disk, an image of one, or a part of either, read at byte positions by any number of threads.
pub trait BlockSource: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> ByteCount;

    /// Logical sector size of the disk behind it.
    fn logical_sector_size(&self) -> SectorSize;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind) beyond the end, [`ErrorKind::Unreadable`](crate::ErrorKind) where
    /// the medium fails, with the offset of the access.
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()>;

    /// Extents that may hold something other than zeros, by what holds the disk (holes of a sparse file, an image's
    /// allocation), without regard to what a filesystem on it says.
    fn allocated(&self, within: Extent) -> ExtentIter<'_> {
        Everything.extents(within)
    }

    /// The file whose bytes are this source's bytes one to one from offset 0, for asynchronous and direct I/O; `None`
    /// where each read must go through [`BlockSource::read_at`].
    fn raw_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl<S: BlockSource + ?Sized> BlockSource for &S {
    fn size(&self) -> ByteCount {
        (**self).size()
    }
    fn logical_sector_size(&self) -> SectorSize {
        (**self).logical_sector_size()
    }
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buffer)
    }
    fn allocated(&self, within: Extent) -> ExtentIter<'_> {
        (**self).allocated(within)
    }
    fn raw_file(&self) -> Option<BorrowedFd<'_>> {
        (**self).raw_file()
    }
}

impl<S: BlockSource + ?Sized> BlockSource for std::sync::Arc<S> {
    fn size(&self) -> ByteCount {
        (**self).size()
    }
    fn logical_sector_size(&self) -> SectorSize {
        (**self).logical_sector_size()
    }
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buffer)
    }
    fn allocated(&self, within: Extent) -> ExtentIter<'_> {
        (**self).allocated(within)
    }
    fn raw_file(&self) -> Option<BorrowedFd<'_>> {
        (**self).raw_file()
    }
}

/// A range of another source, read as a source of its own: a partition.
pub struct Slice<S> {
    inner: S,
    extent: Extent,
}

impl<S: BlockSource> Slice<S> {
    /// The part of `inner` at `extent`.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind) if `inner` is shorter.
    pub fn new(inner: S, extent: Extent) -> Result<Self> {
        if Extent::first(inner.size()).contains(extent) {
            Ok(Self { inner, extent })
        } else {
            Err(Error::out_of_bounds(extent.start(), extent.length(), inner.size()))
        }
    }
}

impl<S: BlockSource> BlockSource for Slice<S> {
    fn size(&self) -> ByteCount {
        self.extent.length()
    }

    fn logical_sector_size(&self) -> SectorSize {
        self.inner.logical_sector_size()
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        check_bounds(offset, buffer, self.size())?;
        self.inner.read_at(self.extent.start() + ByteCount(offset.0), buffer)
    }
}

/// A disk in memory, for tests and small structures.
#[derive(Clone, Debug)]
pub struct MemorySource {
    bytes: Vec<u8>,
    logical_sector_size: SectorSize,
}

impl MemorySource {
    /// A disk that holds `bytes`.
    pub fn new(bytes: Vec<u8>, logical_sector_size: SectorSize) -> Self {
        Self { bytes, logical_sector_size }
    }
}

impl BlockSource for MemorySource {
    fn size(&self) -> ByteCount {
        self.bytes.len().into()
    }

    fn logical_sector_size(&self) -> SectorSize {
        self.logical_sector_size
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        check_bounds(offset, buffer, self.size())?;
        let start = usize::try_from(offset.0).expect("offset was checked against a length in memory");
        buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
        Ok(())
    }
}

/// Refuses an access that a source of `size` does not hold.
///
/// # Errors
/// [`ErrorKind::OutOfBounds`](crate::ErrorKind), with the offset.
pub fn check_bounds(offset: ByteOffset, buffer: &[u8], size: ByteCount) -> Result<()> {
    match Extent::new(offset, buffer.len().into()) {
        Some(extent) if Extent::first(size).contains(extent) => Ok(()),
        _ => Err(Error::out_of_bounds(offset, buffer.len().into(), size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_slice_reads_its_part_and_nothing_beyond() {
        let disk = MemorySource::new((0..=255).collect(), SectorSize::B512);
        let slice = Slice::new(&disk, Extent::between(ByteOffset(16), ByteOffset(32))).unwrap();
        let mut buffer = [0; 4];
        slice.read_at(ByteOffset(12), &mut buffer).unwrap();
        assert_eq!(buffer, [28, 29, 30, 31]);
        assert_eq!(slice.read_at(ByteOffset(13), &mut buffer).unwrap_err().kind, ErrorKind::OutOfBounds);
        assert_eq!(slice.read_at(ByteOffset(u64::MAX), &mut buffer).unwrap_err().kind, ErrorKind::OutOfBounds);
        assert!(Slice::new(&disk, Extent::between(ByteOffset(200), ByteOffset(257))).is_err());
    }
}
