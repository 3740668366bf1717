//! A driver package: an INF file with its catalogs and every file that it names, found beside it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::catalog::{self, Catalog};
use crate::tree::{FileKind, FileTree};
use crate::windows::inf::{self, Inf, Location, Target, Version};
use crate::windows::{Architecture, Release};
use crate::{Error, ErrorKind, Result};

/// Largest file of a driver, in bytes.
const DRIVER_FILE_BYTES_MAX: u64 = 512 << 20;

/// Files of one package.
const FILES_MAX: usize = 4096;

/// What a package is made of.
#[derive(Clone, Debug)]
pub struct Package {
    /// Name of the INF file.
    pub name: String,
    /// What it says.
    pub inf: Inf,
    /// Its `[Version]`.
    pub version: Version,
    /// Its catalogs by the names that the INF file gives them; those that are there.
    pub catalogs: Vec<(String, Catalog)>,
    /// All its files: the INF file first, then catalogs, then what is copied.
    pub files: Vec<PackageFile>,
    /// What is wrong with it, and hinders some installation.
    pub problems: Vec<Problem>,
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackageFile {
    /// Path in the package with `/`, as the INF file names it.
    pub path: String,
    /// Where it was found.
    pub found: String,
    /// Length in bytes.
    pub size: u64,
}

/// What is wrong with a package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "problem")]
pub enum Problem {
    /// A file that is named is not there.
    Missing {
        /// The file.
        file: String,
    },
    /// The INF file is not the one that its catalog was made for: Windows takes the driver as unsigned.
    Changed {
        /// The catalog.
        catalog: String,
    },
    /// A catalog that cannot be read.
    Unreadable {
        /// The catalog.
        catalog: String,
        /// Why.
        why: String,
    },
    /// It has no catalog: 64-bit Windows refuses an unsigned driver.
    Unsigned,
    /// A section says something that has no meaning.
    Malformed {
        /// What, with the line.
        what: String,
    },
}

impl Package {
    /// Reads the package of the INF file at `path` of `tree`. Names are found in any case.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where there is no such file; [`ErrorKind::Malformed`] for what is no INF file, or is for
    /// no device; [`ErrorKind::TooLarge`]; [`ErrorKind::Io`].
    pub fn load(tree: &dyn FileTree, path: &str) -> Result<Self> {
        let bytes = tree.read(path, inf::FILE_BYTES_MAX)?;
        let bytes = bytes.ok_or_else(|| Error::new(ErrorKind::Missing, "no such file").at(path))?;
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let inf = Inf::parse(&bytes).map_err(|error| error.at(path))?;
        let version = inf.version().map_err(|error| error.at(path))?;
        if inf.targets()?.is_empty() {
            return Err(Error::new(ErrorKind::Malformed, "it is for no device: its [Manufacturer] names none").at(path));
        }
        let size = bytes.len() as u64;
        let mut package = Self {
            name: name.to_owned(),
            files: vec![PackageFile { path: name.to_owned(), found: path.to_owned(), size }],
            inf,
            version,
            catalogs: Vec::new(),
            problems: Vec::new(),
        };
        let mut found = Finder { tree, folder, listed: Vec::new() };
        package.load_catalogs(&bytes, &mut found)?;
        package.load_files(&mut found)?;
        package.problems.sort();
        package.problems.dedup();
        Ok(package)
    }

    /// Decorations of the releases that it is for, each once.
    pub fn targets(&self) -> Result<Vec<Target>> {
        let mut targets: Vec<Target> = Vec::new();
        for target in self.inf.targets()? {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        Ok(targets)
    }

    fn load_catalogs(&mut self, inf: &[u8], found: &mut Finder<'_>) -> Result<()> {
        let names: BTreeSet<String> = self.version.catalogs.iter().map(|(_, name)| name.clone()).collect();
        if names.is_empty() {
            self.problems.push(Problem::Unsigned);
        }
        for name in names {
            let Some(file) = found.file(&name)? else {
                self.problems.push(Problem::Missing { file: name });
                continue;
            };
            let read = match found.tree.read(&file.found, catalog::FILE_BYTES_MAX)? {
                Some(bytes) => Catalog::parse(&bytes),
                None => Err(Error::new(ErrorKind::Missing, "no such file")),
            };
            self.files.push(file);
            match read {
                Ok(catalog) => {
                    if catalog.holds(inf) == Some(false) {
                        self.problems.push(Problem::Changed { catalog: name.clone() });
                    }
                    self.catalogs.push((name, catalog));
                }
                Err(error) => self.problems.push(Problem::Unreadable { catalog: name, why: error.to_string() }),
            }
        }
        Ok(())
    }

    /// What any of its install sections copies on any architecture that it is for.
    fn load_files(&mut self, found: &mut Finder<'_>) -> Result<()> {
        let mut wanted = BTreeSet::new();
        let mut read = BTreeSet::new();
        for target in self.targets()? {
            for release in releases_of(&target) {
                for model in self.inf.models_for(&release)?.into_iter().flat_map(|models| models.models) {
                    if !read.insert((model.install_section.to_lowercase(), release.architecture)) {
                        continue;
                    }
                    match self.inf.installation(&model.install_section, &release) {
                        Ok(found) => {
                            let outside =
                                |copy: &inf::FileCopy| copy.cabinet.as_ref().map_or(copy.source.clone(), Clone::clone);
                            wanted.extend(found.copies.iter().map(outside));
                            wanted.extend(found.inf_copies);
                            // A program that is run from the package's folder in the driver store need not be copied.
                            let stored = |place: &Location| place.directory == Some(13);
                            let binaries = found.services.into_iter().map(|service| service.binary);
                            wanted.extend(binaries.filter(stored).map(|place| place.path));
                        }
                        Err(error) => self.problems.push(Problem::Malformed { what: error.to_string() }),
                    }
                    if wanted.len() > FILES_MAX {
                        return Err(Error::new(
                            ErrorKind::TooLarge,
                            format!("{}: more than {FILES_MAX} files", self.name),
                        ));
                    }
                }
            }
        }
        for path in wanted {
            match found.file(&path)? {
                Some(file) if self.files.iter().any(|own| own.found == file.found) => {}
                Some(file) => self.files.push(file),
                None => self.problems.push(Problem::Missing { file: path }),
            }
        }
        Ok(())
    }
}

/// A release on each architecture that a decoration takes: one that takes whatever else it asks for.
fn releases_of(target: &Target) -> Vec<Release> {
    let architectures = match target.architecture {
        Some(architecture) => vec![architecture],
        None => vec![Architecture::X86],
    };
    let version = target.version.unwrap_or((10, 0));
    let build = target.build.unwrap_or(99_999);
    let release = |architecture| {
        let mut release = Release::new(version, build, architecture);
        if let Some(product) = target.product.and_then(crate::windows::Product::from_number) {
            release.product = product;
        }
        Release { suites: target.suites.unwrap_or(0), ..release }
    };
    architectures.into_iter().map(release).collect()
}

/// Finds files in any case below a folder; each folder is listed once.
struct Finder<'t> {
    tree: &'t dyn FileTree,
    folder: &'t str,
    listed: Vec<(String, Vec<crate::tree::Entry>)>,
}

impl Finder<'_> {
    /// The file at a path with `\` or `/`.
    fn file(&mut self, path: &str) -> Result<Option<PackageFile>> {
        let path = path.replace('\\', "/");
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        if names.is_empty() || names.iter().any(|name| *name == ".." || *name == "." || name.contains('\0')) {
            return Ok(None);
        }
        let mut here = self.folder.to_owned();
        for (at, name) in names.iter().enumerate() {
            let wanted = if at + 1 == names.len() { FileKind::File } else { FileKind::Folder };
            let entries = self.list(&here)?;
            let exact = entries.iter().find(|entry| entry.name == *name);
            let any = || entries.iter().find(|entry| entry.name.eq_ignore_ascii_case(name));
            let Some(entry) = exact.or_else(any).filter(|entry| entry.kind == wanted) else { return Ok(None) };
            here = format!("{here}/{}", entry.name);
        }
        let Some(metadata) = self.tree.metadata(&here)? else { return Ok(None) };
        if metadata.size > DRIVER_FILE_BYTES_MAX {
            let context = format!("a driver's file of more than {} MiB", DRIVER_FILE_BYTES_MAX >> 20);
            return Err(Error::new(ErrorKind::TooLarge, context).at(here));
        }
        Ok(Some(PackageFile { path: names.join("/"), found: here, size: metadata.size }))
    }

    fn list(&mut self, folder: &str) -> Result<&[crate::tree::Entry]> {
        if let Some(at) = self.listed.iter().position(|(own, _)| own == folder) {
            return Ok(&self.listed[at].1);
        }
        let path = if folder.is_empty() { "/" } else { folder };
        self.listed.push((folder.to_owned(), self.tree.list(path)?));
        Ok(self.listed.last().map_or(&[], |(_, entries)| entries))
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { file } => write!(f, "{file} is missing"),
            Self::Changed { catalog } => {
                write!(f, "the INF file is not the one of {catalog}: the driver counts as unsigned")
            }
            Self::Unreadable { catalog, why } => write!(f, "{catalog}: {why}"),
            Self::Unsigned => f.write_str("no catalog: 64-bit Windows takes no unsigned driver"),
            Self::Malformed { what } => f.write_str(what),
        }
    }
}
