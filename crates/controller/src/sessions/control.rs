//! One connection from its first byte: the opening, then a control connection's pairing or enrolment, waiting and working.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::push::BootPathReport;
use protocol::enrolment::EnrolmentSecret;
use protocol::message::{
    About, AgentKind, AgentMessage, ControllerMessage, Hello, MESSAGE_BYTES_MAX, Opening, REPORT_BYTES_MAX, Report,
    SILENCE_SECONDS_MAX, read_message, write_message,
};
use protocol::pairing::{Pairing, PairingCode, Role};

use super::certificate::Certification;
use super::enrolment::{Enrolled, refused};
use super::entry::{Entry, Refusal};
use super::registry::{Admission, Caller, Phase, SessionId};
use super::{Connection, Error, ErrorKind, Link, Pass, Result, Sessions, VersionRange, WRITE_TIMEOUT, label};
use crate::store::{KeyStanding, Sighting};

/// Version of this controller.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");
/// Bytes kept of each text that a stranger says of itself.
const ABOUT_BYTES_MAX: usize = 128;
/// Messages that a waiting machine may send beyond one a second.
const MESSAGES_AHEAD_MAX: u64 = 32;
/// Time for the four messages of a pairing.
const PAIRING_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the store is told that a machine is still there.
const SEEN_INTERVAL: Duration = Duration::from_secs(60);

impl Sessions {
    /// Serves one connection to its end.
    pub(super) fn serve(&self, socket: TcpStream, address: SocketAddr, pass: Pass) -> Result<()> {
        let connection = Connection::accept(socket, &self.0.tls).map_err(network)?;
        connection.set_write_timeout(Some(WRITE_TIMEOUT));
        match connection.opening().map_err(network)? {
            Opening::Hello(hello) => self.serve_control(Arc::new(connection), hello, address, pass),
            Opening::OpenStream(open) => self.serve_stream(connection, &open, address, pass),
        }
    }

    fn serve_control(&self, link: Link, hello: Hello, address: SocketAddr, mut pass: Pass) -> Result<()> {
        let Some(version) = VersionRange::SPOKEN.common(hello.protocol) else {
            let reason = format!(
                "this controller speaks revision {} of the protocol, the agent {}",
                VersionRange::SPOKEN,
                hello.protocol
            );
            let remedy = "build a boot image with this controller's `vconverter boot-image build` and start that";
            return link.refuse(&reason, Some(remedy)).map_err(network);
        };
        let key = link.agent_key();
        let (approved, until) = match self.entry(&link)? {
            Entry::Works { until } => (true, until),
            Entry::Waits => (false, None),
            Entry::Refused(refusal) => return self.send_away(&link, address, refusal),
        };
        if approved && !pass.approve() {
            return link.refuse("too many connections", None).map_err(network);
        }
        let caller = Caller {
            key,
            instance: hello.instance,
            address,
            kind: hello.kind,
            program: short(&hello.program),
            protocol: version,
        };
        let phase = if approved { Phase::Approved { reported: None } } else { Phase::Pairing };
        let admission = self.registry().admit(caller.clone(), link.clone(), phase, Instant::now());
        let id = match admission {
            Admission::Begun { id, replaced } => {
                if let Some(replaced) = replaced {
                    replaced.abort();
                }
                id
            }
            Admission::SecondSession => {
                tracing::warn!(%key, %address, "a second session with one key was refused");
                // A stranger could fill the log with keys of its own.
                if approved {
                    let key = key.to_string();
                    self.note_refused(&key, "second session refused", &key, &format!("from {address}"));
                }
                let reason = "another agent with this machine's key is connected";
                let remedy = "stop the other one, or give this one a state folder of its own";
                return link.refuse(reason, Some(remedy)).map_err(network);
            }
        };
        // Whoever revoked the key in between found no session to end.
        let is_revoked = self.0.store.key_standing(&key.to_string()).map(|standing| standing == KeyStanding::Revoked);
        if !matches!(is_revoked, Ok(false)) {
            self.registry().leave(key, id);
            return is_revoked.and_then(|_| self.send_away(&link, address, Refusal::Revoked));
        }
        let certification = Certification::new(until);
        let seen = Instant::now();
        let mut control = Control { sessions: self, link, caller, id, pass, seen, machine: None, certification };
        let served = control.link.welcome(version, PROGRAM).map_err(network).and_then(|()| control.run(approved));
        let machine = control.machine.take();
        self.registry().leave(key, id);
        self.0.changed.notify_all();
        control.link.abort();
        if let Some(machine) = machine {
            self.tell_waiting_tasks(&machine)?;
            if self.kind_of(&machine).is_none() {
                self.0.store.machine_left(&machine)?;
            }
        }
        served
    }
}

/// A control connection that was let in.
struct Control<'a> {
    sessions: &'a Sessions,
    link: Link,
    caller: Caller,
    id: SessionId,
    pass: Pass,
    seen: Instant,
    /// Its machine's id, once it reported.
    machine: Option<String>,
    certification: Certification,
}

impl Control<'_> {
    fn run(&mut self, approved: bool) -> Result<()> {
        if approved {
            self.send(&ControllerMessage::Approved)?;
        } else {
            let lives = match self.pair()? {
                Some((code, about)) => {
                    tracing::info!(address = %self.caller.address, "waiting for approval: {}", label(&about));
                    self.sessions.registry().wait_for_code(self.caller.key, self.id, code, about)
                }
                None => {
                    let lives = self.sessions.registry().approve(self.caller.key, self.id);
                    self.send(&ControllerMessage::Approved)?;
                    lives
                }
            };
            if !lives {
                return Ok(());
            }
            self.sessions.0.changed.notify_all();
        }
        self.listen()
    }

    /// The four messages of a pairing; what both ends then have is the code. `None` where the agent had a token that approved
    /// it.
    fn pair(&self) -> Result<Option<(PairingCode, About)>> {
        self.link.set_read_timeout(Some(PAIRING_TIMEOUT));
        let pairing = Pairing::start(Role::Controller, self.link.binding().clone()).map_err(network)?;
        self.send(&ControllerMessage::PairingCommit { commitment: pairing.commitment() })?;
        let (committed, about) = match self.receive(MESSAGE_BYTES_MAX)? {
            AgentMessage::PairingCommit { commitment, about } => (pairing.receive_commitment(commitment), about),
            AgentMessage::Enrol { secret, about } => return self.enrol(&secret, &shortened(&about)).map(|()| None),
            _ => return Err(unexpected("a pairing commitment")),
        };
        let AgentMessage::PairingReveal { nonce } = self.receive(MESSAGE_BYTES_MAX)? else {
            return Err(unexpected("a pairing nonce"));
        };
        let ours = committed.nonce();
        let code = committed.receive_nonce(nonce).map_err(network)?;
        self.send(&ControllerMessage::PairingReveal { nonce: ours })?;
        Ok(Some((code, shortened(&about))))
    }

    fn enrol(&self, secret: &EnrolmentSecret, about: &About) -> Result<()> {
        let (key, address) = (self.caller.key.to_string(), self.caller.address.ip());
        let (reason, later) = match self.sessions.enrol(secret, &key, &label(about), address)? {
            Enrolled::Yes => {
                tracing::info!(%address, %key, "enrolled with a token: {}", label(about));
                return Ok(());
            }
            Enrolled::No(refusal) => (refusal.reason(), false),
            Enrolled::Later(seconds) => {
                (format!("too many wrong ones came from this address: not before {seconds} s have passed"), true)
            }
        };
        self.send(&ControllerMessage::EnrolmentRefused { reason: reason.clone(), later })?;
        self.link.finish();
        Err(refused(&reason))
    }

    /// Reads until the session ends. Silence ends it; so does a session that took its place.
    fn listen(&mut self) -> Result<()> {
        self.link.set_read_timeout(Some(Duration::from_secs(SILENCE_SECONDS_MAX)));
        let (start, mut messages) = (Instant::now(), 0_u64);
        loop {
            let message = self.receive_any()?;
            let now = Instant::now();
            let (live, approved) = {
                let mut registry = self.sessions.registry();
                let live = registry.heard(self.caller.key, self.id, now);
                (live, registry.approved(self.caller.key, self.id))
            };
            if !live {
                return Ok(());
            }
            messages += 1;
            if !approved && messages > MESSAGES_AHEAD_MAX + start.elapsed().as_secs() {
                return Err(Error::new(ErrorKind::Network, "a waiting machine talks too much"));
            }
            if approved && !self.pass.approve() {
                return Err(Error::new(ErrorKind::Network, "too many connections of approved agents"));
            }
            if approved && self.certification.is_over(self.sessions.now()) {
                let reason = "this machine's certificate is over, and it kept no other".to_owned();
                self.send(&ControllerMessage::Denied { reason: reason.clone() })?;
                self.sessions.0.streams.cut(self.caller.key);
                self.link.finish();
                return Err(Error::new(ErrorKind::Network, reason));
            }
            self.react(message, approved)?;
        }
    }

    /// A machine that is not approved gets its heartbeat answered and nothing else.
    fn react(&mut self, message: AgentMessage, approved: bool) -> Result<()> {
        match message {
            AgentMessage::Heartbeat { sequence } => {
                self.send(&ControllerMessage::HeartbeatAck { sequence })?;
                if approved {
                    self.certification.offer_where_due(self.sessions, &self.caller, &self.link)?;
                }
                if approved && self.seen.elapsed() >= SEEN_INTERVAL {
                    self.seen = Instant::now();
                    if let Some(machine) = self.sessions.0.store.machine_of_key(&self.caller.key.to_string())? {
                        self.sessions.0.store.machine_seen(&machine.id)?;
                    }
                }
                Ok(())
            }
            AgentMessage::Unknown => Ok(()),
            _ if !approved => Err(unexpected("a heartbeat from a machine that waits for approval")),
            AgentMessage::Report(report) => self.keep_report(*report),
            AgentMessage::StreamFailed { stream, reason } => {
                self.sessions.stream_failed(self.caller.key, stream, &reason);
                Ok(())
            }
            AgentMessage::DriversInstalled { push, outcomes } => {
                self.sessions.drivers_installed(self.caller.key, push, outcomes);
                Ok(())
            }
            AgentMessage::CertificateKept { fingerprint } => {
                self.certification.kept(self.sessions, &self.caller, fingerprint)
            }
            AgentMessage::PowerFailed { reason } => {
                self.sessions.end_refused(self.caller.key, self.id, &reason);
                Ok(())
            }
            answer @ (AgentMessage::Surveyed(_)
            | AgentMessage::PushPlaced { .. }
            | AgentMessage::PushFailed { .. }
            | AgentMessage::CommandEnded { .. }) => {
                self.sessions.answered(self.caller.key, self.id, answer);
                Ok(())
            }
            AgentMessage::BootPath(report) => self.keep_boot_path(report),
            AgentMessage::PairingCommit { .. } | AgentMessage::PairingReveal { .. } | AgentMessage::Enrol { .. } => {
                Err(unexpected("a message of an approved agent"))
            }
        }
    }

    fn keep_report(&mut self, mut report: Report) -> Result<()> {
        conversion::place_mounts(&mut report.machine);
        let key = self.caller.key.to_string();
        let sighting = Sighting {
            key: &key,
            report: &report.machine,
            booted: booted(self.caller.kind),
            agent_version: &self.caller.program,
            boot_medium: report.boot_medium,
        };
        let machine = match self.sessions.0.store.machine_reported(&sighting) {
            Ok(machine) => machine,
            Err(error) if error.kind == ErrorKind::Conflict => {
                self.sessions.0.store.write_audit("controller", "report refused", &key, &error.chain())?;
                self.send(&ControllerMessage::Denied { reason: error.to_string() })?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        tracing::info!(%machine, address = %self.caller.address, disks = report.machine.disks.len(), "machine reported");
        self.sessions.registry().reported(self.caller.key, self.id, &machine, Arc::new(report));
        self.sessions.0.changed.notify_all();
        let found_by = self.sessions.tell_waiting_tasks(&machine)?;
        self.machine = Some(machine);
        for task in found_by {
            let text = format!("{task} has waited for this machine: on the controller: vconverter tasks resume {task}");
            self.send(&ControllerMessage::Show { text })?;
        }
        Ok(())
    }

    /// What a task of this machine's is told goes to its log; of any other nobody wants to hear again either.
    fn keep_boot_path(&self, report: BootPathReport) -> Result<()> {
        let task = report.task.clone();
        if let Some(machine) = &self.machine {
            let is_kept = self.sessions.0.store.boot_path_told(machine, self.caller.kind, &report)?;
            tracing::info!(%machine, %task, is_kept, differences = report.differences.len(), "boot path told");
        }
        self.sessions.answered(self.caller.key, self.id, AgentMessage::BootPath(report));
        self.send(&ControllerMessage::BootPathKept { task })
    }

    fn send(&self, message: &ControllerMessage) -> Result<()> {
        write_message(&*self.link, message).map_err(network)
    }

    fn receive(&self, bytes_max: usize) -> Result<AgentMessage> {
        read_message(&*self.link, bytes_max).map_err(network)
    }

    /// The bound of a message is known when its first bytes are here: an operator may approve while this waits.
    fn receive_any(&self) -> Result<AgentMessage> {
        let mut prefix = [0; 4];
        (&*self.link)
            .read_exact(&mut prefix)
            .map_err(|e| network(protocol::Error::link("cannot receive a message", e)))?;
        let approved = self.sessions.registry().approved(self.caller.key, self.id);
        let bytes_max = if approved { REPORT_BYTES_MAX } else { MESSAGE_BYTES_MAX };
        read_message(prefix.chain(&*self.link), bytes_max).map_err(network)
    }
}

/// How the agent was started, as the store and the API call it.
pub(super) fn booted(kind: AgentKind) -> &'static str {
    match kind {
        AgentKind::BootImage => "boot-image",
        AgentKind::Agent => "live",
        AgentKind::Unknown => "unknown",
    }
}

pub(super) fn network(error: protocol::Error) -> Error {
    Error::with(ErrorKind::Network, "agent connection", error)
}

fn unexpected(wanted: &str) -> Error {
    Error::new(ErrorKind::Network, format!("agent connection: expected {wanted}"))
}

fn shortened(about: &About) -> About {
    About { product: short(&about.product), serial: short(&about.serial), hostname: short(&about.hostname) }
}

/// A stranger's text, short and without control characters: it is shown on terminals.
fn short(text: &str) -> String {
    let mut kept = String::new();
    for c in text.trim().chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > ABOUT_BYTES_MAX {
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_says_cannot_control_a_terminal() {
        assert_eq!(short("  \u{1b}[2Jhost\r\n\u{9b}31m"), "[2Jhost31m");
        assert_eq!(short(&"é".repeat(1000)).len(), ABOUT_BYTES_MAX);
    }
}
