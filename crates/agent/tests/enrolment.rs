//! The real agent with one-time tokens and certificates.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;

use machine::ByteOffset;
use protocol::Version;
use protocol::certificate::Shown;
use protocol::message::{ControllerMessage, StreamMode};
use support::{Agent, Controller, Link, make_disk};

struct Place {
    _folder: tempfile::TempDir,
    disk: PathBuf,
    state: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (disk, state) = (folder.path().join("disk"), folder.path().join("state"));
        make_disk(&disk, 1, 0x5eed);
        Self { disk, state, _folder: folder }
    }

    fn pinned(&self, controller: &Controller) -> Agent {
        Agent::start(controller.address(), Some(controller.authority()), &self.state, &[&self.disk])
    }
}

fn is_issued(shown: &Shown) -> bool {
    matches!(shown, Shown::Issued { .. })
}

#[test]
fn a_token_enrols_without_a_code_and_the_controller_is_pinned_from_then_on() {
    let (place, controller) = (Place::new(), Controller::start());
    let token = controller.make_token();
    let mut agent = Agent::enrol(controller.address(), &token.expose(), &place.state, &place.disk);
    let shown = agent.statuses_until("ready");
    assert!(!shown.contains("waiting") && !shown.contains("vce_"), "{shown}");
    assert_eq!(controller.secrets(), [token.secret()]);
    let arguments = std::fs::read(format!("/proc/{}/cmdline", agent.id())).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains("vce_"), "a token that every user can see");
    agent.kill();

    // Without the token, and without a fingerprint: nobody is asked, and nobody else is listened to.
    let mut agent = Agent::start(controller.address(), None, &place.state, &[&place.disk]);
    let shown = agent.statuses_until("ready");
    assert!(!shown.contains("waiting"), "{shown}");
    agent.kill();
    let link = Link::to(controller.address());
    let state = place.state.join("controllers.json");
    let moved = std::fs::read_to_string(&state).unwrap();
    let moved = moved.replace(&controller.address().to_string(), &link.address.to_string());
    std::fs::write(&state, moved).unwrap();
    link.redirect(Controller::start().address());
    Agent::start(link.address, None, &place.state, &[&place.disk]).statuses_until("not signed by the CA");
}

#[test]
fn a_token_is_told_to_no_controller_but_its_own() {
    let (place, controller, other) = (Place::new(), Controller::start(), Controller::start());
    let token = controller.make_token();
    let mut agent = Agent::enrol(other.address(), &token.expose(), &place.state, &place.disk);
    agent.statuses_until("not signed by the CA");
    assert_eq!(other.secrets(), []);
}

#[test]
fn a_refused_token_ends_the_agent_with_the_reason() {
    let (place, controller) = (Place::new(), Controller::start());
    let token = controller.make_token();
    controller.make_token();
    let mut agent = Agent::enrol(controller.address(), &token.expose(), &place.state, &place.disk);
    let (succeeded, said) = agent.wait_for_end();
    assert!(!succeeded);
    assert_eq!(said, "vconverter-agent: the controller refused the enrolment token: it was used before\n");

    controller.speak(Version::V2);
    let mut agent = Agent::enrol(controller.address(), &token.expose(), &place.state, &place.disk);
    let (_, said) = agent.wait_for_end();
    assert!(said.contains("revision 2, which has no enrolment tokens: update it"), "{said}");
    let mut agent = Agent::enrol(controller.address(), "vce_12", &place.state, &place.disk);
    assert!(agent.wait_for_end().1.contains("enrolment token: expected vce_"));
}

#[test]
fn a_certificate_is_shown_on_each_connection_from_then_on_and_a_renewal_cuts_none() {
    let (place, controller) = (Place::new(), Controller::start());
    let mut agent = place.pinned(&controller);
    controller.approve();
    controller.certify(3600);
    let stream = controller.open_once(0, StreamMode::Hashes { resume: ByteOffset::ZERO }).unwrap();
    // Renewed while the stream is open: both connections go on.
    controller.certify(7200);
    let mut frames = Vec::new();
    std::io::Read::read_to_end(&mut &stream, &mut frames).unwrap();
    assert!(!frames.is_empty());
    stream.finish();
    drop(stream);
    let shown = controller.shown(2);
    assert!(shown.len() == 2 && shown[0] == Shown::SelfMade && is_issued(&shown[1]), "{shown:?}");
    agent.statuses_until("ready");
    agent.kill();

    let mut agent = place.pinned(&controller);
    agent.statuses_until("ready");
    let again = controller.shown(3)[2];
    let (Shown::Issued { until: first }, Shown::Issued { until: second }) = (shown[1], again) else {
        panic!("{shown:?} {again:?}")
    };
    assert!(second.as_secs() - first.as_secs() >= 3500, "the renewed one is kept: {first:?} {second:?}");
}

#[test]
fn a_certificate_that_is_over_is_given_up_and_the_machine_waits_for_approval() {
    let (place, controller) = (Place::new(), Controller::start());
    let agent = place.pinned(&controller);
    controller.approve();
    controller.certify(-3600);
    agent.kill();
    let mut agent = place.pinned(&controller);
    agent.statuses_until("the certificate is over");
    // The support's controller remembers the key; the real one does not, see its tests.
    agent.statuses_until("ready");
    let shown = controller.shown(3);
    assert!(matches!(shown[1], Shown::Over { .. }) && shown[2] == Shown::SelfMade, "{shown:?}");
}

#[test]
fn a_controller_that_nobody_confirmed_certifies_nothing_and_a_confirmed_one_is_known_at_another_address() {
    let (place, controller) = (Place::new(), Controller::start());
    let mut agent = Agent::start(controller.address(), None, &place.state, &[&place.disk]);
    let certificates = || {
        let files = std::fs::read_dir(&place.state).unwrap().map(|entry| entry.unwrap().file_name());
        files.filter(|name| name.to_string_lossy().starts_with("certificate-")).count()
    };
    controller.code();
    let certificate = controller.issue(3600);
    controller.say(&ControllerMessage::Certificate { certificate });
    // The agent reads one message after the other: when it waits for the confirmation, it has dealt with the certificate.
    controller.say_approved();
    agent.statuses_until("waiting_for_confirmation");
    let answer = place.state.join("answer");
    std::fs::write(&answer, controller.code().to_string()).unwrap();
    std::fs::rename(answer, place.state.join("confirmed")).unwrap();
    agent.statuses_until("ready");
    assert_eq!(certificates(), 0, "the one before the confirmation is not taken");
    controller.certify(3600);
    assert_eq!(certificates(), 1);
    agent.kill();
    let link = Link::to(controller.address());
    let mut agent = Agent::start(link.address, None, &place.state, &[&place.disk]);
    let shown = agent.statuses_until("ready");
    assert!(!shown.contains("waiting"), "{shown}");
    assert!(is_issued(controller.shown(2).last().unwrap()));
}
