//! Whether an image holds what its source held: BLAKE3 hashes of the used blocks of both, a piece of 1 MiB at a time.

use std::ops::ControlFlow;
use std::sync::Arc;

use machine::{ByteCount, ByteOffset};

use crate::reader::PieceReader;
use crate::{BlockSource, Error, ErrorKind, Extent, ExtentIter, ReadOptions, Result};

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

    /// Takes the two sides' hashes of one piece into account.
    pub fn compare(&mut self, source: PieceHash, image: PieceHash) {
        let extent = source.extent;
        self.compared += extent.length();
        if source == image {
            return;
        }
        self.differing += extent.length();
        let room = self.differences.len() < DIFFERENCES_MAX;
        match self.differences.last_mut() {
            Some(last) if last.end() == extent.start() => *last = Extent::between(last.start(), extent.end()),
            _ if room => self.differences.push(extent),
            _ => {}
        }
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

/// The hashes of the used pieces of a disk, in ascending order. `used` is widened to whole grains, so that two sides
/// with the same used extents make the same pieces.
pub fn hash_pieces<'a>(
    source: Arc<dyn BlockSource>,
    used: ExtentIter<'a>,
    options: ReadOptions,
) -> impl Iterator<Item = Result<PieceHash>> + use<'a> {
    PieceReader::new(source, used, options).map(|piece| {
        let piece = piece?;
        if let Some(bad) = piece.bad.first() {
            let context = "cannot hash what cannot be read";
            return Err(Error { offset: Some(bad.start()), ..Error::new(ErrorKind::Unreadable, context) });
        }
        let extent = Extent::between(piece.offset, piece.offset + piece.data.len().into());
        Ok(PieceHash { extent, hash: *blake3::hash(&piece.data).as_bytes() })
    })
}

/// Compares the `used` blocks of `source` with those of `image`, which may be larger. `progress` is called after every
/// few MiB and ends the comparison by `Break`.
///
/// # Errors
/// [`ErrorKind::OutOfBounds`] if the image is smaller than the disk; [`ErrorKind::Cancelled`] after a `Break`; what
/// reading gives.
pub fn verify(
    source: Arc<dyn BlockSource>,
    used: ExtentIter<'_>,
    image: Arc<dyn BlockSource>,
    options: &ReadOptions,
    progress: &mut dyn FnMut(&Verification) -> ControlFlow<()>,
) -> Result<Verification> {
    if image.size() < source.size() {
        return Err(Error::out_of_bounds(ByteOffset::ZERO, source.size(), image.size()));
    }
    let mut result = Verification::default();
    let size = source.size();
    let mut hashes = hash_pieces(source, used, options.clone());
    // The image is asked for just the pieces that the source gave, a few at a time, so that both are read ahead.
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        for hash in hashes.by_ref().take(BATCH) {
            batch.push(hash?);
        }
        if batch.is_empty() {
            return Ok(result);
        }
        let pieces: Vec<_> = batch.iter().map(|hash| Ok(hash.extent.intersection(Extent::first(size)))).collect();
        let found = PieceReader::exact(Arc::clone(&image), Box::new(pieces.into_iter()), options.clone());
        for (expected, found) in batch.into_iter().zip(found) {
            let found = found?;
            let extent = Extent::between(found.offset, found.offset + found.data.len().into());
            result.compare(expected, PieceHash { extent, hash: *blake3::hash(&found.data).as_bytes() });
        }
        if progress(&result).is_break() {
            return Err(Error::new(ErrorKind::Cancelled, "the comparison was cancelled"));
        }
    }
}

const BATCH: usize = 64;
