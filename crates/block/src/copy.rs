//! The local copy: a source's used extents into an image.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use machine::{ByteCount, ByteOffset};

use crate::{
    BlockSource, Content, Error, ErrorKind, Extent, ExtentIter, ExtentReader, ImageWriter, ReadOptions, Result,
    intersect,
};

/// How a copy is made.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// How the source is read.
    pub read: ReadOptions,
    /// After how many bytes of data the image is made durable on the way; `None` leaves that to its end.
    pub sync_every: Option<ByteCount>,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the wanted extents that were dealt with, holes of the source included: what to compare with their sum.
    /// It may run ahead of the other counts by what is in flight.
    pub done: ByteCount,
    /// Bytes read, in whole grains; holes of the source are not read.
    pub read: ByteCount,
    /// Of these, found to be zeros.
    pub zero: ByteCount,
    /// Of these, handed to the image as data.
    pub data: ByteCount,
    /// Of these, unreadable and skipped.
    pub unreadable: ByteCount,
    /// Bytes that went into the image's file, its metadata included.
    pub written: ByteCount,
}

/// Copies `used` (ascending) of `source` into `image`, which is left unfinished, and returns the totals. Holes of the
/// source (see [`BlockSource::allocated`]) are not read. `progress` is called after each chunk (at most 1 MiB of data)
/// and ends the copy by `Break`.
///
/// # Errors
/// [`ErrorKind::Cancelled`] after a `Break`; what reading or writing gives.
pub fn copy(
    source: Arc<dyn BlockSource>,
    used: ExtentIter<'_>,
    image: &mut dyn ImageWriter,
    options: &CopyOptions,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Progress> {
    let holder = Arc::clone(&source);
    let passed = AtomicU64::new(0);
    let counted = Portions { inner: used, rest: None }.inspect(|portion| {
        let length = portion.as_ref().map_or(0, |extent| extent.length().0);
        passed.fetch_add(length, Ordering::Relaxed);
    });
    let wanted = intersect(counted, holder.allocated(Extent::first(holder.size())));
    let mut done = Progress::default();
    let mut unsynced = ByteCount::ZERO;
    for chunk in ExtentReader::new(source, wanted, options.read.clone()) {
        let chunk = chunk?;
        let length = chunk.length();
        match chunk.content {
            Content::Data(_) => {
                done.data += length;
                unsynced += length;
            }
            Content::Zero(_) => done.zero += length,
            Content::Unreadable(_) => done.unreadable += length,
        }
        done.read += length;
        done.done = ByteCount(passed.load(Ordering::Relaxed));
        image.write(chunk).map_err(Error::of_image)?;
        if options.sync_every.is_some_and(|interval| unsynced >= interval) {
            image.sync().map_err(Error::of_image)?;
            unsynced = ByteCount::ZERO;
        }
        done.written = image.bytes_written();
        if progress(&done).is_break() {
            return Err(Error::new(ErrorKind::Cancelled, "the copy was cancelled"));
        }
    }
    done.done = ByteCount(passed.load(Ordering::Relaxed));
    done.written = image.bytes_written();
    Ok(done)
}

/// Cuts extents into portions, so that counting those taken tells how far the reader is.
struct Portions<'a> {
    inner: ExtentIter<'a>,
    rest: Option<Extent>,
}

const PORTION: ByteCount = ByteCount::mib(16);

impl Iterator for Portions<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        let extent = match self.rest.take() {
            Some(extent) => extent,
            None => match self.inner.next()? {
                Ok(extent) => extent,
                Err(error) => return Some(Err(error)),
            },
        };
        let first = extent.intersection(Extent::between(
            extent.start(),
            extent.start().checked_add(PORTION).unwrap_or(ByteOffset(u64::MAX)),
        ));
        let rest = Extent::between(first.end(), extent.end());
        self.rest = (!rest.is_empty()).then_some(rest);
        Some(Ok(first))
    }
}
