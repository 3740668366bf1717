//! The control connection: dial, open, pair, report, serve; again and again, for ever.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::message::{
    AgentKind, AgentMessage, Bytes32, ControllerMessage, HEARTBEAT_SECONDS, Hello, MESSAGE_BYTES_MAX, OpenStream,
    Opening, ServeDisk, StreamToken, read_message, write_message,
};
use protocol::pairing::{Committed, Pairing, Role};
use protocol::tls::{AgentTls, Fingerprint, Identity, Trust};
use protocol::{Connection, VersionRange};
use serde::{Deserialize, Serialize};

use crate::dial::dial;
use crate::inventory::{Inventory, about};
use crate::{Config, Error, ErrorKind, Result, Screen, Status, stream};

/// Pause before the first new attempt; it doubles up to the longest.
const PAUSE_SECONDS_MIN: u64 = 1;
/// Longest pause after a failure of the link.
const PAUSE_SECONDS_MAX: u64 = 8;
/// Pause after a refusal.
const REFUSED_SECONDS: u64 = 15;
/// Streams at one time.
const STREAMS_MAX: usize = 8;

/// Serves the controller of `config` until the process is killed.
///
/// # Errors
/// [`ErrorKind::Config`] when it cannot even begin: no key, no address that could be one.
pub fn run(config: &Config, screen: &Screen) -> Result<Infallible> {
    let identity = Identity::load_or_create_agent(&config.state_dir)?;
    let instance = Bytes32::random()?;
    let mut pause = PAUSE_SECONDS_MIN;
    screen.show(Status::Connecting { detail: format!("looking for the controller at {}", config.controller) });
    loop {
        let began = Instant::now();
        let Err(error) = Session::begin(config, screen, &identity, instance).and_then(Session::run);
        if error.kind == ErrorKind::Config {
            return Err(error);
        }
        screen.show(Status::Connecting { detail: error.chain() });
        if began.elapsed() > Duration::from_secs(PAUSE_SECONDS_MAX) {
            pause = PAUSE_SECONDS_MIN;
        }
        let seconds = if error.kind == ErrorKind::Link { pause } else { REFUSED_SECONDS };
        thread::sleep(Duration::from_secs(seconds));
        pause = (pause * 2).min(PAUSE_SECONDS_MAX);
    }
}

/// One control connection.
struct Session<'a> {
    config: &'a Config,
    screen: &'a Screen,
    tls: AgentTls,
    trust: Trust,
    connection: Arc<Connection>,
    pairing: Option<Committed>,
    /// Whether this session went through pairing.
    paired: bool,
    inventory: Option<Arc<Inventory>>,
    streams: Streams,
    /// Dropping it ends the heartbeats.
    _heartbeats: Sender<Infallible>,
}

/// Running streams.
type Streams = Arc<Mutex<HashMap<StreamToken, Stream>>>;

struct Stream {
    /// Names the disk within its task.
    task: String,
    disk: u32,
    /// `None` while it is still connecting.
    connection: Option<Arc<Connection>>,
}

impl Stream {
    fn abort(&self) {
        if let Some(connection) = &self.connection {
            connection.abort();
        }
    }
}

impl<'a> Session<'a> {
    fn begin(config: &'a Config, screen: &'a Screen, identity: &Identity, instance: Bytes32) -> Result<Self> {
        let paired = || PairedController::load(config).filter(|paired| paired.approved);
        let pin = config.ca_fingerprint.or_else(|| paired().map(|paired| paired.ca_fingerprint));
        let trust = pin.map_or(Trust::Pairing, Trust::Authority);
        let tls = AgentTls::new(identity, trust)?;
        let connection = Arc::new(dial(&config.controller, &tls)?);
        connection.open(&Opening::Hello(Hello {
            protocol: VersionRange::SPOKEN,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            kind: if config.is_boot_image() { AgentKind::BootImage } else { AgentKind::Agent },
            instance,
        }))?;
        let heartbeats = send_heartbeats(Arc::clone(&connection));
        Ok(Self {
            config,
            screen,
            tls,
            trust,
            connection,
            pairing: None,
            paired: false,
            inventory: None,
            streams: Streams::default(),
            _heartbeats: heartbeats,
        })
    }

    fn run(mut self) -> Result<Infallible> {
        loop {
            let message = read_message(&*self.connection, MESSAGE_BYTES_MAX)
                .map_err(|e| Error { context: "lost the controller".into(), ..e.into() })?;
            self.react(message)?;
        }
    }

    fn react(&mut self, message: ControllerMessage) -> Result<()> {
        match message {
            ControllerMessage::PairingCommit { commitment } => {
                let pairing = Pairing::start(Role::Agent, self.connection.binding().clone())?;
                let ours = pairing.commitment();
                let committed = pairing.receive_commitment(commitment);
                let nonce = committed.nonce();
                self.pairing = Some(committed);
                self.say(&AgentMessage::PairingCommit { commitment: ours, about: about(self.config) })?;
                self.say(&AgentMessage::PairingReveal { nonce })
            }
            ControllerMessage::PairingReveal { nonce } => {
                let committed = self.pairing.take().ok_or_else(|| out_of_order("a nonce before its commitment"))?;
                let pairing_code = committed.receive_nonce(nonce)?.to_string();
                self.paired = true;
                if self.trust == Trust::Pairing {
                    // The approval may come after a cut link, when the controller does not pair again.
                    PairedController::store(self.config, self.authority(), false)?;
                }
                let detail = format!("on the controller: vconverter machines approve {pairing_code}");
                self.screen.show(Status::WaitingForApproval { pairing_code, detail });
                Ok(())
            }
            ControllerMessage::Approved => self.be_approved(),
            ControllerMessage::Refresh => match self.inventory.is_some() {
                true => self.report(),
                false => Err(out_of_order("a wish for a report before the approval")),
            },
            ControllerMessage::ServeDisk(wish) => self.serve(wish),
            ControllerMessage::CancelStream { stream } => {
                if let Some(running) = lock(&self.streams).remove(&stream) {
                    running.abort();
                }
                Ok(())
            }
            ControllerMessage::Denied { reason } => {
                Err(Error::new(ErrorKind::Refused, format!("the controller refused this machine: {reason}")))
            }
            ControllerMessage::Show { text } => {
                self.screen.show(Status::Message { detail: text });
                Ok(())
            }
            ControllerMessage::Finish { text } => {
                self.screen.show(Status::Finished { detail: text });
                Ok(())
            }
            ControllerMessage::HeartbeatAck { .. } | ControllerMessage::Unknown => Ok(()),
        }
    }

    fn authority(&self) -> Fingerprint {
        self.connection.binding().controller_authority
    }

    fn say(&self, message: &AgentMessage) -> Result<()> {
        Ok(write_message(&*self.connection, message)?)
    }

    fn be_approved(&mut self) -> Result<()> {
        if self.trust == Trust::Pairing {
            // Whoever answered at the address that was typed is only known by a code that an operator compared.
            let earlier = PairedController::load(self.config).map(|paired| paired.ca_fingerprint);
            if !self.paired && earlier != Some(self.authority()) {
                return Err(out_of_order("an approval without pairing"));
            }
            PairedController::store(self.config, self.authority(), true)?;
        }
        self.report()?;
        self.screen.show(Status::Ready);
        Ok(())
    }

    fn report(&mut self) -> Result<()> {
        let inventory = Arc::new(Inventory::load(self.config));
        self.say(&AgentMessage::Report(Box::new(inventory.report.clone())))?;
        self.inventory = Some(inventory);
        Ok(())
    }

    /// Starts a stream on its own thread and connection.
    fn serve(&self, wish: ServeDisk) -> Result<()> {
        let Some(inventory) = self.inventory.clone() else { return Err(out_of_order("a stream before the approval")) };
        let token = wish.stream;
        {
            let mut streams = lock(&self.streams);
            // A controller that asks again has given up the earlier stream, whose link may be frozen for long.
            streams.retain(|_, running| {
                let again = running.task == wish.task && running.disk == wish.disk.index;
                if again {
                    running.abort();
                }
                !again
            });
            if streams.len() >= STREAMS_MAX || streams.contains_key(&token) {
                return self.say(&AgentMessage::StreamFailed { stream: token, reason: "too many streams".into() });
            }
            streams.insert(token, Stream { task: wish.task.clone(), disk: wish.disk.index, connection: None });
        }
        let (streams, control) = (Arc::clone(&self.streams), Arc::clone(&self.connection));
        let (tls, controller, screen) = (self.tls.clone(), self.config.controller.clone(), self.screen.clone());
        thread::spawn(move || {
            let outcome = serve_stream(&wish, &inventory, &controller, &tls, &streams, &screen);
            // Gone from the list: cancelled, and nobody waits for it.
            let was_waited_for = lock(&streams).remove(&token).is_some_and(|stream| stream.connection.is_none());
            match outcome {
                Ok(()) => screen.show(Status::Ready),
                Err(error) => {
                    screen.show(Status::Failed { detail: error.chain() });
                    if was_waited_for {
                        let reason = error.chain();
                        let _ = write_message(&*control, &AgentMessage::StreamFailed { stream: token, reason });
                    }
                }
            }
        });
        Ok(())
    }
}

impl Drop for Session<'_> {
    /// Streams do not outlive the connection that asked for them: the controller asks again.
    fn drop(&mut self) {
        self.connection.abort();
        for (_, stream) in lock(&self.streams).drain() {
            stream.abort();
        }
    }
}

fn serve_stream(
    wish: &ServeDisk,
    inventory: &Inventory,
    controller: &str,
    tls: &AgentTls,
    streams: &Streams,
    screen: &Screen,
) -> Result<()> {
    let disk = inventory.disk(&wish.disk)?.clone();
    let connection = Arc::new(dial(controller, tls)?);
    connection.open(&Opening::OpenStream(OpenStream { token: wish.stream }))?;
    match lock(streams).get_mut(&wish.stream) {
        Some(stream) => stream.connection = Some(Arc::clone(&connection)),
        None => return Err(Error::new(ErrorKind::Link, "the stream was cancelled")),
    }
    stream::serve(&connection, &disk, &wish.mode, screen)
}

/// Until the returned sender is dropped or the connection breaks.
fn send_heartbeats(connection: Arc<Connection>) -> Sender<Infallible> {
    let (stop, stopped) = channel::<Infallible>();
    thread::spawn(move || {
        let mut sequence = 0;
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_secs(HEARTBEAT_SECONDS)) {
            sequence += 1;
            if write_message(&*connection, &AgentMessage::Heartbeat { sequence }).is_err() {
                connection.abort();
                return;
            }
        }
    });
    stop
}

/// The controller that this agent was paired with, where no fingerprint was configured: from then on only that one is
/// trusted at that address.
#[derive(Serialize, Deserialize)]
struct PairedController {
    controller: String,
    ca_fingerprint: Fingerprint,
    /// Whether it said that an operator approved; from then on it is pinned.
    approved: bool,
}

impl PairedController {
    fn path(config: &Config) -> PathBuf {
        config.state_dir.join("controller.json")
    }

    fn load(config: &Config) -> Option<Self> {
        let text = fs::read(Self::path(config)).ok()?;
        let stored: Self = serde_json::from_slice(&text).ok()?;
        (stored.controller == config.controller).then_some(stored)
    }

    fn store(config: &Config, ca_fingerprint: Fingerprint, approved: bool) -> Result<()> {
        let (path, beside) = (Self::path(config), config.state_dir.join("controller.json.new"));
        let unwritten = |e| Error::new(ErrorKind::Config, format!("cannot write {}", path.display())).because(e);
        let text = serde_json::to_vec(&Self { controller: config.controller.clone(), ca_fingerprint, approved });
        let text = text.map_err(|e| Error::new(ErrorKind::Config, "the controller's fingerprint").because(e))?;
        fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path)).map_err(unwritten)
    }
}

fn out_of_order(what: &str) -> Error {
    Error::new(ErrorKind::Untrusted, format!("the controller does not keep to the protocol: {what}"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
