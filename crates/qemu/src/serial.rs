//! A serial port of a running machine: what it printed so far, waiting for more, typing into it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind, Result};

/// Output kept in memory; older output is dropped by halves, and is in the log file only.
const KEPT_MAX: usize = 8 << 20;

/// A serial port of a running machine.
#[derive(Debug)]
pub struct Serial {
    stream: UnixStream,
    output: Arc<Output>,
}

/// Reads a port's output from some point on, at its own pace; several may read the same port.
#[derive(Debug, Clone)]
pub struct SerialReader {
    output: Arc<Output>,
    position: u64,
}

#[derive(Debug, Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Bytes dropped before `bytes`.
    dropped: u64,
    /// QEMU closed the port.
    closed: bool,
}

impl Serial {
    /// Takes over our end of the port's socket and starts a thread that drains it.
    pub(crate) fn new(stream: UnixStream, log: Option<&Path>) -> Result<Self> {
        let failed = |what: &str, e| Error::io(format!("serial port: {what}"), e);
        let log = match log {
            Some(path) => Some(File::create(path).map_err(|e| failed(&path.display().to_string(), e))?),
            None => None,
        };
        let output = Arc::new(Output::default());
        let (reading, kept) =
            (stream.try_clone().map_err(|e| failed("duplicating its socket", e))?, Arc::clone(&output));
        std::thread::Builder::new()
            .name("qemu-serial".into())
            .spawn(move || kept.drain(reading, log))
            .map_err(|e| failed("starting a thread", e))?;
        Ok(Self { stream, output })
    }

    /// All output that is kept; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().bytes).into_owned()
    }

    /// A reader from the first byte on.
    pub fn reader(&self) -> SerialReader {
        SerialReader { output: Arc::clone(&self.output), position: 0 }
    }

    /// A reader of what is printed from now on.
    pub fn reader_from_now(&self) -> SerialReader {
        let position = self.output.lock().end();
        SerialReader { output: Arc::clone(&self.output), position }
    }

    /// Types into the port.
    pub fn write(&self, keys: &str) -> Result<()> {
        (&self.stream).write_all(keys.as_bytes()).map_err(|e| Error::io("serial port: writing", e))
    }
}

impl SerialReader {
    /// Waits until `pattern` (plain text) was printed, moves behind it, and returns what was printed up to and with it.
    /// Errors: [`ErrorKind::Timeout`], or [`ErrorKind::Exited`] when QEMU ends first; both show the last output.
    pub fn wait_for(&mut self, pattern: &str, timeout: Duration) -> Result<String> {
        self.wait_for_any(&[pattern], timeout).map(|(_, text)| text)
    }

    /// As [`SerialReader::wait_for`] with several patterns: which of them ended first, and the text.
    pub fn wait_for_any(&mut self, patterns: &[&str], timeout: Duration) -> Result<(usize, String)> {
        let found = self.wait(timeout, |bytes| {
            patterns
                .iter()
                .enumerate()
                .filter_map(|(index, p)| find(bytes, p.as_bytes()).map(|at| (at + p.len(), index)))
                .min()
        })?;
        match found {
            Ok((index, bytes)) => Ok((index, String::from_utf8_lossy(&bytes).into_owned())),
            Err(missing) => Err(missing.error(&format!("{patterns:?}"))),
        }
    }

    /// The next complete line without its end, or `None` after `timeout` or when the port was closed.
    pub fn next_line(&mut self, timeout: Duration) -> Result<Option<String>> {
        let found = self.wait(timeout, |bytes| bytes.iter().position(|b| *b == b'\n').map(|at| (at + 1, 0)))?;
        Ok(found.ok().map(|(_, line)| String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// What was printed since, without waiting.
    pub fn available(&mut self) -> String {
        let state = self.output.lock();
        let text = String::from_utf8_lossy(state.from(self.position)).into_owned();
        self.position = state.end();
        text
    }

    /// Whether QEMU closed the port; what was printed before can still be read.
    pub fn is_closed(&self) -> bool {
        self.output.lock().closed
    }

    /// Waits until `search` gives an end in the unread bytes; moves there.
    fn wait(
        &mut self,
        timeout: Duration,
        search: impl Fn(&[u8]) -> Option<(usize, usize)>,
    ) -> Result<std::result::Result<(usize, Vec<u8>), NotFound>> {
        let deadline = Instant::now() + timeout;
        let mut state = self.output.lock();
        loop {
            self.position = self.position.max(state.dropped);
            let unread = state.from(self.position);
            if let Some((end, index)) = search(unread) {
                let taken = unread[..end].to_vec();
                self.position += end as u64;
                return Ok(Ok((index, taken)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                let last = unread.len().saturating_sub(800);
                let tail = String::from_utf8_lossy(&unread[last..]).into_owned();
                return Ok(Err(NotFound { closed: state.closed, timeout, tail }));
            }
            state = self.output.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

struct NotFound {
    closed: bool,
    timeout: Duration,
    tail: String,
}

impl NotFound {
    fn error(self, wanted: &str) -> Error {
        let (kind, why) = if self.closed {
            (ErrorKind::Exited, "before the machine ended".to_owned())
        } else {
            (ErrorKind::Timeout, format!("within {} s", self.timeout.as_secs()))
        };
        Error::new(kind, format!("serial port: expected {wanted} {why}, found {:?}", self.tail))
    }
}

impl State {
    fn end(&self) -> u64 {
        self.dropped + self.bytes.len() as u64
    }

    fn from(&self, position: u64) -> &[u8] {
        let start = usize::try_from(position.saturating_sub(self.dropped)).unwrap_or(usize::MAX);
        self.bytes.get(start..).unwrap_or_default()
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drain(&self, mut stream: UnixStream, mut log: Option<File>) {
        let mut buffer = [0; 4096];
        loop {
            let read = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => &buffer[..n],
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            if let Some(file) = &mut log
                && file.write_all(read).is_err()
            {
                log = None; // a full disk must not stop the machine; the text in memory goes on
            }
            let mut state = self.lock();
            if state.bytes.len() + read.len() > KEPT_MAX {
                let half = state.bytes.len() / 2;
                state.bytes.drain(..half);
                state.dropped += half as u64;
            }
            state.bytes.extend_from_slice(read);
            self.changed.notify_all();
        }
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    if pattern.is_empty() {
        return Some(0);
    }
    text.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> (UnixStream, Serial) {
        let (machine, ours) = UnixStream::pair().unwrap();
        (machine, Serial::new(ours, None).unwrap())
    }

    #[test]
    fn waits_go_forward_through_the_output() {
        let (mut machine, serial) = port();
        let mut reader = serial.reader();
        machine.write_all(b"login: one\r\nlogin: two\r\n").unwrap();
        let second = Duration::from_secs(5);
        assert_eq!(reader.wait_for("login: ", second).unwrap(), "login: ");
        assert_eq!(reader.next_line(second).unwrap().as_deref(), Some("one"));
        assert_eq!(reader.wait_for_any(&["three", "two"], second).unwrap(), (1, "login: two".into()));
        assert_eq!(serial.text(), "login: one\r\nlogin: two\r\n");
    }

    #[test]
    fn a_wait_ends_when_the_machine_does() {
        let (mut machine, serial) = port();
        machine.write_all(b"Kernel panic").unwrap();
        drop(machine);
        let error = serial.reader().wait_for("login:", Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Exited);
        assert!(error.to_string().contains("Kernel panic"), "{error}");
    }

    #[test]
    fn a_wait_ends_in_time() {
        let (_machine, serial) = port();
        let error = serial.reader().wait_for("login:", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout);
    }

    #[test]
    fn typed_keys_reach_the_machine() {
        let (mut machine, serial) = port();
        serial.write("root\n").unwrap();
        let mut keys = [0; 5];
        machine.read_exact(&mut keys).unwrap();
        assert_eq!(&keys, b"root\n");
    }

    #[test]
    fn memory_stays_bounded() {
        let (mut machine, serial) = port();
        let block = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            machine.write_all(&block).unwrap();
        }
        machine.write_all(b"end").unwrap();
        serial.reader().wait_for("end", Duration::from_secs(20)).unwrap();
        assert!(serial.text().len() <= KEPT_MAX);
    }
}
