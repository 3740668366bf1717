//! Automated Remote Cold Cloning as the controller conducts it: the agents, live and in the boot image, are the test's own.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use controller::api::Status;
use controller::tasks::Converter;
use conversion::{Cancel, Event, Observer, Step};
use machine::Machine;
use machine::push::{BootPathReport, Survey, Way, WayFinding};
use protocol::Connection;
use protocol::enrolment::EnrolmentToken;
use protocol::message::{
    About, AgentKind, AgentMessage, Bytes32, ControllerMessage, MESSAGE_BYTES_MAX, PowerAction, read_message,
};
use serde_json::{Value, json};
use support::*;

/// What a live agent of the test's was told.
#[derive(Default)]
struct Told {
    files: BTreeMap<String, Vec<u8>>,
    ways: Vec<Way>,
    commands: Vec<String>,
    warnings: Vec<(String, u32)>,
    withdrawn: u32,
}

/// How the test's machine behaves.
#[derive(Clone, Copy, Default)]
struct Manner {
    refuses: Option<Way>,
    fails_commands: bool,
}

fn survey() -> Survey {
    let finding = |way: Way| WayFinding {
        way,
        refused: if way == Way::BootNext { vec!["this machine has a BIOS".into()] } else { Vec::new() },
        notes: Vec::new(),
        room: None,
    };
    Survey { ways: Way::ALL.map(finding).to_vec(), installed: true, ..Survey::default() }
}

fn boot_path(task: &str, undone: &[&str]) -> AgentMessage {
    let undone = undone.iter().map(|line| (*line).to_owned()).collect();
    AgentMessage::BootPath(BootPathReport {
        task: task.into(),
        way: Some(Way::Grub),
        undone,
        ..BootPathReport::default()
    })
}

/// Answers as an agent on the machine's own system would, until it is told to restart, or the connection ends.
fn live(connection: Connection, manner: Manner, told: Arc<Mutex<Told>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while let Ok(message) = read_message::<ControllerMessage>(&connection, MESSAGE_BYTES_MAX) {
            let mut told = told.lock().unwrap();
            match message {
                ControllerMessage::Survey => send(&connection, &AgentMessage::Surveyed(Box::new(survey()))),
                ControllerMessage::PushPiece(piece) => {
                    let file = told.files.entry(piece.name.to_string()).or_default();
                    if piece.offset == 0 {
                        file.clear();
                    }
                    assert_eq!(file.len() as u64, piece.offset);
                    file.extend_from_slice(piece.content.bytes());
                }
                ControllerMessage::PlacePush { order, .. } if manner.refuses == Some(order.way) => {
                    told.ways.push(order.way);
                    send(&connection, &AgentMessage::PushFailed { reason: "the kernel refuses it".into() });
                }
                ControllerMessage::PlacePush { push, order } => {
                    told.ways.push(order.way);
                    send(
                        &connection,
                        &AgentMessage::PushPlaced { push, done: vec!["3 files in /boot/vconverter".into()] },
                    );
                }
                ControllerMessage::RunCommand { id, command, .. } => {
                    told.commands.push(command);
                    let status = Some(i32::from(manner.fails_commands));
                    send(&connection, &AgentMessage::CommandEnded { id, status, output: "so it is\n".into() });
                }
                ControllerMessage::WithdrawPush => {
                    told.withdrawn += 1;
                    send(&connection, &boot_path("none", &[]));
                }
                ControllerMessage::StartPush { text, warning_seconds } => {
                    told.warnings.push((text, warning_seconds));
                    return;
                }
                _ => {}
            }
        }
    })
}

/// A conversion that is at its fix-ups at once.
fn quick() -> Arc<dyn Converter> {
    Arc::new(Fake(|_, observer: &dyn Observer, _: &Cancel| {
        for step in [Step::Check, Step::Copy, Step::FixUp] {
            observer.event(Event::Step { step });
        }
        Ok(json!({ "name": "made" }))
    }))
}

struct Site {
    folder: tempfile::TempDir,
    controller: controller::Controller,
    agent: Agent,
    machine: Machine,
    id: String,
    told: Arc<Mutex<Told>>,
}

impl Site {
    /// A controller, and a live machine that is approved.
    fn new(manner: Manner) -> (Self, JoinHandle<()>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("vms")).unwrap();
        let controller = start(&folder.path().join("data"), quick());
        let mut agent = Agent::new(controller.status());
        agent.kind = AgentKind::Agent;
        let machine = machine("RCC1");
        let (connection, id) = agent.enrol(&folder.path().join("data"), &machine);
        let told = Arc::<Mutex<Told>>::default();
        let living = live(connection, manner, Arc::clone(&told));
        (Self { folder, controller, agent, machine, id, told }, living)
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn status(&self) -> &Status {
        self.controller.status()
    }

    fn ask(&self, rcc: Value) -> (u16, Value) {
        let request = json!({ "name": "web", "output": self.folder.path().join("vms") });
        let body = json!({ "machine": self.id, "request": request, "rcc": rcc }).to_string();
        let (status, _, answer) = http(&self.data(), "POST", "/tasks", &body);
        (status, answer)
    }

    fn task(&self, id: &str) -> Value {
        get(&self.data(), &format!("/tasks/{id}"))
    }

    fn wait_for(&self, id: &str, state: &str) -> Value {
        eventually(state, || self.task(id)["state"] == state);
        self.task(id)
    }

    fn log(&self, id: &str) -> String {
        let lines = get(&self.data(), &format!("/tasks/{id}/log"));
        lines.as_array().unwrap().iter().map(|line| format!("{}\n", line["message"].as_str().unwrap())).collect()
    }

    /// The machine's own system again: the same key, another start.
    fn comes_back(&mut self, task: &str, undone: &[&str]) -> JoinHandle<()> {
        self.agent.instance = Bytes32::random().unwrap();
        let connection = self.agent.hello().unwrap();
        assert_eq!(receive(&connection), ControllerMessage::Approved);
        report(&connection, &self.machine);
        send(&connection, &boot_path(task, undone));
        live(connection, Manner::default(), Arc::clone(&self.told))
    }

    fn token(&self) -> EnrolmentToken {
        let told = self.told.lock().unwrap();
        String::from_utf8(told.files["configuration.img"].clone()).unwrap().parse().unwrap()
    }
}

/// Comes with a token from the boot image.
fn enrol(agent: &Agent, token: &EnrolmentToken) -> (Connection, ControllerMessage) {
    let connection = agent.hello().unwrap();
    assert!(matches!(receive(&connection), ControllerMessage::PairingCommit { .. }));
    send(&connection, &AgentMessage::Enrol { secret: token.secret(), about: About::default() });
    let answer = receive(&connection);
    (connection, answer)
}

/// Reads until the machine is told to end.
fn wait_for_power(connection: &Connection) -> PowerAction {
    loop {
        if let ControllerMessage::Power { action, .. } = receive(connection) {
            return action;
        }
    }
}

#[test]
fn a_live_machine_is_restarted_converted_and_seen_back() {
    let (mut site, living) = Site::new(Manner { refuses: Some(Way::Kexec), ..Manner::default() });
    let (status, refused) = site.ask(json!({}));
    assert_eq!(status, 409, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("--accept-no-watchdog"), "{refused}");
    let before = json!([{ "command": "stop the application" }]);
    let after = json!([{ "command": "start the application" }]);
    let rcc = json!({ "accept_no_watchdog": true, "before": before, "after": after, "message": "Sorry.", "warning_seconds": 60 });
    let (status, task) = site.ask(rcc);
    assert_eq!(status, 201, "{task}");
    let task = task["id"].as_str().unwrap().to_owned();
    living.join().unwrap();
    {
        let told = site.told.lock().unwrap();
        assert_eq!(told.ways, [Way::Kexec, Way::Grub], "the safest first, then what is left");
        assert_eq!(told.commands, ["stop the application"]);
        assert_eq!(told.warnings, [("Sorry.".to_owned(), 60)]);
    }
    // The warning is over; the boot image comes, with the credential of the push.
    eventually("the machine is away", || site.task(&task)["course"]["restarted_at"].is_string());
    let token = site.token();
    let boot_image = Agent::new(site.status());
    let (connection, answer) = enrol(&boot_image, &token);
    assert_eq!(answer, ControllerMessage::Approved);
    report(&connection, &site.machine);
    send(&connection, &boot_path(&task, &["/boot/grub/custom.cfg removed"]));
    assert_eq!(wait_for_power(&connection), PowerAction::Restart);
    drop(connection);
    // Used once: nobody else gets in with it.
    let (_, answer) = enrol(&Agent::new(site.status()), &token);
    assert!(matches!(answer, ControllerMessage::EnrolmentRefused { .. }), "{answer:?}");
    assert_ne!(site.task(&task)["state"], "done", "the machine is not back yet");
    std::thread::sleep(Duration::from_millis(1100));
    let _living = site.comes_back(&task, &[]);
    let done = site.wait_for(&task, "done");
    println!("{}\n{}", site.log(&task), serde_json::to_string_pretty(&done["course"]).unwrap());
    let steps: Vec<_> = done["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["reboot", "check", "copy", "fix-up", "define", "prove", "return"]);
    assert_eq!(done["course"]["way"], "grub");
    assert_eq!(done["course"]["restored"]["undone"][0], "/boot/grub/custom.cfg removed");
    assert!(done["course"]["boot_path"]["differences"].as_array().unwrap().is_empty());
    assert!(done["downtime_seconds"].is_u64(), "{done}");
    assert_eq!(site.told.lock().unwrap().commands, ["stop the application", "start the application"]);
    assert!(site.log(&task).contains("it was away for "));
}

#[test]
fn a_machine_that_comes_back_by_itself_fails_its_task_which_can_be_tried_again() {
    let (mut site, living) = Site::new(Manner::default());
    let (_, task) = site.ask(json!({ "accept_no_watchdog": true, "way": "grub" }));
    let task = task["id"].as_str().unwrap().to_owned();
    living.join().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let living = site.comes_back(&task, &["grubenv put back"]);
    let failed = site.wait_for(&task, "failed");
    println!("{}", failed["error"]);
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("without a word of the boot image") && error.contains("boot path is as it was"), "{error}");
    assert!(site.log(&task).contains("its own system: grubenv put back"), "{}", site.log(&task));
    // Its credential is good for nothing any more.
    let (_, answer) = enrol(&Agent::new(site.status()), &site.token());
    assert!(matches!(answer, ControllerMessage::EnrolmentRefused { .. }), "{answer:?}");
    let (status, _, answer) = http(&site.data(), "POST", &format!("/tasks/{task}/retry"), "");
    assert_eq!(status, 200, "{answer}");
    living.join().unwrap();
    assert_eq!(site.told.lock().unwrap().ways, [Way::Grub, Way::Grub]);
    let (connection, answer) = enrol(&Agent::new(site.status()), &site.token());
    assert_eq!(answer, ControllerMessage::Approved);
    // With the credential of this machine another one gets nowhere.
    report(&connection, &machine("another machine"));
    assert!(matches!(receive_ending(&connection), ControllerMessage::Denied { .. }));
}

fn receive_ending(connection: &Connection) -> ControllerMessage {
    loop {
        match receive(connection) {
            denied @ ControllerMessage::Denied { .. } => return denied,
            _ => continue,
        }
    }
}

#[test]
fn what_fails_before_the_restart_is_taken_back() {
    let (site, living) = Site::new(Manner { fails_commands: true, ..Manner::default() });
    let rcc = json!({ "accept_no_watchdog": true, "way": "grub", "before": [{ "command": "false" }] });
    let (_, task) = site.ask(rcc);
    let task = task["id"].as_str().unwrap().to_owned();
    let failed = site.wait_for(&task, "failed");
    println!("{}\n{}", failed["error"], site.log(&task));
    assert!(failed["error"].as_str().unwrap().contains("false: exit code 1"), "{failed}");
    assert!(site.log(&task).contains("nothing of the boot image is left on the machine"));
    let told = site.told.lock().unwrap();
    assert!(told.withdrawn == 1 && told.warnings.is_empty());
    assert!(failed["course"]["restarted_at"].is_null());
    drop(told);
    let (status, refused) = site.ask(json!({ "way": "boot-next", "accept_no_watchdog": true }));
    assert_eq!(status, 409, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("ISO"), "{refused}");
    drop(site);
    living.join().unwrap();
}

#[test]
fn a_boot_path_that_cannot_be_restored_keeps_everything_from_being_copied() {
    let (site, living) = Site::new(Manner::default());
    let (_, task) = site.ask(json!({ "accept_no_watchdog": true, "way": "grub" }));
    let task = task["id"].as_str().unwrap().to_owned();
    living.join().unwrap();
    let (connection, _) = enrol(&Agent::new(site.status()), &site.token());
    report(&connection, &site.machine);
    let differences = vec!["/boot/grub/grubenv cannot be written".to_owned()];
    let told = BootPathReport { task: task.clone(), differences, ..BootPathReport::default() };
    send(&connection, &AgentMessage::BootPath(told));
    assert_eq!(wait_for_power(&connection), PowerAction::Restart);
    let failed = site.wait_for(&task, "failed");
    assert!(failed["error"].as_str().unwrap().contains("nothing is copied"), "{failed}");
}

#[test]
fn an_operator_says_when() {
    let (site, _living) = Site::new(Manner::default());
    let request = json!({ "name": "web", "output": site.folder.path().join("vms") });
    let rcc = json!({ "accept_no_watchdog": true, "way": "grub" });
    let body = json!({ "machine": site.id, "request": request, "rcc": rcc, "held": true }).to_string();
    let (status, _, task) = http(&site.data(), "POST", "/tasks", &body);
    assert_eq!((status, task["state"].as_str()), (201, Some("paused")), "{task}");
    assert!(site.told.lock().unwrap().ways.is_empty());
    let path = format!("/tasks/{}/resume", task["id"].as_str().unwrap());
    assert_eq!(http(&site.data(), "POST", &path, "").0, 200);
    eventually("it is restarted", || !site.told.lock().unwrap().warnings.is_empty());
}
