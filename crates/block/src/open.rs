//! Finds out what a file is and opens it as a source.

use std::path::Path;
use std::sync::Arc;

use machine::SectorSize;

use crate::file::FileSource;
use crate::foreign::{detect_foreign, starts_with};
use crate::formats::qcow2::{self, BackingName, Qcow2Source};
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
    Refuse,
    /// A regular file in the image's own folder is opened, anything else refused.
    #[default]
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
    open_file(file, path, options, 0).map_err(|e| Error { context: format!("{}: {}", path.display(), e.context), ..e })
}

/// Opens the qcow2 image that `file` holds, which has no backing file.
///
/// # Errors
/// As [`open_source_with`], and [`ErrorKind::Unsupported`] where the image names a backing file.
pub fn open_qcow2(file: Arc<dyn BlockSource>) -> Result<Arc<dyn BlockSource>> {
    let header = Qcow2Source::load_header(&*file)?;
    match &header.backing {
        Some(backing) => {
            Err(Error::new(ErrorKind::Unsupported, format!("the image has a backing file, {:?}", backing.name)))
        }
        None => Ok(Arc::new(Qcow2Source::new(file, header, None)?)),
    }
}

/// Opens what `file` holds; `depth` images lie above it.
fn open_file(file: FileSource, path: &Path, options: &OpenOptions, depth: usize) -> Result<Opened> {
    let format = match options.format {
        Some(format) => format,
        None if file.is_block_device() => Format::Raw,
        None => detect_format(&file)?,
    };
    match format {
        Format::Raw => Ok(Opened { source: Arc::new(file), format }),
        Format::Qcow2 => {
            let header = Qcow2Source::load_header(&file)?;
            let backing = match &header.backing {
                Some(backing) => Some(open_backing(backing, path, options, depth + 1)?),
                None => None,
            };
            Ok(Opened { source: Arc::new(Qcow2Source::new(Arc::new(file), header, backing)?), format })
        }
    }
}

/// Images that a chain may have.
const CHAIN_MAX: usize = 8;

fn open_backing(
    backing: &BackingName,
    image: &Path,
    options: &OpenOptions,
    depth: usize,
) -> Result<Arc<dyn BlockSource>> {
    let name = &backing.name;
    let refuse = |reason: &str| {
        let context = format!("the backing file {name:?} {reason}: join the chain by `qemu-img convert` first");
        Err(Error::new(ErrorKind::Unsupported, context))
    };
    if options.backing == Backing::Refuse {
        return refuse("is not to be opened");
    }
    if depth >= CHAIN_MAX {
        return refuse("makes a chain of more than eight images");
    }
    // Neither a path nor a protocol (`nbd:…`, `json:{…}`): nothing but a name beside the image is ever opened.
    if name.contains(['/', ':', '\0']) || name == "." || name == ".." {
        return refuse("is no plain name in the image's own folder");
    }
    let format = match backing.format.as_deref() {
        None => None,
        Some("raw") => Some(Format::Raw),
        Some("qcow2") => Some(Format::Qcow2),
        Some(_) => return refuse("is neither raw nor qcow2"),
    };
    let path = image.parent().unwrap_or(Path::new("")).join(name);
    let file = FileSource::open_regular(&path)?;
    let options = OpenOptions { format, ..options.clone() };
    let opened = open_file(file, &path, &options, depth);
    Ok(opened.map_err(|e| Error { context: format!("backing file {name:?}: {}", e.context), ..e })?.source)
}

fn detect_format(file: &FileSource) -> Result<Format> {
    // First: the end of a qcow2 may be a data cluster, and that of a disk that once was a VHD holds a VHD's footer.
    if starts_with(file, &qcow2::MAGIC)? {
        return Ok(Format::Qcow2);
    }
    match detect_foreign(file)? {
        Some(foreign) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("this is {foreign}, which is not read directly: {}", foreign.advice()),
        )),
        None => Ok(Format::Raw),
    }
}
