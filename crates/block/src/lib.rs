//! Extents, block sources and sinks, the copy engine, and disk image formats.
//!
//! Everything here is synchronous: disks are read and written by threads with positioned I/O. Nothing here knows what
//! lies on a disk (`volume` does), how frames travel (`protocol` does) or what a task is.

mod buffer;
mod chunk;
mod copy;
mod error;
mod extent;
pub mod fault;
mod file;
mod foreign;
mod format;
mod formats;
mod grain;
pub mod journal;
mod map;
mod open;
mod output;
mod queue;
mod reader;
mod recover;
mod ring;
mod scope;
mod source;
mod verify;
mod writer;
mod zero;

pub use buffer::{BUFFER_ALIGNMENT, BUFFER_SIZE, Buffer, BufferMut, Pool};
pub use chunk::{Chunk, Content, GRAIN};
pub use copy::{CopyOptions, Progress, copy};
pub use error::{Error, ErrorKind, Result};
pub use extent::Extent;
pub use file::FileSource;
pub use format::Format;
pub use map::{AllocationMap, Everything, ExtentIter, clip, grains, intersect};
pub use open::{Backing, OpenOptions, Opened, open_qcow2, open_source, open_source_with};
pub use reader::{ExtentReader, OnUnreadable, ReadOptions};
pub use scope::{Ranges, Scoped, hide};
pub use source::{BlockSource, MemorySource, Slice, check_bounds};
pub use verify::{DIFFERENCES_MAX, PieceHash, Verification, hash_pieces, verify};
pub use writer::{CreateOptions, ImageEditor, ImageWriter, Placed, PlacedIter, create_image, resume_image};
pub use zero::is_zero;
