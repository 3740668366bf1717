//! The control connection: dial, open, pair or enrol, report, serve; again and again, for ever.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::enrolment::EnrolmentToken;
use protocol::message::{
    AgentKind, AgentMessage, Bytes32, COMMAND_BYTES_MAX, COMMAND_SECONDS_MAX, ControllerMessage, HEARTBEAT_SECONDS,
    Hello, MESSAGE_BYTES_MAX, OpenStream, Opening, ServeDisk, StreamToken, read_message, write_message,
};
use protocol::pairing::{Commitment, Committed, Pairing, Role};
use protocol::tls::{AgentTls, Fingerprint, Identity, Trust};
use protocol::{Connection, Version, VersionRange};

use crate::dial::dial;
use crate::drivers::{Drivers, refused};
use crate::inventory::{Inventory, about};
use crate::paired::Paired;
use crate::push::{BootPath, Push};
use crate::{Config, Error, ErrorKind, Result, Screen, Status, command, power, stream};

/// Pause before the first new attempt; it doubles up to the longest.
const PAUSE_SECONDS_MIN: u64 = 1;
/// Longest pause after a failure of the link.
const PAUSE_SECONDS_MAX: u64 = 8;
/// Pause after a refusal.
const REFUSED_SECONDS: u64 = 15;
/// How often it is looked whether somebody at the machine has answered, or the boot image.
const CONFIRMATION_PAUSE: Duration = Duration::from_millis(250);
/// How often it is looked whether the boot image says that the hardware changed.
const CHANGE_PAUSE: Duration = Duration::from_secs(1);
/// Streams at one time.
const STREAMS_MAX: usize = 8;

/// Serves the controller of `config` until the process is killed.
///
/// # Errors
/// [`ErrorKind::Config`] when it cannot even begin: no key, no address that could be one.
pub fn run(config: &Config, screen: &Screen) -> Result<Infallible> {
    let identity = Identity::load_or_create_agent(&config.state_dir)?;
    let instance = Bytes32::random()?;
    // Whatever the controller says, and whether there is one: what a push left on the machine goes first.
    let boot_path = BootPath::look(config);
    let mut pause = PAUSE_SECONDS_MIN;
    screen.show(Status::Connecting { detail: format!("looking for the controller at {}", config.controller) });
    loop {
        let began = Instant::now();
        let Err(error) = Session::begin(config, screen, &identity, &boot_path, instance).and_then(Session::run);
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
    /// The agent's key, with the certificate that its controller gave it, where there is one.
    identity: Identity,
    tls: AgentTls,
    trust: Trust,
    connection: Arc<Connection>,
    /// The revision that was agreed on.
    protocol: Version,
    pairing: Option<Committed>,
    /// It says that it approved, and nobody at the machine has confirmed yet that it is who it should be.
    unconfirmed: Option<Paired>,
    inventory: Option<Arc<Inventory>>,
    drivers: Drivers,
    push: Push,
    /// What is to be said of the boot path; shared by all connections.
    boot_path: &'a BootPath,
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
    fn begin(
        config: &'a Config,
        screen: &'a Screen,
        identity: &'a Identity,
        boot_path: &'a BootPath,
        instance: Bytes32,
    ) -> Result<Self> {
        let pin = config.authority().or_else(|| Paired::pin(config));
        let mut trust = pin.map_or(Trust::Pairing, Trust::Authority);
        let certified = pin.and_then(|authority| identity.with_kept_certificate(&config.state_dir, authority));
        let mut identity = certified.unwrap_or_else(|| identity.clone());
        let mut tls = AgentTls::new(&identity, trust)?;
        let mut connection = dial(&config.controller, &tls)?;
        // Nobody said whose address this is, but it may be a controller that is known by the certificate that it gave.
        let authority = connection.binding().controller_authority;
        if trust == Trust::Pairing
            && let Some(certified) = identity.with_kept_certificate(&config.state_dir, authority)
        {
            connection.abort();
            trust = Trust::Authority(authority);
            tls = AgentTls::new(&certified, trust)?;
            identity = certified;
            connection = dial(&config.controller, &tls)?;
        }
        let hello = Hello {
            protocol: VersionRange::SPOKEN,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            kind: if config.is_boot_image() { AgentKind::BootImage } else { AgentKind::Agent },
            instance,
        };
        let protocol = connection.open(&Opening::Hello(hello)).inspect_err(|error| {
            if error.kind == protocol::ErrorKind::CertificateRefused {
                Identity::forget_certificate(&config.state_dir, authority);
            }
        })?;
        let connection = Arc::new(connection);
        let heartbeats = send_heartbeats(Arc::clone(&connection));
        Ok(Self {
            config,
            screen,
            identity,
            tls,
            trust,
            connection,
            protocol,
            pairing: None,
            unconfirmed: None,
            inventory: None,
            drivers: Drivers::new(config),
            push: Push::new(),
            boot_path,
            streams: Streams::default(),
            _heartbeats: heartbeats,
        })
    }

    fn run(mut self) -> Result<Infallible> {
        let messages = receive(Arc::clone(&self.connection));
        loop {
            let pause = if self.unconfirmed.is_some() {
                self.look_for_confirmation()?;
                CONFIRMATION_PAUSE
            } else if self.look_at_boot_image()? {
                CONFIRMATION_PAUSE
            } else {
                self.look_at_push()?.map_or(CHANGE_PAUSE, |due_in| due_in.min(CHANGE_PAUSE))
            };
            match messages.recv_timeout(pause) {
                Ok(message) => {
                    self.react(message.map_err(|e| Error { context: "lost the controller".into(), ..e.into() })?)?
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::new(ErrorKind::Link, "lost the controller")),
            }
        }
    }

    fn react(&mut self, message: ControllerMessage) -> Result<()> {
        match message {
            ControllerMessage::PairingCommit { commitment } => match &self.config.enrolment {
                Some(token) => self.enrol(token),
                None => self.pair(commitment),
            },
            ControllerMessage::PairingReveal { nonce } => {
                let committed = self.pairing.take().ok_or_else(|| out_of_order("a nonce before its commitment"))?;
                let pairing_code = committed.receive_nonce(nonce)?.to_string();
                if self.trust == Trust::Pairing {
                    Paired::remember(self.config, self.authority(), &pairing_code)?;
                }
                let detail = format!("on the controller: vconverter machines approve {pairing_code}");
                self.screen.show(Status::WaitingForApproval { pairing_code, detail });
                Ok(())
            }
            ControllerMessage::Approved => self.be_approved(),
            ControllerMessage::EnrolmentRefused { reason, later } => {
                // A token that is not good now and later would only be refused again and again.
                let kind = if later { ErrorKind::Refused } else { ErrorKind::Config };
                Err(Error::new(kind, format!("the controller refused the enrolment token: {reason}")))
            }
            // Whoever nobody has confirmed shows nothing here that could talk somebody into it, and the report comes anyway.
            ControllerMessage::Refresh
            | ControllerMessage::Show { .. }
            | ControllerMessage::Finish { .. }
            | ControllerMessage::Certificate { .. }
            | ControllerMessage::Power { .. }
            | ControllerMessage::DriverPiece(_)
            | ControllerMessage::InstallDrivers { .. }
            | ControllerMessage::Survey
            | ControllerMessage::PushPiece(_)
            | ControllerMessage::PlacePush { .. }
            | ControllerMessage::StartPush { .. }
            | ControllerMessage::WithdrawPush
            | ControllerMessage::RunCommand { .. }
            | ControllerMessage::Stay { .. }
                if self.is_unproven() =>
            {
                Ok(())
            }
            ControllerMessage::Certificate { certificate } => self.keep_certificate(&certificate),
            ControllerMessage::Refresh => match self.inventory.is_some() {
                true => self.report(),
                false => Err(out_of_order("a wish for a report before the approval")),
            },
            ControllerMessage::DriverPiece(_) | ControllerMessage::InstallDrivers { .. }
                if self.inventory.is_none() =>
            {
                Err(out_of_order("a driver before the approval"))
            }
            ControllerMessage::DriverPiece(_) if !self.config.is_boot_image() => Ok(()),
            ControllerMessage::DriverPiece(piece) => {
                let refused = self.drivers.take(&piece);
                self.tell_drivers(piece.push, refused)
            }
            ControllerMessage::InstallDrivers { push } => {
                let refused = match self.config.is_boot_image() {
                    true => self.drivers.install(push),
                    false => Some(refused("this machine runs its own system, which is left as it is".into())),
                };
                self.tell_drivers(push, refused)
            }
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
            ControllerMessage::Power { .. } if self.inventory.is_none() => {
                Err(out_of_order("an end of the machine before the approval"))
            }
            ControllerMessage::Power { action, text } => {
                match power::end_machine(action, text, self.config.is_boot_image(), self.screen) {
                    Ok(()) => Ok(()),
                    Err(error) => self.say(&AgentMessage::PowerFailed { reason: error.chain() }),
                }
            }
            ControllerMessage::Finish { text } => {
                self.screen.show(Status::Finished { detail: text });
                Ok(())
            }
            ControllerMessage::Survey
            | ControllerMessage::PushPiece(_)
            | ControllerMessage::PlacePush { .. }
            | ControllerMessage::StartPush { .. }
            | ControllerMessage::WithdrawPush
            | ControllerMessage::RunCommand { .. }
                if self.inventory.is_none() || self.config.is_boot_image() =>
            {
                Err(out_of_order("a push to a machine that is not approved, or stands in the boot image"))
            }
            ControllerMessage::Survey => self.say(&AgentMessage::Surveyed(Box::new(Push::survey(self.config)))),
            ControllerMessage::PushPiece(piece) => {
                self.push.take(&piece);
                Ok(())
            }
            ControllerMessage::PlacePush { push, order } => match self.push.place(self.config, push, &order) {
                Ok(done) => self.say(&AgentMessage::PushPlaced { push, done }),
                Err(error) => self.say(&AgentMessage::PushFailed { reason: error.chain() }),
            },
            ControllerMessage::StartPush { text, warning_seconds } => {
                match self.push.start(&text, Duration::from_secs(warning_seconds.into())) {
                    Ok(()) => Ok(()),
                    Err(error) => self.say(&AgentMessage::PushFailed { reason: error.chain() }),
                }
            }
            ControllerMessage::WithdrawPush => match self.push.withdraw(self.config, self.boot_path) {
                Ok(report) => self.say(&AgentMessage::BootPath(report)),
                Err(error) => self.say(&AgentMessage::PushFailed { reason: error.chain() }),
            },
            ControllerMessage::RunCommand { id, command, seconds } => {
                self.run_command(id, command, seconds);
                Ok(())
            }
            ControllerMessage::BootPathKept { task } => {
                self.boot_path.told(self.config, &task);
                Ok(())
            }
            ControllerMessage::Stay { text } => {
                self.screen.show(Status::Staying { detail: text });
                Ok(())
            }
            ControllerMessage::HeartbeatAck { .. } | ControllerMessage::Unknown => Ok(()),
        }
    }

    fn pair(&mut self, theirs: Commitment) -> Result<()> {
        let pairing = Pairing::start(Role::Agent, self.connection.binding().clone())?;
        let commitment = pairing.commitment();
        let committed = pairing.receive_commitment(theirs);
        let nonce = committed.nonce();
        self.pairing = Some(committed);
        self.say(&AgentMessage::PairingCommit { commitment, about: about(self.config) })?;
        self.say(&AgentMessage::PairingReveal { nonce })
    }

    /// Only the controller that made the token hears its secret: TLS has seen that this is the one.
    fn enrol(&self, token: &EnrolmentToken) -> Result<()> {
        if self.trust != Trust::Authority(token.authority()) {
            return Err(Error::new(ErrorKind::Config, "the enrolment token is of another controller"));
        }
        if self.protocol < Version::V3 {
            let text =
                format!("the controller speaks revision {}, which has no enrolment tokens: update it", self.protocol);
            return Err(Error::new(ErrorKind::Config, text));
        }
        self.say(&AgentMessage::Enrol { secret: token.secret(), about: about(self.config) })
    }

    /// From here on each new connection shows it; those that are open stay.
    fn keep_certificate(&mut self, certificate: &str) -> Result<()> {
        match self.identity.keep_certificate(&self.config.state_dir, self.authority(), certificate) {
            Ok(certified) => {
                self.tls = AgentTls::new(&certified, self.trust)?;
                self.identity = certified;
                let fingerprint = self.identity.certificate_fingerprint()?;
                self.say(&AgentMessage::CertificateKept { fingerprint })
            }
            // What is not kept is not shown: without room for it the agent goes on as it is, and gets another soon.
            Err(error) => {
                self.screen.show(Status::Message { detail: error.chain() });
                Ok(())
            }
        }
    }

    fn authority(&self) -> Fingerprint {
        self.connection.binding().controller_authority
    }

    fn say(&self, message: &AgentMessage) -> Result<()> {
        Ok(write_message(&*self.connection, message)?)
    }

    /// Whether anybody could be at the other end: no pin, and no confirmation.
    fn is_unproven(&self) -> bool {
        self.trust == Trust::Pairing
    }

    /// A controller without a pin approves itself, if it likes: somebody at the machine has to confirm the code first.
    fn be_approved(&mut self) -> Result<()> {
        if !self.is_unproven() {
            if let Some(token) = &self.config.enrolment {
                Paired::remember_enrolled(self.config, token.authority())?;
            }
            return self.begin_work();
        }
        let Some(mut paired) = Paired::with_authority(self.config, self.authority()) else {
            return Err(out_of_order("an approval without pairing"));
        };
        // The answer may have come while the link was cut.
        if paired.is_confirmed() || paired.take_confirmation(self.config)? {
            return self.begin_work();
        }
        let (pairing_code, file) = (paired.code().to_owned(), self.config.state_dir.join("confirmed"));
        let detail = format!("if the controller's operator sees the same code, it is written to {}", file.display());
        self.screen.show(Status::WaitingForConfirmation { pairing_code, detail });
        self.unconfirmed = Some(paired);
        Ok(())
    }

    fn look_for_confirmation(&mut self) -> Result<()> {
        let Some(mut paired) = self.unconfirmed.take() else { return Ok(()) };
        match paired.take_confirmation(self.config)? {
            true => self.begin_work(),
            false => {
                self.unconfirmed = Some(paired);
                Ok(())
            }
        }
    }

    /// From here on the CA of this session is the only one: its streams come on connections of their own.
    fn begin_work(&mut self) -> Result<()> {
        if self.is_unproven() {
            self.trust = Trust::Authority(self.authority());
            self.tls = AgentTls::new(&self.identity, self.trust)?;
        }
        self.report()?;
        // A push that was placed over an earlier connection is undone: nobody is there any more who would start it.
        if !self.config.is_boot_image() && self.boot_path.untold().is_none() {
            self.push.withdraw_left(self.config, self.boot_path)?;
        }
        if let Some(report) = self.boot_path.untold() {
            self.say(&AgentMessage::BootPath(report))?;
        }
        self.screen.show(Status::Ready);
        Ok(())
    }

    /// Restarts the machine into the boot image when it is time; how long until then, where there is one to be started.
    fn look_at_push(&mut self) -> Result<Option<Duration>> {
        match self.push.due_in() {
            Some(Duration::ZERO) => {
                if let Err(error) = self.push.restart(self.config, self.screen) {
                    let left = self.push.withdraw(self.config, self.boot_path).err();
                    let left = left.map(|error| format!("; {}", error.chain())).unwrap_or_default();
                    self.say(&AgentMessage::PushFailed { reason: format!("{}{left}", error.chain()) })?;
                }
                Ok(None)
            }
            due_in => Ok(due_in),
        }
    }

    /// On a thread of its own: it may take long.
    fn run_command(&self, id: u64, command: String, seconds: u32) {
        let connection = Arc::clone(&self.connection);
        thread::spawn(move || {
            let ended = match command.len() {
                0..=COMMAND_BYTES_MAX => {
                    command::run(&command, Duration::from_secs(seconds.min(COMMAND_SECONDS_MAX).into()))
                }
                _ => command::Ended { status: None, output: "the command is too long".into() },
            };
            let message = AgentMessage::CommandEnded { id, status: ended.status, output: ended.output };
            let _ = write_message(&*connection, &message);
        });
    }

    fn tell_drivers(&self, push: u64, outcomes: Option<Vec<protocol::driver::DriverOutcome>>) -> Result<()> {
        outcomes.map_or(Ok(()), |outcomes| self.say(&AgentMessage::DriversInstalled { push, outcomes }))
    }

    /// Passes on what the boot image has to say; whether more is awaited soon.
    fn look_at_boot_image(&mut self) -> Result<bool> {
        if self.inventory.is_none() || !self.config.is_boot_image() {
            return Ok(false);
        }
        // First what there is now, so that who reads the outcome finds it reported.
        if self.config.state_dir.join("changed").exists() {
            self.report()?;
        }
        for (push, outcomes) in self.drivers.outcomes() {
            self.tell_drivers(push, Some(outcomes))?;
        }
        Ok(self.drivers.are_awaited())
    }

    fn report(&mut self) -> Result<()> {
        // What changes from here on is looked at again.
        let _ = std::fs::remove_file(self.config.state_dir.join("changed"));
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
    let disk = inventory.disk(&wish.disk)?.within(&wish.scope)?;
    let connection = Arc::new(dial(controller, tls)?);
    connection.open(&Opening::OpenStream(OpenStream { token: wish.stream }))?;
    match lock(streams).get_mut(&wish.stream) {
        Some(stream) => stream.connection = Some(Arc::clone(&connection)),
        None => return Err(Error::new(ErrorKind::Link, "the stream was cancelled")),
    }
    stream::serve(&connection, &disk, &wish.mode, screen)
}

/// Reads messages on a thread of its own until the connection breaks or the receiver is dropped.
fn receive(connection: Arc<Connection>) -> Receiver<protocol::Result<ControllerMessage>> {
    let (sender, messages) = sync_channel(1);
    thread::spawn(move || {
        loop {
            let message = read_message(&*connection, MESSAGE_BYTES_MAX);
            let ended = message.is_err();
            if sender.send(message).is_err() || ended {
                return;
            }
        }
    });
    messages
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

fn out_of_order(what: &str) -> Error {
    Error::new(ErrorKind::Untrusted, format!("the controller does not keep to the protocol: {what}"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
