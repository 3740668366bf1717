//! Drivers that the operator adds to those of the kernel package: module files, and Debian packages of modules or firmware.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use kernel_modules::{ModuleInfo, module_name, parse_module};

use crate::kernel::{Kernel, decompress};
use crate::modules::{ADDED, ModuleIndex};
use crate::package::{self, files_below};
use crate::{Error, ErrorKind, Result};

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
        let folder = work.join(format!("added-{number}"));
        fs::create_dir(&folder).map_err(|e| Error::path("create", &folder, e))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".deb") {
            package::unpack(file, &folder, progress)?;
        } else if [".ko", ".ko.xz", ".ko.zst"].iter().any(|end| name.ends_with(end)) {
            let copy = folder.join(&name);
            fs::copy(file, &copy).map_err(|e| Error::path("copy", file, e))?;
        } else {
            return Err(unusable(file, "expected a kernel module (.ko, .ko.xz, .ko.zst) or a Debian package (.deb)"));
        }
        decompress(&folder)?;
        let (modules, others) = modules_in(&folder, file, kernel)?;
        let has_firmware = ["lib/firmware", "usr/lib/firmware"].iter().any(|below| folder.join(below).is_dir());
        if modules.is_empty() && !has_firmware {
            return Err(match others.first() {
                Some(other) => unusable(file, &another_kernel(other, &kernel.release)),
                None => unusable(file, "it holds neither modules nor firmware (source for DKMS has to be built first)"),
            });
        }
        for module in &modules {
            warn_of_signer(module, own.get_or_init(|| signer_of(kernel)).as_deref(), progress);
        }
        added.modules.extend(modules);
        if has_firmware {
            added.firmware_folders.push(folder);
        }
    }
    Ok(added)
}

/// The modules below `folder` that are for `kernel`, and the releases of those that are not.
fn modules_in(folder: &Path, file: &Path, kernel: &Kernel) -> Result<(Vec<Module>, Vec<String>)> {
    let (mut modules, mut others) = (Vec::new(), Vec::new());
    for content in files_below(folder, &|name| name.ends_with(".ko"))? {
        let bytes = fs::read(&content).map_err(|e| Error::path("read", &content, e))?;
        let info = parse_module(&bytes).map_err(|error| unusable(file, &error.to_string()))?;
        if info.release() == kernel.release {
            let name = content.file_name().unwrap_or_default().to_string_lossy();
            modules.push(Module { path: format!("{ADDED}{name}"), content, info });
        } else {
            others.push(info.release().to_owned());
        }
    }
    Ok((modules, others))
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
