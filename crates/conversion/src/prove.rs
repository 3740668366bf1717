//! The boot proof: the VM is started in isolation, on overlays that are thrown away, and seen to come up.
//!
//! Only evidence from inside the guest passes: the line of a one-shot probe, which the appliance adds to the throw-away
//! overlay, or the guest's own name at a login prompt. Known failures fail. Anything else is inconclusive.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest::appliance::Mode;
use guest::proof::{Probe, Verdict as Seen, classify, parse_probe_line};
use machine::{Capabilities, DiskBus, Family, FirmwareKind, Machine, NicModel};
use qemu::{Accelerator, Clock, Confinement, Hardware, Image, MachineType, NicBackend, SerialPort, Vm};

use crate::error::Context;
use crate::fixup::{job, selected_machine};
use crate::overlay::Overlay;
use crate::pipeline::Pipeline;
use crate::programs::qemu_is_here;
use crate::{Cancel, Error, ErrorKind, Event, Proof, Result, Verdict, appliance};

/// How long a guest may take, with hardware virtualisation and without.
const TIME_MAX: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(1200)];
/// A screen and a serial line that stay the same for so long will not change any more.
const STABLE: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(240)];
/// A failure counts when it has been standing for so long: some loaders try again by themselves.
const FAILURE_STANDS: Duration = Duration::from_secs(10);
/// How often the screen is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A proof needs no more than this, whatever the source has.
const MEMORY_MIB_MAX: u64 = 2048;
const CPUS_MAX: u32 = 2;

/// Proves that the VM boots, or says why that was not tried.
pub(crate) fn prove(pipeline: &mut Pipeline<'_>) -> Result<Proof> {
    let not_tried = |why: &str| Proof { evidence: why.to_string(), ..Proof::default() };
    match pipeline.record.request.prove_boot {
        Some(false) => return Ok(not_tried("switched off by --no-prove-boot")),
        None if !qemu_is_here() => return Ok(not_tried("QEMU is not installed here")),
        _ => {}
    }
    let folder = pipeline.workdir.file("proof");
    fs::create_dir_all(&folder).context(ErrorKind::Target, || folder.display().to_string())?;
    let mut stacks = Vec::new();
    let mut throw_away = Vec::new();
    for (place, _) in pipeline.disks() {
        let base = Image::new(pipeline.image(place), pipeline.record.request.format.extension());
        let below = match Overlay::existing(pipeline.overlay_path(place)) {
            Some(overlay) => Image::new(overlay.path(), "qcow2").over(base),
            None => base,
        };
        let overlay =
            Overlay::create(pipeline.workdir.file(format!("proof-disk{place}.qcow2")), &below.path, &below.format)?;
        stacks.push(Image::new(overlay.path(), "qcow2").over(below));
        throw_away.push(overlay);
    }
    let proof = add_probe(pipeline, &stacks).and_then(|nonce| watch(pipeline, stacks, nonce.as_deref(), folder));
    throw_away.into_iter().try_for_each(Overlay::discard)?;
    proof
}

/// Adds the probe to the throw-away overlays and returns its nonce; `None` where this guest cannot take one, so that
/// only what it shows by itself can prove it.
fn add_probe(pipeline: &mut Pipeline<'_>, stacks: &[Image]) -> Result<Option<String>> {
    let planned = pipeline.record.fixed_up.as_ref().map(|fixed_up| fixed_up.plan.guest.family);
    if planned != Some(Family::Linux) {
        let message = "boot proof: only the screen and the serial line are watched, no probe is known for this guest";
        pipeline.observer.event(Event::Log { message: message.into() });
        return Ok(None);
    }
    let nonce = blake3::hash(format!("{:?}{}", std::time::SystemTime::now(), std::process::id()).as_bytes());
    let nonce = nonce.to_hex()[..32].to_string();
    let probe = Probe { nonce: nonce.clone(), port: "ttyS1".into(), patience_s: 90, serial_console: true };
    let machine = selected_machine(pipeline);
    let disks = machine.disks.iter().zip(stacks).map(|(disk, stack)| appliance::disk(stack.clone(), disk)).collect();
    let job = job(&pipeline.record.request.name, Mode::Proof(probe), &machine);
    match appliance::run(&job, disks, pipeline.workdir.path(), pipeline.observer, pipeline.cancel) {
        Ok(_) => Ok(Some(nonce)),
        Err(error) if error.kind == ErrorKind::FixUp => {
            pipeline.warn(format!("the boot proof's probe could not be added, only the screen is watched: {error}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Starts the VM and watches it until there is a verdict.
fn watch(pipeline: &Pipeline<'_>, stacks: Vec<Image>, nonce: Option<&str>, folder: PathBuf) -> Result<Proof> {
    let machine = selected_machine(pipeline);
    let capabilities = pipeline.capabilities()?;
    let mut hardware = virtual_hardware(&machine, &capabilities, stacks)?;
    hardware.serial_ports = vec![SerialPort::logged(folder.join("serial.log")), SerialPort::default()];
    let started = Instant::now();
    let vm = hardware.start().context(ErrorKind::Refused, || "starting the VM for its boot proof".into())?;
    let message =
        format!("boot proof: started with {:?}, no network, unprivileged, on throw-away disks", vm.accelerator());
    pipeline.observer.event(Event::Log { message });

    let hostname = machine.guest.hostname.clone().unwrap_or_default();
    let mut watcher = Watcher::new(&vm, nonce, &hostname, pipeline.cancel);
    let (verdict, evidence, guest) = watcher.verdict()?;
    if let Some(picture) = watcher.picture() {
        fs::write(folder.join("screen.png"), picture).context(ErrorKind::Target, || folder.display().to_string())?;
    }
    let proof = Proof {
        verdict,
        evidence,
        guest,
        serial_log: Some("proof/serial.log".into()),
        screenshot: folder.join("screen.png").exists().then(|| "proof/screen.png".into()),
        seconds: started.elapsed().as_secs_f64(),
    };
    let json = serde_json::to_vec_pretty(&proof).context(ErrorKind::Internal, || "proof".into())?;
    fs::write(folder.join("proof.json"), json).context(ErrorKind::Target, || folder.display().to_string())?;
    Ok(proof)
}

/// The VM as its definition says, without a network and with less memory where the source had much.
fn virtual_hardware(machine: &Machine, capabilities: &Capabilities, stacks: Vec<Image>) -> Result<Hardware> {
    let (chipset, bus) = match capabilities.disk_bus {
        DiskBus::Virtio => (MachineType::Q35, qemu::DiskBus::Virtio),
        DiskBus::Sata => (MachineType::Q35, qemu::DiskBus::Ahci),
        DiskBus::Ide => (MachineType::Pc, qemu::DiskBus::Ide),
    };
    let firmware = match (capabilities.firmware, machine.firmware.kind) {
        (FirmwareKind::Uefi, _) | (FirmwareKind::Unknown, FirmwareKind::Uefi) => FirmwareKind::Uefi,
        _ => FirmwareKind::Bios,
    };
    let mut hardware = Hardware::new(chipset);
    hardware.name = "vconverter-proof".into();
    if firmware == FirmwareKind::Uefi {
        hardware.firmware =
            qemu::Firmware::Uefi { secure_boot: machine.firmware.secure_boot == Some(true), variables: None };
    }
    let memory_mib = (machine.memory.0 >> 20).clamp(256, MEMORY_MIB_MAX);
    hardware.memory_mib = u32::try_from(memory_mib).context(ErrorKind::Internal, || "memory".into())?;
    let cpu = &machine.cpu;
    let cpus =
        [cpu.sockets, cpu.cores_per_socket, cpu.threads_per_core].iter().fold(1_u32, |n, &m| n.saturating_mul(m));
    hardware.cpus = cpus.clamp(1, CPUS_MAX);
    hardware.random = true;
    hardware.clock = if capabilities.clock_utc { Clock::Utc } else { Clock::LocalTime };
    hardware.confinement = Confinement::Unprivileged;
    hardware.disks = stacks
        .into_iter()
        .zip(&machine.disks)
        .map(|(stack, disk)| qemu::Disk { bus, ..appliance::disk(stack, disk) })
        .collect();
    let model = match capabilities.nic_model {
        NicModel::Virtio => qemu::NicModel::Virtio,
        NicModel::E1000 => qemu::NicModel::E1000,
        NicModel::E1000e => qemu::NicModel::E1000e,
    };
    // Its cables are unplugged, as in the definition: two machines with one address must never meet.
    hardware.nics =
        machine.nics.iter().map(|nic| qemu::Nic::new(model, nic.mac.to_string(), NicBackend::Unplugged)).collect();
    Ok(hardware)
}

/// Looks at a VM until it knows.
struct Watcher<'a> {
    vm: &'a Vm,
    nonce: Option<&'a str>,
    hostname: &'a str,
    cancel: &'a Cancel,
    time_max: Duration,
    stable: Duration,
    started: Instant,
    /// Hash of what was seen last, and since when it is the same.
    unchanged: Option<(blake3::Hash, Instant)>,
    failing_since: Option<Instant>,
    picture: Option<Vec<u8>>,
}

type Finding = (Verdict, String, Option<serde_json::Value>);

impl<'a> Watcher<'a> {
    fn new(vm: &'a Vm, nonce: Option<&'a str>, hostname: &'a str, cancel: &'a Cancel) -> Self {
        let slow = usize::from(matches!(vm.accelerator(), Accelerator::Tcg));
        Self {
            vm,
            nonce,
            hostname,
            cancel,
            time_max: TIME_MAX[slow],
            stable: STABLE[slow],
            started: Instant::now(),
            unchanged: None,
            failing_since: None,
            picture: None,
        }
    }

    fn verdict(&mut self) -> Result<Finding> {
        let mut looked = Instant::now();
        loop {
            self.cancel.check()?;
            if let Some(finding) = self.heard()? {
                self.look();
                return Ok(finding);
            }
            if let Some(exit) = self.vm.wait(Duration::from_millis(500)) {
                let words = if exit.stderr.is_empty() { String::new() } else { format!(": {}", exit.stderr.trim()) };
                return Ok((Verdict::Failed, format!("the VM ended by itself ({:?}){words}", exit.kind), None));
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                if self.look() > self.stable {
                    let seconds = self.stable.as_secs();
                    return Ok((
                        Verdict::Inconclusive,
                        format!("screen and serial line unchanged for {seconds} s"),
                        None,
                    ));
                }
            }
            if self.started.elapsed() > self.time_max {
                let seconds = self.time_max.as_secs();
                return Ok((Verdict::Inconclusive, format!("no evidence within {seconds} s"), None));
            }
        }
    }

    /// What the guest said of itself, or what is known to mean that it never will.
    fn heard(&mut self) -> Result<Option<Finding>> {
        if let Some(line) = self.nonce.and_then(|nonce| parse_probe_line(&self.vm.serial(1).text(), nonce)) {
            let evidence = format!("{} reports from inside: {}, Linux {}", line.hostname, line.product, line.kernel);
            let line = serde_json::to_value(&line).context(ErrorKind::Internal, || "probe".into())?;
            return Ok(Some((Verdict::Passed, evidence, Some(line))));
        }
        let mut text = self.vm.serial(0).text();
        // The firmware's and the boot loader's words may only be on the screen.
        if let Ok(screen) = self.vm.text_screen() {
            text.insert_str(0, &format!("{screen}\n"));
        }
        match classify(&text, self.hostname) {
            // With a probe in the guest its line is worth waiting for: it says more than a prompt.
            Seen::Passed { evidence } if self.nonce.is_none() => Ok(Some((Verdict::Passed, evidence, None))),
            Seen::Failed { meaning, evidence } => {
                let since = *self.failing_since.get_or_insert_with(Instant::now);
                let stands = since.elapsed() >= FAILURE_STANDS;
                Ok(stands.then(|| (Verdict::Failed, format!("{meaning} ({evidence})"), None)))
            }
            Seen::Passed { evidence } => {
                self.failing_since = None;
                let waited = self.started.elapsed() > self.time_max / 2;
                Ok(waited.then_some((Verdict::Passed, evidence, None)))
            }
            Seen::Inconclusive => {
                self.failing_since = None;
                Ok(None)
            }
        }
    }

    /// Takes a picture, and says for how long nothing has changed.
    fn look(&mut self) -> Duration {
        let Ok(picture) = self.vm.screenshot() else { return Duration::ZERO };
        let mut hash = blake3::Hasher::new();
        hash.update(&picture).update(self.vm.serial(0).text().as_bytes()).update(self.vm.serial(1).text().as_bytes());
        let hash = hash.finalize();
        self.picture = Some(picture);
        let since = match self.unchanged {
            Some((before, since)) if before == hash => since,
            _ => Instant::now(),
        };
        self.unchanged = Some((hash, since));
        since.elapsed()
    }

    fn picture(self) -> Option<Vec<u8>> {
        self.picture
    }
}

impl From<qemu::Error> for Error {
    fn from(error: qemu::Error) -> Self {
        Error::because(ErrorKind::Internal, "watching the VM", error)
    }
}
