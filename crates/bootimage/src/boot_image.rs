//! The boot image as a whole: its files in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::configuration::{Configuration, Network};
use crate::cpio::Archive;
use crate::initramfs::{Plan, write_initramfs};
use crate::iso::{Contents, write_iso};
use crate::kernel::{Kernel, KernelChoice, load_kernel};
use crate::program::{Programs, copy_stripped};
use crate::{Error, Result, modules};

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
    /// The kernel.
    pub kernel: KernelChoice,
    /// Where `vconverter-bootenv` and `vconverter-agent` lie.
    pub programs: Programs,
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
            kernel: KernelChoice::Newest,
            programs: Programs::beside_executable()?,
        })
    }
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootImage {
    /// The kernel, signed by Debian.
    pub vmlinuz: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The ISO, which holds the others.
    pub iso: PathBuf,
    /// The configuration.
    pub configuration: PathBuf,
    /// The configuration as an archive, to be given to the kernel behind the initramfs where no ISO is used (PXE).
    pub configuration_archive: PathBuf,
    /// As `uname -r` prints it.
    pub kernel_release: String,
}

/// Builds the boot image; `progress` gets one line for each step. Files appear under their names when they are complete.
///
/// # Errors
/// Every kind of [`ErrorKind`](crate::ErrorKind); wrong options are found before anything is made.
pub fn build_boot_image(options: &BuildOptions, progress: &mut dyn FnMut(&str)) -> Result<BootImage> {
    let configuration = Configuration {
        controller: options.controller.clone(),
        ca_fingerprint: options.ca_fingerprint.clone(),
        network: options.network.clone(),
    };
    let configuration = configuration.to_toml()?;
    let (bootenv, agent) = (options.programs.find("vconverter-bootenv")?, options.programs.find("vconverter-agent")?);
    let kernel = load_kernel(&options.kernel, progress)?;
    let output = &options.output;
    fs::create_dir_all(output).map_err(|e| Error::path("create", output, e))?;
    let work = tempfile::Builder::new().prefix(".boot-image-").tempdir_in(output);
    let work = work.map_err(|e| Error::path("create a folder in", output, e))?;
    let made = |name: &str| work.path().join(name);

    fs::copy(&kernel.vmlinuz, made("vmlinuz")).map_err(|e| Error::path("copy", &kernel.vmlinuz, e))?;
    fs::write(made("vconverter.toml"), &configuration)
        .map_err(|e| Error::path("write", &made("vconverter.toml"), e))?;
    progress(&format!("making the initramfs with Linux {}", kernel.release));
    copy_stripped(&bootenv, &made("bootenv"), progress)?;
    copy_stripped(&agent, &made("agent"), progress)?;
    let plan = Plan {
        kernel: &kernel,
        bootenv: &made("bootenv"),
        agent: Some(&made("agent")),
        modules: (modules::BOOT_IMAGE, modules::BOOT_IMAGE_WITHOUT),
        level: 10,
    };
    let sizes = write_initramfs(&plan, &made("initramfs.img"))?;
    progress(&format!(
        "initramfs: {} modules, {} MiB, compressed {} MiB",
        sizes.modules,
        sizes.unpacked >> 20,
        sizes.compressed >> 20
    ));
    let identity = identity(&[&made("vmlinuz"), &made("initramfs.img"), &made("vconverter.toml")])?;
    let mut archive = Archive::new();
    archive.add_bytes("vconverter.toml", 0o644, configuration)?;
    archive.add_bytes("vconverter.medium", 0o644, identity.as_bytes())?;
    fs::write(made("configuration.img"), archive.to_bytes()?)
        .map_err(|e| Error::path("write", &made("configuration.img"), e))?;
    let contents = Contents {
        vmlinuz: &made("vmlinuz"),
        initramfs: &made("initramfs.img"),
        configuration: &made("vconverter.toml"),
        configuration_archive: &made("configuration.img"),
        identity: &identity,
        epoch: epoch(&kernel)?,
    };
    write_iso(&contents, &made("vconverter.iso"), progress)?;
    let publish = |name: &str| {
        let (from, to) = (made(name), output.join(name));
        fs::rename(&from, &to).map_err(|e| Error::path("rename to", &to, e)).map(|()| to)
    };
    let image = BootImage {
        vmlinuz: publish("vmlinuz")?,
        initramfs: publish("initramfs.img")?,
        configuration: publish("vconverter.toml")?,
        configuration_archive: publish("configuration.img")?,
        iso: publish("vconverter.iso")?,
        kernel_release: kernel.release,
    };
    let size = fs::metadata(&image.iso).map_err(|e| Error::path("read", &image.iso, e))?.len();
    progress(&format!("{}: {} MiB", image.iso.display(), size >> 20));
    Ok(image)
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
