//! The replica of one disk: its image, and the journal beside it while it is not whole.

use std::path::PathBuf;
use std::sync::Arc;

use block::journal::{ImageIdentity, Journal, JournaledImage, State};
use block::{BlockSource, CreateOptions, Extent, Format, OpenOptions};
use machine::Disk;

use crate::workdir::remove_if_present;
use crate::{Error, ErrorKind, OutputFormat, Result};

/// Unreadable extents that a result lists one by one; the journal knows them all, and the total is always told.
pub(crate) const UNREADABLE_LISTED_MAX: usize = 10_000;

/// Where the replica of a disk is made. Image and journal belong to one conversion alone.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The image.
    pub path: PathBuf,
    /// Its journal, while it is not complete.
    pub journal: PathBuf,
    /// What the image is of. Another disk's journal is refused.
    pub identity: ImageIdentity,
}

impl Replica {
    /// The replica of `disk` at `path`; its journal lies beside it.
    pub fn new(path: PathBuf, format: OutputFormat, disk: &Disk) -> Self {
        let mut journal = path.clone().into_os_string();
        journal.push(".journal");
        let format = match format {
            OutputFormat::Qcow2 => Format::Qcow2,
            OutputFormat::Raw => Format::Raw,
        };
        let identity = ImageIdentity { disk: disk_name(disk), size: disk.virtual_size, format };
        Self { path, journal: journal.into(), identity }
    }

    /// Opens image and journal as an earlier run left them, or makes them.
    ///
    /// # Errors
    /// [`ErrorKind::Target`], with what to do where there is no room.
    pub fn open(&self, options: &CreateOptions) -> Result<JournaledImage> {
        let opened = match self.journal.exists() && self.path.exists() {
            true => JournaledImage::resume(&self.path, &self.journal, &self.identity, options),
            false => {
                // One without the other is what a crash between the two leaves: nothing was acknowledged yet.
                remove_if_present(&self.path)?;
                remove_if_present(&self.journal)?;
                JournaledImage::create(&self.path, &self.journal, &self.identity, options)
            }
        };
        opened.map_err(|error| self.failed(error))
    }

    /// The finished image, to be read.
    ///
    /// # Errors
    /// [`ErrorKind::Target`].
    pub fn source(&self) -> Result<Arc<dyn BlockSource>> {
        let options = OpenOptions { format: Some(self.identity.format), ..OpenOptions::default() };
        let unread = |error| {
            Error::because(ErrorKind::Target, format!("{}: the image cannot be read", self.path.display()), error)
        };
        Ok(block::open_source_with(&self.path, &options).map_err(unread)?.source)
    }

    /// What the journal of the finished image says could not be read.
    pub(crate) fn unreadable(&self, journal: &Journal) -> Result<Vec<Extent>> {
        let mut extents: Vec<Extent> = Vec::new();
        for record in journal.records().map_err(|error| self.failed(error))? {
            let record = record.map_err(|error| self.failed(error))?;
            if record.state != State::Unreadable {
                continue;
            }
            note_extent(&mut extents, record.extent);
        }
        Ok(extents)
    }

    /// A failure of image or journal, as this crate tells it.
    pub(crate) fn failed(&self, error: block::Error) -> Error {
        let context = match error.kind {
            block::ErrorKind::NoSpace => format!(
                "{}: no space left; what is durable is kept: make room and give the same command again, or retry the task",
                self.path.display()
            ),
            _ => format!("{}: the image cannot be written", self.path.display()),
        };
        Error::because(ErrorKind::Target, context, error)
    }
}

/// How the journal knows a disk.
fn disk_name(disk: &Disk) -> String {
    let identity = &disk.identity;
    let name = identity.wwn.as_ref().or(identity.serial.as_ref()).or(disk.layout.partition_table_id.as_ref());
    let name = name.unwrap_or(&disk.path);
    let mut end = name.len().min(block::journal::DISK_ID_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_string()
}

/// Adds to a bounded list of ascending extents, joining neighbours.
pub(crate) fn note_extent(list: &mut Vec<Extent>, extent: Extent) {
    let room = list.len() < UNREADABLE_LISTED_MAX;
    match list.last_mut() {
        Some(last) if last.end() == extent.start() => *last = Extent::between(last.start(), extent.end()),
        _ if room => list.push(extent),
        _ => {}
    }
}
