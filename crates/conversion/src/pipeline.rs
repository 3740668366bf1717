//! The steps of a conversion, one after another, each recorded when it is done.
//!
//! Until the last step the replica is as it was received: fix-ups live in overlays, so that a failed fix-up or a failed
//! boot proof costs no copying when it is tried again.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use machine::{Capabilities, Disk, Machine};
use serde::{Deserialize, Serialize};

use crate::annex::{Annex, Owner};
use crate::choices::Selection;
use crate::copy::{Copied, Meter, RemoteCopy};
use crate::error::Context;
use crate::fixup::FixUps;
use crate::local::{LocalDisks, Stamp};
use crate::overlay::Overlay;
use crate::replica::Replica;
use crate::workdir::{Workdir, remove_if_present};
use crate::{
    Allocation, Cancel, ConvertedDisk, Error, ErrorKind, Event, Observer, Outcome, Proof, RemoteMachine, Request,
    Result, Source, Step, Verdict, Visit, WindowsGuests,
};

/// Converts `source` as `request` says, and returns what was made.
///
/// A conversion that was killed, cancelled or failed goes on where it was when it is asked for again with the same
/// source, name and output.
///
/// # Errors
/// One error that says what, where and what to do. Nothing bears the final name then; what is durable is kept.
pub fn convert(
    source: &Source,
    request: &Request,
    windows: &WindowsGuests,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<Outcome> {
    observer.event(Event::Step { step: Step::Check });
    if let Some(made) = crate::made::made_before(source, request)? {
        observer.event(Event::Log {
            message: format!("{} is whole: it was made in an earlier run", made.folder.display()),
        });
        return Ok(made);
    }
    let origin = Origin::open(source)?;
    let machine = origin.machine()?;
    let selection = Selection::of(&machine, request)?;
    selection.check_bootable(&machine, request)?;
    // What is planned for a remote machine is planned once its disks are here.
    if !(request.dry_run && matches!(origin, Origin::Remote(_))) {
        crate::programs::check(&selection.of_vm(&machine), request)?;
    }
    if request.dry_run {
        return crate::dry_run::dry_run(&origin, &machine, &selection, request, windows, observer, cancel);
    }
    let mut pipeline = Pipeline::open(origin, &machine, &selection, request, windows, observer, cancel)?;
    pipeline.run()?;
    pipeline.finish()
}

impl<'a> Pipeline<'a> {
    /// The conversion of `selection`, as an earlier run left it, or from its beginning.
    fn open(
        origin: Origin,
        machine: &Machine,
        selection: &Selection,
        request: &Request,
        windows: &'a WindowsGuests,
        observer: &'a dyn Observer,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        let selected = selection.indexes();
        let workdir = Workdir::open(request)?;
        let stamps = origin.stamps();
        let record = match workdir.load::<Record>()? {
            Some(record) => {
                // Once the overlays join their disks nothing of the source is needed any more.
                if record.joined_disks.is_none() {
                    record.is_of_unchanged(&stamps, machine, &workdir)?;
                }
                record.go_on(request, machine, &selected, &workdir, observer)?
            }
            None => Record { stamps, ..Record::new(request, machine, selected) },
        };
        let record = Record { task: origin.task(), ..record };
        // What is left out lies where it lay when the conversion began.
        let selection = Selection::of(&record.machine, &record.request)?;
        Ok(Self { origin, workdir, record, selection, windows, observer, cancel })
    }
}

/// An opened source.
pub(crate) enum Origin {
    /// Disks of this machine.
    Local(Box<LocalDisks>),
    /// A machine behind an agent.
    Remote(Arc<dyn RemoteMachine>),
}

impl Origin {
    fn open(source: &Source) -> Result<Self> {
        match source {
            Source::Local(paths) => Ok(Self::Local(Box::new(LocalDisks::open(paths)?))),
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

    /// The task that it is converted for.
    fn task(&self) -> Option<String> {
        match self {
            Self::Local(_) => None,
            Self::Remote(remote) => remote.task().map(str::to_owned),
        }
    }

    fn machine(&self) -> Result<Machine> {
        let mut machine = match self {
            Self::Local(disks) => disks.machine(),
            Self::Remote(remote) => remote.machine(),
        };
        crate::place_mounts(&mut machine);
        Ok(machine)
    }
}

/// What is known of a conversion between two runs of it: `conversion.json` in its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Raised when an older record can no longer be gone on with.
    version: u32,
    /// Tells this conversion from others that had the same working folder.
    #[serde(default)]
    pub id: String,
    /// The task that it is made for.
    #[serde(default)]
    pub task: Option<String>,
    /// What was asked for.
    pub request: Request,
    /// The source as it was when the conversion began.
    pub machine: Machine,
    /// The source's files as they were then, where it lies here: halves of two states make no disk.
    #[serde(default)]
    pub stamps: Vec<Option<Stamp>>,
    /// Which of its disks are taken.
    pub selected: Vec<usize>,
    /// The visit of a remote machine in which they are as they were copied.
    #[serde(default)]
    pub visit: Option<Visit>,
    /// For each of them, whether what is there of its replica is of an earlier visit, and to be compared.
    #[serde(default)]
    pub to_compare: Vec<bool>,
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
    /// Once the overlays are being made part of their disks: for each, whether it is. There is no way back from there: until
    /// all are, the disks are between two states, and nothing but joining the rest makes them one machine's again.
    #[serde(default)]
    pub joined_disks: Option<Vec<bool>>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

const RECORD_VERSION: u32 = 1;

impl Record {
    pub(crate) fn new(request: &Request, machine: &Machine, selected: Vec<usize>) -> Self {
        Self {
            version: RECORD_VERSION,
            id: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            task: None,
            request: request.clone(),
            machine: machine.clone(),
            stamps: Vec::new(),
            visit: None,
            to_compare: vec![false; selected.len()],
            copied: vec![None; selected.len()],
            selected,
            verified: None,
            fixed_up: None,
            defined: false,
            proof: None,
            joined_disks: None,
            warnings: Vec::new(),
        }
    }

    /// Refuses a source whose files were replaced or written since the conversion began.
    fn is_of_unchanged(&self, now: &[Option<Stamp>], machine: &Machine, workdir: &Workdir) -> Result<()> {
        let changed = self.stamps.iter().zip(now).position(|(then, now)| then != now);
        let Some(disk) = changed.and_then(|index| machine.disks.get(index)) else { return Ok(()) };
        let why = format!(
            "{} was replaced or written since the conversion began, and halves of two states make no disk: see that nothing uses it (a running VM?)",
            disk.path
        );
        Err(refused(&why, workdir))
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
            // What was left out was not copied, and how an image is made cannot change half-way.
            && self.request.choices == request.choices
            && (self.request.allocation, self.request.keep_swap) == (request.allocation, request.keep_swap)
            // What was skipped is not read again; but a copy that stopped at a bad sector goes on behind it.
            && (request.skip_unreadable || !self.request.skip_unreadable);
        if !same_disks || !same_kind {
            return Err(refused("the unfinished conversion is of another source or has other settings", workdir));
        }
        let done = self.copied.iter().flatten().count();
        let message = format!("going on with an unfinished conversion: {done} of {} disks copied", self.copied.len());
        observer.event(Event::Log { message });
        // A proof that failed is tried again, with the fix-ups made anew: that is why one asks again.
        if self.proof.as_ref().is_some_and(|proof| proof.verdict != Verdict::Passed) && self.joined_disks.is_none() {
            (self.fixed_up, self.defined, self.proof) = (None, false, None);
        }
        self.request = request.clone();
        Ok(self)
    }
}

impl Record {
    /// The folder of a disk that is made elsewhere, of the conversion that works in `workdir`.
    fn annex(&self, selection: &Selection, place: usize, workdir: &Path) -> Option<Annex> {
        let folder = selection.disks.get(place)?.folder.as_ref()?;
        Some(Annex::new(folder, &self.request.name, Owner::new(workdir, &self.id)))
    }

    /// All of them, each once.
    pub(crate) fn annexes(&self, selection: &Selection, workdir: &Path) -> Vec<Annex> {
        let all = || (0..selection.disks.len()).filter_map(|place| self.annex(selection, place, workdir));
        let is_first =
            |(index, annex): &(usize, Annex)| all().position(|one| one.result() == annex.result()) == Some(*index);
        all().enumerate().filter(is_first).map(|(_, annex)| annex).collect()
    }

    fn incomplete(&self) -> bool {
        self.copied.iter().flatten().any(|disk| !disk.unreadable_extents.is_empty())
    }

    /// What became of it, when it is whole and has its name.
    pub(crate) fn outcome(self, selection: &Selection, folder: PathBuf) -> Outcome {
        Outcome {
            left_out: selection.left_out(&self.machine),
            incomplete: self.incomplete(),
            definition: format!("{}.xml", self.request.name),
            name: self.request.name,
            folder,
            disks: self.copied.into_iter().flatten().collect(),
            verified: self.verified,
            fixups: self.fixed_up.map(|f| f.outcomes()).unwrap_or_default(),
            proof: self.proof.unwrap_or_default(),
            warnings: self.warnings,
        }
    }
}

/// That the unfinished conversion in `workdir` cannot be gone on with.
fn refused(why: &str, workdir: &Workdir) -> Error {
    let context = format!("{why}; remove {} to start anew, or choose another --name", workdir.path().display());
    Error::new(ErrorKind::Refused, context)
}

/// One running conversion.
pub(crate) struct Pipeline<'a> {
    pub(crate) origin: Origin,
    pub(crate) workdir: Workdir,
    pub(crate) record: Record,
    pub(crate) selection: Selection,
    pub(crate) windows: &'a WindowsGuests,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) cancel: &'a Cancel,
}

impl Pipeline<'_> {
    fn run(&mut self) -> Result<()> {
        self.store()?;
        self.annexes().iter().try_for_each(Annex::open)?;
        for place in 0..self.record.selected.len() {
            let image = self.image(place);
            if self.record.copied[place].is_some() && !image.exists() {
                let context = format!("{} is not there any more: is its filesystem mounted?", image.display());
                return Err(Error::new(ErrorKind::Target, context));
            }
        }
        if self.record.joined_disks.is_some() {
            // All other steps were done, or it would not have begun.
            if self.record.request.verify && self.record.verified.is_none() {
                self.warn("not verified: the fix-ups were part of the disks already when it was asked for".into());
                self.record.verified = Some(false);
            }
            return self.store();
        }
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

    pub(crate) fn store(&self) -> Result<()> {
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

    /// The image of a selected disk, where it is now.
    pub(crate) fn image(&self, place: usize) -> PathBuf {
        let name = self.workdir.disk_name(place, self.record.request.format);
        match self.annex(place) {
            Some(annex) => annex.path().join(name),
            None => self.workdir.file(name),
        }
    }

    /// The image of a selected disk, where it is in the end.
    pub(crate) fn final_image(&self, place: usize) -> PathBuf {
        let name = self.workdir.disk_name(place, self.record.request.format);
        self.annex(place).map_or(self.workdir.result().to_path_buf(), |annex| annex.result().to_path_buf()).join(name)
    }

    /// The folder of a disk that is made elsewhere.
    fn annex(&self, place: usize) -> Option<Annex> {
        self.record.annex(&self.selection, place, self.workdir.path())
    }

    /// All of them, each once.
    fn annexes(&self) -> Vec<Annex> {
        self.record.annexes(&self.selection, self.workdir.path())
    }

    /// What the result says of where a disk is.
    fn file_name(&self, place: usize) -> String {
        match self.annex(place) {
            Some(_) => self.final_image(place).display().to_string(),
            None => self.workdir.disk_name(place, self.record.request.format),
        }
    }

    pub(crate) fn replica(&self, place: usize) -> Replica {
        let disk = &self.record.machine.disks[self.record.selected[place]];
        Replica::new(self.image(place), self.record.request.format, disk)
    }

    /// The overlay that takes the fix-ups of a selected disk.
    pub(crate) fn overlay_path(&self, place: usize) -> PathBuf {
        self.workdir.file(format!("fixups-disk{place}.qcow2"))
    }

    /// The overlay of a selected disk that is thrown away after the boot proof.
    pub(crate) fn proof_overlay_path(&self, place: usize) -> PathBuf {
        self.workdir.file(format!("proof-disk{place}.qcow2"))
    }

    /// What the guest can work with.
    pub(crate) fn capabilities(&self) -> Result<Capabilities> {
        let fixed_up = self.record.fixed_up.as_ref();
        let missing = || Error::new(ErrorKind::Internal, "the fix-ups have not run");
        fixed_up.map(|f| f.plan.capabilities.clone()).ok_or_else(missing)
    }

    fn copy_disks(&mut self) -> Result<()> {
        if self.record.copied.iter().all(Option::is_some) {
            return self.remove_journals();
        }
        self.step(Step::Copy)?;
        if let Origin::Local(disks) = &self.origin {
            let warnings: Vec<_> = disks.layout().warnings().iter().map(ToString::to_string).collect();
            warnings.into_iter().for_each(|warning| self.warn(warning));
        }
        for left_out in self.selection.left_out(&self.record.machine) {
            self.observer.event(Event::Log { message: format!("left out: {left_out}") });
        }
        self.copy_in_visits()?;
        self.remove_journals()
    }

    /// Only now: until all disks were there, each of them could be gone on with.
    fn remove_journals(&self) -> Result<()> {
        (0..self.record.selected.len()).try_for_each(|place| remove_if_present(&self.replica(place).journal))
    }

    pub(crate) fn copy_disk(&mut self, place: usize) -> Result<ConvertedDisk> {
        let index = self.record.selected[place];
        let disk = self.record.machine.disks[index].clone();
        let replica = self.replica(place);
        let started = Instant::now();
        let skip = self.record.request.skip_unreadable;
        let mut meter = Meter::new(Step::Copy, self.observer, self.cancel);
        let taken = self.selection.disks[place].clone();
        let full = taken.allocation == Allocation::Full;
        let Copied { progress, unreadable } = match &self.origin {
            Origin::Local(disks) => {
                let copied = disks.copy_of(place, &taken, &disk, |copy| copy.copy(&replica, full, skip, &mut meter))?;
                self.record.is_of_unchanged(&disks.stamps(), &self.record.machine, &self.workdir)?;
                copied
            }
            Origin::Remote(machine) => {
                let visit = self.record.visit.as_ref();
                let copy = RemoteCopy { place, taken: &taken, machine: machine.as_ref(), visit };
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
            file: self.file_name(place),
            allocation: taken.allocation,
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
            let (replica, taken) = (self.replica(place), &self.selection.disks[place]);
            let mut meter = Meter::new(Step::Verify, self.observer, self.cancel);
            let compared = match &self.origin {
                Origin::Local(disks) => disks.copy_of(place, taken, &disk, |copy| copy.verify(&replica, &mut meter)),
                Origin::Remote(machine) => {
                    let visit = self.record.visit.as_ref();
                    let copy = RemoteCopy { place, taken, machine: machine.as_ref(), visit };
                    copy.verify(&replica, &mut meter, self.cancel)
                }
            };
            let differences = match compared {
                Err(error) if error.kind == ErrorKind::SourceChanged => {
                    self.warn("not verified: the machine was in its own system since it was copied".into());
                    self.record.verified = Some(false);
                    return self.store();
                }
                compared => compared?,
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
        self.record.incomplete()
    }

    /// Makes the overlays part of their disks and gives the result its name.
    fn finish(mut self) -> Result<Outcome> {
        self.cancel.check()?;
        self.join_overlays()?;
        // Some of it an earlier run may have left that was killed.
        let mut scaffolding =
            ["conversion.json.new", "appliance.initramfs"].map(|name| self.workdir.file(name)).to_vec();
        for place in 0..self.record.selected.len() {
            scaffolding.extend([self.overlay_path(place), self.proof_overlay_path(place)]);
        }
        let annexes = self.annexes();
        let folder = self.workdir.publish(&scaffolding, &annexes)?;
        Ok(self.record.outcome(&self.selection, folder))
    }
}

impl Pipeline<'_> {
    /// Makes the overlays part of their disks, each recorded: one that was killed half-way is whole and joined again.
    fn join_overlays(&mut self) -> Result<()> {
        if self.record.joined_disks.is_none() {
            self.record.joined_disks = Some(vec![false; self.record.selected.len()]);
            self.store()?;
        }
        for place in 0..self.record.selected.len() {
            let joined = |record: &Record| record.joined_disks.as_ref()?.get(place).copied();
            if joined(&self.record) == Some(true) {
                continue;
            }
            if let Some(overlay) = Overlay::existing(self.overlay_path(place)) {
                overlay.join()?;
            }
            let sync = std::fs::File::open(self.image(place)).and_then(|file| file.sync_all());
            sync.context(ErrorKind::Target, || self.image(place).display().to_string())?;
            let joined = self.record.joined_disks.as_mut().and_then(|joined| joined.get_mut(place));
            *joined.ok_or_else(|| Error::new(ErrorKind::Target, "record of the conversion: a disk is missing"))? = true;
            self.store()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod partial;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::process::Command;
    use std::sync::Mutex;

    use super::*;

    const SIZE: usize = 1 << 20;

    /// A conversion of two disks in `folder` whose every step is done, with a byte of fix-ups in each overlay.
    fn all_but_joined(folder: &Path, verdict: Verdict) -> (Source, Request) {
        let paths = ["a.raw", "b.raw"].map(|name| folder.join(name));
        paths.iter().for_each(|path| fs::write(path, vec![1; SIZE]).unwrap());
        let source = Source::Local(paths.to_vec());
        let request = Request {
            name: "vm".into(),
            output: folder.into(),
            format: crate::OutputFormat::Raw,
            prove_boot: Some(false),
            ..Request::default()
        };
        let origin = Origin::open(&source).unwrap();
        let machine = origin.machine().unwrap();
        let workdir = Workdir::open(&request).unwrap();
        let mut record = Record { stamps: origin.stamps(), ..Record::new(&request, &machine, vec![0, 1]) };
        let (observer, cancel) = (|_: Event| {}, Cancel::default());
        let selection = Selection::of(&machine, &request).unwrap();
        let windows = WindowsGuests::default();
        let mut pipeline = Pipeline {
            origin,
            workdir,
            record: record.clone(),
            selection,
            windows: &windows,
            observer: &observer,
            cancel: &cancel,
        };
        pipeline.copy_disks().unwrap();
        for place in 0..2 {
            let overlay = Overlay::create(pipeline.overlay_path(place), &pipeline.image(place), "raw").unwrap();
            let mut write = Command::new("qemu-io");
            write.args(["-f", "qcow2", "-c", "write -q -P 2 65536 65536"]).arg(overlay.path());
            assert!(write.status().unwrap().success());
        }
        record.copied = pipeline.record.copied.clone();
        let plan = guest::Plan::without_fixups(machine.firmware.kind, machine::Family::Unknown);
        record.fixed_up = Some(FixUps { plan, applied: Vec::new() });
        record.defined = true;
        record.proof = Some(Proof { verdict, evidence: "as it was seen".into(), ..Proof::default() });
        pipeline.workdir.store(&record).unwrap();
        (source, request)
    }

    fn steps_of(source: &Source, request: &Request) -> (Vec<Step>, Result<Outcome>) {
        let steps = Mutex::new(Vec::new());
        let observer = |event| {
            if let Event::Step { step } = event {
                steps.lock().unwrap().push(step);
            }
        };
        let outcome = convert(source, request, &WindowsGuests::default(), &observer, &Cancel::default());
        (steps.into_inner().unwrap(), outcome)
    }

    /// Made anew between two joins, fix-ups would see one disk with them and one without: halves of two filesystems where a
    /// volume group spans both.
    #[test]
    fn a_conversion_that_was_stopped_between_two_joins_only_joins_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (source, request) = all_but_joined(folder.path(), Verdict::Passed);
        let second = folder.path().join(".vm.partial/fixups-disk1.qcow2");
        let (whole, record) = (fs::read(&second).unwrap(), folder.path().join(".vm.partial/conversion.json"));
        fs::write(&second, "no overlay").unwrap();
        let (_, stopped) = steps_of(&source, &request);
        assert!(stopped.unwrap_err().to_string().contains("commit"));
        assert!(!folder.path().join("vm").exists());
        fs::write(&second, whole).unwrap();
        // As it would have been had nobody been sure that it boots.
        let text = fs::read_to_string(&record).unwrap().replace("\"passed\"", "\"inconclusive\"");
        fs::write(&record, text).unwrap();
        // The source is not needed any more.
        fs::write(folder.path().join("a.raw"), vec![3; SIZE]).unwrap();

        let (steps, outcome) = steps_of(&source, &Request { verify: true, ..request });
        let outcome = outcome.unwrap();
        assert_eq!(steps, [Step::Check], "no step is made again");
        assert_eq!((outcome.proof.evidence.as_str(), outcome.verified), ("as it was seen", Some(false)));
        for disk in 0..2 {
            let image = fs::File::open(outcome.folder.join(format!("vm-disk{disk}.raw"))).unwrap();
            let mut bytes = [0; 3];
            for (byte, at) in bytes.iter_mut().zip([0, 65536, 131_072]) {
                image.read_exact_at(std::slice::from_mut(byte), at).unwrap();
            }
            assert_eq!(bytes, [1, 2, 1], "disk {disk}");
        }
    }

    #[test]
    fn a_proof_that_says_nothing_is_tried_again_with_the_fix_ups_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let (source, request) = all_but_joined(folder.path(), Verdict::Inconclusive);
        let (steps, outcome) = steps_of(&source, &request);
        assert_eq!(steps, [Step::Check, Step::FixUp, Step::Define, Step::Prove]);
        assert_eq!(outcome.unwrap().proof.verdict, Verdict::NotTried);
    }
}
