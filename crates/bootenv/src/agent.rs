//! Starts the agent, listens to what it says, and starts it again when it dies.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::console::log;
use crate::status::Status;
use crate::{Error, Result, reaper};

const PROGRAM: &str = "/usr/bin/vconverter-agent";
const FOLDER: &str = "/run/vconverter";
const CONFIGURATION: &str = "/run/vconverter/agent.json";
const STATE: &str = "/run/vconverter/agent";
/// Where the facts about the guest are put for the agent.
pub const GUEST_FACTS: &str = "/run/vconverter/guest.json";
/// A line of the agent's is never longer.
const LINE_LENGTH_MAX: u64 = 16 << 10;
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// An agent that ran as long as this is started again without delay.
const RAN_WELL: Duration = Duration::from_secs(60);
/// The log gets a line about the copy at most so often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// What the agent says on its standard output, one JSON object a line. Fields that a status does not have are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AgentLine {
    /// `connecting`, `waiting_for_approval`, `ready`, `copying`, …
    #[serde(default)]
    pub status: String,
    /// The code that the operator compares.
    #[serde(default)]
    pub pairing_code: Option<String>,
    /// More about it, or what is wrong.
    #[serde(default)]
    pub detail: Option<String>,
    /// The disk being copied.
    #[serde(default)]
    pub disk: Option<String>,
    /// Bytes copied.
    #[serde(default)]
    pub done: Option<u64>,
    /// Bytes to be copied.
    #[serde(default)]
    pub total: Option<u64>,
}

impl AgentLine {
    /// In words.
    pub fn describe(&self) -> String {
        let state = match self.status.as_str() {
            "" => "starting".to_owned(),
            "waiting_for_approval" => "waiting for the operator's approval".to_owned(),
            other => other.replace('_', " "),
        };
        // What to do with a code stands beside the code.
        let detail = self.detail.clone().filter(|detail| !detail.is_empty() && self.pairing_code.is_none());
        let parts = [Some(state), self.disk.clone(), detail];
        parts.into_iter().flatten().collect::<Vec<_>>().join(": ")
    }
}

/// The controller to connect to, which the operator may change at any time.
#[derive(Debug, Default)]
pub struct Controller {
    state: Mutex<ControllerState>,
    changed: Condvar,
}

#[derive(Clone, Debug, Default)]
struct ControllerState {
    address: Option<(String, Option<String>)>,
    /// The running agent.
    agent: Option<Pid>,
}

impl Controller {
    /// Sets address and fingerprint; a running agent is ended and starts anew with them.
    pub fn set(&self, address: String, ca_fingerprint: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.address = Some((address, ca_fingerprint));
        if let Some(agent) = state.agent {
            let _ = kill_process(agent, Signal::TERM);
        }
        self.changed.notify_all();
    }

    fn wait(&self) -> (String, Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(address) = state.address.clone() {
                return address;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn set_agent(&self, agent: Option<Pid>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).agent = agent;
    }
}

#[derive(Serialize)]
struct AgentConfiguration<'a> {
    controller: &'a str,
    ca_fingerprint: Option<&'a str>,
    state_dir: &'a str,
    guest_facts: &'a str,
}

/// Keeps an agent running; for a thread of its own. Waits until the controller is known and there is an address.
pub fn run(controller: &Controller, status: &Arc<Status>) -> ! {
    let mut failures = 0;
    loop {
        let (address, fingerprint) = controller.wait();
        wait_for_address(status);
        status.update(|picture| picture.agent = AgentLine { status: "starting".into(), ..AgentLine::default() });
        let started = Instant::now();
        let end = match run_once(&address, fingerprint.as_deref(), controller, status) {
            Ok(end) => format!("the agent ended with {end}"),
            Err(error) => error.chain(),
        };
        failures = if started.elapsed() >= RAN_WELL { 0 } else { failures + 1 };
        let pause = back_off(failures);
        let detail = format!("{end}; starting it again in {} s", pause.as_secs());
        log(format!("agent: {detail}"));
        status.update(|picture| {
            picture.agent = AgentLine { status: "agent stopped".into(), detail: Some(detail), ..AgentLine::default() };
            picture.copies.clear();
        });
        std::thread::sleep(pause);
    }
}

fn back_off(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(5)).min(BACK_OFF_MAX)
}

fn wait_for_address(status: &Status) {
    while !status.picture().nics.values().any(|nic| nic.address.is_some()) {
        status.update(|picture| {
            picture.agent = AgentLine { status: "waiting for the network".into(), ..AgentLine::default() };
        });
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn run_once(address: &str, fingerprint: Option<&str>, controller: &Controller, status: &Arc<Status>) -> Result<String> {
    for folder in [FOLDER, STATE] {
        fs::create_dir_all(folder).map_err(|e| Error::path("create", Path::new(folder), e))?;
    }
    let configuration = AgentConfiguration {
        controller: address,
        ca_fingerprint: fingerprint,
        state_dir: STATE,
        guest_facts: GUEST_FACTS,
    };
    let json = serde_json::to_vec(&configuration).map_err(|e| Error::io("agent configuration", e))?;
    fs::write(CONFIGURATION, json).map_err(|e| Error::path("write", Path::new(CONFIGURATION), e))?;
    let mut command = Command::new(PROGRAM);
    command.args(["--config", CONFIGURATION]).env_clear().env("PATH", "/usr/bin:/sbin");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = reaper::start(&mut command).map_err(|e| Error::path("start", Path::new(PROGRAM), e))?;
    controller.set_agent(Some(Pid::from_child(&child)));
    log(format!("agent: started, controller {address}"));
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let errors = std::thread::spawn(move || errors.map(pass_on));
    if let Some(output) = output {
        listen(output, status);
    }
    let end = reaper::wait_for(&child);
    controller.set_agent(None);
    let _ = errors.join();
    Ok(end)
}

/// Passes what the agent writes to its standard error on to the log.
fn pass_on(errors: ChildStderr) {
    each_line(errors, |line| log(format!("agent: {line}")));
}

fn listen(output: ChildStdout, status: &Arc<Status>) {
    let mut logged = (AgentLine::default(), Instant::now());
    each_line(output, |text| match serde_json::from_str::<AgentLine>(text) {
        Ok(line) => {
            log_change(&line, &mut logged);
            status.update(|picture| {
                if let (Some(disk), Some(done), Some(total)) = (&line.disk, line.done, line.total) {
                    // As many disks as are there, whatever names come.
                    if picture.copies.len() <= picture.disks.len() || picture.copies.contains_key(disk) {
                        picture.copies.insert(disk.clone(), (done, total));
                    }
                }
                picture.agent = line;
            });
        }
        Err(_) => log(format!("agent: {text}")),
    });
}

fn log_change(line: &AgentLine, logged: &mut (AgentLine, Instant)) {
    let (last, at) = logged;
    let same_state = line.status == last.status && line.detail == last.detail && line.disk == last.disk;
    if same_state && line.pairing_code == last.pairing_code {
        let finished = line.done.is_some() && line.done == line.total && last.done != line.done;
        if line.done.is_none() || at.elapsed() < PROGRESS_INTERVAL && !finished {
            return;
        }
    }
    if let (Some(code), true) = (&line.pairing_code, line.pairing_code != last.pairing_code) {
        log(format!("pairing code: {code}"));
    }
    let progress = match (line.done, line.total) {
        (Some(done), Some(total)) => format!(" {done} of {total} bytes"),
        _ => String::new(),
    };
    log(format!("agent: {}{progress}", line.describe()));
    *logged = (line.clone(), Instant::now());
}

/// Calls `each` with every line; longer ones come in pieces.
fn each_line(stream: impl Read, mut each: impl FnMut(&str)) {
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match (&mut reader).take(LINE_LENGTH_MAX).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => each(String::from_utf8_lossy(&bytes).trim_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_agent_are_understood() {
        let parse = |text: &str| serde_json::from_str::<AgentLine>(text).unwrap();
        let line = parse(r#"{"status":"waiting_for_approval","pairing_code":"7Q4K-9XZM","detail":""}"#);
        assert_eq!(
            (line.describe().as_str(), line.pairing_code.as_deref()),
            ("waiting for the operator's approval", Some("7Q4K-9XZM"))
        );
        let line = parse(r#"{"status":"copying","disk":"sda","done":5,"total":10,"further":[1]}"#);
        assert_eq!((line.describe().as_str(), line.done, line.total), ("copying: sda", Some(5), Some(10)));
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let mut lengths = Vec::new();
        each_line([b'x'; 40_000].as_slice(), |line| lengths.push(line.len()));
        assert_eq!(lengths, [16_384, 16_384, 7_232]);
    }

    #[test]
    fn an_agent_that_dies_at_once_is_started_more_and_more_slowly() {
        assert_eq!([0, 1, 2, 3, 4, 5, 90].map(|n| back_off(n).as_secs()), [1, 2, 4, 8, 16, 30, 30]);
    }
}
