//! The steps that change something. All of them go through here, each is on the disk when it returns, and tests fail any of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::{Error, Result};

const COPY_BYTES: usize = 1 << 20;

type Told = Arc<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

/// Takes steps, and says so before if somebody wants to hear it.
#[derive(Clone, Default)]
pub(crate) struct Steps {
    told: Option<Told>,
}

impl Steps {
    #[cfg(test)]
    pub(crate) fn telling(told: Told) -> Self {
        Self { told: Some(told) }
    }

    /// Says what comes.
    ///
    /// # Errors
    /// The listener's.
    pub(crate) fn tell(&self, what: &str, path: &Path) -> Result<()> {
        let told = self.told.as_ref().map_or(Ok(()), |told| told(&format!("{what} {}", path.display())));
        told.map_err(|e| Error::path(what, path, e))
    }

    /// Makes a folder; whether it was not there.
    pub(crate) fn make_folder(&self, path: &Path, mode: u32) -> Result<bool> {
        self.tell("make folder", path)?;
        match fs::DirBuilder::new().mode(mode).create(path) {
            Ok(()) => sync_parent(path).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
            Err(e) => Err(Error::path("make folder", path, e)),
        }
    }

    /// Makes a folder, and those above it, for nobody but the owner.
    pub(crate) fn make_private_folder(&self, path: &Path) -> Result<()> {
        let error = |e| Error::path("make folder", path, e);
        if path.is_dir() {
            return Ok(());
        }
        self.tell("make folder", path)?;
        fs::DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(error)?;
        sync_parent(path)
    }

    /// Makes a file that must not be there, copies `from` into it up to its end, and fills it with zeros to a multiple of four bytes: the
    /// kernel wants archives of an initramfs that follow each other so. Returns its size.
    pub(crate) fn copy(&self, from: &mut dyn Read, path: &Path, mode: u32, is_archive: bool) -> Result<u64> {
        let error = |e| Error::path("write", path, e);
        self.tell("make", path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(error)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut written = 0_u64;
        loop {
            let length = from.read(&mut buffer).map_err(error)?;
            if length == 0 {
                break;
            }
            self.tell("write", path)?;
            file.write_all(&buffer[..length]).map_err(error)?;
            written += length as u64;
        }
        if is_archive {
            let padding = written.next_multiple_of(4) - written;
            file.write_all(&[0; 4][..usize::try_from(padding).unwrap_or(0)]).map_err(error)?;
            written += padding;
        }
        self.tell("sync", path)?;
        file.sync_all().map_err(error)?;
        sync_parent(path)?;
        Ok(written)
    }

    /// Gives a file, for nobody but the owner, this content in one rename.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.replace_with_mode(path, bytes, 0o600)
    }

    /// Gives a file this content in one rename.
    pub(crate) fn replace_with_mode(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let new = path.with_file_name(format!("{name}{NEW_SUFFIX}"));
        self.tell("make", &new)?;
        let error = |e| Error::path("write", &new, e);
        let mut open = OpenOptions::new();
        // What a crash left is written over.
        let mut file = open.write(true).create(true).truncate(true).mode(mode).open(&new).map_err(error)?;
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(error)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(error)?;
        self.tell("rename", path)?;
        fs::rename(&new, path).map_err(|e| Error::path("rename to", path, e))?;
        sync_parent(path)
    }

    /// Appends to a file, or makes one with `mode`.
    pub(crate) fn append(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        let error = |e| Error::path("append to", path, e);
        self.tell("append to", path)?;
        let mut open = OpenOptions::new();
        let open = open.append(true).create(true).mode(mode).custom_flags(libc::O_NOFOLLOW);
        let mut file = open.open(path).map_err(error)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(error)?;
        sync_parent(path)
    }

    /// Cuts a file off.
    pub(crate) fn truncate(&self, path: &Path, bytes: u64) -> Result<()> {
        let error = |e| Error::path("truncate", path, e);
        self.tell("truncate", path)?;
        let file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(error)?;
        file.set_len(bytes).and_then(|()| file.sync_all()).map_err(error)
    }

    /// Writes over the beginning of a file, into the blocks that it has.
    pub(crate) fn write_in_place(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let error = |e| Error::path("write into", path, e);
        self.tell("write into", path)?;
        let file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(error)?;
        file.write_all_at(bytes, 0).and_then(|()| file.sync_all()).map_err(error)
    }

    /// Removes a file; whether there was one.
    pub(crate) fn remove(&self, path: &Path) -> Result<bool> {
        self.tell("remove", path)?;
        match fs::remove_file(path) {
            Ok(()) => sync_parent(path).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::path("remove", path, e)),
        }
    }

    /// Writes zeros over a file that holds a secret, then removes it; whether there was one.
    pub(crate) fn erase(&self, path: &Path) -> Result<bool> {
        let error = |e| Error::path("erase", path, e);
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() => {
                self.tell("erase", path)?;
                let mut open = OpenOptions::new();
                let mut file = open.write(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(error)?;
                file.seek(SeekFrom::Start(0)).map_err(error)?;
                io::copy(&mut io::repeat(0).take(metadata.len()), &mut file).map_err(error)?;
                file.sync_all().map_err(error)?;
            }
            // A folder cannot be removed as a file, which says so.
            _ => {}
        }
        self.remove(path)
    }

    /// Writes everything of the filesystem that `path` lies on to its disk.
    pub(crate) fn sync_filesystem(&self, path: &Path) -> Result<()> {
        self.tell("sync the filesystem of", path)?;
        // Tests do this hundreds of times, and for all that the building machine does beside them.
        if cfg!(test) {
            return Ok(());
        }
        let synced = File::open(path).and_then(|file| rustix::fs::syncfs(&file).map_err(io::Error::from));
        synced.map_err(|e| Error::path("sync the filesystem of", path, e))
    }

    /// Removes an empty folder; whether there was one.
    pub(crate) fn remove_folder(&self, path: &Path) -> Result<bool> {
        self.tell("remove folder", path)?;
        match fs::remove_dir(path) {
            Ok(()) => sync_parent(path).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::path("remove folder", path, e)),
        }
    }
}

/// What is added to the name of a file that is to take the place of another.
pub(crate) const NEW_SUFFIX: &str = ".vconverter-new";

/// Makes the name of `path` durable.
fn sync_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let synced = File::open(parent).and_then(|folder| folder.sync_all());
    match synced {
        // FAT of old kernels has no fsync for folders; the filesystem is synced as a whole afterwards.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other.map_err(|e| Error::path("sync", parent, e)),
    }
}
