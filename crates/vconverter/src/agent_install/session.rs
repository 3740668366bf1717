//! A command at the other end of a connection: lines in, lines out, and an end that is awaited or made.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use conversion::Cancel;

use crate::failure::{Code, Failure, Result};

/// What is kept of standard error, in bytes.
const SAID_BYTES_MAX: u64 = 64 << 10;
/// Longest line that is read, in bytes; the rest of a longer one is another.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Lines that wait to be read.
const LINES_MAX: usize = 256;
/// How often it is looked whether somebody wants to stop.
const PAUSE: Duration = Duration::from_millis(100);
/// What is written at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;
/// Time to end once nothing comes any more.
const END_SECONDS_MAX: u64 = 60;

/// A running command.
pub(super) struct Session {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    said: Receiver<String>,
    cancel: Cancel,
}

/// How a command ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// Its standard error.
    pub(super) said: String,
    /// The lines that nobody had read.
    pub(super) lines: Vec<String>,
}

impl Session {
    /// Starts it. Ctrl-C in this terminal does not reach it: it is ended in order.
    pub(super) fn start(mut command: Command, cancel: &Cancel) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Failure::new(Code::Failed, format!("{name} is not here: install the package openssh-client"))
            }
            _ => Failure::io(&name, &e),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (sender, lines) = sync_channel(LINES_MAX);
        thread::spawn(move || {
            let mut output = BufReader::new(output?);
            loop {
                let mut line = Vec::new();
                let read = output.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if !matches!(read, Ok(length) if length > 0) || sender.send(text).is_err() {
                    return Some(());
                }
            }
        });
        let (sender, said) = channel();
        thread::spawn(move || {
            let (mut text, mut errors) = (Vec::new(), errors?);
            let _ = errors.by_ref().take(SAID_BYTES_MAX).read_to_end(&mut text);
            let _ = std::io::copy(&mut errors, &mut std::io::sink());
            sender.send(String::from_utf8_lossy(&text).into_owned()).ok()
        });
        Ok(Self { child, input, lines, said, cancel: cancel.clone() })
    }

    /// Writes to its standard input; that it has ended is seen when it is asked for a line or its end.
    ///
    /// # Errors
    /// Somebody wants to stop.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(input) = &mut self.input else { return Ok(()) };
        for piece in bytes.chunks(PIECE_BYTES) {
            not_cancelled(&self.cancel)?;
            if input.write_all(piece).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The end of its standard input.
    pub(super) fn close(&mut self) {
        self.input = None;
    }

    /// Its next line; `None` at its end, or after `timeout`.
    ///
    /// # Errors
    /// Somebody wants to stop.
    pub(super) fn line(&mut self, timeout: Duration) -> Result<Line> {
        let start = Instant::now();
        loop {
            not_cancelled(&self.cancel)?;
            match self.lines.recv_timeout(PAUSE.min(timeout)) {
                Ok(line) => return Ok(Line::Said(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(Line::Ended),
                Err(RecvTimeoutError::Timeout) if start.elapsed() >= timeout => return Ok(Line::Late),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits until it has ended by itself, having heard that nothing more comes; one that does not is killed.
    pub(super) fn end(mut self) -> Result<Ended> {
        self.close();
        let start = Instant::now();
        let mut lines = Vec::new();
        let status = loop {
            lines.extend(self.lines.try_iter());
            match self.child.try_wait().map_err(|e| Failure::io("ssh", &e))? {
                Some(status) => break status,
                None if start.elapsed() > Duration::from_secs(END_SECONDS_MAX) => {
                    let _ = self.child.kill();
                    break self.child.wait().map_err(|e| Failure::io("ssh", &e))?;
                }
                None => thread::sleep(PAUSE / 4),
            }
        };
        // Both pipes are at their ends, unless something else holds them.
        while let Ok(line) = self.lines.recv_timeout(PAUSE * 10) {
            lines.push(line);
        }
        let said = self.said.recv_timeout(PAUSE * 10).unwrap_or_default();
        Ok(Ended { status, said, lines })
    }
}

/// What came when a line was awaited.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Said(String),
    Ended,
    Late,
}

impl Drop for Session {
    /// What it did is undone at the other end as soon as its input ends; it gets a moment to.
    fn drop(&mut self) {
        self.close();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::sleep(PAUSE / 4);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn not_cancelled(cancel: &Cancel) -> Result<()> {
    match cancel.is_cancelled() {
        true => Err(Failure::new(Code::Interrupted, "interrupted; what was done is undone")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, cancel: &Cancel) -> Session {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Session::start(command, cancel).unwrap()
    }

    #[test]
    fn lines_come_and_the_end_tells_the_rest() {
        let mut session = start("read a; echo got $a; echo more; echo bad >&2; exit 3", &Cancel::default());
        session.write(b"x\n").unwrap();
        assert_eq!(session.line(Duration::from_secs(9)).unwrap(), Line::Said("got x".into()));
        let ended = session.end().unwrap();
        assert_eq!(
            (ended.status.code(), ended.said.as_str(), ended.lines),
            (Some(3), "bad\n", vec!["more".to_owned()])
        );
        let mut session = start("sleep 0.3", &Cancel::default());
        assert_eq!(session.line(Duration::from_millis(10)).unwrap(), Line::Late);
        assert_eq!(session.line(Duration::from_secs(9)).unwrap(), Line::Ended);
    }

    #[test]
    fn whoever_stops_is_heard_at_once() {
        let cancel = Cancel::default();
        let mut session = start("cat", &cancel);
        cancel.cancel();
        assert_eq!(session.line(Duration::from_secs(60)).unwrap_err().code, Code::Interrupted);
        assert_eq!(session.write(b"x").unwrap_err().code, Code::Interrupted);
    }
}
