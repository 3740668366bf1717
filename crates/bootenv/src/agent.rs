//! Starts the agent, listens to what it says, and starts it again when it dies.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::system::RebootCommand;
use serde::{Deserialize, Serialize};

use crate::console::log;
use crate::status::Status;
use crate::{Error, Result, conversation, medium, reaper, restore};

const PROGRAM: &str = "/usr/bin/vconverter-agent";
const FOLDER: &str = "/run/vconverter";
/// Where the facts about the guest are put for the agent.
pub const GUEST_FACTS: &str = "/run/vconverter/guest.json";
/// A line of the agent's is never longer.
const LINE_LENGTH_MAX: u64 = 16 << 10;
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// An agent that ran as long as this is started again without delay.
const RAN_WELL: Duration = Duration::from_secs(60);
/// The log gets a line about the copy at most so often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// The status of an agent that waits for somebody at the machine.
const WANTS_CONFIRMATION: &str = "waiting_for_confirmation";

/// What the agent says on its standard output, one JSON object a line. Fields that a status does not have are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AgentLine {
    /// `connecting`, `waiting_for_approval`, `waiting_for_confirmation`, `ready`, `copying`, …
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
            WANTS_CONFIRMATION => "waiting for somebody here to confirm the code".to_owned(),
            other => other.replace('_', " "),
        };
        // What to do with a code stands beside the code.
        let detail = self.detail.clone().filter(|detail| !detail.is_empty() && self.pairing_code.is_none());
        let parts = [Some(state), self.disk.clone(), detail];
        parts.into_iter().flatten().collect::<Vec<_>>().join(": ")
    }

    /// Whether the controller took this machine in: it may be copied at any time.
    pub fn is_at_work(&self) -> bool {
        matches!(self.status.as_str(), "ready" | "copying" | "verifying" | "staying" | "finished")
    }

    /// How the controller's operator wants the machine to be ended, and in words.
    pub fn wants_end(&self) -> Option<(&'static str, RebootCommand)> {
        match self.status.as_str() {
            "restarting" => Some(("restarting", RebootCommand::Restart)),
            "switching_off" => Some(("switching off", RebootCommand::PowerOff)),
            _ => None,
        }
    }

    /// The code that somebody at the machine has to compare before the agent goes on.
    pub fn wants_confirmation(&self) -> Option<&str> {
        self.pairing_code.as_deref().filter(|_| self.status == WANTS_CONFIRMATION)
    }
}

/// Where the agent's program and its files are.
#[derive(Clone, Debug)]
pub struct Place {
    /// The program.
    pub program: PathBuf,
    /// Folder of its configuration and state.
    pub folder: PathBuf,
}

impl Default for Place {
    fn default() -> Self {
        Self { program: PROGRAM.into(), folder: FOLDER.into() }
    }
}

impl Place {
    fn configuration(&self) -> PathBuf {
        self.folder.join("agent.json")
    }

    fn state(&self) -> PathBuf {
        self.folder.join("agent")
    }

    /// Where the agent takes an enrolment token from; it removes it when it was used.
    pub fn token(&self) -> PathBuf {
        self.state().join("token")
    }

    fn machine_disks(&self) -> PathBuf {
        self.folder.join("machine-disks")
    }

    /// Tells the agent the names of the machine's disks; it serves no other.
    ///
    /// # Errors
    /// The operating system's.
    pub fn tell_disks<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<()> {
        let (path, new) = (self.machine_disks(), self.folder.join("machine-disks.new"));
        let text: String = names.map(|name| format!("{name}\n")).collect();
        let write = || fs::create_dir_all(&self.folder).and_then(|()| fs::write(&new, text));
        write().and_then(|()| fs::rename(&new, &path)).map_err(|e| Error::path("write", &path, e))
    }

    /// Tells the agent that the machine has other hardware than it reported.
    ///
    /// # Errors
    /// The operating system's.
    pub fn tell_change(&self) -> Result<()> {
        let path = self.state().join("changed");
        fs::create_dir_all(self.state()).and_then(|()| fs::write(&path, [])).map_err(|e| Error::path("write", &path, e))
    }

    /// Tells the agent that the controller shows this code.
    ///
    /// # Errors
    /// The operating system's.
    pub fn confirm(&self, code: &str) -> Result<()> {
        let (path, new) = (self.state().join("confirmed"), self.folder.join("confirmed.new"));
        fs::write(&new, code).and_then(|()| fs::rename(&new, &path)).map_err(|e| Error::path("write", &path, e))
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
    address: Option<Address>,
    /// Counts the changes of the address.
    change: u64,
    /// The running agent.
    agent: Option<Pid>,
}

#[derive(Clone, Debug)]
struct Address {
    controller: String,
    ca_fingerprint: Option<String>,
    /// Which change it came with.
    change: u64,
}

impl Controller {
    /// Sets address and fingerprint; a running agent is ended and starts anew with them.
    pub fn set(&self, controller: String, ca_fingerprint: Option<String>) {
        self.change(|change| Some(Address { controller, ca_fingerprint, change }));
    }

    /// Ends the agent, and with it the connection; it starts again with the next address. Returns the address left.
    pub fn leave(&self) -> Option<String> {
        self.change(|_| None).map(|address| address.controller)
    }

    /// Whether there is an address.
    pub fn is_known(&self) -> bool {
        self.lock().address.is_some()
    }

    fn change(&self, new: impl FnOnce(u64) -> Option<Address>) -> Option<Address> {
        let mut state = self.lock();
        state.change += 1;
        let new = new(state.change);
        let old = std::mem::replace(&mut state.address, new);
        if let Some(agent) = state.agent {
            let _ = kill_process(agent, Signal::TERM);
        }
        self.changed.notify_all();
        old
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ControllerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) -> Address {
        let mut state = self.lock();
        loop {
            if let Some(address) = state.address.clone() {
                return address;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits, but not beyond a change of the address.
    fn rest(&self, address: &Address, pause: Duration) {
        drop(self.changed.wait_timeout_while(self.lock(), pause, |state| state.change == address.change));
    }

    fn is_current(&self, address: &Address) -> bool {
        self.lock().change == address.change
    }

    /// An agent whose address was changed while it started is ended, too.
    fn started(&self, agent: Pid, address: &Address) {
        let mut state = self.lock();
        state.agent = Some(agent);
        if state.change != address.change {
            let _ = kill_process(agent, Signal::TERM);
        }
    }

    fn ended(&self) {
        self.lock().agent = None;
    }
}

#[derive(Serialize)]
struct AgentConfiguration<'a> {
    controller: &'a str,
    ca_fingerprint: Option<&'a str>,
    state_dir: &'a Path,
    guest_facts: &'a str,
    machine_disks: &'a Path,
    boot_medium: Option<&'a str>,
    /// Where the token is, until it was used.
    enrol: Option<PathBuf>,
    /// Where the report of what was restored is.
    boot_path: Option<PathBuf>,
}

/// Keeps an agent running; for a thread of its own. Waits until the controller is known and there is an address.
pub fn run(place: &Place, controller: &Controller, status: &Arc<Status>) -> ! {
    let mut failures = 0;
    loop {
        let address = controller.wait();
        wait_for_address(status);
        status.update(|picture| picture.agent = AgentLine { status: "starting".into(), ..AgentLine::default() });
        let started = Instant::now();
        let end = match run_once(place, &address, controller, status) {
            Ok(end) => format!("the agent ended with {end}"),
            Err(error) => error.chain(),
        };
        if !controller.is_current(&address) {
            log("agent: ended, for the controller was changed");
            let line = AgentLine { status: "waiting for a controller".into(), ..AgentLine::default() };
            stopped(status, line);
            failures = 0;
            continue;
        }
        failures = if started.elapsed() >= RAN_WELL { 0 } else { failures + 1 };
        let pause = back_off(failures);
        let detail = format!("{end}; starting it again in {} s", pause.as_secs());
        log(format!("agent: {detail}"));
        stopped(status, AgentLine { status: "agent stopped".into(), detail: Some(detail), ..AgentLine::default() });
        controller.rest(&address, pause);
    }
}

fn stopped(status: &Status, line: AgentLine) {
    status.update(|picture| {
        picture.agent = line;
        picture.copies.clear();
    });
}

fn back_off(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(5)).min(BACK_OFF_MAX)
}

fn wait_for_address(status: &Status) {
    while !status.picture().nics.values().any(|nic| !nic.addresses.is_empty()) {
        status.update(|picture| {
            picture.agent = AgentLine { status: "waiting for the network".into(), ..AgentLine::default() };
        });
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn run_once(place: &Place, address: &Address, controller: &Controller, status: &Arc<Status>) -> Result<String> {
    let (path, state) = (place.configuration(), place.state());
    fs::create_dir_all(&state).map_err(|e| Error::path("create", &state, e))?;
    let configuration = AgentConfiguration {
        controller: &address.controller,
        ca_fingerprint: address.ca_fingerprint.as_deref(),
        state_dir: &state,
        guest_facts: GUEST_FACTS,
        machine_disks: &place.machine_disks(),
        boot_medium: medium::started_from(),
        enrol: Some(place.token()).filter(|path| path.exists()),
        boot_path: Some(PathBuf::from(restore::REPORT)).filter(|path| path.exists()),
    };
    let json = serde_json::to_vec(&configuration).map_err(|e| Error::io("agent configuration", e))?;
    fs::write(&path, json).map_err(|e| Error::path("write", &path, e))?;
    let mut command = Command::new(&place.program);
    command.arg("--config").arg(&path).env_clear().env("PATH", "/usr/bin:/sbin");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = reaper::start(&mut command).map_err(|e| Error::path("start", &place.program, e))?;
    controller.started(Pid::from_child(&child), address);
    log(format!("agent: started, controller {}", address.controller));
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let errors = std::thread::spawn(move || errors.map(pass_on));
    if let Some(output) = output {
        listen(output, status);
    }
    let end = reaper::wait_for(&child);
    controller.ended();
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
            if let Some((what, command)) = line.wants_end() {
                conversation::end(status, what, command);
            }
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
        assert!(line.wants_end().is_none());
        let line = parse(r#"{"status":"restarting","detail":"not back by 06:00 else"}"#);
        assert_eq!(line.describe(), "restarting: not back by 06:00 else");
        assert!(matches!(line.wants_end(), Some(("restarting", RebootCommand::Restart))));
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

    /// A program that says whom it was started for, as the agent does, and what it was told.
    fn fake_agent(folder: &Path) -> Place {
        use std::os::unix::fs::PermissionsExt;
        let program = folder.join("fake agent");
        let script = "#!/bin/sh
config=$(/bin/cat \"$2\")
address=${config#*'\"controller\":\"'} address=${address%%'\"'*}
echo '{\"status\":\"waiting_for_confirmation\",\"pairing_code\":\"7Q4K-9XZM\"}'
until [ -e \"${2%.json}/confirmed\" ]; do /bin/sleep 0.1; done
echo '{\"status\":\"ready\",\"detail\":\"'\"$$ $address\"'\"}'
exec /bin/sleep 600
";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Place { program, folder: folder.join("run") }
    }

    fn wait_for<T>(status: &Status, wanted: impl Fn(&AgentLine) -> Option<T>) -> T {
        let started = Instant::now();
        let mut seen = 0;
        while started.elapsed() < Duration::from_secs(60) {
            let (number, picture) = status.wait(seen, Duration::from_secs(1));
            seen = number;
            if let Some(found) = wanted(&picture.agent) {
                return found;
            }
        }
        panic!("{:?}", status.picture().agent);
    }

    /// Process and address of a fake agent that went on.
    fn ready(status: &Status, not: Option<i32>) -> (i32, String) {
        wait_for(status, |line| {
            let (pid, address) = line.detail.as_deref().filter(|_| line.status == "ready")?.split_once(' ')?;
            let pid = pid.parse().ok()?;
            (Some(pid) != not).then(|| (pid, address.to_owned()))
        })
    }

    #[test]
    fn an_agent_is_told_the_answer_started_again_when_killed_and_ended_when_denied() {
        let folder = tempfile::tempdir().unwrap();
        let place = fake_agent(folder.path());
        let (controller, status) = (Arc::new(Controller::default()), Arc::new(Status::default()));
        let nic = crate::status::NicStatus {
            name: "eth0".into(),
            driver: "e1000".into(),
            mac: machine::MacAddress([2, 0, 0, 0, 0, 1]),
            link: true,
            speed: None,
            addresses: vec![machine::IpNet { address: [192, 0, 2, 7].into(), prefix_length: 24 }],
            note: String::new(),
        };
        status.set_nic(1, Some(nic));
        std::thread::spawn(|| reaper::run());
        {
            let (place, controller, status) = (place.clone(), Arc::clone(&controller), Arc::clone(&status));
            std::thread::spawn(move || run(&place, &controller, &status));
        }
        controller.set("a:1".into(), None);
        let code = wait_for(&status, |line| line.wants_confirmation().map(str::to_owned));
        assert_eq!(code, "7Q4K-9XZM");
        place.confirm(&code).unwrap();
        let (first, address) = ready(&status, None);
        assert_eq!(address, "a:1");
        assert_eq!(fs::read_to_string(place.state().join("confirmed")).unwrap(), code);

        let kill = |pid| kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        kill(first);
        wait_for(&status, |line| line.detail.as_deref()?.contains("ended with signal 9").then_some(()));
        let (second, address) = ready(&status, Some(first));
        assert_eq!(address, "a:1");

        // Denied: it is ended, and nothing is started until there is another address.
        assert_eq!(controller.leave().as_deref(), Some("a:1"));
        wait_for(&status, |line| (line.status == "waiting for a controller").then_some(()));
        assert!(!Path::new("/proc").join(second.to_string()).exists());
        assert!(!controller.is_known());
        controller.set("b:2".into(), None);
        let (third, address) = ready(&status, Some(second));
        assert_eq!(address, "b:2");
        controller.leave();
        wait_for(&status, |line| (line.status == "waiting for a controller").then_some(()));
        assert!(!Path::new("/proc").join(third.to_string()).exists());
    }
}
