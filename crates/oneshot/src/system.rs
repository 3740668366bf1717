//! The machine that is worked on: the running one, or in tests a tree of files that looks like one.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::record::{self, Record};
use crate::steps::Steps;
use crate::{Error, Result};

/// Name of the record in the folder of the state.
const RECORD_NAME: &str = "record.json";

/// The machine, and where the record of what is changed on it is kept.
#[derive(Clone)]
pub struct System {
    root: PathBuf,
    state: PathBuf,
    steps: Steps,
}

impl System {
    /// The running machine; `state` is a folder that survives restarts, where `record.json` is kept.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self::with_root("/", state)
    }

    /// The machine whose files lie below `root`. Anything but `/` is a picture of one: the kernel is asked nothing, and no device is touched.
    pub fn with_root(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), state: state.into(), steps: Steps::default() }
    }

    /// The same machine; `told` hears of every step that changes something, before it is taken, and can make it fail.
    #[cfg(test)]
    pub(crate) fn with_steps(mut self, told: impl Fn(&str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.steps = Steps::telling(std::sync::Arc::new(told));
        self
    }

    /// Whether this is the running machine.
    pub(crate) fn is_running(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The place of an absolute path of the machine.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let inside = path.as_ref().components().filter(|part| matches!(part, Component::Normal(_)));
        self.root.join(inside.collect::<PathBuf>())
    }

    /// The absolute path of the machine that has this place.
    pub(crate) fn name_of<'a>(&self, place: &'a Path) -> &'a Path {
        if self.is_running() { place } else { place.strip_prefix(&self.root).unwrap_or(place) }
    }

    /// A small file of the machine, as text; `None` where it is not there or cannot be read.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        read_text(&self.path(path))
    }

    /// Names in a folder of the machine, sorted; none where it is not there.
    pub(crate) fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        const NAMES_MAX: usize = 65_536;
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().take(NAMES_MAX);
        let mut names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// What changes files.
    pub(crate) fn steps(&self) -> &Steps {
        &self.steps
    }

    /// The folder of the record.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    fn record_path(&self) -> PathBuf {
        self.state.join(RECORD_NAME)
    }

    /// The record, if there is one.
    pub(crate) fn load_record(&self) -> Result<Option<Record>> {
        let path = self.record_path();
        match read_bounded(&path, record::RECORD_BYTES_MAX) {
            Ok(bytes) => record::parse_record(&bytes).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::path("read", &path, e)),
        }
    }

    /// Keeps the record so that a power cut right afterwards finds it.
    pub(crate) fn keep_record(&self, record: &Record) -> Result<()> {
        self.steps.make_private_folder(&self.state)?;
        self.steps.replace(&self.record_path(), &record.to_bytes()?)
    }

    /// Removes the record.
    pub(crate) fn forget_record(&self) -> Result<()> {
        self.steps.remove(&self.record_path()).map(drop)
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System").field("root", &self.root).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A file's bytes, at most `bytes_max` of them: a longer one is an error.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    // A FIFO where a file is expected does not hold us.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let what = format!("file has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(bytes)
}

/// A small file as text.
pub(crate) fn read_text(path: &Path) -> Option<String> {
    const TEXT_BYTES_MAX: u64 = 4 << 20;
    Some(String::from_utf8_lossy(&read_bounded(path, TEXT_BYTES_MAX).ok()?).into_owned())
}
