//! Writing a new image front to back, and going on with one that was interrupted.

use std::path::Path;

use machine::{ByteCount, ByteOffset};

use crate::formats::{qcow2::Qcow2Writer, raw::RawWriter};
use crate::grain::GrainWriter;
use crate::output::Output;
use crate::{Chunk, Extent, Format, Result};

/// An image being written. It begins as zeros, so zeros need no writing; chunks come in ascending order.
///
/// Until [`ImageWriter::finish`] the file is not a valid image (a qcow2 has no header yet), and it is left behind when
/// the writer is dropped: what was made durable can be gone on with by [`resume_image`].
pub trait ImageWriter: Send {
    /// Writes a chunk, or begins to: a failure may be told by a later call. Chunks ascend and do not overlap; gaps
    /// between them read as zeros.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind) for a chunk that ends beyond the disk or begins before the end of
    /// an earlier one, [`ErrorKind::NoSpace`](crate::ErrorKind), or what the operating system said.
    fn write(&mut self, chunk: Chunk) -> Result<()>;

    /// Makes what was written durable and returns up to where: every byte before it survives a crash. It lies behind
    /// the end of the last chunk only where that ends within a [`GRAIN`](crate::GRAIN).
    ///
    /// # Errors
    /// As [`ImageWriter::write`].
    fn sync(&mut self) -> Result<ByteOffset>;

    /// Completes the image and makes it durable; returns the length of its file.
    ///
    /// # Errors
    /// As [`ImageWriter::write`].
    fn finish(self: Box<Self>) -> Result<ByteCount>;

    /// Bytes handed to the file so far, metadata included.
    fn bytes_written(&self) -> ByteCount;
}

/// An image being written, in which what was written can be replaced: its source went on changing.
pub trait ImageEditor: ImageWriter {
    /// Reads what was written so far, durable or not; what was not is zeros.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind) for what the disk does not have, or what the operating system said.
    fn read_back(&mut self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()>;

    /// Replaces what was written at `offset`, all of it before the last durable end. Returns the extents that had no place in
    /// the file before and got one, in that order; they must be told to [`resume_image`].
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind), and as [`ImageWriter::write`].
    fn replace(&mut self, offset: ByteOffset, data: &[u8]) -> Result<Vec<Extent>>;
}

/// How an image is made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// How much data will be written about; refused at once where the filesystem has less room.
    pub expected: Option<ByteCount>,
    /// Write past the page cache where the filesystem can.
    pub direct: bool,
    /// Give the image all the room that its disk can ever take, so that the guest never finds its host full. A filesystem
    /// that cannot set room aside is refused.
    pub full: bool,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { expected: None, direct: true, full: false }
    }
}

/// Makes a new image of a disk of `size` at `path`, which must not exist.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind) if `path` exists, [`ErrorKind::NoSpace`](crate::ErrorKind) if the expected data
/// does not fit, [`ErrorKind::Unsupported`](crate::ErrorKind) if the format cannot hold such a disk.
pub fn create_image(
    path: &Path,
    format: Format,
    size: ByteCount,
    options: &CreateOptions,
) -> Result<Box<dyn ImageEditor>> {
    if format == Format::Qcow2 {
        Qcow2Writer::check_size(size)?;
    }
    let output = Output::create(path, options)?;
    Ok(match format {
        Format::Raw => Box::new(GrainWriter::new(RawWriter::create(output, size, options.full)?, size)),
        Format::Qcow2 => Box::new(GrainWriter::new(Qcow2Writer::create(output, size, options.full)?, size)),
    })
}

/// An extent that has its place in the file of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// By [`ImageWriter::write`]; these ascend.
    Written(Extent),
    /// By [`ImageEditor::replace`], which was made durable.
    Replaced(Extent),
}

/// The extents of an image in the order in which they got their places.
pub type PlacedIter<'a> = Box<dyn Iterator<Item = Result<Placed>> + Send + 'a>;

/// Goes on with an image, whether it was finished or not. `placed` are the extents that hold data and were made durable (see
/// [`journal`](crate::journal)); everything else in the file is discarded. The next chunk begins at or behind the end of the
/// last that was written. Where nothing was replaced, what comes out is byte for byte what an uninterrupted run would have made.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind) if the file is too short for what `written` says, or what the operating
/// system said.
pub fn resume_image(
    path: &Path,
    format: Format,
    size: ByteCount,
    placed: PlacedIter<'_>,
    options: &CreateOptions,
) -> Result<Box<dyn ImageEditor>> {
    let output = Output::open(path, options)?;
    Ok(match format {
        Format::Raw => {
            let (writer, end) = RawWriter::resume(output, size, options.full, placed)?;
            Box::new(GrainWriter::resume(writer, size, end))
        }
        Format::Qcow2 => {
            let (writer, end) = Qcow2Writer::resume(output, size, options.full, placed)?;
            Box::new(GrainWriter::resume(writer, size, end))
        }
    })
}
