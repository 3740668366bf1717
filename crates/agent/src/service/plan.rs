//! What an installation makes, as a value that can be shown, is applied as a whole, and is undone.
//!
//! A file is written beside its place and renamed; what stood there before is kept aside until the whole plan is kept. So
//! neither a full disk nor a failing command leaves anything but what was there before.

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::system::{System, file_error};
use crate::{Error, ErrorKind, Result};

/// Behind a file's name while it is written.
const NEW: &str = ".vconverter-new";
/// Behind the name of a file that a new one replaced, until that is kept.
const OLD: &str = ".vconverter-old";

/// Mode of a folder that holds only what is ours.
pub(super) const PRIVATE: u32 = 0o700;

/// One thing to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A folder that is not there.
    Folder { path: PathBuf, mode: u32 },
    /// A file, in the place of one that may be there.
    File { path: PathBuf, mode: u32, content: Content },
    /// A symbolic link, in the place of one that may be there.
    Link { path: PathBuf, target: PathBuf },
    /// A command, and what undoes it; `tolerated` where its failure is none of the installation's.
    Run { command: Vec<String>, undo: Vec<String>, tolerated: bool },
}

/// What is in a file.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// This program.
    Program,
    Text(String),
    /// Not to be shown.
    Secret(String),
}

/// An installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// Commands that bring the system in order when the steps were undone.
    pub(super) settle: Vec<Vec<String>>,
}

impl Step {
    pub(super) fn text(path: impl Into<PathBuf>, mode: u32, text: impl Into<String>) -> Self {
        Self::File { path: path.into(), mode, content: Content::Text(text.into()) }
    }

    pub(super) fn link(path: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self::Link { path: path.into(), target: target.into() }
    }

    pub(super) fn run(command: &[&str], undo: &[&str]) -> Self {
        Self::Run { command: words(command), undo: words(undo), tolerated: false }
    }
}

/// A command line as its words.
pub(super) fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

/// The folders of `path`, itself included, that are not there; the topmost first. All but the last get the mode 0755.
pub(super) fn missing_folders(system: &System, path: &Path, mode: u32) -> Vec<Step> {
    let missing = path.ancestors().take_while(|folder| !system.path(folder).is_dir());
    let mut steps: Vec<Step> = missing
        .map(|folder| Step::Folder { path: folder.to_path_buf(), mode: if folder == path { mode } else { 0o755 } })
        .collect();
    steps.reverse();
    steps
}

impl Plan {
    /// Does the steps, telling each before. Where one fails, those before it are undone.
    ///
    /// # Errors
    /// [`ErrorKind::Service`]: what failed, and whether everything could be undone.
    pub(super) fn apply<'a>(&'a self, system: &'a System, tell: &dyn Fn(&Step)) -> Result<Applied<'a>> {
        let mut applied = Applied { system, done: Vec::new(), settle: &self.settle };
        for step in &self.steps {
            tell(step);
            if let Err(error) = applied.make(step) {
                return Err(applied.undo_because(error));
            }
        }
        Ok(applied)
    }
}

/// A plan that was applied, and is neither kept nor undone yet.
pub(super) struct Applied<'a> {
    system: &'a System,
    done: Vec<Done>,
    settle: &'a [Vec<String>],
}

/// What undoes a step.
enum Done {
    /// `private` where nobody but us puts anything into it.
    Folder {
        path: PathBuf,
        private: bool,
    },
    File {
        path: PathBuf,
        replaced: bool,
    },
    Link {
        path: PathBuf,
        replaced: Option<PathBuf>,
    },
    Ran {
        undo: Vec<String>,
    },
}

impl Applied<'_> {
    fn make(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Folder { path, mode } => {
                let path = self.system.path(path);
                fs::DirBuilder::new().mode(*mode).create(&path).map_err(|e| file_error("make", &path, e))?;
                self.done.push(Done::Folder { path: path.clone(), private: *mode == PRIVATE });
                // The caller's mask may have taken some of it.
                set_mode(&path, *mode)
            }
            Step::File { path, mode, content } => {
                let path = self.system.path(path);
                let new = beside(&path, NEW);
                let written = write_file(&new, *mode, content, self.system).and_then(|()| self.place(&new, &path));
                if written.is_err() {
                    let _ = fs::remove_file(&new);
                }
                written
            }
            Step::Link { path, target } => {
                let path = self.system.path(path);
                let replaced = fs::read_link(&path).ok();
                let new = beside(&path, NEW);
                symlink(target, &new).map_err(|e| file_error("link", &path, e))?;
                fs::rename(&new, &path).map_err(|e| {
                    let _ = fs::remove_file(&new);
                    file_error("link", &path, e)
                })?;
                self.done.push(Done::Link { path, replaced });
                Ok(())
            }
            Step::Run { command, undo, tolerated } => {
                // One that fails may have done something, too.
                self.done.push(Done::Ran { undo: undo.clone() });
                match self.system.run(command) {
                    Err(error) if !tolerated => Err(error),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Renames a file to its place, and what is there aside.
    fn place(&mut self, new: &Path, path: &Path) -> Result<()> {
        let failed = |e| file_error("write", path, e);
        let replaced = match fs::rename(path, beside(path, OLD)) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed(error)),
        };
        self.done.push(Done::File { path: path.to_path_buf(), replaced });
        fs::rename(new, path).map_err(failed)
    }

    /// Undoes everything, the last first.
    ///
    /// # Errors
    /// [`ErrorKind::Service`], naming all that is left.
    pub(super) fn undo(mut self) -> Result<()> {
        let mut left = Vec::new();
        while let Some(done) = self.done.pop() {
            // What was started for the first time may not have come so far that it can be ended.
            if let Done::Ran { undo } = &done {
                if !undo.is_empty() {
                    let _ = self.system.run(undo);
                }
                continue;
            }
            if let Err(error) = undo_file(&done)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                let (Done::Folder { path, .. } | Done::File { path, .. } | Done::Link { path, .. }) = &done else {
                    continue;
                };
                left.push(format!("{}: {error}", path.display()));
            }
        }
        for command in self.settle {
            if let Err(error) = self.system.run(command) {
                left.push(error.chain());
            }
        }
        match left.is_empty() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Service, format!("left behind: {}", left.join("; ")))),
        }
    }

    /// Undoes everything, and says so behind the reason.
    pub(super) fn undo_because(self, reason: Error) -> Error {
        let reason = reason.chain();
        let end = match self.undo() {
            Ok(()) => "; everything was undone".to_owned(),
            Err(left) => format!("; {left}"),
        };
        Error::new(ErrorKind::Service, reason + &end)
    }

    /// It stays: what was replaced goes.
    pub(super) fn keep(self) {
        for done in self.done {
            if let Done::File { path, replaced: true } = done {
                let _ = fs::remove_file(beside(&path, OLD));
            }
        }
    }
}

fn undo_file(done: &Done) -> std::io::Result<()> {
    match done {
        // What our own program put there since, its state, goes with it.
        Done::Folder { path, private: true } => fs::remove_dir_all(path),
        Done::Folder { path, private: false } => fs::remove_dir(path),
        Done::File { path, replaced: true } => fs::rename(beside(path, OLD), path),
        Done::File { path, replaced: false } => fs::remove_file(path),
        Done::Link { path, replaced: None } => fs::remove_file(path),
        Done::Link { path, replaced: Some(target) } => {
            fs::remove_file(path)?;
            symlink(target, path)
        }
        Done::Ran { .. } => Ok(()),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn write_file(path: &Path, mode: u32, content: &Content, system: &System) -> Result<()> {
    let failed = |e| file_error("write", path, e);
    // One that a killed installation left.
    let _ = fs::remove_file(path);
    let mut file = fs::File::options().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    match content {
        Content::Program => {
            let mut program = fs::File::open(system.program()).map_err(|e| file_error("read", &system.program(), e))?;
            std::io::copy(&mut program, &mut file).map(drop).map_err(failed)?;
        }
        Content::Text(text) | Content::Secret(text) => file.write_all(text.as_bytes()).map_err(failed)?,
    }
    // Some filesystems tell only now that they are full.
    file.sync_all().map_err(failed)?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| file_error("set the mode of", path, e))
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program => f.write_str("this program"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Secret(_) => f.write_str("a secret"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { path, mode } => write!(f, "make the folder {} ({mode:04o})", path.display()),
            Self::File { path, mode, content } => {
                let what = match content {
                    Content::Program => ", this program",
                    Content::Text(_) => "",
                    Content::Secret(_) => ", secret",
                };
                write!(f, "write {} ({mode:04o}{what})", path.display())
            }
            Self::Link { path, target } => write!(f, "link {} to {}", path.display(), target.display()),
            Self::Run { command, .. } => write!(f, "run {}", command.join(" ")),
        }
    }
}

/// The steps, each with the text that it writes below it.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
            if let Step::File { content: Content::Text(text), .. } = step {
                text.lines().try_for_each(|line| writeln!(f, "    {line}"))?;
            }
        }
        Ok(())
    }
}
