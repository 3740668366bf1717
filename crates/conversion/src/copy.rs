//! The copy of one disk into its replica, from this machine or from a remote one, and the comparison afterwards.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::{
    AllocationMap, BlockSource, CopyOptions, CreateOptions, Extent, ExtentIter, ImageWriter, OnUnreadable, ReadOptions,
    intersect,
};
use machine::{ByteCount, ByteOffset, Disk};
use protocol::message::Scope;

use crate::choices::TakenDisk;
use crate::receive::{ReceiveOptions, receive_disk, verify_disk};
use crate::reconcile::reconcile_disk;
use crate::replica::Replica;
use crate::{
    Allocation, Cancel, CopyProgress, DataStream, Error, ErrorKind, Event, Observer, RemoteMachine, Result, Step,
    StreamMode, StreamRequest, Visit,
};

/// How much is written before it is made durable on the way.
const SYNC_EVERY: ByteCount = ByteCount::mib(32);
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// What a finished copy says of itself.
pub(crate) struct Copied {
    /// Totals.
    pub progress: CopyProgress,
    /// What could not be read.
    pub unreadable: Vec<Extent>,
}

/// Tells an observer how far a disk is, at most a few times a second.
pub(crate) struct Meter<'a> {
    step: Step,
    observer: &'a dyn Observer,
    cancel: &'a Cancel,
    told: Option<Instant>,
}

impl<'a> Meter<'a> {
    /// A meter that tells `observer`.
    pub(crate) fn new(step: Step, observer: &'a dyn Observer, cancel: &'a Cancel) -> Self {
        Self { step, observer, cancel, told: None }
    }

    /// Takes the newest figures; `Break` where the operator cancelled.
    pub(crate) fn tell(&mut self, progress: CopyProgress) -> ControlFlow<()> {
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.tell_now(progress);
        }
        if self.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Tells the last figures of all.
    pub(crate) fn tell_now(&mut self, progress: CopyProgress) {
        self.told = Some(Instant::now());
        self.observer.event(Event::Progress { step: self.step, progress });
    }
}

/// A disk of this machine that is copied or compared.
pub(crate) struct LocalCopy<'a> {
    /// Its place among the selected disks.
    pub place: usize,
    /// What is known of it.
    pub disk: &'a Disk,
    /// Its bytes.
    pub source: &'a Arc<dyn BlockSource>,
    /// What is used of them.
    pub used: &'a dyn AllocationMap,
}

impl LocalCopy<'_> {
    /// Copies what is used into `replica`, from where an earlier run was interrupted.
    pub(crate) fn copy(
        &self,
        replica: &Replica,
        full: bool,
        skip_unreadable: bool,
        meter: &mut Meter<'_>,
    ) -> Result<Copied> {
        let whole = Extent::first(self.disk.virtual_size);
        let total = self.grain_total(whole)?;
        // Holes of the source become none of the image's clusters, so that they need no room.
        let held = intersect(self.used.extents(whole), self.source.allocated(whole));
        let room = grain_total(held, whole.length()).map_err(|error| self.failed(error))?;
        let mut image = replica.open(&CreateOptions { expected: Some(room), full, ..CreateOptions::default() })?;
        let rest = Extent::between(image.durable(), whole.end());
        let before = ByteCount(total.0.saturating_sub(self.grain_total(rest)?.0));
        let mut progress = CopyProgress { disk: self.place, total, done: before, ..CopyProgress::default() };

        let on_unreadable = if skip_unreadable { OnUnreadable::Skip } else { OnUnreadable::Stop };
        let read = ReadOptions { on_unreadable, ..ReadOptions::default() };
        let options = CopyOptions { read, sync_every: Some(SYNC_EVERY) };
        let copied =
            block::copy(Arc::clone(self.source), self.used.extents(rest), &mut image, &options, &mut |figures| {
                progress.done = before + figures.done.max(figures.read);
                progress.written = figures.written;
                progress.sent = figures.data;
                progress.unreadable = figures.unreadable;
                meter.tell(progress)
            });
        if let Err(error) = copied {
            // What was read so far is kept, whatever stopped the copy.
            let _ = image.sync();
            return Err(match error.kind {
                block::ErrorKind::NoSpace | block::ErrorKind::Unwritable => replica.failed(error),
                _ => self.failed(error),
            });
        }
        let (_, journal) = image.finish_with_journal().map_err(|error| replica.failed(error))?;
        let unreadable = replica.unreadable(&journal)?;
        progress.done = total;
        progress.unreadable = unreadable.iter().map(|extent| extent.length()).sum();
        meter.tell_now(progress);
        Ok(Copied { progress, unreadable })
    }

    /// Reads what is used again and compares it with the replica; returns the pieces that differ.
    pub(crate) fn verify(&self, replica: &Replica, meter: &mut Meter<'_>) -> Result<Vec<Extent>> {
        let whole = Extent::first(self.disk.virtual_size);
        let total = self.grain_total(whole)?;
        let image = replica.source()?;
        let mut progress = CopyProgress { disk: self.place, total, ..CopyProgress::default() };
        let used = self.used.extents(whole);
        let compared = block::verify(Arc::clone(self.source), used, image, &ReadOptions::default(), &mut |found| {
            progress.done = found.compared;
            meter.tell(progress)
        });
        let found = compared.map_err(|error| self.failed(error))?;
        meter.tell_now(CopyProgress { done: total, ..progress });
        Ok(found.differences)
    }

    /// Used bytes inside `within`, in whole grains, as the reader counts.
    pub(crate) fn grain_total(&self, within: Extent) -> Result<ByteCount> {
        grain_total(self.used.extents(within), self.disk.virtual_size).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: block::Error) -> Error {
        let path = &self.disk.path;
        match error.kind {
            block::ErrorKind::Cancelled => Error::cancelled(),
            block::ErrorKind::Unreadable => {
                let context = format!(
                    "{path}: a sector cannot be read; --skip-unreadable records such sectors, fills them with zeros and marks the result incomplete"
                );
                Error::because(ErrorKind::Source, context, error)
            }
            _ => Error::because(ErrorKind::Source, path.clone(), error),
        }
    }
}

/// Bytes of `extents` in whole grains of a disk of `size`.
fn grain_total(extents: ExtentIter<'_>, size: ByteCount) -> block::Result<ByteCount> {
    block::grains(extents, block::GRAIN, size).map(|extent| extent.map(Extent::length)).sum()
}

/// A disk of a remote machine that is copied or compared.
pub(crate) struct RemoteCopy<'a> {
    /// Its place among the selected disks.
    pub place: usize,
    /// How it is taken.
    pub taken: &'a TakenDisk,
    /// The machine.
    pub machine: &'a dyn RemoteMachine,
    /// The visit that it is copied in.
    pub visit: Option<&'a Visit>,
}

impl RemoteCopy<'_> {
    /// Receives what is used into `replica`, from where an earlier run was interrupted.
    pub(crate) fn copy(
        &self,
        replica: &Replica,
        skip_unreadable: bool,
        meter: &mut Meter<'_>,
        cancel: &Cancel,
    ) -> Result<Copied> {
        let mode = StreamMode::Data { skip_unreadable };
        let mut supply = |resume: ByteOffset| self.open_stream(mode, resume, cancel);
        let options = ReceiveOptions { create: self.create_options(), ..ReceiveOptions::default() };
        let figures = |stats: &crate::receive::ReceiveStats| CopyProgress {
            disk: self.place,
            done: stats.done,
            total: self.expected().max(stats.done),
            sent: stats.sent,
            written: stats.written,
            unreadable: stats.unreadable,
        };
        let stats = receive_disk(
            &mut supply,
            replica,
            &options,
            &mut |stats| {
                // A cancelled conversion is noticed by the receiver itself.
                let _ = meter.tell(figures(stats));
            },
            cancel,
        )?;
        let progress = CopyProgress { total: stats.done, ..figures(&stats) };
        meter.tell_now(progress);
        Ok(Copied { progress, unreadable: stats.unreadable_extents })
    }

    /// Compares hashes of what is used with the replica; returns the pieces that differ.
    pub(crate) fn verify(&self, replica: &Replica, meter: &mut Meter<'_>, cancel: &Cancel) -> Result<Vec<Extent>> {
        let mut supply = |resume: ByteOffset| self.open_stream(StreamMode::Hashes, resume, cancel);
        let total = self.expected();
        let mut progress = CopyProgress { disk: self.place, total, ..CopyProgress::default() };
        let found = verify_disk(
            &mut supply,
            &replica.source()?,
            &mut |found| {
                progress.done = found.compared;
                progress.total = total.max(found.compared);
                let _ = meter.tell(progress);
            },
            cancel,
        )?;
        meter.tell_now(CopyProgress { done: found.compared, total: found.compared, ..progress });
        Ok(found.differences)
    }

    /// About what there is to come.
    fn expected(&self) -> ByteCount {
        self.taken.bytes
    }

    /// Makes what is there of the replica what the source has now; returns how much of it was replaced.
    pub(crate) fn reconcile(
        &self,
        replica: &Replica,
        skip_unreadable: bool,
        meter: &mut Meter<'_>,
        cancel: &Cancel,
    ) -> Result<ByteCount> {
        let mut supply = |mode: StreamMode, within: &[Extent]| self.open(mode, ByteOffset::ZERO, within, cancel);
        let total = self.expected();
        let mut tell = |compared: ByteCount, sent: ByteCount| {
            let done = compared.min(total);
            let _ = meter.tell(CopyProgress { disk: self.place, done, total, sent, ..CopyProgress::default() });
        };
        reconcile_disk(&mut supply, replica, &self.create_options(), skip_unreadable, &mut tell, cancel)
    }

    fn create_options(&self) -> CreateOptions {
        CreateOptions { full: self.taken.allocation == Allocation::Full, ..CreateOptions::default() }
    }

    fn open_stream(&self, mode: StreamMode, resume: ByteOffset, cancel: &Cancel) -> Result<Box<dyn DataStream>> {
        self.open(mode, resume, &[], cancel)
    }

    fn open(
        &self,
        mode: StreamMode,
        resume: ByteOffset,
        within: &[Extent],
        cancel: &Cancel,
    ) -> Result<Box<dyn DataStream>> {
        let within = within.iter().map(|extent| (extent.start(), extent.length())).collect();
        let scope = Scope { within, ..self.taken.scope() };
        let request = StreamRequest { disk: self.taken.index, mode, resume, scope, visit: self.visit.cloned() };
        self.machine.open_stream(&request, cancel)
    }
}
