//! The appliance from outside: a small VM in which a guest's disks are looked at and changed, because this kernel never
//! mounts what a stranger wrote. It is told a [`Job`] in its initramfs and answers in lines on its second serial port.

use std::path::Path;
use std::time::{Duration, Instant};

use bootimage::cpio::{Archive, append_archive};
use bootimage::{ApplianceOptions, build_appliance};
use guest::Plan;
use guest::appliance::{JOB_PATH, Job, Report, WindowsJob};
use qemu::{Confinement, DirectBoot, Disk, DiskBus, Hardware, Image, MachineType, OnReset, SerialPort};

use crate::error::Context;
use crate::{Cancel, Error, ErrorKind, Event, Observer, Result};

/// An appliance that takes longer is stuck. On an idle machine without KVM it takes ten seconds.
const TIME_MAX: Duration = Duration::from_secs(900);
/// Memory of the appliance: an initramfs of the guest is held in it several times over, and so are the hives of a Windows, with
/// the drivers that it gets.
const MEMORY_MIB: u32 = 768;
const MEMORY_WINDOWS_MIB: u32 = 1536;
/// Lines of the answer that are read.
const REPORTS_MAX: usize = 100_000;

/// What the appliance answered.
pub(crate) struct Answer {
    /// The plan; `None` for a job that has none.
    pub plan: Option<Plan>,
    /// What became of each fix-up, where the plan was applied.
    pub outcomes: Vec<guest::Outcome>,
}

impl Answer {
    /// The fix-up for which the guest's filesystem has no room, if there is one: the disks must be thrown away, and the
    /// others can be made without it.
    pub(crate) fn no_room(&self) -> Option<&guest::Outcome> {
        self.outcomes.iter().find(|outcome| outcome.state == guest::State::NoRoom)
    }
}

/// A disk as the appliance sees it: on virtio-blk, in the order of the job's machine.
pub(crate) fn disk(image: Image, of: &machine::Disk) -> Disk {
    let sector = of.logical_sector_size.bytes();
    Disk {
        logical_sector_size: sector,
        physical_sector_size: sector.max(512),
        // The overlay is made durable as a whole when the appliance is done, or thrown away.
        ignore_flush: true,
        ..Disk::new(image, DiskBus::Virtio)
    }
}

/// Runs `job` with `files` beside it (path and content) on `disks`; `scratch` is a folder for the time of the run. The appliance's log is left there as
/// `appliance.log`.
///
/// # Errors
/// [`ErrorKind::FixUp`] with the appliance's own reason (a lack of room in the guest is an answer), [`ErrorKind::Refused`] where something that it needs is missing.
pub(crate) fn run(
    job: &Job,
    files: &[(String, Vec<u8>)],
    disks: Vec<Disk>,
    scratch: &Path,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<Answer> {
    let log = |message: &str| observer.event(Event::Log { message: message.to_string() });
    let appliance = ApplianceOptions::from_executable()
        .and_then(|options| build_appliance(&options, &mut |line| log(line)))
        .context(ErrorKind::Refused, || "the appliance, in which guests are fixed up".into())?;

    let initramfs = scratch.join("appliance.initramfs");
    let mut archive = Archive::new();
    let job_json = serde_json::to_vec(job).context(ErrorKind::Internal, || "the appliance's job".into())?;
    let own = [(JOB_PATH.to_owned(), job_json)];
    own.iter()
        .chain(files)
        .try_for_each(|(path, content)| archive.add_bytes(path.trim_start_matches('/'), 0o400, content.as_slice()))
        .and_then(|()| append_archive(&appliance.initramfs, &archive, &initramfs))
        .context(ErrorKind::Target, || "the appliance's initramfs".into())?;

    let mut hardware = Hardware::new(MachineType::Q35);
    hardware.name = "vconverter-appliance".into();
    hardware.memory_mib = if job.windows == WindowsJob::default() { MEMORY_MIB } else { MEMORY_WINDOWS_MIB };
    hardware.screen = false;
    hardware.disks = disks;
    hardware.serial_ports = vec![SerialPort::logged(scratch.join("appliance.log")), SerialPort::default()];
    hardware.kernel = Some(DirectBoot {
        kernel: appliance.kernel,
        initrd: Some(initramfs.clone()),
        command_line: "console=ttyS0 quiet panic=-1".into(),
    });
    hardware.on_reset = OnReset::Exit;
    hardware.confinement = Confinement::Unprivileged;
    let vm = hardware.start().context(ErrorKind::Refused, || "starting the appliance".into())?;
    let answer = listen(&vm, observer, cancel);
    if answer.is_ok() {
        // Reported after everything was unmounted; what remains is switching off.
        vm.wait(Duration::from_secs(30));
    }
    drop(vm);
    crate::workdir::remove_if_present(&initramfs)?;
    answer
}

/// Reads the appliance's reports until it is done, failed, or gone.
fn listen(vm: &qemu::Vm, observer: &dyn Observer, cancel: &Cancel) -> Result<Answer> {
    let fixup_error = |context: String| Error::new(ErrorKind::FixUp, context);
    let started = Instant::now();
    let mut reader = vm.serial(1).reader();
    let mut answer = Answer { plan: None, outcomes: Vec::new() };
    for _ in 0..REPORTS_MAX {
        let line = loop {
            cancel.check()?;
            let read = reader.next_line(Duration::from_millis(500));
            match read.context(ErrorKind::FixUp, || format!("the appliance ended: {}", last_words(vm)))? {
                Some(line) => break line,
                None if started.elapsed() > TIME_MAX => {
                    return Err(fixup_error(format!("the appliance did not finish in time: {}", last_words(vm))));
                }
                None if !vm.is_running() && reader.is_closed() => {
                    return Err(fixup_error(format!("the appliance ended without an answer: {}", last_words(vm))));
                }
                None => {}
            }
        };
        if line.trim().is_empty() {
            continue;
        }
        let report = serde_json::from_str(&line);
        match report.context(ErrorKind::FixUp, || format!("answer of the appliance: {line:?}"))? {
            Report::Log { text } => observer.event(Event::Log { message: format!("appliance: {text}") }),
            Report::Plan { plan } => answer.plan = Some(plan),
            Report::Outcome { outcome } => answer.outcomes.push(outcome),
            Report::Failed { .. } if answer.no_room().is_some() => return Ok(answer),
            Report::Failed { reason } => return Err(fixup_error(format!("fix-ups: {reason}"))),
            Report::Done => return Ok(answer),
        }
    }
    Err(fixup_error("the appliance does not stop talking".into()))
}

/// The end of the appliance's log, for an error.
fn last_words(vm: &qemu::Vm) -> String {
    let text = vm.serial(0).text();
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => "it said nothing".into(),
        false => lines[lines.len().saturating_sub(5)..].join(" | "),
    }
}
