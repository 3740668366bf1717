//! Reads the used extents of a disk in ascending order, ahead of who consumes them.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use machine::{ByteCount, ByteOffset};

use crate::chunk::GRAIN_BYTES;
use crate::file::shrank;
use crate::queue::{Queue, Transfer, open_direct};
use crate::recover::Recovery;
use crate::zero::is_zero;
use crate::{
    BUFFER_ALIGNMENT, BUFFER_SIZE, BlockSource, Buffer, BufferMut, Chunk, Content, Error, Extent, ExtentIter, GRAIN,
    Pool, Result, grains,
};

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
    pieces: PieceReader<'a>,
    ready: VecDeque<Chunk>,
}

impl<'a> ExtentReader<'a> {
    /// A reader of `extents` (ascending) of `source`.
    pub fn new(source: Arc<dyn BlockSource>, extents: ExtentIter<'a>, options: ReadOptions) -> Self {
        Self { pieces: PieceReader::new(source, extents, options), ready: VecDeque::new() }
    }
}

impl Iterator for ExtentReader<'_> {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            match self.pieces.next()? {
                Ok(piece) => split_piece(&piece, &mut self.ready),
                Err(error) => return Some(Err(error)),
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

/// What one read gave.
pub(crate) struct Piece {
    pub(crate) offset: ByteOffset,
    pub(crate) data: Buffer,
    /// Extents of the disk in it that could not be read (zeros stand there); ascending, not touching.
    pub(crate) bad: Vec<Extent>,
}

/// Reads extents in pieces of at most 1 MiB, several ahead, and gives them in order.
pub(crate) struct PieceReader<'a> {
    source: Arc<dyn BlockSource>,
    extents: ExtentIter<'a>,
    current: Extent,
    options: ReadOptions,
    /// Made when the first piece is asked for.
    queue: Option<Queue>,
    direct: Option<File>,
    pool: Pool,
    /// In the order of the disk; the front's number is `first`.
    pieces: VecDeque<Pending>,
    first: u64,
    exhausted: bool,
    failed: bool,
    /// An error of the extents, told after the pieces before it.
    failure: Option<Error>,
}

struct Pending {
    extent: Extent,
    outcome: Option<(BufferMut, Result<usize>)>,
}

impl<'a> PieceReader<'a> {
    /// Reads `extents` widened to grains.
    pub(crate) fn new(source: Arc<dyn BlockSource>, extents: ExtentIter<'a>, options: ReadOptions) -> Self {
        let extents = grains(extents, GRAIN, source.size());
        Self::exact(source, extents, options)
    }

    /// Reads `extents` as they are.
    pub(crate) fn exact(source: Arc<dyn BlockSource>, extents: ExtentIter<'a>, options: ReadOptions) -> Self {
        let options = ReadOptions { queue_depth: options.queue_depth.clamp(1, 64), ..options };
        Self {
            pool: Pool::new(options.queue_depth * 2),
            source,
            extents,
            current: Extent::first(ByteCount::ZERO),
            options,
            queue: None,
            direct: None,
            pieces: VecDeque::new(),
            first: 0,
            exhausted: false,
            failed: false,
            failure: None,
        }
    }

    fn start_queue(&mut self) -> Queue {
        let depth = self.options.queue_depth;
        let Some(raw) = self.source.raw_file() else {
            return Queue::workers(depth, read_through(Arc::clone(&self.source)));
        };
        self.direct = if self.options.direct { open_direct(raw, false) } else { None };
        let duplicate = || match &self.direct {
            Some(direct) => direct.try_clone(),
            None => raw.try_clone_to_owned().map(File::from),
        };
        if let Ok(queue) = duplicate().and_then(|file| Queue::ring(file, depth)) {
            return queue;
        }
        match duplicate() {
            Ok(file) => Queue::workers(depth, read_file(file)),
            Err(_) => {
                self.direct = None;
                Queue::workers(depth, read_through(Arc::clone(&self.source)))
            }
        }
    }

    /// The next piece to be read: never across a multiple of 1 MiB.
    fn next_extent(&mut self) -> Option<Extent> {
        while self.current.is_empty() {
            match self.extents.next() {
                Some(Ok(extent)) => self.current = extent,
                Some(Err(error)) => {
                    self.failure = Some(error);
                    return None;
                }
                None => return None,
            }
        }
        let start = self.current.start();
        let boundary = start.round_down(ByteCount(BUFFER_SIZE as u64)).0.saturating_add(BUFFER_SIZE as u64);
        let piece = self.current.intersection(Extent::between(start, ByteOffset(boundary)));
        self.current = Extent::between(piece.end(), self.current.end());
        Some(piece)
    }

    /// Keeps as many reads in flight as wanted.
    fn fill(&mut self) -> Result<()> {
        while !self.exhausted && self.pieces.len() < self.options.queue_depth {
            let Some(extent) = self.next_extent() else {
                self.exhausted = true;
                break;
            };
            let mut queue = match self.queue.take() {
                Some(queue) => queue,
                None => self.start_queue(),
            };
            let length = piece_length(extent);
            // Direct I/O moves whole sectors; at the end of the disk it comes back short.
            let asked = if self.direct.is_some() { length.next_multiple_of(BUFFER_ALIGNMENT) } else { length };
            let tag = self.first + self.pieces.len() as u64;
            self.pieces.push_back(Pending { extent, outcome: None });
            let submitted = queue.submit(tag, extent.start(), Transfer::Read(self.pool.take(), asked));
            self.queue = Some(queue);
            submitted?;
        }
        Ok(())
    }

    /// Waits until the front piece was read and takes it.
    fn take_front(&mut self) -> Result<Option<(Extent, BufferMut, Result<usize>)>> {
        while self.pieces.front().is_some_and(|front| front.outcome.is_none()) {
            let done = match &mut self.queue {
                Some(queue) => queue.complete()?,
                None => None,
            };
            let Some(done) = done else {
                unreachable!("a piece without an outcome is in flight");
            };
            let index = usize::try_from(done.tag - self.first).expect("within the queue's depth");
            if let Transfer::Read(buffer, _) = done.transfer {
                self.pieces[index].outcome = Some((buffer, done.result));
            }
        }
        let front = self.pieces.pop_front();
        self.first += u64::from(front.is_some());
        Ok(front.and_then(|front| front.outcome.map(|(buffer, result)| (front.extent, buffer, result))))
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        self.fill()?;
        let Some((extent, mut buffer, result)) = self.take_front()? else {
            return self.failure.take().map_or(Ok(None), Err);
        };
        let length = piece_length(extent);
        let bad = match result {
            Ok(count) if count >= length => Vec::new(),
            short_or_failed => {
                let shrunk = short_or_failed.is_ok_and(|_| self.source_length().is_some_and(|end| end < extent.end()));
                if shrunk {
                    return Err(shrank(extent.start(), self.source.size()));
                }
                let recovery = Recovery { source: &*self.source, direct: self.direct.as_ref(), options: &self.options };
                recovery.read(extent, &mut buffer[..length])?
            }
        };
        Ok(Some(Piece { offset: extent.start(), data: buffer.freeze(length), bad }))
    }

    /// Where the file behind the source ends now.
    fn source_length(&self) -> Option<ByteOffset> {
        let raw = self.source.raw_file()?;
        rustix::fs::seek(raw, rustix::fs::SeekFrom::End(0)).ok().map(ByteOffset)
    }
}

impl Iterator for PieceReader<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let piece = self.next_piece().transpose();
        self.failed = matches!(piece, Some(Err(_)));
        piece
    }
}

fn piece_length(extent: Extent) -> usize {
    usize::try_from(extent.length().0).expect("a piece is at most 1 MiB")
}

/// Reads by the source's own means.
fn read_through(source: Arc<dyn BlockSource>) -> Arc<crate::queue::Perform> {
    Arc::new(move |offset, transfer| {
        let Transfer::Read(buffer, length) = transfer else { unreachable!("a reader only reads") };
        source.read_at(offset, &mut buffer[..*length]).map(|()| *length)
    })
}

/// Positioned reads, up to the end of the file.
fn read_file(file: File) -> Arc<crate::queue::Perform> {
    Arc::new(move |offset, transfer| {
        let Transfer::Read(buffer, length) = transfer else { unreachable!("a reader only reads") };
        let mut count = 0;
        while count < *length {
            match file.read_at(&mut buffer[count..*length], offset.0 + count as u64) {
                Ok(0) => break,
                Ok(n) => count += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("cannot read", e).at(offset)),
            }
        }
        Ok(count)
    })
}

/// Makes chunks of a piece: grains with an unreadable sector are cut at it, the others are tested for zeros.
fn split_piece(piece: &Piece, into: &mut VecDeque<Chunk>) {
    let end = piece.offset + piece.data.len().into();
    let part = |from: ByteOffset, to: ByteOffset| {
        let at = |offset: ByteOffset| (offset - piece.offset).to_usize().expect("within a piece");
        piece.data.slice(at(from)..at(to))
    };
    let mut offset = piece.offset;
    for bad in &piece.bad {
        let whole = bad.start().round_down(GRAIN).max(offset);
        if offset.0.is_multiple_of(GRAIN.0) && offset < whole {
            split_zeros(offset, part(offset, whole), into);
            offset = whole;
        }
        if offset < bad.start() {
            into.push_back(Chunk { offset, content: Content::Data(part(offset, bad.start())) });
        }
        into.push_back(Chunk { offset: bad.start(), content: Content::Unreadable(bad.length()) });
        offset = bad.end();
        // Up to the next grain (or bad sector) the rest is data as it is.
        let rest = offset.checked_round_up(GRAIN).unwrap_or(end).min(end);
        let next_bad = piece.bad.iter().map(|e| e.start()).find(|&start| start >= offset).unwrap_or(end);
        let rest = rest.min(next_bad);
        if offset < rest {
            into.push_back(Chunk { offset, content: Content::Data(part(offset, rest)) });
            offset = rest;
        }
    }
    if offset < end {
        split_zeros(offset, part(offset, end), into);
    }
}

/// Cuts a piece that begins at a grain into runs of data and of zero grains.
fn split_zeros(offset: ByteOffset, data: Buffer, into: &mut VecDeque<Chunk>) {
    let grain = GRAIN_BYTES;
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
