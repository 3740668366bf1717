//! The file that an image is written into: past the page cache and many writes deep where that works, positioned
//! writes where not.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use machine::{ByteCount, ByteOffset};
use rustix::fs::{FallocateFlags, fallocate};

use crate::queue::{Queue, Transfer, open_direct};
use crate::{BUFFER_ALIGNMENT, Buffer, CreateOptions, Error, ErrorKind, Pool, Result};

/// Writes of at most 1 MiB in flight.
const QUEUE_DEPTH: usize = 8;
/// How far ahead of its end a growing file is allocated: writes then neither change its length nor look for blocks,
/// and a full filesystem is met before the data is on its way.
const RESERVE_STEP: u64 = 64 << 20;

pub(crate) struct Output {
    /// For what direct I/O cannot do, and for the file's metadata.
    file: File,
    queue: Queue,
    direct: bool,
    pool: Pool,
    /// The end of what was allocated ahead.
    reserved: u64,
    can_reserve: bool,
    failed: bool,
    written: ByteCount,
}

impl Output {
    /// Makes the file; it must not exist.
    pub(crate) fn create(path: &Path, options: &CreateOptions) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|e| Error::io(format!("cannot create {}", path.display()), e))?;
        if let Some(expected) = options.expected {
            require_room(&file, expected).inspect_err(|_| {
                // Nothing was written: the empty file would only be in the way of the next attempt.
                let _ = std::fs::remove_file(path);
            })?;
        }
        Self::on(file, options)
    }

    /// Opens a file that exists, to go on with it.
    pub(crate) fn open(path: &Path, options: &CreateOptions) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| Error::io(format!("cannot open {} for writing", path.display()), e))?;
        Self::on(file, options)
    }

    fn on(file: File, options: &CreateOptions) -> Result<Self> {
        let io = |e| Error::io("cannot open the image a second time", e);
        let direct = if options.direct { open_direct(&file, true) } else { None };
        let target = match &direct {
            Some(direct) => direct.try_clone(),
            None => file.try_clone(),
        };
        let target = target.map_err(io)?;
        let queue = match Queue::ring(target.try_clone().map_err(io)?, QUEUE_DEPTH) {
            Ok(queue) => queue,
            Err(_) => Queue::workers(
                QUEUE_DEPTH,
                Arc::new(move |offset, transfer| {
                    let Transfer::Write(data) = transfer else { unreachable!("an output only writes") };
                    let written = target.write_all_at(data, offset.0).map(|()| data.len());
                    written.map_err(|e| Error::io("cannot write the image", e).at(offset))
                }),
            ),
        };
        let pool = Pool::new(QUEUE_DEPTH);
        let direct = direct.is_some();
        Ok(Self { file, queue, direct, pool, reserved: 0, can_reserve: true, failed: false, written: ByteCount::ZERO })
    }

    /// Begins to write `data` at `offset`. Writes in flight do not overlap.
    pub(crate) fn write(&mut self, offset: ByteOffset, data: Buffer) -> Result<()> {
        if self.failed {
            return Err(Error::new(ErrorKind::Io, "an earlier write of the image failed"));
        }
        self.written += data.len().into();
        let aligned = offset.0.is_multiple_of(BUFFER_ALIGNMENT as u64) && data.len().is_multiple_of(BUFFER_ALIGNMENT);
        if self.direct && !aligned {
            let written = self.file.write_all_at(&data, offset.0);
            return written.map_err(|e| Error::io("cannot write the image", e).at(offset));
        }
        let data = if self.direct && !data.is_aligned() { self.realign(&data) } else { data };
        if self.queue.in_flight() >= QUEUE_DEPTH {
            self.reap()?;
        }
        self.queue.submit(0, offset, Transfer::Write(data))
    }

    /// Reads what was written; waits for all writes before.
    pub(crate) fn read(&mut self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        self.drain()?;
        self.file.read_exact_at(buffer, offset.0).map_err(|e| Error::io("cannot read the image", e).at(offset))
    }

    /// Allocates the file ahead of a write that ends at `end`, for images that only grow.
    pub(crate) fn reserve(&mut self, end: u64) -> Result<()> {
        if !self.can_reserve || end <= self.reserved {
            return Ok(());
        }
        let from = self.reserved;
        for to in [end.next_multiple_of(RESERVE_STEP), end] {
            match fallocate(&self.file, FallocateFlags::empty(), from, to - from) {
                Ok(()) => {
                    self.reserved = to;
                    return Ok(());
                }
                Err(e) if matches!(e.raw_os_error(), 28 | 122) => {} // ENOSPC, EDQUOT: a smaller step may still fit
                Err(_) => {
                    self.can_reserve = false; // the filesystem does not know how
                    return Ok(());
                }
            }
        }
        self.drain()?;
        let error = std::io::Error::from_raw_os_error(28);
        Err(Error::io("no space left for the image; what is durable is kept", error).at(ByteOffset(from)))
    }

    /// Sets room aside for the first `length` bytes of the file, which is made as long where it is shorter; what was not
    /// written reads as zeros.
    pub(crate) fn allocate(&mut self, length: ByteCount) -> Result<()> {
        self.drain()?;
        fallocate(&self.file, FallocateFlags::empty(), 0, length.0.max(1)).map_err(|e| match e.raw_os_error() {
            95 => {
                let context = "this filesystem cannot set room aside for a full image: choose thin allocation";
                Error::new(ErrorKind::Unsupported, context)
            }
            _ => Error::io(format!("cannot set {length} aside for the image"), e.into()),
        })?;
        self.reserved = self.reserved.max(length.0);
        Ok(())
    }

    /// Waits for one write.
    fn reap(&mut self) -> Result<()> {
        match self.queue.complete()? {
            Some(done) => done.result.map(drop).inspect_err(|_| self.failed = true),
            None => Ok(()),
        }
    }

    /// Waits for all writes; the first failure counts.
    pub(crate) fn drain(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        while self.queue.in_flight() > 0 {
            let reaped = self.reap();
            outcome = outcome.and(reaped);
        }
        if self.failed && outcome.is_ok() {
            return Err(Error::new(ErrorKind::Io, "an earlier write of the image failed"));
        }
        outcome
    }

    /// A copy at an address that direct I/O accepts.
    fn realign(&self, data: &Buffer) -> Buffer {
        let mut aligned = self.pool.take();
        aligned[..data.len()].copy_from_slice(data);
        aligned.freeze(data.len())
    }

    /// Waits for all writes and makes them durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.drain()?;
        self.file.sync_data().map_err(|e| Error::io("cannot make the image durable", e))
    }

    /// Waits for all writes and sets the file's length.
    pub(crate) fn set_length(&mut self, length: ByteCount) -> Result<()> {
        self.drain()?;
        self.reserved = length.0;
        self.file.set_len(length.0).map_err(|e| Error::io("cannot set the length of the image", e))
    }

    /// The file's length.
    pub(crate) fn length(&self) -> Result<ByteCount> {
        let metadata = self.file.metadata().map_err(|e| Error::io("cannot read the length of the image", e))?;
        Ok(ByteCount(metadata.len()))
    }

    pub(crate) fn bytes_written(&self) -> ByteCount {
        self.written
    }
}

/// Refuses where the filesystem has less than `expected` free.
fn require_room(file: &File, expected: ByteCount) -> Result<()> {
    let Ok(stat) = rustix::fs::fstatvfs(file) else { return Ok(()) };
    let free = ByteCount(stat.f_bavail.saturating_mul(stat.f_frsize));
    if free < expected {
        let context = format!("not enough space for the image: {expected} are needed and {free} are free");
        return Err(Error::new(ErrorKind::NoSpace, context));
    }
    Ok(())
}
