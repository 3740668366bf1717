//! Who is connected: one live session for each agent key, and what each may do.
//!
//! Pure: it decides, and the threads of [`super`] wait and send. `L` is the link of a session; tests use a number.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::Version;
use protocol::message::{About, AgentKind, Bytes32, Report};
use protocol::pairing::PairingCode;
use protocol::tls::Fingerprint;

use super::link::TestedLink;
use crate::Timestamp;

/// Silence of a session after which another with the same key takes its place. Twice an agent's heartbeat.
const SILENCE_BEFORE_TAKEOVER: Duration = Duration::from_secs(10);
/// Wrong codes after which a waiting session is closed.
pub(super) const WRONG_CODES_MAX: u32 = 5;

/// A session's number; none is used twice while the controller runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionId(u64);

/// Who dialled.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) key: Fingerprint,
    pub(super) instance: Bytes32,
    pub(super) address: SocketAddr,
    pub(super) kind: AgentKind,
    pub(super) program: String,
    /// The revision that was agreed on.
    pub(super) protocol: Version,
}

/// What a session may do.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// The code is being made.
    Pairing,
    /// Waits for an operator, and can do nothing else.
    Waiting { code: PairingCode, about: About, wrong_codes: u32 },
    /// Approved; its machine is known once it reported in this session.
    Approved { reported: Option<Reported> },
}

/// What an approved agent said in its session.
#[derive(Clone, Debug)]
pub(super) struct Reported {
    /// The machine's id in the store.
    pub(super) machine: String,
    pub(super) report: Arc<Report>,
    /// Counts the reports of the session.
    pub(super) revision: u64,
}

/// One live control connection.
#[derive(Clone, Debug)]
pub(super) struct Session<L> {
    pub(super) id: SessionId,
    pub(super) caller: Caller,
    pub(super) link: L,
    pub(super) since: Timestamp,
    pub(super) phase: Phase,
    pub(super) last_heard: Instant,
    /// How fast its link was, when that was tested last.
    pub(super) link_test: Option<TestedLink>,
}

/// Whether a session may begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission<L> {
    /// It has begun. The one that it replaced is to be cut.
    Begun { id: SessionId, replaced: Option<L> },
    /// Another is live with this key.
    SecondSession,
}

/// What a typed code did.
#[derive(Debug)]
pub(super) enum CodeEntry<L> {
    /// It is this session's; the session is as it was until [`Registry::approve`].
    Matches(Box<Session<L>>),
    /// It is nobody's. It counted against all that wait; these had too many and are out.
    Wrong { waiting: usize, closed: Vec<Session<L>> },
}

#[derive(Debug)]
pub(super) struct Registry<L> {
    sessions: HashMap<Fingerprint, Session<L>>,
    next_id: u64,
}

impl<L: Clone> Registry<L> {
    pub(super) fn new() -> Self {
        Self { sessions: HashMap::new(), next_id: 1 }
    }

    /// Begins a session. A key has one: a second is refused unless it is the same program after a cut link (its instance
    /// is the same) or the first was silent for too long.
    pub(super) fn admit(&mut self, caller: Caller, link: L, phase: Phase, now: Instant) -> Admission<L> {
        if let Some(first) = self.sessions.get(&caller.key)
            && first.caller.instance != caller.instance
            && now.saturating_duration_since(first.last_heard) <= SILENCE_BEFORE_TAKEOVER
        {
            return Admission::SecondSession;
        }
        let id = SessionId(self.next_id);
        self.next_id += 1;
        let since = Timestamp::now();
        let session = Session { id, link, since, phase, last_heard: now, link_test: None, caller: caller.clone() };
        let replaced = self.sessions.insert(caller.key, session).map(|first| first.link);
        Admission::Begun { id, replaced }
    }

    /// Ends a session, if it was not replaced by another.
    pub(super) fn leave(&mut self, key: Fingerprint, id: SessionId) {
        if self.session_mut(key, id).is_some() {
            self.sessions.remove(&key);
        }
    }

    /// Ends whatever session a key has.
    pub(super) fn end(&mut self, key: Fingerprint) -> Option<Session<L>> {
        self.sessions.remove(&key)
    }

    /// The agent said something. `false` where its session was replaced or closed.
    pub(super) fn heard(&mut self, key: Fingerprint, id: SessionId, now: Instant) -> bool {
        self.session_mut(key, id).map(|session| session.last_heard = now).is_some()
    }

    /// The code is made; from here an operator can type it.
    pub(super) fn wait_for_code(&mut self, key: Fingerprint, id: SessionId, code: PairingCode, about: About) -> bool {
        let phase = Phase::Waiting { code, about, wrong_codes: 0 };
        self.session_mut(key, id).map(|session| session.phase = phase).is_some()
    }

    /// Compares a typed code with those of all waiting sessions, in a time that does not tell where it differs.
    pub(super) fn enter_code(&mut self, typed: PairingCode) -> CodeEntry<L> {
        let mut matching = None;
        let mut waiting = 0;
        for session in self.sessions.values() {
            if let Phase::Waiting { code, .. } = &session.phase {
                waiting += 1;
                if equal_in_constant_time(&code.to_string(), &typed.to_string()) {
                    matching = Some(session);
                }
            }
        }
        if let Some(session) = matching {
            return CodeEntry::Matches(Box::new(session.clone()));
        }
        let mut closed = Vec::new();
        self.sessions.retain(|_, session| {
            let Phase::Waiting { wrong_codes, .. } = &mut session.phase else { return true };
            *wrong_codes += 1;
            let keep = *wrong_codes < WRONG_CODES_MAX;
            if !keep {
                closed.push(session.clone());
            }
            keep
        });
        CodeEntry::Wrong { waiting, closed }
    }

    /// Lets a session work. `false` where it is gone by now.
    pub(super) fn approve(&mut self, key: Fingerprint, id: SessionId) -> bool {
        self.session_mut(key, id).map(|session| session.phase = Phase::Approved { reported: None }).is_some()
    }

    /// Notes the report of an approved session. `false` where it is gone or was never approved.
    pub(super) fn reported(&mut self, key: Fingerprint, id: SessionId, machine: &str, report: Arc<Report>) -> bool {
        let Some(Session { phase: Phase::Approved { reported }, .. }) = self.session_mut(key, id) else { return false };
        let revision = reported.as_ref().map_or(0, |earlier| earlier.revision) + 1;
        *reported = Some(Reported { machine: machine.to_owned(), report, revision });
        true
    }

    /// The live session of a machine that reported in it; the newest, where two keys speak for it.
    pub(super) fn of_machine(&self, machine: &str) -> Option<(&Session<L>, &Reported)> {
        let reported = |session| match session {
            &Session { phase: Phase::Approved { reported: Some(ref reported) }, .. } if reported.machine == machine => {
                Some((session, reported))
            }
            _ => None,
        };
        self.sessions.values().filter_map(reported).max_by_key(|(session, _)| session.id.0)
    }

    /// Notes how fast the link of a machine is.
    pub(super) fn note_link(&mut self, machine: &str, tested: TestedLink) {
        let found = self.of_machine(machine).map(|(session, _)| (session.caller.key, session.id));
        if let Some(session) = found.and_then(|(key, id)| self.session_mut(key, id)) {
            session.link_test = Some(tested);
        }
    }

    /// Whether this session is live and approved.
    pub(super) fn approved(&self, key: Fingerprint, id: SessionId) -> bool {
        matches!(self.session(key, id), Some(Session { phase: Phase::Approved { .. }, .. }))
    }

    pub(super) fn session(&self, key: Fingerprint, id: SessionId) -> Option<&Session<L>> {
        self.sessions.get(&key).filter(|session| session.id == id)
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &Session<L>> {
        self.sessions.values()
    }

    fn session_mut(&mut self, key: Fingerprint, id: SessionId) -> Option<&mut Session<L>> {
        self.sessions.get_mut(&key).filter(|session| session.id == id)
    }
}

fn equal_in_constant_time(a: &str, b: &str) -> bool {
    let difference = a.bytes().zip(b.bytes()).fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(key: u8, instance: u8) -> Caller {
        Caller {
            key: Fingerprint(Bytes32([key; 32])),
            instance: Bytes32([instance; 32]),
            address: ([192, 0, 2, key], 40000).into(),
            kind: AgentKind::BootImage,
            program: "0.1.0".into(),
            protocol: Version::V2,
        }
    }

    fn begin(registry: &mut Registry<u8>, caller: &Caller, link: u8, now: Instant) -> Option<(SessionId, Option<u8>)> {
        match registry.admit(caller.clone(), link, Phase::Pairing, now) {
            Admission::Begun { id, replaced } => Some((id, replaced)),
            Admission::SecondSession => None,
        }
    }

    fn waiting(registry: &mut Registry<u8>, key: u8, code: &str) -> SessionId {
        let (id, _) = begin(registry, &caller(key, 1), key, Instant::now()).unwrap();
        assert!(registry.wait_for_code(caller(key, 1).key, id, code.parse().unwrap(), About::default()));
        id
    }

    #[test]
    fn a_second_session_is_refused_until_the_first_is_silent_for_ten_seconds() {
        let (mut registry, start) = (Registry::new(), Instant::now());
        let (first, _) = begin(&mut registry, &caller(1, 1), 1, start).unwrap();
        assert_eq!(begin(&mut registry, &caller(1, 2), 2, start + Duration::from_secs(9)), None);
        assert!(registry.heard(caller(1, 1).key, first, start + Duration::from_secs(5)));
        assert_eq!(begin(&mut registry, &caller(1, 2), 2, start + Duration::from_secs(15)), None);
        let (second, replaced) = begin(&mut registry, &caller(1, 2), 2, start + Duration::from_secs(16)).unwrap();
        assert_eq!(replaced, Some(1));
        registry.leave(caller(1, 1).key, first);
        assert!(registry.session(caller(1, 1).key, second).is_some(), "the end of the first does not end the second");
        assert!(!registry.heard(caller(1, 1).key, first, start));
    }

    #[test]
    fn the_same_program_after_a_cut_link_takes_over_at_once() {
        let (mut registry, start) = (Registry::new(), Instant::now());
        begin(&mut registry, &caller(1, 1), 1, start).unwrap();
        assert_eq!(begin(&mut registry, &caller(1, 1), 2, start).unwrap().1, Some(1));
    }

    #[test]
    fn five_wrong_codes_close_every_session_that_waited_through_them() {
        let mut registry = Registry::new();
        waiting(&mut registry, 1, "AAAA-AAAA");
        for _ in 0..3 {
            assert!(matches!(registry.enter_code("0000-0000".parse().unwrap()), CodeEntry::Wrong { waiting: 1, .. }));
        }
        let late = waiting(&mut registry, 2, "BBBB-BBBB");
        let entered: Vec<usize> = (0..2)
            .map(|_| match registry.enter_code("0000-0000".parse().unwrap()) {
                CodeEntry::Wrong { closed, waiting: 2 } => closed.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(entered, [0, 1]);
        assert!(matches!(registry.enter_code("AAAA-AAAA".parse().unwrap()), CodeEntry::Wrong { waiting: 1, .. }));
        let CodeEntry::Matches(session) = registry.enter_code("BBBB-BBBB".parse().unwrap()) else {
            panic!("the session that came late is still there");
        };
        assert_eq!(session.id, late);
    }

    #[test]
    fn only_an_approved_session_reports() {
        let mut registry = Registry::new();
        let id = waiting(&mut registry, 1, "AAAA-AAAA");
        let key = caller(1, 1).key;
        let report = Arc::new(Report::default());
        assert!(!registry.reported(key, id, "m-1", report.clone()));
        assert!(registry.approve(key, id));
        assert!(registry.reported(key, id, "m-1", report));
        assert_eq!(registry.of_machine("m-1").unwrap().0.id, id);
        assert!(registry.of_machine("m-2").is_none());
    }
}
