//! Drivers that the operator adds to those of the kernel package: module files, and Debian packages of modules or firmware.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use kernel_modules::{ModuleInfo, Part, module_name, parse_module, read_driver};

use crate::kernel::Kernel;
use crate::modules::{ADDED, ModuleIndex};
use crate::package::files_below;
use crate::{Error, ErrorKind, Result};

/// The packages of all modules of a kernel have a hundred MiB.
const FILE_LENGTH_MAX: u64 = 512 << 20;

/// What was found in the files of the operator's.
#[derive(Debug, Default)]
pub(crate) struct Added {
    modules: Vec<Module>,
    /// Unpacked packages that hold firmware.
    pub(crate) firmware_folders: Vec<PathBuf>,
}

#[derive(Debug)]
struct Module {
    /// Below the modules folder.
    path: String,
    content: PathBuf,
    info: ModuleInfo,
}

/// Reads `files` (`.ko`, `.ko.xz`, `.ko.zst`, `.deb`) and unpacks them into `work`.
///
/// # Errors
/// [`ErrorKind::UnusableDriver`] for what is no module, or one for another kernel than `kernel`.
pub(crate) fn load_added(
    files: &[PathBuf],
    kernel: &Kernel,
    work: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Added> {
    let mut added = Added::default();
    let own = OnceCell::new();
    for (number, file) in files.iter().enumerate() {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if ![".ko", ".ko.xz", ".ko.zst", ".deb"].iter().any(|end| name.ends_with(end)) {
            return Err(unusable(file, "expected a kernel module (.ko, .ko.xz, .ko.zst) or a Debian package (.deb)"));
        }
        let length = fs::metadata(file).map_err(|e| Error::path("read", file, e))?.len();
        if length > FILE_LENGTH_MAX {
            return Err(unusable(file, &format!("larger than {} MiB", FILE_LENGTH_MAX >> 20)));
        }
        let bytes = fs::read(file).map_err(|e| Error::path("read", file, e))?;
        let mut unpacked = Unpacked::new(work.join(format!("added-{number}")), kernel);
        let mut failure = None;
        let read = read_driver(&name, &bytes, &mut |part| {
            failure = failure.take().or(unpacked.take(part).err());
            Ok(())
        });
        read.map_err(|error| unusable(file, &error.to_string()))?;
        failure.map_or(Ok(()), Err)?;
        if let (true, false, Some(other)) =
            (unpacked.modules.is_empty(), unpacked.has_firmware, unpacked.others.first())
        {
            return Err(unusable(file, &another_kernel(other, &kernel.release)));
        }
        for module in &unpacked.modules {
            warn_of_signer(module, own.get_or_init(|| signer_of(kernel)).as_deref(), progress);
        }
        added.modules.extend(unpacked.modules);
        if unpacked.has_firmware {
            added.firmware_folders.push(unpacked.folder);
        }
    }
    Ok(added)
}

/// The parts of one file, unpacked.
struct Unpacked<'a> {
    folder: PathBuf,
    release: &'a str,
    /// Those for the kernel, and the releases of those that are not.
    modules: Vec<Module>,
    others: Vec<String>,
    has_firmware: bool,
}

impl<'a> Unpacked<'a> {
    fn new(folder: PathBuf, kernel: &'a Kernel) -> Self {
        Self { folder, release: &kernel.release, modules: Vec::new(), others: Vec::new(), has_firmware: false }
    }

    fn take(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Module { info, .. } if info.release() != self.release => self.others.push(info.release().to_owned()),
            Part::Module { file, info, content } => {
                let path = self.write(&file, &content)?;
                self.modules.push(Module { path: format!("{ADDED}{file}"), content: path, info });
            }
            Part::Firmware { name, content } => {
                self.has_firmware = true;
                self.write(&format!("lib/firmware/{name}"), &content)?;
            }
            Part::FirmwareLink { name, target } => {
                self.has_firmware = true;
                let place = |name: &str| self.folder.join("lib/firmware").join(name);
                let (from, to) = (place(&target), place(&name));
                make_parent(&to)?;
                // Where the file comes behind its link, the link is left to lead to it.
                let up = "../".repeat(name.matches('/').count());
                let linked = fs::hard_link(&from, &to);
                linked
                    .or_else(|_| std::os::unix::fs::symlink(format!("{up}{target}"), &to))
                    .map_err(|e| Error::path("link", &to, e))?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.folder.join(name);
        make_parent(&path)?;
        fs::write(&path, content).map_err(|e| Error::path("write", &path, e))?;
        Ok(path)
    }
}

fn make_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|e| Error::path("create", folder, e))
}

fn unusable(file: &Path, why: &str) -> Error {
    Error::new(ErrorKind::UnusableDriver, format!("{}: {why}", file.display()))
}

fn another_kernel(theirs: &str, ours: &str) -> String {
    format!(
        "it is for Linux {theirs}, and the boot image has {ours}: build it for {ours}, or make the boot image with \
         --kernel linux-image-{theirs}"
    )
}

/// Under Secure Boot the kernel takes only modules whose signer it knows, and that is who signed its own.
fn warn_of_signer(module: &Module, own: Option<&str>, progress: &mut dyn FnMut(&str)) {
    let name = module_name(&module.path);
    match (&module.info.signer, own) {
        (None, Some(own)) => {
            progress(&format!("{name} is not signed: under Secure Boot the kernel will refuse it (it trusts {own})"))
        }
        (Some(signer), Some(own)) if signer != own => progress(&format!(
            "{name} is signed by {signer}: under Secure Boot the kernel will refuse it unless that key is enrolled (it trusts {own})"
        )),
        _ => {}
    }
}

/// Who signed the kernel's own modules.
fn signer_of(kernel: &Kernel) -> Option<String> {
    let found = files_below(&kernel.modules.join("kernel/drivers/scsi"), &|name| name == "sd_mod.ko").ok()?;
    parse_module(&fs::read(found.first()?).ok()?).ok()?.signer
}

impl Added {
    /// Puts the modules into `index`, those that others depend on first.
    pub(crate) fn add_to(&self, index: &mut ModuleIndex) -> Result<()> {
        let mut left: Vec<&Module> = self.modules.iter().collect();
        while !left.is_empty() {
            let mut refused = Vec::new();
            let mut reason = None;
            for module in &left {
                if let Err(error) = index.add(&module.path, &module.info) {
                    refused.push(*module);
                    reason = Some(error);
                }
            }
            if let Some(error) = reason.filter(|_| refused.len() == left.len()) {
                return Err(error);
            }
            left = refused;
        }
        Ok(())
    }

    /// Where the content of the module at `path` lies, if it is one of these.
    pub(crate) fn content(&self, path: &str) -> Option<&Path> {
        // The last of one name wins, as it has in the index.
        self.modules.iter().rev().find(|module| module.path == path).map(|module| module.content.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(folder: &Path) -> Kernel {
        Kernel {
            release: "6.1.0-56-amd64".into(),
            package: "linux-image".into(),
            vmlinuz: folder.join("vmlinuz"),
            modules: folder.join("modules"),
        }
    }

    fn load(folder: &Path, file: PathBuf) -> Result<Added> {
        let work = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.join("modules/kernel/drivers/scsi")).unwrap();
        load_added(&[file], &kernel(folder), work.path(), &mut |_| {})
    }

    #[test]
    fn files_that_are_no_driver_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, b"text").unwrap();
            path
        };
        let said = |name: &str| load(folder.path(), file(name)).unwrap_err().context;
        assert!(said("driver.exe").contains("expected a kernel module"));
        assert!(said("driver.ko").contains("no kernel module for x86-64"));
        assert_eq!(load(folder.path(), "/nonexistent/a.ko".into()).unwrap_err().kind, ErrorKind::Io);
    }
}
