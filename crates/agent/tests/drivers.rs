//! The real agent in the boot image: drivers that the controller pushes lie where bootenv takes them, and hardware that
//! came is reported anew.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::message::ControllerMessage;
use protocol::piece::{FileName, FilePiece};
use support::{Agent, Controller, make_disk};

fn piece(push: u64, name: &str, offset: u64, content: &[u8]) -> ControllerMessage {
    let name = FileName::try_from(name.to_owned()).unwrap();
    ControllerMessage::DriverPiece(FilePiece { push, name, offset, content: content.into() })
}

fn wait_for(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no {}", path.display());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn drivers_are_handed_to_the_boot_image_and_its_answer_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, state) = (folder.path().join("disk"), folder.path().join("state"));
    make_disk(&disk, 1, 0x5eed);
    let controller = Controller::start();
    let _agent = Agent::start_in_boot_image(controller.address(), controller.authority(), &state, &disk);
    controller.approve();
    controller.say(&piece(7, "a.ko", 0, b"mod"));
    controller.say(&piece(7, "a.ko", 3, b"ule"));
    controller.say(&piece(7, "b.deb", 0, b"package"));
    controller.say(&ControllerMessage::InstallDrivers { push: 7 });
    let place = state.join("drivers/7");
    wait_for(&place);
    assert_eq!(fs::read(place.join("a.ko")).unwrap(), b"module");
    assert_eq!(fs::read(place.join("b.deb")).unwrap(), b"package");

    // As bootenv answers.
    fs::remove_dir_all(&place).unwrap();
    let answer =
        r#"[{"name":"a.ko","installed":true,"text":"a is loaded"},{"name":"b.deb","installed":false,"text":"no"}]"#;
    fs::write(state.join("drivers/7.new"), answer).unwrap();
    fs::rename(state.join("drivers/7.new"), state.join("drivers/7.json")).unwrap();
    let outcomes = controller.wait_for_drivers(7);
    assert_eq!((outcomes[0].text.as_str(), outcomes[1].installed), ("a is loaded", false));
    assert!(!state.join("drivers/7.json").exists());

    // A piece that is missing.
    controller.say(&piece(8, "a.ko", 3, b"ule"));
    assert!(controller.wait_for_drivers(8)[0].text.contains("expected one at 0"));

    let told = controller.told();
    fs::write(state.join("changed"), []).unwrap();
    controller.wait_until_told(told + 1);
    assert!(!state.join("changed").exists());
}

#[test]
fn a_machine_on_its_own_system_takes_no_driver() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, state) = (folder.path().join("disk"), folder.path().join("state"));
    make_disk(&disk, 1, 0x5eed);
    let controller = Controller::start();
    let _agent = Agent::start(controller.address(), Some(controller.authority()), &state, &[&disk]);
    controller.approve();
    controller.say(&piece(7, "a.ko", 0, b"module"));
    controller.say(&ControllerMessage::InstallDrivers { push: 7 });
    assert!(controller.wait_for_drivers(7)[0].text.contains("runs its own system"));
    assert!(!state.join("drivers").exists());
}
