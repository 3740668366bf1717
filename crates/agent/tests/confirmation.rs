//! The real agent at an address without a pin: whoever answers there may say that it approved.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use machine::{ByteCount, ByteOffset};
use protocol::message::{ControllerMessage, DiskSelector, Scope, ServeDisk, StreamMode, StreamToken};
use support::{Agent, Controller, Link, make_disk};

struct Place {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_disk(&folder.path().join("disk"), 1, 0x5eed);
        Self { root: folder.path().to_owned(), _folder: folder }
    }

    fn agent(&self, address: SocketAddr) -> Agent {
        Agent::start(address, None, &self.state(), &[&self.root.join("disk")])
    }

    fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// What somebody at the machine does, with a rename as bootenv.
    fn answer(&self, code: &str) {
        let beside = self.root.join("answer");
        std::fs::write(&beside, code).unwrap();
        std::fs::rename(beside, self.state().join("confirmed")).unwrap();
    }
}

/// Looks at the answer several times.
const A_WHILE: Duration = Duration::from_millis(1500);

fn code_of(status: &str) -> String {
    status.split("\"pairing_code\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

fn serve_disk() -> ControllerMessage {
    ControllerMessage::ServeDisk(ServeDisk {
        stream: StreamToken::random().unwrap(),
        task: "1".into(),
        disk: DiskSelector { identity: machine::DiskIdentity::default(), index: 0, size: ByteCount::mib(1) },
        mode: StreamMode::Hashes { resume: ByteOffset::ZERO },
        scope: Scope::default(),
    })
}

#[test]
fn a_controller_that_approves_itself_gets_nothing() {
    let place = Place::new();
    let rogue = Controller::start();
    let mut agent = place.agent(rogue.address());
    rogue.say_approved();
    let shown = agent.statuses_until("waiting_for_confirmation");
    let code = code_of(&shown);
    assert_eq!(code, rogue.code().to_string(), "{shown}");

    // It can neither ask nor talk anybody into it.
    rogue.say(&ControllerMessage::Refresh);
    rogue.say(&ControllerMessage::Show { text: "just answer yes".into() });
    rogue.say(&ControllerMessage::Approved);
    place.answer("0000-0000");
    std::thread::sleep(A_WHILE);
    place.answer("yes");
    std::thread::sleep(A_WHILE);
    assert_eq!(rogue.told(), 0, "a report before the confirmation");
    rogue.say(&serve_disk());
    rogue.wait_for_end();
    assert_eq!(rogue.told(), 0, "a stream before the confirmation");

    // The agent comes back, is told at once that it is approved, and waits for the same answer.
    let shown = agent.statuses_until("waiting_for_confirmation");
    assert_eq!(code_of(&shown), code, "{shown}");
    assert!(!shown.contains("just answer yes") && !shown.contains("ready"), "{shown}");
    assert_eq!(rogue.told(), 0);
    place.answer(&format!("{code}\n"));
    assert_eq!(rogue.report().machine.disks[0].virtual_size, ByteCount::mib(1));
    agent.statuses_until("ready");
    assert!(!place.state().join("confirmed").exists());
}

#[test]
fn a_confirmed_controller_is_pinned_and_another_is_asked_about() {
    let place = Place::new();
    let (controller, other) = (Controller::start(), Controller::start());
    let mut agent = place.agent(controller.address());
    controller.say_approved();
    agent.statuses_until("waiting_for_confirmation");
    place.answer(&controller.code().to_string());
    controller.report();
    agent.kill();

    // Started again it does not ask.
    let mut agent = place.agent(controller.address());
    let shown = agent.statuses_until("ready");
    assert!(!shown.contains("waiting"), "{shown}");
    agent.kill();

    // Another controller at another address is asked about, whatever was answered before.
    let told = other.told();
    let mut agent = place.agent(other.address());
    other.say_approved();
    let shown = agent.statuses_until("waiting_for_confirmation");
    assert_eq!(code_of(&shown), other.code().to_string());
    place.answer(&controller.code().to_string());
    std::thread::sleep(A_WHILE);
    assert_eq!(other.told(), told);
    agent.kill();

    // And at the first address nobody else is listened to any more.
    let file = place.state().join("controllers.json");
    let stored = std::fs::read_to_string(&file).unwrap();
    let stored = stored.replace(&controller.authority().to_string(), &Controller::start().authority().to_string());
    std::fs::write(&file, stored).unwrap();
    place.agent(controller.address()).statuses_until("not signed by the CA");
}

/// Streams are connections of their own: who comes in between after the confirmation gets none.
#[test]
fn a_stream_goes_to_the_confirmed_controller_only() {
    let place = Place::new();
    let (controller, rogue) = (Controller::start(), Controller::start());
    let link = Link::to(controller.address());
    let mut agent = place.agent(link.address);
    controller.say_approved();
    agent.statuses_until("waiting_for_confirmation");
    place.answer(&controller.code().to_string());
    let report = controller.report();
    agent.statuses_until("ready");
    link.redirect(rogue.address());
    let ControllerMessage::ServeDisk(wish) = serve_disk() else { unreachable!() };
    let identity = report.machine.disks[0].identity.clone();
    controller.say(&ControllerMessage::ServeDisk(ServeDisk { disk: DiskSelector { identity, ..wish.disk }, ..wish }));
    let failure = controller.wait_for_failure();
    assert!(failure.contains("not signed by the CA"), "{failure}");
    assert_eq!(rogue.told(), 0, "the token reached somebody else");
}

#[test]
fn a_pinned_controller_needs_no_confirmation() {
    let place = Place::new();
    let controller = Controller::start();
    let disk: &Path = &place.root.join("disk");
    let mut agent = Agent::start(controller.address(), Some(controller.authority()), &place.state(), &[disk]);
    controller.approve();
    let shown = agent.statuses_until("ready");
    assert!(!shown.contains("waiting_for_confirmation"), "{shown}");
}
