//! A library of drivers for Windows: a folder that holds several releases of drivers side by side.
//!
//! `files/` has each content once, under its BLAKE3; `releases/NAME.json` says which files make up the packages of a
//! release. Contents are written first, each by a rename, the list last: a release is there whole or not at all, and an
//! addition that was cut off finds what it had written. What is read back is compared with its name.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind as IoKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::package::{Package, Problem};
use super::rank::Device;
use crate::tree::{FileKind, FileTree};
use crate::windows::Release;
use crate::windows::inf::{DriverDate, DriverVersion};
use crate::{Error, ErrorKind, Result};

/// INF files of one release, folders that are looked into, and how deep.
const INFS_MAX: usize = 20_000;
const FOLDERS_MAX: usize = 100_000;
const DEPTH_MAX: usize = 32;
/// Largest list of a release, in bytes.
const LIST_BYTES_MAX: u64 = 256 << 20;
/// Longest name of a release.
const NAME_MAX: usize = 100;

const FILES: &str = "files";
const RELEASES: &str = "releases";

/// A library in a folder, which need not exist.
#[derive(Clone, Debug)]
pub struct Library {
    folder: PathBuf,
}

/// Drivers that were added together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverRelease {
    /// Its name in the library.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// Its packages.
    pub packages: Vec<StoredPackage>,
    /// INF files that were left out.
    pub left_out: Vec<LeftOut>,
}

/// A package of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPackage {
    /// Where its INF file was; several where the same package lay in several folders.
    pub paths: Vec<String>,
    /// Setup class.
    pub class: Option<String>,
    /// Who provides it.
    pub provider: Option<String>,
    /// Date of the driver.
    pub date: DriverDate,
    /// Version of the driver.
    pub version: DriverVersion,
    /// Releases of Windows that it is for, as decorations.
    pub targets: Vec<String>,
    /// Its files, the INF file first.
    pub files: Vec<StoredFile>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoredFile {
    /// Path in the package, with `/`.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// BLAKE3 in hexadecimal.
    pub digest: String,
}

/// An INF file that is no driver, or none that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Where it was.
    pub path: String,
    /// Why.
    pub why: String,
}

/// What an addition did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Addition {
    /// What is in the library now.
    pub release: DriverRelease,
    /// Whether it was there already, just like this.
    pub was_there: bool,
    /// Bytes that were written; contents that were there already take none.
    pub written: u64,
}

impl StoredPackage {
    /// Name of the INF file.
    pub fn name(&self) -> &str {
        self.files.first().map_or("", |file| file.path.as_str())
    }

    /// A file by its path in the package, with `\` or `/`, in any case.
    pub fn file(&self, path: &str) -> Option<&StoredFile> {
        let path = path.replace('\\', "/");
        self.files.iter().find(|file| file.path.eq_ignore_ascii_case(&path))
    }
}

impl Library {
    /// The library in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Adds the drivers in `tree` as a release: all below its root, or those of one INF file.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where there is no driver; [`ErrorKind::Changed`] where another release has this name;
    /// [`ErrorKind::Malformed`] for a name that is none, and for a single INF file that is none; [`ErrorKind::TooLarge`];
    /// [`ErrorKind::Io`].
    pub fn add(&self, tree: &dyn FileTree, inf: Option<&str>, name: &str, source: &str) -> Result<Addition> {
        check_name(name)?;
        let mut release = DriverRelease {
            name: name.to_owned(),
            source: source.to_owned(),
            packages: Vec::new(),
            left_out: Vec::new(),
        };
        let infs = match inf {
            Some(path) => vec![path.to_owned()],
            None => find_infs(tree)?,
        };
        let _lock = self.lock()?;
        let mut written = 0;
        for path in &infs {
            let package = match Package::load(tree, path) {
                Ok(package) => package,
                Err(error) if inf.is_none() && !matches!(error.kind, ErrorKind::Io) => {
                    release.left_out.push(LeftOut { path: path.clone(), why: error.context });
                    continue;
                }
                Err(error) => return Err(error),
            };
            let stored = self.store(tree, &package, path, &mut written)?;
            match release.packages.iter_mut().find(|known| known.files == stored.files) {
                Some(known) => known.paths.extend(stored.paths),
                None => release.packages.push(stored),
            }
        }
        if release.packages.is_empty() {
            let first =
                release.left_out.first().map(|left| format!("; {}: {}", left.path, left.why)).unwrap_or_default();
            let context = format!("no driver for Windows in it: {} INF files{first}", infs.len());
            return Err(Error::new(ErrorKind::Missing, context).at(source));
        }
        let was_there = match self.release(name) {
            Ok(known) if known.packages == release.packages => true,
            Ok(_) => {
                let context =
                    format!("the library has another release {name}: remove it, or give this one another name");
                return Err(Error::new(ErrorKind::Changed, context));
            }
            Err(error) if error.kind == ErrorKind::Missing => false,
            Err(error) => return Err(error),
        };
        if !was_there {
            let list = serde_json::to_vec(&release).map_err(|e| Error::new(ErrorKind::Malformed, e.to_string()))?;
            self.write(&self.list_path(name), &list)?;
        }
        Ok(Addition { release, was_there, written })
    }

    /// All releases, by name.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for a list that was changed; [`ErrorKind::Io`].
    pub fn releases(&self) -> Result<Vec<DriverRelease>> {
        let entries = match fs::read_dir(self.folder.join(RELEASES)) {
            Err(error) if error.kind() == IoKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| Error::io("the library of drivers cannot be read", e))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("the library of drivers cannot be read", e))?;
            let name =
                entry.file_name().into_string().ok().and_then(|name| name.strip_suffix(".json").map(str::to_owned));
            names.extend(name.filter(|name| check_name(name).is_ok()));
        }
        names.sort();
        names.iter().map(|name| self.release(name)).collect()
    }

    /// A release by its name.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`], [`ErrorKind::Malformed`], [`ErrorKind::Io`].
    pub fn release(&self, name: &str) -> Result<DriverRelease> {
        check_name(name)?;
        let path = self.list_path(name);
        let unread = |e: std::io::Error| match e.kind() {
            IoKind::NotFound => Error::new(ErrorKind::Missing, format!("no release {name} in the library of drivers")),
            _ => Error::io(format!("release {name} cannot be read"), e),
        };
        if fs::metadata(&path).map_err(unread)?.len() > LIST_BYTES_MAX {
            return Err(Error::new(ErrorKind::TooLarge, format!("release {name}: its list is too large")));
        }
        let bytes = fs::read(&path).map_err(unread)?;
        let release: DriverRelease = serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(
                ErrorKind::Malformed,
                format!("release {name}: its list cannot be read ({e}): remove it and add it again"),
            )
        })?;
        Ok(DriverRelease { name: name.to_owned(), ..release })
    }

    /// Removes a release, and the contents that no other one has.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`], [`ErrorKind::Io`].
    pub fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let _lock = self.lock()?;
        fs::remove_file(self.list_path(name)).map_err(|e| match e.kind() {
            IoKind::NotFound => Error::new(ErrorKind::Missing, format!("no release {name} in the library of drivers")),
            _ => Error::io(format!("release {name} cannot be removed"), e),
        })?;
        // A list that cannot be read keeps every content: it may need any.
        let releases = self.releases()?;
        let files = releases.iter().flat_map(|release| &release.packages).flat_map(|package| &package.files);
        let kept: BTreeSet<&str> = files.map(|file| file.digest.as_str()).collect();
        let unread = |e| Error::io("the library's files cannot be read", e);
        for entry in fs::read_dir(self.folder.join(FILES)).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            if entry.file_name().to_str().is_some_and(|name| !kept.contains(name)) {
                fs::remove_file(entry.path()).map_err(|e| Error::io("a file of the library cannot be removed", e))?;
            }
        }
        Ok(())
    }

    /// The content of a package's file.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`] where it is not what was added; [`ErrorKind::Missing`]; [`ErrorKind::Io`].
    pub fn content(&self, file: &StoredFile) -> Result<Vec<u8>> {
        let path = self.content_path(&file.digest)?;
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            IoKind::NotFound => {
                Error::new(ErrorKind::Missing, "gone from the library: add its release again").at(&file.path)
            }
            _ => Error::io("cannot be read in the library", e).at(&file.path),
        })?;
        if digest(&bytes) != file.digest {
            let context = "changed in the library since it was added: remove its release and add it again";
            return Err(Error::new(ErrorKind::Changed, context).at(&file.path));
        }
        Ok(bytes)
    }

    /// What of the library may drive one of `devices` on one of `releases`, as files of a library of its own: path and
    /// content.
    ///
    /// # Errors
    /// Those of [`Library::releases`] and [`Library::content`].
    pub fn excerpt(&self, devices: &[Device], releases: &[Release]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut wanted: BTreeSet<(String, Vec<StoredFile>)> = BTreeSet::new();
        for windows in releases {
            let shelf = self.shelf(windows, None)?;
            for device in devices {
                let fitting = shelf.choices(device)?.fitting;
                wanted.extend(fitting.into_iter().map(|choice| (choice.release, choice.package.files)));
            }
        }
        let mut files = BTreeMap::new();
        for mut release in self.releases()? {
            release
                .packages
                .retain(|package| wanted.iter().any(|(name, files)| *name == release.name && *files == package.files));
            if release.packages.is_empty() {
                continue;
            }
            release.left_out.clear();
            for file in release.packages.iter().flat_map(|package| &package.files) {
                if let Entry::Vacant(vacant) = files.entry(format!("{FILES}/{}", file.digest)) {
                    vacant.insert(self.content(file)?);
                }
            }
            let list = serde_json::to_vec(&release).map_err(|e| Error::new(ErrorKind::Malformed, e.to_string()))?;
            files.insert(format!("{RELEASES}/{}.json", release.name), list);
        }
        Ok(files.into_iter().collect())
    }

    /// Keeps the contents of a package.
    fn store(&self, tree: &dyn FileTree, package: &Package, path: &str, written: &mut u64) -> Result<StoredPackage> {
        let mut files = Vec::new();
        for file in &package.files {
            let bytes = tree.read(&file.found, file.size)?;
            let bytes =
                bytes.ok_or_else(|| Error::new(ErrorKind::Changed, "gone while it was added").at(&file.found))?;
            let stored = StoredFile { path: file.path.clone(), size: bytes.len() as u64, digest: digest(&bytes) };
            let place = self.content_path(&stored.digest)?;
            if !place.exists() {
                self.write(&place, &bytes)?;
                *written += stored.size;
            }
            files.push(stored);
        }
        Ok(StoredPackage {
            paths: vec![path.to_owned()],
            class: package.version.class.clone(),
            provider: package.version.provider.clone(),
            date: package.version.date,
            version: package.version.version,
            targets: package.targets()?.iter().map(ToString::to_string).collect(),
            files,
            problems: package.problems.clone(),
        })
    }

    /// Writes a file in one step.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        let failed = |e| Error::io(format!("cannot be written in the library at {}", self.folder.display()), e);
        fs::create_dir_all(folder).map_err(failed)?;
        // There is one writer, by the lock.
        let beside = self.folder.join(".new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(failed)
    }

    fn lock(&self) -> Result<File> {
        let failed =
            |e: std::io::Error| Error::io(format!("the library at {} cannot be changed", self.folder.display()), e);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let lock = File::create(self.folder.join(".lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => Error::io(
                "the library of drivers is being changed by somebody else: try again",
                std::io::Error::from(IoKind::WouldBlock),
            ),
            fs::TryLockError::Error(error) => failed(error),
        })?;
        Ok(lock)
    }

    fn list_path(&self, name: &str) -> PathBuf {
        self.folder.join(RELEASES).join(format!("{name}.json"))
    }

    fn content_path(&self, digest: &str) -> Result<PathBuf> {
        if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::new(
                ErrorKind::Malformed,
                "a file of the library without a digest: remove its release and add it again",
            ));
        }
        Ok(self.folder.join(FILES).join(digest))
    }
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Letters, digits and a few more, so that it is a file's name on any system.
fn check_name(name: &str) -> Result<()> {
    let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b));
    if good && !name.is_empty() && name.len() <= NAME_MAX && !name.starts_with(['.', '-']) {
        return Ok(());
    }
    let context =
        format!("{name:?} is no name of a release: letters, digits, and . _ + - between them, {NAME_MAX} at most");
    Err(Error::new(ErrorKind::Malformed, context))
}

/// All INF files of a tree, by path. Links are not followed.
fn find_infs(tree: &dyn FileTree) -> Result<Vec<String>> {
    let mut infs = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    let mut seen = 0;
    while let Some((folder, depth)) = folders.pop() {
        seen += 1;
        if seen > FOLDERS_MAX || depth > DEPTH_MAX {
            let context = format!("more than {FOLDERS_MAX} folders, or {DEPTH_MAX} of them in each other");
            return Err(Error::new(ErrorKind::TooLarge, context).at(folder));
        }
        for entry in tree.list(if folder.is_empty() { "/" } else { &folder })? {
            let path = format!("{folder}/{}", entry.name);
            match entry.kind {
                FileKind::Folder => folders.push((path, depth + 1)),
                FileKind::File if entry.name.to_ascii_lowercase().ends_with(".inf") => infs.push(path),
                _ => {}
            }
        }
        if infs.len() > INFS_MAX {
            return Err(Error::new(ErrorKind::TooLarge, format!("more than {INFS_MAX} INF files")));
        }
    }
    infs.sort();
    Ok(infs)
}
