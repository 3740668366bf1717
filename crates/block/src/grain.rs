//! Makes whole grains of the chunks that an image writer is given.
//!
//! Aligned data passes through untouched. Fragments (around an unreadable sector, at the end of a disk) are gathered in
//! one buffer until their grain is complete.

use machine::{ByteCount, ByteOffset};

use crate::chunk::GRAIN_BYTES;
use crate::{
    Buffer, BufferMut, Chunk, Content, Error, ErrorKind, Extent, GRAIN, ImageEditor, ImageWriter, Pool, Result,
};

/// An image format, given whole grains in ascending order.
pub(crate) trait GrainSink: Send {
    /// Stores `data` at `offset`: both are multiples of [`GRAIN`]; the last grain of a disk is padded with zeros.
    fn put(&mut self, offset: ByteOffset, data: Buffer) -> Result<()>;
    /// Reads one grain that was put, or zeros where none was.
    fn get(&mut self, offset: ByteOffset, grain: &mut [u8]) -> Result<()>;
    /// Puts one grain in the place of what is there; tells whether it had no place in the file before and got one.
    fn replace(&mut self, offset: ByteOffset, data: Buffer) -> Result<bool>;
    /// Waits until everything put is durable.
    fn sync(&mut self) -> Result<()>;
    /// Completes the image; returns the file's length.
    fn finish(self) -> Result<ByteCount>;
    /// Bytes handed to the file.
    fn bytes_written(&self) -> ByteCount;
}

/// The [`ImageWriter`] around a format.
pub(crate) struct GrainWriter<S> {
    sink: S,
    size: ByteCount,
    /// End of the last chunk.
    next: ByteOffset,
    partial: Option<Partial>,
    pool: Pool,
}

/// The beginning of a grain; zeros behind what was filled in.
struct Partial {
    offset: ByteOffset,
    bytes: BufferMut,
}

impl<S: GrainSink> GrainWriter<S> {
    pub(crate) fn new(sink: S, size: ByteCount) -> Self {
        Self::resume(sink, size, ByteOffset::ZERO)
    }

    pub(crate) fn resume(sink: S, size: ByteCount, next: ByteOffset) -> Self {
        Self { sink, size, next, partial: None, pool: Pool::new(1) }
    }

    /// The extent of `length` bytes at `offset`, if the disk has it.
    fn bounded(&self, offset: ByteOffset, length: usize) -> Result<Extent> {
        let extent = Extent::new(offset, length.into()).filter(|&extent| Extent::first(self.size).contains(extent));
        extent.ok_or_else(|| Error::out_of_bounds(offset, length.into(), self.size))
    }

    /// Writes the grain that was being gathered, if it ends at or before `offset`.
    fn complete_grain(&mut self, offset: ByteOffset) -> Result<()> {
        let ends = |partial: &Partial| {
            let end =
                Extent::between(partial.offset, partial.offset + GRAIN).intersection(Extent::first(self.size)).end();
            end <= offset
        };
        match self.partial.take_if(|partial| ends(partial)) {
            Some(partial) => self.sink.put(partial.offset, partial.bytes.freeze(GRAIN_BYTES)),
            None => Ok(()),
        }
    }

    fn put_data(&mut self, mut offset: ByteOffset, mut data: Buffer) -> Result<()> {
        while !data.is_empty() {
            let grain = offset.round_down(GRAIN);
            let skip = GRAIN_BYTES.min(usize::try_from((offset - grain).0).unwrap_or(GRAIN_BYTES));
            let whole = data.len() - data.len() % GRAIN_BYTES;
            let taken = if skip == 0 && whole > 0 {
                self.sink.put(offset, data.slice(0..whole))?;
                whole
            } else {
                let taken = data.len().min(GRAIN_BYTES - skip);
                let partial = self.partial.get_or_insert_with(|| {
                    let mut bytes = self.pool.take();
                    bytes[..GRAIN_BYTES].fill(0);
                    Partial { offset: grain, bytes }
                });
                partial.bytes[skip..skip + taken].copy_from_slice(&data[..taken]);
                self.complete_grain(offset + taken.into())?;
                taken
            };
            offset += taken.into();
            data = data.slice(taken..data.len());
        }
        Ok(())
    }
}

/// The pieces of `extent`, each within its grain: the grain's start, where the piece begins in it, its length.
fn pieces(extent: Extent) -> impl Iterator<Item = (ByteOffset, usize, usize)> {
    let mut at = extent.start();
    std::iter::from_fn(move || {
        if at >= extent.end() {
            return None;
        }
        let grain = at.round_down(GRAIN);
        let skip = usize::try_from((at - grain).0).unwrap_or(0);
        let rest = (extent.end() - at).to_usize().unwrap_or(usize::MAX);
        let taken = rest.min(GRAIN_BYTES - skip);
        at += taken.into();
        Some((grain, skip, taken))
    })
}

impl<S: GrainSink> ImageEditor for GrainWriter<S> {
    fn read_back(&mut self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        let extent = self.bounded(offset, buffer.len())?;
        let mut grain = self.pool.take();
        for (at, skip, taken) in pieces(extent) {
            match &self.partial {
                Some(partial) if partial.offset == at => {
                    grain[..GRAIN_BYTES].copy_from_slice(&partial.bytes[..GRAIN_BYTES])
                }
                _ => self.sink.get(at, &mut grain[..GRAIN_BYTES])?,
            }
            let to = usize::try_from((at + skip.into() - offset).0).unwrap_or(usize::MAX);
            buffer[to..to + taken].copy_from_slice(&grain[skip..skip + taken]);
        }
        Ok(())
    }

    fn replace(&mut self, offset: ByteOffset, data: &[u8]) -> Result<Vec<Extent>> {
        let extent = self.bounded(offset, data.len())?;
        if let Some(partial) = self.partial.as_ref().filter(|partial| partial.offset < extent.end()) {
            return Err(Error::new(ErrorKind::OutOfBounds, "what is being written is not replaced").at(partial.offset));
        }
        let mut placed: Vec<Extent> = Vec::new();
        for (at, skip, taken) in pieces(extent) {
            let mut grain = self.pool.take();
            if taken < GRAIN_BYTES {
                self.sink.get(at, &mut grain[..GRAIN_BYTES])?;
            }
            let from = usize::try_from((at + skip.into() - offset).0).unwrap_or(usize::MAX);
            grain[skip..skip + taken].copy_from_slice(&data[from..from + taken]);
            if self.sink.replace(at, grain.freeze(GRAIN_BYTES))? {
                let grain = Extent::between(at, at + GRAIN).intersection(Extent::first(self.size));
                match placed.last_mut() {
                    Some(last) if last.end() == grain.start() => *last = Extent::between(last.start(), grain.end()),
                    _ => placed.push(grain),
                }
            }
        }
        Ok(placed)
    }
}

impl<S: GrainSink> ImageWriter for GrainWriter<S> {
    fn write(&mut self, chunk: Chunk) -> Result<()> {
        let extent = chunk
            .extent()
            .filter(|&extent| Extent::first(self.size).contains(extent))
            .ok_or_else(|| Error::out_of_bounds(chunk.offset, chunk.length(), self.size))?;
        if extent.start() < self.next {
            let context = format!("chunks must ascend: expected one at or behind {}", self.next);
            return Err(Error { offset: Some(extent.start()), ..Error::new(ErrorKind::OutOfBounds, context) });
        }
        self.complete_grain(extent.start())?;
        if let Content::Data(data) = chunk.content {
            self.put_data(extent.start(), data)?;
        }
        self.complete_grain(extent.end())?;
        self.next = extent.end();
        Ok(())
    }

    fn sync(&mut self) -> Result<ByteOffset> {
        self.sink.sync()?;
        let at_end = self.next == Extent::first(self.size).end();
        Ok(if at_end { self.next } else { self.next.round_down(GRAIN) })
    }

    fn finish(mut self: Box<Self>) -> Result<ByteCount> {
        self.complete_grain(ByteOffset(u64::MAX))?;
        self.sink.finish()
    }

    fn bytes_written(&self) -> ByteCount {
        self.sink.bytes_written()
    }
}
