//! The agent port: machines that wait, machines that were approved, and the streams of their disks.
//!
//! Each connection has a thread that reads it; writes come from whoever has something to say. Memory and threads are
//! bounded by [`gate`] for peers that were not approved. Nothing here trusts what such a peer says of itself: it is shown
//! to the operator and kept nowhere.

mod certificate;
mod control;
mod conversation;
mod drivers;
mod enrolment;
mod entry;
mod gate;
mod link;
mod power;
mod registry;
mod streams;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::message::{About, AgentKind, ControllerMessage, Report, StreamToken, write_message};
use protocol::pairing::PairingCode;
use protocol::tls::{ControllerTls, Fingerprint};
use protocol::{Connection, VersionRange};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bandwidth::TaskBandwidth;
use crate::store::Store;
use crate::trust::{Clock, Throttle};
use crate::{Error, ErrorKind, Result, Timestamp};

use entry::{Entry, Refusal};
use gate::{Gate, Pass};
use registry::{CodeEntry, Phase, Registry, SessionId};
use streams::{Expected, OpenStreams};

pub use conversation::{CommandEnd, Conversation};
pub use link::TestedLink;
pub use power::Ending;
pub use streams::ConnectedMachine;

/// Port for agents, where none is chosen. Not assigned by IANA.
pub const AGENT_PORT: u16 = 7770;

/// How long an approval waits for the machine's report before it answers without.
const REPORT_WAIT: Duration = Duration::from_secs(20);
/// A peer that does not take what is sent to it for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest wait before a waiter looks again whether it was cancelled.
const WAIT: Duration = Duration::from_millis(500);

type Link = Arc<Connection>;
type Tokens = HashMap<StreamToken, Expected>;

/// All agent connections of a controller; clones share them.
#[derive(Clone)]
pub struct Sessions(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    tls: ControllerTls,
    gate: Gate,
    registry: Mutex<Registry<Link>>,
    /// Tokens that were given out, until their data connection comes or they are withdrawn.
    expected: Mutex<Tokens>,
    /// Goes with `registry`; waiters look again at least twice a second.
    changed: Condvar,
    /// Goes with `expected`.
    answered: Condvar,
    /// Data connections, to be cut with their agent.
    streams: OpenStreams,
    refused: Mutex<Refusals>,
    /// Addresses from which wrong enrolment tokens came.
    enrolments: Mutex<Throttle>,
    clock: Clock,
    /// Held while a machine's presence is looked up and told to the tasks that wait for it.
    presence: Mutex<()>,
    pushes: drivers::Pushes,
    conversations: conversation::Conversations,
    refused_ends: Mutex<power::Refusals>,
    /// Held by the test of a link.
    link_tests: Mutex<()>,
    traffic: Traffic,
}

/// What came over data connections since the start.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Connections that are open.
    pub(crate) open: AtomicU64,
    /// Bytes that were received on all of them.
    pub(crate) received: AtomicU64,
}

/// What is refused is audited once a minute for a key and reason: a restarting agent tries every few seconds.
#[derive(Default)]
struct Refusals(HashMap<String, Instant>);

/// What a session says of itself, for the API.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LiveSession {
    /// Fingerprint of the agent's key.
    pub key: String,
    /// Where it is.
    pub phase: LivePhase,
    /// The agent's address.
    pub address: SocketAddr,
    /// Whether it stands in the boot image (the machine is Cold Cloning Ready) or on a live system.
    pub kind: AgentKind,
    /// Version of the agent.
    pub program: String,
    /// When it connected.
    pub since: Timestamp,
    /// Seconds since it was heard last. It says something every [`HEARTBEAT_SECONDS`](protocol::message::HEARTBEAT_SECONDS), and is gone after
    /// [`SILENCE_SECONDS_MAX`](protocol::message::SILENCE_SECONDS_MAX).
    pub silent_seconds: u64,
    /// What the machine says of itself, while it waits; not to be trusted.
    pub about: Option<About>,
    /// Id of the machine, once it reported.
    pub machine: Option<String>,
    /// What was odd about its disks.
    pub warnings: Vec<String>,
}

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LivePhase {
    /// The pairing code is being made.
    Pairing,
    /// The machine shows its pairing code and waits for an operator.
    WaitingForApproval,
    /// Approved, and its report is on the way.
    Approved,
    /// Approved and reported: it can be converted.
    Ready,
}

/// What an approval did.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Approval {
    /// Fingerprint of the key that was approved.
    pub key: String,
    /// What the machine said of itself.
    pub about: About,
    /// Id of the machine; `None` where its report was not there in time.
    pub machine: Option<String>,
}

impl Sessions {
    /// No connections yet.
    pub fn new(store: Arc<Store>, tls: ControllerTls, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            store,
            tls,
            gate: Gate::default(),
            registry: Mutex::new(Registry::new()),
            expected: Mutex::default(),
            changed: Condvar::new(),
            answered: Condvar::new(),
            streams: OpenStreams::default(),
            refused: Mutex::default(),
            enrolments: Mutex::default(),
            clock,
            presence: Mutex::default(),
            refused_ends: Mutex::default(),
            pushes: drivers::Pushes::default(),
            conversations: conversation::Conversations::default(),
            link_tests: Mutex::default(),
            traffic: Traffic::default(),
        }))
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.0.traffic
    }

    fn now(&self) -> Timestamp {
        (self.0.clock)()
    }

    /// What a connection may do.
    fn entry(&self, connection: &Connection) -> Result<Entry> {
        let now = Duration::from_millis(u64::try_from(self.now().0).unwrap_or(0));
        let shown = self.0.tls.examine(connection.peer_certificate(), now).map_err(control::network)?;
        let standing = self.0.store.key_standing(&connection.agent_key().to_string())?;
        Ok(entry::entry(standing, shown))
    }

    /// Sends a connection away, with a line in the audit log where that says something new.
    fn send_away(&self, connection: &Connection, address: SocketAddr, refusal: Refusal) -> Result<()> {
        let (key, reason) = (connection.agent_key().to_string(), refusal.reason());
        tracing::warn!(%key, %address, "refused: {reason}");
        // Anybody can make keys and foreign certificates, so those count together.
        let what = if refusal == Refusal::Foreign { "another controller's certificate" } else { key.as_str() };
        self.note_refused(what, "agent refused", &key, &format!("from {address}: {reason}"));
        match refusal {
            Refusal::Over(_) => connection.refuse_certificate(&reason, Some(refusal.remedy())),
            Refusal::Revoked | Refusal::Foreign => connection.refuse(&reason, Some(refusal.remedy())),
        }
        .map_err(control::network)
    }

    fn note_refused(&self, what: &str, action: &str, key: &str, detail: &str) {
        let is_news = {
            let mut refused = self.0.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.is_news(&format!("{action} {what}"), Instant::now())
        };
        if is_news && let Err(error) = self.0.store.write_audit("controller", action, key, detail) {
            tracing::error!("{}", error.chain());
        }
    }

    /// Fingerprint of the controller's CA: what a boot image is built with.
    pub fn ca_fingerprint(&self) -> Fingerprint {
        self.0.tls.authority()
    }

    /// Accepts agents, for as long as the process lives.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] where no thread can be started.
    pub fn listen(&self, listener: TcpListener) -> Result<()> {
        let sessions = self.clone();
        std::thread::Builder::new()
            .name("agent port".into())
            .spawn(move || sessions.accept_all(&listener))
            .map(drop)
            .map_err(|e| Error::with(ErrorKind::Network, "agent port: no thread can be started", e))
    }

    fn accept_all(&self, listener: &TcpListener) {
        loop {
            let (socket, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or a connection that was gone already: the port itself stays good.
                    tracing::warn!(%error, "agent port: a connection cannot be accepted");
                    std::thread::sleep(Duration::from_millis(200));
                    continue;
                }
            };
            let Some(pass) = self.0.gate.enter(address.ip()) else {
                tracing::debug!(%address, "agent port: too many connections that are not approved");
                continue;
            };
            let sessions = self.clone();
            let spawned = std::thread::Builder::new()
                .name(format!("agent {}", address.ip()))
                .stack_size(1 << 20)
                .spawn(move || {
                    if let Err(error) = sessions.serve(socket, address, pass) {
                        tracing::info!(%address, "agent connection ended: {}", error.chain());
                    }
                });
            if let Err(error) = spawned {
                tracing::warn!(%error, "agent port: no thread can be started");
            }
        }
    }

    /// All live sessions, the oldest first.
    pub fn live(&self) -> Vec<LiveSession> {
        let registry = self.registry();
        let mut live: Vec<LiveSession> = registry.sessions().map(LiveSession::of).collect();
        live.sort_by_key(|session| session.since);
        live
    }

    /// Approves the waiting machine whose screen shows this code, and waits a moment for its report.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a code that no waiting machine shows; it counts against all of them.
    /// [`ErrorKind::Invalid`] for a text that is no code; it counts against none. [`ErrorKind::Storage`].
    pub fn approve(&self, code: &str, actor: &str) -> Result<Approval> {
        let typed: PairingCode = code
            .parse()
            .map_err(|e: protocol::pairing::ParsePairingCodeError| Error::new(ErrorKind::Invalid, e.to_string()))?;
        let entry = self.registry().enter_code(typed);
        let session = match entry {
            CodeEntry::Matches(session) => session,
            CodeEntry::Wrong { waiting, closed } => return Err(self.wrong_code(waiting, closed, actor)),
        };
        let Phase::Waiting { about, .. } = session.phase else {
            return Err(Error::new(ErrorKind::NotFound, "no waiting machine shows this code"));
        };
        let key = session.caller.key;
        self.0.store.approve_key(&key.to_string(), &label(&about), actor)?;
        if self.registry().approve(key, session.id) {
            // Where the link fails just now, the machine comes back with its key, which is approved.
            if let Err(error) = write_message(&*session.link, &ControllerMessage::Approved) {
                tracing::info!(%key, "the approval did not reach the machine yet: {}", error.chain());
            }
        }
        Ok(Approval { key: key.to_string(), about, machine: self.wait_for_report(key) })
    }

    /// Revokes the keys of a machine, ends its sessions, and forgets it unless tasks tell of it. Returns the keys.
    ///
    /// # Errors
    /// Those of [`Store::forget_machine`].
    pub fn forget(&self, machine: &str, actor: &str) -> Result<Vec<String>> {
        let keys = self.0.store.forget_machine(machine, actor)?;
        for key in &keys {
            self.end(key, "this machine was forgotten by an operator");
        }
        Ok(keys)
    }

    /// Revokes one agent's key, named by its fingerprint or the beginning of it, and ends its session and streams. Returns
    /// the key. A task that it served waits for its machine.
    ///
    /// # Errors
    /// Those of [`Store::revoke_key`].
    pub fn revoke(&self, key: &str, actor: &str) -> Result<String> {
        let key = self.0.store.revoke_key(key, actor)?;
        self.end(&key, "this machine's key was revoked by an operator");
        Ok(key)
    }

    /// Ends what a key has that the store takes no more. Whoever is just coming in looks into the store once more after
    /// they can be found here.
    fn end(&self, key: &str, reason: &str) {
        let Ok(key) = key.parse::<Fingerprint>() else { return };
        let ended = self.registry().end(key);
        self.0.streams.cut(key);
        if let Some(session) = ended {
            let _ = write_message(&*session.link, &ControllerMessage::Denied { reason: reason.to_owned() });
            session.link.finish();
            session.link.abort();
        }
        self.0.changed.notify_all();
    }

    /// The keys of agents that are connected and approved.
    pub fn connected_keys(&self) -> std::collections::HashSet<String> {
        let registry = self.registry();
        let approved = registry.sessions().filter(|session| matches!(session.phase, Phase::Approved { .. }));
        approved.map(|session| session.caller.key.to_string()).collect()
    }

    fn wrong_code(&self, waiting: usize, closed: Vec<registry::Session<Link>>, actor: &str) -> Error {
        let detail = format!("{waiting} machines waiting, {} closed", closed.len());
        if let Err(error) = self.0.store.write_audit(actor, "wrong pairing code", "", &detail) {
            tracing::error!("{}", error.chain());
        }
        for session in &closed {
            let key = session.caller.key;
            tracing::warn!(%key, address = %session.caller.address, "closed after too many wrong pairing codes");
            let reason = "the pairing code was typed wrong too often; the next one is new".to_owned();
            let _ = write_message(&*session.link, &ControllerMessage::Denied { reason });
            session.link.finish();
            // Its thread is reading; it ends when the agent closes, or here.
            session.link.abort();
        }
        self.0.changed.notify_all();
        let context = match (waiting, closed.len()) {
            (0, _) => "no machine is waiting for approval".to_owned(),
            (_, 0) => "no waiting machine shows this code".to_owned(),
            (_, closed) => format!(
                "no waiting machine shows this code; after {} wrong ones {closed} of them must begin anew with another",
                registry::WRONG_CODES_MAX
            ),
        };
        Error::new(ErrorKind::NotFound, context)
    }

    /// The machine of a key, as soon as it reported.
    fn wait_for_report(&self, key: Fingerprint) -> Option<String> {
        let deadline = Instant::now() + REPORT_WAIT;
        let mut registry = self.registry();
        loop {
            let machine = registry.sessions().find(|s| s.caller.key == key).and_then(|session| match &session.phase {
                Phase::Approved { reported } => reported.as_ref().map(|reported| reported.machine.clone()),
                _ => None,
            });
            if machine.is_some() || Instant::now() >= deadline {
                return machine;
            }
            registry = self.wait(registry);
        }
    }

    /// A machine as the pipeline sees it: its agent's next report may come in another session. `task` is named to the
    /// agent.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Storage`].
    pub fn connected_machine(&self, id: &str, task: &str, bandwidth: TaskBandwidth) -> Result<ConnectedMachine> {
        ConnectedMachine::new(self.clone(), id, task, bandwidth)
    }

    /// Whether a machine is Cold Cloning Ready: its agent is connected from the boot image, and reported.
    pub fn is_ready(&self, machine: &str) -> bool {
        self.kind_of(machine) == Some(AgentKind::BootImage)
    }

    /// Tells the tasks that wait for a machine whether it is Cold Cloning Ready now. Returns those that found it just now.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn tell_waiting_tasks(&self, machine: &str) -> Result<Vec<String>> {
        let _alone = self.0.presence.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_ready(machine) {
            return self.0.store.machine_is_ready(machine);
        }
        self.0.store.machine_has_left(Some(machine)).map(|()| Vec::new())
    }

    /// Where the agent of a machine runs, if it is connected and reported.
    pub fn kind_of(&self, machine: &str) -> Option<AgentKind> {
        self.registry().of_machine(machine).map(|(session, _)| session.caller.kind)
    }

    /// Where the agent of a machine is connected from, if it is.
    pub fn address_of(&self, machine: &str) -> Option<SocketAddr> {
        self.registry().of_machine(machine).map(|(session, _)| session.caller.address)
    }

    /// Tells a machine's screen something, if it is there.
    pub fn tell(&self, machine: &str, message: &ControllerMessage) {
        let link = self.registry().of_machine(machine).map(|(session, _)| session.link.clone());
        if let Some(link) = link
            && let Err(error) = write_message(&*link, message)
        {
            tracing::debug!("{machine} was not told: {}", error.chain());
        }
    }

    /// The last report of a machine with the disks that it has now.
    fn report(&self, machine: &str) -> Option<Arc<Report>> {
        self.registry().of_machine(machine).map(|(_, reported)| reported.report.clone())
    }

    fn registry(&self) -> MutexGuard<'_, Registry<Link>> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expected(&self) -> MutexGuard<'_, Tokens> {
        self.0.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the registry may have changed, at most half a second.
    fn wait<'a>(&self, registry: MutexGuard<'a, Registry<Link>>) -> MutexGuard<'a, Registry<Link>> {
        let waited = self.0.changed.wait_timeout(registry, WAIT);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until a token may have been answered, at most half a second.
    fn wait_for_answer<'a>(&self, expected: MutexGuard<'a, Tokens>) -> MutexGuard<'a, Tokens> {
        let waited = self.0.answered.wait_timeout(expected, WAIT);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Refusals {
    /// Whether this refusal is worth a line in the audit log.
    fn is_news(&mut self, what: &str, now: Instant) -> bool {
        self.0.retain(|_, at| now.saturating_duration_since(*at) < Duration::from_secs(60));
        let news = !self.0.contains_key(what);
        self.0.entry(what.to_owned()).or_insert(now);
        news
    }
}

impl LiveSession {
    /// `boot-image` or `live`.
    pub fn booted(&self) -> &'static str {
        control::booted(self.kind)
    }

    fn of(session: &registry::Session<Link>) -> Self {
        let (phase, about, reported) = match &session.phase {
            Phase::Pairing => (LivePhase::Pairing, None, None),
            Phase::Waiting { about, .. } => (LivePhase::WaitingForApproval, Some(about.clone()), None),
            Phase::Approved { reported: None } => (LivePhase::Approved, None, None),
            Phase::Approved { reported } => (LivePhase::Ready, None, reported.clone()),
        };
        Self {
            key: session.caller.key.to_string(),
            phase,
            address: session.caller.address,
            kind: session.caller.kind,
            program: session.caller.program.clone(),
            since: session.since,
            silent_seconds: session.last_heard.elapsed().as_secs(),
            about,
            warnings: reported.as_ref().map(|r| r.report.warnings.clone()).unwrap_or_default(),
            machine: reported.map(|r| r.machine),
        }
    }
}

/// What a machine said of itself, in one line.
fn label(about: &About) -> String {
    let parts = [&about.hostname, &about.product, &about.serial];
    parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(", ")
}
