//! A file that is made beside its name, of mode 0600, and gets it when it is whole: it holds what is not for everybody.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::{Error, ErrorKind, Result};

/// The files that another is made in, beside its final name. A killed process leaves them to the next one.
pub(crate) struct Beside {
    /// What gets the name in the end.
    pub(crate) file: File,
    path: PathBuf,
    /// A copy of the database, for the time being.
    pub(crate) database: PathBuf,
    is_forced: bool,
}

impl Beside {
    /// # Errors
    /// [`ErrorKind::Conflict`] where `file` is there and not to be replaced, or somebody else is making it;
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::Io`].
    pub(crate) fn new(file: &Path, is_forced: bool) -> Result<Self> {
        let shown = file.display();
        let name = file.file_name().ok_or_else(|| Error::new(ErrorKind::Invalid, format!("{shown}: no file")))?;
        if !is_forced && file.symlink_metadata().is_ok() {
            let context = format!("{shown}: it is there already; take another name, or --force");
            return Err(Error::new(ErrorKind::Conflict, context));
        }
        let beside = |end: &str| {
            let mut name = name.to_owned();
            name.push(end);
            file.with_file_name(name)
        };
        let (path, database) = (beside(".new"), beside(".new.db"));
        let failed = |e| Error::io(format!("{shown}: cannot be written"), e);
        let file = create_plain(&path).map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let context = format!("{shown}: another process is making it");
            return Err(Error::new(ErrorKind::Conflict, context));
        }
        file.set_len(0).map_err(failed)?;
        Ok(Self { file, path, database, is_forced })
    }

    /// Gives it its name.
    pub(crate) fn keep(self, file: &Path) -> Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let named = match self.is_forced {
            true => fs::rename(&self.path, file),
            false => match renameat_with(CWD, &self.path, CWD, file, RenameFlags::NOREPLACE) {
                // A file system without that: it was looked for at the beginning.
                Err(rustix::io::Errno::INVAL) => fs::rename(&self.path, file),
                other => other.map_err(io::Error::from),
            },
        };
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        named
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|e| Error::io(format!("{}: cannot be put in place", file.display()), e))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.database.clone().into_os_string();
            path.push(end);
            let _ = fs::remove_file(path);
        }
        // After `keep` nothing has this name.
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens a file of ours for writing, made where it is missing, and follows no link.
pub(crate) fn create_plain(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
}
