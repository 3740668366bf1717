//! What goes wrong with a machine before it is converted: edits of its root filesystem, by debugfs, without mounting it.

use std::fs;
use std::path::PathBuf;

use crate::tool::Tool;
use crate::{Error, Result, SourceMachine, filesystem};

impl SourceMachine {
    /// Text of a file of the root filesystem.
    pub fn text(&self, path: &str) -> Result<String> {
        self.debugfs(&["-R", &format!("cat {path}")])
    }

    /// Removes a file of the root filesystem.
    pub fn remove(&self, path: &str) -> Result<()> {
        self.debugfs(&["-w", "-R", &format!("rm {path}")])?;
        match self.text(path)?.is_empty() {
            true => Ok(()),
            false => Err(Error::new(format!("{path} could not be removed"))),
        }
    }

    /// Gives a file of the root filesystem another text.
    pub fn replace(&self, path: &str, text: &str) -> Result<()> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("/", path));
        let file = tempfile::NamedTempFile::new().map_err(|e| Error::io("making a temporary file", e))?;
        fs::write(file.path(), text).map_err(|e| Error::file(file.path(), e))?;
        let commands = format!("rm {path}\ncd {folder}\nwrite {} {name}\n", file.path().display());
        filesystem::edit_ext4(&self.root_filesystem()?, &commands)?;
        match self.text(path)? == text {
            true => Ok(()),
            false => Err(Error::new(format!("{path} could not be replaced"))),
        }
    }

    fn debugfs(&self, arguments: &[&str]) -> Result<String> {
        Tool::new("debugfs", "e2fsprogs").args(arguments).arg(self.root_filesystem()?).run()
    }

    /// As the tools of e2fsprogs name a filesystem inside of a file.
    fn root_filesystem(&self) -> Result<PathBuf> {
        Ok(format!("{}?offset={}", self.disk.display(), self.root()?.offset).into())
    }
}
