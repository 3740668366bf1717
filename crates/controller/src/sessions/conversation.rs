//! Questions to the agent of a live machine that take their time: how it could be started from the boot image, and the steps of that.
//! One conversation at a time with each machine.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use conversion::Cancel;
use machine::push::{BootPathReport, PushOrder, Survey};
use protocol::Version;
use protocol::message::{AgentKind, AgentMessage, ControllerMessage, write_message};
use protocol::piece::{FileName, FilePiece, PIECE_BYTES_MAX};
use protocol::tls::Fingerprint;

use super::control::network;
use super::registry::SessionId;
use super::{Error, ErrorKind, Link, Result, Sessions};
use crate::Timestamp;

/// How long an agent may take to look at its machine.
const SURVEY_MAX: Duration = Duration::from_secs(60);
/// How long it may take to put a push in place, or to undo that.
const PLACE_MAX: Duration = Duration::from_secs(300);
/// How long a machine may take from the order to restart until its agent is gone, beside the warning.
const SHUTDOWN_MAX: Duration = Duration::from_secs(600);
/// Answers that wait to be read.
const ANSWERS_MAX: usize = 64;

/// Answers of agents that somebody talks to.
#[derive(Debug, Default)]
pub(super) struct Conversations(Mutex<HashMap<(Fingerprint, SessionId), VecDeque<AgentMessage>>>);

/// How a command of an operator's ended on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandEnd {
    /// Its exit status; `None` where it did not end by itself.
    pub status: Option<i32>,
    /// What it printed last, or why it did not end.
    pub output: String,
}

/// A conversation with the agent of a live machine; it ends with its session.
pub struct Conversation {
    sessions: Sessions,
    key: Fingerprint,
    id: SessionId,
    link: Link,
}

impl Conversations {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Fingerprint, SessionId), VecDeque<AgentMessage>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// Begins a conversation with a machine that runs its own system.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where it is not connected, in the boot image, too old, or somebody else talks to it.
    pub fn converse(&self, machine: &str) -> Result<Conversation> {
        let conflict = |what: &str| Error::new(ErrorKind::Conflict, format!("machine {machine}: {what}"));
        let registry = self.registry();
        let (session, _) = registry.of_machine(machine).ok_or_else(|| conflict("it is not connected"))?;
        if session.caller.kind != AgentKind::Agent {
            return Err(conflict("it stands in the boot image"));
        }
        if session.caller.protocol < Version::V4 {
            return Err(conflict("its agent is too old: install a new one with `vconverter agent install`"));
        }
        let (key, id, link) = (session.caller.key, session.id, session.link.clone());
        let mut open = self.0.conversations.lock();
        if open.contains_key(&(key, id)) {
            return Err(conflict("somebody else asks its agent just now"));
        }
        open.insert((key, id), VecDeque::new());
        Ok(Conversation { sessions: self.clone(), key, id, link })
    }

    /// An agent answers; nobody waits for answers outside of a conversation.
    pub(super) fn answered(&self, key: Fingerprint, id: SessionId, answer: AgentMessage) {
        if let Some(answers) = self.0.conversations.lock().get_mut(&(key, id))
            && answers.len() < ANSWERS_MAX
        {
            answers.push_back(answer);
        }
        self.0.changed.notify_all();
    }

    /// Since when the agent of a machine's own system is connected, if it is.
    pub fn live_since(&self, machine: &str) -> Option<Timestamp> {
        let registry = self.registry();
        let (session, _) = registry.of_machine(machine)?;
        (session.caller.kind == AgentKind::Agent).then_some(session.since)
    }

    /// Waits until something changed about the machines that are connected, at most half a second.
    pub fn wait_a_moment(&self) {
        drop(self.wait(self.registry()));
    }
}

impl Conversation {
    /// How the machine could be started from the boot image.
    ///
    /// # Errors
    /// [`ErrorKind::Network`].
    pub fn survey(&self) -> Result<Survey> {
        self.ask(&ControllerMessage::Survey, SURVEY_MAX, |answer| match answer {
            AgentMessage::Surveyed(survey) => Some(Ok(*survey)),
            _ => None,
        })
    }

    /// Sends files, and has them put in place. Returns what was done, a line each.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] with the machine's own reason, [`ErrorKind::Cancelled`], [`ErrorKind::Io`], [`ErrorKind::Network`].
    pub fn place(&self, files: &[(FileName, &Path)], order: PushOrder, cancel: &Cancel) -> Result<Vec<String>> {
        let push = u64::try_from(Timestamp::now().0).unwrap_or_default();
        for (name, path) in files {
            let content = fs::read(path).map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
            let mut offset = 0;
            for bytes in content.chunks(PIECE_BYTES_MAX) {
                if cancel.is_cancelled() {
                    return Err(Error::new(ErrorKind::Cancelled, "cancelled while the boot image was sent"));
                }
                let piece = FilePiece { push, name: name.clone(), offset, content: bytes.into() };
                self.say(&ControllerMessage::PushPiece(piece))?;
                offset += bytes.len() as u64;
            }
        }
        self.ask(&ControllerMessage::PlacePush { push, order }, PLACE_MAX, |answer| match answer {
            AgentMessage::PushPlaced { push: of, done } if of == push => Some(Ok(done)),
            answer => failed(answer),
        })
    }

    /// Has the machine start what was placed; it is on its way when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] with the machine's own reason; [`ErrorKind::Network`] where it is still there for long.
    pub fn start(&self, text: String, warning_seconds: u32) -> Result<()> {
        let patience = Duration::from_secs(warning_seconds.into()) + SHUTDOWN_MAX;
        let gone = self.ask(&ControllerMessage::StartPush { text, warning_seconds }, patience, failed::<()>);
        match gone {
            Err(error) if error.kind == ErrorKind::Network && self.is_gone() => Ok(()),
            other => other,
        }
    }

    /// Has everything undone that was placed.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] with the machine's own reason, [`ErrorKind::Network`].
    pub fn withdraw(&self) -> Result<BootPathReport> {
        self.ask(&ControllerMessage::WithdrawPush, PLACE_MAX, |answer| match answer {
            AgentMessage::BootPath(report) => Some(Ok(report)),
            answer => failed(answer),
        })
    }

    /// Runs a command of an operator's.
    ///
    /// # Errors
    /// [`ErrorKind::Network`].
    pub fn run(&self, command: &str, seconds: u32) -> Result<CommandEnd> {
        let id = u64::try_from(Timestamp::now().0).unwrap_or_default();
        let patience = Duration::from_secs(u64::from(seconds) + 30);
        let message = ControllerMessage::RunCommand { id, command: command.to_owned(), seconds };
        self.ask(&message, patience, |answer| match answer {
            AgentMessage::CommandEnded { id: of, status, output } if of == id => {
                let output = output.chars().filter(|c| !c.is_control() || *c == '\n').collect();
                Some(Ok(CommandEnd { status, output }))
            }
            _ => None,
        })
    }

    fn is_gone(&self) -> bool {
        self.sessions.registry().session(self.key, self.id).is_none()
    }

    fn say(&self, message: &ControllerMessage) -> Result<()> {
        write_message(&*self.link, message).map_err(network)
    }

    /// Says something, and waits for an answer that `take` takes.
    fn ask<T>(
        &self,
        message: &ControllerMessage,
        patience: Duration,
        mut take: impl FnMut(AgentMessage) -> Option<Result<T>>,
    ) -> Result<T> {
        self.say(message)?;
        let deadline = Instant::now() + patience;
        loop {
            let answers = self.sessions.0.conversations.lock().get_mut(&(self.key, self.id)).map(std::mem::take);
            if let Some(answer) = answers.unwrap_or_default().into_iter().find_map(&mut take) {
                return answer;
            }
            if self.is_gone() {
                return Err(Error::new(ErrorKind::Network, "the machine's agent went away"));
            }
            if Instant::now() >= deadline {
                let context = format!("the machine's agent does not answer for {} s", patience.as_secs());
                return Err(Error::new(ErrorKind::Network, context));
            }
            self.sessions.wait_a_moment();
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.sessions.0.conversations.lock().remove(&(self.key, self.id));
    }
}

fn failed<T>(answer: AgentMessage) -> Option<Result<T>> {
    match answer {
        AgentMessage::PushFailed { reason } => {
            let reason: String = reason.chars().filter(|c| !c.is_control()).take(1000).collect();
            Some(Err(Error::new(ErrorKind::Conflict, reason)))
        }
        _ => None,
    }
}
