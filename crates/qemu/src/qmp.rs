//! A client of the QEMU Machine Protocol (QEMU documentation, "QEMU Machine Protocol Specification"): greeting,
//! capabilities, commands one at a time, events.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Error, ErrorKind, Result};

/// QEMU answers at once unless the machine that runs it is very busy.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
const LINE_MAX: u64 = 16 << 20;
const EVENTS_MAX: usize = 4096;

/// A connection to QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    writer: Mutex<Writer>,
    shared: Arc<Shared>,
}

/// Something that QEMU told by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `SHUTDOWN`, `RESET`, `NIC_RX_FILTER_CHANGED`, …
    pub name: String,
    /// Its data, or null.
    pub data: Value,
}

#[derive(Debug)]
struct Writer {
    stream: UnixStream,
    next_id: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    greeted: bool,
    reply: Option<Value>,
    events: VecDeque<Event>,
    shutdown_reason: Option<String>,
    closed: bool,
}

impl Qmp {
    /// Takes over our end of the monitor's socket, waits for the greeting and leaves the negotiation mode.
    pub(crate) fn connect(stream: UnixStream) -> Result<Self> {
        let reading = stream.try_clone().map_err(|e| Error::io("qmp: duplicating its socket", e))?;
        let shared = Arc::new(Shared::default());
        let kept = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("qemu-qmp".into())
            .spawn(move || kept.drain(reading))
            .map_err(|e| Error::io("qmp: starting a thread", e))?;
        let qmp = Self { writer: Mutex::new(Writer { stream, next_id: 1 }), shared };
        qmp.shared.wait("a greeting", REPLY_TIMEOUT, |state| state.greeted.then_some(()))?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and returns its `return` value.
    pub fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let id = writer.next_id;
        writer.next_id += 1;
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        writer
            .stream
            .write_all(line.as_bytes())
            .map_err(|e| Error { kind: ErrorKind::Exited, ..Error::io(format!("qmp {command}: writing"), e) })?;
        // A reply to a command that was given up on earlier carries an older id.
        let reply = self.shared.wait(command, REPLY_TIMEOUT, |state| state.reply.take_if(|r| r["id"] == id))?;
        match reply.get("return") {
            Some(value) => Ok(value.clone()),
            None => {
                let why = reply["error"]["desc"].as_str().unwrap_or("no reason given");
                Err(Error::new(ErrorKind::Qmp, format!("qmp {command}: {why}")))
            }
        }
    }

    /// `running`, `paused`, `shutdown`, … (`query-status`).
    pub fn status(&self) -> Result<String> {
        let reply = self.execute("query-status", json!({}))?;
        reply["status"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::new(ErrorKind::Qmp, format!("qmp query-status: expected a status, found {reply}")))
    }

    /// Plugs or unplugs the cable of the NIC with this place in [`crate::Hardware::nics`].
    pub fn set_link(&self, nic: usize, up: bool) -> Result<()> {
        self.execute("set_link", json!({ "name": format!("nic{nic}"), "up": up })).map(drop)
    }

    /// Ends QEMU at once.
    pub fn quit(&self) -> Result<()> {
        self.execute("quit", json!({})).map(drop)
    }

    /// Presses keys one after another; a key is a QKeyCode, several joined by `-` are pressed together: `ctrl-alt-f2`,
    /// `ret`, `a`.
    pub fn send_keys(&self, keys: &[&str]) -> Result<()> {
        for chord in keys {
            let codes: Vec<Value> = chord.split('-').map(|code| json!({ "type": "qcode", "data": code })).collect();
            self.execute("send-key", json!({ "keys": codes, "hold-time": 40 }))?;
            std::thread::sleep(Duration::from_millis(90));
        }
        Ok(())
    }

    /// The next event, or `None` after `timeout` or when QEMU ended. Older ones are dropped past some thousands.
    pub fn next_event(&self, timeout: Duration) -> Option<Event> {
        self.shared.wait("an event", timeout, |state| state.events.pop_front()).ok()
    }

    /// Why QEMU ended, as its `SHUTDOWN` event says (`guest-shutdown`, `guest-reset`, `host-qmp-quit`), once the
    /// connection is closed or `timeout` passed.
    pub(crate) fn shutdown_reason(&self, timeout: Duration) -> Option<String> {
        let _ = self.shared.wait("the end", timeout, |state| state.closed.then_some(()));
        self.shared.lock().shutdown_reason.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(&self, what: &str, timeout: Duration, mut take: impl FnMut(&mut State) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(taken) = take(&mut state) {
                return Ok(taken);
            }
            if state.closed {
                return Err(Error::new(ErrorKind::Exited, format!("qmp: QEMU ended while waiting for {what}")));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(ErrorKind::Timeout, format!("qmp: no answer to {what} in time")));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn drain(&self, stream: UnixStream) {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line) {
                Ok(n) if n > 0 && line.ends_with(b"\n") => {}
                _ => break,
            }
            if let Ok(message) = serde_json::from_slice::<Value>(&line) {
                self.lock().take(message);
                self.changed.notify_all();
            }
        }
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

impl State {
    fn take(&mut self, message: Value) {
        if message.get("QMP").is_some() {
            self.greeted = true;
        } else if let Some(name) = message["event"].as_str() {
            if name == "SHUTDOWN" {
                self.shutdown_reason = message["data"]["reason"].as_str().map(str::to_owned);
            }
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back(Event { name: name.to_owned(), data: message["data"].clone() });
        } else {
            self.reply = Some(message);
        }
    }
}
