//! What a conversion would do, without leaving anything behind.

use guest::appliance::{Job, Mode};
use machine::Machine;
use qemu::Image;

use crate::choices::Selection;
use crate::fixup::{FixUps, job, plan_without_guest};
use crate::overlay::Overlay;
use crate::pipeline::Origin;
use crate::{
    Cancel, ConvertedDisk, CopyProgress, Event, Observer, Outcome, Proof, Request, Result, Step, WindowsGuests,
    appliance,
};
use block::Extent;

/// Counts what would be copied and, for disks that lie here, plans the fix-ups on overlays that are thrown away.
pub(crate) fn dry_run(
    origin: &Origin,
    machine: &Machine,
    selection: &Selection,
    request: &Request,
    windows: &WindowsGuests,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<Outcome> {
    let (source, machine) = (machine, selection.of_vm(machine));
    let mut warnings = Vec::new();
    let mut disks = Vec::new();
    for ((place, disk), taken) in machine.disks.iter().enumerate().zip(&selection.disks) {
        let total = match origin {
            Origin::Local(local) => {
                local.copy_of(place, taken, disk, |copy| copy.grain_total(Extent::first(disk.virtual_size)))?
            }
            Origin::Remote(_) => taken.bytes,
        };
        let name = format!("{}-disk{place}.{}", request.name, request.format.extension());
        disks.push(ConvertedDisk {
            source: disk.path.clone(),
            file: match &taken.folder {
                Some(folder) => folder.join(&request.name).join(name).display().to_string(),
                None => name,
            },
            allocation: taken.allocation,
            format: request.format.extension().to_string(),
            virtual_size: disk.virtual_size,
            logical_sector_size: disk.logical_sector_size,
            copied: CopyProgress { disk: place, total, ..CopyProgress::default() },
            unreadable_extents: Vec::new(),
            copy_seconds: 0.0,
        });
    }
    if let Origin::Local(local) = origin {
        warnings.extend(local.layout().warnings().iter().map(ToString::to_string));
    }
    let fixups = match (origin, plan_without_guest(&machine)) {
        (_, Some(plan)) => Some(FixUps { plan, applied: Vec::new() }),
        (Origin::Local(local), None) => {
            observer.event(Event::Step { step: Step::FixUp });
            let scratch = tempfile::tempdir().map_err(|error| {
                crate::Error::because(crate::ErrorKind::Target, "folder for temporary files", error)
            })?;
            let mut stack = Vec::new();
            for (place, disk) in machine.disks.iter().enumerate() {
                let source = local.disk(selection.disks[place].index);
                let path = std::path::absolute(&source.path).unwrap_or_else(|_| source.path.clone());
                let base = Image::new(path, source.format.name());
                let overlay =
                    Overlay::create(scratch.path().join(format!("disk{place}.qcow2")), &base.path, &base.format)?;
                stack.push(appliance::disk(Image::new(overlay.path(), "qcow2").over(base), disk));
            }
            let parcel = windows.parcel(&machine, "dry-run")?;
            warnings.extend(parcel.warnings);
            let job = Job { windows: parcel.job, ..job(Mode::Plan, source, selection) };
            let answer = appliance::run(&job, &parcel.files, stack, scratch.path(), observer, cancel)?;
            answer.plan.map(|plan| FixUps { plan, applied: Vec::new() })
        }
        (Origin::Remote(_), None) => {
            warnings.push("fix-ups are planned on the replica, once the disks are here".into());
            None
        }
    };
    fixups.iter().for_each(|fixups| fixups.tell_room(observer));
    warnings.extend(fixups.iter().flat_map(|fixups| fixups.plan.warnings.clone()));
    Ok(Outcome {
        name: request.name.clone(),
        folder: request.output.join(&request.name),
        definition: format!("{}.xml", request.name),
        disks,
        left_out: selection.left_out(source),
        incomplete: false,
        verified: None,
        fixups: fixups.map(|fixups| fixups.outcomes()).unwrap_or_default(),
        proof: Proof { evidence: "dry run".into(), ..Proof::default() },
        warnings,
    })
}
