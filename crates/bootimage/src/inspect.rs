//! What a boot image is made of, read from its own files: an ISO, the folder of a build, or an initramfs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use kernel_modules::{common_names, module_name, parse_module};
use serde::Serialize;

use crate::devices::{Device, PciId, devices_of, find_device};
use crate::firmware::is_vital;
use crate::tool::{MCOPY, XORRISO};
use crate::unpack::read_initramfs;
use crate::{Error, ErrorKind, Result, rescue};

/// An initramfs is read as a whole; this one would not start anywhere.
const INITRAMFS_LENGTH_MAX: u64 = 1 << 30;

/// A boot image that was looked into.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Inspection {
    /// As `uname -r` prints it.
    pub kernel_release: String,
    /// Lengths in bytes of the files that there are: `iso`, `vmlinuz`, `initramfs`, and of what is unpacked from it.
    pub sizes: BTreeMap<&'static str, u64>,
    /// Number of kernel modules.
    pub modules: usize,
    /// Who signed the modules, and how many; `unsigned` for those that nobody did.
    pub module_signers: BTreeMap<String, usize>,
    /// Firmware files that are in.
    pub firmware: BTreeSet<String>,
    /// Firmware files that modules name and that are missing, with these modules.
    pub missing_firmware: BTreeMap<String, BTreeSet<String>>,
    /// `vconverter.toml`; `None` where none is in.
    pub configuration: Option<String>,
    /// Whether a rescue shell and its SSH server are in.
    pub rescue_shell: bool,
    /// Programs that UEFI firmware starts one after another, with the names in their signatures.
    pub secure_boot: Vec<Signed>,
    /// Alias pattern and module.
    #[serde(skip)]
    aliases: Vec<(String, String)>,
    /// Module → firmware files that it names.
    #[serde(skip)]
    named: BTreeMap<String, Vec<String>>,
    /// Module → modules that it needs.
    #[serde(skip)]
    needs: BTreeMap<String, Vec<String>>,
}

/// A program of the chain that Secure Boot checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signed {
    /// `BOOTX64.EFI`, `grubx64.efi` or `vmlinuz`.
    pub file: String,
    /// Common names in its signature; empty where it is not signed.
    pub signers: Vec<String>,
}

/// Whether and how a device is supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// What was asked for.
    pub id: PciId,
    /// What it is, if the table knows it.
    pub device: Option<&'static Device>,
    /// The modules that serve it; empty where none does.
    pub modules: Vec<ModuleSupport>,
}

/// A module that serves a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModuleSupport {
    /// Its name.
    pub module: String,
    /// Whether it is in the boot image.
    pub present: bool,
    /// Firmware that it or a module that it needs names.
    pub firmware: Vec<NamedFirmware>,
}

/// A firmware file that a module names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedFirmware {
    /// Below the firmware folder.
    pub file: String,
    /// Whether it is in.
    pub present: bool,
    /// The module that names it.
    pub module: String,
    /// Whether that module cannot work without.
    pub vital: bool,
}

impl ModuleSupport {
    /// Whether its device comes to life. A module may name files of several versions and of several devices, all of one
    /// package; so one that is there is taken for the one that is needed.
    pub fn works(&self) -> bool {
        let has_one = |module: &str| self.firmware.iter().any(|file| file.module == module && file.present);
        self.present && self.firmware.iter().all(|file| !file.vital || has_one(&file.module))
    }
}

impl Support {
    /// Whether the device works in this boot image.
    pub fn is_supported(&self) -> bool {
        self.modules.iter().any(ModuleSupport::works)
    }
}

/// Looks into `path`: an ISO, the folder of a build, or an initramfs.
///
/// # Errors
/// [`ErrorKind::NoBootImage`] for anything else, [`ErrorKind::MissingTool`] without xorriso and mtools for an ISO.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let mut inspection = Inspection::default();
    let work = tempfile::tempdir().map_err(|e| Error::io("create a temporary folder", e))?;
    let files = if path.is_dir() {
        Files::of_folder(path)
    } else if is_iso(path)? {
        Files::of_iso(path, work.path())?
    } else {
        Files { initramfs: path.to_owned(), vmlinuz: None, iso: None, configuration: None }
    };
    inspection.read_initramfs(&files.initramfs)?;
    if let Some(configuration) = files.configuration.filter(|path| path.is_file()) {
        let text = fs::read_to_string(&configuration).map_err(|e| Error::path("read", &configuration, e))?;
        inspection.configuration = Some(text);
    }
    if let Some(iso) = files.iso.filter(|iso| iso.is_file()) {
        inspection.sizes.insert("iso", length(&iso)?);
        inspection.secure_boot = loaders(&iso, work.path())?;
    }
    if let Some(vmlinuz) = files.vmlinuz.filter(|vmlinuz| vmlinuz.is_file()) {
        let bytes = fs::read(&vmlinuz).map_err(|e| Error::path("read", &vmlinuz, e))?;
        inspection.sizes.insert("vmlinuz", bytes.len() as u64);
        inspection.secure_boot.push(Signed { file: "vmlinuz".into(), signers: program_signers(&bytes) });
    }
    Ok(inspection)
}

/// Where the parts of a boot image lie.
struct Files {
    initramfs: PathBuf,
    vmlinuz: Option<PathBuf>,
    iso: Option<PathBuf>,
    configuration: Option<PathBuf>,
}

impl Files {
    fn of_folder(folder: &Path) -> Self {
        let file = |name: &str| Some(folder.join(name));
        let (vmlinuz, iso) = (file("vmlinuz"), file("vconverter.iso"));
        Self { initramfs: folder.join("initramfs.img"), vmlinuz, iso, configuration: file("vconverter.toml") }
    }

    fn of_iso(iso: &Path, work: &Path) -> Result<Self> {
        for (inside, name) in [
            ("/boot/vmlinuz", "vmlinuz"),
            ("/boot/initramfs.img", "initramfs.img"),
            ("/vconverter.toml", "vconverter.toml"),
        ] {
            extract(iso, inside, &work.join(name))?;
        }
        Ok(Self { iso: Some(iso.to_owned()), ..Self::of_folder(work) })
    }
}

fn extract(iso: &Path, inside: &str, to: &Path) -> Result<()> {
    let mut command = XORRISO.command()?;
    command.args(["-osirrox", "on", "-indev"]).arg(iso).args(["-extract", inside]).arg(to);
    XORRISO.run(&mut command).map(drop).map_err(|error| match error.kind {
        ErrorKind::ToolFailed => {
            Error::new(ErrorKind::NoBootImage, format!("{}: no boot image: no {inside} in it", iso.display()))
        }
        _ => error,
    })?;
    // A foreign ISO may have a link there, which would lead anywhere.
    if !fs::symlink_metadata(to).is_ok_and(|metadata| metadata.is_file()) {
        let what = format!("{}: no boot image: {inside} is no file", iso.display());
        return Err(Error::new(ErrorKind::NoBootImage, what));
    }
    Ok(())
}

fn is_iso(path: &Path) -> Result<bool> {
    use std::os::unix::fs::FileExt;
    let file = fs::File::open(path).map_err(|e| Error::path("open", path, e))?;
    let mut identifier = [0; 5];
    Ok(file.read_exact_at(&mut identifier, 32769).is_ok() && identifier == *b"CD001")
}

fn length(path: &Path) -> Result<u64> {
    fs::metadata(path).map(|metadata| metadata.len()).map_err(|e| Error::path("read", path, e))
}

/// The signed programs in the EFI system partition of `iso`.
fn loaders(iso: &Path, work: &Path) -> Result<Vec<Signed>> {
    let partition = work.join("efi.img");
    extract(iso, "/boot/grub/efi.img", &partition)?;
    let mut found = Vec::new();
    for file in ["BOOTX64.EFI", "grubx64.efi"] {
        let copy = work.join(file);
        let mut command = MCOPY.command()?;
        command.arg("-n").arg("-i").arg(&partition).arg(format!("::/EFI/BOOT/{file}")).arg(&copy);
        match MCOPY.run(&mut command) {
            Ok(_) => {
                let bytes = fs::read(&copy).map_err(|e| Error::path("read", &copy, e))?;
                found.push(Signed { file: file.into(), signers: program_signers(&bytes) });
            }
            // An ISO for firmware without Secure Boot has one loader.
            Err(error) if error.kind == ErrorKind::ToolFailed => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Names in the signatures of an EFI program (Microsoft, "PE Format", "The Attribute Certificate Table").
fn program_signers(program: &[u8]) -> Vec<String> {
    let number = |at: usize| {
        let bytes: [u8; 4] = program.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let table = || {
        // Signature, COFF header; the fifth data directory of a PE32+ optional header, whose address is one in the file.
        let entry = number(0x3c)?.checked_add(4 + 20 + 112 + 4 * 8)?;
        let (start, length) = (number(entry)?, number(entry.checked_add(4)?)?);
        program.get(start..start.checked_add(length)?)
    };
    table().map(common_names).unwrap_or_default()
}

impl Inspection {
    fn read_initramfs(&mut self, path: &Path) -> Result<()> {
        let mut bytes = Vec::new();
        let file = fs::File::open(path).map_err(|e| Error::path("open", path, e))?;
        // A device has no length of its own.
        let read = file.take(INITRAMFS_LENGTH_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::path("read", path, e))?;
        let size = bytes.len() as u64;
        if size > INITRAMFS_LENGTH_MAX {
            return Err(Error::new(ErrorKind::NoBootImage, format!("{}: too large for an initramfs", path.display())));
        }
        self.sizes.insert("initramfs", size);
        let unpacked = read_initramfs(&bytes, &mut |name, content| self.see(name, &content));
        let unpacked =
            unpacked.map_err(|error| Error { context: format!("{}: {}", path.display(), error.context), ..error })?;
        self.sizes.insert("unpacked", unpacked);
        if self.kernel_release.is_empty() {
            let what = format!("{}: an initramfs without modules: no boot image", path.display());
            return Err(Error::new(ErrorKind::NoBootImage, what));
        }
        let mut missing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, names) in &self.named {
            for name in names.iter().filter(|name| !self.has_firmware(name)) {
                missing.entry(name.clone()).or_default().insert(module.clone());
            }
        }
        self.missing_firmware = missing;
        Ok(())
    }

    fn see(&mut self, name: &str, content: &[u8]) {
        if let Some(name) = name.strip_prefix("lib/firmware/") {
            self.firmware.insert(name.to_owned());
        } else if name == rescue::SERVER {
            self.rescue_shell = true;
        } else if name == "vconverter.toml" {
            self.configuration = Some(String::from_utf8_lossy(content).into_owned());
        } else if let Some((release, file)) = name.strip_prefix("lib/modules/").and_then(|rest| rest.split_once('/')) {
            release.clone_into(&mut self.kernel_release);
            if file == "modules.alias" {
                let text = String::from_utf8_lossy(content);
                let lines = text.lines().filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' '));
                self.aliases = lines.map(|(alias, module)| (alias.to_owned(), module_name(module))).collect();
            } else if file == "modules.dep" {
                let text = String::from_utf8_lossy(content);
                for (path, needs) in text.lines().filter_map(|line| line.split_once(':')) {
                    self.needs.insert(module_name(path), needs.split_whitespace().map(module_name).collect());
                }
            } else if file.ends_with(".ko") {
                self.modules += 1;
                let info = parse_module(content).unwrap_or_default();
                *self.module_signers.entry(info.signer.unwrap_or_else(|| "unsigned".into())).or_default() += 1;
                self.named.insert(module_name(file), info.firmware);
            }
        }
    }

    fn has_firmware(&self, name: &str) -> bool {
        self.firmware.contains(name) || self.firmware.iter().any(|file| kernel_modules::matches(name, file))
    }

    /// Which modules serve the device with these numbers, and whether they have what they need.
    pub fn supports(&self, id: PciId) -> Support {
        let serving = self.aliases.iter().filter(|(pattern, _)| id.is_served_by(pattern)).map(|(_, module)| module);
        let mut modules: Vec<ModuleSupport> =
            serving.collect::<BTreeSet<_>>().into_iter().map(|m| self.module(m)).collect();
        let device = find_device(id);
        if let Some(device) = device.filter(|_| modules.is_empty()) {
            modules.push(self.module(device.module));
        }
        Support { id, device, modules }
    }

    fn module(&self, module: &str) -> ModuleSupport {
        let needed = self.needs.get(module).into_iter().flatten().map(String::as_str);
        let naming = std::iter::once(module).chain(needed).filter_map(|name| Some((name, self.named.get(name)?)));
        let firmware = naming.flat_map(|(name, files)| {
            files.iter().map(move |file| NamedFirmware {
                file: file.clone(),
                present: self.has_firmware(file),
                module: name.to_owned(),
                vital: is_vital(name),
            })
        });
        let firmware = firmware.collect();
        ModuleSupport { module: module.to_owned(), present: self.named.contains_key(module), firmware }
    }

    /// Whether the module `name` is in.
    pub fn has_module(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    /// Whether UEFI firmware with Secure Boot on starts it: everything in the chain is signed, and who signed the kernel
    /// signed the GRUB before it. `None` where there is no chain to look at.
    pub fn starts_under_secure_boot(&self) -> Option<bool> {
        let signers =
            |file: &str| self.secure_boot.iter().find(|signed| signed.file == file).map(|signed| &signed.signers);
        let (shim, kernel) = (signers("BOOTX64.EFI")?, signers("vmlinuz")?);
        let grub = signers("grubx64.efi");
        Some(!shim.is_empty() && grub.is_some_and(|grub| grub.iter().any(|name| kernel.contains(name))))
    }

    /// Modules that are in and do not work, as they or modules that they need have none of their vital firmware, with
    /// the devices of the table that they serve.
    pub fn broken_modules(&self) -> BTreeMap<&str, Vec<&'static Device>> {
        let broken = self.named.keys().filter(|module| !self.module(module).works());
        broken.map(|module| (module.as_str(), devices_of(module))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio::Archive;

    #[test]
    fn other_files_are_no_boot_image() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        fs::write(&file, b"text").unwrap();
        assert_eq!(inspect(&file).unwrap_err().kind, ErrorKind::NoBootImage);
        let mut archive = Archive::new();
        archive.add_bytes("init", 0o755, *b"x").unwrap();
        fs::write(&file, archive.to_bytes().unwrap()).unwrap();
        assert!(inspect(&file).unwrap_err().context.contains("without modules"));
        assert_eq!(inspect(folder.path()).unwrap_err().kind, ErrorKind::Io);
    }

    #[test]
    fn debians_signed_programs_name_their_signers() {
        let shim = program_signers(&fs::read(crate::iso::SHIM).unwrap());
        assert!(shim.iter().any(|name| name.contains("Microsoft")), "{shim:?}");
        assert!(program_signers(b"MZ").is_empty() && program_signers(&[0xff; 4096]).is_empty());
        assert!(program_signers(&fs::read(std::env::current_exe().unwrap()).unwrap()).is_empty());
    }

    #[test]
    fn a_device_is_supported_when_its_module_and_vital_firmware_are_in() {
        let mut inspection = Inspection::default();
        inspection.aliases.push(("pci:v000014E4d00001639sv*sd*bc*sc*i*".into(), "bnx2".into()));
        inspection.aliases.push(("pci:v000014E4d00001657sv*sd*bc*sc*i*".into(), "tg3".into()));
        inspection.named.insert("bnx2".into(), vec!["bnx2/a.fw".into(), "bnx2/b.fw".into()]);
        inspection.named.insert("tg3".into(), vec!["tigon/tg3.bin".into()]);
        let supported = |inspection: &Inspection, id: &str| inspection.supports(id.parse().unwrap()).is_supported();
        assert!(!supported(&inspection, "14e4:1639"), "vital firmware is missing");
        assert!(supported(&inspection, "14e4:1657"), "works without firmware");
        inspection.aliases.push(("pci:v00001077d00008070sv*sd*bc*sc*i*".into(), "qede".into()));
        inspection.named.insert("qede".into(), Vec::new());
        assert!(supported(&inspection, "1077:8070"));
        inspection.needs.insert("qede".into(), vec!["qed".into()]);
        inspection.named.insert("qed".into(), vec!["qed/values.bin".into()]);
        assert!(!supported(&inspection, "1077:8070"), "a module that it needs misses its firmware");
        assert!(inspection.broken_modules().contains_key("qede"));
        assert!(!supported(&inspection, "1000:0079"), "its module is not in");
        assert!(!supported(&inspection, "ffff:0001"));
        assert!(inspection.supports("ffff:0001".parse().unwrap()).modules.is_empty());
        inspection.firmware.insert("bnx2/b.fw".into());
        assert!(supported(&inspection, "14e4:1639"));
        let perc = inspection.supports("1000:0079:1028:1f16".parse().unwrap());
        assert_eq!(perc.device.map(|d| (d.maker, d.name)), Some(("Dell", "PERC H700 Adapter")));
        assert_eq!((perc.modules[0].module.as_str(), perc.modules[0].present), ("megaraid_sas", false));
    }
}
