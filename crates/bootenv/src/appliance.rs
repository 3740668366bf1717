//! The role of the appliance: changes a guest's disks as a job says.
//!
//! The disks are an overlay of the replica, attached as virtio disks in the order of the job's machine. Their
//! filesystems are untrusted: they are mounted without set-user-id, devices and execution, and nothing of the guest is
//! run. Every step is reported as a line of JSON on the second serial port. After a failure the host throws the overlay
//! away, so nothing is undone here; but everything is unmounted, so that a report of success means clean filesystems.

mod device_mapper;
mod devices;
mod filesystems;
mod hibernation;
mod report;
mod windows;

use guest::appliance::{Job, Mode, Report};
use guest::{Directory, Plan, State};
use machine::Family;

use crate::{Error, Result, console};
use report::Reporter;

/// Where the job lies: its presence chooses this role.
pub const JOB: &str = guest::appliance::JOB_PATH;

/// Longest job, in bytes.
const JOB_MAX: u64 = 16 << 20;

/// Where the guest is mounted.
const GUEST: &str = "/guest";

/// Runs the job. The kernel's filesystems are mounted and drivers for the hardware are loaded.
///
/// # Errors
/// What kept the job from being done; it was reported before.
pub fn run() -> Result<()> {
    let mut reporter = Reporter::open()?;
    match work(&mut reporter) {
        Ok(()) => reporter.send(&Report::Done),
        Err(error) => {
            let _ = reporter.send(&Report::Failed { reason: error.chain() });
            Err(error)
        }
    }
}

fn work(reporter: &mut Reporter) -> Result<()> {
    let mut job = load_job()?;
    let disks = devices::wait_for_disks(&job.facts)?;
    let logical = devices::complete(&mut job, &disks)?;
    let mut volumes = devices::volumes(&job.facts, &disks);
    volumes.extend(devices::map_logical_volumes(&job, &disks, &logical)?);
    let writable = !matches!(job.mode, Mode::Plan);
    let Some(root) = filesystems::find_root(&volumes, |text| reporter.log(text))? else {
        let result = match windows::find(&volumes, |text| reporter.log(text)) {
            Ok(Some(found)) => windows::work(&job, &found, &disks, writable, reporter),
            Ok(None) => without_root(&job, &volumes, reporter),
            Err(error) => Err(error),
        };
        devices::unmap_logical_volumes(&logical);
        return result;
    };
    let mounted = filesystems::mount_guest(root, &volumes, &job.source(), writable, |text| reporter.log(text))?;
    // The tree is closed before anything is unmounted.
    let result = change(&job, &volumes, reporter);
    rustix::fs::sync();
    let unmounted = mounted.unmount();
    devices::unmap_logical_volumes(&logical);
    result.and(unmounted)
}

/// A guest without a Linux root is converted as it is, if nobody has seen Linux there.
fn without_root(job: &Job, volumes: &[devices::Device], reporter: &mut Reporter) -> Result<()> {
    let family = job.facts.guest.family;
    if family == Family::Linux || matches!(job.mode, Mode::Proof(_)) {
        return Err(Error::new("no root filesystem of a Linux system was found"));
    }
    let mut plan = Plan::without_fixups(job.facts.firmware.kind, family);
    let images = hibernation::find(volumes, None);
    plan.fixups.extend(hibernation::fixup(&images));
    reporter.send(&Report::Plan { plan })?;
    start_afresh(job, &images, reporter)
}

/// Applies the fix-up for a hibernated system, where that is wanted.
fn start_afresh(job: &Job, images: &[hibernation::Image], reporter: &mut Reporter) -> Result<()> {
    let Some(fixup) = hibernation::fixup(images) else { return Ok(()) };
    if job.mode == Mode::Plan {
        return Ok(());
    }
    let refused = job.refused.contains(&fixup.id);
    if !refused {
        images.iter().try_for_each(hibernation::Image::drop_signature)?;
    }
    let state = if refused { State::Refused } else { State::Done };
    let outcome = guest::Outcome { id: fixup.id, title: fixup.title, state, detail: String::new() };
    reporter.send(&Report::Outcome { outcome })
}

/// Plans, and applies what is wanted, in the guest that is mounted.
fn change(job: &Job, volumes: &[devices::Device], reporter: &mut Reporter) -> Result<()> {
    let mut tree = Directory::open(GUEST).map_err(fault)?;
    if let Mode::Proof(probe) = &job.mode {
        reporter.log("adding the boot proof's probe");
        return guest::proof::add_probe(&mut tree, probe).map_err(fault);
    }
    let plan = guest::plan(&tree, &job.source(), &job.absent, &job.refused).map_err(fault)?;
    let images = hibernation::find(volumes, Some(&tree));
    let mut shown = plan.clone();
    shown.fixups.extend(hibernation::fixup(&images));
    reporter.send(&Report::Plan { plan: shown })?;
    if job.mode == Mode::Plan {
        return Ok(());
    }
    apply(&plan, job, &mut tree, reporter)?;
    start_afresh(job, &images, reporter)
}

/// Applies what is wanted of a plan, and tells what became of it.
fn apply(plan: &Plan, job: &Job, tree: &mut Directory, reporter: &mut Reporter) -> Result<()> {
    let outcomes = guest::apply(plan, &job.refused, tree);
    let failed = outcomes.iter().find(|outcome| matches!(outcome.state, State::Failed | State::NoRoom)).cloned();
    for outcome in outcomes {
        reporter.send(&Report::Outcome { outcome })?;
    }
    failed.map_or(Ok(()), |outcome| Err(Error::new(format!("fix-up {}: {}", outcome.id, outcome.detail))))
}

/// What the guest's side says, as an error of this one.
fn fault(error: guest::Error) -> Error {
    let context = error.to_string();
    Error { context, source: error.source }
}

fn load_job() -> Result<Job> {
    let path = std::path::Path::new(JOB);
    let length = std::fs::metadata(path).map_err(|e| Error::path("look at", path, e))?.len();
    if length > JOB_MAX {
        return Err(Error::new(format!("{JOB}: {length} bytes are too many for a job")));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::path("read", path, e))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::new(format!("{JOB}: {e}")))
}

/// Says what is done on the log too; used by the steps.
fn log(text: &str) {
    console::log(text);
}
