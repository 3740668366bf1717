//! The boot proof: the VM is started in isolation, on overlays that are thrown away, and seen to come up.
//!
//! Only evidence from inside the guest passes: the line of a one-shot probe, which the appliance adds to the throw-away
//! overlay, or the guest's own name at a login prompt. Known failures fail. Anything else is inconclusive.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest::appliance::Mode;
use guest::proof::Probe;
use machine::{Capabilities, DiskBus, Family, FirmwareKind, Machine, NicModel};
use qemu::{Accelerator, Clock, Confinement, ExitKind, Hardware, Image, MachineType, NicBackend, SerialPort, Vm};

use crate::error::Context;
use crate::fixup::{job, selected_machine};
use crate::overlay::Overlay;
use crate::pipeline::Pipeline;
use crate::programs::qemu_is_here;
use crate::watch::{Finding, Limits, Sight, Watch};
use crate::{Cancel, ErrorKind, Event, Observer, Proof, Result, Verdict, appliance};

/// Where the evidence is kept, below the result or the working folder.
pub const PROOF_FOLDER: &str = "proof";
/// In that folder: [`Proof`] as JSON.
pub const PROOF_RECORD: &str = "proof.json";
/// In that folder: the last picture of the screen.
pub const PROOF_SCREENSHOT: &str = "screen.png";
/// In that folder: the text of the serial console.
pub const PROOF_SERIAL_LOG: &str = "serial.log";

/// How long a guest may take, with hardware virtualisation and without, unless `--proof-time` says otherwise.
const TIME_MAX: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(1200)];
/// A Windows finds its hardware and runs its first boot before it says anything.
const TIME_WINDOWS_MAX: [Duration; 2] = [Duration::from_secs(1200), Duration::from_secs(7200)];
const STABLE_WINDOWS: Duration = Duration::from_secs(900);
/// See [`Limits`].
const STABLE_IDLE: Duration = Duration::from_secs(120);
const STABLE_BUSY: Duration = Duration::from_secs(240);
const FAILURE_QUIET: Duration = Duration::from_secs(10);
const FAILURE_UNMENDED: Duration = Duration::from_secs(120);
const PROBE_AFTER_PROMPT: [Duration; 2] = [Duration::from_secs(120), Duration::from_secs(300)];
/// Seconds for which the probe waits for multi-user before it reports that it was not reached.
const PROBE_PATIENCE_S: u32 = 90;
/// How often texts are looked at.
const READ_EVERY: Duration = Duration::from_millis(500);
/// How often the screen is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A proof needs no more than this, whatever the source has.
const MEMORY_MIB_MAX: u64 = 2048;
const CPUS_MAX: u32 = 2;

/// Proves that the VM boots, or says why that was not tried.
pub(crate) fn prove(pipeline: &mut Pipeline<'_>) -> Result<Proof> {
    let folder = pipeline.workdir.file(PROOF_FOLDER);
    // What an earlier try saw is no evidence for this one.
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context(ErrorKind::Target, || folder.display().to_string());
        }
        _ => {}
    }
    let not_tried = |why: &str| Proof { evidence: why.to_string(), ..Proof::default() };
    match pipeline.record.request.prove_boot {
        Some(false) => return Ok(not_tried("switched off by --no-prove-boot")),
        None if !qemu_is_here() => return Ok(not_tried("QEMU is not installed here")),
        _ => {}
    }
    fs::create_dir_all(&folder).context(ErrorKind::Target, || folder.display().to_string())?;
    let mut stacks = Vec::new();
    let mut throw_away = Vec::new();
    for (place, _) in pipeline.disks() {
        let base = Image::new(pipeline.image(place), pipeline.record.request.format.extension());
        let below = match Overlay::existing(pipeline.overlay_path(place)) {
            Some(overlay) => Image::new(overlay.path(), "qcow2").over(base),
            None => base,
        };
        let overlay = Overlay::create(pipeline.proof_overlay_path(place), &below.path, &below.format)?;
        stacks.push(Image::new(overlay.path(), "qcow2").over(below));
        throw_away.push(overlay);
    }
    let proof =
        add_probe(pipeline, &stacks).and_then(|nonce| prove_started(pipeline, stacks, nonce.as_deref(), folder));
    throw_away.into_iter().try_for_each(Overlay::discard)?;
    proof
}

/// Adds the probe to the throw-away overlays and returns its nonce; `None` where this guest cannot take one, so that
/// only what it shows by itself can prove it.
fn add_probe(pipeline: &mut Pipeline<'_>, stacks: &[Image]) -> Result<Option<String>> {
    let planned = pipeline.record.fixed_up.as_ref().map(|fixed_up| fixed_up.plan.guest.family);
    if reports_first_boot(pipeline) {
        // The plan of its first boot has this nonce; what it does in the proof is thrown away with the overlay.
        return Ok(Some(pipeline.record.id.clone()));
    }
    if planned != Some(Family::Linux) {
        let message = "boot proof: only the screen and the serial line are watched, no probe is known for this guest";
        pipeline.observer.event(Event::Log { message: message.into() });
        return Ok(None);
    }
    let nonce = blake3::hash(format!("{:?}{}", std::time::SystemTime::now(), std::process::id()).as_bytes());
    let nonce = nonce.to_hex()[..32].to_string();
    // So that the probe can still report when the guest does not get to multi-user in time.
    let patience_s = pipeline.record.request.proof_time_s.map_or(PROBE_PATIENCE_S, |s| PROBE_PATIENCE_S.min(s / 3));
    let probe = Probe { nonce: nonce.clone(), port: "ttyS1".into(), patience_s, serial_console: true };
    let machine = selected_machine(pipeline);
    let disks = machine.disks.iter().zip(stacks).map(|(disk, stack)| appliance::disk(stack.clone(), disk)).collect();
    let job = job(Mode::Proof(probe), &pipeline.record.machine, &pipeline.selection);
    match appliance::run(&job, &[], disks, pipeline.workdir.path(), pipeline.observer, pipeline.cancel) {
        Ok(_) => Ok(Some(nonce)),
        Err(error) if error.kind == ErrorKind::FixUp => {
            pipeline.warn(format!("the boot proof's probe could not be added, only the screen is watched: {error}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether the guest is a Windows that reports its first boot.
fn reports_first_boot(pipeline: &Pipeline<'_>) -> bool {
    pipeline.record.fixed_up.as_ref().is_some_and(|fixed_up| fixed_up.is_so("first-boot"))
}

/// Starts the VM and watches it until there is a verdict.
fn prove_started(pipeline: &Pipeline<'_>, stacks: Vec<Image>, nonce: Option<&str>, folder: PathBuf) -> Result<Proof> {
    let machine = selected_machine(pipeline);
    let capabilities = pipeline.capabilities()?;
    let mut hardware = virtual_hardware(&machine, &capabilities, stacks)?;
    hardware.serial_ports = vec![SerialPort::logged(folder.join(PROOF_SERIAL_LOG)), SerialPort::default()];
    if capabilities.tpm && !hardware.tpm {
        let message = "boot proof: without the TPM that the VM is defined with: swtpm is not installed here";
        pipeline.observer.event(Event::Log { message: message.into() });
    }
    let started = Instant::now();
    let vm = start(&mut hardware, pipeline.observer)?;
    let slow = usize::from(matches!(vm.accelerator(), Accelerator::Tcg));
    let is_windows = reports_first_boot(pipeline);
    let time_max = if is_windows { TIME_WINDOWS_MAX } else { TIME_MAX };
    let limits = Limits {
        time: pipeline.record.request.proof_time_s.map_or(time_max[slow], |s| Duration::from_secs(s.into())),
        stable_idle: if is_windows { STABLE_WINDOWS } else { STABLE_IDLE },
        stable_busy: if is_windows { STABLE_WINDOWS } else { STABLE_BUSY },
        failure_quiet: FAILURE_QUIET,
        failure_unmended: FAILURE_UNMENDED,
        probe_after_prompt: PROBE_AFTER_PROMPT[slow],
    };
    let message = format!(
        "boot proof: started with {:?}, no network, unprivileged, on throw-away disks, for {} s at most",
        vm.accelerator(),
        limits.time.as_secs()
    );
    pipeline.observer.event(Event::Log { message });

    // A guest that only the appliance could look into has its name in the plan.
    let planned = pipeline.record.fixed_up.as_ref().and_then(|fixed_up| fixed_up.plan.guest.hostname.clone());
    let hostname = planned.or_else(|| machine.guest.hostname.clone()).unwrap_or_default();
    let (finding, picture) = observe(&vm, Watch::new(limits, nonce, &hostname), pipeline.cancel)?;
    if let Some(picture) = &picture {
        fs::write(folder.join(PROOF_SCREENSHOT), picture)
            .context(ErrorKind::Target, || folder.display().to_string())?;
    }
    let guest = finding.guest.map(serde_json::to_value).transpose();
    let proof = Proof {
        verdict: finding.verdict,
        evidence: finding.evidence,
        guest: guest.context(ErrorKind::Internal, || "probe".into())?,
        serial_log: Some(format!("{PROOF_FOLDER}/{PROOF_SERIAL_LOG}")),
        screenshot: picture.map(|_| format!("{PROOF_FOLDER}/{PROOF_SCREENSHOT}")),
        seconds: started.elapsed().as_secs_f64(),
    };
    let json = serde_json::to_vec_pretty(&proof).context(ErrorKind::Internal, || "proof".into())?;
    fs::write(folder.join(PROOF_RECORD), json).context(ErrorKind::Target, || folder.display().to_string())?;
    Ok(proof)
}

/// Starts the VM; where this machine's KVM lacks an interface of Hyper-V that the VM is defined with, without them.
fn start(hardware: &mut Hardware, observer: &dyn Observer) -> Result<Vm> {
    let first = hardware.start();
    let vm = match first {
        Err(error) if error.kind == qemu::ErrorKind::Exited && lacks_interface(&error, hardware) => {
            let message = format!("boot proof: without the interfaces of Hyper-V that the VM is defined with: {error}");
            observer.event(Event::Log { message });
            hardware.kvm_flags.clear();
            hardware.start()
        }
        other => other,
    };
    vm.context(ErrorKind::Refused, || "starting the VM for its boot proof".into())
}

/// Whether QEMU refused to start because of KVM: "kernel doesn't allow setting HyperV VP_INDEX", "Hyper-V synthetic interrupt
/// controller (hv-synic) is not supported by kernel".
fn lacks_interface(error: &qemu::Error, hardware: &Hardware) -> bool {
    let words = error.to_string().to_ascii_lowercase();
    !hardware.kvm_flags.is_empty() && ["hyperv", "hyper-v", "hv-"].iter().any(|word| words.contains(word))
}

/// Looks at the VM until there is a verdict; returns it with the last picture of the screen, as a PNG file's content.
fn observe(vm: &Vm, mut watch: Watch<'_>, cancel: &Cancel) -> Result<(Finding, Option<Vec<u8>>)> {
    let started = Instant::now();
    let (mut looked, mut resets, mut last_picture) = (None, 0, None);
    loop {
        cancel.check()?;
        if let Some(exit) = vm.wait(READ_EVERY) {
            let how = match exit.kind {
                ExitKind::PowerOff => "the guest switched itself off".to_string(),
                kind => format!("the VM ended by itself ({kind:?}): {}", exit.stderr.trim()),
            };
            return Ok((Finding::new(Verdict::Failed, how), last_picture));
        }
        while let Some(event) = vm.qmp().next_event(Duration::ZERO) {
            resets += u32::from(event.name == "RESET" && event.data["guest"] == true);
        }
        let picture = match looked.is_none_or(|at: Instant| at.elapsed() >= LOOK_EVERY) {
            true => {
                looked = Some(Instant::now());
                vm.picture().ok()
            }
            false => None,
        };
        let sight = Sight {
            at: started.elapsed(),
            cpu: vm.cpu_time().unwrap_or_default(),
            resets,
            // The firmware's and the boot loader's words may only be on the screen.
            screen: &vm.text_screen().unwrap_or_default(),
            serial: &vm.serial(0).text(),
            probe: &vm.serial(1).text(),
            picture,
        };
        let (another, finding) = watch.see(sight);
        if another || finding.is_some() {
            // As a file only when it is another one: making a PNG takes its time.
            last_picture = vm.screenshot().ok().or(last_picture);
        }
        if let Some(finding) = finding {
            return Ok((finding, last_picture));
        }
    }
}

/// The VM as its definition says, without a network and with less memory where the source had much.
fn virtual_hardware(machine: &Machine, capabilities: &Capabilities, stacks: Vec<Image>) -> Result<Hardware> {
    let (chipset, bus) = match capabilities.disk_bus {
        DiskBus::Virtio => (MachineType::Q35, qemu::DiskBus::Virtio),
        DiskBus::Sata => (MachineType::Q35, qemu::DiskBus::Ahci),
        DiskBus::Ide => (MachineType::Pc, qemu::DiskBus::Ide),
    };
    let mut hardware = Hardware::new(chipset);
    hardware.name = "vconverter-proof".into();
    if target::firmware(machine, capabilities) == FirmwareKind::Uefi {
        let secure_boot = target::secure_boot(machine, capabilities);
        hardware.firmware = qemu::Firmware::Uefi { secure_boot, variables: None };
    }
    hardware.tpm = capabilities.tpm && qemu::has_tpms();
    hardware.kvm_flags = target::enlightenments(capabilities.hyperv).iter().map(|one| one.flag.to_string()).collect();
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
        NicModel::Rtl8139 => qemu::NicModel::Rtl8139,
    };
    // Its cables are unplugged, as in the definition: two machines with one address must never meet.
    hardware.nics =
        machine.nics.iter().map(|nic| qemu::Nic::new(model, nic.mac.to_string(), NicBackend::Unplugged)).collect();
    Ok(hardware)
}

#[cfg(test)]
mod tests {
    use machine::{Firmware, HypervInterfaces};

    use super::*;

    fn capabilities(disk_bus: DiskBus, secure_boot: Option<bool>) -> Capabilities {
        Capabilities {
            disk_bus,
            nic_model: NicModel::Virtio,
            firmware: FirmwareKind::Uefi,
            clock_utc: false,
            secure_boot,
            tpm: true,
            hyperv: HypervInterfaces::Full,
        }
    }

    #[test]
    fn the_proof_has_the_firmware_and_the_tpm_of_the_definition() {
        let firmware = Firmware { kind: FirmwareKind::Uefi, secure_boot: Some(true), ..Firmware::default() };
        let machine = Machine { firmware, ..Machine::default() };
        let hardware = |bus, wanted| virtual_hardware(&machine, &capabilities(bus, wanted), Vec::new()).unwrap();
        for (bus, wanted, expected) in
            [(DiskBus::Virtio, None, true), (DiskBus::Virtio, Some(false), false), (DiskBus::Ide, Some(true), false)]
        {
            let hardware = hardware(bus, wanted);
            let is_secure = qemu::Firmware::Uefi { secure_boot: expected, variables: None };
            assert_eq!(hardware.firmware, is_secure, "{bus:?} {wanted:?}");
            assert_eq!(hardware.tpm, qemu::has_tpms());
            assert!(hardware.kvm_flags.iter().any(|flag| flag == "hv-stimer"), "{:?}", hardware.kvm_flags);
        }
    }

    #[test]
    fn a_kvm_without_an_interface_is_told_from_other_refusals() {
        let mut hardware = Hardware::new(MachineType::Q35);
        let error = |words: &str| qemu::Error::new(qemu::ErrorKind::Exited, format!("qemu did not start: {words}"));
        let index = error("qemu-system-x86_64: kernel doesn't allow setting HyperV VP_INDEX");
        assert!(!lacks_interface(&index, &hardware), "none was asked for");
        hardware.kvm_flags = vec!["hv-vpindex".into()];
        assert!(lacks_interface(&index, &hardware));
        assert!(lacks_interface(&error("Hyper-V synthetic timers (hv-stimer) are not supported by kernel"), &hardware));
        assert!(!lacks_interface(&error("Failed to get \"write\" lock"), &hardware));
    }
}
