//! The driver library: files of drivers in the data directory, to be pushed to machines in the boot image.
//!
//! A file is looked into before it is kept, and kept under its own name, which leads nowhere else. It is pushed as it is:
//! the boot image looks into it again.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use kernel_modules::{Part, read_driver};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DataDirectory, Error, ErrorKind, Result, Timestamp};

pub use protocol::driver::{DriverOutcome, FILE_BYTES_MAX};
pub use protocol::piece::FileName;

/// Files that are kept.
const FILES_MAX: usize = 1000;

/// The library of a data directory.
#[derive(Debug)]
pub struct DriverLibrary {
    folder: PathBuf,
}

/// A file of the library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Driver {
    /// Its name.
    pub name: FileName,
    /// Its length in bytes.
    pub size: u64,
    /// When it was added.
    pub added_at: Timestamp,
    /// Modules in it, by name.
    pub modules: Vec<String>,
    /// Kernels that they are for, as `uname -r` prints them.
    pub kernels: BTreeSet<String>,
    /// Who signed them; `unsigned` for those that nobody did.
    pub signers: BTreeSet<String>,
    /// Number of firmware files in it.
    pub firmware: usize,
}

impl Driver {
    /// Whether something of it is of use to a machine with this kernel.
    pub fn is_for(&self, kernel: &str) -> bool {
        self.firmware > 0 || self.kernels.contains(kernel)
    }
}

impl DriverLibrary {
    /// The library of `directory`.
    pub fn new(directory: &DataDirectory) -> Self {
        Self { folder: directory.path().join(crate::data_directory::DRIVERS) }
    }

    /// Keeps a file, in the place of one of the same name.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for what is no driver, [`ErrorKind::Conflict`] where there are too many,
    /// [`ErrorKind::Io`].
    pub fn add(&self, name: &FileName, content: &[u8]) -> Result<Driver> {
        if content.len() as u64 > FILE_BYTES_MAX {
            let context = format!("driver {name}: larger than {} MiB", FILE_BYTES_MAX >> 20);
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        let driver = examine(name, content, Timestamp::now())?;
        fs::create_dir_all(&self.folder).map_err(|e| Error::io("driver library: cannot be made", e))?;
        let path = self.path(name);
        if !path.exists() && self.names()?.len() >= FILES_MAX {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("driver library: it holds {FILES_MAX} files: remove some"),
            ));
        }
        // A name never begins with a dot, so this one is nobody's.
        let beside = self.folder.join(".new");
        let kept = fs::write(&beside, content)
            .and_then(|()| fs::File::open(&beside)?.sync_all())
            .and_then(|()| fs::rename(&beside, &path));
        kept.map_err(|e| Error::io(format!("driver {name}: cannot be kept"), e))?;
        Ok(driver)
    }

    /// All files, by name.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn list(&self) -> Result<Vec<Driver>> {
        self.names()?.iter().map(|name| Ok(self.load(name)?.0)).collect()
    }

    /// A file and its content.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Io`].
    pub fn load(&self, name: &FileName) -> Result<(Driver, Vec<u8>)> {
        let path = self.path(name);
        let unread = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => missing(name),
            _ => Error::io(format!("driver {name}: cannot be read"), e),
        };
        let changed = fs::metadata(&path).and_then(|metadata| metadata.modified()).map_err(unread)?;
        let content = fs::read(&path).map_err(unread)?;
        let since = changed.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let added_at = Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        Ok((examine(name, &content, added_at)?, content))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Io`].
    pub fn remove(&self, name: &FileName) -> Result<()> {
        fs::remove_file(self.path(name)).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => missing(name),
            _ => Error::io(format!("driver {name}: cannot be removed"), e),
        })
    }

    fn path(&self, name: &FileName) -> PathBuf {
        self.folder.join(name.as_str())
    }

    fn names(&self) -> Result<Vec<FileName>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| Error::io("driver library: cannot be read", e))?,
        };
        let name = |entry: fs::DirEntry| FileName::try_from(entry.file_name().into_string().ok()?).ok();
        let mut names: Vec<FileName> = entries.flatten().filter_map(name).collect();
        names.sort();
        Ok(names)
    }
}

fn missing(name: &FileName) -> Error {
    Error::new(ErrorKind::NotFound, format!("no driver {name} in the library: `vconverter drivers list` shows them"))
}

/// What is in a file.
fn examine(name: &FileName, content: &[u8], added_at: Timestamp) -> Result<Driver> {
    let mut driver = Driver {
        name: name.clone(),
        size: content.len() as u64,
        added_at,
        modules: Vec::new(),
        kernels: BTreeSet::new(),
        signers: BTreeSet::new(),
        firmware: 0,
    };
    let read = read_driver(name.as_str(), content, &mut |part| {
        match part {
            Part::Module { file, info, .. } => {
                driver.kernels.insert(info.release().to_owned());
                driver.signers.insert(info.signer.unwrap_or_else(|| "unsigned".into()));
                driver.modules.push(kernel_modules::module_name(&file));
            }
            Part::Firmware { .. } | Part::FirmwareLink { .. } => driver.firmware += 1,
        }
        Ok(())
    });
    read.map_err(|error| Error::new(ErrorKind::Invalid, format!("driver {name}: {error}")))?;
    Ok(driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> FileName {
        FileName::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn files_are_kept_by_name_and_told_by_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let library = DriverLibrary::new(&DataDirectory::new(folder.path()));
        assert_eq!(library.list().unwrap(), []);
        let added = library.add(&name("bnx2.fw"), b"firmware").unwrap();
        assert_eq!((added.firmware, added.size, added.is_for("any")), (1, 8, true));
        let listed = library.list().unwrap();
        assert_eq!((listed.len(), listed[0].name.as_str()), (1, "bnx2.fw"));
        library.add(&name("bnx2.fw"), b"another").unwrap();
        assert_eq!(library.load(&name("bnx2.fw")).unwrap().1, b"another");
        library.remove(&name("bnx2.fw")).unwrap();
        assert_eq!(library.remove(&name("bnx2.fw")).unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(library.load(&name("bnx2.fw")).unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn what_is_no_driver_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let library = DriverLibrary::new(&DataDirectory::new(folder.path()));
        for wrong in ["x.ko", "x.ko.xz", "x.deb"] {
            assert_eq!(library.add(&name(wrong), b"text").unwrap_err().kind, ErrorKind::Invalid, "{wrong}");
        }
        assert_eq!(library.list().unwrap(), []);
    }
}
