//! The kernel: fetched by the package client or given as files, unpacked into the cache, its modules indexed.
//!
//! Debian's meta package `linux-image-amd64` names the concrete one, which Debian signs. A package that is cached is not
//! fetched again, and where the package client knows nothing (no lists, no network) the newest cached one is taken.
//! Ubuntu keeps the modules of a kernel in packages of their own (`linux-modules-RELEASE`, `linux-modules-extra-RELEASE`).

use std::fs;
use std::path::{Path, PathBuf};

use crate::package::{self, Package, children, files_below};
use crate::tool::{DEPMOD, XZ, ZSTD};
use crate::{Error, ErrorKind, Result, cache};

/// The package that always depends on Debian's newest signed kernel. The *cloud* flavour lacks AHCI and e1000.
const META_PACKAGE: &str = "linux-image-amd64";

/// Which kernel to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The newest that the package client offers, else the newest cached.
    #[default]
    Newest,
    /// The newest cached, else the newest that the package client offers: does not look for updates.
    Cached,
    /// A package by name: `linux-image-6.1.0-25-amd64`.
    Package(String),
    /// Files of packages: the kernel's, and those with its modules where they are separate.
    Files(Vec<PathBuf>),
}

/// A kernel unpacked in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` prints it: `6.1.0-25-amd64`.
    pub release: String,
    /// Package and version: `linux-image-6.1.0-25-amd64_6.1.106-3`.
    pub package: String,
    /// The kernel itself, signed by Debian.
    pub vmlinuz: PathBuf,
    /// Folder with `kernel/`, `modules.dep`, `modules.alias`.
    pub modules: PathBuf,
}

/// Finds the chosen kernel in the cache, or fetches and unpacks it. Any number of processes may do so at once.
///
/// # Errors
/// [`ErrorKind::NoKernel`] where neither cache nor package client has it, [`ErrorKind::NoPackage`],
/// [`ErrorKind::MissingTool`], [`ErrorKind::ToolFailed`], [`ErrorKind::Io`].
pub fn load_kernel(choice: &KernelChoice, progress: &mut dyn FnMut(&str)) -> Result<Kernel> {
    let folder = cache::open_cache("kernel")?;
    match choice {
        KernelChoice::Files(files) => load_files(&folder, files, progress),
        KernelChoice::Package(name) => fetch(&folder, &resolve(name)?, progress),
        KernelChoice::Cached => match newest_cached(&folder)? {
            Some(kernel) => Ok(kernel),
            None => fetch(&folder, &resolve(META_PACKAGE)?, progress),
        },
        KernelChoice::Newest => match resolve(META_PACKAGE) {
            Ok(package) => fetch(&folder, &package, progress),
            Err(error) => match newest_cached(&folder)? {
                Some(kernel) => {
                    progress(&format!("{error}; taking the cached {}", kernel.package));
                    Ok(kernel)
                }
                None => Err(error),
            },
        },
    }
}

/// Asks the package client for the candidate of `name`, followed to the kernel that a meta package depends on.
fn resolve(name: &str) -> Result<Package> {
    let unknown = |name: &str| {
        let what = format!("the package client knows no package {name}: run `apt-get update` and try again");
        Error::new(ErrorKind::NoKernel, what)
    };
    let mut found = package::candidates(&[name])?.into_iter().next().ok_or_else(|| unknown(name))?;
    // Ubuntu's meta packages lie two deep: linux-generic, linux-image-generic, linux-image-6.8.0-31-generic.
    for _ in 0..3 {
        let Some(next) = image_behind(&found) else { return Ok(found) };
        found = package::candidates(&[next])?.into_iter().next().ok_or_else(|| unknown(next))?;
    }
    Ok(found)
}

/// The kernel package that a meta package depends on; `None` for a kernel package itself.
fn image_behind(package: &Package) -> Option<&str> {
    let concrete = |name: &str| {
        let rest = name.strip_prefix("linux-image-").map(|rest| rest.strip_prefix("unsigned-").unwrap_or(rest));
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    if concrete(&package.name) {
        return None;
    }
    let names = package.depends.split(',').filter_map(|dependency| dependency.split_whitespace().next());
    let mut images = names.filter(|name| name.starts_with("linux-image-"));
    images.clone().find(|name| concrete(name)).or_else(|| images.next())
}

fn fetch(cache: &Path, package: &Package, progress: &mut dyn FnMut(&str)) -> Result<Kernel> {
    let entry = cache::entry(cache, &package.entry_name(), |folder| {
        package::fetch(package, folder, progress)?;
        if let (release, None) = find_release(folder)? {
            let names = ["linux-modules-", "linux-modules-extra-"].map(|start| format!("{start}{release}"));
            for modules in package::candidates(&names.each_ref().map(String::as_str))? {
                package::fetch(&modules, folder, progress)?;
            }
        }
        prepare(folder, progress)
    })?;
    read_entry(&entry)
}

fn load_files(cache: &Path, files: &[PathBuf], progress: &mut dyn FnMut(&str)) -> Result<Kernel> {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let opened = fs::File::open(file).map_err(|e| Error::path("open", file, e))?;
        hasher.update_reader(opened).map_err(|e| Error::path("read", file, e))?;
    }
    let name = files.first().and_then(|file| file.file_stem()).unwrap_or_default().to_string_lossy();
    // The dot keeps a file of the operator's from being taken for the newest of Debian's.
    let entry = cache::entry(cache, &format!(".{name}_{:.16}", hasher.finalize().to_hex()), |folder| {
        for file in files {
            package::unpack(file, folder, progress)?;
        }
        prepare(folder, progress)
    })?;
    read_entry(&entry)
}

/// Makes what was unpacked ready: `boot/vmlinuz-*`, `lib/modules/*`, uncompressed and indexed.
fn prepare(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    // Kernels from Debian 13 on are in /usr/lib/modules; depmod looks below /lib.
    let (moved, lib) = (folder.join("usr/lib/modules"), folder.join("lib/modules"));
    if moved.is_dir() && !lib.exists() {
        fs::create_dir_all(folder.join("lib")).map_err(|e| Error::path("create", &lib, e))?;
        fs::rename(&moved, &lib).map_err(|e| Error::path("rename", &moved, e))?;
    }
    let kernel = read_tree(folder)?;
    decompress(&kernel.modules)?;
    progress(&format!("indexing the modules of {}", kernel.release));
    DEPMOD.run(DEPMOD.command()?.arg("-b").arg(folder).arg(&kernel.release)).map(drop)
}

/// Decompresses all modules below `folder` in place. A module's signature lies inside, so it stays valid.
pub(crate) fn decompress(folder: &Path) -> Result<()> {
    for (extension, tool) in [(".ko.xz", XZ), (".ko.zst", ZSTD)] {
        let compressed = files_below(folder, &|name| name.ends_with(extension))?;
        for some in compressed.chunks(500) {
            let mut command = tool.command()?;
            command.args(if extension == ".ko.xz" { ["-d", "-q"].as_slice() } else { &["-d", "-q", "--rm"] });
            tool.run(command.args(some))?;
        }
    }
    Ok(())
}

fn read_entry(entry: &Path) -> Result<Kernel> {
    let kernel = read_tree(entry)?;
    if kernel.modules.join("modules.dep").is_file() {
        return Ok(kernel);
    }
    Err(Error::new(ErrorKind::NoKernel, format!("{} holds no module index: remove it", entry.display())))
}

fn read_tree(folder: &Path) -> Result<Kernel> {
    let (release, modules) = find_release(folder)?;
    let modules = modules.ok_or_else(|| {
        let what = format!(
            "Linux {release} comes without modules: give the package linux-modules-{release} too (and linux-modules-extra-{release})"
        );
        Error::new(ErrorKind::NoKernel, what)
    })?;
    let vmlinuz = folder.join("boot").join(format!("vmlinuz-{release}"));
    let package = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Kernel { release, package, vmlinuz, modules })
}

/// The release of the kernel in `folder`, and its folder of modules if that is there.
fn find_release(folder: &Path) -> Result<(String, Option<PathBuf>)> {
    let boot = folder.join("boot");
    let files = if boot.is_dir() { children(&boot)? } else { Vec::new() };
    let names = files.iter().filter_map(|path| path.file_name()?.to_str()?.strip_prefix("vmlinuz-"));
    let release = names.map(str::to_owned).next().ok_or_else(|| {
        Error::new(ErrorKind::NoKernel, format!("{} is no kernel package: no boot/vmlinuz-* in it", folder.display()))
    })?;
    let mut modules = ["lib/modules", "usr/lib/modules"].map(|lib| folder.join(lib).join(&release)).into_iter();
    let modules = modules.find(|modules| modules.join("kernel").is_dir());
    Ok((release, modules))
}

fn newest_cached(cache: &Path) -> Result<Option<Kernel>> {
    Ok(package::cached(cache)?.iter().rev().find_map(|entry| read_entry(entry).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_package_is_followed_to_the_signed_image() {
        let meta =
            |name: &str, depends: &str| Package { name: name.into(), version: "1".into(), depends: depends.into() };
        let debian = meta("linux-image-amd64", "linux-base, linux-image-6.1.0-56-amd64 (= 6.1.192-2)");
        assert_eq!(image_behind(&debian), Some("linux-image-6.1.0-56-amd64"));
        let ubuntu = meta("linux-generic", "linux-image-generic (= 6.8), linux-headers-generic (= 6.8)");
        assert_eq!(image_behind(&ubuntu), Some("linux-image-generic"));
        assert_eq!(image_behind(&meta("linux-image-6.1.0-25-amd64", "kmod, linux-base (>= 4.3~)")), None);
        assert_eq!(
            image_behind(&meta("linux-image-unsigned-6.8.0-31-generic", "linux-modules-6.8.0-31-generic")),
            None
        );
    }

    #[test]
    fn an_unknown_package_is_told_with_what_to_do() {
        let error = resolve("linux-image-no-such-thing").unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoKernel);
        assert!(error.context.contains("apt-get update"), "{error}");
    }

    #[test]
    fn a_kernel_without_modules_names_their_package() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("boot")).unwrap();
        assert!(read_tree(folder.path()).unwrap_err().context.contains("no kernel package"));
        fs::write(folder.path().join("boot/vmlinuz-6.8.0-31-generic"), b"").unwrap();
        let error = read_tree(folder.path()).unwrap_err();
        assert!(error.context.contains("linux-modules-6.8.0-31-generic"), "{error}");
    }
}
