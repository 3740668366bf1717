//! Pushes files of drivers to a machine in the boot image, on its control connection, and waits for what becomes of them.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protocol::driver::{DriverOutcome, FILES_MAX, PUSH_BYTES_MAX};
use protocol::message::{AgentKind, ControllerMessage, write_message};
use protocol::piece::{FileName, FilePiece, PIECE_BYTES_MAX};
use protocol::tls::Fingerprint;

use super::{Error, ErrorKind, Link, Result, SessionId, Sessions};
use crate::Timestamp;

/// How long the boot image may take to install what was pushed; the caller of the API waits no longer either.
const INSTALL_MAX: Duration = Duration::from_secs(45);
/// Bytes kept of what an agent says about one file.
const TEXT_CHARS_MAX: usize = 1000;
/// Longest wait before a waiter looks again whether the machine went.
const WAIT: Duration = Duration::from_millis(500);

/// By its number, the machine that a push went to and what it answered.
type Waiting = HashMap<u64, (Fingerprint, Option<Vec<DriverOutcome>>)>;

/// Pushes that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    waiting: Mutex<Waiting>,
    answered: Condvar,
}

impl Sessions {
    /// The kernel of a connected machine, as it reported it.
    pub fn kernel(&self, machine: &str) -> Option<String> {
        self.report(machine).map(|report| report.kernel.clone())
    }

    /// Pushes files to a machine that stands in the boot image, and waits for what becomes of them. One push at a time for
    /// the whole controller: they are rare and large.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where it is not connected, not in the boot image, or in one that is too old;
    /// [`ErrorKind::Invalid`] for too much; [`ErrorKind::Network`] where it does not answer.
    pub fn push_drivers(&self, machine: &str, files: &[(FileName, Vec<u8>)]) -> Result<Vec<DriverOutcome>> {
        static ONE: Mutex<()> = Mutex::new(());
        let total: usize = files.iter().map(|(_, content)| content.len()).sum();
        if files.len() > FILES_MAX || total as u64 > PUSH_BYTES_MAX {
            let context = format!("expected at most {FILES_MAX} files of {} MiB together", PUSH_BYTES_MAX >> 20);
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, id, link) = self.boot_image_of(machine)?;
        let push = u64::try_from(Timestamp::now().0).unwrap_or_default();
        let waited = Waited { pushes: &self.0.pushes, push };
        self.0.pushes.lock().insert(push, (key, None));
        self.send_files(&link, push, files)?;
        let deadline = Instant::now() + INSTALL_MAX;
        let mut waiting = self.0.pushes.lock();
        loop {
            if let Some(outcomes) = waiting.get_mut(&push).and_then(|(_, outcomes)| outcomes.take()) {
                drop(waiting);
                drop(waited);
                return Ok(outcomes);
            }
            if Instant::now() >= deadline {
                let context = format!("machine {machine}: its boot image is still installing: see its screen");
                return Err(Error::new(ErrorKind::Network, context));
            }
            waiting = self.0.pushes.answered.wait_timeout(waiting, WAIT).unwrap_or_else(PoisonError::into_inner).0;
            drop(waiting);
            if self.registry().session(key, id).is_none() {
                return Err(Error::new(ErrorKind::Network, format!("machine {machine}: it went while it installed")));
            }
            waiting = self.0.pushes.lock();
        }
    }

    /// The session, if it can take drivers.
    fn boot_image_of(&self, machine: &str) -> Result<(Fingerprint, SessionId, Link)> {
        let registry = self.registry();
        let conflict = |what: &str| Error::new(ErrorKind::Conflict, format!("machine {machine}: {what}"));
        let (session, _) = registry.of_machine(machine).ok_or_else(|| conflict("it is not connected"))?;
        if session.caller.kind != AgentKind::BootImage {
            return Err(conflict("it runs its own system; drivers are for the boot image"));
        }
        Ok((session.caller.key, session.id, session.link.clone()))
    }

    fn send_files(&self, link: &Link, push: u64, files: &[(FileName, Vec<u8>)]) -> Result<()> {
        let lost = |e| Error::with(ErrorKind::Network, "the drivers did not reach the machine", e);
        for (name, content) in files {
            let mut offset = 0;
            // A file without content is a file, too.
            let pieces = content.chunks(PIECE_BYTES_MAX).chain(content.is_empty().then_some([].as_slice()));
            for bytes in pieces {
                let piece = FilePiece { push, name: name.clone(), offset, content: bytes.into() };
                write_message(&**link, &ControllerMessage::DriverPiece(piece)).map_err(lost)?;
                offset += bytes.len() as u64;
            }
        }
        write_message(&**link, &ControllerMessage::InstallDrivers { push }).map_err(lost)
    }

    /// The agent says what became of a push.
    pub(super) fn drivers_installed(&self, key: Fingerprint, push: u64, outcomes: Vec<DriverOutcome>) {
        let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect();
        let outcome =
            |o: DriverOutcome| DriverOutcome { name: short(&o.name), installed: o.installed, text: short(&o.text) };
        let mut waiting = self.0.pushes.lock();
        if let Some((of, answer)) = waiting.get_mut(&push)
            && *of == key
        {
            *answer = Some(outcomes.into_iter().take(FILES_MAX).map(outcome).collect());
        }
        drop(waiting);
        self.0.pushes.answered.notify_all();
    }
}

impl Pushes {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a push from the list, whatever way the waiting ends.
struct Waited<'a> {
    pushes: &'a Pushes,
    push: u64,
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        self.pushes.lock().remove(&self.push);
    }
}
