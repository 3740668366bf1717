//! Drivers for the hardware of hypervisors: those that a disk needs are injected, Windows' own are made to start, the rest
//! lies ready for the first boot.

use super::ground::Ground;
use super::registry::Registry;
use crate::plan::{Change, Digest, Fixup};
use crate::windows::drivers::catalog::Signature;
use crate::windows::drivers::{
    Choice, INBOX_DRIVERS, InboxDriver, Injection, Library, Placement, Role, Signer, StoredPackage, VIRTUAL_DEVICES,
    plan_injection,
};
use crate::windows::hive::Data;
use crate::{ErrorKind, Result};

/// Numbers of published INF files that are tried.
const PUBLISHED_MAX: u32 = 10_000;
/// Longest catalog or driver that is compared with one of the guest, in bytes.
const COMPARED_MAX: u64 = 64 << 20;
/// Folder of the certificates of publishers, in that of the drivers.
const PUBLISHERS: &str = "publishers";
/// Where Windows looks for INF files of new hardware.
const CURRENT_VERSION: &str = "Microsoft\\Windows\\CurrentVersion";

/// What came of it.
pub(super) struct Drivers {
    pub(super) fixups: Vec<Fixup>,
    /// Whether the guest finds a disk on virtio-blk.
    pub(super) has_virtio_disk: bool,
    /// Whether the first boot can install a driver for virtio-net.
    pub(super) has_virtio_network: bool,
    /// Whether it finds a disk on AHCI.
    pub(super) has_ahci: bool,
    /// Packages that wait for the first boot: INF files from the folder of drivers, with `/`.
    pub(super) staged: Vec<String>,
    /// Certificates of their publishers whom Windows would ask about: files from the same folder.
    pub(super) publishers: Vec<String>,
    /// What was added to `DevicePath`.
    pub(super) device_paths: Vec<String>,
    /// Who signed the drivers that start at boot, where one that is refused ends the start, and the one for virtio-net.
    pub(super) signatures: Vec<(String, Signature)>,
}

/// A package that is injected, and what it is for.
struct Taken {
    injection: Injection,
    package: StoredPackage,
    signer: Option<Signer>,
    roles: Vec<Role>,
    names: Vec<&'static str>,
    signature: Signature,
}

pub(super) fn plan(ground: &Ground<'_>, registry: &mut Registry<'_>, warnings: &mut Vec<String>) -> Result<Drivers> {
    let had_virtio_disk = is_driven(ground, registry, "PCI\\VEN_1AF4&DEV_1001", Some("viostor"))?
        || is_driven(ground, registry, "PCI\\VEN_1AF4&DEV_1042", Some("viostor"))?;
    let had_virtio_network = is_driven(ground, registry, "PCI\\VEN_1AF4&DEV_1041", None)?;

    let mut changes = Vec::new();
    let own = enable_inbox(ground, registry, &mut changes)?;
    let taken = choose(ground, registry, warnings)?;
    let (critical, others): (Vec<&Taken>, Vec<&Taken>) =
        taken.iter().partition(|taken| taken.injection.is_boot_critical);
    for taken in &critical {
        registry.apply(&taken.injection.edits)?;
        place_files(ground, taken, &|destination| !is_staged(destination), &mut changes)?;
        warnings.extend(taken.injection.notes.iter().map(|note| format!("{}: {note}", taken.injection.driver)));
    }
    changes.extend(registry.take());
    let mut from: Vec<&str> = critical.iter().map(|taken| taken.injection.driver.as_str()).collect();
    from.extend(own.iter().map(|driver| driver.service));
    let mut fixups = vec![Fixup::new(
        "boot-drivers",
        format!("drivers for the disks of hypervisors: {}", list(&from)),
        "without a driver that starts at boot Windows stops with INACCESSIBLE_BOOT_DEVICE",
        changes,
    )];

    let mut changes = Vec::new();
    for taken in &taken {
        place_files(ground, taken, &is_staged, &mut changes)?;
    }
    let publishers = place_publishers(ground, &taken, &mut changes)?;
    let device_paths: Vec<String> = taken.iter().map(|taken| taken.injection.device_path.clone()).collect();
    add_device_paths(registry, &device_paths)?;
    changes.extend(registry.take());
    if !taken.is_empty() {
        let mut names: Vec<&str> = taken.iter().flat_map(|taken| &taken.names).copied().collect();
        names.dedup();
        fixups.push(Fixup::new(
            "staged-drivers",
            format!("driver packages laid ready for the first boot: {}", list(&names)),
            "Windows installs them itself when it meets the hardware",
            changes,
        ));
    }
    let is_for = |role: Role, all: &[&Taken]| {
        all.iter().any(|taken| taken.roles.contains(&role) && taken.names.iter().any(|name| name.starts_with("virtio")))
    };
    Ok(Drivers {
        fixups,
        has_virtio_disk: had_virtio_disk || critical.iter().any(|taken| taken.names.contains(&"virtio block device")),
        has_virtio_network: had_virtio_network || is_for(Role::Network, &others),
        has_ahci: own.iter().any(|driver| ["storahci", "msahci"].contains(&driver.service)),
        staged: taken.iter().map(|taken| format!("{}/{}", taken.injection.package, taken.package.name())).collect(),
        publishers,
        device_paths,
        signatures: taken
            .iter()
            .filter(|taken| taken.injection.is_boot_critical || taken.names.contains(&"virtio network adapter"))
            .map(|taken| (taken.injection.driver.clone(), taken.signature))
            .collect(),
    })
}

/// Names for a title, or that there are none.
fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Makes Windows' own drivers start at boot, where their programs are.
fn enable_inbox(
    ground: &Ground<'_>,
    registry: &mut Registry<'_>,
    changes: &mut Vec<Change>,
) -> Result<Vec<&'static InboxDriver>> {
    let mut enabled = Vec::new();
    for driver in INBOX_DRIVERS.iter().filter(|driver| driver.is_in(&ground.release)) {
        let path = ground.in_windows(&format!("System32/drivers/{}", driver.file))?;
        if !ground.tree.exists(&path)? {
            // Newer releases bring a driver out of the store when its hardware is first met.
            let Some(stored) = in_store(ground, driver.file)? else { continue };
            changes.extend(Change::write(ground.tree, &path, &stored, 0o644)?);
        }
        registry.apply(&driver.enabling(&ground.release))?;
        enabled.push(driver);
    }
    Ok(enabled)
}

/// A driver's program in the driver store, of the package that is named like it.
fn in_store(ground: &Ground<'_>, file: &str) -> Result<Option<Vec<u8>>> {
    let store = ground.in_windows("System32/DriverStore/FileRepository")?;
    let Some((name, _)) = file.split_once('.') else { return Ok(None) };
    let architecture = ground.release.architecture.to_string();
    let wanted = format!("{name}.inf_{architecture}_");
    for entry in ground.tree.list(&store)? {
        if entry.name.to_ascii_lowercase().starts_with(&wanted)
            && let Some(path) = ground.paths.resolve(&format!("{store}/{}/{file}", entry.name))?
        {
            return Ok(ground.tree.read(&path, COMPARED_MAX)?);
        }
    }
    Ok(None)
}

/// The best package of the library for each virtual device, each once.
fn choose(ground: &Ground<'_>, registry: &Registry<'_>, warnings: &mut Vec<String>) -> Result<Vec<Taken>> {
    let Some(library) = &ground.additions.drivers else { return Ok(Vec::new()) };
    let shelf = library.shelf(&ground.release, None)?;
    let mut taken: Vec<Taken> = Vec::new();
    let mut published = Vec::new();
    let wanted = VIRTUAL_DEVICES.iter().filter(|device| ground.additions.hypervisors.contains(&device.hypervisor));
    for device in wanted {
        let choices = shelf.choices(&device.device())?;
        let Some(choice) = choices.fitting.into_iter().find(|choice| choice.obstacles.is_empty()) else {
            if let Some(refused) = choices.refused.first() {
                warnings.push(format!("no driver for the {}: {}: {}", device.name, refused.path, refused.why));
            }
            continue;
        };
        if let Some(known) = taken.iter_mut().find(|known| known.package.files == choice.package.files) {
            known.roles.push(device.role);
            known.names.push(device.name);
            continue;
        }
        let (signature, signer) = (choice.signature, choice.signer.clone());
        match inject(ground, registry, library, choice, &mut published) {
            Ok((injection, package)) => {
                let (roles, names) = (vec![device.role], vec![device.name]);
                taken.push(Taken { injection, package, signer, roles, names, signature });
            }
            Err(error) if error.kind != ErrorKind::Io => {
                warnings.push(format!("no driver for the {}: {error}", device.name));
            }
            Err(error) => return Err(error),
        }
    }
    for package in &mut taken {
        package.names.dedup();
    }
    Ok(taken)
}

fn inject(
    ground: &Ground<'_>,
    registry: &Registry<'_>,
    library: &Library,
    choice: Choice,
    published: &mut Vec<String>,
) -> Result<(Injection, StoredPackage)> {
    let Choice { package, inf, .. } = choice;
    let files: Vec<String> = package.files.iter().map(|file| file.path.clone()).collect();
    let windows = ground.windows.trim_start_matches('/').to_owned();
    let plan = |published: &str| {
        let placement = Placement { windows: windows.clone(), published: published.to_owned() };
        plan_injection(&inf, package.name(), &files, &ground.release, &placement)
    };
    let name = publish(ground, registry, library, &package, &plan("oem0.inf")?.package, published)?;
    let injection = plan(&name)?;
    published.push(name);
    Ok((injection, package))
}

/// The published name of a package: the one that it has already, or the first that is free.
fn publish(
    ground: &Ground<'_>,
    registry: &Registry<'_>,
    library: &Library,
    package: &StoredPackage,
    folder: &str,
    taken: &[String],
) -> Result<String> {
    if let Some(name) = registry.system.value(&format!("DriverDatabase\\DriverPackages\\{folder}"), "")?
        && let Some(name) = name.text()
    {
        return Ok(name);
    }
    let catalog = package.files.iter().find(|file| file.path.to_ascii_lowercase().ends_with(".cat"));
    let content = catalog.map(|file| library.content(file)).transpose()?;
    let catalogs = ground.in_windows("System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}")?;
    let infs = ground.in_windows("INF")?;
    for number in 0..PUBLISHED_MAX {
        let name = format!("oem{number}.inf");
        let catalog = ground.paths.resolve(&format!("{catalogs}/oem{number}.cat"))?;
        if let (Some(path), Some(content)) = (&catalog, &content)
            && ground.tree.read(path, COMPARED_MAX).ok().flatten().as_ref() == Some(content)
        {
            return Ok(name);
        }
        let is_free = catalog.is_none()
            && !taken.contains(&name)
            && ground.paths.resolve(&format!("{infs}/{name}"))?.is_none()
            && !registry.system.has(&format!("DriverDatabase\\DriverInfFiles\\{name}"))?;
        if is_free {
            return Ok(name);
        }
    }
    let context = format!("no name among oem0.inf to oem{PUBLISHED_MAX}.inf is free");
    Err(crate::Error::new(ErrorKind::TooLarge, context).at(infs))
}

/// Whether a place is in the folder of drivers that wait for the first boot.
fn is_staged(destination: &str) -> bool {
    let folder = format!("{}/{}/", machine::firstboot::FOLDER, machine::firstboot::DRIVERS_FOLDER);
    format!("/{}", destination.replace('\\', "/")).starts_with(&folder)
}

fn place_files(
    ground: &Ground<'_>,
    taken: &Taken,
    which: &dyn Fn(&str) -> bool,
    changes: &mut Vec<Change>,
) -> Result<()> {
    let Some(library) = &ground.additions.drivers else { return Ok(()) };
    for placement in taken.injection.files.iter().filter(|placement| which(&placement.destination)) {
        let Some(file) = taken.package.file(&placement.source) else { continue };
        changes.extend(ground.write(&placement.destination, &library.content(file)?)?);
    }
    Ok(())
}

/// Lays the certificates of publishers ready about whom Windows would ask; their files, each once.
fn place_publishers(ground: &Ground<'_>, taken: &[Taken], changes: &mut Vec<Change>) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for signer in taken.iter().filter_map(|taken| taken.signer.as_ref()).filter(|signer| signer.is_asked_about()) {
        let digest = Digest::of(&signer.certificate).to_string();
        let file = format!("{PUBLISHERS}/{}.cer", &digest[..16]);
        if !files.contains(&file) {
            let path = format!("{}/{}/{file}", machine::firstboot::FOLDER, machine::firstboot::DRIVERS_FOLDER);
            changes.extend(ground.write(&path, &signer.certificate)?);
            files.push(file);
        }
    }
    Ok(files)
}

fn add_device_paths(registry: &mut Registry<'_>, folders: &[String]) -> Result<()> {
    let present = registry.software.value(CURRENT_VERSION, "DevicePath")?;
    let mut path = present.and_then(|data| data.text()).unwrap_or_else(|| "%SystemRoot%\\inf".into());
    for folder in folders {
        if !path.split(';').any(|known| known.eq_ignore_ascii_case(folder)) {
            path = format!("{};{folder}", path.trim_end_matches(';'));
        }
    }
    match folders.is_empty() {
        true => Ok(()),
        false => registry.software.set(CURRENT_VERSION, "DevicePath", &Data::expand_sz(&path)),
    }
}

/// Whether Windows has a driver for a device: one that starts at boot, if its service is named.
fn is_driven(ground: &Ground<'_>, registry: &Registry<'_>, id: &str, service: Option<&str>) -> Result<bool> {
    let is_known = match ground.release.version() >= (6, 2) {
        true => registry.system.has(&format!("DriverDatabase\\DeviceIds\\{id}"))?,
        false => registry.control_sets.iter().try_fold(true, |all, set| {
            let key = format!("{set}\\Control\\CriticalDeviceDatabase\\{}", id.replace('\\', "#"));
            registry.system.has(&key).map(|has| all && has)
        })?,
    };
    let Some(service) = service.filter(|_| is_known) else { return Ok(is_known) };
    for set in &registry.control_sets {
        let start = registry.system.value(&format!("{set}\\Services\\{service}"), "Start")?;
        if start.and_then(|start| start.dword()) != Some(0) {
            return Ok(false);
        }
    }
    Ok(true)
}
