//! Automated Remote Cold Cloning: a live machine is restarted into the boot image, and seen back in its own system.
//!
//! Each step is kept with the task before the next begins, so that a controller that was killed goes on from what it finds: the
//! machine in the boot image, or back in its own system. The machine itself needs nobody for its way back.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conversion::Step;
use machine::push::{PushOrder, Survey, Way};
use protocol::message::{AgentKind, ControllerMessage, PowerAction};
use protocol::piece::FileName;

use super::{Run, Tasks};
use crate::rcc::{AtEnd, Course, MachineCommand, Rcc, choose, describe};
use crate::sessions::Conversation;
use crate::store::{Bound, LogLevel, TaskRecord};
use crate::{Error, ErrorKind, Result, Timestamp};

/// How long a machine may take from the order to restart until its boot image reports, beside the time for which that looks for us:
/// shutdown, the firmware's tests of a server's memory, and the start.
const ARRIVAL_MAX: Duration = Duration::from_secs(30 * 60);
/// How long it may take back to its own system.
const RETURN_MAX: Duration = Duration::from_secs(30 * 60);
/// How long the boot image's word about the boot path may come after its report.
const RESTORED_MAX: Duration = Duration::from_secs(120);
/// How long the word of the machine's own system may come after it is connected.
const COMPARED_MAX: Duration = Duration::from_secs(60);
/// Files of a push must fit into so many bytes.
const PUSH_BYTES_MAX: u64 = 40 << 20;

/// What a boot image is made of that is pushed to one machine.
#[derive(Debug)]
pub struct PushNeeds<'a> {
    /// What the machine's agent found out.
    pub survey: &'a Survey,
    /// SHA-256 of the controller's CA certificate, hexadecimal.
    pub ca_fingerprint: String,
    /// The credential. It goes into the configuration alone.
    pub token: &'a str,
    /// Which task it is for.
    pub task: &'a str,
    /// Seconds for which the boot image looks for the controller.
    pub contact_seconds: u32,
    /// Seconds of the watchdog, where there is one.
    pub watchdog_seconds: Option<u32>,
    /// An empty folder for the files.
    pub output: &'a Path,
}

/// A boot image to be pushed.
#[derive(Clone, Debug, Default)]
pub struct PushFiles {
    /// Names and places.
    pub files: Vec<(String, std::path::PathBuf)>,
    /// The kernel's command line.
    pub command_line: String,
    /// What of the machine's disk controllers and NICs has no driver in it.
    pub missing: Vec<String>,
}

impl Tasks {
    /// Looks at a live machine: how it could be started from the boot image. Nothing is changed.
    ///
    /// # Errors
    /// Those of [`Sessions::converse`](crate::sessions::Sessions::converse).
    pub fn survey(&self, machine: &str) -> Result<Survey> {
        self.0.sessions.converse(machine)?.survey()
    }

    /// Brings the machine of a task into the boot image, if it is not there.
    pub(super) fn bring_into_boot_image(&self, task: &TaskRecord, run: &Run, rcc: &Rcc) -> Result<()> {
        let course = self.0.store.existing_task(&task.id)?.course()?;
        if !course.is_away() || course.arrived_at.is_none() {
            self.0.store.step_begins(&run.lease, Step::Reboot)?;
        }
        let kind = self.0.sessions.kind_of(&task.machine);
        match (course.is_away(), kind) {
            (false, Some(AgentKind::BootImage)) => {
                self.says(run, LogLevel::Info, "the machine stands in the boot image already: it is not restarted")
            }
            (false, _) => {
                self.send_away(task, run, rcc)?;
                self.wait_for_arrival(task, run, rcc)
            }
            (true, _) => self.wait_for_arrival(task, run, rcc),
        }
    }

    /// Everything up to the restart; what fails before it is undone.
    fn send_away(&self, task: &TaskRecord, run: &Run, rcc: &Rcc) -> Result<()> {
        self.0.store.change_course(&task.id, |course| *course = Course::default())?;
        let agent = self.0.sessions.converse(&task.machine)?;
        let survey = agent.survey()?;
        let choice = choose(&survey, rcc);
        for note in &choice.notes {
            self.says(run, LogLevel::Info, note)?;
        }
        if let Some(blocker) = choice.blockers.first() {
            return Err(Error::new(ErrorKind::Conversion, blocker.clone()));
        }
        self.says(run, LogLevel::Info, &describe(&choice))?;
        let placed = self.place(task, run, rcc, &survey, &choice.ways, &agent);
        let started = placed.and_then(|way| {
            for command in &rcc.before {
                self.run_command(run, &agent, command, "before the restart")?;
            }
            check_cancel(run)?;
            self.start(task, run, rcc, way, &agent)
        });
        if started.is_err() {
            self.0.store.revoke_tokens_of(&task.id)?;
            match agent.withdraw() {
                Ok(report) if report.differences.is_empty() => {
                    self.says(run, LogLevel::Info, "nothing of the boot image is left on the machine")?;
                }
                Ok(_) => {}
                Err(error) => {
                    let says = format!(
                        "what was placed could not be taken back yet: {}; the agent does it when it starts",
                        error.chain()
                    );
                    self.says(run, LogLevel::Warning, &says)?;
                }
            }
        }
        started
    }

    /// Puts the boot image in place by the first way that works.
    fn place(
        &self,
        task: &TaskRecord,
        run: &Run,
        rcc: &Rcc,
        survey: &Survey,
        ways: &[Way],
        agent: &Conversation,
    ) -> Result<Way> {
        let bound = Bound { machine: &task.machine, task: &task.id };
        let good_for = ARRIVAL_MAX + Duration::from_secs(u64::from(rcc.contact_seconds()) + 3600);
        let token = self.0.sessions.make_push_token(bound, good_for)?;
        let output = tempfile::tempdir().map_err(|e| Error::io("no folder for the boot image", e))?;
        let watchdog = survey.watchdog.as_ref().map(|watchdog| rcc.watchdog_seconds().min(watchdog.seconds_max));
        let needs = PushNeeds {
            survey,
            ca_fingerprint: self.0.sessions.ca_fingerprint().to_string(),
            token: &token.expose(),
            task: &task.id,
            contact_seconds: rcc.contact_seconds(),
            watchdog_seconds: watchdog,
            output: output.path(),
        };
        let begun = Instant::now();
        let made = self
            .0
            .converter
            .build_push(&needs)
            .map_err(|e| Error::with(ErrorKind::Conversion, "the boot image for this machine cannot be made", e))?;
        if !made.missing.is_empty() {
            let says = format!(
                "the boot image has no driver for {}: start the machine from a medium that has one (`vconverter boot-image build --driver`)",
                made.missing.join(", ")
            );
            return Err(Error::new(ErrorKind::Conversion, says));
        }
        let mut files: Vec<(FileName, &Path)> = Vec::new();
        let mut bytes = 0;
        for (name, path) in &made.files {
            let name = FileName::try_from(name.clone()).map_err(|e| Error::new(ErrorKind::Invalid, e))?;
            bytes +=
                std::fs::metadata(path).map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?.len();
            files.push((name, path));
        }
        if bytes > PUSH_BYTES_MAX {
            let says = format!(
                "the boot image for this machine has {} MiB: expected at most {}",
                bytes >> 20,
                PUSH_BYTES_MAX >> 20
            );
            return Err(Error::new(ErrorKind::Conversion, says));
        }
        let says = format!(
            "boot image for this machine: {:.1} MiB, made in {:.1} s",
            bytes as f64 / f64::from(1 << 20),
            begun.elapsed().as_secs_f64()
        );
        self.says(run, LogLevel::Info, &says)?;
        let mut failures = Vec::new();
        for way in ways {
            let order = PushOrder {
                task: task.id.clone(),
                way: *way,
                command_line: made.command_line.clone(),
                watchdog_seconds: watchdog,
            };
            let only_boot_next = |name: &FileName| name.as_str().ends_with(".efi");
            let wanted: Vec<(FileName, &Path)> =
                files.iter().filter(|(name, _)| *way == Way::BootNext || !only_boot_next(name)).cloned().collect();
            match agent.place(&wanted, order, &run.cancel) {
                Ok(done) => {
                    for line in &done {
                        self.says(run, LogLevel::Info, &format!("{way}: {line}"))?;
                    }
                    let now = Timestamp::now();
                    self.0.store.change_course(&task.id, |course| {
                        (course.way, course.placed_at) = (Some(*way), Some(now));
                    })?;
                    return Ok(*way);
                }
                Err(error) if error.kind == ErrorKind::Conflict => {
                    self.says(run, LogLevel::Warning, &format!("{way}: {error}"))?;
                    failures.push(format!("{way}: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        let says = format!(
            "the boot image cannot be put in place ({}): start the machine from its ISO or by PXE instead",
            failures.join("; ")
        );
        Err(Error::new(ErrorKind::Conversion, says))
    }

    fn start(&self, task: &TaskRecord, run: &Run, rcc: &Rcc, way: Way, agent: &Conversation) -> Result<()> {
        let text = rcc
            .message
            .clone()
            .unwrap_or_else(|| format!("This machine is restarted to be converted ({}).", task.name));
        let says = match rcc.warning_seconds {
            0 => format!("the machine is restarted into the boot image ({way})"),
            seconds => format!("users are warned; in {seconds} s the machine is restarted into the boot image ({way})"),
        };
        self.says(run, LogLevel::Info, &says)?;
        // Kept before: what follows may be the last that is heard.
        let due = Timestamp::now().after(Duration::from_secs(rcc.warning_seconds.into()));
        self.0.store.change_course(&task.id, |course| course.restarted_at = Some(due))?;
        let started = agent.start(text, rcc.warning_seconds);
        if started.as_ref().is_err_and(|error| error.kind == ErrorKind::Conflict) {
            self.0.store.change_course(&task.id, |course| course.restarted_at = None)?;
        }
        started
    }

    /// Waits for the boot image, or for the machine's own system, if that did not come to be.
    fn wait_for_arrival(&self, task: &TaskRecord, run: &Run, rcc: &Rcc) -> Result<()> {
        let sessions = &self.0.sessions;
        let restarted_at = self.0.store.existing_task(&task.id)?.course()?.restarted_at.unwrap_or(Timestamp::now());
        let patience = ARRIVAL_MAX + Duration::from_secs(rcc.contact_seconds().into());
        let deadline = Instant::now() + patience;
        while !sessions.is_ready(&task.machine) {
            check_cancel(run)?;
            let is_back = || Ok::<_, Error>(self.0.store.existing_task(&task.id)?.course()?.back_at.is_some());
            if let Some(since) = sessions.live_since(&task.machine)
                && (since > restarted_at || is_back()?)
            {
                let compared = Instant::now() + COMPARED_MAX;
                while self.0.store.existing_task(&task.id)?.course()?.boot_path.is_none() && Instant::now() < compared {
                    sessions.wait_a_moment();
                }
                let course = self.0.store.change_course(&task.id, |course| {
                    course.back_at.get_or_insert(since);
                })?;
                self.0.store.revoke_tokens_of(&task.id)?;
                return Err(Error::new(ErrorKind::Conversion, came_back(&course)));
            }
            if Instant::now() >= deadline {
                let says = format!(
                    "the machine was restarted at {restarted_at}, and neither the boot image nor its own system was heard for {} min: it \
                     starts its own system by itself; look at its console if it does not",
                    patience.as_secs() / 60
                );
                return Err(Error::new(ErrorKind::Conversion, says));
            }
            sessions.wait_a_moment();
        }
        self.0.store.revoke_tokens_of(&task.id)?;
        let restored = Instant::now() + RESTORED_MAX;
        loop {
            let course = self.0.store.existing_task(&task.id)?.course()?;
            match course.restored {
                Some(report) if report.differences.is_empty() => {
                    let seconds = course.arrived_at.unwrap_or(restarted_at).millis_since(restarted_at) / 1000;
                    let says = format!("the machine stands in the boot image, {seconds} s after its restart");
                    return self.says(run, LogLevel::Info, &says);
                }
                Some(report) => {
                    let says = format!(
                        "the boot path cannot be restored: {}; nothing is copied",
                        report.differences.join("; ")
                    );
                    return Err(Error::new(ErrorKind::Conversion, says));
                }
                None if Instant::now() >= restored => {
                    let says = "the boot image does not say whether it restored the boot path: nothing is copied";
                    return Err(Error::new(ErrorKind::Conversion, says));
                }
                None => {
                    check_cancel(run)?;
                    sessions.wait_a_moment();
                }
            }
        }
    }

    /// Nothing more of the machine is needed: what was wanted for it then is done.
    pub(super) fn release(&self, run: &Run, machine: &str, name: &str, rcc: &Rcc) -> Result<()> {
        if run.was_given_back() || !self.0.sessions.is_ready(machine) {
            return Ok(());
        }
        let (action, says) = match rcc.at_end {
            AtEnd::Restart => (PowerAction::Restart, "the machine is given back: it starts its own system"),
            AtEnd::PowerOff => (PowerAction::PowerOff, "the machine is switched off, as was wanted"),
            AtEnd::Stay => {
                let text = format!("{name}: this machine stays in the boot image");
                self.0.sessions.tell(machine, &ControllerMessage::Stay { text });
                let says = "the machine stays in the boot image, as was wanted";
                return self.0.store.log_task(&run.lease.task, LogLevel::Info, says);
            }
        };
        let now = Timestamp::now();
        let asked = self.0.sessions.end_machine(machine, action, format!("{name}: nothing more is to be copied"));
        let (level, says) = match asked {
            Ok(_) => (LogLevel::Info, says.to_owned()),
            Err(error) => (
                LogLevel::Error,
                format!(
                    "the machine cannot be given back: {}: it restarts by itself when nobody talks to it any more",
                    error.chain()
                ),
            ),
        };
        self.0.store.change_course(&run.lease.task, |course| course.released_at = Some(now))?;
        self.0.store.log_task(&run.lease.task, level, &says)
    }

    /// Watches for the machine's own system from its release on, and runs what is to be run then; for a thread of its own.
    /// `is_over`: the conversion itself ended, and only this is waited for.
    pub(super) fn watch_return(&self, task: &TaskRecord, run: &Run, rcc: &Rcc, is_over: &AtomicBool) -> Result<()> {
        let mut waiting_since = None;
        loop {
            let course = self.0.store.existing_task(&task.id)?.course()?;
            match (course.released_at, self.0.sessions.live_since(&task.machine)) {
                (Some(released_at), Some(since)) if since > released_at => {
                    return self.welcome_back(task, run, rcc, since);
                }
                (released_at, _) if is_over.load(Ordering::Acquire) => {
                    // It failed before the machine was given back, or the machine is meant to stay away.
                    if released_at.is_none() || rcc.at_end != AtEnd::Restart || run.cancel.is_cancelled() {
                        return Ok(());
                    }
                    if waiting_since.get_or_insert_with(Instant::now).elapsed() > RETURN_MAX {
                        let says = format!(
                            "the machine was given back at {}, and its own system was not heard for {} min: look at its console",
                            released_at.unwrap_or(Timestamp::now()),
                            RETURN_MAX.as_secs() / 60
                        );
                        return self.0.store.log_task(&task.id, LogLevel::Error, &says);
                    }
                }
                _ => {}
            }
            if run.is_lost() {
                return Ok(());
            }
            self.0.sessions.wait_a_moment();
        }
    }

    fn welcome_back(&self, task: &TaskRecord, run: &Run, rcc: &Rcc, since: Timestamp) -> Result<()> {
        let compared = Instant::now() + COMPARED_MAX;
        while self.0.store.existing_task(&task.id)?.course()?.boot_path.is_none() && Instant::now() < compared {
            self.0.sessions.wait_a_moment();
        }
        let course = self.0.store.change_course(&task.id, |course| course.back_at = Some(since))?;
        let downtime = course.describe_downtime().unwrap_or_default();
        self.0.store.log_task(
            &task.id,
            LogLevel::Info,
            &format!("the machine runs its own system again; it was away for {downtime}"),
        )?;
        if course.boot_path.is_none() {
            let says = "its own system did not say whether the boot path is as it was: see its agent's log";
            self.0.store.log_task(&task.id, LogLevel::Warning, says)?;
        }
        let agent = self.0.sessions.converse(&task.machine);
        for command in &rcc.after {
            let ran = agent.as_ref().map_err(|e| Error::new(e.kind, e.context.clone()));
            if let Err(error) = ran.and_then(|agent| self.run_command(run, agent, command, "after the return")) {
                self.0.store.log_task(&task.id, LogLevel::Error, &error.chain())?;
            }
        }
        Ok(())
    }

    fn run_command(&self, run: &Run, agent: &Conversation, command: &MachineCommand, when: &str) -> Result<()> {
        self.0.store.log_task(&run.lease.task, LogLevel::Info, &format!("{when}: {}", command.command))?;
        let end = agent.run(&command.command, command.seconds)?;
        for line in end.output.lines().take(50) {
            self.0.store.log_task(&run.lease.task, LogLevel::Info, &format!("  {line}"))?;
        }
        match end.status {
            Some(0) => Ok(()),
            Some(status) => {
                Err(Error::new(ErrorKind::Conversion, format!("{when}: {}: exit code {status}", command.command)))
            }
            None => Err(Error::new(ErrorKind::Conversion, format!("{when}: {}: it did not end", command.command))),
        }
    }

    fn says(&self, run: &Run, level: LogLevel, text: &str) -> Result<()> {
        match self.0.store.task_says(&run.lease, level, text)? {
            true => Ok(()),
            false => {
                run.lose();
                Err(Error::new(ErrorKind::Cancelled, "the task's lease is lost"))
            }
        }
    }
}

fn check_cancel(run: &Run) -> Result<()> {
    match run.cancel.is_cancelled() {
        true => Err(Error::new(ErrorKind::Cancelled, "cancelled before anything was copied")),
        false => Ok(()),
    }
}

/// Why a machine runs its own system again, as far as one knows.
fn came_back(course: &Course) -> String {
    let how = match (&course.restored, course.arrived_at) {
        (Some(_), _) | (_, Some(_)) => {
            "after it had been in the boot image (which restarts it when nothing is to be done there, or the controller is not to be reached)"
        }
        (None, None) => {
            "without a word of the boot image: it did not start, it panicked or was reset, or it found no network"
        }
    };
    let path = match &course.boot_path {
        Some(report) if report.differences.is_empty() => "its boot path is as it was".to_owned(),
        Some(report) => format!("its boot path differs from the record: {}", report.differences.join("; ")),
        None => "its agent did not say yet whether the boot path is as it was".to_owned(),
    };
    let downtime = course.describe_downtime().map(|text| format!("; it was away for {text}")).unwrap_or_default();
    format!("the machine came back to its own system by itself, {how}; {path}{downtime}")
}
