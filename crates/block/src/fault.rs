//! Disks and images that fail on purpose, for the tests of every crate.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use machine::{ByteCount, ByteOffset, SectorSize};

use crate::file::shrank;
use crate::{BlockSource, Chunk, Content, Error, Extent, ExtentIter, ImageWriter, Result, check_bounds};

/// A source with damage.
pub struct FaultySource<S> {
    inner: S,
    unreadable: Vec<Extent>,
    delay: Duration,
    shrinks_after: Option<ByteCount>,
    shrinks_to: ByteCount,
    read: AtomicU64,
    attempts: AtomicU64,
    heals_after: Option<u64>,
}

impl<S: BlockSource> FaultySource<S> {
    /// `inner`, without damage as yet.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            unreadable: Vec::new(),
            delay: Duration::ZERO,
            shrinks_after: None,
            shrinks_to: ByteCount::ZERO,
            read: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            heals_after: None,
        }
    }

    /// Every read that touches `extent` fails like a bad medium (EIO).
    pub fn unreadable(mut self, extent: Extent) -> Self {
        self.unreadable.push(extent);
        self
    }

    /// After that many failed reads the medium reads well.
    pub fn heals_after(mut self, failures: u64) -> Self {
        self.heals_after = Some(failures);
        self
    }

    /// Every read takes that long.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Once `read` bytes were read, it is only `size` long.
    pub fn shrinks(mut self, read: ByteCount, size: ByteCount) -> Self {
        (self.shrinks_after, self.shrinks_to) = (Some(read), size);
        self
    }

    /// How many reads failed.
    pub fn failures(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }
}

impl<S: BlockSource> BlockSource for FaultySource<S> {
    fn size(&self) -> ByteCount {
        self.inner.size()
    }

    fn logical_sector_size(&self) -> SectorSize {
        self.inner.logical_sector_size()
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        check_bounds(offset, buffer, self.size())?;
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        let wanted = Extent::between(offset, offset + buffer.len().into());
        let already = self.read.fetch_add(wanted.length().0, Ordering::Relaxed);
        let shrunk = self.shrinks_after.is_some_and(|after| already >= after.0);
        if shrunk && wanted.end().0 > self.shrinks_to.0 {
            return Err(shrank(offset, self.size()));
        }
        if self.unreadable.iter().any(|bad| !bad.intersection(wanted).is_empty()) {
            let failures = self.attempts.fetch_add(1, Ordering::Relaxed);
            if self.heals_after.is_none_or(|healthy| failures < healthy) {
                return Err(Error::io("cannot read", std::io::Error::from_raw_os_error(5)).at(offset));
            }
        }
        self.inner.read_at(offset, buffer)
    }

    fn allocated(&self, within: Extent) -> ExtentIter<'_> {
        self.inner.allocated(within)
    }

    /// None: every read is to meet the damage.
    fn raw_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// An image whose filesystem is full after a number of bytes.
pub struct FullWriter {
    inner: Box<dyn ImageWriter>,
    room: ByteCount,
}

impl FullWriter {
    /// `inner`, which takes `room` bytes of data and then has no space left (ENOSPC).
    pub fn new(inner: Box<dyn ImageWriter>, room: ByteCount) -> Self {
        Self { inner, room }
    }
}

impl ImageWriter for FullWriter {
    fn write(&mut self, chunk: Chunk) -> Result<()> {
        if let Content::Data(data) = &chunk.content {
            match self.room.0.checked_sub(data.len() as u64) {
                Some(room) => self.room = ByteCount(room),
                None => {
                    self.room = ByteCount::ZERO;
                    let error = std::io::Error::from_raw_os_error(28);
                    return Err(Error::io("no space left for the image", error).at(chunk.offset));
                }
            }
        }
        self.inner.write(chunk)
    }

    fn sync(&mut self) -> Result<ByteOffset> {
        self.inner.sync()
    }

    fn finish(self: Box<Self>) -> Result<ByteCount> {
        self.inner.finish()
    }

    fn bytes_written(&self) -> ByteCount {
        self.inner.bytes_written()
    }
}
