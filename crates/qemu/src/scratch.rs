//! The scratch folder of one machine: private copies of variables, screens. It goes with the machine; one that a killed
//! process left behind goes when the next machine starts.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::NOBODY;
use crate::{Error, ErrorKind, Result};

const PREFIX: &str = "vconverter-qemu-";

/// A younger folder may belong to a process that has not locked it yet.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// Entries of the folder for temporary files that are looked at.
const ENTRIES_MAX: usize = 100_000;

/// A locked folder.
pub(crate) struct Scratch {
    folder: TempDir,
    /// Tells others that its process lives: the kernel releases it when we die, however that happens.
    _lock: File,
}

impl Scratch {
    /// Makes a folder, which belongs to `nobody` if its QEMU will.
    pub(crate) fn new(as_nobody: bool) -> Result<Self> {
        let failed = |e| Error::io("making a scratch folder", e);
        sweep(&std::env::temp_dir());
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir().map_err(failed)?;
        let lock = File::open(folder.path()).map_err(failed)?;
        lock.try_lock().map_err(|e| failed(e.into()))?;
        if as_nobody {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).map_err(failed)?;
        }
        Ok(Self { folder, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file that QEMU wrote. QEMU runs a stranger's guest: what it left must be a file, and at most `size_max` long.
    pub(crate) fn read(&self, name: &str, size_max: u64) -> Result<Vec<u8>> {
        let path = self.file(name);
        let failed = |e| Error::io(format!("reading {}", path.display()), e);
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(size_max + 1).read_to_end(&mut bytes).map_err(failed)?;
        match bytes.len() as u64 > size_max {
            true => Err(Error::new(ErrorKind::Qmp, format!("{}: longer than {size_max} bytes", path.display()))),
            false => Ok(bytes),
        }
    }
}

/// Removes what killed processes left in `place`; what cannot be removed stays.
fn sweep(place: &Path) {
    let ours = rustix::process::geteuid().as_raw();
    let abandoned = |path: &Path| -> Option<File> {
        let metadata = fs::symlink_metadata(path).ok()?;
        let mine = metadata.uid() == ours || ours == 0 && metadata.uid() == NOBODY;
        let old = metadata.modified().ok()?.elapsed().is_ok_and(|age| age > ABANDONED_AFTER);
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::DIRECTORY).bits().cast_signed();
        if !(metadata.is_dir() && mine && old) {
            return None;
        }
        let folder = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
        folder.try_lock().is_ok().then_some(folder)
    };
    for entry in fs::read_dir(place).into_iter().flatten().take(ENTRIES_MAX).flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
            && let Some(_lock) = abandoned(&entry.path())
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_and_is_old_is_swept() {
        let place = tempfile::tempdir().unwrap();
        let make = |name: &str, age: u64| {
            let path = place.path().join(format!("{PREFIX}{name}"));
            fs::create_dir(&path).unwrap();
            fs::write(path.join("variables.fd"), "x").unwrap();
            let folder = File::open(&path).unwrap();
            let then = std::time::SystemTime::now() - Duration::from_secs(age);
            folder.set_times(fs::FileTimes::new().set_modified(then)).unwrap();
            (path, folder)
        };
        let (abandoned, _) = make("abandoned", 3600);
        let (held, lock) = make("held", 3600);
        lock.try_lock().unwrap();
        let (young, _) = make("young", 0);
        let other = place.path().join("other");
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, place.path().join(format!("{PREFIX}link"))).unwrap();
        sweep(place.path());
        assert_eq!([&abandoned, &held, &young, &other].map(|path| path.exists()), [false, true, true, true]);
    }

    #[test]
    fn a_link_that_qemu_left_is_not_followed() {
        let scratch = Scratch::new(false).unwrap();
        fs::write(scratch.file("long"), [0; 9]).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", scratch.file("screen.png")).unwrap();
        assert_eq!(scratch.read("screen.png", 1 << 20).unwrap_err().kind, ErrorKind::Io);
        assert_eq!(scratch.read("long", 8).unwrap_err().kind, ErrorKind::Qmp);
        assert_eq!(scratch.read("long", 9).unwrap(), [0; 9]);
    }
}
