//! One TLS connection over TCP, read and written by two threads at once.
//!
//! The socket is never blocked on while the TLS session is locked, so a full send buffer does not keep acknowledgements
//! from being read.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::message::{self, Opening, OpeningReply};
use crate::pairing::{Binding, EXPORTER_LABEL};
use crate::tls::{AgentTls, ControllerTls, Fingerprint};
use crate::{Error, ErrorKind, Result};

/// Time for the TLS handshake and for the opening.
const HANDSHAKE_SECONDS_MAX: u64 = 15;
/// Ciphertext is received in pieces of at most this many bytes.
const RECEIVE_BYTES: usize = 256 << 10;
/// Plaintext is encrypted and sent in pieces of at most this many bytes: small enough to stay in the processor's cache,
/// large enough for sixteen records a system call.
const SEND_BYTES: usize = 256 << 10;
/// Unacknowledged data, or silence under keepalive, for this long means that the peer is gone.
const DEAD_PEER_SECONDS: u32 = 18;

/// See [`message::SILENCE_SECONDS_MAX`].
const SILENCE: Duration = Duration::from_secs(message::SILENCE_SECONDS_MAX);

/// An established connection between agent and controller. Reads and writes go through shared references; one thread
/// may read while another writes.
pub struct Connection {
    socket: TcpStream,
    session: Mutex<rustls::Connection>,
    receiving: Mutex<Received>,
    sending: Mutex<()>,
    /// In milliseconds; 0 is for ever.
    read_timeout_ms: AtomicU64,
    write_timeout_ms: AtomicU64,
    binding: Binding,
    peer_certificate: CertificateDer<'static>,
}

/// Ciphertext that was received and not yet given to the session.
struct Received {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Connection {
    /// Does the agent's side of the handshake on a connected socket.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] when the controller's certificate is not the pinned one or the handshake fails; the
    /// link's own errors.
    pub fn connect(socket: TcpStream, tls: &AgentTls) -> Result<Self> {
        let name =
            ServerName::try_from("vconverter.invalid").map_err(|e| Error::malformed("server name").because(e))?;
        let session = rustls::ClientConnection::new(tls.config.clone(), name)
            .map_err(|e| Error::new(ErrorKind::Identity, "cannot begin TLS").because(e))?;
        Self::establish(socket, session.into(), |session| {
            let chain = session.peer_certificates().unwrap_or_default();
            let (Some(leaf), Some(last)) = (chain.first(), chain.last()) else { return Err(no_certificate()) };
            Ok((tls.key, Fingerprint::of_key(leaf)?, Fingerprint::of(last)))
        })
    }

    /// Does the controller's side of the handshake on an accepted socket.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] when the peer has no certificate, does not hold its key, or trusts another controller;
    /// the link's own errors.
    pub fn accept(socket: TcpStream, tls: &ControllerTls) -> Result<Self> {
        let session = rustls::ServerConnection::new(tls.config.clone())
            .map_err(|e| Error::new(ErrorKind::Identity, "cannot begin TLS").because(e))?;
        Self::establish(socket, session.into(), |session| {
            let chain: &[CertificateDer<'_>] = session.peer_certificates().unwrap_or_default();
            let leaf = chain.first().ok_or_else(no_certificate)?;
            Ok((Fingerprint::of_key(leaf)?, tls.key, tls.authority))
        })
    }

    fn establish(
        socket: TcpStream,
        mut session: rustls::Connection,
        keys: impl FnOnce(&rustls::Connection) -> Result<(Fingerprint, Fingerprint, Fingerprint)>,
    ) -> Result<Self> {
        tune(&socket).map_err(|e| Error::link("cannot set socket options", e))?;
        session.set_buffer_limit(None);
        let mut received = Received { buffer: vec![0; RECEIVE_BYTES].into(), start: 0, end: 0 };
        shake_hands(&socket, &mut session, &mut received)?;
        let (agent_key, controller_key, controller_authority) = keys(&session)?;
        let peer_certificate =
            session.peer_certificates().and_then(<[_]>::first).cloned().ok_or_else(no_certificate)?;
        let exporter = session
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .map_err(|e| Error::new(ErrorKind::Untrusted, "TLS exports no key").because(e))?;
        Ok(Self {
            socket,
            session: Mutex::new(session),
            receiving: Mutex::new(received),
            sending: Mutex::new(()),
            read_timeout_ms: AtomicU64::new(message::SILENCE_SECONDS_MAX * 1000),
            write_timeout_ms: AtomicU64::new(0),
            binding: Binding { exporter, agent_key, controller_key, controller_authority },
            peer_certificate,
        })
    }

    /// What a pairing on this connection is bound to; the same on both ends, unless somebody sits between them.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The agent's public key: who it is.
    pub fn agent_key(&self) -> Fingerprint {
        self.binding.agent_key
    }

    /// The certificate that the other end showed, whose key it holds.
    pub fn peer_certificate(&self) -> &CertificateDer<'static> {
        &self.peer_certificate
    }

    /// The other end's address.
    ///
    /// # Errors
    /// The link's own.
    pub fn peer_address(&self) -> Result<SocketAddr> {
        self.socket.peer_addr().map_err(|e| Error::link("the peer has no address", e))
    }

    /// A read that gets nothing for this long fails with [`ErrorKind::TimedOut`]; `None` waits for ever. At first it is
    /// [`message::SILENCE_SECONDS_MAX`]: heartbeats and idle frames come more often. Whoever reads acknowledgements waits
    /// for ever: a slow disk at the other end is no reason to give up.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.read_timeout_ms.store(milliseconds(timeout), Ordering::Relaxed);
    }

    /// A write that gets nothing away for this long fails with [`ErrorKind::TimedOut`]; `None` waits for ever.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.write_timeout_ms.store(milliseconds(timeout), Ordering::Relaxed);
    }

    /// Agent: says who dials and waits for the answer.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with the controller's reason and remedy, [`ErrorKind::CertificateRefused`] where it is the
    /// agent's certificate that is not taken; the link's own errors.
    pub fn open(&self, opening: &Opening) -> Result<crate::Version> {
        self.set_read_timeout(Some(Duration::from_secs(HANDSHAKE_SECONDS_MAX)));
        message::write_message(self, opening)?;
        let reply = message::read_message(self, message::MESSAGE_BYTES_MAX)?;
        self.set_read_timeout(Some(SILENCE));
        match reply {
            OpeningReply::Welcome { protocol, .. } => Ok(protocol),
            OpeningReply::Refused { reason, remedy, certificate } => {
                let remedy = remedy.map(|r| format!("; {r}")).unwrap_or_default();
                let kind = if certificate { ErrorKind::CertificateRefused } else { ErrorKind::Refused };
                Err(Error::new(kind, format!("the controller refused: {reason}{remedy}")))
            }
        }
    }

    /// Controller: what the peer wants; it is answered with [`Connection::welcome`] or [`Connection::refuse`].
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`], [`ErrorKind::TimedOut`], the link's own errors.
    pub fn opening(&self) -> Result<Opening> {
        self.set_read_timeout(Some(Duration::from_secs(HANDSHAKE_SECONDS_MAX)));
        let opening = message::read_message(self, message::MESSAGE_BYTES_MAX)?;
        self.set_read_timeout(Some(SILENCE));
        Ok(opening)
    }

    /// Controller: the connection goes on, in this revision of the protocol.
    ///
    /// # Errors
    /// The link's own.
    pub fn welcome(&self, protocol: crate::Version, program: &str) -> Result<()> {
        message::write_message(self, &OpeningReply::Welcome { protocol, program: program.to_owned() })
    }

    /// Controller: the connection is refused and closed.
    ///
    /// # Errors
    /// The link's own.
    pub fn refuse(&self, reason: &str, remedy: Option<&str>) -> Result<()> {
        self.say_refused(reason, remedy, false)
    }

    /// Controller: it is the agent's certificate that is refused; without it the agent may come again.
    ///
    /// # Errors
    /// The link's own.
    pub fn refuse_certificate(&self, reason: &str, remedy: Option<&str>) -> Result<()> {
        self.say_refused(reason, remedy, true)
    }

    fn say_refused(&self, reason: &str, remedy: Option<&str>, certificate: bool) -> Result<()> {
        let (reason, remedy) = (reason.to_owned(), remedy.map(str::to_owned));
        message::write_message(self, &OpeningReply::Refused { reason, remedy, certificate })?;
        self.finish();
        Ok(())
    }

    /// Says that nothing more will be sent; what the peer still sends can be read.
    pub fn finish(&self) {
        let _sending = lock(&self.sending);
        lock(&self.session).send_close_notify();
        if self.flush_session().is_ok() {
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Cuts the connection at once; whoever reads or writes it fails with [`ErrorKind::Closed`].
    pub fn abort(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Writes the parts one behind another, as few records and system calls as possible.
    ///
    /// # Errors
    /// The link's own.
    pub fn write_parts(&self, parts: &[&[u8]]) -> io::Result<()> {
        let _sending = lock(&self.sending);
        let mut queued = 0;
        for part in parts {
            for piece in part.chunks(SEND_BYTES) {
                if queued + piece.len() > SEND_BYTES {
                    self.flush_session()?;
                    queued = 0;
                }
                lock(&self.session).writer().write_all(piece)?;
                queued += piece.len();
            }
        }
        self.flush_session()
    }

    /// Sends the session's records; the caller holds `sending`.
    fn flush_session(&self) -> io::Result<()> {
        loop {
            let mut session = lock(&self.session);
            while session.wants_write() {
                match session.write_tls(&mut &self.socket) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            if !session.wants_write() {
                return Ok(());
            }
            drop(session);
            wait(&self.socket, PollFlags::OUT, self.write_timeout_ms.load(Ordering::Relaxed))?;
        }
    }

    /// Gives received ciphertext to the session; false if there is none.
    fn decrypt(&self, received: &mut Received) -> io::Result<bool> {
        let mut session = lock(&self.session);
        if received.start == received.end {
            return Ok(false);
        }
        received.feed(&mut session)?;
        let answer = session.process_new_packets();
        let wants_write = session.wants_write();
        drop(session);
        // An alert, or the answer to a key update; a writer that is busy sends it too.
        if wants_write && let Ok(_sending) = self.sending.try_lock() {
            let _ = self.flush_session();
        }
        // The handshake is over: whatever is wrong now, the link did it, or somebody on it. A new connection may help.
        let damaged = |e| Error::new(ErrorKind::Link, "the TLS connection was disturbed").because(e);
        answer.map(|_| true).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, damaged(e)))
    }
}

impl Received {
    /// What was received and not consumed goes to the session, in the pieces that it takes.
    fn feed(&mut self, session: &mut rustls::Connection) -> io::Result<()> {
        let mut waiting = &self.buffer[self.start..self.end];
        session.read_tls(&mut waiting)?;
        self.start = self.end - waiting.len();
        Ok(())
    }

    /// Fills the empty buffer from the socket, waiting at most `timeout_ms`; 0 at the end of the stream.
    fn fill(&mut self, socket: &TcpStream, timeout_ms: u64) -> io::Result<usize> {
        loop {
            match (&mut &*socket).read(&mut self.buffer) {
                Ok(length) => {
                    (self.start, self.end) = (0, length);
                    return Ok(length);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait(socket, PollFlags::IN, timeout_ms)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Read for &Connection {
    /// Reads plaintext; 0 only where the peer ended the connection properly.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut received = lock(&self.receiving);
        let mut filled = 0;
        while filled < buffer.len() {
            let got = lock(&self.session).reader().read(&mut buffer[filled..]);
            match got {
                Ok(0) => break,
                Ok(length) => {
                    filled += length;
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return if filled > 0 { Ok(filled) } else { Err(e) },
            }
            if self.decrypt(&mut received)? {
                continue;
            }
            // Everything that has arrived is delivered before waiting for more.
            if filled > 0 {
                break;
            }
            if received.fill(&self.socket, self.read_timeout_ms.load(Ordering::Relaxed))? == 0 {
                // Without close_notify: cut, perhaps by somebody else.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(filled)
    }
}

impl Write for &Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write_parts(&[buffer])?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.socket.peer_addr().ok()).finish_non_exhaustive()
    }
}

fn shake_hands(socket: &TcpStream, session: &mut rustls::Connection, received: &mut Received) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(HANDSHAKE_SECONDS_MAX);
    let link = |e| Error::link("TLS handshake", e);
    loop {
        while session.wants_write() {
            match session.write_tls(&mut &*socket) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    wait(socket, PollFlags::OUT, left(deadline)).map_err(link)?;
                }
                Err(e) => return Err(link(e)),
            }
        }
        if !session.is_handshaking() {
            return Ok(());
        }
        if received.start == received.end && received.fill(socket, left(deadline)).map_err(link)? == 0 {
            return Err(Error::new(ErrorKind::Closed, "the peer closed the connection during the TLS handshake"));
        }
        received.feed(session).map_err(link)?;
        if let Err(error) = session.process_new_packets() {
            // The peer is told why.
            let _ = session.write_tls(&mut &*socket);
            return Err(untrusted(error));
        }
    }
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(6))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(4))?;
    sockopt::set_tcp_keepcnt(socket, 3)?;
    sockopt::set_tcp_user_timeout(socket, DEAD_PEER_SECONDS * 1000)?;
    Ok(())
}

/// Waits until the socket is ready; `timeout_ms` 0 is for ever.
fn wait(socket: &TcpStream, flags: PollFlags, timeout_ms: u64) -> io::Result<()> {
    let timeout = (timeout_ms > 0).then(|| Timespec {
        tv_sec: i64::try_from(timeout_ms / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(timeout_ms % 1000 * 1_000_000).unwrap_or(0),
    });
    match poll(&mut [PollFd::new(socket, flags)], timeout.as_ref()) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Milliseconds until `deadline`, at least one.
fn left(deadline: Instant) -> u64 {
    milliseconds(Some(deadline.saturating_duration_since(Instant::now())))
}

fn milliseconds(timeout: Option<Duration>) -> u64 {
    timeout.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// A thread that panicked while it held the session leaves it as it was between two records.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_certificate() -> Error {
    Error::new(ErrorKind::Untrusted, "the peer has no certificate")
}

fn untrusted(error: rustls::Error) -> Error {
    let text = match &error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            "the controller's certificate is not signed by the CA that this machine was given: another controller, or \
             somebody in between"
        }
        rustls::Error::AlertReceived(_) => "the peer refused the TLS connection",
        _ => "TLS fails",
    };
    Error::new(ErrorKind::Untrusted, text).because(error)
}
