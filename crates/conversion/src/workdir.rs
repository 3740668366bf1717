//! The working folder of a conversion: `OUTPUT/.NAME.partial`, with everything that is not yet a result.
//!
//! Its `conversion.json` records which steps are done, so that a killed conversion goes on where it was. When all are,
//! the folder is renamed to `OUTPUT/NAME` in one step: nothing half-made ever bears the final name.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::annex::{Annex, Owner};
use crate::error::Context;
use crate::{Error, ErrorKind, OutputFormat, Request, Result};

const STATE_FILE: &str = "conversion.json";
const LOCK_FILE: &str = "lock";
/// How often a folder that is renamed under our hands is looked for again.
const OPEN_TRIES: usize = 16;
/// State is a few kilobytes to some hundred for a machine with many disks; more is not ours.
const STATE_SIZE_MAX: u64 = 64 << 20;

/// Removes what an unfinished conversion left. Where there is nothing, nothing happens; a finished result is not touched.
///
/// # Errors
/// [`ErrorKind::Refused`] for a bad name, where a conversion works there, and for a folder that is not one of ours;
/// [`ErrorKind::Target`] where it cannot be removed.
pub fn discard(request: &Request) -> Result<()> {
    let (path, _) = names(request)?;
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    // A finished result has its own name; the working folder beside it is then another's, and its lock says so.
    let Some(lock) = lock_file(&path)? else { return Ok(()) };
    if !hold(&path, &lock)? {
        return Ok(());
    }
    // Before the working folder, whose lock makes them ours.
    for setting in &request.choices.disk_settings {
        if let Some(folder) = setting.folder.as_ref().and_then(|folder| folder.canonicalize().ok()) {
            Annex::new(&folder, &request.name, Owner::new(&path, "")).discard()?;
        }
    }
    let is_empty = || fs::read_dir(&path).is_ok_and(|files| files.flatten().all(|file| file.file_name() == LOCK_FILE));
    if !path.join(STATE_FILE).is_file() && !is_empty() {
        let context = format!("{}: there is no record of a conversion in it", path.display());
        return Err(Error::new(ErrorKind::Refused, context));
    }
    fs::remove_dir_all(&path).context(ErrorKind::Target, || format!("{} cannot be removed", path.display()))
}

/// A locked working folder.
#[derive(Debug)]
pub(crate) struct Workdir {
    path: PathBuf,
    result: PathBuf,
    name: String,
    /// Held for as long as the conversion runs, so that two never work in one folder.
    _lock: File,
}

impl Workdir {
    /// Opens the working folder of `request`, making it where there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a bad or busy name or one that another conversion works on; [`ErrorKind::Target`]
    /// where the output folder cannot be written.
    pub(crate) fn open(request: &Request) -> Result<Self> {
        for _ in 0..OPEN_TRIES {
            let (path, result) = paths(request)?;
            if let Err(error) = fs::create_dir(&path)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(error).context(ErrorKind::Target, || format!("output folder {}", request.output.display()));
            }
            let Some(lock) = lock_file(&path)? else { continue };
            if !hold(&path, &lock)? {
                continue;
            }
            if result.symlink_metadata().is_ok() {
                // Another conversion got its name since we looked; the folder is a new one, made for nothing.
                if !path.join(STATE_FILE).exists() {
                    let _ = fs::remove_file(path.join(LOCK_FILE)).and_then(|()| fs::remove_dir(&path));
                }
                continue;
            }
            return Ok(Self { path, result, name: request.name.clone(), _lock: lock });
        }
        Err(Error::new(ErrorKind::Refused, format!("{}: other conversions come and go there", request.name)))
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the folder will be when it is whole.
    pub(crate) fn result(&self) -> &Path {
        &self.result
    }

    /// File name of a disk of the VM.
    pub(crate) fn disk_name(&self, disk: usize, format: OutputFormat) -> String {
        format!("{}-disk{disk}.{}", self.name, format.extension())
    }

    /// A file in the folder.
    pub(crate) fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The recorded state, or `None` in a new folder.
    pub(crate) fn load<S: DeserializeOwned>(&self) -> Result<Option<S>> {
        load(&self.path)
    }

    /// Records the state durably; a crash leaves the old or the new record.
    pub(crate) fn store<S: Serialize>(&self, state: &S) -> Result<()> {
        let json =
            serde_json::to_vec_pretty(state).context(ErrorKind::Internal, || "record of the conversion".into())?;
        let (path, fresh) = (self.file(STATE_FILE), self.file("conversion.json.new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().context(ErrorKind::Target, || format!("record {}", path.display()))
    }

    /// Removes what is only needed on the way, and gives the folder its final name, the folders elsewhere theirs before.
    pub(crate) fn publish(self, scaffolding: &[PathBuf], annexes: &[Annex]) -> Result<PathBuf> {
        for path in scaffolding {
            remove_if_present(path)?;
        }
        let result = annexes.iter().try_for_each(Annex::publish).and_then(|()| self.rename());
        match &result {
            Ok(_) => annexes.iter().for_each(Annex::settle),
            Err(_) => annexes.iter().for_each(Annex::retract),
        }
        result
    }

    fn rename(self) -> Result<PathBuf> {
        let rename = || -> io::Result<()> {
            File::open(&self.path)?.sync_all()?;
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                &self.path,
                rustix::fs::CWD,
                &self.result,
                rustix::fs::RenameFlags::NOREPLACE,
            )?;
            File::open(self.result.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        rename().context(ErrorKind::Target, || format!("{} as {}", self.path.display(), self.result.display()))?;
        // Only now: a folder without its lock could be taken by another conversion before it has its name. An empty file
        // that stays in a whole result is no reason to fail.
        let _ = fs::remove_file(self.result.join(LOCK_FILE));
        Ok(self.result)
    }
}

/// The state that is recorded in `folder`, or `None` where there is no record.
fn load<S: DeserializeOwned>(folder: &Path) -> Result<Option<S>> {
    let path = folder.join(STATE_FILE);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > STATE_SIZE_MAX => {
            let context = format!("{}: too large to be a record of ours", path.display());
            return Err(Error::new(ErrorKind::Target, context));
        }
        _ => {}
    }
    let bytes = fs::read(&path).context(ErrorKind::Target, || path.display().to_string())?;
    let state = serde_json::from_slice(&bytes).context(ErrorKind::Target, || {
        let folder = folder.display();
        format!("{}: not a record that this version can read; remove {folder} to start anew", path.display())
    })?;
    Ok(Some(state))
}

/// A result that has its name.
pub(crate) struct Published<S> {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Where it was made.
    pub(crate) workdir: PathBuf,
    /// What was recorded last.
    pub(crate) state: S,
}

impl<S: DeserializeOwned> Published<S> {
    /// The result that has the name of `request`, where there is one with a record of ours.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a name that cannot be one, or an output folder that is none.
    pub(crate) fn find(request: &Request) -> Result<Option<Self>> {
        let (workdir, folder) = names(request)?;
        // What has another record is another's; that the name is taken is said when it is needed.
        let state = load(&folder).ok().flatten();
        Ok(state.map(|state| Self { folder, workdir, state }))
    }

    /// Ends what was begun with its name: the folders elsewhere are settled, and the lock is gone.
    pub(crate) fn settle(&self, annexes: &[Annex]) {
        annexes.iter().for_each(Annex::settle);
        let _ = fs::remove_file(self.folder.join(LOCK_FILE));
    }
}

/// The lock file of the folder at `path`; `None` where the folder went away.
fn lock_file(path: &Path) -> Result<Option<File>> {
    let path = path.join(LOCK_FILE);
    match File::options().create(true).append(true).open(&path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(ErrorKind::Target, || format!("lock file {}", path.display())),
    }
}

/// Locks `lock`, and says whether it is (still) the lock of the folder at `path`: one whose folder got its final name
/// between opening and locking locks nothing.
fn hold(path: &Path, lock: &File) -> Result<bool> {
    let lock_path = path.join(LOCK_FILE);
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let context = format!("{}: another conversion is working there", path.display());
            return Err(Error::new(ErrorKind::Refused, context));
        }
        Err(fs::TryLockError::Error(error)) => {
            return Err(error).context(ErrorKind::Target, || lock_path.display().to_string());
        }
    }
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let ours = lock.metadata().map(identity).context(ErrorKind::Target, || lock_path.display().to_string())?;
    match fs::symlink_metadata(&lock_path) {
        Ok(metadata) => Ok(identity(metadata) == ours),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context(ErrorKind::Target, || lock_path.display().to_string()),
    }
}

/// Removes a file that may not be there.
pub(crate) fn remove_if_present(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(ErrorKind::Target, || path.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Where a conversion to `output/name` works until its result is whole.
pub fn working_folder(output: &Path, name: &str) -> PathBuf {
    output.join(format!(".{name}.partial"))
}

/// The working folder and the result of a conversion, if the result's name is free.
fn paths(request: &Request) -> Result<(PathBuf, PathBuf)> {
    let (path, result) = names(request)?;
    if result.symlink_metadata().is_ok() {
        let context = format!("{} exists already: choose another --name, or move it away", result.display());
        return Err(Error::new(ErrorKind::Refused, context));
    }
    Ok((path, result))
}

/// The working folder and the result of a conversion.
fn names(request: &Request) -> Result<(PathBuf, PathBuf)> {
    let name = &request.name;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 100 || name.starts_with(['.', '-']) || !name.chars().all(allowed) {
        let context = format!(
            "name {name:?}: expected up to 100 letters, digits, '-', '_' or '.', not beginning with '.' or '-'"
        );
        return Err(Error::new(ErrorKind::Refused, context));
    }
    let output = fs::canonicalize(&request.output)
        .context(ErrorKind::Refused, || format!("output folder {}", request.output.display()))?;
    Ok((working_folder(&output, name), output.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(output: &Path, name: &str) -> Request {
        Request { name: name.into(), output: output.into(), ..Request::default() }
    }

    #[test]
    fn a_busy_name_and_a_second_conversion_are_refused() {
        let output = tempfile::tempdir().unwrap();
        fs::create_dir(output.path().join("taken")).unwrap();
        let busy = Workdir::open(&request(output.path(), "taken")).unwrap_err();
        assert!(busy.to_string().contains("exists already"), "{busy}");

        let first = Workdir::open(&request(output.path(), "vm")).unwrap();
        let second = Workdir::open(&request(output.path(), "vm")).unwrap_err();
        assert!(second.to_string().contains("another conversion"), "{second}");
        drop(first);
        Workdir::open(&request(output.path(), "vm")).unwrap();
    }

    #[test]
    fn what_an_unfinished_conversion_left_is_discarded_and_nothing_else() {
        let output = tempfile::tempdir().unwrap();
        let request = request(output.path(), "vm");
        discard(&request).unwrap();
        let working = Workdir::open(&request).unwrap();
        working.store(&"a record").unwrap();
        fs::write(working.file("vm-disk0.qcow2"), "half").unwrap();
        assert_eq!(discard(&request).unwrap_err().kind, ErrorKind::Refused, "it works there");
        drop(working);
        fs::create_dir(output.path().join("vm")).unwrap();
        discard(&request).unwrap();
        assert!(output.path().join("vm").is_dir() && !output.path().join(".vm.partial").exists());

        fs::create_dir(output.path().join(".vm.partial")).unwrap();
        fs::write(output.path().join(".vm.partial/letter"), "to my mother").unwrap();
        assert_eq!(discard(&request).unwrap_err().kind, ErrorKind::Refused);
        assert!(output.path().join(".vm.partial/letter").is_file());
    }

    #[test]
    fn names_that_leave_the_output_folder_are_refused() {
        let output = tempfile::tempdir().unwrap();
        for name in ["", "..", "../vm", "a/b", ".hidden", "-rf", "vm\n", &"x".repeat(101)] {
            assert_eq!(Workdir::open(&request(output.path(), name)).unwrap_err().kind, ErrorKind::Refused, "{name:?}");
        }
        assert_eq!(fs::read_dir(output.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_final_name_appears_only_with_everything_in_it() {
        let output = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(&request(output.path(), "vm")).unwrap();
        workdir.store(&vec![1, 2]).unwrap();
        fs::write(workdir.file("scaffold"), "").unwrap();
        assert!(!workdir.result().exists());
        let scaffold = workdir.file("scaffold");
        let result = workdir.publish(&[scaffold], &[]).unwrap();
        let names: Vec<_> = fs::read_dir(&result).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["conversion.json"]);
    }

    #[test]
    fn a_lock_that_was_opened_before_the_folder_got_its_name_locks_nothing() {
        let output = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(&request(output.path(), "vm")).unwrap();
        let path = workdir.path().to_owned();
        let late = lock_file(&path).unwrap().unwrap();
        assert!(hold(&path, &late).unwrap_err().to_string().contains("another conversion"));
        workdir.publish(&[], &[]).unwrap();
        assert!(!hold(&path, &late).unwrap(), "its folder is a result now");
        assert!(lock_file(&path).unwrap().is_none());
        let refused = Workdir::open(&request(output.path(), "vm")).unwrap_err();
        assert!(refused.to_string().contains("exists already"), "{refused}");
        assert_eq!(fs::read_dir(output.path()).unwrap().count(), 1);
    }

    #[test]
    fn of_many_conversions_at_once_no_two_work_in_one_folder() {
        let output = tempfile::tempdir().unwrap();
        let convert = |own: usize| {
            let mut published = 0;
            for round in 0..50 {
                let Ok(workdir) = Workdir::open(&request(output.path(), "vm")) else { continue };
                assert_eq!(workdir.load::<(usize, usize)>().unwrap(), None, "somebody else's folder");
                workdir.store(&(own, round)).unwrap();
                assert_eq!(workdir.load().unwrap(), Some((own, round)));
                let result = workdir.publish(&[], &[]).unwrap();
                let away = output.path().join(format!("away-{own}-{round}"));
                fs::rename(result, away).unwrap();
                published += 1;
            }
            published
        };
        let published: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|own| scope.spawn(move || convert(own))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        println!("{published} conversions got their folder");
        let names: Vec<_> = fs::read_dir(output.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        let results = names.iter().filter(|name| name.to_string_lossy().starts_with("away-")).count();
        assert_eq!((results, names.len()), (published, published), "{names:?}");
    }
}
