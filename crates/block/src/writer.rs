//! Writing a new image front to back, and going on with one that was interrupted.

use std::path::Path;

use machine::{ByteCount, ByteOffset};

use crate::formats::{qcow2::Qcow2Writer, raw::RawWriter};
use crate::grain::GrainWriter;
use crate::output::Output;
use crate::{Chunk, ExtentIter, Format, Result};

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
) -> Result<Box<dyn ImageWriter>> {
    if format == Format::Qcow2 {
        Qcow2Writer::check_size(size)?;
    }
    let output = Output::create(path, options)?;
    Ok(match format {
        Format::Raw => Box::new(GrainWriter::new(RawWriter::create(output, size, options.full)?, size)),
        Format::Qcow2 => Box::new(GrainWriter::new(Qcow2Writer::create(output, size, options.full)?, size)),
    })
}

/// Goes on with an image that was not finished. `written` are the extents that hold data and were made durable, in
/// ascending order (see [`journal`](crate::journal)); everything else in the file is discarded. The next chunk begins at or
/// behind the end of the last extent. What comes out is byte for byte what an uninterrupted run would have made.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind) if the file is too short for what `written` says, or what the operating
/// system said.
pub fn resume_image(
    path: &Path,
    format: Format,
    size: ByteCount,
    written: ExtentIter<'_>,
    options: &CreateOptions,
) -> Result<Box<dyn ImageWriter>> {
    let written = crate::grains(written, crate::GRAIN, size);
    let output = Output::open(path, options)?;
    Ok(match format {
        Format::Raw => {
            let (writer, end) = RawWriter::resume(output, size, options.full, written)?;
            Box::new(GrainWriter::resume(writer, size, end))
        }
        Format::Qcow2 => {
            let (writer, end) = Qcow2Writer::resume(output, size, options.full, written)?;
            Box::new(GrainWriter::resume(writer, size, end))
        }
    })
}
