//! What travels from a reader to a writer: a piece of a disk and what it holds.

use machine::{ByteCount, ByteOffset};

use crate::{Buffer, Extent};

/// The unit of the copy engine: extents are widened to it, zeros are looked for in it, image clusters have its size.
pub const GRAIN: ByteCount = ByteCount(GRAIN_BYTES as u64);

/// The same, as a length in memory.
pub(crate) const GRAIN_BYTES: usize = 64 << 10;

/// A piece of a disk. Readers give them in ascending order.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Where on the disk.
    pub offset: ByteOffset,
    /// What is there.
    pub content: Content,
}

/// What a piece of a disk holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes, at most [`BUFFER_SIZE`](crate::BUFFER_SIZE).
    Data(Buffer),
    /// That many zeros.
    Zero(ByteCount),
    /// That many bytes which could not be read; a writer leaves zeros in their place.
    Unreadable(ByteCount),
}

impl Chunk {
    /// Bytes of the disk that it covers.
    pub fn length(&self) -> ByteCount {
        match &self.content {
            Content::Data(buffer) => buffer.len().into(),
            Content::Zero(length) | Content::Unreadable(length) => *length,
        }
    }

    /// Where it lies on the disk, or `None` if it would pass 2⁶⁴ (a chunk from the wire may).
    pub fn extent(&self) -> Option<Extent> {
        Extent::new(self.offset, self.length())
    }
}
