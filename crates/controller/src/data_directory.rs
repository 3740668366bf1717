//! The data directory: everything that a controller keeps, and the lock that keeps a second controller out.
//!
//! It is made with mode 0700, for it holds the controller's private key and its API's socket; one that others could write
//! into is refused.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::{Error, ErrorKind, Result};

/// What a controller keeps here beside its database, and a backup takes: files, and folders of files.
pub(crate) const KEPT: &[&str] = &["credentials.key", DRIVERS, FIRST_BOOT, "identity"];
/// The folder of the driver library.
pub(crate) const DRIVERS: &str = "drivers";
/// The folder of scripts for the first boot of Windows guests.
const FIRST_BOOT: &str = "first-boot";

/// Names of what lies in a data directory; it need not exist.
#[derive(Clone, Debug)]
pub struct DataDirectory {
    path: PathBuf,
}

/// A data directory that this process alone works on; the kernel drops the lock with the process.
#[derive(Debug)]
pub struct LockedDataDirectory {
    directory: DataDirectory,
    _lock: File,
}

impl DataDirectory {
    /// The data directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// `VCONVERTER_DATA`, else `/var/lib/vconverter` for root, else `$XDG_DATA_HOME/vconverter`, else
    /// `~/.local/share/vconverter`.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self::new(variable("VCONVERTER_DATA").unwrap_or_else(|| {
            if rustix::process::geteuid().is_root() {
                return PathBuf::from("/var/lib/vconverter");
            }
            variable("XDG_DATA_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
                .unwrap_or_else(|| PathBuf::from("/var/tmp"))
                .join("vconverter")
        }))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of scripts for the first boot of Windows guests; it need not exist.
    pub fn first_boot_scripts(&self) -> PathBuf {
        self.path.join(FIRST_BOOT)
    }

    /// The API's socket, mode 0600.
    pub fn socket(&self) -> PathBuf {
        self.path.join("controller.sock")
    }

    /// The SQLite database, mode 0600.
    pub fn database(&self) -> PathBuf {
        self.path.join("controller.db")
    }

    /// Folder of the controller's key and certificate, mode 0700.
    pub fn identity(&self) -> PathBuf {
        self.path.join("identity")
    }

    /// The key of the credentials at rest, mode 0600; not there where a passphrase locks them.
    pub fn credentials_key(&self) -> PathBuf {
        self.path.join("credentials.key")
    }

    /// Whether a controller was started here before, and has a key.
    pub fn has_identity(&self) -> bool {
        self.identity().join("ca.pem").is_file()
    }

    /// Makes the directory where it is missing and takes its lock.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`] where it cannot be written, [`ErrorKind::Locked`] with the other controller's process
    /// id, [`ErrorKind::Invalid`] where others than its owner could write into it, [`ErrorKind::Io`] where a restore was
    /// interrupted and cannot be finished.
    pub fn lock(self) -> Result<LockedDataDirectory> {
        let shown = self.path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|e| Error::io(format!("data directory {shown}: cannot be made"), e))?;
        let metadata =
            self.path.metadata().map_err(|e| Error::io(format!("data directory {shown}: cannot be examined"), e))?;
        if metadata.mode() & 0o022 != 0 {
            let context = format!(
                "data directory {shown}: others can write into it (mode {:04o}), expected 0700",
                metadata.mode() & 0o7777
            );
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        let lock_path = self.path.join("controller.lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| Error::io(format!("data directory {shown}: cannot be written"), e))?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(Error::io(format!("data directory {shown}: cannot be locked"), error.into()));
            }
            let mut owner = String::new();
            let _ = (&lock).take(32).read_to_string(&mut owner);
            let context = format!("data directory {shown}: another controller (process {}) works on it", owner.trim());
            return Err(Error::new(ErrorKind::Locked, context));
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|e| Error::io(format!("data directory {shown}: cannot be written"), e))?;
        crate::backup::finish_restore(&self.path)?;
        Ok(LockedDataDirectory { directory: self, _lock: lock })
    }
}

impl std::ops::Deref for LockedDataDirectory {
    type Target = DataDirectory;
    fn deref(&self) -> &DataDirectory {
        &self.directory
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_controller_is_told_who_holds_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let held = DataDirectory::new(&path).lock().unwrap();
        assert_eq!(held.path().metadata().unwrap().mode() & 0o777, 0o700);
        let error = DataDirectory::new(&path).lock().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Locked);
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        DataDirectory::new(&path).lock().unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_into_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let error = DataDirectory::new(folder.path()).lock().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert_eq!(folder.path().metadata().unwrap().mode() & 0o777, 0o777);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
