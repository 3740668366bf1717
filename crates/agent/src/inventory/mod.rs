//! What this machine is made of: read from `/proc`, `/sys` and the firmware's variables.
//!
//! Everything here is best effort: what a kernel does not tell is left empty, and never an error. Files of the kernel are
//! read with a bound.

mod addresses;
mod boot;
mod cpu;
mod disk;
mod nic;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::{AllocationMap, BlockSource, Everything, Extent, ExtentIter, Ranges, Scoped, hide};
use machine::{ByteCount, Disk, DiskLayout, FirmwareKind, Guest, Machine, Mount, SectorSize, Smbios};
use protocol::message::{About, BootMedium, DiskSelector, LEFT_OUT_MAX, Report, Scope, WITHIN_MAX};
use serde::Deserialize;

pub use addresses::has_network_address;
pub use boot::{LoadOption, fuzz_load_option, parse_load_option};

use crate::{Config, Error, ErrorKind, Result};

/// Longest file of the kernel that is read, in bytes.
const KERNEL_FILE_BYTES_MAX: u64 = 4 << 20;

/// The machine as reported, with its disks open for reading.
pub struct Inventory {
    /// What is reported.
    pub report: Report,
    /// The disks, in the order of [`Machine::disks`].
    pub disks: Vec<OpenDisk>,
}

/// A disk open for reading.
#[derive(Clone)]
pub struct OpenDisk {
    /// As reported.
    pub disk: Disk,
    /// Its bytes.
    pub source: Arc<dyn BlockSource>,
    /// What must be copied of it.
    pub used: Arc<dyn AllocationMap>,
    /// The same with the content of swap.
    pub used_with_swap: Arc<dyn AllocationMap>,
    /// What must read as zeros without that content.
    pub hidden: Ranges,
    /// Bytes in use, about.
    pub used_bytes: ByteCount,
}

impl OpenDisk {
    /// The disk with so much of it as a controller wants.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] for ranges that the disk does not have, too many of them, or parts that do not ascend.
    pub fn within(&self, scope: &Scope) -> Result<Self> {
        let wrong = || Error::new(ErrorKind::Disk, "the controller names ranges that the disk does not have");
        if scope.left_out.len() > LEFT_OUT_MAX {
            return Err(wrong());
        }
        let whole = Extent::first(self.source.size());
        let extent = |&(at, length): &_| Extent::new(at, length).filter(|extent| whole.contains(*extent));
        let left_out: Option<Vec<Extent>> = scope.left_out.iter().map(extent).collect();
        let left_out = Ranges::new(left_out.ok_or_else(wrong)?);
        let used = if scope.keeps_swap { &self.used_with_swap } else { &self.used };
        let used = Arc::new(Scoped::new(Arc::clone(used), Ranges::default(), left_out.clone()));
        let mut hidden: Vec<Extent> = left_out.iter().collect();
        if !scope.keeps_swap {
            hidden.extend(self.hidden.iter());
        }
        let within: Option<Vec<Extent>> = scope.within.iter().map(extent).collect();
        let within =
            within.filter(|within| within.len() <= WITHIN_MAX && within.is_sorted_by(|a, b| a.end() <= b.start()));
        let within = within.ok_or_else(wrong)?;
        Ok(Self {
            used: if within.is_empty() { used } else { Arc::new(Parts { of: used, within }) },
            source: hide(Arc::clone(&self.source), &Ranges::new(hidden)),
            used_bytes: ByteCount(self.used_bytes.0.saturating_sub(left_out.length().0)),
            ..self.clone()
        })
    }
}

/// What is used within some extents, which ascend.
struct Parts {
    of: Arc<dyn AllocationMap>,
    within: Vec<Extent>,
}

impl AllocationMap for Parts {
    fn extents(&self, within: Extent) -> ExtentIter<'_> {
        let parts = self.within.iter().map(move |part| part.intersection(within)).filter(|part| !part.is_empty());
        Box::new(parts.flat_map(|part| self.of.extents(part)))
    }
}

impl Inventory {
    /// Looks at the machine and at everything on its disks.
    pub fn load(config: &Config) -> Self {
        let mut warnings = Vec::new();
        let found = match &config.disks {
            Some(paths) => paths.iter().map(|path| disk::Found::file(path)).collect(),
            None => disk::find_disks(config.machine_disks.as_deref()),
        };
        let mut opened: Vec<(disk::Found, Arc<dyn BlockSource>)> = Vec::new();
        for found in found {
            match found.open() {
                Ok(source) => opened.push((found, source)),
                Err(error) => warnings.push(format!("{}: {}", found.path.display(), crate::error::chain(&error))),
            }
        }
        let opened = disk::assemble(opened, &mut warnings);
        let sources: Vec<_> = opened.iter().map(|(_, source)| Arc::clone(source)).collect();
        let facts = Facts::load(config);
        let layouts = Layouts::load(&sources, &facts.guest.mounts, &mut warnings);
        let disks = describe(opened, layouts.disks);
        let kind = match (layouts.firmware, facts.firmware) {
            (FirmwareKind::Unknown, FirmwareKind::Unknown) => boot::running_firmware(),
            (FirmwareKind::Unknown, told) => told,
            (found, _) => found,
        };
        let machine = Machine {
            firmware: boot::load_firmware(kind),
            cpu: cpu::load_cpu(),
            memory: cpu::load_memory(),
            smbios: load_smbios(),
            nics: nic::load_nics(),
            disks: disks.iter().map(|disk| disk.disk.clone()).collect(),
            guest: facts.guest,
        };
        let kernel = read_line("/proc/sys/kernel/osrelease").unwrap_or_default();
        let boot_medium = match config.boot_medium {
            Some(BootMedium::Iso) if boot::is_started_by_http() => Some(BootMedium::UefiHttp),
            told => told,
        };
        Self { report: Report { machine, kernel, warnings, boot_medium }, disks }
    }

    /// The disk that a controller means.
    ///
    /// # Errors
    /// [`ErrorKind::Disk`] where there is none, several, or another one in its place.
    pub fn disk(&self, wanted: &DiskSelector) -> Result<&OpenDisk> {
        let missing = |text: &str| {
            let name =
                wanted.identity.serial.as_deref().or(wanted.identity.wwn.as_deref()).unwrap_or("without identity");
            Error::new(ErrorKind::Disk, format!("disk {} ({name}, {} bytes): {text}", wanted.index, wanted.size.0))
        };
        let fits = |disk: &&OpenDisk| disk.disk.virtual_size == wanted.size && disk.disk.identity == wanted.identity;
        let at_index = self.disks.get(wanted.index as usize).filter(fits);
        let mut others = self.disks.iter().filter(fits);
        match (at_index, others.next(), others.next()) {
            (Some(disk), ..) => Ok(disk),
            // Another index: the kernel found the disks in another order.
            (None, Some(disk), None) if has_identity(disk) => Ok(disk),
            (None, Some(_), _) => Err(missing("it cannot be told from others")),
            (None, None, _) => Err(missing("it is not in this machine")),
        }
    }
}

fn has_identity(disk: &OpenDisk) -> bool {
    disk.disk.identity.wwn.is_some() || disk.disk.identity.serial.is_some()
}

/// What a machine says of itself before it is approved; cheap.
pub fn about(config: &Config) -> About {
    let smbios = load_smbios();
    let text = |parts: [Option<String>; 2]| {
        let joined = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
        joined.chars().filter(|c| !c.is_control()).take(100).collect()
    };
    About {
        product: text([smbios.manufacturer, smbios.product]),
        serial: text([smbios.serial, None]),
        hostname: text([Facts::load(config).guest.hostname, None]),
    }
}

struct Layouts {
    disks: Vec<LaidOut>,
    firmware: FirmwareKind,
}

/// One disk of them.
struct LaidOut {
    layout: DiskLayout,
    used: Arc<dyn AllocationMap>,
    used_with_swap: Arc<dyn AllocationMap>,
    hidden: Ranges,
}

impl Layouts {
    /// Of all disks together; where that fails, of each alone, and a disk that is not understood is used whole.
    fn load(sources: &[Arc<dyn BlockSource>], mounts: &[Mount], warnings: &mut Vec<String>) -> Self {
        match volume::detect_layout(sources) {
            Ok(mut layout) => {
                layout.leave_out_swap_files(mounts);
                warnings.extend(layout.warnings().iter().map(ToString::to_string));
                let disks = layout.disks().iter().cloned().enumerate();
                let disks = disks.map(|(i, disk)| LaidOut {
                    layout: disk,
                    used: layout.used(i),
                    used_with_swap: layout.used_with_swap(i),
                    hidden: layout.hidden(i),
                });
                Self { disks: disks.collect(), firmware: layout.firmware() }
            }
            Err(error) if sources.len() == 1 => {
                warnings.push(format!("disk 0 is copied whole: {}", crate::error::chain(&error)));
                let whole: Arc<dyn AllocationMap> = Arc::new(Everything);
                let disk = LaidOut {
                    layout: DiskLayout::default(),
                    used: Arc::clone(&whole),
                    used_with_swap: whole,
                    hidden: Ranges::default(),
                };
                Self { disks: vec![disk], firmware: FirmwareKind::Unknown }
            }
            Err(_) => {
                let mut all = Self { disks: Vec::new(), firmware: FirmwareKind::Unknown };
                for (index, source) in sources.iter().enumerate() {
                    let mut found = Vec::new();
                    let mut one = Self::load(std::slice::from_ref(source), mounts, &mut found);
                    warnings.extend(found.iter().map(|text| text.replacen("disk 0", &format!("disk {index}"), 1)));
                    all.disks.append(&mut one.disks);
                    if all.firmware == FirmwareKind::Unknown {
                        all.firmware = one.firmware;
                    }
                }
                all
            }
        }
    }
}

fn describe(opened: Vec<(disk::Found, Arc<dyn BlockSource>)>, layouts: Vec<LaidOut>) -> Vec<OpenDisk> {
    let described = opened.into_iter().zip(layouts).map(|((found, source), laid_out)| {
        let LaidOut { layout, used, used_with_swap, hidden } = laid_out;
        let in_volumes: u64 = layout.volumes.iter().fold(0, |sum, v| sum.saturating_add(v.used_bytes.0));
        let used_bytes = match layout.volumes.is_empty() {
            true => source.size(),
            false => ByteCount(in_volumes.min(source.size().0)),
        };
        let disk = Disk {
            path: found.path.display().to_string(),
            format: "raw".into(),
            virtual_size: source.size(),
            logical_sector_size: source.logical_sector_size(),
            identity: found.identity,
            layout,
        };
        OpenDisk { disk, source, used, used_with_swap, hidden, used_bytes }
    });
    described.collect()
}

/// What `bootenv` found out about the guest.
#[derive(Default)]
struct Facts {
    guest: Guest,
    firmware: FirmwareKind,
}

/// The file may hold a guest alone, or `{"guest": …, "firmware": …}`.
#[derive(Deserialize)]
struct FactsFile {
    guest: Option<Guest>,
    #[serde(default)]
    firmware: FirmwareKind,
}

impl Facts {
    fn load(config: &Config) -> Self {
        let Some(text) = config.guest_facts.as_deref().and_then(read_file) else { return Self::default() };
        let file: Option<FactsFile> = serde_json::from_slice(&text).ok();
        let (inner, firmware) = file.map(|f| (f.guest, f.firmware)).unwrap_or_default();
        let guest = inner.or_else(|| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { guest, firmware }
    }
}

/// System information (SMBIOS type 1), as the kernel decoded it.
fn load_smbios() -> Smbios {
    let field = |name: &str| {
        let text = read_line(Path::new("/sys/class/dmi/id").join(name))?;
        // What board makers leave in unfilled fields tells nothing.
        let empty = ["", "none", "not specified", "to be filled by o.e.m.", "default string", "system serial number"];
        (!empty.contains(&text.to_ascii_lowercase().as_str())).then_some(text)
    };
    Smbios {
        manufacturer: field("sys_vendor"),
        product: field("product_name"),
        serial: field("product_serial"),
        uuid: field("product_uuid").map(|uuid| uuid.to_ascii_lowercase()),
    }
}

/// A file of the kernel, whole; `None` where it cannot be read or is too long.
fn read_file(path: impl AsRef<Path>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(KERNEL_FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    ((bytes.len() as u64) < KERNEL_FILE_BYTES_MAX).then_some(bytes)
}

/// A file of the kernel as text without white space around it.
fn read_line(path: impl AsRef<Path>) -> Option<String> {
    let bytes = read_file(path)?;
    Some(String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
}

/// A file of the kernel as a number.
fn read_number(path: impl AsRef<Path>) -> Option<u64> {
    read_line(path)?.parse().ok()
}

/// Names in a folder of the kernel.
fn list(path: impl AsRef<Path>) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// The sector size that a number of the kernel means; 512 where it is odd.
fn sector_size(bytes: Option<u64>) -> SectorSize {
    bytes.and_then(|b| u32::try_from(b).ok()).and_then(|b| SectorSize::try_from(b).ok()).unwrap_or(SectorSize::B512)
}
