//! Raw images: the disk's bytes at their own offsets, holes where nothing was written, or room for all of it.

use machine::{ByteCount, ByteOffset};

use crate::grain::GrainSink;
use crate::output::Output;
use crate::{Buffer, Error, ErrorKind, Extent, GRAIN, Placed, PlacedIter, Result};

/// Writes a raw image.
pub(crate) struct RawWriter {
    output: Output,
    size: ByteCount,
}

impl RawWriter {
    pub(crate) fn create(mut output: Output, size: ByteCount, full: bool) -> Result<Self> {
        output.set_length(size)?;
        if full {
            output.allocate(size)?;
        }
        Ok(Self { output, size })
    }

    /// The writer and the end of what is kept.
    pub(crate) fn resume(
        mut output: Output,
        size: ByteCount,
        full: bool,
        placed: PlacedIter<'_>,
    ) -> Result<(Self, ByteOffset)> {
        let mut end = ByteOffset::ZERO;
        for placed in placed {
            let (Placed::Written(extent) | Placed::Replaced(extent)) = placed?;
            let grain = extent.end().checked_round_up(GRAIN).unwrap_or(extent.end());
            end = end.max(grain.min(Extent::first(size).end()));
        }
        let length = output.length()?;
        if length.0 < end.0 {
            let context = format!("raw image has {} bytes: expected at least {} as its journal says", length.0, end.0);
            return Err(Error::new(ErrorKind::Malformed, context));
        }
        output.set_length(ByteCount(end.0))?;
        output.set_length(size)?;
        if full {
            output.allocate(size)?;
        }
        Ok((Self { output, size }, end))
    }
}

impl GrainSink for RawWriter {
    fn put(&mut self, offset: ByteOffset, data: Buffer) -> Result<()> {
        // The last grain was padded; the image ends with the disk.
        let room = Extent::first(self.size).end().saturating_since(offset).to_usize().unwrap_or(usize::MAX);
        let length = data.len().min(room);
        self.output.write(offset, data.slice(0..length))
    }

    fn get(&mut self, offset: ByteOffset, grain: &mut [u8]) -> Result<()> {
        let room = Extent::first(self.size).end().saturating_since(offset).to_usize().unwrap_or(usize::MAX);
        let length = grain.len().min(room);
        grain[length..].fill(0);
        self.output.read(offset, &mut grain[..length])
    }

    fn replace(&mut self, offset: ByteOffset, data: Buffer) -> Result<bool> {
        self.output.drain()?; // the same place may have been written a moment ago
        self.put(offset, data)?;
        // Told, although a hole has its place already: what lies behind all that was told is cut off.
        Ok(true)
    }

    fn sync(&mut self) -> Result<()> {
        self.output.sync()
    }

    fn finish(mut self) -> Result<ByteCount> {
        self.output.sync()?;
        Ok(self.size)
    }

    fn bytes_written(&self) -> ByteCount {
        self.output.bytes_written()
    }
}
