//! Reads the used extents of a disk in ascending order, ahead of who consumes them.

use std::collections::VecDeque;
use std::sync::Arc;

use machine::{ByteCount, ByteOffset};

use crate::zero::is_zero;
use crate::{BUFFER_SIZE, BlockSource, Buffer, Chunk, Content, Extent, ExtentIter, GRAIN, Pool, Result, grains};

/// What to do with a sector that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnreadable {
    /// End with the error, which tells the first such sector.
    #[default]
    Stop,
    /// Give [`Content::Unreadable`] for it and go on.
    Skip,
}

/// How a source is read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Reads of 1 MiB in flight.
    pub queue_depth: usize,
    /// Read past the page cache where the kernel can.
    pub direct: bool,
    /// What to do with a sector that cannot be read.
    pub on_unreadable: OnUnreadable,
    /// How often a failed read is tried again before it is split, and at last given up.
    pub retries: u32,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { queue_depth: 8, direct: true, on_unreadable: OnUnreadable::Stop, retries: 1 }
    }
}

/// Gives what the wanted extents of a source hold, as [`Chunk`]s in ascending order.
///
/// Extents are widened to whole [`GRAIN`]s (and end with the disk); runs of zero grains come as [`Content::Zero`]. What
/// lies outside the extents is not reported at all. The first error ends the iteration.
pub struct ExtentReader<'a> {
    source: Arc<dyn BlockSource>,
    extents: ExtentIter<'a>,
    current: Extent,
    pool: Pool,
    ready: VecDeque<Chunk>,
    failed: bool,
}

impl<'a> ExtentReader<'a> {
    /// A reader of `extents` (ascending) of `source`.
    pub fn new(source: Arc<dyn BlockSource>, extents: ExtentIter<'a>, options: ReadOptions) -> Self {
        let extents = grains(extents, GRAIN, source.size());
        let pool = Pool::new(options.queue_depth);
        Self { source, extents, current: Extent::first(ByteCount::ZERO), pool, ready: VecDeque::new(), failed: false }
    }

    fn read_piece(&mut self) -> Result<bool> {
        if self.current.is_empty() {
            match self.extents.next().transpose()? {
                Some(extent) => self.current = extent,
                None => return Ok(false),
            }
        }
        let start = self.current.start();
        let boundary = start.round_down(ByteCount(BUFFER_SIZE as u64)).0.saturating_add(BUFFER_SIZE as u64);
        let piece = self.current.intersection(Extent::between(start, ByteOffset(boundary)));
        self.current = Extent::between(piece.end(), self.current.end());
        let mut buffer = self.pool.take();
        let length = piece.length().0 as usize;
        self.source.read_at(start, &mut buffer[..length])?;
        split_zeros(start, buffer.freeze(length), &mut self.ready);
        Ok(true)
    }
}

impl Iterator for ExtentReader<'_> {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.failed {
            match self.read_piece() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

/// Cuts a piece that begins at a grain into runs of data and of zero grains.
fn split_zeros(offset: ByteOffset, data: Buffer, into: &mut VecDeque<Chunk>) {
    let grain = GRAIN.0 as usize;
    let mut start = 0;
    while start < data.len() {
        let zero = |at: usize| is_zero(&data[at..data.len().min(at + grain)]);
        let first = zero(start);
        let mut end = start + grain;
        while end < data.len() && zero(end) == first {
            end += grain;
        }
        let end = end.min(data.len());
        let content = match first {
            true => Content::Zero((end - start).into()),
            false => Content::Data(data.slice(start..end)),
        };
        into.push_back(Chunk { offset: offset + start.into(), content });
        start = end;
    }
}
