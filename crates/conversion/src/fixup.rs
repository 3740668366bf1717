//! The fix-up step: plan, show, apply, in overlays over the replicas.

use guest::appliance::{Job, Mode, WindowsJob};
use guest::{Plan, State};
use machine::{Family, Machine};
use qemu::Image;
use serde::{Deserialize, Serialize};

use crate::choices::Selection;
use crate::error::Context;
use crate::overlay::Overlay;
use crate::pipeline::Pipeline;
use crate::{Error, ErrorKind, Event, FixUpOutcome, Observer, Result, appliance};

/// What was planned, and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FixUps {
    /// The plan, as the appliance made it on the guest's own files.
    pub plan: Plan,
    /// For each fix-up of the plan, what happened; empty where it was only planned.
    pub applied: Vec<guest::Outcome>,
}

impl FixUps {
    /// Whether the fix-up of this id was made, or was so already.
    pub(crate) fn is_so(&self, id: &str) -> bool {
        self.applied.iter().any(|fixup| fixup.id == id && matches!(fixup.state, State::Done | State::AlreadySo))
    }

    /// For the outcome of the conversion.
    pub(crate) fn outcomes(&self) -> Vec<FixUpOutcome> {
        let result = |id: &str| match self.applied.iter().find(|outcome| outcome.id == id).map(|o| o.state) {
            Some(State::Done) => "made",
            Some(State::AlreadySo) => "already so",
            Some(State::Refused) => "left out",
            Some(State::Failed | State::NoRoom) => "failed",
            None => "planned",
        };
        let outcome = |fixup: &guest::Fixup| FixUpOutcome {
            id: fixup.id.clone(),
            title: fixup.title.clone(),
            reason: fixup.reason.clone(),
            result: match (fixup.already_so, fixup.no_room) {
                (true, _) => "already so",
                (false, true) => "left out",
                (false, false) => result(&fixup.id),
            }
            .to_string(),
            files: fixup.changes.iter().map(|change| change.path().to_string()).collect(),
        };
        self.plan.fixups.iter().map(outcome).collect()
    }

    /// Tells the log what they take of the guest's filesystems.
    pub(crate) fn tell_room(&self, observer: &dyn Observer) {
        for usage in &self.plan.room {
            observer.event(Event::Log { message: format!("room for the fix-ups in {usage}") });
        }
    }
}

/// Makes a fresh overlay over each replica, and has the appliance plan and apply the fix-ups there.
pub(crate) fn fix_up(pipeline: &mut Pipeline<'_>) -> Result<FixUps> {
    if let Some(plan) = plan_without_guest(&selected_machine(pipeline)) {
        plan.warnings.iter().for_each(|warning| pipeline.warn(warning.clone()));
        return Ok(FixUps { plan, applied: Vec::new() });
    }
    let parcel = pipeline.windows.parcel(&selected_machine(pipeline), &pipeline.record.id)?;
    parcel.warnings.into_iter().for_each(|warning| pipeline.warn(warning));
    let job = job(Mode::Apply, &pipeline.record.machine, &pipeline.selection);
    let mut job = Job { windows: parcel.job, ..job };
    let (answer, overlays) = loop {
        let (answer, overlays) = try_on_overlays(pipeline, &job, &parcel.files)?;
        let Some(full) = answer.no_room() else { break (answer, overlays) };
        overlays.into_iter().try_for_each(Overlay::discard)?;
        if job.refused.contains(&full.id) {
            return Err(Error::new(
                ErrorKind::FixUp,
                format!("fix-up {}: left out, and tried: {}", full.id, full.detail),
            ));
        }
        // The guest can hardly be asked to make room: its machine may be gone. What fits is made.
        pipeline.warn(format!("fix-up {} is left out, the guest has no room for it: {}", full.id, full.detail));
        job.refused.push(full.id.clone());
    };
    let missing = || Error::new(ErrorKind::FixUp, "the appliance made no plan");
    let fixups = FixUps { plan: answer.plan.ok_or_else(missing)?, applied: answer.outcomes };
    crate::undo::write(&fixups, &pipeline.workdir.file(crate::undo::FOLDER))?;
    fixups.tell_room(pipeline.observer);
    for outcome in fixups.outcomes() {
        let message = format!("fix-up {}: {} ({})", outcome.id, outcome.title, outcome.result);
        pipeline.observer.event(Event::Log { message });
    }
    for warning in fixups.plan.warnings.clone() {
        pipeline.warn(warning);
    }
    // The appliance ran without flushing; now the overlays are to survive a crash.
    for overlay in &overlays {
        let synced = std::fs::File::open(overlay.path()).and_then(|file| file.sync_all());
        synced.context(ErrorKind::Target, || overlay.path().display().to_string())?;
    }
    Ok(fixups)
}

/// Runs `job` on fresh overlays; after a failure they are gone.
fn try_on_overlays(
    pipeline: &Pipeline<'_>,
    job: &Job,
    files: &[(String, Vec<u8>)],
) -> Result<(appliance::Answer, Vec<Overlay>)> {
    let mut overlays = Vec::new();
    let mut disks = Vec::new();
    for (place, disk) in pipeline.disks() {
        let (image, format) = (pipeline.image(place), pipeline.record.request.format.extension());
        let overlay = Overlay::create(pipeline.overlay_path(place), &image, format)?;
        let stack = Image::new(overlay.path(), "qcow2").over(Image::new(&image, format));
        disks.push(appliance::disk(stack, disk));
        overlays.push(overlay);
    }
    match appliance::run(job, files, disks, pipeline.workdir.path(), pipeline.observer, pipeline.cancel) {
        Ok(answer) => Ok((answer, overlays)),
        Err(error) => {
            // The replica is as it was; what is in the overlays is worth nothing.
            overlays.into_iter().try_for_each(Overlay::discard)?;
            Err(error)
        }
    }
}

/// The plan for disks on which no volume can hold a guest, so that no appliance need be started to find none.
///
/// Only what is known to be none counts: a root on XFS is first seen in the appliance.
pub(crate) fn plan_without_guest(machine: &Machine) -> Option<Plan> {
    let empty = |kind: &str| matches!(kind, "swap" | "unknown" | "");
    let volumes = || machine.disks.iter().flat_map(|disk| &disk.layout.volumes);
    let none = machine.guest.family == Family::Unknown
        && volumes().all(|volume| empty(&volume.kind) && volume.parts.iter().all(|part| empty(&part.kind)));
    none.then(|| Plan::without_fixups(machine.firmware.kind, Family::Unknown))
}

/// The machine with only what is converted, in the order in which VMs and appliances get the disks.
pub(crate) fn selected_machine(pipeline: &Pipeline<'_>) -> Machine {
    pipeline.selection.of_vm(&pipeline.record.machine)
}

/// A job for the appliance on the disks that are taken of `machine`.
pub(crate) fn job(mode: Mode, machine: &Machine, selection: &Selection) -> Job {
    let source_disks = if selection.is_partial { machine.disks.clone() } else { Vec::new() };
    let absent = selection.absent.clone();
    let facts = selection.of_vm(machine);
    Job { mode, facts, source_disks, absent, refused: Vec::new(), windows: WindowsJob::default() }
}
