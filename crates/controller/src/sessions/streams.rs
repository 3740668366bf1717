//! Streams of disks: the controller asks on the control connection, the agent dials a data connection with the token.
//!
//! A token is good once, and only for the key that it was given to. A machine whose link was cut or whose agent died is
//! waited for; the pipeline only sees that a stream takes its time.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use conversion::{Cancel, DataStream, RemoteMachine, StreamRequest, Visit};
use machine::{Disk, Machine};
use protocol::Version;
use protocol::message::{
    AgentKind, Compress, ControllerMessage, DiskSelector, OnUnreadable, OpenStream, ServeDisk, StreamMode, StreamToken,
    write_message,
};
use protocol::tls::Fingerprint;

use crate::bandwidth::TaskBandwidth;

use super::control::network;
use super::entry::Entry;
use super::registry::{Caller, SessionId};
use super::{Connection, Link, Pass, Report, Result, Sessions, VersionRange};

/// Time for an agent to open the data connection that it was asked for.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence on a data connection whose machine still has a live control connection: a failing disk retries for long.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Pause of a blocked read after which it looks whether it was cancelled.
const CANCEL_INTERVAL: Duration = Duration::from_millis(500);
/// Tries of a stream that the agent itself says it cannot serve.
const FAILURES_MAX: u32 = 3;
/// Time for a disk to be seen again after the agent came back without it.
const DISK_WAIT: Duration = Duration::from_secs(120);

/// A token that was given out.
pub(super) struct Expected {
    key: Fingerprint,
    answer: Answer,
}

enum Answer {
    Waiting,
    Connected(Arc<Connection>, Pass),
    Failed(String),
}

/// Data connections that are open, by the key of their agent.
#[derive(Default)]
pub(super) struct OpenStreams(Mutex<HashMap<Fingerprint, Vec<Weak<Connection>>>>);

impl OpenStreams {
    fn add(&self, connection: &Arc<Connection>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, of_key| {
            of_key.retain(|one| one.strong_count() > 0);
            !of_key.is_empty()
        });
        open.entry(connection.agent_key()).or_default().push(Arc::downgrade(connection));
    }

    /// Cuts all of one agent.
    pub(super) fn cut(&self, key: Fingerprint) {
        let of_key = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key).unwrap_or_default();
        for connection in of_key.iter().filter_map(Weak::upgrade) {
            connection.abort();
        }
    }
}

/// A machine of the store, reached through whatever session its agent has at the time.
pub struct ConnectedMachine {
    sessions: Sessions,
    id: String,
    task: String,
    /// The report that positions of disks refer to.
    report: Machine,
    bandwidth: TaskBandwidth,
}

impl Sessions {
    /// A data connection: it is handed to whoever asked for it.
    pub(super) fn serve_stream(
        &self,
        connection: Connection,
        open: &OpenStream,
        address: SocketAddr,
        mut pass: Pass,
    ) -> Result<()> {
        let key = connection.agent_key();
        let refused = "this stream was not asked for";
        let known = {
            let expected = self.expected();
            matches!(expected.get(&open.token), Some(Expected { key: of, answer: Answer::Waiting }) if *of == key)
        };
        if !known || !pass.approve() {
            tracing::warn!(%key, "a data connection was refused: its token is not one of this agent's");
            return connection.refuse(refused, None).map_err(network);
        }
        // First it can be found by who revokes its key, then it is looked whether that was done before.
        let connection = Arc::new(connection);
        self.0.streams.add(&connection);
        match self.entry(&connection)? {
            Entry::Works { .. } => {}
            Entry::Waits => return connection.refuse(refused, None).map_err(network),
            Entry::Refused(refusal) => return self.send_away(&connection, address, refusal),
        }
        connection.welcome(VersionRange::SPOKEN.newest, env!("CARGO_PKG_VERSION")).map_err(network)?;
        let mut expected = self.expected();
        // Somebody else may have used the token, or whoever asked may have gone, while the answer was sent.
        if let Some(entry) = expected.get_mut(&open.token)
            && let Answer::Waiting = entry.answer
        {
            entry.answer = Answer::Connected(connection, pass);
            drop(expected);
            self.0.answered.notify_all();
        }
        Ok(())
    }

    /// The agent says that it cannot serve a stream.
    pub(super) fn stream_failed(&self, key: Fingerprint, stream: StreamToken, reason: &str) {
        if let Some(entry) = self.expected().get_mut(&stream)
            && entry.key == key
            && matches!(entry.answer, Answer::Waiting)
        {
            entry.answer = Answer::Failed(reason.chars().filter(|c| !c.is_control()).take(1000).collect());
        }
        self.0.answered.notify_all();
    }
}

impl ConnectedMachine {
    pub(super) fn new(sessions: Sessions, id: &str, task: &str, bandwidth: TaskBandwidth) -> Result<Self> {
        let report = match sessions.report(id) {
            Some(report) => report.machine.clone(),
            None => sessions.0.store.existing_machine(id)?.reported()?.clone(),
        };
        Ok(Self { sessions, id: id.to_owned(), task: task.to_owned(), report, bandwidth })
    }

    /// The live session and the disk that is meant, as it reported it; waits for both.
    fn wait_for_disk(&self, disk: &Disk, request: &StreamRequest, cancel: &Cancel) -> conversion::Result<Wanted> {
        let mut missing_since = None;
        let mut registry = self.sessions.registry();
        loop {
            cancel.check()?;
            if let Some((session, reported)) = registry.of_machine(&self.id) {
                if request.visit.is_some() && visit_of(&session.caller) != request.visit {
                    let context = format!("machine {} was started anew while its disks were copied", self.id);
                    return Err(conversion::Error::new(conversion::ErrorKind::SourceChanged, context));
                }
                if let Some(selector) = select(disk, request.disk, &reported.report) {
                    let (key, id, link) = (session.caller.key, session.id, session.link.clone());
                    let protocol = session.caller.protocol;
                    return Ok(Wanted { key, id, link, protocol, selector });
                }
                let since = *missing_since.get_or_insert_with(Instant::now);
                if since.elapsed() > DISK_WAIT {
                    let context = format!("machine {}: disk {} is not there any more", self.id, disk.path);
                    return Err(conversion::Error::new(conversion::ErrorKind::Source, context));
                }
            }
            registry = self.sessions.wait(registry);
        }
    }

    /// Asks once and waits. `Ok(None)`: the session ended or the agent did not come in time.
    fn ask(&self, wanted: &Wanted, request: &StreamRequest, cancel: &Cancel) -> conversion::Result<Option<Answer>> {
        let token = StreamToken::random().map_err(|e| internal("no stream token", e))?;
        let expected = Expected { key: wanted.key, answer: Answer::Waiting };
        self.sessions.expected().insert(token, expected);
        let withdrawn = Withdraw { sessions: &self.sessions, token };
        let serve = ServeDisk {
            stream: token,
            task: self.task.clone(),
            disk: wanted.selector.clone(),
            mode: mode(request),
            scope: request.scope.clone(),
        };
        if write_message(&*wanted.link, &ControllerMessage::ServeDisk(serve)).is_err() {
            wanted.link.abort();
            return Ok(None);
        }
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let mut expected = self.sessions.expected();
        loop {
            if let Some(entry) = expected.get_mut(&token) {
                match std::mem::replace(&mut entry.answer, Answer::Waiting) {
                    Answer::Waiting => {}
                    answer => {
                        drop(expected);
                        drop(withdrawn);
                        return Ok(Some(answer));
                    }
                }
            }
            let gone = Instant::now() >= deadline || cancel.is_cancelled();
            if gone || expected.get(&token).is_none() {
                drop(expected);
                let _ = write_message(&*wanted.link, &ControllerMessage::CancelStream { stream: token });
                cancel.check()?;
                return Ok(None);
            }
            expected = self.sessions.wait_for_answer(expected);
            drop(expected);
            if self.sessions.registry().session(wanted.key, wanted.id).is_none() {
                return Ok(None);
            }
            expected = self.sessions.expected();
        }
    }
}

/// A disk of a live session.
struct Wanted {
    key: Fingerprint,
    id: SessionId,
    link: Link,
    protocol: Version,
    selector: DiskSelector,
}

/// Withdraws a token, whatever way the asking ends.
struct Withdraw<'a> {
    sessions: &'a Sessions,
    token: StreamToken,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        self.sessions.expected().remove(&self.token);
    }
}

impl RemoteMachine for ConnectedMachine {
    fn machine(&self) -> Machine {
        self.report.clone()
    }

    fn task(&self) -> Option<&str> {
        Some(&self.task)
    }

    fn visit(&self, begun: Option<&Visit>, cancel: &Cancel) -> conversion::Result<Option<Visit>> {
        let mut registry = self.sessions.registry();
        loop {
            cancel.check()?;
            if let Some((session, _)) = registry.of_machine(&self.id) {
                let visit = visit_of(&session.caller);
                if visit.is_some() || begun.is_none() {
                    return Ok(visit);
                }
            }
            registry = self.sessions.wait(registry);
        }
    }

    fn open_stream(&self, request: &StreamRequest, cancel: &Cancel) -> conversion::Result<Box<dyn DataStream>> {
        let disk = self.report.disks.get(request.disk).ok_or_else(|| {
            let context = format!("machine {}: it has no disk number {}", self.id, request.disk);
            conversion::Error::new(conversion::ErrorKind::Refused, context)
        })?;
        let mut failures = 0;
        loop {
            let wanted = self.wait_for_disk(disk, request, cancel)?;
            if wanted.protocol < Version::V3 && !request.scope.is_all() {
                let context = format!(
                    "machine {}: its agent is too old to leave out volumes, to keep swap, or to go on after the machine was in its own system: start it from a boot image of this controller",
                    self.id
                );
                return Err(conversion::Error::new(conversion::ErrorKind::Refused, context));
            }
            match self.ask(&wanted, request, cancel)? {
                Some(Answer::Connected(connection, pass)) => {
                    connection.set_read_timeout(Some(CANCEL_INTERVAL));
                    let (sessions, bandwidth) = (self.sessions.clone(), self.bandwidth.clone());
                    sessions.traffic().open.fetch_add(1, Relaxed);
                    let cancel = cancel.clone();
                    return Ok(Box::new(Stream { connection, sessions, cancel, bandwidth, _pass: pass }));
                }
                Some(Answer::Failed(reason)) => {
                    failures += 1;
                    tracing::warn!(machine = %self.id, task = %self.task, "the agent cannot serve {}: {reason}", disk.path);
                    if failures == FAILURES_MAX {
                        let context = format!("machine {}: disk {}: {reason}", self.id, disk.path);
                        return Err(conversion::Error::new(conversion::ErrorKind::Source, context));
                    }
                    pause(Duration::from_secs(3), cancel)?;
                }
                Some(Answer::Waiting) | None => pause(CANCEL_INTERVAL, cancel)?,
            }
        }
    }
}

/// One data connection. It is cut when it is dropped, so that an agent never sends into nothing.
struct Stream {
    connection: Arc<Connection>,
    /// They count what it receives.
    sessions: Sessions,
    cancel: Cancel,
    bandwidth: TaskBandwidth,
    _pass: Pass,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        loop {
            match (&*self.connection).read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    if self.cancel.is_cancelled() {
                        return Err(io::Error::other("cancelled"));
                    }
                    // A dead link is seen by the kernel long before; this is for a machine that hangs.
                    if start.elapsed() > SILENCE_MAX {
                        return Err(e);
                    }
                }
                Ok(read) => {
                    self.sessions.traffic().received.fetch_add(read as u64, Relaxed);
                    self.bandwidth.count(read as u64, &self.cancel);
                    return Ok(read);
                }
                Err(e) => return Err(e),
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self.connection).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.connection).flush()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.sessions.traffic().open.fetch_sub(1, Relaxed);
        self.connection.finish();
        self.connection.abort();
    }
}

/// The disk that is meant, as the newest report names it: by WWN or serial number and size, or where it has neither by
/// its place and size.
fn select(disk: &Disk, index: usize, report: &Report) -> Option<DiskSelector> {
    let known = disk.identity.wwn.is_some() || disk.identity.serial.is_some();
    let same = |(at, candidate): &(usize, &Disk)| {
        candidate.virtual_size == disk.virtual_size
            && match known {
                true => {
                    candidate.identity.wwn == disk.identity.wwn && candidate.identity.serial == disk.identity.serial
                }
                false => *at == index && candidate.identity == disk.identity,
            }
    };
    let mut candidates: Vec<(usize, &Disk)> = report.machine.disks.iter().enumerate().filter(same).collect();
    if candidates.len() > 1 {
        candidates.retain(|(at, _)| *at == index);
    }
    let (at, found) = candidates.pop()?;
    let index = u32::try_from(at).ok()?;
    Some(DiskSelector { identity: found.identity.clone(), index, size: found.virtual_size })
}

/// A boot image has a new key each time that it is started.
fn visit_of(caller: &Caller) -> Option<Visit> {
    (caller.kind == AgentKind::BootImage).then(|| Visit(caller.key.to_string()))
}

fn mode(request: &StreamRequest) -> StreamMode {
    match request.mode {
        conversion::StreamMode::Data { skip_unreadable } => StreamMode::Data {
            resume: request.resume,
            compress: Compress::WhenItPays,
            on_unreadable: if skip_unreadable { OnUnreadable::Skip } else { OnUnreadable::Stop },
        },
        conversion::StreamMode::Hashes => StreamMode::Hashes { resume: request.resume },
    }
}

fn pause(duration: Duration, cancel: &Cancel) -> conversion::Result<()> {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        cancel.check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    cancel.check()
}

fn internal(context: &str, error: protocol::Error) -> conversion::Error {
    conversion::Error::because(conversion::ErrorKind::Internal, context, error)
}

#[cfg(test)]
mod tests {
    use machine::{ByteCount, DiskIdentity, DiskLayout, SectorSize};

    use super::*;

    fn disk(serial: &str, gib: u64) -> Disk {
        Disk {
            path: "/dev/sda".into(),
            format: "raw".into(),
            virtual_size: ByteCount::gib(gib),
            logical_sector_size: SectorSize::B512,
            identity: DiskIdentity {
                serial: (!serial.is_empty()).then(|| serial.to_owned()),
                ..DiskIdentity::default()
            },
            layout: DiskLayout::default(),
        }
    }

    fn report(disks: Vec<Disk>) -> Report {
        let machine = Machine { disks, ..Machine::default() };
        Report { machine, ..Report::default() }
    }

    #[test]
    fn a_disk_is_found_by_what_it_is_after_disks_changed_places() {
        let now = report(vec![disk("B", 4), disk("A", 4)]);
        assert_eq!(select(&disk("A", 4), 0, &now).unwrap().index, 1);
        assert!(select(&disk("C", 4), 0, &now).is_none());
        assert!(select(&disk("A", 5), 1, &now).is_none(), "a disk of another size is another disk");
    }

    #[test]
    fn a_disk_without_identity_is_known_by_place_and_size_only() {
        let now = report(vec![disk("", 4), disk("", 8)]);
        assert_eq!(select(&disk("", 8), 1, &now).unwrap().index, 1);
        assert!(select(&disk("", 8), 0, &now).is_none());
        assert!(select(&disk("", 4), 0, &report(vec![disk("X", 4)])).is_none());
    }
}
