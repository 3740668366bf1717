//! The working folder of a conversion: `OUTPUT/.NAME.partial`, with everything that is not yet a result.
//!
//! Its `conversion.json` records which steps are done, so that a killed conversion goes on where it was. When all are,
//! the folder is renamed to `OUTPUT/NAME` in one step: nothing half-made ever bears the final name.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Context;
use crate::{Error, ErrorKind, OutputFormat, Request, Result};

const STATE_FILE: &str = "conversion.json";
/// State is a few kilobytes to some hundred for a machine with many disks; more is not ours.
const STATE_SIZE_MAX: u64 = 64 << 20;

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
        let (path, result) = paths(request)?;
        if let Err(error) = fs::create_dir(&path)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error).context(ErrorKind::Target, || format!("output folder {}", request.output.display()));
        }
        let lock_path = path.join("lock");
        let lock = File::options().create(true).append(true).open(&lock_path);
        let lock = lock.context(ErrorKind::Target, || format!("lock file {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, result, name: request.name.clone(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => {
                Err(Error::new(ErrorKind::Refused, format!("{}: another conversion is working there", path.display())))
            }
            Err(fs::TryLockError::Error(error)) => {
                Err(error).context(ErrorKind::Target, || lock_path.display().to_string())
            }
        }
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
        let path = self.file(STATE_FILE);
        match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Ok(metadata) if metadata.len() > STATE_SIZE_MAX => {
                return Err(Error::new(
                    ErrorKind::Target,
                    format!("{}: too large to be a record of ours", path.display()),
                ));
            }
            _ => {}
        }
        let bytes = fs::read(&path).context(ErrorKind::Target, || path.display().to_string())?;
        let state = serde_json::from_slice(&bytes).context(ErrorKind::Target, || {
            format!(
                "{}: not a record that this version can read; remove {} to start anew",
                path.display(),
                self.path.display()
            )
        })?;
        Ok(Some(state))
    }

    /// Records the state durably; a crash leaves the old or the new record.
    pub(crate) fn store<S: Serialize>(&self, state: &S) -> Result<()> {
        let json =
            serde_json::to_vec_pretty(state).context(ErrorKind::Internal, || "record of the conversion".into())?;
        let (path, fresh) = (self.file(STATE_FILE), self.file("conversion.json.new"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().context(ErrorKind::Target, || format!("record {}", path.display()))
    }

    /// Removes what is only needed on the way, and gives the folder its final name.
    pub(crate) fn publish(self, scaffolding: &[PathBuf]) -> Result<PathBuf> {
        for path in scaffolding {
            remove_if_present(path)?;
        }
        remove_if_present(&self.file("lock"))?;
        let rename = || -> std::io::Result<()> {
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
        Ok(self.result)
    }
}

/// Removes a file that may not be there.
pub(crate) fn remove_if_present(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(ErrorKind::Target, || path.display().to_string())
        }
        _ => Ok(()),
    }
}

/// The working folder and the final folder of `request`, if its name is fit and free.
fn paths(request: &Request) -> Result<(PathBuf, PathBuf)> {
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
    let result = output.join(name);
    if result.symlink_metadata().is_ok() {
        let context = format!("{} exists already: choose another --name, or move it away", result.display());
        return Err(Error::new(ErrorKind::Refused, context));
    }
    Ok((output.join(format!(".{name}.partial")), result))
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
        let result = workdir.publish(&[scaffold]).unwrap();
        let names: Vec<_> = fs::read_dir(&result).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["conversion.json"]);
    }
}
