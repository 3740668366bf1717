//! The appliance: the boot image's kernel and bootenv with a small initramfs, started as a VM to change a guest's disks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::added::Added;
use crate::initramfs::{Plan, write_initramfs};
use crate::kernel::{Kernel, KernelChoice, load_kernel};
use crate::modules::{Wanted, load_index};
use crate::program::{Programs, copy_stripped};
use crate::{Error, Result, cache, debian_programs, drivers};

/// Raised whenever what is inside changes other than by kernel or bootenv.
const LAYOUT: &str = "appliance 2";

/// Programs of Debian in it: the driver of NTFS, which its kernel has not. Path here and in the image, package.
const PROGRAMS: &[(&str, &str)] = &[("/bin/ntfs-3g", "ntfs-3g")];

/// What to build an appliance from.
#[derive(Clone, Debug)]
pub struct ApplianceOptions {
    /// The kernel; any cached one does.
    pub kernel: KernelChoice,
    /// Where `vconverter-bootenv` lies.
    pub programs: Programs,
}

impl ApplianceOptions {
    /// A cached kernel and the programs beside the running one.
    ///
    /// # Errors
    /// See [`Programs::beside_executable`].
    pub fn from_executable() -> Result<Self> {
        Ok(Self { kernel: KernelChoice::Cached, programs: Programs::beside_executable()? })
    }
}

/// Files to start a VM with (QEMU's `-kernel` and `-initrd`). They lie in the cache: read, never changed; a job is
/// added to a copy by [`crate::cpio::append_archive`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appliance {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initramfs, a multiple of 4 bytes long.
    pub initramfs: PathBuf,
    /// As `uname -r` prints it.
    pub kernel_release: String,
}

/// Finds the appliance for this kernel and bootenv in the cache, or builds it. Any number of processes may do so at once.
///
/// # Errors
/// See [`load_kernel`](crate::load_kernel); [`ErrorKind::MissingProgram`](crate::ErrorKind) without bootenv.
pub fn build_appliance(options: &ApplianceOptions, progress: &mut dyn FnMut(&str)) -> Result<Appliance> {
    let bootenv = options.programs.find("vconverter-bootenv")?;
    let kernel = load_kernel(&options.kernel, progress)?;
    let entry = cache::entry(&cache::open_cache("appliance")?, &key(&kernel, &bootenv)?, |folder| {
        progress(&format!("building the appliance with Linux {}", kernel.release));
        build(&kernel, &bootenv, folder, progress)
    })?;
    Ok(Appliance {
        kernel: entry.join("vmlinuz"),
        initramfs: entry.join("initramfs.img"),
        kernel_release: kernel.release,
    })
}

fn key(kernel: &Kernel, bootenv: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let part = |hasher: &mut blake3::Hasher, text: &str| {
        hasher.update(&text.len().to_le_bytes()).update(text.as_bytes());
    };
    part(&mut hasher, LAYOUT);
    part(&mut hasher, &kernel.package);
    part(&mut hasher, &drivers::APPLIANCE.join(" "));
    let program = fs::File::open(bootenv).map_err(|e| Error::path("open", bootenv, e))?;
    hasher.update_reader(program).map_err(|e| Error::path("read", bootenv, e))?;
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

fn build(kernel: &Kernel, bootenv: &Path, folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let stripped = folder.join("bootenv");
    copy_stripped(bootenv, &stripped, progress)?;
    let wanted = Wanted { starts: drivers::APPLIANCE, ..Wanted::default() };
    let selection = load_index(&kernel.modules)?.select(&wanted)?;
    let plan = Plan {
        kernel,
        bootenv: &stripped,
        agent: None,
        selection: &selection,
        added: &Added::default(),
        firmware: &BTreeMap::new(),
        names: &[],
        programs: &debian_programs::find(PROGRAMS, progress)?,
        rescue: &BTreeMap::new(),
    };
    let sizes = write_initramfs(&plan, &folder.join("initramfs.img"))?;
    progress(&format!("appliance: {} modules, {} KiB", selection.paths.len(), sizes.compressed >> 10));
    fs::remove_file(&stripped).map_err(|e| Error::path("remove", &stripped, e))?;
    fs::copy(&kernel.vmlinuz, folder.join("vmlinuz")).map_err(|e| Error::path("copy", &kernel.vmlinuz, e))?;
    Ok(())
}
