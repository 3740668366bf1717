//! Takes everything away that an installation made, whatever of it is there; also an agent that runs once.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use super::state::{CONFIG, ONCE, PROGRAM, PROGRAM_FOLDERS, Record, STATE};
use super::system::{System, file_error};
use super::{background, openrc, systemd, sysv};
use crate::{Error, ErrorKind, Result};

/// One thing that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// A command; that it fails is in nobody's way.
    Run(Vec<String>),
    /// The agents of a configuration.
    End(PathBuf),
    /// A file or a link.
    File(PathBuf),
    /// A folder with all that is in it.
    Tree(PathBuf),
    /// A folder, if nothing is in it.
    Folder(PathBuf),
}

/// What there is to remove.
///
/// # Errors
/// [`ErrorKind::Service`] where it cannot be looked.
pub(super) fn plan(system: &System) -> Result<Vec<Removal>> {
    let record = Record::load(system);
    let (mut before, mut files, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let mut of_init = |is_there: bool, (first, last): (Vec<Vec<String>>, Vec<Vec<String>>)| {
        if is_there && !system.is_offline() {
            before.extend(first.into_iter().map(Removal::Run));
            after.extend(last.into_iter().map(Removal::Run));
        }
    };
    of_init(system.exists(systemd::UNIT), systemd::removal());
    // Both kinds of script have the same place, and Debian's update-rc.d makes OpenRC's link too where that is installed.
    let is_openrc = openrc::is_script(&system.path(openrc::SCRIPT));
    of_init(is_openrc, openrc::removal());
    of_init(!is_openrc && system.exists(sysv::SCRIPT), sysv::removal(system));
    let links = sysv::all_links();
    let known = [systemd::WANTED, systemd::UNIT, openrc::LINK, sysv::SCRIPT].into_iter();
    files.extend(known.chain(links.iter().map(String::as_str)).map(PathBuf::from));
    files.extend(PROGRAM_FOLDERS.map(|folder| PathBuf::from(folder).join(PROGRAM)));
    files.extend(record.iter().map(|record| record.program.clone()));
    files.sort();
    files.dedup();

    let mut steps = before;
    if system.is_own() {
        let configs = ONCE.iter().map(|folder| PathBuf::from(folder).join("agent.json"));
        for config in configs.chain([CONFIG.into()]) {
            let failed = |e| Error::new(ErrorKind::Service, "cannot look for the agent's process").because(e);
            if !background::find(&config).map_err(failed)?.is_empty() {
                steps.push(Removal::End(config));
            }
        }
    }
    steps.extend(files.into_iter().filter(|file| system.exists(file)).map(Removal::File));
    let trees = ONCE.into_iter().chain([STATE]).filter(|tree| system.exists(tree));
    steps.extend(trees.map(|tree| Removal::Tree(tree.into())));
    // The innermost first. The state folder itself is one of them.
    let folders = record.map(|record| record.folders).unwrap_or_default();
    let folders = folders.into_iter().rev().filter(|folder| folder.as_os_str() != STATE);
    steps.extend(folders.map(Removal::Folder));
    steps.extend(after);
    Ok(steps)
}

/// Does all of it, also where something fails, and says what it removed.
///
/// # Errors
/// [`ErrorKind::Service`], naming all that is left.
pub(super) fn apply(plan: &[Removal], system: &System) -> Result<Vec<String>> {
    let (mut removed, mut left) = (Vec::new(), Vec::new());
    for step in plan {
        match remove(step, system) {
            Ok(true) => removed.push(step.to_string()),
            Ok(false) => {}
            Err(error) => left.push(error.chain()),
        }
    }
    match left.is_empty() {
        true => Ok(removed),
        false => Err(Error::new(ErrorKind::Service, format!("not everything could be removed: {}", left.join("; ")))),
    }
}

/// Whether anything was to be done.
fn remove(step: &Removal, system: &System) -> Result<bool> {
    let (path, result) = match step {
        Removal::Run(command) => return Ok(system.run(command).is_ok()),
        Removal::End(config) => return background::end_all(config).map(|ended| ended > 0),
        Removal::File(path) => (path, fs::remove_file(system.path(path))),
        Removal::Tree(path) => (path, fs::remove_dir_all(system.path(path))),
        Removal::Folder(path) => (path, fs::remove_dir(system.path(path))),
    };
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        // Somebody uses it now.
        Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) && matches!(step, Removal::Folder(_)) => Ok(false),
        Err(error) => Err(file_error("remove", &system.path(path), error)),
    }
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(command) => write!(f, "run {}", command.join(" ")),
            Self::End(config) => write!(f, "end the agent of {}", config.display()),
            Self::File(path) => write!(f, "remove {}", path.display()),
            Self::Tree(path) => write!(f, "remove {} and what is in it", path.display()),
            Self::Folder(path) => write!(f, "remove the folder {} if it is empty", path.display()),
        }
    }
}
