//! Folders elsewhere in which single disks of a conversion are made, on other filesystems: `FOLDER/.NAME.partial`, which
//! becomes `FOLDER/NAME` right before the result gets its name.
//!
//! Nothing is ever touched there that is not ours: a file names the conversion that the folder belongs to. Whoever holds
//! the working folder of that conversion may go on with it, take it away, or, where the conversion was begun anew, empty it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use crate::error::Context;
use crate::workdir::remove_if_present;
use crate::{Error, ErrorKind, Result};

const OWNER_FILE: &str = ".conversion";
/// Longest owner file in bytes.
const OWNER_BYTES_MAX: u64 = 64 << 10;

/// The conversion that a folder belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Its working folder, and the host on which that is.
    pub(crate) folder: PathBuf,
    pub(crate) host: String,
    /// Of the conversion: another one in the same working folder has another.
    pub(crate) id: String,
}

impl Owner {
    /// The conversion `id` that works in `folder`.
    pub(crate) fn new(folder: &Path, id: &str) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { folder: folder.to_path_buf(), host, id: id.to_owned() }
    }

    fn is_same_place(&self, other: &Self) -> bool {
        (&self.folder, &self.host) == (&other.folder, &other.host)
    }
}

/// One such folder.
#[derive(Clone, Debug)]
pub(crate) struct Annex {
    partial: PathBuf,
    result: PathBuf,
    owner: Owner,
}

impl Annex {
    /// The folder of the VM `name` in `folder`.
    pub(crate) fn new(folder: &Path, name: &str, owner: Owner) -> Self {
        Self { partial: folder.join(format!(".{name}.partial")), result: folder.join(name), owner }
    }

    /// Where it is now.
    pub(crate) fn path(&self) -> &Path {
        if self.is_published() { &self.result } else { &self.partial }
    }

    /// Where it is in the end.
    pub(crate) fn result(&self) -> &Path {
        &self.result
    }

    /// Makes it, or goes on with what this conversion made.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] where another has the name or works there, [`ErrorKind::Target`] where it cannot be written.
    pub(crate) fn open(&self) -> Result<()> {
        if self.is_published() {
            return Ok(());
        }
        if self.result.symlink_metadata().is_ok() {
            let context = format!("{} exists already: choose another --name, or move it away", self.result.display());
            return Err(Error::new(ErrorKind::Refused, context));
        }
        let shown = || self.partial.display().to_string();
        match fs::create_dir(&self.partial) {
            Ok(()) => return self.sign(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context(ErrorKind::Target, shown),
        }
        match owner_of(&self.partial)? {
            Some(owner) if owner == self.owner => Ok(()),
            // Of a conversion whose working folder was removed; ours has the same, and its lock.
            Some(owner) if owner.is_same_place(&self.owner) => {
                fs::remove_dir_all(&self.partial).context(ErrorKind::Target, shown)?;
                fs::create_dir(&self.partial).context(ErrorKind::Target, shown)?;
                self.sign()
            }
            // A crash between the folder and its file left it empty.
            None if is_empty(&self.partial) => self.sign(),
            _ => {
                let context = format!("{}: another conversion is working there", self.partial.display());
                Err(Error::new(ErrorKind::Refused, context))
            }
        }
    }

    fn sign(&self) -> Result<()> {
        let shown = || self.partial.display().to_string();
        let json = serde_json::to_vec(&self.owner).context(ErrorKind::Internal, shown)?;
        let fresh = self.partial.join(format!("{OWNER_FILE}.new"));
        let write = || -> io::Result<()> {
            fs::write(&fresh, json)?;
            fs::File::open(&fresh)?.sync_all()?;
            fs::rename(&fresh, self.partial.join(OWNER_FILE))?;
            fs::File::open(&self.partial)?.sync_all()
        };
        write().context(ErrorKind::Target, shown)
    }

    fn is_published(&self) -> bool {
        matches!(owner_of(&self.result), Ok(Some(owner)) if owner == self.owner)
    }

    /// Gives it its name. It still belongs to the conversion, until that is published too.
    pub(crate) fn publish(&self) -> Result<()> {
        if self.is_published() {
            return Ok(());
        }
        let rename = || -> io::Result<()> {
            fs::File::open(&self.partial)?.sync_all()?;
            renameat_with(CWD, &self.partial, CWD, &self.result, RenameFlags::NOREPLACE)?;
            fs::File::open(self.result.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        rename().context(ErrorKind::Target, || format!("{} as {}", self.partial.display(), self.result.display()))
    }

    /// Takes its name away again: the result did not get its own.
    pub(crate) fn retract(&self) {
        if self.is_published() {
            // Where that fails the folder still says whose it is, and the next try goes on with it.
            let _ = renameat_with(CWD, &self.result, CWD, &self.partial, RenameFlags::NOREPLACE);
        }
    }

    /// The conversion is published: what the folder holds is part of a result.
    pub(crate) fn settle(&self) {
        // A small file that stays in a whole result is no reason to fail.
        let _ = fs::remove_file(self.result.join(OWNER_FILE));
    }

    /// Removes what an unfinished conversion in this working folder left, whichever it was.
    pub(crate) fn discard(&self) -> Result<()> {
        for path in [&self.partial, &self.result] {
            if matches!(owner_of(path), Ok(Some(owner)) if owner.is_same_place(&self.owner)) {
                // Its name first: what is half removed must not look like a result.
                remove_if_present(&path.join(format!("{OWNER_FILE}.new")))?;
                fs::remove_dir_all(path)
                    .context(ErrorKind::Target, || format!("{} cannot be removed", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Whose folder it is; `None` for one that is nobody's, or is not there.
fn owner_of(folder: &Path) -> Result<Option<Owner>> {
    let path = folder.join(OWNER_FILE);
    let is_folder = folder.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    match path.symlink_metadata() {
        Ok(metadata) if is_folder && metadata.is_file() && metadata.len() <= OWNER_BYTES_MAX => {}
        _ => return Ok(None),
    }
    let bytes = fs::read(&path).context(ErrorKind::Target, || path.display().to_string())?;
    Ok(serde_json::from_slice(&bytes).ok())
}

fn is_empty(folder: &Path) -> bool {
    let ours = format!("{OWNER_FILE}.new");
    fs::read_dir(folder).is_ok_and(|mut files| files.all(|file| file.is_ok_and(|file| file.file_name() == *ours)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annex(folder: &Path, working: &str, id: &str) -> Annex {
        Annex::new(folder, "vm", Owner::new(Path::new(working), id))
    }

    #[test]
    fn it_is_gone_on_with_emptied_or_left_alone_by_whose_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let ours = annex(folder.path(), "/srv/.vm.partial", "1");
        ours.open().unwrap();
        let disk = ours.path().join("vm-disk1.raw");
        fs::write(&disk, "half").unwrap();
        ours.open().unwrap();
        assert!(disk.exists(), "gone on with");
        let stranger = annex(folder.path(), "/other/.vm.partial", "1");
        assert!(stranger.open().unwrap_err().to_string().contains("another conversion is working there"));
        stranger.discard().unwrap();
        assert!(disk.exists(), "not the stranger's to remove");
        annex(folder.path(), "/srv/.vm.partial", "2").open().unwrap();
        assert!(!disk.exists(), "begun anew");
        ours.discard().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_not_ours_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        let ours = annex(folder.path(), "/srv/.vm.partial", "1");
        fs::create_dir(folder.path().join(".vm.partial")).unwrap();
        fs::write(folder.path().join(".vm.partial/letter"), "mine").unwrap();
        assert_eq!(ours.open().unwrap_err().kind, ErrorKind::Refused);
        ours.discard().unwrap();
        assert_eq!(fs::read(folder.path().join(".vm.partial/letter")).unwrap(), b"mine");
        fs::remove_dir_all(folder.path().join(".vm.partial")).unwrap();
        fs::create_dir(folder.path().join("vm")).unwrap();
        assert!(ours.open().unwrap_err().to_string().contains("exists already"));
        ours.discard().unwrap();
        assert!(folder.path().join("vm").exists());
    }

    #[test]
    fn a_name_is_given_once_and_taken_back_where_the_result_gets_none() {
        let folder = tempfile::tempdir().unwrap();
        let ours = annex(folder.path(), "/srv/.vm.partial", "1");
        ours.open().unwrap();
        fs::write(ours.path().join("d"), "whole").unwrap();
        ours.publish().unwrap();
        ours.publish().unwrap();
        assert_eq!(ours.path(), folder.path().join("vm"));
        ours.open().unwrap();
        ours.retract();
        assert_eq!(ours.path(), folder.path().join(".vm.partial"));
        ours.publish().unwrap();
        ours.settle();
        let names: Vec<_> = fs::read_dir(ours.result()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["d"]);
        ours.discard().unwrap();
        assert!(folder.path().join("vm/d").exists(), "a result is nobody's to discard");
    }
}
