//! Secrets from a terminal, without showing them, or from standard input.

use std::io::{BufRead, IsTerminal, Read, Write, stdin};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::failure::{Code, Failure, Result};

/// Longest secret in bytes.
const BYTES_MAX: u64 = controller::trust::SECRET_BYTES_MAX as u64;

/// A line that is not shown while it is typed; without a terminal, the first line of standard input.
pub(crate) fn read_line(question: &str) -> Result<String> {
    let silenced = if stdin().is_terminal() {
        let _ = write!(std::io::stderr(), "{question}: ");
        let _ = std::io::stderr().flush();
        Some(Silence::begin()?)
    } else {
        None
    };
    let mut line = String::new();
    stdin().lock().take(BYTES_MAX).read_line(&mut line).map_err(|e| Failure::io("standard input", &e))?;
    if silenced.is_some() {
        let _ = writeln!(std::io::stderr());
    }
    kept(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A new password: typed twice on a terminal.
pub(crate) fn read_new(question: &str) -> Result<String> {
    let first = read_line(question)?;
    if stdin().is_terminal() && read_line("once more")? != first {
        return Err(Failure::new(Code::Usage, "the two are not the same"));
    }
    Ok(first)
}

/// All of standard input: a key has many lines.
pub(crate) fn read_all() -> Result<String> {
    let mut text = String::new();
    stdin().lock().take(BYTES_MAX).read_to_string(&mut text).map_err(|e| Failure::io("standard input", &e))?;
    kept(text)
}

fn kept(text: String) -> Result<String> {
    match text.is_empty() {
        true => Err(Failure::new(Code::Usage, "nothing was typed, and nothing came on standard input")),
        false => Ok(text),
    }
}

/// The terminal shows nothing until this is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> Result<Self> {
        let failed = |e: rustix::io::Errno| Failure::io("terminal", &e.into());
        let input = stdin();
        let before = tcgetattr(input.as_fd()).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(input.as_fd(), OptionalActions::Flush, &silent).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin().as_fd(), OptionalActions::Now, &self.0);
    }
}
