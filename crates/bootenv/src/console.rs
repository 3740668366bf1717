//! The consoles of the machine: its screen (`/dev/tty0`) and its serial ports, and the log that goes to the serial ones.
//!
//! A port that does not take its bytes (flow control, a dead management controller) must not hold anything up: each has a
//! thread and a bounded queue, and what does not fit is counted and left out.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use rustix::fs::OFlags;
use rustix::termios::{ControlModes, LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// Log lines that a slow port may lag behind.
const QUEUE_LINES_MAX: usize = 512;
/// Log lines kept for the screen.
const RECENT_LINES_MAX: usize = 100;

/// Writes one line to the log: to every serial console, and kept for the screen's last lines.
///
/// It begins with the seconds since start; control characters are replaced, for text may come from a disk or the wire.
pub fn log(text: impl AsRef<str>) {
    let log = open_log();
    let text: String = text.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect();
    let line = format!("[{:8.2}] vconverter: {text}\r\n", log.started.elapsed().as_secs_f64());
    for port in &log.ports {
        port.send(line.clone());
    }
    log.lines.fetch_add(1, Ordering::Relaxed);
    let mut recent = log.recent.lock().unwrap_or_else(PoisonError::into_inner);
    if recent.len() == RECENT_LINES_MAX {
        recent.pop_front();
    }
    recent.push_back(text);
}

/// Writes text to every serial console as it is: questions and what is typed in answer.
pub fn echo(text: &str) {
    for port in &open_log().ports {
        port.send(text.to_owned());
    }
}

/// How many lines were logged.
pub fn logged() -> u64 {
    open_log().lines.load(Ordering::Relaxed)
}

/// The last `count` lines of the log, oldest first.
pub fn recent(count: usize) -> Vec<String> {
    let recent = open_log().recent.lock().unwrap_or_else(PoisonError::into_inner);
    recent.iter().skip(recent.len().saturating_sub(count)).cloned().collect()
}

/// Serial consoles: the first port, if there is hardware behind it, and those that the kernel writes to.
pub fn serial_ports() -> Vec<PathBuf> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut names = Vec::new();
    // The kernel makes four ports whatever there is; type 0 is none.
    if !matches!(read("/sys/class/tty/ttyS0/type").trim(), "" | "0") {
        names.push("ttyS0".to_owned());
    }
    for name in read("/sys/class/tty/console/active").split_whitespace() {
        let is_screen = name.strip_prefix("tty").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
        if !is_screen && !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    names.into_iter().map(|name| Path::new("/dev").join(name)).collect()
}

/// Opens a console for reading and writing, without making it the controlling terminal; a serial one without echo, line
/// editing or carrier.
///
/// # Errors
/// The operating system's.
pub fn open_console(path: &Path) -> std::io::Result<File> {
    // Without O_NONBLOCK the open of a port waits for a carrier.
    let flags = OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if let Ok(mut settings) = tcgetattr(&file) {
        settings.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
        settings.control_modes &= !ControlModes::CRTSCTS;
        settings.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON);
        settings.special_codes[rustix::termios::SpecialCodeIndex::VMIN] = 1;
        tcsetattr(&file, OptionalActions::Now, &settings)?;
    }
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

struct Log {
    started: Instant,
    ports: Vec<Port>,
    recent: Mutex<VecDeque<String>>,
    lines: AtomicU64,
}

fn open_log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| Log {
        started: Instant::now(),
        ports: serial_ports().iter().filter_map(|path| open_console(path).ok()).filter_map(Port::start).collect(),
        recent: Mutex::default(),
        lines: AtomicU64::new(0),
    })
}

struct Port {
    queue: SyncSender<String>,
    left_out: Mutex<u64>,
}

impl Port {
    fn start(file: File) -> Option<Self> {
        let (queue, lines) = sync_channel(QUEUE_LINES_MAX);
        std::thread::Builder::new().name("serial log".into()).spawn(move || write_lines(file, &lines)).ok()?;
        Some(Self { queue, left_out: Mutex::new(0) })
    }

    fn send(&self, line: String) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        if *left_out > 0 && self.queue.try_send(format!("({left_out} lines left out)\r\n")).is_ok() {
            *left_out = 0;
        }
        if let Err(TrySendError::Full(_)) = self.queue.try_send(line) {
            *left_out += 1;
        }
    }
}

fn write_lines(mut port: File, lines: &Receiver<String>) {
    while let Ok(line) = lines.recv() {
        // A port that went away (USB) has nothing to tell it to.
        if port.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

/// Waits until every port has taken what was logged, at most for `timeout`; before the machine is switched off.
pub fn drain(timeout: std::time::Duration) {
    let end = Instant::now() + timeout;
    for path in serial_ports() {
        if let Ok(file) = open_console(&path) {
            // The queue's thread gets its turn first.
            std::thread::sleep(std::time::Duration::from_millis(100).min(timeout));
            while Instant::now() < end && unsent(&file) > 0 {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

/// Bytes in the kernel's buffer of a port.
#[allow(unsafe_code)]
fn unsent(file: &File) -> i32 {
    use std::os::fd::AsRawFd;
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int to the address, which outlives the call.
    let failed = unsafe { libc::ioctl(file.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } != 0;
    if failed { 0 } else { bytes }
}
