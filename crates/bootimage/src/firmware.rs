//! Firmware: the files that modules ask the kernel for when they start their device, `modinfo -F firmware`.
//!
//! Most of them are not free, so Debian keeps them in a part of its archive that package sources need not have. What the
//! packages do not give is taken from folders of the operator's, and what is nowhere is told with the modules that name
//! it: many drivers do without, some do not ([`is_vital`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::package::{self, Package, files_below};
use crate::tool::XZ;
use crate::{Error, ErrorKind, Result, cache};

/// Debian's packages of firmware for what the boot image drives, the free one first. `linux-firmware` of Ubuntu, half a
/// gigabyte for some hundred files, is left to `--firmware-dir /lib/firmware`.
const PACKAGES: &[&str] = &[
    "firmware-linux-free",
    "firmware-bnx2",
    "firmware-bnx2x",
    "firmware-qlogic",
    "firmware-realtek",
    "firmware-misc-nonfree",
    "firmware-intel-misc",
    "firmware-netronome",
    "firmware-netxen",
    "firmware-myricom",
    "firmware-cavium",
];

/// No firmware file of a disk or network controller is larger; a file that is would not leave memory for the copy.
const FILE_LENGTH_MAX: u64 = 32 << 20;

/// Modules that start their device without their files, from what it has in its own flash or read-only memory, at worst
/// with fewer features. For all others a missing file counts as a device that does not work. A wrong entry misleads an
/// operator and nothing else: the reason beside it says where in the driver to look.
const DO_WITHOUT: &[&str] = &[
    // Microcode against interrupts; only the 82550 and 82551 of before 2004 insist.
    "e100",
    // Ports and addresses from the option ROM, else defaults.
    "isci",
    // The adapter's flash holds one.
    "cxgb4",
    "csiostor",
    "myri10ge",
    "netxen_nic",
    "nfp",
    "qlcnic",
    // From the 2400 series on the adapter's flash holds one.
    "qla2xxx",
    // "Safe mode": one queue, no offloads.
    "ice",
    // Corrections of the PHY's parameters.
    "mscc",
    "r8152",
    "r8169",
    // Segmentation offload of the oldest chips, energy saving of one.
    "tg3",
];

/// Whether a module cannot work without the files it names.
pub fn is_vital(module: &str) -> bool {
    !DO_WITHOUT.contains(&module)
}

/// Where firmware comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirmwareSources {
    /// Folders of the operator's, asked first: laid out as `/lib/firmware`, or holding such a `lib/firmware`. Files in
    /// them may be compressed (`.xz`, `.zst`).
    pub folders: Vec<PathBuf>,
    /// Whether Debian's packages are asked, through the package client.
    pub packages: Packages,
}

/// How Debian's packages are asked for firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packages {
    /// The newest that the package client offers, else the newest cached.
    #[default]
    Newest,
    /// Only what is cached already, or is fetched because nothing is: does not look for updates.
    Cached,
    /// Not at all.
    None,
}

/// One file that modules name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FirmwareFile {
    /// Below the firmware folder: `bnx2/bnx2-mips-09-6.2.1b.fw`.
    pub name: String,
    /// The modules that name it, sorted.
    pub modules: Vec<String>,
    /// Modules that need one of these: their devices need the file too.
    pub needed_by: Vec<String>,
    /// Package and version, or folder, that it was taken from; `None` for what is missing.
    pub from: Option<String>,
}

impl FirmwareFile {
    /// Whether a device of one of its modules cannot work without it.
    pub fn is_vital(&self) -> bool {
        self.modules.iter().any(|module| is_vital(module))
    }
}

/// The firmware of a choice of modules: what there is, and what there is not.
#[derive(Debug, Default)]
pub(crate) struct Firmware {
    /// Every file that is named, sorted by name.
    pub(crate) files: Vec<FirmwareFile>,
    /// Name → where its content lies, uncompressed.
    pub(crate) contents: BTreeMap<String, PathBuf>,
    /// Names of firmware packages that the package sources lack, where something is missing.
    pub(crate) unknown_packages: Vec<&'static str>,
}

/// A folder with firmware, and how it is told.
struct Place {
    folder: PathBuf,
    told: String,
}

/// Looks for every file of `wanted` (name → modules that name it). Compressed files are unpacked into `work`.
/// [`FirmwareFile::needed_by`] stays empty.
pub(crate) fn collect(
    wanted: &BTreeMap<String, BTreeSet<String>>,
    sources: &FirmwareSources,
    work: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Firmware> {
    let mut firmware = Firmware::default();
    let mut missing: BTreeSet<&str> = wanted.keys().map(String::as_str).collect();
    let mut from: BTreeMap<String, String> = BTreeMap::new();
    let mut take = |missing: &mut BTreeSet<&str>, place: &Place| -> Result<()> {
        let mut left = BTreeSet::new();
        for &name in &*missing {
            let found = find_in(&place.folder, name)?;
            if found.is_empty() {
                left.insert(name);
            }
            for (name, path) in found {
                let content = uncompressed(&path, work)?;
                from.insert(name.clone(), place.told.clone());
                firmware.contents.insert(name, content);
            }
        }
        *missing = left;
        Ok(())
    };
    for folder in &sources.folders {
        if !folder.is_dir() {
            let what = format!("{}: the firmware folder is not there", folder.display());
            return Err(Error::new(ErrorKind::InvalidConfiguration, what));
        }
        let below = ["lib/firmware", "usr/lib/firmware"].map(|below| folder.join(below));
        let inner = below.into_iter().find(|inner| inner.is_dir()).unwrap_or_else(|| folder.clone());
        take(&mut missing, &Place { folder: inner, told: folder.display().to_string() })?;
    }
    if sources.packages != Packages::None && !missing.is_empty() {
        let available = Available::find(sources.packages, progress)?;
        for name in PACKAGES {
            if missing.is_empty() {
                break;
            }
            match available.load(name, progress)? {
                Some(place) => take(&mut missing, &place)?,
                None if available.is_offered(name) => {}
                None => firmware.unknown_packages.push(name),
            }
        }
    }
    for (name, modules) in wanted {
        let modules: Vec<String> = modules.iter().cloned().collect();
        let matched: Vec<&String> = from.keys().filter(|found| kernel_modules::matches(name, found)).collect();
        if matched.is_empty() {
            firmware.files.push(FirmwareFile { name: name.clone(), modules, needed_by: Vec::new(), from: None });
        } else {
            let file = |found: &&String| FirmwareFile {
                name: (*found).clone(),
                modules: modules.clone(),
                needed_by: Vec::new(),
                from: from.get(*found).cloned(),
            };
            firmware.files.extend(matched.iter().map(file));
        }
    }
    if firmware.files.iter().all(|file| file.from.is_some()) {
        firmware.unknown_packages.clear();
    }
    Ok(firmware)
}

/// The files in `folder` that `name`, which may be a pattern, stands for: name without compression's suffix, and path.
fn find_in(folder: &Path, name: &str) -> Result<Vec<(String, PathBuf)>> {
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Ok(Vec::new());
    }
    if !name.contains(['*', '?', '[']) {
        let found = ["", ".xz", ".zst"].map(|suffix| folder.join(format!("{name}{suffix}")));
        return Ok(found
            .into_iter()
            .find(|path| path.is_file())
            .map(|path| (name.to_owned(), path))
            .into_iter()
            .collect());
    }
    let mut found = Vec::new();
    let beneath = name.rsplit_once('/').map_or(folder.to_owned(), |(start, _)| folder.join(start));
    if !beneath.is_dir() {
        return Ok(found);
    }
    for path in files_below(&beneath, &|_| true)? {
        let relative = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        let plain = relative.strip_suffix(".xz").or_else(|| relative.strip_suffix(".zst")).unwrap_or(&relative);
        if path.is_file() && kernel_modules::matches(name, plain) {
            found.push((plain.to_owned(), path));
        }
    }
    Ok(found)
}

/// The path of the uncompressed content of `path`. Debian's kernels unpack `.xz` by themselves and not `.zst`, others the
/// other way round; so it is done here.
fn uncompressed(path: &Path, work: &Path) -> Result<PathBuf> {
    let length = fs::metadata(path).map_err(|e| Error::path("read", path, e))?.len();
    let too_large = || Err(Error::new(ErrorKind::Io, format!("{}: too large for firmware", path.display())));
    if length > FILE_LENGTH_MAX {
        return too_large();
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !matches!(extension, "xz" | "zst") {
        return Ok(path.to_owned());
    }
    let name = blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex();
    let copy = work.join(format!("firmware-{name}"));
    let compressed = copy.with_extension(extension);
    fs::copy(path, &compressed).map_err(|e| Error::path("copy", path, e))?;
    if extension == "xz" {
        XZ.run(XZ.command()?.args(["-d", "-q"]).arg(&compressed))?;
    } else {
        let input = fs::File::open(&compressed).map_err(|e| Error::path("open", &compressed, e))?;
        let decoder = zstd::Decoder::new(input).map_err(|e| Error::path("decompress", path, e))?;
        let mut output = fs::File::create(&copy).map_err(|e| Error::path("create", &copy, e))?;
        let mut bounded = std::io::Read::take(decoder, FILE_LENGTH_MAX + 1);
        std::io::copy(&mut bounded, &mut output).map_err(|e| Error::path("decompress", path, e))?;
    }
    if fs::metadata(&copy).map_err(|e| Error::path("read", &copy, e))?.len() > FILE_LENGTH_MAX {
        return too_large();
    }
    Ok(copy)
}

/// The firmware packages that can be had.
struct Available {
    cache: PathBuf,
    offered: Vec<Package>,
    cached: Vec<PathBuf>,
}

impl Available {
    fn find(packages: Packages, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        let cache = cache::open_cache("firmware")?;
        let cached = package::cached(&cache)?;
        let offered = if packages == Packages::Cached && !cached.is_empty() {
            Vec::new()
        } else {
            // Without the package client, as on a machine of another distribution, folders are the only source.
            package::candidates(PACKAGES).unwrap_or_else(|error| {
                progress(&format!("firmware: {error}"));
                Vec::new()
            })
        };
        Ok(Self { cache, offered, cached })
    }

    fn is_offered(&self, name: &str) -> bool {
        self.offered.iter().any(|package| package.name == name)
    }

    /// The firmware folder of package `name`; `None` where neither package client nor cache has it.
    fn load(&self, name: &str, progress: &mut dyn FnMut(&str)) -> Result<Option<Place>> {
        let start = format!("{name}_");
        let of_name = |path: &&PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&start));
        let mut entry = self.cached.iter().rev().find(of_name).cloned();
        if let Some(package) = self.offered.iter().find(|package| package.name == name) {
            let fetched =
                cache::entry(&self.cache, &package.entry_name(), |folder| package::fetch(package, folder, progress));
            match fetched {
                Ok(fetched) => entry = Some(fetched),
                // Without a network an older one is better than none, and none is told file by file.
                Err(error) if error.kind == ErrorKind::NoPackage => progress(&error.to_string()),
                Err(error) => return Err(error),
            }
        }
        let Some(entry) = entry else { return Ok(None) };
        let told = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = ["usr/lib/firmware", "lib/firmware"].map(|below| entry.join(below));
        Ok(folder.into_iter().find(|folder| folder.is_dir()).map(|folder| Place { folder, told }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(files: &[(&str, &str)]) -> BTreeMap<String, BTreeSet<String>> {
        let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (file, module) in files {
            wanted.entry((*file).into()).or_default().insert((*module).into());
        }
        wanted
    }

    fn write(folder: &Path, name: &str, bytes: &[u8]) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn from_folders(folders: &[&Path], wanted: &BTreeMap<String, BTreeSet<String>>, work: &Path) -> Firmware {
        let folders = folders.iter().map(|folder| (*folder).to_owned()).collect();
        let sources = FirmwareSources { folders, packages: Packages::None };
        collect(wanted, &sources, work, &mut |_| {}).unwrap()
    }

    #[test]
    fn what_is_nowhere_is_told_with_its_modules() {
        let (folder, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(folder.path(), "bnx2/a.fw", b"a");
        let wanted = wanted(&[("bnx2/a.fw", "bnx2"), ("bnx2/b.fw", "bnx2"), ("c.bin", "tg3"), ("../x", "tg3")]);
        let firmware = from_folders(&[folder.path()], &wanted, work.path());
        let told = firmware.files.iter().map(|f| (f.name.as_str(), f.from.is_some(), f.is_vital()));
        let expected =
            [("../x", false, false), ("bnx2/a.fw", true, true), ("bnx2/b.fw", false, true), ("c.bin", false, false)];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert_eq!(firmware.contents.keys().collect::<Vec<_>>(), ["bnx2/a.fw"]);
    }

    #[test]
    fn compressed_files_are_unpacked() {
        let (folder, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(folder.path(), "usr/lib/firmware/a.fw.zst", &zstd::encode_all(&b"content a"[..], 3).unwrap());
        write(folder.path(), "usr/lib/firmware/b.fw", b"content b");
        let plain = folder.path().join("usr/lib/firmware/b.fw");
        let packed = XZ.run(XZ.command().unwrap().arg("-q").arg(plain));
        packed.unwrap();
        let firmware = from_folders(&[folder.path()], &wanted(&[("a.fw", "a"), ("b.fw", "b")]), work.path());
        let content = |name: &str| fs::read(&firmware.contents[name]).unwrap();
        assert_eq!((content("a.fw"), content("b.fw")), (b"content a".to_vec(), b"content b".to_vec()));
    }

    #[test]
    fn a_pattern_brings_every_file_that_matches() {
        let (folder, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["x/y-1.bin", "x/y-2.bin", "x/z.bin"] {
            write(folder.path(), name, b"");
        }
        let firmware = from_folders(&[folder.path()], &wanted(&[("x/y-*.bin", "m"), ("q/*", "m")]), work.path());
        let names: Vec<_> = firmware.files.iter().map(|f| (f.name.as_str(), f.from.is_some())).collect();
        assert_eq!(names, [("q/*", false), ("x/y-1.bin", true), ("x/y-2.bin", true)]);
    }

    #[test]
    fn the_first_folder_wins_and_one_that_is_not_there_is_refused() {
        let (one, two, work) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(one.path(), "a", b"1");
        write(two.path(), "a", b"2");
        let firmware = from_folders(&[one.path(), two.path()], &wanted(&[("a", "m")]), work.path());
        assert_eq!(fs::read(&firmware.contents["a"]).unwrap(), b"1");
        let sources = FirmwareSources { folders: vec!["/nonexistent".into()], packages: Packages::None };
        let error = collect(&wanted(&[]), &sources, work.path(), &mut |_| {}).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidConfiguration);
    }
}
