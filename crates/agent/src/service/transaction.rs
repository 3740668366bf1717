//! An installation from its beginning to the word that it stays, or to the end of everything that it made.

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use protocol::enrolment::TOKEN_TEXT_BYTES_MAX;
use serde_json::{Value, json};

use super::arguments::Wish;
use super::plan::{PRIVATE, Plan, Step, missing_folders};
use super::state::{ONCE, Record, STATE, STATUS_FILE, key, read_json};
use super::system::System;
use super::{background, installation, say};
use crate::enrolment::load_token;
use crate::{Error, ErrorKind, Result};

/// Time for the agent to come up once its service was started; a loaded machine takes a while.
const START_SECONDS_MAX: u64 = 30;
const PAUSE: Duration = Duration::from_millis(100);
/// How often the agent's state is looked at while the word is awaited.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// What the installer says for the installation to stay.
const KEEP: &str = "keep";

/// Installs the agent, or has it run once, as a whole or not at all.
///
/// # Errors
/// [`ErrorKind::Service`], saying that everything was undone, or what is left; [`ErrorKind::Config`] before anything is done.
pub(super) fn install(system: &System, wish: &Wish, json: bool) -> Result<()> {
    let wish = Wish { token: wish.enrol.as_deref().map(read_token).transpose()?, ..wish.clone() };
    if system.is_own() && fs::metadata("/proc/self").map_or(true, |own| own.uid() != 0) {
        return Err(Error::new(ErrorKind::Service, "it takes root to install the agent, or to run it"));
    }
    let teller = Teller { json };
    match wish.once {
        true => run_once(system, &wish, &teller),
        false => install_service(system, &wish, &teller),
    }
}

fn install_service(system: &System, wish: &Wish, teller: &Teller) -> Result<()> {
    let plan = installation::plan(system, wish)?;
    let is_new = Record::load(system).is_none();
    let status_file = system.path(STATE).join(STATUS_FILE);
    if !system.is_offline() {
        // What is there from now on is of the new one.
        let _ = fs::remove_file(&status_file);
    }
    let applied = plan.apply(system, &|step| teller.step(step))?;
    if !system.is_offline()
        && let Err(error) = wait_for_start(&status_file).and_then(|()| wait_for_word(wish, &status_file, teller))
    {
        return Err(applied.undo_because(error));
    }
    applied.keep();
    if system.is_own() {
        end_once(system)?;
    }
    teller.done(if is_new { "installed" } else { "updated" }, &system.path(STATE));
    Ok(())
}

/// The state is where a restart loses it.
fn run_once(system: &System, wish: &Wish, teller: &Teller) -> Result<()> {
    if Record::load(system).is_some() {
        return Err(Error::new(ErrorKind::Service, "an agent is installed here: it needs not run once"));
    }
    let writable = ONCE.iter().find(|state| Path::new(state).parent().is_some_and(|above| system.is_writable(above)));
    let state = writable.map(PathBuf::from).ok_or_else(|| {
        Error::new(ErrorKind::Service, "neither in /run nor in /dev/shm a folder for the agent's state can be made")
    })?;
    let config = installation::config_path(Some(&state));
    background::end_all(&config)?;
    let mut steps = missing_folders(system, &state, PRIVATE);
    steps.extend(installation::configuration(&state, wish)?);
    let plan = Plan { steps, settle: Vec::new() };
    let status_file = state.join(STATUS_FILE);
    let _ = fs::remove_file(&status_file);
    let applied = plan.apply(system, &|step| teller.step(step))?;
    let started = background::start_unless_running(&system.program(), &config);
    let outcome = started.and_then(|()| wait_for_start(&status_file));
    if let Err(error) = outcome.and_then(|()| wait_for_word(wish, &status_file, teller)) {
        // Before its folder goes, or it would make files in there again.
        let ended = background::end_all(&config);
        let error = applied.undo_because(error);
        return Err(match ended {
            Ok(_) => error,
            Err(running) => running.because(error.chain()),
        });
    }
    applied.keep();
    teller.done("running", &state);
    Ok(())
}

/// An agent that runs once is of no use beside an installed one.
fn end_once(system: &System) -> Result<()> {
    for state in ONCE {
        if system.exists(state) {
            background::end_all(&installation::config_path(Some(Path::new(state))))?;
            let _ = fs::remove_dir_all(system.path(state));
        }
    }
    Ok(())
}

/// The text of a token: the first line of standard input, behind which a word may follow, or a file.
fn read_token(path: &Path) -> Result<String> {
    if path != Path::new("-") {
        return load_token(path).map(|token| token.expose());
    }
    let unread = |why: &str| Error::new(ErrorKind::Config, format!("no enrolment token on standard input: {why}"));
    let mut text = String::new();
    let limit = TOKEN_TEXT_BYTES_MAX as u64 + 1;
    let mut input = std::io::Read::take(std::io::stdin().lock(), limit);
    input.read_line(&mut text).map_err(|e| unread(&e.to_string()))?;
    match text.trim() {
        "" => Err(unread("it is empty")),
        token => Ok(token.to_owned()),
    }
}

/// Waits until the agent says what it does.
fn wait_for_start(status_file: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        let status: Option<Value> = read_json(status_file);
        if let Some(status) = status {
            // It ends where it cannot work as it was told.
            return match status["status"].as_str() {
                Some("ended") => Err(Error::new(ErrorKind::Service, format!("the agent ended: {}", detail(&status)))),
                _ => Ok(()),
            };
        }
        if start.elapsed() > Duration::from_secs(START_SECONDS_MAX) {
            let text = format!("the service was started, but no agent came up within {START_SECONDS_MAX} s");
            return Err(Error::new(ErrorKind::Service, text));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until standard input says that it stays, and tells what the agent does meanwhile. The end of standard input, which
/// a connection that was cut has, is a no.
fn wait_for_word(wish: &Wish, status_file: &Path, teller: &Teller) -> Result<()> {
    let Some(limit) = wish.keep_within else { return Ok(()) };
    let words = read_words();
    let (start, mut last) = (Instant::now(), None);
    loop {
        match words.recv_timeout(LOOK_PAUSE) {
            Ok(word) if word.trim() == KEEP => return Ok(()),
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::new(ErrorKind::Service, "the installation was given up before it was kept"));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if start.elapsed() > limit {
            let text = format!("nobody said within {} s that the installation stays", limit.as_secs());
            return Err(Error::new(ErrorKind::Service, text));
        }
        let status: Option<Value> = read_json(status_file);
        if status.is_some() && status != last {
            teller.agent(status.as_ref(), status_file.parent());
            last = status;
        }
    }
}

/// The lines of standard input, until it ends.
fn read_words() -> Receiver<String> {
    let (sender, words) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        while std::io::stdin().lock().read_line(&mut line).is_ok_and(|length| length > 0) {
            if sender.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    words
}

fn detail(status: &Value) -> &str {
    status["detail"].as_str().unwrap_or_default()
}

/// Says what is done: a line for people, or an object for programs.
struct Teller {
    json: bool,
}

impl Teller {
    fn step(&self, step: &Step) {
        match self.json {
            true => say(&json!({ "event": "step", "step": step.to_string() }).to_string()),
            false => say(&step.to_string()),
        }
    }

    fn agent(&self, status: Option<&Value>, state: Option<&Path>) {
        let Some(status) = status else { return };
        match self.json {
            true => say(&json!({ "event": "agent", "agent": status, "key": state.and_then(key) }).to_string()),
            false => say(&format!("agent: {} {}", status["status"].as_str().unwrap_or_default(), detail(status))),
        }
    }

    fn done(&self, what: &str, state: &Path) {
        match self.json {
            true => say(&json!({ "event": "done", "done": what, "key": key(state) }).to_string()),
            false => say(what),
        }
    }
}
