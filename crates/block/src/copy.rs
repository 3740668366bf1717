//! The local copy: a source's used extents into an image, and the check afterwards.

use std::ops::ControlFlow;
use std::sync::Arc;

use machine::{ByteCount, ByteOffset};

use crate::{
    BlockSource, Content, Error, ErrorKind, Extent, ExtentIter, ExtentReader, ImageWriter, ReadOptions, Result,
};

/// How a copy is made.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// How the source is read.
    pub read: ReadOptions,
    /// After how many bytes the image is made durable on the way; `None` leaves that to its end.
    pub sync_every: Option<ByteCount>,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { read: ReadOptions::default(), sync_every: None }
    }
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Everything before this offset of the disk was dealt with.
    pub position: ByteOffset,
    /// Bytes of the wanted extents that were read (in whole grains).
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

/// Copies `used` (ascending) of `source` into `image`, which is left unfinished, and returns the totals. `progress` is
/// called after each chunk (at most 1 MiB of data) and ends the copy by `Break`.
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
    let mut done = Progress::default();
    let mut unsynced = ByteCount::ZERO;
    for chunk in ExtentReader::new(source, used, options.read.clone()) {
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
        done.position = chunk.offset + length;
        image.write(chunk)?;
        if options.sync_every.is_some_and(|interval| unsynced >= interval) {
            image.sync()?;
            unsynced = ByteCount::ZERO;
        }
        done.written = image.bytes_written();
        if progress(&done).is_break() {
            return Err(Error::new(ErrorKind::Cancelled, "the copy was cancelled"));
        }
    }
    done.written = image.bytes_written();
    Ok(done)
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Bytes compared on each side.
    pub compared: ByteCount,
    /// Bytes in pieces that differ.
    pub differing: ByteCount,
    /// The pieces that differ, neighbours joined; the first [`DIFFERENCES_MAX`] of them.
    pub differences: Vec<Extent>,
}

/// How many differing extents a [`Verification`] lists.
pub const DIFFERENCES_MAX: usize = 1024;

impl Verification {
    /// Whether everything is equal.
    pub fn is_equal(&self) -> bool {
        self.differing.is_zero()
    }
}

/// The BLAKE3 hash of a piece of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceHash {
    /// Which piece: at most 1 MiB, never across a multiple of it.
    pub extent: Extent,
    /// Its hash.
    pub hash: [u8; 32],
}
