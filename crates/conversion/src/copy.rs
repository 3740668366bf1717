//! The copy of one disk into a replica, from this machine or from a remote one, and the comparison afterwards.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::{
    AllocationMap, BlockSource, CopyOptions, CreateOptions, Extent, ExtentIter, Format, OnUnreadable, ReadOptions,
};
use block::journal::{ImageIdentity, Journal, JournaledImage, State};
use machine::{ByteCount, ByteOffset, Disk};

use crate::error::Context;
use crate::workdir::remove_if_present;
use crate::{Cancel, CopyProgress, Error, ErrorKind, Event, Observer, OutputFormat, Result, Step};

/// How much is written before it is made durable on the way.
const SYNC_EVERY: ByteCount = ByteCount::mib(32);
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Unreadable extents that a result lists one by one; the journal knows them all, and the total is always told.
const UNREADABLE_LISTED_MAX: usize = 10_000;

/// Where the replica of a disk is made.
pub(crate) struct Replica {
    /// The image.
    pub image: PathBuf,
    /// Its journal, while it is not whole.
    pub journal: PathBuf,
    /// Format of the image.
    pub format: Format,
}

impl Replica {
    /// The replica at `image`; its journal lies beside it.
    pub(crate) fn at(image: PathBuf, format: OutputFormat) -> Self {
        let mut journal = image.clone().into_os_string();
        journal.push(".journal");
        let format = match format {
            OutputFormat::Qcow2 => Format::Qcow2,
            OutputFormat::Raw => Format::Raw,
        };
        Self { image, journal: journal.into(), format }
    }

    /// Opens the image and its journal for `disk`: as an earlier run left them, or new.
    pub(crate) fn open(&self, disk: &Disk, expected: ByteCount) -> Result<JournaledImage> {
        let identity = ImageIdentity { disk: disk_name(disk), size: disk.virtual_size, format: self.format };
        let options = CreateOptions { expected: Some(expected), ..CreateOptions::default() };
        let opened = match self.journal.exists() && self.image.exists() {
            true => JournaledImage::resume(&self.image, &self.journal, &identity, &options),
            false => {
                // One without the other is what a crash between the two leaves: nothing was acknowledged yet.
                remove_if_present(&self.image)?;
                remove_if_present(&self.journal)?;
                JournaledImage::create(&self.image, &self.journal, &identity, &options)
            }
        };
        opened.map_err(|error| from_block(error, ErrorKind::Target, &self.image))
    }

    /// What the journal says could not be read.
    fn unreadable(&self, journal: &Journal) -> Result<Vec<(ByteOffset, ByteCount)>> {
        let records = journal.records().map_err(|error| from_block(error, ErrorKind::Target, &self.journal))?;
        let mut extents = Vec::new();
        for record in records {
            let record = record.map_err(|error| from_block(error, ErrorKind::Target, &self.journal))?;
            if record.state == State::Unreadable && extents.len() < UNREADABLE_LISTED_MAX {
                extents.push((record.extent.start(), record.extent.length()));
            }
        }
        Ok(extents)
    }
}

/// What a finished copy says of itself.
pub(crate) struct Copied {
    /// Totals.
    pub progress: CopyProgress,
    /// What could not be read.
    pub unreadable: Vec<(ByteOffset, ByteCount)>,
}

/// Whoever wants to know how far a disk is, at most a few times a second.
pub(crate) struct Meter<'a> {
    step: Step,
    observer: &'a dyn Observer,
    cancel: &'a Cancel,
    told: Instant,
}

impl<'a> Meter<'a> {
    /// A meter that tells `observer`.
    pub(crate) fn new(step: Step, observer: &'a dyn Observer, cancel: &'a Cancel) -> Self {
        Self { step, observer, cancel, told: Instant::now() - TELL_EVERY }
    }

    /// Takes the newest figures; `Break` where the operator cancelled.
    pub(crate) fn tell(&mut self, progress: CopyProgress) -> ControlFlow<()> {
        if self.told.elapsed() >= TELL_EVERY {
            self.tell_now(progress);
        }
        if self.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Tells the last figures of all.
    pub(crate) fn tell_now(&mut self, progress: CopyProgress) {
        self.told = Instant::now();
        self.observer.event(Event::Progress { step: self.step, progress });
    }
}

/// Copies what is used of a local disk.
pub(crate) fn copy_local(
    index: usize,
    disk: &Disk,
    source: &Arc<dyn BlockSource>,
    used: &dyn AllocationMap,
    replica: &Replica,
    skip_unreadable: bool,
    meter: &mut Meter<'_>,
) -> Result<Copied> {
    let whole = Extent::first(disk.virtual_size);
    let total = grain_total(used.extents(whole), disk)?;
    let mut image = replica.open(disk, total)?;
    let rest = Extent::between(image.durable(), whole.end());
    let before = total - grain_total(used.extents(rest), disk)?.min(total);
    let mut progress = CopyProgress { disk: index, total, done: before, ..CopyProgress::default() };

    let on_unreadable = if skip_unreadable { OnUnreadable::Skip } else { OnUnreadable::Stop };
    let read = ReadOptions { on_unreadable, ..ReadOptions::default() };
    let options = CopyOptions { read, sync_every: Some(SYNC_EVERY) };
    let copied = block::copy(Arc::clone(source), used.extents(rest), &mut image, &options, &mut |figures| {
        progress.done = before + figures.read;
        progress.written = figures.written;
        progress.sent = figures.written;
        progress.unreadable = figures.unreadable;
        meter.tell(progress)
    });
    if let Err(error) = copied {
        // What was read so far is kept, whatever stopped the copy.
        let _ = block::ImageWriter::sync(&mut image);
        return Err(from_block(error, ErrorKind::Source, Path::new(&disk.path)));
    }
    let finished = image.finish_with_journal();
    let (_, journal) = finished.map_err(|error| from_block(error, ErrorKind::Target, &replica.image))?;
    progress.done = total;
    meter.tell_now(progress);
    let unreadable = replica.unreadable(&journal)?;
    progress.unreadable = unreadable.iter().map(|&(_, length)| length).sum();
    Ok(Copied { progress, unreadable })
}

/// Bytes of `extents` in whole grains, as the reader counts.
pub(crate) fn grain_total(extents: ExtentIter<'_>, disk: &Disk) -> Result<ByteCount> {
    block::grains(extents, block::GRAIN, disk.virtual_size)
        .map(|extent| extent.map(Extent::length))
        .sum::<block::Result<ByteCount>>()
        .map_err(|error| from_block(error, ErrorKind::Source, Path::new(&disk.path)))
}

/// How the journal knows a disk.
pub(crate) fn disk_name(disk: &Disk) -> String {
    let identity = &disk.identity;
    let name = identity.wwn.as_ref().or(identity.serial.as_ref()).or(disk.layout.partition_table_id.as_ref());
    name.unwrap_or(&disk.path).chars().take(block::journal::DISK_ID_MAX / 4).collect()
}

/// A failure below as this crate tells it; `kind` is for what was neither cancelled nor a lack of space.
pub(crate) fn from_block(error: block::Error, kind: ErrorKind, path: &Path) -> Error {
    match error.kind {
        block::ErrorKind::Cancelled => Error::cancelled(),
        block::ErrorKind::NoSpace => {
            let context = "no space left for the result: make room and give the same command again, it goes on from there";
            Error::because(ErrorKind::Target, context, error)
        }
        block::ErrorKind::Unreadable => {
            let context = format!(
                "{}: a sector cannot be read; --skip-unreadable records such sectors, fills them with zeros and marks the result incomplete",
                path.display()
            );
            Error::because(ErrorKind::Source, context, error)
        }
        _ => Err::<(), _>(error).context(kind, || path.display().to_string()).expect_err("it is an error"),
    }
}
