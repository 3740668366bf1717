//! Agents that come with a one-time token or a certificate, good ones and others.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use conversion::{Cancel, Observer, Source, StreamMode, StreamRequest};
use machine::ByteOffset;
use protocol::enrolment::{EnrolmentSecret, EnrolmentToken};
use protocol::message::{About, AgentKind, AgentMessage, ControllerMessage};
use protocol::tls::ControllerTls;
use protocol::{Connection, ErrorKind, Version, VersionRange};
use serde_json::{Value, json};

use support::*;

const NOW: i64 = 1_800_000_000_000;
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// A controller with a clock that the test sets.
struct House {
    folder: tempfile::TempDir,
    data: PathBuf,
    controller: controller::Controller,
    clock: Arc<AtomicI64>,
}

fn house() -> House {
    house_with(nothing())
}

fn house_with(converter: Arc<dyn controller::tasks::Converter>) -> House {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let clock = Arc::new(AtomicI64::new(NOW));
    let controller = start_at(&data, converter, &clock);
    House { folder, data, controller, clock }
}

impl House {
    fn later(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    fn agent(&self) -> Agent {
        let mut agent = Agent::new(self.controller.status());
        agent.kind = AgentKind::Agent;
        agent
    }

    /// A token as an operator makes one.
    fn token(&self, body: &Value) -> (EnrolmentToken, String) {
        let (status, _, made) = http(&self.data, "POST", "/enrolment-tokens", &body.to_string());
        assert_eq!(status, 201, "{made}");
        let token: EnrolmentToken = made["token"].as_str().unwrap().parse().unwrap();
        assert_eq!(token.authority().to_string(), self.controller.status().ca_fingerprint);
        (token, made["about"]["id"].as_str().unwrap().to_owned())
    }

    /// How many lines of the audit log say that this was done.
    fn audited(&self, action: &str) -> usize {
        let audit = get(&self.data, "/audit?limit=200");
        audit.as_array().unwrap().iter().filter(|line| line["action"] == action).count()
    }

    fn agents(&self) -> Value {
        list(&self.data, "/agents")
    }
}

/// What the controller answers to a token.
fn try_token(agent: &Agent, secret: EnrolmentSecret) -> (Connection, ControllerMessage) {
    let connection = agent.hello().unwrap();
    assert!(matches!(receive(&connection), ControllerMessage::PairingCommit { .. }));
    let about = About { product: "KVM".into(), serial: "S1".into(), hostname: "web1\u{1b}[2J".into() };
    send(&connection, &AgentMessage::Enrol { secret, about });
    let answer = receive(&connection);
    (connection, answer)
}

fn refusal(agent: &Agent, secret: EnrolmentSecret) -> (String, bool) {
    match try_token(agent, secret) {
        (connection, ControllerMessage::EnrolmentRefused { reason, later }) => {
            assert!(is_closed(&connection));
            (reason, later)
        }
        (_, other) => panic!("{other:?}"),
    }
}

/// Lets the agent say something, so that the controller looks at its certificate, and waits for the one that it offers.
fn certificate(connection: &Connection) -> String {
    send(connection, &AgentMessage::Heartbeat { sequence: 1 });
    // The heartbeat before may have been looked at with the later clock.
    match [receive(connection), receive(connection)] {
        [ControllerMessage::Certificate { certificate }, ControllerMessage::HeartbeatAck { sequence: 1 }]
        | [ControllerMessage::HeartbeatAck { sequence: 1 }, ControllerMessage::Certificate { certificate }] => {
            certificate
        }
        other => panic!("no certificate: {other:?}"),
    }
}

/// The agent keeps a certificate, and shows it from then on.
fn keep(house: &House, agent: &mut Agent, connection: &Connection, certificate: &str) {
    let before = house.agents();
    agent.identity = agent.identity.certified(certificate).unwrap();
    let fingerprint = agent.identity.certificate_fingerprint().unwrap();
    send(connection, &AgentMessage::CertificateKept { fingerprint });
    eventually("the certificate is noted", || house.agents() != before);
}

/// Nothing but the answer to a heartbeat comes.
fn is_quiet(connection: &Connection) {
    for sequence in [7, 8] {
        send(connection, &AgentMessage::Heartbeat { sequence });
        assert_eq!(receive(connection), ControllerMessage::HeartbeatAck { sequence });
    }
}

#[test]
fn a_token_enrols_one_machine_without_a_code_and_never_another() {
    let house = house();
    let (token, id) = house.token(&json!({ "label": "rack 4" }));
    let agent = house.agent();
    let (connection, answer) = try_token(&agent, token.secret());
    assert_eq!(answer, ControllerMessage::Approved);
    report(&connection, &machine("S1"));
    eventually("the machine is ready", || list(&house.data, "/machines")[0]["state"] == "ready");
    let audit = get(&house.data, "/audit?limit=9").to_string();
    assert!(audit.contains(&format!("enrolment token {id}")) && audit.contains("machine approved"), "{audit}");
    assert!(!audit.contains("\\u001b"), "a stranger's text controls no terminal: {audit}");

    let thief = house.agent();
    let (reason, later) = refusal(&thief, token.secret());
    println!("{reason}");
    assert!(reason.starts_with("it was used before, at 2027-01-15T08:00:00Z") && !later, "{reason}");
    assert_eq!(house.audited("enrolment refused"), 1);
    assert!(matches!(receive(&thief.hello().unwrap()), ControllerMessage::PairingCommit { .. }), "it can only wait");
    drop(connection);
    eventually("it left", || house.agents()[0]["connected"] == false);
    assert_eq!(receive(&agent.hello().unwrap()), ControllerMessage::Approved, "the first needs no token any more");
    let tokens = list(&house.data, "/enrolment-tokens");
    assert_eq!((&tokens[0]["label"], &tokens[0]["used_by"]), (&json!("rack 4"), &house.agents()[0]["key"]));
    assert!(!tokens.to_string().contains(&token.expose()[70..]));
    let (status, _, problem) = http(&house.data, "DELETE", &format!("/enrolment-tokens/{id}"), "");
    assert_eq!(status, 409, "{problem}");
}

#[test]
fn tokens_that_are_over_revoked_or_invented_get_nowhere() {
    let house = house();
    let (over, _) = house.token(&json!({ "minutes": 1 }));
    let (revoked, id) = house.token(&json!({}));
    assert_eq!(http(&house.data, "DELETE", &format!("/enrolment-tokens/{id}"), "").0, 204);
    house.later(MINUTE);
    let invented = EnrolmentToken::random(over.authority()).unwrap();
    for (token, said) in [(over, "it is over since"), (revoked, "it was revoked"), (invented, "made no such token")] {
        let (reason, later) = refusal(&house.agent(), token.secret());
        assert!(reason.contains(said) && !later, "{reason}");
    }
    assert_eq!((house.audited("enrolment refused"), house.agents()), (3, json!([])));
    eventually("nobody of them is left", || list(&house.data, "/machines") == json!([]));
    for wrong in [json!({ "minutes": 0 }), json!({ "minutes": 43201 }), json!({ "label": "x".repeat(129) })] {
        assert_eq!(http(&house.data, "POST", "/enrolment-tokens", &wrong.to_string()).0, 422, "{wrong}");
    }
}

#[test]
fn of_a_thousand_guessed_tokens_five_are_looked_at() {
    let house = house();
    let (token, _) = house.token(&json!({}));
    let agent = house.agent();
    let mut looked_at = 0;
    for _ in 0..1000 {
        let guess = EnrolmentToken::random(token.authority()).unwrap();
        let (reason, later) = refusal(&agent, guess.secret());
        assert_eq!(later, reason.contains("too many wrong ones came from this address"), "{reason}");
        looked_at += usize::from(!later);
    }
    assert_eq!((looked_at, house.audited("enrolment refused")), (5, 5), "on a clock that stands");
    let (reason, later) = refusal(&agent, token.secret());
    assert!(later, "the right one has to wait, too, and is not used up: {reason}");
    house.later(MINUTE);
    assert_eq!(try_token(&agent, token.secret()).1, ControllerMessage::Approved);
}

#[test]
fn an_approved_agent_gets_a_certificate_and_its_key_alone_is_nothing_from_then_on() {
    let house = house();
    let mut agent = house.agent();
    let (connection, id) = agent.enrol(&house.data, &machine("S1"));
    let plain = agent.identity.clone();
    let first = certificate(&connection);
    is_quiet(&connection);
    keep(&house, &mut agent, &connection, &first);
    assert_eq!(house.agents()[0]["certified_until"], "2027-04-15T08:00:00Z");
    is_quiet(&connection);
    drop(connection);
    let again = agent.hello().unwrap();
    assert_eq!(receive(&again), ControllerMessage::Approved);
    drop(again);

    let certified = std::mem::replace(&mut agent.identity, plain.clone());
    for revisions in [(2, 2), (2, 3)] {
        agent.protocol = VersionRange { oldest: Version(revisions.0), newest: Version(revisions.1) };
        let waiting = agent.hello().unwrap();
        let first = receive(&waiting);
        assert!(matches!(first, ControllerMessage::PairingCommit { .. }), "the key alone: {first:?}");
    }

    // Over: it is told so, comes again without, and an operator has to approve it again.
    agent.identity = certified;
    house.later(91 * DAY);
    for _ in 0..3 {
        let refused = agent.hello().unwrap_err();
        assert_eq!(refused.kind, ErrorKind::CertificateRefused);
        assert!(refused.to_string().contains("is over since 2027-04-15T08:00:00Z"), "{refused}");
    }
    assert_eq!(house.audited("agent refused"), 1);
    agent.identity = plain;
    let (connection, same) = agent.enrol(&house.data, &machine("S1"));
    assert_eq!((same, house.audited("machine approved")), (id, 2));
    let second = certificate(&connection);
    keep(&house, &mut agent, &connection, &second);
}

#[test]
fn a_certificate_of_another_controller_gets_nowhere() {
    let house = house();
    let mut agent = house.agent();
    let (connection, _) = agent.enrol(&house.data, &machine("S1"));
    let own = certificate(&connection);
    keep(&house, &mut agent, &connection, &own);
    let other = ControllerTls::create().unwrap();
    let until = Duration::from_secs(NOW.unsigned_abs() / 1000 + 3600);
    let foreign = other.issue(agent.identity.certificate().unwrap(), until).unwrap().pem;
    drop(connection);
    agent.identity = agent.identity.certified(&foreign).unwrap();
    for _ in 0..3 {
        let refused = agent.hello().unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Refused);
        assert!(refused.to_string().contains("another controller's"), "{refused}");
    }
    assert_eq!(house.audited("agent refused"), 1);
    agent.identity = agent.identity.certified(&own).unwrap();
    assert_eq!(receive(&agent.hello().unwrap()), ControllerMessage::Approved);
}

/// Reads all of one stream.
fn reading() -> Arc<dyn controller::tasks::Converter> {
    Arc::new(Fake(|source: Source, _: &dyn Observer, cancel: &Cancel| {
        let Source::Remote(remote) = source else { panic!("a task has a remote source") };
        let wish = StreamRequest::whole(0, StreamMode::Data { skip_unreadable: false }, ByteOffset(0));
        let mut stream = remote.open_stream(&wish, cancel)?;
        let mut text = String::new();
        let failed = |e| conversion::Error::because(conversion::ErrorKind::Source, "stream", e);
        stream.read_to_string(&mut text).map_err(failed)?;
        Ok(json!({ "read": text }))
    }))
}

/// A task that reads, and the stream of its disk.
fn begin_stream(house: &House, agent: &Agent, connection: &Connection, machine: &str) -> (String, Connection) {
    let request = json!({ "name": "web1", "output": house.folder.path() });
    let body = json!({ "machine": machine, "request": request }).to_string();
    let (status, _, task) = http(&house.data, "POST", "/tasks", &body);
    assert_eq!(status, 201, "{task}");
    let ControllerMessage::ServeDisk(serve) = receive(connection) else { panic!("not asked for a disk") };
    (task["id"].as_str().unwrap().to_owned(), agent.open_stream(serve.stream).unwrap())
}

#[test]
fn a_certificate_is_renewed_at_half_its_life_and_no_connection_ends_for_that() {
    let house = house_with(reading());
    let mut agent = house.agent();
    let (connection, id) = agent.enrol(&house.data, &machine("S1"));
    let first = certificate(&connection);
    keep(&house, &mut agent, &connection, &first);
    let (task, stream) = begin_stream(&house, &agent, &connection, &id);
    (&stream).write_all(b"before ").unwrap();
    house.later(44 * DAY);
    is_quiet(&connection);
    house.later(2 * DAY);
    let second = certificate(&connection);
    keep(&house, &mut agent, &connection, &second);
    assert_eq!(house.agents()[0]["certified_until"], "2027-05-31T08:00:00Z");
    // The first one's end passes; nobody notices.
    house.later(45 * DAY);
    (&stream).write_all(b"and after").unwrap();
    stream.finish();
    eventually("the task is done", || get(&house.data, &format!("/tasks/{task}"))["state"] == "done");
    assert_eq!(get(&house.data, &format!("/tasks/{task}"))["outcome"], json!({ "read": "before and after" }));
    drop(connection);
    assert_eq!(receive(&agent.hello().unwrap()), ControllerMessage::Approved);
}

#[test]
fn the_boot_image_gets_a_day_and_who_keeps_no_renewal_is_cut_off_at_its_end() {
    let house = house();
    let mut agent = house.agent();
    agent.kind = AgentKind::BootImage;
    let (connection, _) = agent.enrol(&house.data, &machine("S1"));
    let first = certificate(&connection);
    keep(&house, &mut agent, &connection, &first);
    assert_eq!(house.agents()[0]["certified_until"], "2027-01-16T08:00:00Z");
    house.later(13 * 60 * MINUTE);
    certificate(&connection);
    house.later(12 * 60 * MINUTE);
    send(&connection, &AgentMessage::Heartbeat { sequence: 9 });
    let ControllerMessage::Denied { reason } = receive(&connection) else { panic!("it goes on") };
    println!("{reason}");
    assert!(is_closed(&connection));
    assert_eq!(agent.hello().unwrap_err().kind, ErrorKind::CertificateRefused);
}

#[test]
fn an_agent_that_is_revoked_while_it_sends_is_cut_off_at_once_and_for_ever() {
    let house = house_with(reading());
    let mut agent = house.agent();
    let (connection, id) = agent.enrol(&house.data, &machine("S1"));
    let plain = agent.identity.clone();
    let first = certificate(&connection);
    keep(&house, &mut agent, &connection, &first);
    let (task, stream) = begin_stream(&house, &agent, &connection, &id);
    (&stream).write_all(b"half of the di").unwrap();
    let key = house.agents()[0]["key"].as_str().unwrap().to_owned();
    let began = Instant::now();
    let (status, _, revoked) = http(&house.data, "DELETE", &format!("/agents/{}", &key[..12]), "");
    assert_eq!((status, &revoked["key"]), (200, &json!(key)));
    let ControllerMessage::Denied { reason } = receive(&connection) else { panic!("it goes on") };
    assert!(reason.contains("revoked by an operator"), "{reason}");
    assert!(is_closed(&connection));
    stream.set_read_timeout(Some(Duration::from_secs(20)));
    let ended = (&stream).read(&mut [0; 1]);
    println!("cut off after {:?}: {ended:?}", began.elapsed());
    assert!(ended.is_err_and(|e| e.kind() != std::io::ErrorKind::TimedOut));
    assert_ne!(get(&house.data, &format!("/tasks/{task}"))["state"], "done");
    eventually("the machine is offline", || list(&house.data, "/machines")[0]["state"] == "offline");

    let (token, _) = house.token(&json!({}));
    for identity in [agent.identity.clone(), plain] {
        agent.identity = identity;
        let refused = agent.hello().unwrap_err();
        assert!(refused.kind == ErrorKind::Refused && refused.to_string().contains("was revoked"), "{refused}");
    }
    assert_eq!(http(&house.data, "DELETE", &format!("/agents/{key}"), "").0, 409, "once is enough");
    assert_eq!(house.audited("agent revoked"), 1);
    let another = house.agent();
    assert_eq!(try_token(&another, token.secret()).1, ControllerMessage::Approved, "another key may come");
    http(&house.data, "POST", &format!("/tasks/{task}/cancel"), "");
}

#[test]
fn the_revision_before_is_served_by_its_key_and_an_older_one_is_told_what_to_do() {
    let house = house();
    let mut agent = house.agent();
    agent.protocol = VersionRange { oldest: Version(1), newest: Version(2) };
    let (connection, _) = agent.enrol(&house.data, &machine("S1"));
    is_quiet(&connection);
    drop(connection);
    let connection = agent.hello().unwrap();
    assert_eq!(receive(&connection), ControllerMessage::Approved);
    // It is brought up to date: the same key gets a certificate.
    drop(connection);
    agent.protocol = VersionRange::SPOKEN;
    let connection = agent.hello().unwrap();
    assert_eq!(receive(&connection), ControllerMessage::Approved);
    let first = certificate(&connection);
    keep(&house, &mut agent, &connection, &first);

    agent.protocol = VersionRange { oldest: Version(1), newest: Version(1) };
    let refused = agent.hello().unwrap_err().to_string();
    println!("{refused}");
    assert!(refused.contains("speaks revision 2 to 4 of the protocol, the agent 1; build a boot image"), "{refused}");
}
