//! The boot image that is pushed onto a machine which runs its own system: made for this one machine, small enough for an ESP.
//!
//! The initramfs is the same for the same hardware, kernel and programs, so it is kept in the cache and holds neither a secret
//! nor a configuration. Both are in `configuration.img`, a second archive, which is made for one push and only its owner
//! reads. Loaders are Debian's signed ones: shim, and the GRUB that takes its configuration from beside it (`gcdx64`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kernel_modules::module_name;
use machine::push::NetworkIdentity;

use crate::assembly::{DriverChoice, Drivers, Parts, check, choose_drivers, make_initramfs};
use crate::configuration::{Configuration, PushSettings};
use crate::cpio::Archive;
use crate::firmware::{FirmwareSources, is_vital};
use crate::iso::{MOK_MANAGER, SHIM, SIGNED_GRUB};
use crate::kernel::{Kernel, KernelChoice, load_kernel};
use crate::modules::Wanted;
use crate::network::Network;
use crate::program::Programs;
use crate::{Error, ErrorKind, Result, cache, drivers, package};

/// The kernel's command line of a push: both consoles; and whatever goes wrong in the kernel leads to a restart by the firmware,
/// after which the machine's own system starts. Nothing of its disks is open for writing then but what undoes the push.
pub const COMMAND_LINE: &str = "console=ttyS0,115200 console=tty0 loglevel=5 panic=10 oops=panic vconverter.boot=push";

/// Raised whenever what is inside the initramfs changes other than by kernel, programs, modules or firmware.
const LAYOUT: &str = "push 1";
/// So many initramfs stay in the cache, the latest used.
const KEPT_MAX: usize = 32;
/// An enrolment token is not longer, in bytes.
const TOKEN_LENGTH_MAX: usize = 4096;
/// Loaders for UEFI: path, package, name in the folder.
const LOADERS: &[(&str, &str, &str)] = &[
    (SHIM, "shim-signed", "shimx64.efi"),
    (SIGNED_GRUB, "grub-efi-amd64-signed", "grubx64.efi"),
    (MOK_MANAGER, "shim-helpers-amd64-signed", "mmx64.efi"),
];

/// What to build, and where. It holds a secret, and so has no `Debug`.
#[derive(Clone)]
pub struct PushOptions {
    /// Modaliases of all devices of the machine.
    pub modaliases: Vec<String>,
    /// Modules by name that must be in: what the machine reaches its own disks and its network by.
    pub drivers: Vec<String>,
    /// The controller as `HOST:PORT`, as the machine reaches it.
    pub controller: String,
    /// SHA-256 of the controller's CA certificate, 64 hexadecimal digits.
    pub ca_fingerprint: String,
    /// The machine's network as it works now.
    pub network: NetworkIdentity,
    /// The enrolment token: a secret.
    pub token: String,
    /// Which task it is for.
    pub task: String,
    /// Seconds without the controller after which the machine's own system is started again.
    pub contact_seconds: u32,
    /// Seconds after which the watchdog resets a machine that hangs; `None` where no watchdog is to be used.
    pub watchdog_seconds: Option<u32>,
    /// The kernel.
    pub kernel: KernelChoice,
    /// Where `vconverter-bootenv` and `vconverter-agent` lie.
    pub programs: Programs,
    /// Where firmware comes from.
    pub firmware: FirmwareSources,
    /// Drivers that are added to the kernel's: modules (`.ko`, `.ko.xz`, `.ko.zst`), packages of modules or firmware (`.deb`).
    pub driver_files: Vec<PathBuf>,
    /// Folder for the files; made if it is not there.
    pub output: PathBuf,
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Name, place and size in bytes of each file: `vmlinuz`, `initramfs.img`, `configuration.img` and, where their packages can
    /// be had, `shimx64.efi`, `grubx64.efi`, `mmx64.efi`.
    pub files: Vec<(String, PathBuf, u64)>,
    /// Bytes of all of them.
    pub total_bytes: u64,
    /// The kernel's command line.
    pub command_line: String,
    /// As `uname -r` prints it.
    pub kernel_release: String,
    /// What the boot image cannot do without and has not, a line each: drivers of [`PushOptions::drivers`], and disk controllers
    /// that none of its modules serves.
    pub missing: Vec<String>,
    /// Network cards that no module serves and that nobody asked for, a line each.
    pub unserved: Vec<String>,
}

/// Builds a push; `progress` gets one line for each step. Files appear under their names when they are complete.
///
/// # Errors
/// Every kind of [`ErrorKind`]; wrong options are found before anything is made.
pub fn build_push(options: &PushOptions, progress: &mut dyn FnMut(&str)) -> Result<Push> {
    let (bootenv, agent) = (options.programs.find("vconverter-bootenv")?, options.programs.find("vconverter-agent")?);
    let configuration = configuration(options, &bootenv)?;
    let kernel = load_kernel(&options.kernel, progress)?;
    let output = &options.output;
    fs::create_dir_all(output).map_err(|e| Error::path("create", output, e))?;
    let work = tempfile::Builder::new().prefix(".push-").tempdir_in(output);
    let work = work.map_err(|e| Error::path("create a folder in", output, e))?;

    let names: Vec<String> = options.drivers.iter().map(|name| name_here(name)).collect();
    let (starts, device_starts) =
        ([drivers::ONE_MACHINE, drivers::PUSHED].concat(), [drivers::BOOT_IMAGE, drivers::PUSHED].concat());
    let wanted = Wanted {
        starts: &starts,
        without: drivers::BOOT_IMAGE_WITHOUT,
        devices: &options.modaliases,
        device_starts: &device_starts,
        names: &names,
        ..Wanted::default()
    };
    let choice = DriverChoice { files: &options.driver_files, firmware: &options.firmware, wanted };
    let drivers = choose_drivers(&choice, &kernel, work.path(), progress)?;
    let parts =
        Parts { kernel: &kernel, bootenv: &bootenv, agent: &agent, drivers: &drivers, rescue: &BTreeMap::new() };
    let initramfs = cached_initramfs(&parts, progress)?;

    let mut files = vec![("vmlinuz", kernel.vmlinuz.clone()), ("initramfs.img", initramfs)];
    let secret = work.path().join("configuration.img");
    write_secret(&secret, &configuration)?;
    for (path, package, name) in LOADERS {
        match package::find_file(path, package, progress) {
            Ok(from) => files.push((name, from)),
            Err(error) => progress(&format!("the push cannot be started by UEFI, without {name}: {error}")),
        }
    }
    let mut published = Vec::new();
    for (name, from) in files {
        let (staged, to) = (work.path().join(name), output.join(name));
        fs::copy(&from, &staged).map_err(|e| Error::path("copy", &from, e))?;
        published.push(publish(name, &staged, to)?);
    }
    published.insert(2, publish("configuration.img", &secret, output.join("configuration.img"))?);
    let total_bytes = published.iter().map(|(_, _, bytes)| bytes).sum::<u64>();
    progress(&format!("push: {:.1} MB in {} files", total_bytes as f64 / 1e6, published.len()));
    let (missing, unserved) = absent(options, &kernel, &drivers)?;
    Ok(Push {
        files: published,
        total_bytes,
        command_line: COMMAND_LINE.to_owned(),
        kernel_release: kernel.release,
        missing,
        unserved,
    })
}

/// The archive with what this one push is told, checked by the program that will read it.
fn configuration(options: &PushOptions, bootenv: &Path) -> Result<Archive> {
    let wrong = |what: &str| Err(Error::new(ErrorKind::InvalidConfiguration, what));
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain(&options.token) || options.token.len() > TOKEN_LENGTH_MAX {
        return wrong("token: expected an enrolment token");
    }
    let configuration = Configuration {
        controller: Some(options.controller.clone()),
        ca_fingerprint: Some(options.ca_fingerprint.clone()),
        push: Some(PushSettings {
            task: options.task.clone(),
            contact_seconds: options.contact_seconds,
            watchdog_seconds: options.watchdog_seconds,
        }),
        network: Network::from_identity(&options.network),
        ..Configuration::default()
    };
    let text = configuration.to_toml()?;
    if !configuration.network.is_empty() {
        check(bootenv, &text)?;
    }
    let mut archive = Archive::new();
    archive.add_bytes("vconverter.toml", 0o644, text)?;
    archive.add_bytes("vconverter.token", 0o600, options.token.as_bytes())?;
    Ok(archive)
}

/// Writes what nobody else may read.
fn write_secret(path: &Path, archive: &Archive) -> Result<()> {
    let failed = |e| Error::path("write", path, e);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(&archive.to_bytes()?).map_err(failed)
}

fn publish(name: &str, from: &Path, to: PathBuf) -> Result<(String, PathBuf, u64)> {
    let bytes = fs::metadata(from).map_err(|e| Error::path("read", from, e))?.len();
    fs::rename(from, &to).map_err(|e| Error::path("rename to", &to, e))?;
    Ok((name.to_owned(), to, bytes))
}

/// The initramfs of these parts, from the cache or made.
fn cached_initramfs(parts: &Parts<'_>, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let cache = cache::open_cache("push")?;
    let key = key(parts)?;
    let entry = cache::entry(&cache, &key, |folder| {
        let work = tempfile::tempdir().map_err(|e| Error::io("create a temporary folder", e))?;
        make_initramfs(parts, work.path(), &folder.join("initramfs.img"), progress)
    })?;
    // Its time tells when it was last of use.
    if let Ok(folder) = File::open(&entry) {
        let _ = folder.set_modified(std::time::SystemTime::now());
    }
    cache::forget_oldest(&cache, KEPT_MAX)?;
    Ok(entry.join("initramfs.img"))
}

/// A name that follows from all that is in the initramfs.
fn key(parts: &Parts<'_>) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let text = |hasher: &mut blake3::Hasher, text: &str| {
        hasher.update(&text.len().to_le_bytes()).update(text.as_bytes());
    };
    let file = |hasher: &mut blake3::Hasher, path: &Path| {
        let opened = File::open(path).map_err(|e| Error::path("open", path, e))?;
        let mut own = blake3::Hasher::new();
        own.update_reader(opened).map_err(|e| Error::path("read", path, e))?;
        hasher.update(own.finalize().as_bytes());
        Ok(())
    };
    text(&mut hasher, LAYOUT);
    text(&mut hasher, &parts.kernel.package);
    text(&mut hasher, &parts.drivers.selection.dep);
    text(&mut hasher, &parts.drivers.selection.softdep);
    for path in &parts.drivers.selection.paths {
        // The kernel's own are known by its package's name and version.
        if let Some(added) = parts.drivers.added.content(path) {
            text(&mut hasher, path);
            file(&mut hasher, added)?;
        }
    }
    for (name, content) in &parts.drivers.firmware.contents {
        text(&mut hasher, name);
        file(&mut hasher, content)?;
    }
    file(&mut hasher, parts.bootenv)?;
    file(&mut hasher, parts.agent)?;
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// The name of a module of another kernel in ours.
fn name_here(name: &str) -> String {
    let plain = name.replace('-', "_");
    let renamed = drivers::RENAMED.iter().find(|(there, _)| *there == plain);
    renamed.map_or(plain, |(_, here)| (*here).to_owned())
}

/// What the boot image has not: what it cannot do without, and cards of no importance.
fn absent(options: &PushOptions, kernel: &Kernel, drivers: &Drivers) -> Result<(Vec<String>, Vec<String>)> {
    let built_in = BuiltIn::load(kernel)?;
    let (mut missing, mut unserved) = (Vec::new(), Vec::new());
    let mut needed = BTreeSet::new();
    for name in &options.drivers {
        let here = name_here(name);
        if drivers.index.has(&here) {
            needed.insert(here);
        } else if !built_in.names.contains(&here) {
            missing.push(format!("{name}: Linux {} has no driver of this name", kernel.release));
        }
    }
    for modalias in &options.modaliases {
        let Some(kind) = kind(modalias) else { continue };
        let serving = drivers.index.serving(modalias);
        if serving.is_empty() && !built_in.serves(modalias) {
            let line = format!("{modalias}: no driver for this {}", kind.as_str());
            if kind == Kind::Disks || options.drivers.is_empty() { &mut missing } else { &mut unserved }.push(line);
        } else if kind == Kind::Disks || options.drivers.is_empty() {
            needed.extend(serving);
        }
    }
    missing.extend(needed.iter().filter_map(|module| without_firmware(module, drivers)));
    Ok((missing, unserved))
}

/// What a module lacks that does not work without its firmware: it names several files, and one of them is enough.
fn without_firmware(module: &str, drivers: &Drivers) -> Option<String> {
    let files = || drivers.firmware.files.iter().filter(|file| file.modules.iter().any(|name| name == module));
    let first = files().next().filter(|_| is_vital(module) && files().all(|file| file.from.is_none()))?;
    Some(format!("{module}: its firmware {} is not in: give the folder that has it", first.name))
}

/// What a device is for, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Disks,
    Network,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Disks => "disk controller",
            Self::Network => "network card",
        }
    }
}

/// By the class that a PCI device has in its modalias (PCI Code and ID Assignment Specification 1.11, sections 1.2 and 1.3):
/// mass storage but floppies; Ethernet.
fn kind(modalias: &str) -> Option<Kind> {
    let class = modalias.strip_prefix("pci:")?.rsplit_once("bc")?.1;
    let (class, rest) = (class.get(..2)?, class.get(2..)?);
    match (class, rest.strip_prefix("sc")?.get(..2)?) {
        ("01", "02") => None,
        ("01", _) => Some(Kind::Disks),
        ("02", "00") => Some(Kind::Network),
        _ => None,
    }
}

/// What the kernel has built in.
struct BuiltIn {
    names: BTreeSet<String>,
    aliases: Vec<String>,
}

impl BuiltIn {
    /// `modules.builtin` (paths) and `modules.builtin.modinfo` (`module.field=value`, each with a NUL behind).
    fn load(kernel: &Kernel) -> Result<Self> {
        let path = kernel.modules.join("modules.builtin");
        let names = fs::read_to_string(&path).map_err(|e| Error::path("read", &path, e))?;
        let names = names.lines().map(module_name).collect();
        // Kernels before 5.2 have none.
        let modinfo = fs::read(kernel.modules.join("modules.builtin.modinfo")).unwrap_or_default();
        let fields = modinfo.split(|byte| *byte == 0).filter_map(|field| std::str::from_utf8(field).ok());
        let aliases = fields.filter_map(|field| field.split_once('.')?.1.strip_prefix("alias="));
        Ok(Self { names, aliases: aliases.map(str::to_owned).collect() })
    }

    fn serves(&self, modalias: &str) -> bool {
        self.aliases.iter().any(|pattern| kernel_modules::matches(pattern, modalias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_controllers_and_ethernet_cards_are_known_by_their_class() {
        let of = |class: &str| kind(&format!("pci:v00008086d00002922sv00001AF4sd00001100{class}")).map(Kind::as_str);
        assert_eq!(of("bc01sc06i01"), Some("disk controller"));
        assert_eq!(of("bc01sc08i02"), Some("disk controller"));
        assert_eq!(of("bc02sc00i00"), Some("network card"));
        assert_eq!((of("bc02sc80i00"), of("bc03sc00i00"), of("bc01sc02i00")), (None, None, None));
        assert_eq!((kind("usb:v1bc01sc06"), kind("pci:bc"), kind("pci:v1bc01")).0.map(Kind::as_str), None);
        assert!(kind("pci:bc").is_none() && kind("pci:v1bc01").is_none() && kind("pci:v1bcä1sc").is_none());
    }

    #[test]
    fn a_driver_of_an_older_kernel_is_known_by_its_name_here() {
        assert_eq!(
            ["cciss", "virtio-blk", "ahci", "mpt2sas"].map(name_here),
            ["hpsa", "virtio_blk", "ahci", "mpt3sas"]
        );
    }
}
