//! Carries the plan out: asks [`Progress`] what is next, does it with the [`System`], writes the state before and after.

use std::fs;
use std::io::{ErrorKind as IoKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use machine::firstboot::{
    LOG_FILE, PLAN_FILE, Plan, RESULT_FILE, ReportLine, ReportedAdapter, Script, StepReport, StepResult,
};

use crate::adapters::{Adapter, MatchedBy, Pairing, pair_adapters, plan_renames};
use crate::letters::plan_letters;
use crate::log::Log;
use crate::network::{Change, plan_routes, plan_settings, rename_command};
use crate::plan::parse_plan;
use crate::progress::{Action, Event, Progress};
use crate::steps::{Step, steps};
use crate::system::{Facts, System};
use crate::{Error, ErrorKind, Result};

/// The state, beside the plan.
const STATE_FILE: &str = "state.json";
/// How long devices may take to be found, at each start.
const DEVICES_PATIENCE: Duration = Duration::from_secs(120);
/// How long as many adapters as there were may take to appear when Windows installs no device any more: a machine that is
/// tried without a network has none.
const ADAPTERS_PATIENCE: Duration = Duration::from_secs(30);
/// How long the partitions of disks that were brought online may take to appear.
const VOLUMES_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_secs(2);
/// A driver's installation may ask something on a screen that nobody sees: it ends then.
const DRIVER_PATIENCE: Duration = Duration::from_secs(300);
const NETSH_PATIENCE: Duration = Duration::from_secs(60);

/// ERROR_NO_MORE_ITEMS: pnputil found no device that needs the driver.
const NO_DEVICE_NEEDS_IT: u32 = 259;
/// ERROR_SUCCESS_REBOOT_INITIATED and ERROR_SUCCESS_REBOOT_REQUIRED.
const RESTART_CODES: [u32; 2] = [1641, 3010];

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder of plan, drivers and scripts.
    pub folder: PathBuf,
    /// `C:\Windows`: the log and the result are below it.
    pub system_root: PathBuf,
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Windows restarts, and starts it again.
    Restarting,
    /// All is done and taken away.
    Finished,
    /// It was told to stop, and goes on at the next start.
    Stopped,
}

/// Does what is left of the plan.
pub fn run(system: &mut dyn System, places: &Places) -> Ending {
    let log = places.system_root.join(LOG_FILE);
    // The folder of temporary files may have been tidied away.
    let _ = log.parent().map(fs::create_dir_all);
    let mut log = Log::open(&log);
    log.line(&format!("vconverter-firstboot {} starts", env!("CARGO_PKG_VERSION")));
    let plan = read(&places.folder.join(PLAN_FILE)).and_then(|bytes| {
        parse_plan(&bytes.ok_or_else(|| Error::new(ErrorKind::Malformed, format!("plan: no {PLAN_FILE}")))?)
    });
    let state = read(&places.folder.join(STATE_FILE))
        .and_then(|bytes| bytes.map_or_else(|| Ok(Progress::default()), |bytes| Progress::parse(&bytes)));
    match (plan, state) {
        (Ok(plan), Ok(progress)) => {
            Run { steps: steps(&plan), plan, progress, places, log, system, waited_for_adapters: false }.finish()
        }
        (plan, state) => {
            let reason = plan.as_ref().err().or(state.as_ref().err()).map_or_else(String::new, Error::chain);
            log.line(&format!("nothing is done: {reason}"));
            let step =
                StepReport { step: "read plan and state".to_owned(), result: StepResult::Failed, detail: reason };
            let progress = Progress { ended: vec![step], ..Progress::default() };
            let plan = plan.map_or_else(
                |_| Plan::default(),
                |plan| Plan { nonce: plan.nonce, serial_port: plan.serial_port, ..Plan::default() },
            );
            Run { steps: Vec::new(), plan, progress, places, log, system, waited_for_adapters: false }.finish()
        }
    }
}

struct Run<'a> {
    plan: Plan,
    steps: Vec<Step>,
    progress: Progress,
    places: &'a Places,
    log: Log,
    system: &'a mut dyn System,
    /// Whether adapters had their time to appear at this start.
    waited_for_adapters: bool,
}

/// How a step ended.
struct Outcome {
    result: StepResult,
    detail: String,
    restart: bool,
}

impl Outcome {
    fn new(result: StepResult, detail: impl Into<String>) -> Self {
        Self { result, detail: detail.into(), restart: false }
    }

    /// Failed where there is anything in `problems`.
    fn of(problems: Vec<String>, done: impl Into<String>) -> Self {
        if problems.is_empty() {
            return Self::new(StepResult::Done, done);
        }
        Self::new(StepResult::Failed, problems.join("; "))
    }
}

impl Run<'_> {
    fn finish(mut self) -> Ending {
        if self.progress.ended.len() < self.steps.len() && self.wait_for_devices().is_err() {
            return Ending::Stopped;
        }
        let mut event = Event::Started;
        loop {
            let action = self.progress.on(event, &self.steps, self.plan.reboots_max);
            let next = match self.save_state() {
                Ok(()) => self.act(action),
                Err(error) => self.act_without_state(action, &error),
            };
            event = match next {
                Ok(event) => event,
                Err(ending) => return ending,
            };
            if let Event::Ended { result, detail, restart } = &event {
                let restart = if *restart { ", asks for a restart" } else { "" };
                self.log.line(&format!("  {result:?}{restart}: {detail}"));
            }
        }
    }

    /// That devices are still installed is told, and no reason to wait longer; an error means to stop.
    fn wait_for_devices(&mut self) -> Result<()> {
        let waited = stop_or_tell(self.system.wait_for_devices(DEVICES_PATIENCE))?;
        if let Err(told) = waited {
            self.log.line(&told);
        }
        Ok(())
    }

    /// Where the state cannot be written: the machine might restart for ever, and a script run twice.
    fn act_without_state(&mut self, action: Action, error: &Error) -> std::result::Result<Event, Ending> {
        self.log.line(&error.chain());
        match action {
            Action::Restart => {
                self.log.line("not restarted: it could not be kept that it was");
                Ok(Event::Started)
            }
            Action::Run(at) if !self.steps[at].can_be_repeated() => {
                let detail = format!("not run: {}", error.chain());
                Ok(Event::Ended { result: StepResult::Failed, detail, restart: false })
            }
            _ => self.act(action),
        }
    }

    fn act(&mut self, action: Action) -> std::result::Result<Event, Ending> {
        match action {
            Action::Run(at) => match self.step(at) {
                Ok(Outcome { result, detail, restart }) => Ok(Event::Ended { result, detail, restart }),
                Err(error) if error.kind == ErrorKind::Stopping => {
                    self.log.line("stopped; goes on at the next start");
                    Err(Ending::Stopped)
                }
                Err(error) => Ok(Event::Ended { result: StepResult::Failed, detail: error.chain(), restart: false }),
            },
            Action::Restart => {
                let (count, most) = (self.progress.reboots, self.plan.reboots_max);
                self.log.line(&format!("restarts the machine ({count} of {most})"));
                match self.system.restart() {
                    Ok(()) => Err(Ending::Restarting),
                    Err(error) => {
                        self.log.line(&error.chain());
                        Ok(Event::Started)
                    }
                }
            }
            Action::Report => {
                self.report();
                Ok(Event::Reported)
            }
            Action::Remove => {
                for line in self.system.remove(&self.plan.scaffolding) {
                    self.log.line(&line);
                }
                self.log.line("done");
                Err(Ending::Finished)
            }
        }
    }

    fn step(&mut self, at: usize) -> Result<Outcome> {
        let step = self.steps[at].clone();
        self.log.line(&format!("[{}/{}] {}", at + 1, self.steps.len(), step.name()));
        match step {
            Step::Publisher(file) => Ok(Outcome::new(self.system.trust_publisher(&file)?, "")),
            Step::Driver(driver) => self.install_driver(&driver.inf),
            Step::Disk(disk) => Ok(Outcome::new(self.system.bring_online(&disk)?, "")),
            Step::Letters => self.give_letters(),
            Step::Ghost(instance) => Ok(Outcome::new(self.system.remove_ghost(&instance)?, "")),
            Step::Names => self.give_names(),
            Step::Adapter { interface, .. } => self.give_settings(&interface),
            Step::Routes => self.give_routes(),
            Step::Script(script) => self.run_script(&script),
        }
    }

    fn install_driver(&mut self, inf: &str) -> Result<Outcome> {
        let command = self.system.driver_command(inf);
        let code = self.execute(&command, DRIVER_PATIENCE)?;
        Ok(match code {
            0 => Outcome::new(StepResult::Done, ""),
            NO_DEVICE_NEEDS_IT => Outcome::new(StepResult::AlreadySo, "no device needs it, or has a better one"),
            code if RESTART_CODES.contains(&code) => Outcome { restart: true, ..Outcome::new(StepResult::Done, "") },
            code => Outcome::new(StepResult::Failed, format!("exit code {}", shown_code(code))),
        })
    }

    fn run_script(&mut self, script: &Script) -> Result<Outcome> {
        let command = self.system.script_command(&script.file);
        let code = self.execute(&command, Duration::from_secs(script.timeout_s.into()))?;
        Ok(match code {
            code if RESTART_CODES.contains(&code) => {
                Outcome { restart: true, ..Outcome::new(StepResult::Done, format!("exit code {code}")) }
            }
            0 => Outcome::new(StepResult::Done, "exit code 0"),
            code => Outcome::new(StepResult::Failed, format!("exit code {}", shown_code(code))),
        })
    }

    fn give_letters(&mut self) -> Result<Outcome> {
        let mounts = &self.plan.mounts;
        let mut waited = Duration::ZERO;
        let volumes = loop {
            let volumes = self.system.volumes()?;
            let is_there = |volume: &&machine::firstboot::MountRestore| {
                volumes.iter().any(|seen| seen.partition.as_ref() == Some(&volume.partition))
            };
            if mounts.iter().all(|mount| is_there(&mount)) || waited >= VOLUMES_PATIENCE {
                break volumes;
            }
            self.system.sleep(POLL)?;
            waited += POLL;
        };
        let plan = plan_letters(mounts, &volumes);
        let mut problems = plan.problems;
        for change in &plan.changes {
            self.log.line(&format!("  {change:?}"));
            if let Err(error) = stop_or_tell(self.system.change_letter(change))? {
                problems.push(error);
            }
        }
        if plan.changes.is_empty() && problems.is_empty() {
            return Ok(Outcome::new(StepResult::AlreadySo, ""));
        }
        Ok(Outcome::of(problems, ""))
    }

    /// The adapters, when there are as many as there were, or they had their time.
    fn adapters(&mut self) -> Result<Vec<Adapter>> {
        // Drivers that were installed just now made devices of them.
        if !self.waited_for_adapters {
            self.wait_for_devices()?;
        }
        let mut waited = Duration::ZERO;
        loop {
            let adapters = self.system.adapters()?;
            let found = adapters.iter().filter(|adapter| adapter.is_hardware()).count();
            let enough = found >= self.plan.network.adapters.len() || self.waited_for_adapters;
            if enough || waited >= ADAPTERS_PATIENCE {
                self.waited_for_adapters = true;
                return Ok(adapters);
            }
            self.system.sleep(POLL)?;
            waited += POLL;
        }
    }

    fn give_names(&mut self) -> Result<Outcome> {
        let adapters = self.adapters()?;
        let pairings = pair_adapters(&self.plan.network.adapters, &adapters);
        let pairs: Vec<String> = pairings.iter().map(shown_pairing).collect();
        let renames = plan_renames(&pairings, &adapters);
        self.log.line(&format!("  {}", pairs.join("\n  ")));
        let mut problems = Vec::new();
        for rename in &renames {
            let code = self.execute(&rename_command(rename), NETSH_PATIENCE)?;
            if code != 0 {
                problems.push(format!("{} keeps its name: exit code {}", rename.from, shown_code(code)));
            }
        }
        if renames.is_empty() {
            return Ok(Outcome::new(StepResult::AlreadySo, ""));
        }
        Ok(Outcome::of(problems, ""))
    }

    fn give_settings(&mut self, interface: &str) -> Result<Outcome> {
        let adapters = self.adapters()?;
        let old = self.plan.network.adapters.clone();
        let pairings = pair_adapters(&old, &adapters);
        let Some(pairing) = pairings.iter().find(|pairing| pairing.old.interface == interface) else {
            return Err(Error::new(ErrorKind::Missing, "no such adapter in the plan"));
        };
        let Some(new) = pairing.new else {
            if pairing.old.ipv4.is_untouched() && pairing.old.ipv6.is_untouched() {
                return Ok(Outcome::new(StepResult::AlreadySo, "no adapter for it, and nothing was set"));
            }
            return Ok(Outcome::new(StepResult::Failed, "no adapter for its settings"));
        };
        let changes = plan_settings(pairing, &new.name);
        self.make_changes(&changes, Vec::new(), &shown_pairing(pairing))
    }

    fn give_routes(&mut self) -> Result<Outcome> {
        let adapters = self.adapters()?;
        let old = self.plan.network.adapters.clone();
        let mut pairings = pair_adapters(&old, &adapters);
        // By names that connections have, should one not have been given its old one.
        let renamed: Vec<_> = pairings
            .iter()
            .map(|pairing| {
                let mut old = pairing.old.clone();
                old.name = pairing.new.map_or_else(String::new, |new| new.name.clone());
                old
            })
            .collect();
        for (pairing, renamed) in pairings.iter_mut().zip(&renamed) {
            pairing.old = renamed;
        }
        let (changes, left) = plan_routes(&self.plan.network.routes, &pairings);
        let problems = left.iter().map(|route| format!("no adapter has {} in its network", route.next_hop)).collect();
        self.make_changes(&changes, problems, "")
    }

    fn make_changes(&mut self, changes: &[Change], mut problems: Vec<String>, done: &str) -> Result<Outcome> {
        if changes.is_empty() && problems.is_empty() {
            return Ok(Outcome::new(StepResult::AlreadySo, done));
        }
        for change in changes {
            let result = match change {
                Change::Run { command, may_fail } => {
                    stop_or_tell(self.execute(command, NETSH_PATIENCE))?.and_then(|code| match code {
                        0 => Ok(()),
                        _ if *may_fail => Ok(()),
                        code => Err(format!("{command}: exit code {}", shown_code(code))),
                    })
                }
                Change::Set(value) => {
                    self.log.line(&format!("  {change}"));
                    stop_or_tell(self.system.set_value(value))?
                }
            };
            problems.extend(result.err());
        }
        Ok(Outcome::of(problems, done))
    }

    fn execute(&mut self, command: &crate::command::CommandLine, patience: Duration) -> Result<u32> {
        self.log.line(&format!("  > {command}"));
        let ended = self.system.run(command, patience)?;
        for line in ended.output.lines().filter(|line| !line.trim().is_empty()) {
            self.log.line(&format!("    {line}"));
        }
        Ok(ended.code)
    }

    fn report(&mut self) {
        let Facts { hostname, product, version, boot_drive } = self.system.facts();
        let adapters = self.system.adapters().unwrap_or_default();
        let adapters = adapters.into_iter().filter(Adapter::is_hardware);
        let adapters =
            adapters.map(|Adapter { name, mac, addresses, .. }| ReportedAdapter { name, mac, addresses }).collect();
        let success = self.progress.ended.iter().all(|step| step.result != StepResult::Failed);
        let line = ReportLine {
            nonce: self.plan.nonce.clone(),
            hostname,
            product,
            version,
            boot_drive,
            adapters,
            steps: self.progress.ended.clone(),
            reboots: self.progress.reboots,
            success,
        };
        let text = serde_json::to_string(&line).unwrap_or_default();
        self.log.line(&format!("report: {text}"));
        if let Err(error) = write_whole(&self.places.system_root.join(RESULT_FILE), text.as_bytes()) {
            self.log.line(&error.chain());
        }
        if let Some(port) = self.plan.serial_port.clone()
            && let Err(error) = self.system.write_serial(&port, &text)
        {
            self.log.line(&error.chain());
        }
    }

    fn save_state(&mut self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.progress).unwrap_or_default();
        write_whole(&self.places.folder.join(STATE_FILE), &bytes)
    }
}

fn shown_pairing(pairing: &Pairing<'_>) -> String {
    let old = &pairing.old.name;
    let Some(new) = pairing.new else { return format!("{old}: no adapter for it") };
    let by = match pairing.by {
        MatchedBy::Interface => "the same interface",
        MatchedBy::Mac => "the same hardware address",
        MatchedBy::Order | MatchedBy::Nothing => "by hardware order",
    };
    format!("{old} -> {} ({}), {by}", new.name, new.description)
}

/// Small ones as they are, those of Windows in hexadecimal.
fn shown_code(code: u32) -> String {
    if code < 0x10000 { code.to_string() } else { format!("0x{code:08x}") }
}

/// What is no reason to stop, as a word about it.
fn stop_or_tell<T>(result: Result<T>) -> Result<std::result::Result<T, String>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.kind == ErrorKind::Stopping => Err(error),
        Err(error) => Ok(Err(error.chain())),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == IoKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path.display().to_string(), error)),
    }
}

/// The old file or the new one, whenever the machine stops.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let written = fs::File::create(&new)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(|error| Error::io(path.display().to_string(), error))
}

/// What would be done, a line each, on a machine with `adapters`; nothing is.
pub fn dry_run(plan: &Plan, adapters: &[Adapter]) -> String {
    let pairings = pair_adapters(&plan.network.adapters, adapters);
    let renames = plan_renames(&pairings, adapters);
    let final_name = |adapter: &Adapter| {
        let mut name = adapter.name.clone();
        for rename in &renames {
            if rename.from == name {
                name.clone_from(&rename.to);
            }
        }
        name
    };
    let mut lines = Vec::new();
    for step in steps(plan) {
        lines.push(step.name());
        match &step {
            Step::Names => {
                lines.extend(pairings.iter().map(|pairing| format!("  {}", shown_pairing(pairing))));
                lines.extend(renames.iter().map(|rename| format!("  > {}", rename_command(rename))));
            }
            Step::Adapter { interface, .. } => {
                for pairing in pairings.iter().filter(|pairing| pairing.old.interface == *interface) {
                    let name = pairing.new.map_or_else(String::new, &final_name);
                    lines.extend(plan_settings(pairing, &name).iter().map(|change| format!("  > {change}")));
                }
            }
            Step::Routes => {
                let (changes, left) = plan_routes(&plan.network.routes, &pairings);
                lines.extend(changes.iter().map(|change| format!("  > {change}")));
                lines.extend(left.iter().map(|route| format!("  no adapter has {} in its network", route.next_hop)));
            }
            _ => {}
        }
    }
    lines.push(String::new());
    lines.join("\n")
}
