//! A backup of a controller's state, and its restore: the database, the keys, the driver library; never images.
//!
//! A backup is made beside a running controller, or a stopped one. It holds every secret of the controller, so its mode is
//! 0600, and it gets its name when it is whole. A restore changes nothing before the whole archive was read and found good
//! ([`placing`] tells how it then takes the place of what is there).

mod archive;
mod manifest;
mod placing;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::beside::{Beside, create_plain};
use crate::data_directory::{DRIVERS, KEPT};
use crate::store::{examine, snapshot};
use crate::{DataDirectory, Error, ErrorKind, Result};

pub use manifest::{KeptFile, Manifest};
pub(crate) use placing::finish_restore;

use archive::{Sink, Writer};
use manifest::{DATABASE, FILES_MAX};

/// Times that the files are looked at anew because they changed while the database was copied.
const TRIES_MAX: usize = 5;
/// Folders below the data directory that are looked into.
const DEPTH_MAX: usize = 3;

/// A backup that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Backup {
    /// Where it is.
    pub file: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// What is in it.
    pub manifest: Manifest,
}

/// What a backup is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct BackupOptions {
    /// Leave the driver library out.
    pub without_drivers: bool,
    /// Take the place of a file that is there.
    pub force: bool,
}

/// A state that was restored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restored {
    /// What was in the backup.
    pub manifest: Manifest,
    /// Where the state is that was there before.
    pub before: Option<PathBuf>,
    /// Tasks that the next controller goes on with, or begins at their time.
    pub unfinished_tasks: u64,
}

/// Backs the state in `directory` up into `file`, whether a controller works on it or not.
///
/// # Errors
/// [`ErrorKind::NotFound`] where there is no state, [`ErrorKind::Conflict`] where `file` is there or somebody else is
/// making it, [`ErrorKind::NewerSchema`], [`ErrorKind::ReadOnly`], [`ErrorKind::Storage`], [`ErrorKind::Io`].
pub fn create(directory: &DataDirectory, file: &Path, options: BackupOptions) -> Result<Backup> {
    let shown = file.display();
    if !directory.database().is_file() {
        let context = format!("data directory {}: there is no controller's database", directory.path().display());
        return Err(Error::new(ErrorKind::NotFound, context));
    }
    let unwritten = |e| Error::io(format!("{shown}: cannot be written"), e);
    let beside = Beside::new(file, options.force)?;
    let (database, kept) = consistent(directory, &beside, options.without_drivers)?;
    let paths: Vec<PathBuf> = std::iter::once(beside.database.clone())
        .chain(kept.iter().map(|file| directory.path().join(&file.path)))
        .collect();
    let copy = open_plain(&beside.database).and_then(archive::sum);
    let (size, sha256) = copy.map_err(unwritten)?;
    let mut files = vec![KeptFile { path: DATABASE.into(), size, sha256 }];
    files.extend(kept);
    let manifest = Manifest::new(database.schema, !options.without_drivers, files)?;
    let write = || {
        let mut writer = Writer::new(io::BufWriter::new(&beside.file), &manifest)?;
        for (number, (path, file)) in paths.iter().zip(&manifest.files).enumerate() {
            writer.file(number, file, open_plain(path)?)?;
        }
        writer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        beside.file.sync_all()?;
        beside.file.metadata().map(|metadata| metadata.len())
    };
    let size = write().map_err(unwritten)?;
    beside.keep(file)?;
    Ok(Backup { file: file.to_owned(), size, manifest })
}

/// Puts the state in `file` into `directory`, which no controller works on. With `force` it takes the place of one that is
/// there, which is kept aside.
///
/// # Errors
/// Those of [`DataDirectory::lock`]; [`ErrorKind::Conflict`] where there is a state and no `force`;
/// [`ErrorKind::NewerSchema`] and [`ErrorKind::Storage`] for an archive that cannot be used, and then nothing was changed;
/// [`ErrorKind::Io`].
pub fn restore(directory: DataDirectory, file: &Path, force: bool) -> Result<Restored> {
    let shown = file.display();
    let archive = File::open(file).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::with(ErrorKind::NotFound, format!("backup {shown}"), e),
        _ => Error::with(ErrorKind::Io, format!("backup {shown}: cannot be opened"), e),
    })?;
    let directory = directory.lock()?;
    let path = directory.path();
    if !force && placing::holds_state(path) {
        let context =
            format!("data directory {}: it holds a controller's state; --force keeps that aside in it", path.display());
        return Err(Error::new(ErrorKind::Conflict, context));
    }
    let failed = |e| Error::io(format!("data directory {}: cannot be written", path.display()), e);
    let stage = placing::stage(path).map_err(failed)?;
    let owner = path.metadata().map(|found| (found.uid(), found.gid())).map_err(failed)?;
    let mut unpacking = Unpacking { stage: &stage, owner };
    let read = archive::read(io::BufReader::new(archive), &mut unpacking)
        .and_then(|manifest| Ok((examine(&stage.join(DATABASE))?, manifest)))
        .and_then(|(found, manifest)| match found.schema == manifest.schema {
            true => Ok((found, manifest)),
            false => Err(Error::new(ErrorKind::Storage, "damaged: the database's schema is not the manifest's")),
        });
    let (found, manifest) = read.map_err(|error| {
        let _ = fs::remove_dir_all(&stage);
        Error { context: format!("backup {shown}: {}", error.context), ..error }
    })?;
    let before = placing::place(path, !manifest.drivers).map_err(failed)?;
    Ok(Restored { manifest, before, unfinished_tasks: found.unfinished_tasks })
}

/// A copy of the database, and the files as they were before and after it was made.
fn consistent(
    directory: &DataDirectory,
    beside: &Beside,
    without_drivers: bool,
) -> Result<(crate::store::Examined, Vec<KeptFile>)> {
    let unread = |e| Error::io(format!("data directory {}: cannot be read", directory.path().display()), e);
    let mut before = kept_files(directory.path(), without_drivers).map_err(unread)?;
    for _ in 0..TRIES_MAX {
        // SQLite copies into an empty file, whose mode it leaves.
        let _ = fs::remove_file(&beside.database);
        create_plain(&beside.database).map_err(unread)?;
        let examined = snapshot(&directory.database(), &beside.database)?;
        let after = kept_files(directory.path(), without_drivers).map_err(unread)?;
        if before == after {
            return Ok((examined, after));
        }
        before = after;
    }
    let context = format!("data directory {}: its files change all the time; try again", directory.path().display());
    Err(Error::new(ErrorKind::Conflict, context))
}

/// The files beside the database, by path.
fn kept_files(directory: &Path, without_drivers: bool) -> io::Result<Vec<KeptFile>> {
    let mut files = Vec::new();
    for top in KEPT.iter().filter(|top| !(without_drivers && **top == DRIVERS)) {
        collect(directory, Path::new(top), 0, &mut files)?;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn collect(directory: &Path, below: &Path, depth: usize, files: &mut Vec<KeptFile>) -> io::Result<()> {
    let path = directory.join(below);
    let metadata = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if metadata.is_dir() && depth < DEPTH_MAX {
        for entry in fs::read_dir(&path)? {
            let name = entry?.file_name();
            let text = name.to_string_lossy();
            // What is half-written has such a name.
            if !text.starts_with('.') && !text.ends_with(".new") {
                collect(directory, &below.join(&name), depth + 1, files)?;
            }
        }
        return Ok(());
    }
    let shown = below.display();
    if !metadata.is_file() || files.len() >= FILES_MAX {
        return Err(io::Error::other(format!("{shown}: expected at most {FILES_MAX} plain files")));
    }
    let (size, sha256) = archive::sum(open_plain(&path)?)?;
    files.push(KeptFile { path: below.to_string_lossy().into_owned(), size, sha256 });
    Ok(())
}

/// Opens a file for reading, and follows no link: root may back up what belongs to another user.
fn open_plain(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)
}

/// Unpacks into a folder; everything gets the owner of the data directory, whoever restores.
struct Unpacking<'a> {
    stage: &'a Path,
    owner: (u32, u32),
}

impl Unpacking<'_> {
    fn give(&self, path: &Path) -> io::Result<()> {
        match rustix::process::geteuid().is_root() {
            true => std::os::unix::fs::lchown(path, Some(self.owner.0), Some(self.owner.1)),
            false => Ok(()),
        }
    }

    fn write(&self, file: &KeptFile, content: &mut dyn Read) -> io::Result<()> {
        let path = self.stage.join(&file.path);
        let mut folder = self.stage.to_owned();
        self.give(&folder)?;
        for part in Path::new(&file.path).parent().into_iter().flat_map(Path::components) {
            folder.push(part);
            match DirBuilder::new().mode(0o700).create(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.and_then(|()| self.give(&folder))?,
            }
        }
        let mut output = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::copy(content, &mut output)?;
        output.sync_all()?;
        self.give(&path)
    }
}

impl Sink for Unpacking<'_> {
    fn file(&mut self, file: &KeptFile, content: &mut dyn Read) -> Result<()> {
        self.write(file, content).map_err(|e| {
            let context = format!("{}: cannot be unpacked", file.path);
            // What zstd or tar could not read comes up here too.
            match e.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Error::io(context, e)
                }
                _ => Error::with(ErrorKind::Storage, context, e),
            }
        })
    }
}

/// Reads any bytes as an archive, with and without zstd; a fuzz target calls it.
#[doc(hidden)]
pub fn fuzz_archive(bytes: &[u8]) {
    struct Nothing;
    impl Sink for Nothing {
        fn file(&mut self, file: &KeptFile, content: &mut dyn Read) -> Result<()> {
            let path = Path::new(&file.path);
            assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            let mut content = content.take(16);
            io::copy(&mut content, &mut io::sink()).map(drop).map_err(|e| Error::with(ErrorKind::Storage, "read", e))
        }
    }
    let _ = archive::read(bytes, &mut Nothing);
    let _ = archive::read_tar(&mut &bytes[..], &mut Nothing);
}
