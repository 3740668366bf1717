//! What every boot image is put together from, whatever it is started by: its modules with their firmware, and its initramfs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::added::{Added, load_added};
use crate::firmware::{Firmware, FirmwareSources, collect};
use crate::initramfs::{Plan, firmware_of, write_initramfs};
use crate::kernel::Kernel;
use crate::modules::{ModuleIndex, Selection, Wanted, load_index};
use crate::names::device_names;
use crate::network::check_configuration;
use crate::program::copy_stripped;
use crate::{Error, Result};

/// Which modules, and where they and their firmware come from.
pub(crate) struct DriverChoice<'a> {
    /// Drivers that are added to the kernel's.
    pub(crate) files: &'a [PathBuf],
    pub(crate) firmware: &'a FirmwareSources,
    pub(crate) wanted: Wanted<'a>,
}

/// The modules and the firmware of a boot image.
pub(crate) struct Drivers {
    /// All that the kernel has, with what was added.
    pub(crate) index: ModuleIndex,
    pub(crate) selection: Selection,
    pub(crate) added: Added,
    pub(crate) firmware: Firmware,
}

/// Chooses; packages and compressed files are unpacked into `work`.
pub(crate) fn choose_drivers(
    choice: &DriverChoice<'_>,
    kernel: &Kernel,
    work: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Drivers> {
    let added = load_added(choice.files, kernel, work, progress)?;
    let mut index = load_index(&kernel.modules)?;
    added.add_to(&mut index)?;
    let selection = index.select(&choice.wanted)?;
    let mut sources = choice.firmware.clone();
    sources.folders.extend(added.firmware_folders.iter().cloned());
    let mut firmware = collect(&firmware_of(kernel, &selection, &added)?, &sources, work, progress)?;
    // Many files are of one module.
    let mut dependents: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in &mut firmware.files {
        for module in &file.modules {
            let found = dependents.entry(module.clone()).or_insert_with(|| selection.dependents(module));
            file.needed_by.extend(found.iter().cloned());
        }
    }
    Ok(Drivers { index, selection, added, firmware })
}

/// What goes into the initramfs of a boot image.
pub(crate) struct Parts<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) bootenv: &'a Path,
    pub(crate) agent: &'a Path,
    pub(crate) drivers: &'a Drivers,
    /// Programs of the rescue shell, by their place; none where there is no such shell.
    pub(crate) rescue: &'a BTreeMap<String, PathBuf>,
}

/// Writes the initramfs to `output`, a multiple of 4 bytes long; the programs are stripped in `work`.
pub(crate) fn make_initramfs(
    parts: &Parts<'_>,
    work: &Path,
    output: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    progress(&format!("making the initramfs with Linux {}", parts.kernel.release));
    let (bootenv, agent) = (work.join("bootenv"), work.join("agent"));
    copy_stripped(parts.bootenv, &bootenv, progress)?;
    copy_stripped(parts.agent, &agent, progress)?;
    let plan = Plan {
        kernel: parts.kernel,
        bootenv: &bootenv,
        agent: Some(&agent),
        selection: &parts.drivers.selection,
        added: &parts.drivers.added,
        firmware: &parts.drivers.firmware.contents,
        names: &device_names(progress),
        programs: &BTreeMap::new(),
        rescue: parts.rescue,
    };
    let sizes = write_initramfs(&plan, output)?;
    progress(&format!(
        "initramfs: {} modules, {} firmware files, {} MiB, compressed {} MiB",
        parts.drivers.selection.paths.len(),
        parts.drivers.firmware.contents.len(),
        sizes.unpacked >> 20,
        sizes.compressed >> 20
    ));
    Ok(())
}

/// Has the text of a configuration checked by the program that will read it.
pub(crate) fn check(bootenv: &Path, configuration: &str) -> Result<()> {
    let failed = |e| Error::io("write a temporary file", e);
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    file.write_all(configuration.as_bytes()).map_err(failed)?;
    check_configuration(bootenv, file.path())
}
