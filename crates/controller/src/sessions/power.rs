//! The end of a machine, as an operator or a task wants it: given back to its own system, or switched off.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use protocol::Version;
use protocol::message::{ControllerMessage, PowerAction, write_message};
use protocol::tls::Fingerprint;

use super::control::network;
use super::registry::SessionId;
use super::{Error, ErrorKind, Result, Sessions};

/// Bytes kept of what an agent says.
const REASON_CHARS_MAX: usize = 1000;

/// A session whose machine was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ending {
    key: Fingerprint,
    id: SessionId,
}

/// Why machines could not be ended, until somebody asks.
pub(super) type Refusals = HashMap<(Fingerprint, SessionId), String>;

impl Sessions {
    /// Asks a connected machine to end what runs on it, and does not wait for that.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where it is not connected, or its agent is too old; [`ErrorKind::Network`].
    pub fn end_machine(&self, machine: &str, action: PowerAction, text: String) -> Result<Ending> {
        let (ending, link) = {
            let registry = self.registry();
            let conflict = |what: &str| Error::new(ErrorKind::Conflict, format!("machine {machine}: {what}"));
            let (session, _) = registry.of_machine(machine).ok_or_else(|| conflict("it is not connected"))?;
            if session.caller.protocol < Version::V3 {
                return Err(conflict("its agent is too old to end the machine: do it at its console"));
            }
            (Ending { key: session.caller.key, id: session.id }, session.link.clone())
        };
        self.refused_ends().remove(&(ending.key, ending.id));
        write_message(&*link, &ControllerMessage::Power { action, text }).map_err(network)?;
        Ok(ending)
    }

    /// Waits until the agent of a machine that was asked to end is gone.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] with the machine's own reason where it cannot be ended; [`ErrorKind::Network`] where it is still
    /// there after `patience`.
    pub fn wait_for_end(&self, ending: Ending, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut registry = self.registry();
        while registry.session(ending.key, ending.id).is_some() {
            if let Some(reason) = self.refused_ends().remove(&(ending.key, ending.id)) {
                return Err(Error::new(ErrorKind::Conflict, reason));
            }
            if Instant::now() >= deadline {
                let context = format!("the machine's agent is still there after {} s", patience.as_secs());
                return Err(Error::new(ErrorKind::Network, context));
            }
            registry = self.wait(registry);
        }
        Ok(())
    }

    /// The agent says that the machine cannot be ended.
    pub(super) fn end_refused(&self, key: Fingerprint, id: SessionId, reason: &str) {
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
        tracing::warn!(%key, "{reason}");
        {
            let registry = self.registry();
            let mut refused = self.refused_ends();
            // Nobody asks for those of sessions that are gone.
            refused.retain(|(key, id), _| registry.session(*key, *id).is_some());
            refused.insert((key, id), reason);
        }
        self.0.changed.notify_all();
    }

    fn refused_ends(&self) -> std::sync::MutexGuard<'_, Refusals> {
        self.0.refused_ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
