//! What it takes to have the agent start with a system.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::arguments::Wish;
use super::plan::{Content, PRIVATE, Plan, Step, missing_folders};
use super::state::{CONFIG, PROGRAM, PROGRAM_FOLDERS, RECORD, Record, STATE, STATUS_FILE, TOKEN_FILE};
use super::system::{InitSystem, System};
use super::{openrc, systemd, sysv};
use crate::enrolment::parse_token;
use crate::{Error, ErrorKind, Result};

/// Only the agent's user.
const SECRET: u32 = 0o600;

/// The plan of an installation, or of an update of one: then key and certificates stay.
///
/// # Errors
/// [`ErrorKind::Service`] where no init system is known or the program can be put nowhere, [`ErrorKind::Config`] for a token
/// that does not fit.
pub(super) fn plan(system: &System, wish: &Wish) -> Result<Plan> {
    let init = system.init_system()?;
    let before = Record::load(system);
    let is_new = before.is_none();
    let folder = program_folder(system, before.as_ref())?;
    let program = folder.join(PROGRAM);

    let mut steps = missing_folders(system, Path::new(STATE), PRIVATE);
    steps.extend(missing_folders(system, &folder, 0o755));
    steps.push(Step::File { path: program.clone(), mode: 0o755, content: Content::Program });
    steps.extend(configuration(Path::new(STATE), wish)?);
    steps.extend(match init {
        InitSystem::Systemd => systemd::files(system, &program),
        InitSystem::OpenRc => openrc::files(system, &program),
        InitSystem::Sysv => sysv::files(system, &program, is_new),
    });
    steps.push(record(before.as_ref(), init, &program, &steps)?);
    if system.is_offline() {
        return Ok(Plan { steps, settle: Vec::new() });
    }
    steps.extend(labels(system, &steps));
    steps.extend(match init {
        InitSystem::Systemd => systemd::start(is_new),
        InitSystem::OpenRc => openrc::start(is_new),
        InitSystem::Sysv => sysv::start(is_new),
    });
    let settle = match init {
        InitSystem::Systemd => systemd::settle(is_new),
        InitSystem::OpenRc => openrc::settle(is_new),
        InitSystem::Sysv => sysv::settle(system, is_new),
    };
    Ok(Plan { steps, settle })
}

/// Configuration, and token where there is one, in a state folder.
pub(super) fn configuration(state: &Path, wish: &Wish) -> Result<Vec<Step>> {
    let token = wish.token.as_deref().map(parse_token).transpose()?;
    let named = token.as_ref().map(protocol::enrolment::EnrolmentToken::authority);
    if let (Some(named), Some(pin)) = (named, wish.ca_fingerprint)
        && named != pin
    {
        let text = "the enrolment token is of another controller than the CA fingerprint";
        return Err(Error::new(ErrorKind::Config, text));
    }
    let mut config = json!({
        "controller": wish.controller,
        "state_dir": state,
        "status_file": state.join(STATUS_FILE),
        "boot_image": false,
    });
    // It outlives the token.
    if let Some(pin) = named.or(wish.ca_fingerprint) {
        config["ca_fingerprint"] = json!(pin);
    }
    if wish.enrol.is_some() {
        config["enrol"] = json!(state.join(TOKEN_FILE));
    }
    if !wish.disks.is_empty() {
        config["disks"] = json!(wish.disks);
    }
    let mut steps = vec![Step::text(state.join("agent.json"), SECRET, pretty(&config)?)];
    if wish.enrol.is_some() {
        let content = Content::Secret(wish.token.clone().unwrap_or_default());
        steps.push(Step::File { path: state.join(TOKEN_FILE), mode: SECRET, content });
    }
    Ok(steps)
}

fn pretty(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|e| Error::new(ErrorKind::Service, "configuration").because(e))? + "\n")
}

/// Where the program stays, or else the first folder that can be written to.
fn program_folder(system: &System, before: Option<&Record>) -> Result<PathBuf> {
    let kept = before.and_then(|record| record.program.parent());
    let folders = kept.into_iter().chain(PROGRAM_FOLDERS.map(Path::new));
    let mut writable = folders.filter(|folder| system.is_writable(folder));
    writable.next().map(Path::to_path_buf).ok_or_else(|| {
        let text = format!("the program can be put neither in {} nor in {}", PROGRAM_FOLDERS[0], PROGRAM_FOLDERS[1]);
        Error::new(ErrorKind::Service, format!("{text}: not allowed, or read-only"))
    })
}

/// What a removal needs to know.
fn record(before: Option<&Record>, init: InitSystem, program: &Path, steps: &[Step]) -> Result<Step> {
    let made = steps.iter().filter_map(|step| match step {
        Step::Folder { path, .. } => Some(path.clone()),
        _ => None,
    });
    let mut folders: Vec<PathBuf> = before.map(|record| record.folders.clone()).unwrap_or_default();
    folders.extend(made);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let record = Record { version, init, program: program.to_path_buf(), folders };
    Ok(Step::text(Path::new(STATE).join(RECORD), SECRET, pretty(&record)?))
}

/// SELinux's labels of what was written, where it is on: a service may not start a program without its own.
fn labels(system: &System, steps: &[Step]) -> Option<Step> {
    let restorecon = system.find("restorecon").filter(|_| system.path("/sys/fs/selinux/enforce").exists())?;
    let mut command = vec![restorecon.display().to_string(), "-F".to_owned(), STATE.to_owned()];
    for step in steps {
        if let Step::File { path, .. } | Step::Link { path, .. } | Step::Folder { path, .. } = step {
            command.push(path.display().to_string());
        }
    }
    Some(Step::Run { command, undo: Vec::new(), tolerated: true })
}

/// The configuration of an agent that is installed, or that runs once in `state`.
pub(super) fn config_path(once: Option<&Path>) -> PathBuf {
    once.map_or_else(|| CONFIG.into(), |state| state.join("agent.json"))
}
