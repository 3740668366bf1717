//! The steps of a conversion, one after another, each recorded when it is done.
//!
//! Until the last step the replica is as it was received: fix-ups live in overlays, so that a failed fix-up or a failed
//! boot proof costs no copying when it is tried again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use machine::{ByteCount, Capabilities, Disk, Machine};
use serde::{Deserialize, Serialize};

use crate::copy::{Copied, Meter, RemoteCopy};
use crate::error::Context;
use crate::fixup::FixUps;
use crate::local::{LocalDisks, Stamp};
use crate::overlay::Overlay;
use crate::replica::Replica;
use crate::workdir::{Workdir, remove_if_present};
use crate::{
    Cancel, ConvertedDisk, Error, ErrorKind, Event, Observer, Outcome, Proof, RemoteMachine, Request, Result, Source,
    Step, Verdict,
};

/// Converts `source` as `request` says, and returns what was made.
///
/// A conversion that was killed, cancelled or failed goes on where it was when it is asked for again with the same
/// source, name and output.
///
/// # Errors
/// One error that says what, where and what to do. Nothing bears the final name then; what is durable is kept.
pub fn convert(source: &Source, request: &Request, observer: &dyn Observer, cancel: &Cancel) -> Result<Outcome> {
    observer.event(Event::Step { step: Step::Check });
    let origin = Origin::open(source)?;
    let machine = origin.machine()?;
    let selected = select_disks(&machine.disks, &request.disks)?;
    if request.dry_run {
        return crate::dry_run::dry_run(&origin, &machine, &selected, request, observer, cancel);
    }
    let workdir = Workdir::open(request)?;
    let stamps = origin.stamps();
    let record = match workdir.load::<Record>()? {
        Some(record) => {
            record.is_of_unchanged(&stamps, &machine, &workdir)?;
            record.go_on(request, &machine, &selected, &workdir, observer)?
        }
        None => Record { stamps, ..Record::new(request, &machine, selected) },
    };
    let mut pipeline = Pipeline { origin, workdir, record, observer, cancel };
    pipeline.run()?;
    pipeline.finish()
}

/// An opened source.
pub(crate) enum Origin {
    /// Disks of this machine.
    Local(LocalDisks),
    /// A machine behind an agent.
    Remote(Arc<dyn RemoteMachine>),
}

impl Origin {
    fn open(source: &Source) -> Result<Self> {
        match source {
            Source::Local(paths) => LocalDisks::open(paths).map(Self::Local),
            Source::Remote(remote) => Ok(Self::Remote(Arc::clone(remote))),
        }
    }

    /// For each disk of this machine, what changes when its file is replaced or written.
    fn stamps(&self) -> Vec<Option<Stamp>> {
        match self {
            Self::Local(disks) => disks.stamps(),
            Self::Remote(_) => Vec::new(),
        }
    }

    fn machine(&self) -> Result<Machine> {
        match self {
            Self::Local(disks) => {
                let guest = crate::inspect::identify(disks.layout());
                Ok(disks.machine(guest))
            }
            Self::Remote(remote) => Ok(remote.machine()),
        }
    }
}

/// What is known of a conversion between two runs of it: `conversion.json` in its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Raised when an older record can no longer be gone on with.
    version: u32,
    /// What was asked for.
    pub request: Request,
    /// The source as it was when the conversion began.
    pub machine: Machine,
    /// The source's files as they were then, where it lies here: halves of two states make no disk.
    #[serde(default)]
    pub stamps: Vec<Option<Stamp>>,
    /// Which of its disks are taken.
    pub selected: Vec<usize>,
    /// For each of them, once it is copied: what became of it.
    pub copied: Vec<Option<ConvertedDisk>>,
    /// The result of `--verify`.
    pub verified: Option<bool>,
    /// The fix-ups, once they are in the overlays.
    pub fixed_up: Option<FixUps>,
    /// Whether the VM definition is written.
    pub defined: bool,
    /// The boot proof, once it has a verdict.
    pub proof: Option<Proof>,
    /// Whether the overlays are part of their disks.
    pub joined: bool,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

const RECORD_VERSION: u32 = 1;

impl Record {
    fn new(request: &Request, machine: &Machine, selected: Vec<usize>) -> Self {
        Self {
            version: RECORD_VERSION,
            request: request.clone(),
            machine: machine.clone(),
            stamps: Vec::new(),
            copied: vec![None; selected.len()],
            selected,
            verified: None,
            fixed_up: None,
            defined: false,
            proof: None,
            joined: false,
            warnings: Vec::new(),
        }
    }

    /// Refuses a source whose files were replaced or written since the conversion began.
    fn is_of_unchanged(&self, now: &[Option<Stamp>], machine: &Machine, workdir: &Workdir) -> Result<()> {
        let changed = self.stamps.iter().zip(now).position(|(then, now)| then != now);
        let Some(disk) = changed.and_then(|index| machine.disks.get(index)) else { return Ok(()) };
        let context = format!(
            "{} is not the file that the unfinished conversion in {} began with, or was written since: remove that folder to start anew, or choose another --name",
            disk.path,
            workdir.path().display()
        );
        Err(Error::new(ErrorKind::Refused, context))
    }

    /// Goes on with what an earlier run left, if it was the same conversion.
    fn go_on(
        mut self,
        request: &Request,
        machine: &Machine,
        selected: &[usize],
        workdir: &Workdir,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let disk = |m: &Machine, index: usize| {
            m.disks.get(index).map(|d| (d.identity.clone(), d.virtual_size, d.layout.partition_table_id.clone()))
        };
        let same_disks =
            self.selected == selected && selected.iter().all(|&i| disk(&self.machine, i) == disk(machine, i));
        let same_kind = self.version == RECORD_VERSION
            && self.request.format == request.format
            // What was skipped is not read again; but a copy that stopped at a bad sector goes on behind it.
            && (request.skip_unreadable || !self.request.skip_unreadable);
        if !same_disks || !same_kind {
            let context = format!(
                "{} holds an unfinished conversion of another source or with other settings: choose another --name, or remove that folder",
                workdir.path().display()
            );
            return Err(Error::new(ErrorKind::Refused, context));
        }
        let done = self.copied.iter().flatten().count();
        let message = format!("going on with an unfinished conversion: {done} of {} disks copied", self.copied.len());
        observer.event(Event::Log { message });
        // A proof that failed is tried again, with the fix-ups made anew: that is why one asks again.
        if self.proof.as_ref().is_some_and(|proof| proof.verdict != Verdict::Passed) && !self.joined {
            (self.fixed_up, self.defined, self.proof) = (None, false, None);
        }
        self.request = request.clone();
        Ok(self)
    }
}

/// One running conversion.
pub(crate) struct Pipeline<'a> {
    origin: Origin,
    pub(crate) workdir: Workdir,
    pub(crate) record: Record,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) cancel: &'a Cancel,
}

impl Pipeline<'_> {
    fn run(&mut self) -> Result<()> {
        self.store()?;
        self.copy_disks()?;
        if self.record.request.verify && self.record.verified.is_none() {
            self.verify_disks()?;
        }
        if self.record.fixed_up.is_none() {
            self.step(Step::FixUp)?;
            self.record.fixed_up = Some(crate::fixup::fix_up(self)?);
            self.store()?;
        }
        if !self.record.defined {
            self.step(Step::Define)?;
            crate::define::define(self)?;
            self.record.defined = true;
            self.store()?;
        }
        if self.record.proof.is_none() {
            self.step(Step::Prove)?;
            let proof = crate::prove::prove(self)?;
            let failed = (proof.verdict == Verdict::Failed).then(|| proof.evidence.clone());
            self.record.proof = Some(proof);
            self.store()?;
            if let Some(evidence) = failed {
                let context = format!(
                    "boot proof failed: {evidence}; serial log and screenshot are in {}; the replica is kept, the same command tries again without copying",
                    self.workdir.path().display()
                );
                return Err(Error::new(ErrorKind::NotProven, context));
            }
        }
        Ok(())
    }

    fn step(&self, step: Step) -> Result<()> {
        self.cancel.check()?;
        self.observer.event(Event::Step { step });
        Ok(())
    }

    fn store(&self) -> Result<()> {
        self.workdir.store(&self.record)
    }

    /// Tells the operator, and keeps it with the result.
    pub(crate) fn warn(&mut self, message: String) {
        self.observer.event(Event::Warning { message: message.clone() });
        if !self.record.warnings.contains(&message) {
            self.record.warnings.push(message);
        }
    }

    /// The selected disks with their place among them.
    pub(crate) fn disks(&self) -> impl Iterator<Item = (usize, &Disk)> {
        self.record.selected.iter().map(|&index| &self.record.machine.disks[index]).enumerate()
    }

    /// The image of a selected disk.
    pub(crate) fn image(&self, place: usize) -> PathBuf {
        self.workdir.file(self.workdir.disk_name(place, self.record.request.format))
    }

    fn replica(&self, place: usize) -> Replica {
        let disk = &self.record.machine.disks[self.record.selected[place]];
        Replica::new(self.image(place), self.record.request.format, disk)
    }

    /// The overlay that takes the fix-ups of a selected disk.
    pub(crate) fn overlay_path(&self, place: usize) -> PathBuf {
        self.workdir.file(format!("fixups-disk{place}.qcow2"))
    }

    /// What the guest can work with.
    pub(crate) fn capabilities(&self) -> Result<Capabilities> {
        let fixed_up = self.record.fixed_up.as_ref();
        let missing = || Error::new(ErrorKind::Internal, "the fix-ups have not run");
        fixed_up.map(|f| f.plan.capabilities.clone()).ok_or_else(missing)
    }

    fn copy_disks(&mut self) -> Result<()> {
        if self.record.copied.iter().all(Option::is_some) {
            return Ok(());
        }
        self.step(Step::Copy)?;
        if let Origin::Local(disks) = &self.origin {
            let warnings: Vec<_> = disks.layout().warnings().iter().map(ToString::to_string).collect();
            warnings.into_iter().for_each(|warning| self.warn(warning));
        }
        for place in 0..self.record.selected.len() {
            if self.record.copied[place].is_none() {
                let disk = self.copy_disk(place)?;
                self.record.copied[place] = Some(disk);
                self.store()?;
                // Only now: without the record the journal is what knows that the image is whole.
                remove_if_present(&self.replica(place).journal)?;
            }
        }
        Ok(())
    }

    fn copy_disk(&mut self, place: usize) -> Result<ConvertedDisk> {
        let index = self.record.selected[place];
        let disk = self.record.machine.disks[index].clone();
        let replica = self.replica(place);
        let started = Instant::now();
        let skip = self.record.request.skip_unreadable;
        let mut meter = Meter::new(Step::Copy, self.observer, self.cancel);
        let Copied { progress, unreadable } = match &self.origin {
            Origin::Local(disks) => {
                let copied = disks.copy_of(place, index, &disk, |copy| copy.copy(&replica, skip, &mut meter))?;
                self.record.is_of_unchanged(&disks.stamps(), &self.record.machine, &self.workdir)?;
                copied
            }
            Origin::Remote(machine) => {
                let copy = RemoteCopy { place, index, disk: &disk, machine: machine.as_ref() };
                copy.copy(&replica, skip, &mut meter, self.cancel)?
            }
        };
        if !unreadable.is_empty() {
            let context = format!(
                "{}: {} in {} extents could not be read and are zeros: the result is incomplete",
                disk.path,
                progress.unreadable,
                unreadable.len()
            );
            self.warn(context);
        }
        Ok(ConvertedDisk {
            source: disk.path,
            file: self.workdir.disk_name(place, self.record.request.format),
            format: self.record.request.format.extension().to_string(),
            virtual_size: disk.virtual_size,
            logical_sector_size: disk.logical_sector_size,
            copied: progress,
            unreadable_extents: unreadable.iter().map(|extent| (extent.start(), extent.length())).collect(),
            copy_seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn verify_disks(&mut self) -> Result<()> {
        self.step(Step::Verify)?;
        if self.incomplete() {
            // What cannot be read cannot be compared either, and nothing would make this result a verified one.
            self.warn("not verified: the result is incomplete".into());
            self.record.verified = Some(false);
            return self.store();
        }
        for place in 0..self.record.selected.len() {
            let index = self.record.selected[place];
            let disk = self.record.machine.disks[index].clone();
            let replica = self.replica(place);
            let mut meter = Meter::new(Step::Verify, self.observer, self.cancel);
            let differences = match &self.origin {
                Origin::Local(disks) => disks.copy_of(place, index, &disk, |copy| copy.verify(&replica, &mut meter))?,
                Origin::Remote(machine) => {
                    let copy = RemoteCopy { place, index, disk: &disk, machine: machine.as_ref() };
                    copy.verify(&replica, &mut meter, self.cancel)?
                }
            };
            if let Some(first) = differences.first() {
                let context = format!(
                    "verification: {} differs from its replica in {} pieces, the first at {first}: copy it again after removing {}",
                    disk.path,
                    differences.len(),
                    self.workdir.path().display()
                );
                return Err(Error::new(ErrorKind::NotProven, context));
            }
        }
        self.record.verified = Some(true);
        self.store()
    }

    fn incomplete(&self) -> bool {
        self.record.copied.iter().flatten().any(|disk| !disk.unreadable_extents.is_empty())
    }

    /// Makes the overlays part of their disks and gives the result its name.
    fn finish(mut self) -> Result<Outcome> {
        self.cancel.check()?;
        let mut scaffolding = vec![self.workdir.file("conversion.json.new")];
        for place in 0..self.record.selected.len() {
            if let Some(overlay) = Overlay::existing(self.overlay_path(place)) {
                if !self.record.joined {
                    overlay.join()?;
                }
                scaffolding.push(self.overlay_path(place));
            }
            let sync = std::fs::File::open(self.image(place)).and_then(|file| file.sync_all());
            sync.context(ErrorKind::Target, || self.image(place).display().to_string())?;
        }
        self.record.joined = true;
        self.store()?;
        let incomplete = self.incomplete();
        let Record { request, copied, verified, fixed_up, proof, warnings, .. } = self.record;
        let folder = self.workdir.publish(&scaffolding)?;
        Ok(Outcome {
            definition: format!("{}.xml", request.name),
            name: request.name,
            folder,
            disks: copied.into_iter().flatten().collect(),
            incomplete,
            verified,
            fixups: fixed_up.map(|f| f.outcomes()).unwrap_or_default(),
            proof: proof.unwrap_or_default(),
            warnings,
        })
    }
}

/// The places of the disks that `wanted` names, in the machine's order; all where it names none.
fn select_disks(disks: &[Disk], wanted: &[String]) -> Result<Vec<usize>> {
    let is = |disk: &Disk, index: usize, name: &str| {
        disk.path == name
            || disk.identity.serial.as_deref() == Some(name)
            || disk.identity.wwn.as_deref() == Some(name)
            || disk.path.strip_prefix("/dev/") == Some(name)
            || name.parse() == Ok(index)
    };
    let mut selected = Vec::new();
    for name in wanted {
        let index = disks.iter().enumerate().position(|(index, disk)| is(disk, index, name)).ok_or_else(|| {
            let known: Vec<_> = disks.iter().map(|disk| disk.path.as_str()).collect();
            Error::new(ErrorKind::Refused, format!("disk {name:?}: the source has {}", known.join(", ")))
        })?;
        if !selected.contains(&index) {
            selected.push(index);
        }
    }
    if wanted.is_empty() {
        selected.extend(0..disks.len());
    }
    selected.sort_unstable();
    if selected.is_empty() {
        return Err(Error::new(ErrorKind::Refused, "the source has no disk"));
    }
    if let Some(&empty) = selected.iter().find(|&&index| disks[index].virtual_size == ByteCount::ZERO) {
        return Err(Error::new(ErrorKind::Refused, format!("{}: the disk is empty", disks[empty].path)));
    }
    Ok(selected)
}
