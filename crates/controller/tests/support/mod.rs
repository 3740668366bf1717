//! A controller in a folder of its own, a client that speaks plain HTTP over its socket, and an agent made of `protocol`.
//! Shared by the tests of two crates, of which each uses its part.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use controller::api::Status;
use controller::tasks::{Converter, PushFiles, PushNeeds};
use controller::{Config, Controller, DataDirectory};
use conversion::{Cancel, Observer, Request, Source};
use machine::{ByteCount, Disk, DiskIdentity, DiskLayout, Machine, SectorSize, Smbios};
use protocol::message::{
    About, AgentKind, AgentMessage, BootMedium, Bytes32, ControllerMessage, Hello, MESSAGE_BYTES_MAX, OpenStream,
    Opening, Report, StreamToken, read_message, write_message,
};
use protocol::pairing::{Pairing, Role};
use protocol::tls::{AgentTls, Identity, Trust};
use protocol::{Connection, VersionRange};
use serde_json::Value;

/// A conversion made of a closure.
pub(crate) struct Fake<F>(pub(crate) F);

impl<F> Converter for Fake<F>
where
    F: Fn(Source, &dyn Observer, &Cancel) -> conversion::Result<Value> + Send + Sync,
{
    fn convert(
        &self,
        source: Source,
        _request: &Request,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> conversion::Result<Value> {
        (self.0)(source, observer, cancel)
    }

    /// Files of the right names; no machine could be started from them.
    fn build_push(&self, needs: &PushNeeds<'_>) -> conversion::Result<PushFiles> {
        let file = |name: &str, content: &str| {
            let path = needs.output.join(name);
            std::fs::write(&path, content).unwrap();
            (name.to_owned(), path)
        };
        let files = vec![
            file("vmlinuz", "kernel"),
            file("initramfs.img", "initramfs"),
            file("configuration.img", needs.token),
            file("shimx64.efi", "shim"),
        ];
        Ok(PushFiles { files, command_line: "quiet".into(), missing: Vec::new() })
    }
}

/// A conversion that is done at once.
pub(crate) fn nothing() -> Arc<dyn Converter> {
    Arc::new(Fake(|_, _: &dyn Observer, _: &Cancel| Ok(Value::Null)))
}

pub(crate) fn start(data: &Path, converter: Arc<dyn Converter>) -> Controller {
    start_with(data, converter, controller::LEASE)
}

/// One that loses its tasks when it stands still for longer than `lease`.
pub(crate) fn start_with(data: &Path, converter: Arc<dyn Converter>, lease: Duration) -> Controller {
    let listen = ([127, 0, 0, 1], 0).into();
    let mut config = Config::new(DataDirectory::new(data), listen, converter);
    config.lease = lease;
    Controller::start(config).unwrap()
}

/// One whose clock is set by the test, in milliseconds.
pub(crate) fn start_at(data: &Path, converter: Arc<dyn Converter>, clock: &Arc<AtomicI64>) -> Controller {
    let mut config = Config::new(DataDirectory::new(data), ([127, 0, 0, 1], 0).into(), converter);
    let clock = Arc::clone(clock);
    config.clock = Arc::new(move || controller::Timestamp(clock.load(Ordering::SeqCst)));
    Controller::start(config).unwrap()
}

/// One request; the answer's status, content type and JSON.
pub(crate) fn http(data: &Path, method: &str, path: &str, body: &str) -> (u16, String, Value) {
    let mut stream = UnixStream::connect(data.join("controller.sock")).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let content_type = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-type: ").map(str::to_owned))
        .unwrap_or_default();
    (status, content_type, serde_json::from_str(body).unwrap_or(Value::Null))
}

pub(crate) fn get(data: &Path, path: &str) -> Value {
    let (status, _, body) = http(data, "GET", path, "");
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// The items of a list's first page.
pub(crate) fn list(data: &Path, path: &str) -> Value {
    get(data, path)["items"].take()
}

/// The stream of events: name and data, one after the other.
pub(crate) fn events(data: &Path) -> impl Iterator<Item = (String, Value)> {
    let mut stream = UnixStream::connect(data.join("controller.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("an event in time"));
    std::iter::from_fn(move || {
        let event = lines.find_map(|line| line.strip_prefix("event: ").map(str::to_owned))?;
        let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned))?;
        Some((event, serde_json::from_str(&data).unwrap()))
    })
}

/// Approves in a thread: the answer waits for the machine's report.
pub(crate) fn approve(data: &Path, code: &str) -> std::thread::JoinHandle<(u16, String, Value)> {
    let (data, body) = (data.to_owned(), format!("{{\"code\":\"{code}\"}}"));
    std::thread::spawn(move || http(&data, "POST", "/machines/approve", &body))
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An agent that does what a test says.
pub(crate) struct Agent {
    /// Its key, and what it shows with it.
    pub(crate) identity: Identity,
    status: Status,
    pub(crate) instance: Bytes32,
    /// Where it says that it runs.
    pub(crate) kind: AgentKind,
    /// Which revisions it says that it speaks.
    pub(crate) protocol: VersionRange,
}

impl Agent {
    pub(crate) fn new(status: &Status) -> Self {
        Self {
            identity: Identity::create_agent().unwrap(),
            status: status.clone(),
            instance: Bytes32::random().unwrap(),
            kind: AgentKind::BootImage,
            protocol: VersionRange::SPOKEN,
        }
    }

    /// The same agent for a controller that was started again on another port.
    pub(crate) fn follow(&mut self, status: &Status) {
        self.status = status.clone();
    }

    fn connect(&self) -> Connection {
        let socket = TcpStream::connect(self.status.agent_address).unwrap();
        let trust = Trust::Authority(self.status.ca_fingerprint.parse().unwrap());
        let connection = Connection::connect(socket, &AgentTls::new(&self.identity, trust).unwrap()).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(20)));
        connection
    }

    /// A control connection, if the controller lets it in.
    pub(crate) fn hello(&self) -> protocol::Result<Connection> {
        let connection = self.connect();
        let hello =
            Hello { protocol: self.protocol, program: "0.1.0-test".into(), kind: self.kind, instance: self.instance };
        connection.open(&Opening::Hello(hello))?;
        connection.set_read_timeout(Some(Duration::from_secs(20)));
        Ok(connection)
    }

    /// A data connection, if the token is good.
    pub(crate) fn open_stream(&self, token: StreamToken) -> protocol::Result<Connection> {
        let connection = self.connect();
        connection.open(&Opening::OpenStream(OpenStream { token }))?;
        Ok(connection)
    }

    /// Connects, pairs, is approved and reports; the control connection and the machine's id.
    pub(crate) fn enrol(&self, data: &Path, machine: &Machine) -> (Connection, String) {
        let connection = self.hello().unwrap();
        let code = pair(&connection);
        eventually("the machine waits", || {
            let machines = list(data, "/machines");
            machines.as_array().unwrap().iter().any(|m| m["state"] == "waiting-for-approval")
        });
        let approval = approve(data, &code);
        assert_eq!(receive(&connection), ControllerMessage::Approved);
        report(&connection, machine);
        let (status, _, answer) = approval.join().unwrap();
        assert_eq!(status, 200, "{answer}");
        (connection, answer["machine"].as_str().unwrap().to_owned())
    }
}

/// The agent's side of a pairing; the code on its screen.
pub(crate) fn pair(connection: &Connection) -> String {
    let ControllerMessage::PairingCommit { commitment } = receive(connection) else { panic!("no commitment") };
    let pairing = Pairing::start(Role::Agent, connection.binding().clone()).unwrap();
    let about = About { product: "KVM".into(), serial: "S1".into(), hostname: "phys-a".into() };
    send(connection, &AgentMessage::PairingCommit { commitment: pairing.commitment(), about });
    let committed = pairing.receive_commitment(commitment);
    send(connection, &AgentMessage::PairingReveal { nonce: committed.nonce() });
    let ControllerMessage::PairingReveal { nonce } = receive(connection) else { panic!("no nonce") };
    committed.receive_nonce(nonce).unwrap().to_string()
}

pub(crate) fn send(connection: &Connection, message: &AgentMessage) {
    write_message(connection, message).unwrap();
}

pub(crate) fn report(connection: &Connection, machine: &Machine) {
    let boot_medium = Some(BootMedium::Pxe);
    let report = Report { machine: machine.clone(), kernel: "6.1.0".into(), boot_medium, ..Report::default() };
    send(connection, &AgentMessage::Report(Box::new(report)));
}

pub(crate) fn receive(connection: &Connection) -> ControllerMessage {
    read_message(connection, MESSAGE_BYTES_MAX).unwrap()
}

/// Whether the controller ends the connection.
pub(crate) fn is_closed(connection: &Connection) -> bool {
    loop {
        match read_message::<ControllerMessage>(connection, MESSAGE_BYTES_MAX) {
            Ok(_) => {}
            Err(error) => return error.kind != protocol::ErrorKind::TimedOut,
        }
    }
}

/// A machine with one disk of 1 GiB.
pub(crate) fn machine(serial: &str) -> Machine {
    let disk = Disk {
        path: "/dev/sda".into(),
        format: "raw".into(),
        virtual_size: ByteCount::gib(1),
        logical_sector_size: SectorSize::B512,
        identity: DiskIdentity { serial: Some(format!("DISK-{serial}")), ..DiskIdentity::default() },
        layout: DiskLayout::default(),
    };
    Machine {
        smbios: Smbios {
            uuid: Some(format!("4c4c4544-0042-3510-8052-b4c04f4e{:04x}", serial.len())),
            serial: Some(serial.into()),
            ..Smbios::default()
        },
        disks: vec![disk],
        ..Machine::default()
    }
}
