//! Debian's kernel: fetched by the package client, unpacked into the cache, its modules indexed.
//!
//! The meta package `linux-image-amd64` names the concrete one, which Debian signs. A package that is cached is not
//! fetched again, and where the package client knows nothing (no lists, no network) the newest cached one is taken.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::tool::{APT_CACHE, APT_GET, DEPMOD, DPKG_DEB, XZ, ZSTD};
use crate::{Error, ErrorKind, Result, cache};

/// The package that always depends on Debian's newest signed kernel. The *cloud* flavour lacks AHCI and e1000.
pub(crate) const META_PACKAGE: &str = "linux-image-amd64";

/// Which kernel to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The newest that the package client offers, else the newest cached.
    #[default]
    Newest,
    /// The newest cached, else the newest that the package client offers: does not look for updates.
    Cached,
    /// A package by name, `linux-image-6.1.0-25-amd64`, or a `.deb` file by a path with a slash in it.
    Package(String),
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
/// [`ErrorKind::NoKernel`] where neither cache nor package client has it, [`ErrorKind::MissingTool`],
/// [`ErrorKind::ToolFailed`], [`ErrorKind::Io`].
pub fn load_kernel(choice: &KernelChoice, progress: &mut dyn FnMut(&str)) -> Result<Kernel> {
    let folder = cache::open_cache("kernel")?;
    match choice {
        KernelChoice::Package(file) if file.contains('/') => load_file(&folder, Path::new(file), progress),
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

/// A concrete package and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
}

impl Package {
    fn entry_name(&self) -> String {
        // A version may hold `:` and `~`, which are fine in a file name, and never `/`.
        format!("{}_{}", self.name, self.version)
    }
}

/// Asks the package client for the candidate of `name`, followed to the kernel that a meta package depends on.
fn resolve(name: &str) -> Result<Package> {
    let described = APT_CACHE.run(APT_CACHE.command()?.args(["show", "--no-all-versions", "--", name]));
    let described = match described {
        Err(error) if error.kind == ErrorKind::ToolFailed => String::new(),
        other => other?,
    };
    parse_package(&described).ok_or_else(|| {
        let what = format!("the package client knows no package {name}: run `apt-get update` and try again");
        Error::new(ErrorKind::NoKernel, what)
    })
}

/// Reads one stanza of `apt-cache show`.
fn parse_package(stanza: &str) -> Option<Package> {
    let field = |name: &str| {
        let mut lines = stanza.lines().take_while(|line| !line.is_empty());
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let image = field("Depends").unwrap_or_default().split(',').map(str::trim).find_map(|dependency| {
        let (name, version) = dependency.split_once(" (= ")?;
        let concrete = name.strip_prefix("linux-image-")?.starts_with(|c: char| c.is_ascii_digit());
        concrete.then_some(Package { name: name.into(), version: version.strip_suffix(')')?.into() })
    });
    let package = match image {
        Some(package) => package,
        None => Package { name: field("Package")?.into(), version: field("Version")?.into() },
    };
    (!package.entry_name().contains('/')).then_some(package)
}

fn fetch(cache: &Path, package: &Package, progress: &mut dyn FnMut(&str)) -> Result<Kernel> {
    let entry = cache::entry(cache, &package.entry_name(), |folder| {
        progress(&format!("fetching {} {}", package.name, package.version));
        let mut command = APT_GET.command()?;
        command.args(["download", "-q", "-o", "APT::Sandbox::User=root", "--"]);
        command.arg(format!("{}={}", package.name, package.version)).current_dir(folder);
        APT_GET.run(&mut command).map_err(|error| Error {
            kind: ErrorKind::NoKernel,
            context: format!("{} cannot be fetched: {} (is `apt-get update` due?)", package.name, error.context),
            source: error.source,
        })?;
        let fetched = children(folder)?.into_iter().find(|path| path.extension() == Some(OsStr::new("deb")));
        let fetched = fetched.ok_or_else(|| {
            Error::new(ErrorKind::NoKernel, format!("the package client fetched no file for {}", package.name))
        })?;
        unpack(&fetched, folder, progress)?;
        fs::remove_file(&fetched).map_err(|e| Error::path("remove", &fetched, e))
    })?;
    read_entry(&entry)
}

fn load_file(cache: &Path, file: &Path, progress: &mut dyn FnMut(&str)) -> Result<Kernel> {
    let mut hasher = blake3::Hasher::new();
    let opened = fs::File::open(file).map_err(|e| Error::path("open", file, e))?;
    hasher.update_reader(opened).map_err(|e| Error::path("read", file, e))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    // The dot keeps a file of the operator's from being taken for the newest of Debian's.
    let entry = cache::entry(cache, &format!(".{name}_{:.16}", hasher.finalize().to_hex()), |folder| {
        unpack(file, folder, progress)
    })?;
    read_entry(&entry)
}

/// Unpacks a package into `folder`: `boot/vmlinuz-*`, `lib/modules/*`, uncompressed and indexed.
fn unpack(package: &Path, folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    progress(&format!("unpacking {}", package.file_name().unwrap_or_default().to_string_lossy()));
    DPKG_DEB.run(DPKG_DEB.command()?.arg("-x").arg(package).arg(folder))?;
    // Kernels from Debian 13 on are in /usr/lib/modules; depmod looks below /lib.
    let (moved, lib) = (folder.join("usr/lib/modules"), folder.join("lib/modules"));
    if moved.is_dir() && !lib.exists() {
        fs::create_dir_all(folder.join("lib")).map_err(|e| Error::path("create", &lib, e))?;
        fs::rename(&moved, &lib).map_err(|e| Error::path("rename", &moved, e))?;
    }
    let kernel = read_tree(folder)?;
    for (extension, tool) in [("xz", XZ), ("zst", ZSTD)] {
        let compressed = files_below(&kernel.modules, extension)?;
        for some in compressed.chunks(500) {
            let mut command = tool.command()?;
            // A module's signature lies inside, so it stays valid.
            command.args(if extension == "xz" { ["-d", "-q"].as_slice() } else { &["-d", "-q", "--rm"] });
            tool.run(command.args(some))?;
        }
    }
    progress(&format!("indexing the modules of {}", kernel.release));
    DEPMOD.run(DEPMOD.command()?.arg("-b").arg(folder).arg(&kernel.release)).map(drop)
}

fn read_entry(entry: &Path) -> Result<Kernel> {
    let kernel = read_tree(entry)?;
    if kernel.modules.join("modules.dep").is_file() {
        return Ok(kernel);
    }
    Err(Error::new(ErrorKind::NoKernel, format!("{} holds no module index: remove it", entry.display())))
}

fn read_tree(folder: &Path) -> Result<Kernel> {
    let missing = |what: &str| Error::new(ErrorKind::NoKernel, format!("{} in {}", what, folder.display()));
    let named = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-"));
    let boot = folder.join("boot");
    let vmlinuz = if boot.is_dir() { children(&boot)?.into_iter().find(named) } else { None };
    let vmlinuz = vmlinuz.ok_or_else(|| missing("no boot/vmlinuz-*"))?;
    let name = vmlinuz.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let release = name.trim_start_matches("vmlinuz-").to_owned();
    let modules = folder.join("lib/modules").join(&release);
    if !modules.is_dir() {
        return Err(missing(&format!("no lib/modules/{release}")));
    }
    let package = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Kernel { release, package, vmlinuz, modules })
}

fn newest_cached(cache: &Path) -> Result<Option<Kernel>> {
    let mut entries = children(cache)?;
    entries.retain(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")));
    entries.sort_by_key(|path| version_key(&path.to_string_lossy()));
    Ok(entries.iter().rev().find_map(|entry| read_entry(entry).ok()))
}

/// Splits digits from the rest, so that 6.1.0-9 comes before 6.1.0-25.
fn version_key(name: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, after) = rest.split_at(text_end);
        let number_end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        key.push((0, text.to_owned()));
        key.push((after[..number_end].parse().unwrap_or(0), String::new()));
        rest = &after[number_end..];
    }
    key
}

fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::path("list", folder, e);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn files_below(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in children(folder)? {
        if path.is_dir() && !path.is_symlink() {
            found.extend(files_below(&path, extension)?);
        } else if path.extension() == Some(OsStr::new(extension)) {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_package_is_followed_to_the_signed_image() {
        let stanza = "Package: linux-image-amd64\nVersion: 6.1.192-2\nProvides: x (= 1)\n\
            Depends: linux-base, linux-image-6.1.0-56-amd64 (= 6.1.192-2)\n\nPackage: older\n";
        let package = parse_package(stanza).unwrap();
        assert_eq!(package.entry_name(), "linux-image-6.1.0-56-amd64_6.1.192-2");
    }

    #[test]
    fn a_concrete_package_is_taken_as_it_is() {
        let stanza = "Package: linux-image-6.1.0-25-amd64\nVersion: 6.1.106-3\nDepends: kmod, linux-base (>= 4.3~)\n";
        assert_eq!(parse_package(stanza).unwrap().entry_name(), "linux-image-6.1.0-25-amd64_6.1.106-3");
        assert_eq!(parse_package(""), None);
        assert_eq!(parse_package("Package: ../../x\nVersion: 1\n"), None);
    }

    #[test]
    fn an_unknown_package_is_told_with_what_to_do() {
        let error = resolve("linux-image-no-such-thing").unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoKernel);
        assert!(error.context.contains("apt-get update"), "{error}");
    }

    #[test]
    fn cached_kernels_are_ordered_by_number() {
        let mut names = [
            "linux-image-6.1.0-25-amd64_6.1.106-3",
            "linux-image-6.12.0-1-amd64_6.12.1-1",
            "linux-image-6.1.0-9-amd64_6.1.27-1",
        ];
        names.sort_by_key(|name| version_key(name));
        assert_eq!(names.map(|n| &n[12..20]), ["6.1.0-9-", "6.1.0-25", "6.12.0-1"]);
    }
}
