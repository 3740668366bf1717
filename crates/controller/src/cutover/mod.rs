//! Cutover: the source is switched off and seen to be gone, then its VM is connected and started in its place; and back.
//!
//! A VM with the source's name, keys and addresses must never be on the network together with it: that is why each step waits
//! until the one before is seen to be true, and why nothing is started where that cannot be seen.

mod silence;
mod wake;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conversion::{Outcome, Verdict};
use machine::Machine;
use protocol::message::PowerAction;
use target::{DomainState, Virsh};

use crate::sessions::Sessions;
use crate::store::{Cutover, CutoverState, LogLevel, Store, TaskRecord, TaskState};
use crate::{Error, ErrorKind, Result};

/// Where VMs are, if nothing else is said.
pub const CONNECTION: &str = "qemu:///system";

/// Time for a system to end what runs on it.
const SHUT_DOWN_MAX: Duration = Duration::from_secs(300);
/// Time for a guest to shut down before it is switched off.
const GUEST_MAX: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_secs(1);

/// How a cutover is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CutoverWish {
    /// Where the VM is to run, as libvirt names it: `qemu:///system`.
    #[serde(default)]
    pub connection: Option<String>,
    /// The source has no agent that could switch it off, and somebody saw that it is off.
    #[serde(default)]
    pub source_is_off: bool,
    /// The source ran its own system since it was copied; what it wrote since is given up.
    #[serde(default)]
    pub lose_changes: bool,
    /// Also a VM whose boot proof did not pass.
    #[serde(default)]
    pub unproven: bool,
}

/// The cutovers of a controller; clones share them.
#[derive(Clone)]
pub struct Cutovers {
    store: Arc<Store>,
    sessions: Sessions,
    virsh: PathBuf,
}

/// What is needed of a task that is done.
struct Subject {
    task: TaskRecord,
    name: String,
    definition: PathBuf,
    machine: Machine,
    /// Where the source was heard last, and what it said of its own.
    addresses: Vec<IpAddr>,
}

impl Cutovers {
    /// Those at work when the last controller ended are over.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn new(store: Arc<Store>, sessions: Sessions, virsh: PathBuf) -> Result<Self> {
        store.end_interrupted_cutovers()?;
        Ok(Self { store, sessions, virsh })
    }

    /// Looks whether a task's VM can take its source's place, and begins with it. It works on after this returns.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the task; [`ErrorKind::Conflict`] with what stands against it; [`ErrorKind::Invalid`] for a
    /// connection that cannot be one; [`ErrorKind::Storage`], [`ErrorKind::Io`].
    pub fn begin(&self, task: &str, wish: &CutoverWish, actor: &str) -> Result<Cutover> {
        let subject = self.subject(task)?;
        let conflict = |what: String| Err(Error::new(ErrorKind::Conflict, what));
        let verdict = outcome_of(&subject.task)?.proof.verdict;
        if verdict != Verdict::Passed && !wish.unproven {
            return conflict(format!("the boot of {} is not proven: see its proof, and say --unproven", subject.name));
        }
        let is_connected = match self.sessions.kind_of(&subject.task.machine) {
            Some(protocol::message::AgentKind::Agent) if !wish.lose_changes => {
                return conflict(format!(
                    "machine {} runs its own system: what it wrote since it was copied is not in the VM; convert it again, or say --lose-changes",
                    subject.task.machine
                ));
            }
            kind => kind.is_some(),
        };
        if !is_connected && !wish.source_is_off {
            return conflict(format!(
                "machine {} is not connected, so it cannot be switched off from here: see that it is off, and say --source-is-off",
                subject.task.machine
            ));
        }
        let connection = connection(wish)?;
        let virsh = Virsh::new(&self.virsh, connection);
        if let DomainState::Active(state) = virsh.state(&subject.name).map_err(refused)? {
            return conflict(format!("domain {} at {connection} is {state} already", subject.name));
        }
        self.spawn(subject, CutoverState::Running, connection, actor, move |cutovers, subject| {
            cutovers.replace(subject, &virsh, is_connected)
        })
    }

    /// Stops a task's VM, disconnects it, and wakes its source. It works on after this returns.
    ///
    /// # Errors
    /// As [`Cutovers::begin`]; [`ErrorKind::Conflict`] where there was no cutover.
    pub fn undo(&self, task: &str, actor: &str) -> Result<Cutover> {
        let subject = self.subject(task)?;
        let none = || Error::new(ErrorKind::Conflict, format!("task {task} has no cutover that could be undone"));
        let cutover = self.store.cutover(task)?.ok_or_else(none)?;
        let virsh = Virsh::new(&self.virsh, &cutover.connection);
        self.spawn(subject, CutoverState::Undoing, &cutover.connection, actor, move |cutovers, subject| {
            cutovers.give_back(subject, &virsh)
        })
    }

    fn subject(&self, task: &str) -> Result<Subject> {
        let task = self.store.existing_task(task)?;
        if task.state != TaskState::Done {
            let context = format!("task {} is {}: only what is done can take its source's place", task.id, task.state);
            return Err(Error::new(ErrorKind::Conflict, context));
        }
        let outcome = outcome_of(&task)?;
        let definition = outcome.folder.join(&outcome.definition);
        if !definition.is_file() {
            let context = format!("{}: the result is not there any more", definition.display());
            return Err(Error::new(ErrorKind::Conflict, context));
        }
        let known = self.store.existing_machine(&task.machine)?;
        let machine = known.reported()?.clone();
        let own = machine.nics.iter().flat_map(|nic| &nic.addresses).map(|net| net.address);
        let heard = self.sessions.address_of(&task.machine).map(|address| address.ip());
        let mut addresses: Vec<IpAddr> = heard.into_iter().chain(own).filter(|ip| !ip.is_loopback()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(Subject { name: outcome.name, definition, machine, addresses, task })
    }

    fn spawn(
        &self,
        subject: Subject,
        state: CutoverState,
        connection: &str,
        actor: &str,
        work: impl FnOnce(&Self, &Subject) -> Result<()> + Send + 'static,
    ) -> Result<Cutover> {
        let task = subject.task.id.clone();
        self.store.begin_cutover(&task, state, connection, actor)?;
        let (cutovers, id) = (self.clone(), task.clone());
        let spawned = std::thread::Builder::new().name(format!("cutover {task}")).spawn(move || {
            let worked = work(&cutovers, &subject);
            let (end, error) = match (&worked, state) {
                (Ok(()), CutoverState::Undoing) => (CutoverState::Undone, None),
                (Ok(()), _) => (CutoverState::Done, None),
                (Err(error), _) => (CutoverState::Failed, Some(error.chain())),
            };
            if let Err(error) = cutovers.store.end_cutover(&id, end, error.as_deref()) {
                tracing::error!(task = %id, "the end of the cutover cannot be written: {}", error.chain());
            }
        });
        if let Err(e) = spawned {
            let error = Error::io("no thread for the cutover", e);
            self.store.end_cutover(&task, CutoverState::Failed, Some(&error.chain()))?;
            return Err(error);
        }
        let gone = || Error::new(ErrorKind::NotFound, format!("no cutover of task {task}"));
        self.store.cutover(&task)?.ok_or_else(gone)
    }

    /// The source goes, the VM comes.
    fn replace(&self, subject: &Subject, virsh: &Virsh, is_connected: bool) -> Result<()> {
        if is_connected {
            self.say(subject, "the source is switched off")?;
            let text = format!("{}: this machine is switched off, its VM takes its place", subject.name);
            let ending = self.sessions.end_machine(&subject.task.machine, PowerAction::PowerOff, text)?;
            self.sessions.wait_for_end(ending, SHUT_DOWN_MAX)?;
        }
        let seen = silence::wait_for(&subject.addresses, SHUT_DOWN_MAX)?;
        self.say(subject, &seen)?;
        virsh.define(&subject.definition).map_err(refused)?;
        let nics = virsh.set_links(&subject.name, true).map_err(refused)?;
        self.say(subject, &format!("the VM is defined, its NICs are connected: {nics}"))?;
        virsh.start(&subject.name).map_err(refused)?;
        match virsh.state(&subject.name).map_err(refused)? {
            DomainState::Active(state) => self.say(subject, &format!("the VM is {state}")),
            _ => {
                Err(Error::new(ErrorKind::Conversion, format!("domain {} was started and does not run", subject.name)))
            }
        }
    }

    /// The VM goes, the source comes.
    fn give_back(&self, subject: &Subject, virsh: &Virsh) -> Result<()> {
        let is_active =
            || -> Result<bool> { Ok(matches!(virsh.state(&subject.name).map_err(refused)?, DomainState::Active(_))) };
        if is_active()? {
            self.say(subject, "the VM is shut down")?;
            // A guest that does not listen is switched off below.
            let _ = virsh.shut_down(&subject.name);
            let deadline = Instant::now() + GUEST_MAX;
            while is_active()? && Instant::now() < deadline {
                std::thread::sleep(PAUSE);
            }
            if is_active()? {
                virsh.power_off(&subject.name).map_err(refused)?;
                self.say(subject, "the VM's guest did not shut down: it is switched off")?;
            }
        }
        if virsh.state(&subject.name).map_err(refused)? != DomainState::Absent {
            virsh.set_links(&subject.name, false).map_err(refused)?;
        }
        self.say(subject, "the VM is off, and its NICs are disconnected")?;
        let says = wake::wake(&subject.machine);
        self.say(subject, &says)
    }

    fn say(&self, subject: &Subject, text: &str) -> Result<()> {
        tracing::info!(task = %subject.task.id, "cutover: {text}");
        self.store.log_task(&subject.task.id, LogLevel::Info, text)
    }
}

fn outcome_of(task: &TaskRecord) -> Result<Outcome> {
    let text = task.outcome.as_deref().unwrap_or("null");
    serde_json::from_str(text)
        .map_err(|e| Error::with(ErrorKind::Storage, format!("outcome of task {} cannot be understood", task.id), e))
}

fn connection(wish: &CutoverWish) -> Result<&str> {
    let connection = wish.connection.as_deref().unwrap_or(CONNECTION);
    let is_plain = connection.len() <= 256 && connection.bytes().all(|byte| byte.is_ascii_graphic());
    match is_plain && connection.contains("://") && !connection.starts_with('-') {
        true => Ok(connection),
        false => Err(Error::new(ErrorKind::Invalid, "connection: expected one of libvirt, such as qemu:///system")),
    }
}

fn refused(error: target::Error) -> Error {
    Error::with(ErrorKind::Conversion, "the hypervisor", error)
}
