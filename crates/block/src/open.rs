//! Finds out what a file is and opens it as a source.

use std::path::Path;
use std::sync::Arc;

use machine::{ByteOffset, SectorSize};

use crate::file::FileSource;
use crate::formats::qcow2;
use crate::{BlockSource, Error, ErrorKind, Format, Result};

/// A source and the format that was found.
pub struct Opened {
    /// What can be read.
    pub source: Arc<dyn BlockSource>,
    /// What it was read from.
    pub format: Format,
}

/// How a source is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The format, where it is known; a block device is raw unless this says otherwise, whatever its first bytes are.
    pub format: Option<Format>,
    /// The logical sector size of the disk that an image was made of; without it 512. A block device tells its own.
    pub logical_sector_size: Option<SectorSize>,
    /// Whether an image may name another as its backing file.
    pub backing: Backing,
}

/// Whether backing files are followed. Their names are untrusted: only a plain relative path into the image's own
/// folder is ever opened, and a chain has at most eight images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// An image with a backing file is refused.
    #[default]
    Refuse,
    /// A backing file in the image's own folder is opened.
    SameFolder,
}

/// Opens a raw file, block device or qcow2 image read-only, with the defaults of [`OpenOptions`].
///
/// # Errors
/// As [`open_source_with`].
pub fn open_source(path: &Path) -> Result<Opened> {
    open_source_with(path, &OpenOptions::default())
}

/// Opens a raw file, block device or qcow2 image read-only.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for another image format (it is named) or a feature that is not supported,
/// [`ErrorKind::Malformed`] for a damaged image, or what the operating system said.
pub fn open_source_with(path: &Path, options: &OpenOptions) -> Result<Opened> {
    let file = FileSource::open(path, options.logical_sector_size)?;
    let format = match options.format {
        Some(format) => format,
        None if file.is_block_device() => Format::Raw,
        None => detect_format(&file)?,
    };
    match format {
        Format::Raw => Ok(Opened { source: Arc::new(file), format }),
        Format::Qcow2 => Err(Error::new(ErrorKind::Unsupported, "reading qcow2 arrives with the next merge")),
    }
}

fn detect_format(file: &FileSource) -> Result<Format> {
    let mut start = [0; 4];
    if file.size().0 >= 4 {
        file.read_at(ByteOffset::ZERO, &mut start)?;
    }
    Ok(if start == qcow2::MAGIC { Format::Qcow2 } else { Format::Raw })
}
