//! The controller's half of the conversation, in this process, and a link that can be made to fail.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use block::Extent;
use conversion::receive::StreamSupply;
use conversion::{Cancel, DataStream};
use machine::ByteOffset;
use protocol::certificate::Shown;
use protocol::driver::DriverOutcome;
use protocol::enrolment::{EnrolmentSecret, EnrolmentToken};
use protocol::message::{
    AgentMessage, ControllerMessage, DiskSelector, Opening, REPORT_BYTES_MAX, Report, Scope, ServeDisk, StreamMode,
    StreamToken, read_message, write_message,
};
use protocol::pairing::{Pairing, PairingCode, Role};
use protocol::tls::{ControllerTls, Fingerprint};
use protocol::{Connection, Version};

/// Whatever a test waits for comes within this time, even on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A controller of one machine.
#[derive(Clone)]
pub struct Controller {
    inner: Arc<Inner>,
}

struct Inner {
    address: SocketAddr,
    tls: ControllerTls,
    state: Mutex<State>,
    changed: Condvar,
    /// Silence on data connections that counts as a dead peer.
    patience_ms: AtomicU64,
}

#[derive(Default)]
struct State {
    approved: Option<Fingerprint>,
    code: Option<PairingCode>,
    session: Option<(Arc<Connection>, u64)>,
    sessions: u64,
    report: Option<(Report, u64)>,
    failures: Vec<String>,
    installed: Vec<(u64, Vec<DriverOutcome>)>,
    expected: HashMap<String, Sender<Connection>>,
    /// The revision that is chosen, where it is not the newest.
    protocol: Option<Version>,
    refused_streams: u32,
    told: u32,
    token: Option<EnrolmentSecret>,
    /// What agents sent in the hope to be enrolled.
    secrets: Vec<EnrolmentSecret>,
    /// Certificates that the agent said that it keeps.
    kept: Vec<Fingerprint>,
    /// What agents showed on control and data connections.
    shown: Vec<Shown>,
}

fn token_text(token: StreamToken) -> String {
    String::from(token)
}

impl Controller {
    pub fn start() -> Self {
        Self::start_at([127, 0, 0, 1].into())
    }

    /// One with an address of its own.
    pub fn start_at(address: std::net::IpAddr) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let inner = Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            tls: ControllerTls::create().unwrap(),
            state: Mutex::default(),
            changed: Condvar::new(),
            patience_ms: AtomicU64::new(18_000),
        });
        let controller = Self { inner };
        let accepting = controller.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let controller = accepting.clone();
                thread::spawn(move || {
                    let _ = controller.converse(socket);
                });
            }
        });
        controller
    }

    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    pub fn authority(&self) -> Fingerprint {
        self.inner.tls.authority()
    }

    pub fn set_patience(&self, patience: Duration) {
        self.inner.patience_ms.store(u64::try_from(patience.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Waits until `wanted` gives something.
    fn wait<T>(&self, what: &str, mut wanted: impl FnMut(&mut State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.inner.state.lock().unwrap();
        loop {
            if let Some(found) = wanted(&mut state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what} in time; failures: {:?}", state.failures);
            state = self.inner.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// The code of the machine that waits.
    pub fn code(&self) -> PairingCode {
        self.wait("pairing code", |state| state.code)
    }

    /// Approves the machine that waits and gives its report.
    pub fn approve(&self) -> Report {
        self.say_approved();
        self.report()
    }

    /// Approves the machine that waits, whether or not anybody compared the code.
    pub fn say_approved(&self) {
        self.code();
        let session = self.wait("session", |state| state.session.clone()).0;
        self.inner.state.lock().unwrap().approved = Some(session.agent_key());
        write_message(&*session, &ControllerMessage::Approved).unwrap();
    }

    /// Says something on the control connection.
    pub fn say(&self, message: &ControllerMessage) {
        let session = self.wait("session", |state| state.session.clone()).0;
        write_message(&*session, message).unwrap();
    }

    /// Waits for the end of the control connection.
    pub fn wait_for_end(&self) {
        self.wait("end of the session", |state| state.session.is_none().then_some(()));
    }

    /// What agents sent that tells of their disks: reports, and openings of streams.
    pub fn told(&self) -> u32 {
        self.inner.state.lock().unwrap().told
    }

    /// Makes a token that enrols one machine.
    pub fn make_token(&self) -> EnrolmentToken {
        let token = EnrolmentToken::random(self.authority()).unwrap();
        self.inner.state.lock().unwrap().token = Some(token.secret());
        token
    }

    /// The secrets that were sent here.
    pub fn secrets(&self) -> Vec<EnrolmentSecret> {
        self.inner.state.lock().unwrap().secrets.clone()
    }

    /// From now on this revision is spoken.
    pub fn speak(&self, protocol: Version) {
        self.inner.state.lock().unwrap().protocol = Some(protocol);
    }

    /// A certificate for the agent that is good for so long, or over since then.
    pub fn issue(&self, life_seconds: i64) -> String {
        let session = self.wait("session", |state| state.session.clone()).0;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let until = Duration::from_secs(now.as_secs().saturating_add_signed(life_seconds));
        self.inner.tls.issue(session.peer_certificate(), until).unwrap().pem
    }

    /// Gives the agent such a certificate and waits until it is kept.
    pub fn certify(&self, life_seconds: i64) {
        let certificate = self.issue(life_seconds);
        let kept = self.inner.state.lock().unwrap().kept.len();
        self.say(&ControllerMessage::Certificate { certificate });
        self.wait("kept certificate", |state| (state.kept.len() > kept).then_some(()));
    }

    /// What agents showed, the last at the end; waits until there are so many.
    pub fn shown(&self, count: usize) -> Vec<Shown> {
        self.wait("connection", |state| (state.shown.len() >= count).then(|| state.shown.clone()))
    }

    pub fn report(&self) -> Report {
        self.wait("report", |state| state.report.clone()).0
    }

    pub fn failures(&self) -> Vec<String> {
        self.inner.state.lock().unwrap().failures.clone()
    }

    pub fn wait_for_failure(&self) -> String {
        self.wait("failure", |state| state.failures.first().cloned())
    }

    /// What became of a push.
    pub fn wait_for_drivers(&self, push: u64) -> Vec<DriverOutcome> {
        self.wait("outcome of a push", |state| {
            state.installed.iter().find(|(number, _)| *number == push).map(|(_, outcomes)| outcomes.clone())
        })
    }

    /// Waits for this many reports and openings of streams.
    pub fn wait_until_told(&self, times: u32) {
        self.wait("report", |state| (state.told >= times).then_some(()));
    }

    pub fn refused_streams(&self) -> u32 {
        self.inner.state.lock().unwrap().refused_streams
    }

    fn converse(&self, socket: TcpStream) -> protocol::Result<()> {
        let connection = Connection::accept(socket, &self.inner.tls)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let shown = self.inner.tls.examine(connection.peer_certificate(), now)?;
        let opening = connection.opening()?;
        self.inner.state.lock().unwrap().shown.push(shown);
        self.inner.changed.notify_all();
        if let Shown::Over { .. } = shown {
            return connection.refuse_certificate("the certificate is over", None);
        }
        match opening {
            Opening::Hello(_) => {
                let protocol = self.inner.state.lock().unwrap().protocol.unwrap_or(Version::V3);
                connection.welcome(protocol, "test")?;
                self.control(Arc::new(connection))
            }
            Opening::OpenStream(open) => {
                let mut state = self.inner.state.lock().unwrap();
                state.told += 1;
                let known = state.approved == Some(connection.agent_key());
                let expected = state.expected.remove(&token_text(open.token)).filter(|_| known);
                if expected.is_none() {
                    state.refused_streams += 1;
                }
                drop(state);
                match expected {
                    Some(waiting) => {
                        connection.welcome(Version::V3, "test")?;
                        let patience = Duration::from_millis(self.inner.patience_ms.load(Ordering::Relaxed));
                        connection.set_read_timeout(Some(patience));
                        let _ = waiting.send(connection);
                        Ok(())
                    }
                    None => connection.refuse("this stream was not asked for", None),
                }
            }
        }
    }

    fn control(&self, session: Arc<Connection>) -> protocol::Result<()> {
        let number = {
            let mut state = self.inner.state.lock().unwrap();
            state.sessions += 1;
            let number = state.sessions;
            state.session = Some((Arc::clone(&session), number));
            number
        };
        let approved = self.inner.state.lock().unwrap().approved == Some(session.agent_key());
        let mut pairing = None;
        if approved {
            write_message(&*session, &ControllerMessage::Approved)?;
        } else {
            let ours = Pairing::start(Role::Controller, session.binding().clone())?;
            write_message(&*session, &ControllerMessage::PairingCommit { commitment: ours.commitment() })?;
            pairing = Some(ours);
        }
        let mut committed = None;
        let outcome = loop {
            let message = match read_message(&*session, REPORT_BYTES_MAX) {
                Ok(message) => message,
                Err(error) => break Err(error),
            };
            match message {
                AgentMessage::PairingCommit { commitment, .. } => {
                    committed = pairing.take().map(|ours| ours.receive_commitment(commitment));
                }
                AgentMessage::PairingReveal { nonce: theirs } => {
                    let ours = committed.take().unwrap();
                    let nonce = ours.nonce();
                    let code = ours.receive_nonce(theirs)?;
                    write_message(&*session, &ControllerMessage::PairingReveal { nonce })?;
                    self.inner.state.lock().unwrap().code = Some(code);
                }
                AgentMessage::Report(report) => {
                    let mut state = self.inner.state.lock().unwrap();
                    state.told += 1;
                    state.report = Some((*report, number));
                }
                AgentMessage::StreamFailed { stream, reason } => {
                    let mut state = self.inner.state.lock().unwrap();
                    state.expected.remove(&token_text(stream));
                    state.failures.push(reason);
                }
                AgentMessage::DriversInstalled { push, outcomes } => {
                    self.inner.state.lock().unwrap().installed.push((push, outcomes));
                }
                AgentMessage::Heartbeat { sequence } => {
                    write_message(&*session, &ControllerMessage::HeartbeatAck { sequence })?;
                }
                AgentMessage::Enrol { secret, .. } => {
                    let known = self.inner.state.lock().unwrap().token == Some(secret);
                    if known {
                        self.inner.state.lock().unwrap().approved = Some(session.agent_key());
                        write_message(&*session, &ControllerMessage::Approved)?;
                    } else {
                        let reason = "it was used before".to_owned();
                        write_message(&*session, &ControllerMessage::EnrolmentRefused { reason, later: false })?;
                    }
                    self.inner.state.lock().unwrap().secrets.push(secret);
                }
                AgentMessage::CertificateKept { fingerprint } => {
                    self.inner.state.lock().unwrap().kept.push(fingerprint);
                }
                AgentMessage::PowerFailed { reason } => self.inner.state.lock().unwrap().failures.push(reason),
                // Of a push: a test's own affair.
                _ => {}
            }
            self.inner.changed.notify_all();
        };
        let mut state = self.inner.state.lock().unwrap();
        if state.session.as_ref().is_some_and(|(_, n)| *n == number) {
            state.session = None;
        }
        // Streams that were asked for on this session will not come any more.
        state.expected.clear();
        self.inner.changed.notify_all();
        outcome
    }

    /// Asks for a stream once, and waits for it a while.
    pub fn open_once(&self, disk: u32, mode: StreamMode) -> Option<Connection> {
        self.open_within(disk, mode, Scope::default())
    }

    /// The same for a part of the disk.
    pub fn open_within(&self, disk: u32, mode: StreamMode, scope: Scope) -> Option<Connection> {
        let (session, report) = self.wait("session with report", |state| {
            let (session, number) = state.session.clone()?;
            let (report, of) = state.report.clone()?;
            (of == number).then_some((session, report))
        });
        let found = &report.machine.disks[disk as usize];
        let stream = StreamToken::random().unwrap();
        let (sender, receiver): (_, Receiver<Connection>) = channel();
        self.inner.state.lock().unwrap().expected.insert(token_text(stream), sender);
        let selector = DiskSelector { identity: found.identity.clone(), index: disk, size: found.virtual_size };
        let wish = ServeDisk { stream, task: "1".into(), disk: selector, mode, scope };
        write_message(&*session, &ControllerMessage::ServeDisk(wish)).ok()?;
        receiver.recv_timeout(PATIENCE).ok()
    }

    /// A supply of streams of one disk.
    pub fn supply(&self, disk: u32, mode: impl Fn(ByteOffset) -> StreamMode, cancel: Cancel) -> impl StreamSupply {
        move |resume: ByteOffset| self.open(disk, mode(resume), &[], &cancel)
    }

    /// A stream, as soon as the agent is there.
    pub fn open(
        &self,
        disk: u32,
        mode: StreamMode,
        within: &[Extent],
        cancel: &Cancel,
    ) -> conversion::Result<Box<dyn DataStream>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            cancel.check()?;
            let within = within.iter().map(|extent| (extent.start(), extent.length())).collect();
            let scope = Scope { within, ..Scope::default() };
            if let Some(stream) = self.open_within(disk, mode.clone(), scope) {
                return Ok(Box::new(stream));
            }
            assert!(Instant::now() < deadline, "no stream in time");
        }
    }
}

/// The real program.
pub struct Agent {
    child: Child,
}

impl Agent {
    pub fn start(controller: SocketAddr, pin: Option<Fingerprint>, state: &Path, disks: &[&Path]) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_vconverter-agent")), controller, pin, state, disks)
    }

    /// The same by a command that ends in the program: in a namespace, for one.
    pub fn start_as(
        mut command: Command,
        controller: SocketAddr,
        pin: Option<Fingerprint>,
        state: &Path,
        disks: &[&Path],
    ) -> Self {
        command.args(["--controller", &controller.to_string()]).arg("--state-dir").arg(state);
        if let Some(pin) = pin {
            command.args(["--ca-fingerprint", &pin.to_string()]);
        }
        for disk in disks {
            command.arg("--disk").arg(disk);
        }
        Self { child: command.stdout(Stdio::piped()).spawn().unwrap() }
    }

    /// The same, as it is started in the boot image.
    pub fn start_in_boot_image(controller: SocketAddr, pin: Fingerprint, state: &Path, disk: &Path) -> Self {
        std::fs::create_dir_all(state).unwrap();
        let config = state.join("agent.json");
        std::fs::write(&config, r#"{"boot_image":true}"#).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vconverter-agent"));
        command.arg("--config").arg(&config).args(["--controller", &controller.to_string()]);
        command.args(["--ca-fingerprint", &pin.to_string()]).arg("--state-dir").arg(state).arg("--disk").arg(disk);
        Self { child: command.stdout(Stdio::piped()).spawn().unwrap() }
    }

    /// With a token on its standard input.
    pub fn enrol(controller: SocketAddr, token: &str, state: &Path, disk: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vconverter-agent"));
        command.args(["--controller", &controller.to_string(), "--enrol", "-"]).arg("--state-dir").arg(state);
        let command = command.arg("--disk").arg(disk).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        Self { child }
    }

    /// How it ended by itself, and what it said.
    pub fn wait_for_end(&mut self) -> (bool, String) {
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.success(), said)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its status lines, until one contains `text`.
    pub fn wait_for_status(&mut self, text: &str) -> String {
        let mut lines = std::io::BufReader::new(self.child.stdout.as_mut().unwrap());
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        while Instant::now() < deadline {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
            if line.contains(text) {
                return line;
            }
            seen += &line;
        }
        panic!("no status with {text:?}: {seen}");
    }

    /// Its status lines from now on, up to one that contains `text`.
    pub fn statuses_until(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        let output = self.child.stdout.as_mut().unwrap();
        let mut byte = [0];
        while Instant::now() < deadline && output.read(&mut byte).unwrap() == 1 {
            seen.push(char::from(byte[0]));
            if byte[0] == b'\n' && seen.lines().last().is_some_and(|line| line.contains(text)) {
                return seen;
            }
        }
        panic!("no status with {text:?}: {seen}");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A link between agent and controller that fails as it is told.
pub struct Link {
    pub address: SocketAddr,
    shared: Arc<LinkState>,
}

#[derive(Default)]
struct LinkState {
    /// Bytes towards the controller after which all connections break; 0 is never. It rearms itself.
    cut_after: AtomicU64,
    passed: AtomicU64,
    cuts: AtomicU64,
    frozen: AtomicBool,
    /// Where new connections go.
    target: Mutex<Option<SocketAddr>>,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Link {
    pub fn to(controller: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(LinkState { target: Mutex::new(Some(controller)), ..LinkState::default() });
        let link = Arc::clone(&shared);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let target = *link.target.lock().unwrap();
                let Some(Ok(far)) = target.map(TcpStream::connect) else { continue };
                let mut sockets = link.sockets.lock().unwrap();
                sockets.push(near.try_clone().unwrap());
                sockets.push(far.try_clone().unwrap());
                drop(sockets);
                for (from, to, counted) in
                    [(near.try_clone().unwrap(), far.try_clone().unwrap(), true), (far, near, false)]
                {
                    let link = Arc::clone(&link);
                    thread::spawn(move || link.pass(from, to, counted));
                }
            }
        });
        Self { address, shared }
    }

    /// From now on somebody else answers new connections.
    pub fn redirect(&self, to: SocketAddr) {
        *self.shared.target.lock().unwrap() = Some(to);
    }

    pub fn cut_every(&self, bytes: u64) {
        self.shared.passed.store(0, Ordering::SeqCst);
        self.shared.cut_after.store(bytes, Ordering::SeqCst);
    }

    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }

    pub fn freeze(&self, frozen: bool) {
        self.shared.frozen.store(frozen, Ordering::SeqCst);
    }
}

impl LinkState {
    fn pass(&self, mut from: TcpStream, mut to: TcpStream, counted: bool) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length) = from.read(&mut buffer) {
            while self.frozen.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(20));
            }
            if length == 0 || to.write_all(&buffer[..length]).is_err() {
                break;
            }
            if counted {
                let passed = self.passed.fetch_add(length as u64, Ordering::SeqCst) + length as u64;
                let limit = self.cut_after.load(Ordering::SeqCst);
                if limit > 0 && passed >= limit {
                    self.passed.store(0, Ordering::SeqCst);
                    self.cuts.fetch_add(1, Ordering::SeqCst);
                    for socket in self.sockets.lock().unwrap().drain(..) {
                        let _ = socket.shutdown(Shutdown::Both);
                    }
                }
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

/// A disk of `mib` MiB: noise, text, and zeros by turns, the same for the same seed.
pub fn make_disk(path: &Path, mib: usize, seed: u64) {
    let mut file = std::fs::File::create(path).unwrap();
    let mut state = seed | 1;
    for n in 0..mib {
        let mut piece = vec![0_u8; 1 << 20];
        match n % 4 {
            0 | 1 => {
                for word in piece.chunks_exact_mut(8) {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    word.copy_from_slice(&state.to_le_bytes());
                }
            }
            2 => {
                for (at, byte) in piece.iter_mut().enumerate() {
                    *byte = b"what a page of text would be "[(at + n) % 29];
                }
            }
            _ => {}
        }
        file.write_all(&piece).unwrap();
    }
    file.sync_all().unwrap();
}
