//! The boot image as a whole: its files in a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::assembly::{DriverChoice, Parts, check, choose_drivers, make_initramfs};
use crate::configuration::Configuration;
use crate::cpio::{Archive, append_archive};
use crate::firmware::{FirmwareFile, FirmwareSources};
use crate::iso::{Contents, write_iso};
use crate::kernel::{Kernel, KernelChoice, load_kernel};
use crate::keymap::compile_keymap;
use crate::modules::Wanted;
use crate::network::Network;
use crate::program::Programs;
use crate::rescue::find_programs;
use crate::{Error, Result, drivers, netboot};

/// What to build, and where.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// Folder for the files; made if it is not there.
    pub output: PathBuf,
    /// The controller as `HOST:PORT`; without it the boot image asks on its screen.
    pub controller: Option<String>,
    /// SHA-256 of the controller's CA certificate, 64 hexadecimal digits.
    pub ca_fingerprint: Option<String>,
    /// Network of the boot image.
    pub network: Network,
    /// Name of the console's keymap: one of Debian's package console-data.
    pub keymap: Option<String>,
    /// Public key for a rescue shell (see [`load_ssh_key`](crate::load_ssh_key)); without one there is none.
    pub ssh_key: Option<String>,
    /// The kernel.
    pub kernel: KernelChoice,
    /// Where `vconverter-bootenv` and `vconverter-agent` lie.
    pub programs: Programs,
    /// Where firmware comes from.
    pub firmware: FirmwareSources,
    /// Drivers that are added to the kernel's: modules (`.ko`, `.ko.xz`, `.ko.zst`), packages of modules or firmware (`.deb`).
    pub drivers: Vec<PathBuf>,
    /// Modules by name that stay out although they would be in, unless something needs them: for tests of what an operator
    /// does whose hardware is not supported.
    pub without: Vec<String>,
    /// Only for the machine with these devices, told by their modaliases (see [`parse_report`](crate::parse_report)): the
    /// drivers of others stay out, and kernel and initramfs are all that is made.
    pub devices: Option<Vec<String>>,
}

impl BuildOptions {
    /// Files in `output` from the newest kernel and the programs beside the running one, without a controller, by DHCP.
    ///
    /// # Errors
    /// See [`Programs::beside_executable`].
    pub fn new(output: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self {
            output: output.into(),
            controller: None,
            ca_fingerprint: None,
            network: Network::default(),
            keymap: None,
            ssh_key: None,
            kernel: KernelChoice::Newest,
            programs: Programs::beside_executable()?,
            firmware: FirmwareSources::default(),
            drivers: Vec::new(),
            without: Vec::new(),
            devices: None,
        })
    }
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootImage {
    /// The kernel, signed by Debian.
    pub vmlinuz: PathBuf,
    /// The initramfs; where it is made for one machine, the configuration is in it.
    pub initramfs: PathBuf,
    /// The configuration.
    pub configuration: PathBuf,
    /// What starts machines by itself; not made for one machine.
    pub media: Option<Media>,
    /// As `uname -r` prints it.
    pub kernel_release: String,
    /// Number of kernel modules.
    pub modules: usize,
    /// Every firmware file that the modules name, the missing ones too.
    pub firmware: Vec<FirmwareFile>,
    /// Debian's firmware packages that the package sources lack; empty where no file is missing.
    pub unknown_packages: Vec<&'static str>,
}

/// The parts of a boot image that are no part of one made for one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// The ISO.
    pub iso: PathBuf,
    /// The configuration as an archive, to be given to the kernel behind the initramfs.
    pub configuration_archive: PathBuf,
    /// Folder of loaders for starting over the network: `undionly.kpxe`, `boot.efi`, `shimx64.efi`, `grubx64.efi`,
    /// `vmlinuz` and `initramfs.img`; loaders whose packages cannot be had are not there.
    pub netboot: PathBuf,
}

/// Builds the boot image; `progress` gets one line for each step. Files appear under their names when they are complete.
///
/// # Errors
/// Every kind of [`ErrorKind`](crate::ErrorKind); wrong options are found before anything is made.
pub fn build_boot_image(options: &BuildOptions, progress: &mut dyn FnMut(&str)) -> Result<BootImage> {
    let configuration = Configuration {
        controller: options.controller.clone(),
        ca_fingerprint: options.ca_fingerprint.clone(),
        keymap: options.keymap.clone(),
        rescue_key: options.ssh_key.clone(),
        push: None,
        network: options.network.clone(),
    };
    let configuration = configuration.to_toml()?;
    let (bootenv, agent) = (options.programs.find("vconverter-bootenv")?, options.programs.find("vconverter-agent")?);
    if !options.network.is_empty() {
        check(&bootenv, &configuration)?;
    }
    let keymap = options.keymap.as_deref().map(|name| compile_keymap(name, progress)).transpose()?;
    let kernel = load_kernel(&options.kernel, progress)?;
    let output = &options.output;
    fs::create_dir_all(output).map_err(|e| Error::path("create", output, e))?;
    let work = tempfile::Builder::new().prefix(".boot-image-").tempdir_in(output);
    let work = work.map_err(|e| Error::path("create a folder in", output, e))?;
    let made = |name: &str| work.path().join(name);
    let write =
        |name: &str, bytes: &[u8]| fs::write(made(name), bytes).map_err(|e| Error::path("write", &made(name), e));

    let wanted = match &options.devices {
        Some(devices) => {
            Wanted { starts: drivers::ONE_MACHINE, device_starts: drivers::BOOT_IMAGE, devices, ..Wanted::default() }
        }
        None => Wanted { starts: drivers::BOOT_IMAGE, ..Wanted::default() },
    };
    let wanted = Wanted { without: drivers::BOOT_IMAGE_WITHOUT, without_names: &options.without, ..wanted };
    let choice = DriverChoice { files: &options.drivers, firmware: &options.firmware, wanted };
    let drivers = choose_drivers(&choice, &kernel, work.path(), progress)?;
    fs::copy(&kernel.vmlinuz, made("vmlinuz")).map_err(|e| Error::path("copy", &kernel.vmlinuz, e))?;
    write("vconverter.toml", configuration.as_bytes())?;
    progress(&format!("making the initramfs with Linux {}", kernel.release));
    let rescue = match options.ssh_key {
        Some(_) => find_programs(progress)?,
        None => BTreeMap::new(),
    };
    let parts = Parts { kernel: &kernel, bootenv: &bootenv, agent: &agent, drivers: &drivers, rescue: &rescue };
    make_initramfs(&parts, work.path(), &made("initramfs.img"), progress)?;
    write("vconverter.keymap", keymap.as_deref().unwrap_or_default())?;
    let files = ["vmlinuz", "initramfs.img", "vconverter.toml", "vconverter.keymap"].map(made);
    let identity = identity(&files.each_ref().map(PathBuf::as_path))?;
    let mut archive = Archive::new();
    archive.add_bytes("vconverter.toml", 0o644, configuration)?;
    if let Some(keymap) = keymap {
        archive.add_bytes("vconverter.keymap", 0o644, keymap)?;
    }
    archive.add_bytes("vconverter.medium", 0o644, identity.as_bytes())?;
    write("configuration.img", &archive.to_bytes()?)?;
    append_archive(&made("initramfs.img"), &archive, &made("configured.img"))?;
    let publish = |from: &str, name: &str| {
        let to = output.join(name);
        // Of an earlier build; a rename puts files in the place of files, not folders in that of folders.
        if name == "netboot" && to.is_dir() {
            fs::remove_dir_all(&to).map_err(|e| Error::path("remove", &to, e))?;
        }
        fs::rename(made(from), &to).map_err(|e| Error::path("rename to", &to, e)).map(|()| to)
    };
    let (initramfs, media) = if options.devices.is_some() {
        (publish("configured.img", "initramfs.img")?, None)
    } else {
        let contents = Contents {
            vmlinuz: &made("vmlinuz"),
            initramfs: &made("initramfs.img"),
            configuration: &made("vconverter.toml"),
            configuration_archive: &made("configuration.img"),
            identity: &identity,
            epoch: epoch(&kernel)?,
        };
        write_iso(&contents, &made("vconverter.iso"), progress)?;
        let files = netboot::Contents { vmlinuz: &made("vmlinuz"), initramfs: &made("configured.img") };
        netboot::write_netboot(&files, &made("netboot"), progress)?;
        let initramfs = publish("initramfs.img", "initramfs.img")?;
        let iso = publish("vconverter.iso", "vconverter.iso")?;
        let size = fs::metadata(&iso).map_err(|e| Error::path("read", &iso, e))?.len();
        progress(&format!("{}: {} MiB", iso.display(), size >> 20));
        let configuration_archive = publish("configuration.img", "configuration.img")?;
        (initramfs, Some(Media { iso, configuration_archive, netboot: publish("netboot", "netboot")? }))
    };
    Ok(BootImage {
        vmlinuz: publish("vmlinuz", "vmlinuz")?,
        initramfs,
        configuration: publish("vconverter.toml", "vconverter.toml")?,
        media,
        kernel_release: kernel.release,
        modules: drivers.selection.paths.len(),
        firmware: drivers.firmware.files,
        unknown_packages: drivers.firmware.unknown_packages,
    })
}

/// A name for the medium that follows from what is on it.
fn identity(files: &[&Path]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for path in files {
        let file = fs::File::open(path).map_err(|e| Error::path("open", path, e))?;
        hasher.update_reader(file).map_err(|e| Error::path("read", path, e))?;
    }
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}

/// Time stamp of everything made: SOURCE_DATE_EPOCH where it is set, else that of the kernel in its package.
fn epoch(kernel: &Kernel) -> Result<u64> {
    if let Some(seconds) = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()) {
        return Ok(seconds);
    }
    let modified = fs::metadata(&kernel.vmlinuz).and_then(|metadata| metadata.modified());
    let modified = modified.map_err(|e| Error::path("read", &kernel.vmlinuz, e))?;
    Ok(modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
