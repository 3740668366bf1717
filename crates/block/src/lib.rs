//! Extents, block sources and sinks, the copy engine, and disk image formats.
//!
//! Everything here is synchronous: disks are read and written by threads with positioned I/O. Nothing here knows what
//! lies on a disk (`volume` does), how frames travel (`protocol` does) or what a task is.

mod error;
mod extent;
mod map;
mod source;

pub use error::{Error, ErrorKind, Result};
pub use extent::Extent;
pub use map::{AllocationMap, Everything, ExtentIter, clip, grains, intersect};
pub use source::{BlockSource, MemorySource, Slice, check_bounds};
