//! Files of Windows that somebody names to this program: registry hives, with their logs beside them.

use std::path::Path;

use guest::Directory;
use guest::windows::hive::{Hive, Unfinished, file};

use crate::failure::{Code, Failure, Result};

/// A hive's file as the only thing that is asked of its folder.
pub(crate) struct HiveFile {
    /// Its folder.
    pub(crate) tree: Directory,
    /// Its path in there.
    pub(crate) path: String,
    /// What it is called to people.
    pub(crate) shown: String,
}

impl HiveFile {
    pub(crate) fn of(file: &Path) -> Result<Self> {
        let shown = file.display().to_string();
        // A link may lead out of its folder.
        let file = file.canonicalize().map_err(|e| Failure::file(&shown, &e))?;
        if !file.is_file() {
            return Err(Failure::new(Code::Failed, format!("{shown}: expected a file")));
        }
        let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else {
            return Err(Failure::new(Code::Failed, format!("{shown}: expected a name in UTF-8")));
        };
        let tree = Directory::open(folder).map_err(|e| failure(&shown, &e))?;
        Ok(Self { tree, path: format!("/{name}"), shown })
    }

    pub(crate) fn files(&self) -> Result<file::Files> {
        file::read_files(&self.tree, &self.path).map_err(|e| failure(&self.shown, &e))
    }

    pub(crate) fn open(&self, as_it_is: bool) -> Result<Hive> {
        let unfinished = if as_it_is { Unfinished::ReadAsItIs } else { Unfinished::Refuse };
        let files = self.files()?;
        Hive::load(files.primary, &files.logs, unfinished).map_err(|e| failure(&self.shown, &e))
    }
}

/// What is wrong with it, as this program says it.
pub(crate) fn failure(shown: &str, error: &guest::Error) -> Failure {
    let code = match error.kind {
        guest::ErrorKind::Missing | guest::ErrorKind::Unsupported => Code::Refused,
        _ => Code::Failed,
    };
    let message = match &error.source {
        Some(source) => format!("{shown}: {}: {source}", error.context),
        None => format!("{shown}: {}", error.context),
    };
    Failure::new(code, message)
}
