//! The fix-ups of a Windows guest: planned on its files and on its hives in memory, as a value that is shown, refused in
//! parts, applied and taken back.
//!
//! Hives are read after their logs; a damaged one is never changed, and then there is no plan. Every change is made in all
//! control sets. Nothing of the guest is run: what only Windows itself can do is left to the program of the first boot.

mod boot_drivers;
mod boot_sector;
mod by_hand;
mod first_boot;
mod ground;
mod hive_limit;
mod left_out;
mod platform;
mod recorder;
mod registry;
mod services;
mod settings;

use std::collections::BTreeMap;

use machine::firstboot::DiskSignature;
use machine::{
    Capabilities, Disk, DiskBus, Firmware, FirmwareKind, Machine, NicModel, PartitionTable, Severity, VolumePlace,
    firstboot,
};

use super::boot_manager;
use super::drivers::{Hypervisor, Library};
use super::inspection::{Inspection, Surroundings};
use super::path::{Paths, resolve};
use super::volumes::{BOOT, SYSTEM, Subtree};
use super::{Architecture, Release, Windows};
use crate::plan::{HiveLimit, Optional, Plan, fit};
use crate::{Error, ErrorKind, FileTree, Result, identify};
use boot_drivers::Drivers;
pub use boot_sector::SystemVolume;
use ground::Ground;
use left_out::LeftOut;
use recorder::Recorder;
use registry::Registry;

/// What is brought into a guest, and what it does not get.
#[derive(Clone, Debug, Default)]
pub struct Additions {
    /// Where drivers are taken from.
    pub drivers: Option<Library>,
    /// Whose hardware the guest gets drivers for.
    pub hypervisors: Vec<Hypervisor>,
    /// What runs at the first boot.
    pub first_boot: Option<FirstBoot>,
    /// Volumes that its VM does not have: positions are those of the machine's disks.
    pub absent: Vec<VolumePlace>,
    /// Where Windows is, outside of its files; `None` where that is not known.
    pub system: Option<SystemVolume>,
}

/// What runs at the first boot.
#[derive(Clone, Debug, Default)]
pub struct FirstBoot {
    /// The program, for each architecture of [`FirstBoot::PROGRAMS`] that it is at hand for.
    pub programs: BTreeMap<Architecture, Vec<u8>>,
    /// Repeated in its report.
    pub nonce: String,
    /// Programs of the operator's, in the order in which they are run.
    pub scripts: Vec<Script>,
}

impl FirstBoot {
    /// Architectures that the program is built for, with the name of its file where our programs lie. One of 32 bits does not run
    /// on a Windows of 64 bits: there it would see other folders and another registry (WOW64).
    pub const PROGRAMS: [(Architecture, &'static str); 2] =
        [(Architecture::X86, "vconverter-firstboot-x86.exe"), (Architecture::Amd64, "vconverter-firstboot-amd64.exe")];
}

/// A program of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its file's name.
    pub name: String,
    /// Its content.
    pub contents: Vec<u8>,
    /// Seconds after which it is ended.
    pub timeout_s: u32,
}

/// Fix-ups that Windows starts without, if there is no room for them, and how often their files lie there in the end: when it
/// installs a staged driver, it takes a copy into its driver store.
const OPTIONAL: [Optional; 2] =
    [Optional { id: "staged-drivers", copies: 2 }, Optional { id: "first-boot", copies: 1 }];

/// Restarts that the program of the first boot may ask for.
const REBOOTS_MAX: u32 = 3;

/// Plans the fix-ups for the Windows on `tree`, whose filesystems stand as [`volumes`](super::volumes) says and which ran on the
/// hardware of `machine`. Fix-ups whose ids are in `refused`, and those for which there is no room, are listed too; the
/// capabilities are those of a guest without them.
///
/// # Errors
/// [`ErrorKind::Missing`] where there is no Windows; what is wrong with its hives.
pub fn plan(tree: &dyn FileTree, machine: &Machine, refused: &[String], additions: &Additions) -> Result<Plan> {
    fit(tree, refused, &OPTIONAL, |refused| draft(tree, machine, refused, additions))
}

/// The plan of all fix-ups, whether there is room for them or not; and how long its hives may become.
fn draft(
    tree: &dyn FileTree,
    machine: &Machine,
    refused: &[String],
    additions: &Additions,
) -> Result<(Plan, Vec<HiveLimit>)> {
    let volume = Subtree::new(tree, SYSTEM);
    let windows = Windows::open(&volume)?;
    let mut windows = windows.ok_or_else(|| Error::new(ErrorKind::Missing, "no Windows on this volume").at(SYSTEM))?;
    let firmware = firmware(machine);
    let has_store = |path: &str| resolve(tree, path).map(|found| found.is_some());
    let known = Surroundings {
        firmware,
        has_esp_bcd: has_store(&format!("{BOOT}/EFI/Microsoft/Boot/BCD"))?,
        has_boot_bcd: has_store(&format!("{BOOT}/Boot/BCD"))?,
    };
    let facts = Inspection::of(&windows, &volume, &known);
    let ground =
        Ground { tree, paths: Paths::new(tree), windows: windows.root.clone(), release: windows.release, additions };
    let mut registry = Registry {
        system: Recorder::new(format!("{SYSTEM}{}", windows.system_path), &mut windows.system)?,
        software: Recorder::new(format!("{SYSTEM}{}", windows.software_path), &mut windows.software)?,
        control_sets: windows.control_sets.clone(),
    };
    let told = facts.notes.iter().filter(|note| note.severity != Severity::Info);
    let mut warnings: Vec<String> = told.map(|note| format!("{}: {}", note.what, note.meaning)).collect();
    let left_out = LeftOut::of(machine, &additions.absent);
    if let Some(letters) = &facts.drive_letters {
        warnings.extend(left_out.warning(letters));
    }
    let system = additions.system.as_ref();
    let boot_sector = system.and_then(|volume| boot_sector::plan(volume, &ground.release, firmware));
    let is_refused = |id: &str| refused.iter().any(|refused| refused == id);
    let mut drivers = boot_drivers::plan(&ground, &mut registry, &mut warnings)?;
    if is_refused("staged-drivers") {
        // What does not lie there is not installed, nor trusted.
        (drivers.staged, drivers.publishers, drivers.device_paths) = Default::default();
    }
    let mut fixups = std::mem::take(&mut drivers.fixups);
    let software = facts.software.clone().unwrap_or_default();
    fixups.extend(services::plan(&ground, &mut registry, &software)?);
    fixups.extend(settings::plan(&ground, &mut registry)?);
    let started = Machine { firmware: Firmware { kind: firmware, ..machine.firmware.clone() }, ..machine.clone() };
    for mount in [BOOT, SYSTEM] {
        // The volume with the loader, or Windows' own, which then has the store of a BIOS machine.
        if mount == BOOT || !known.has_esp_bcd && !known.has_boot_bcd {
            match boot_manager::plan(tree, mount, &started, &[], &mut warnings) {
                Ok(planned) => fixups.extend(planned),
                Err(error) if error.kind == ErrorKind::Io => return Err(error),
                Err(error) => warnings.push(format!("the boot loader is left as it is: {error}")),
            }
        }
    }
    fixups.extend(boot_sector);
    let release = ground.release;
    let mut has_first_boot = false;
    if let Some(first_boot) = &additions.first_boot {
        let plan = first_boot_plan(first_boot, &drivers, &facts, machine, &left_out);
        let obstacle = match first_boot::program(first_boot, &release) {
            Ok(program) => {
                fixups.push(first_boot::plan(&ground, &mut registry, program, &first_boot.scripts, &plan)?);
                is_refused("first-boot").then(|| "the fix-up first-boot is left out".to_owned())
            }
            Err(obstacle) => Some(obstacle),
        };
        has_first_boot = obstacle.is_none();
        warnings.extend(obstacle.into_iter().flat_map(|why| by_hand::warnings(&release, &why, &plan)));
    }
    let disk_bus = disk_bus(&drivers, is_refused("boot-drivers"), &mut warnings);
    let start = platform::Start {
        release,
        firmware,
        disk_bus,
        was_secure: machine.firmware.secure_boot.or(facts.boot.as_ref().and_then(|boot| boot.secure_boot)),
        options: facts.boot.as_ref().and_then(|boot| boot.options.as_deref()).unwrap_or_default(),
        loader: boot_manager::signature(tree, BOOT)?,
        drivers: if is_refused("boot-drivers") { &[] } else { &drivers.signatures },
    };
    let capabilities = Capabilities {
        disk_bus,
        nic_model: nic_model(&release, drivers.has_virtio_network && has_first_boot && !is_refused("staged-drivers")),
        firmware,
        clock_utc: facts.settings.as_ref().is_some_and(|settings| settings.is_clock_utc),
        secure_boot: Some(start.is_secure(&mut warnings)),
        tpm: platform::wants_tpm(&release, firmware),
        hyperv: platform::hyperv(&release),
    };
    let limit = hive_limit::of(&release, machine.memory, format!("{SYSTEM}{}", windows.system_path));
    let plan = Plan { guest: identify(&volume), fixups, capabilities, warnings, room: Vec::new() };
    Ok((plan, vec![limit]))
}

fn first_boot_plan(
    first_boot: &FirstBoot,
    drivers: &Drivers,
    facts: &Inspection,
    machine: &Machine,
    left_out: &LeftOut,
) -> firstboot::Plan {
    let network = facts.network.as_ref().map(|network| network.for_first_boot()).unwrap_or_default();
    firstboot::Plan {
        version: firstboot::PLAN_VERSION,
        nonce: first_boot.nonce.clone(),
        publishers: drivers.publishers.clone(),
        drivers: drivers.staged.iter().map(|inf| firstboot::StagedDriver { inf: inf.clone() }).collect(),
        disks: left_out.others(&machine.disks).filter_map(disk_signature).collect(),
        mounts: facts
            .drive_letters
            .as_ref()
            .map(|letters| left_out.without(letters).for_first_boot())
            .unwrap_or_default(),
        ghosts: network.adapters.iter().filter_map(|adapter| adapter.instance_id.clone()).collect(),
        network,
        scripts: first_boot
            .scripts
            .iter()
            .map(|script| firstboot::Script { file: script.name.clone(), timeout_s: script.timeout_s })
            .collect(),
        serial_port: Some("COM1".into()),
        reboots_max: REBOOTS_MAX,
        scaffolding: firstboot::Scaffolding { device_paths: drivers.device_paths.clone(), ..Default::default() },
    }
}

/// How Windows knows a disk, by its partition table's id.
fn disk_signature(disk: &Disk) -> Option<DiskSignature> {
    let id = disk.layout.partition_table_id.as_deref()?;
    match disk.layout.partition_table {
        PartitionTable::Gpt => Some(DiskSignature::Gpt { disk_guid: id.to_ascii_lowercase() }),
        PartitionTable::Mbr => {
            let signature = u32::from_str_radix(id.trim_start_matches("0x"), 16).ok()?;
            Some(DiskSignature::Mbr { signature })
        }
        PartitionTable::None => None,
    }
}

/// The bus on which Windows finds its disk.
fn disk_bus(drivers: &Drivers, is_refused: bool, warnings: &mut Vec<String>) -> DiskBus {
    if is_refused {
        warnings.push("no virtio disks: the fix-up boot-drivers is left out".into());
        return DiskBus::Sata;
    }
    match (drivers.has_virtio_disk, drivers.has_ahci) {
        (true, _) => DiskBus::Virtio,
        (false, true) => DiskBus::Sata,
        (false, false) => DiskBus::Ide,
    }
}

/// The network adapter for which Windows has a driver, or gets one at its first boot: of Intel's, the 82574L since Windows 8, the
/// 82540EM since Vista; before that Realtek's 8139.
fn nic_model(release: &Release, has_virtio: bool) -> NicModel {
    match release.version() {
        _ if has_virtio => NicModel::Virtio,
        (6, 2..) | (7.., _) => NicModel::E1000e,
        (6, _) => NicModel::E1000,
        _ => NicModel::Rtl8139,
    }
}

/// The firmware that the source has; where nobody could tell, a disk with an EFI system partition is started by UEFI.
fn firmware(machine: &Machine) -> FirmwareKind {
    let has_esp = || {
        let volumes = machine.disks.iter().flat_map(|disk| &disk.layout.volumes);
        volumes.into_iter().any(machine::Volume::is_efi_system)
    };
    match machine.firmware.kind {
        FirmwareKind::Unknown if has_esp() => FirmwareKind::Uefi,
        FirmwareKind::Unknown => FirmwareKind::Bios,
        known => known,
    }
}
