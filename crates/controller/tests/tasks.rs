//! Tasks in the hands of operators, and of a controller that stands still.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use controller::store::{End, Store};
use controller::{Controller, DataDirectory};
use conversion::{Cancel, Event, Observer, Step};
use protocol::Connection;
use serde_json::{Value, json};
use support::*;

/// A conversion that copies until somebody wants it to stop, and counts how often it was begun.
fn endless(begun: &Arc<AtomicUsize>) -> Arc<dyn controller::tasks::Converter> {
    let begun = Arc::clone(begun);
    Arc::new(Fake(move |_, observer: &dyn Observer, cancel: &Cancel| {
        begun.fetch_add(1, Ordering::SeqCst);
        observer.event(Event::Step { step: Step::Check });
        observer.event(Event::Step { step: Step::Copy });
        loop {
            cancel.check()?;
            observer.event(Event::Log { message: "still copying".into() });
            std::thread::sleep(Duration::from_millis(20));
        }
    }))
}

struct Site {
    folder: tempfile::TempDir,
    data: PathBuf,
    machine: String,
    begun: Arc<AtomicUsize>,
    connection: Connection,
    controller: Controller,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (data, begun) = (folder.path().join("data"), Arc::default());
        let controller = start(&data, endless(&begun));
        let (connection, machine) = Agent::new(controller.status()).enrol(&data, &machine("B5BRN12"));
        Self { folder, data, machine, begun, connection, controller }
    }

    fn convert(&self, name: &str) -> String {
        let body = json!({ "machine": self.machine, "request": { "name": name, "output": self.folder.path() } });
        let (status, _, task) = http(&self.data, "POST", "/tasks", &body.to_string());
        assert_eq!(status, 201, "{task}");
        task["id"].as_str().unwrap().to_owned()
    }

    fn post(&self, path: &str) -> (u16, Value) {
        let (status, _, answer) = http(&self.data, "POST", path, "{}");
        (status, answer)
    }

    fn task(&self, id: &str) -> Value {
        get(&self.data, &format!("/tasks/{id}"))
    }

    fn is(&self, id: &str, state: &str) {
        eventually(&format!("{id} is {state}"), || self.task(id)["state"] == state);
    }

    fn begun(&self, times: usize) {
        eventually(&format!("begun {times} times"), || self.begun.load(Ordering::SeqCst) == times);
    }
}

#[test]
fn a_running_task_is_paused_over_a_restart_and_goes_on() {
    let site = Site::start();
    let id = site.convert("web1");
    site.begun(1);
    eventually("it copies", || site.task(&id)["steps"][1]["state"] == "running");
    let (status, paused) = site.post(&format!("/tasks/{id}/pause"));
    println!("{status}: {} {}", paused["state"], paused["pause_requested"]);
    assert_eq!(status, 200);
    site.is(&id, "paused");
    assert_eq!(site.task(&id)["steps"][1]["state"], "interrupted");
    assert_eq!(site.post(&format!("/tasks/{id}/pause")).0, 409);

    let Site { folder, data, machine, begun, controller, .. } = site;
    controller.stop();
    let controller = start(&data, endless(&begun));
    let (connection, _) = Agent::new(controller.status()).enrol(&data, &support::machine("B5BRN12"));
    let site = Site { folder, data, machine, begun, connection, controller };
    assert_eq!(site.task(&id)["state"], "paused", "it stays so");
    assert_eq!(site.begun.load(Ordering::SeqCst), 1);
    assert_eq!(site.post(&format!("/tasks/{id}/resume")).0, 200);
    site.begun(2);
    assert_eq!(site.post(&format!("/tasks/{id}/cancel")).0, 200);
    site.is(&id, "cancelled");
    let log = get(&site.data, &format!("/tasks/{id}/log"));
    let said = |text: &str| log.as_array().unwrap().iter().any(|line| line["message"].as_str().unwrap().contains(text));
    assert!(said("asked for a pause") && said("paused") && said("resumed by"), "{log}");
}

#[test]
fn tasks_are_cloned_and_forgotten_with_what_they_left_half_made() {
    let site = Site::start();
    let id = site.convert("web1");
    site.begun(1);
    let half = site.folder.path().join(".web1.partial");
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("conversion.json"), "{}").unwrap();
    let delete = |path: &str| http(&site.data, "DELETE", path, "");
    assert_eq!(delete(&format!("/tasks/{id}")).0, 409, "it runs");
    site.post(&format!("/tasks/{id}/cancel"));
    site.is(&id, "cancelled");

    let name = json!({ "name": "web1-again" }).to_string();
    let (status, _, clone) = http(&site.data, "POST", &format!("/tasks/{id}/clone"), &name);
    assert_eq!(
        (status, &clone["request"]["name"], &clone["machine"]),
        (201, &json!("web1-again"), &json!(site.machine))
    );
    site.begun(2);

    let (status, _, gone) = delete(&format!("/tasks/{id}?discard=true"));
    assert_eq!((status, &gone["id"]), (200, &json!(id)), "{gone}");
    assert!(!half.exists());
    assert_eq!(delete(&format!("/tasks/{id}")).0, 404);
    assert_eq!(list(&site.data, "/tasks").as_array().unwrap().len(), 1);
    let audit = get(&site.data, "/audit");
    assert!(audit.as_array().unwrap().iter().any(|line| line["action"] == "task deleted" && line["subject"] == id));
    site.controller.stop();
}

#[test]
fn a_task_whose_machine_is_not_there_takes_no_place_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let begun = Arc::default();
    let controller = start(&data, endless(&begun));
    let agent = Agent::new(controller.status());
    let (connection, id) = agent.enrol(&data, &machine("B5BRN12"));
    let later = json!({ "start_at": "2099-12-01T22:00[Europe/Berlin]" });
    let body = json!({ "machine": id, "request": { "name": "web", "output": folder.path() }, "schedule": later });
    let (_, _, task) = http(&data, "POST", "/tasks", &body.to_string());
    let task = task["id"].as_str().unwrap();
    drop(connection);
    eventually("it is offline", || get(&data, &format!("/machines/{id}"))["state"] == "offline");
    assert_eq!(http(&data, "POST", &format!("/tasks/{task}/start"), "").0, 200);
    let shown = get(&data, &format!("/tasks/{task}"));
    assert_eq!((&shown["state"], begun.load(Ordering::SeqCst)), (&json!("queued"), 0));
    let _back = agent.hello().unwrap();
    assert_eq!(receive(&_back), protocol::message::ControllerMessage::Approved);
    report(&_back, &machine("B5BRN12"));
    eventually("it is begun", || begun.load(Ordering::SeqCst) == 1);
}

/// Runs as a process of its own, which the test below stops and wakes.
#[test]
#[ignore = "a part of a_controller_that_is_stopped_for_longer_than_its_lease_writes_nothing_when_it_is_woken"]
fn a_controller_to_be_stopped() {
    let Some(data) = std::env::var_os("VCONVERTER_TEST_DATA") else { return };
    let _controller = start_with(Path::new(&data), endless(&Arc::default()), Duration::from_secs(2));
    std::thread::sleep(Duration::from_secs(120));
}

struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_controller_that_is_stopped_for_longer_than_its_lease_writes_nothing_when_it_is_woken() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_controller_to_be_stopped", "--ignored", "--nocapture"])
        .env("VCONVERTER_TEST_DATA", &data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let child = Child(child);
    eventually("it works", || std::os::unix::net::UnixStream::connect(data.join("controller.sock")).is_ok());
    let status = serde_json::from_value(get(&data, "/status")).unwrap();
    let (_connection, id) = Agent::new(&status).enrol(&data, &machine("B5BRN12"));
    let body = json!({ "machine": id, "request": { "name": "web", "output": folder.path() } });
    let (_, _, task) = http(&data, "POST", "/tasks", &body.to_string());
    let task = task["id"].as_str().unwrap().to_owned();
    let lines = |after: i64| get(&data, &format!("/tasks/{task}/log?after={after}")).as_array().unwrap().len();
    eventually("it writes", || lines(0) > 10);

    let pid = rustix::process::Pid::from_raw(i32::try_from(child.0.id()).unwrap()).unwrap();
    let signal = |signal| rustix::process::kill_process(pid, signal).unwrap();
    signal(rustix::process::Signal::STOP);
    std::thread::sleep(Duration::from_secs(3));
    // Another controller takes the task over, as one that shares the store will.
    let store = Store::open(&DataDirectory::new(&data).database()).unwrap();
    let lease = store.begin_task(&task, None, &[Step::Check, Step::Copy], Duration::from_secs(60)).unwrap();
    let lease = lease.expect("the lease has ended");
    let before = (format!("{:?}", store.task(&task).unwrap()), store.task_log(&task, 0, 10_000).unwrap().len());
    signal(rustix::process::Signal::CONT);
    std::thread::sleep(Duration::from_secs(4));
    let after = (format!("{:?}", store.task(&task).unwrap()), store.task_log(&task, 0, 10_000).unwrap().len());
    println!(
        "stopped for 3 s with a lease of 2 s; {} lines of its log before it was woken, {} after",
        before.1, after.1
    );
    assert_eq!(before, after);
    assert_eq!(get(&data, &format!("/tasks/{task}"))["state"], "running");
    // When the other is gone too, the first takes the task up again, in a new epoch.
    assert!(store.end_task(&lease, &End::Interrupted).unwrap());
    let count = after.1;
    eventually("it goes on", || store.task_log(&task, 0, 10_000).unwrap().len() > count + 10);
}

/// The time of day by universal time, so many minutes from now.
fn minutes_from_now(minutes: u64) -> String {
    let at = controller::Timestamp::now().after(Duration::from_secs(minutes * 60)).to_string();
    format!("{} UTC", &at[11..16])
}

#[test]
fn a_machine_that_would_not_be_back_in_time_is_given_back_and_what_is_copied_is_kept() {
    let site = Site::start();
    // It takes five minutes to start: there is no time for a copy at all.
    let request = json!({ "name": "web1", "output": site.folder.path(), "back_by": minutes_from_now(4) });
    let body = json!({ "machine": site.machine, "request": request });
    let (status, _, task) = http(&site.data, "POST", "/tasks", &body.to_string());
    assert_eq!(status, 201, "{task}");
    let id = task["id"].as_str().unwrap();
    let told = receive(&site.connection);
    println!("the machine is told: {told:?}");
    assert!(matches!(told, protocol::message::ControllerMessage::Show { .. }));
    let told = receive(&site.connection);
    println!("the machine is told: {told:?}");
    let restart = protocol::message::PowerAction::Restart;
    assert!(matches!(told, protocol::message::ControllerMessage::Power { action, .. } if action == restart));
    site.is(id, "failed");
    let failed = site.task(id);
    println!("{}", failed["error"]);
    assert!(failed["error"].as_str().unwrap().contains("what is copied is kept"), "{failed}");
    assert_eq!((&failed["steps"][1]["state"], &failed["back_by"]), (&json!("failed"), &request["back_by"]));
    let said = || {
        let log = get(&site.data, &format!("/tasks/{id}/log"));
        log.as_array()
            .unwrap()
            .iter()
            .any(|line| line["message"].as_str().unwrap().contains("is given back: it starts"))
    };
    eventually("it is said", said);

    // Back in the boot image, with time enough.
    let body = json!({ "back_by": minutes_from_now(600) });
    let (status, _, task) = http(&site.data, "POST", &format!("/tasks/{id}/back-by"), &body.to_string());
    assert_eq!((status, &task["back_by"]), (200, &body["back_by"]), "{task}");
    let Site { folder, data, machine, begun, connection, controller } = site;
    drop(connection);
    let (status, _, task) = http(&data, "POST", &format!("/tasks/{id}/retry"), "");
    println!("{status}: {}", task["state"]);
    let (connection, again) = Agent::new(controller.status()).enrol(&data, &support::machine("B5BRN12"));
    assert_eq!((status, &again), (200, &machine));
    drop((connection, begun, folder));
    controller.stop();
}

#[test]
fn a_time_to_be_back_that_is_said_while_it_copies_counts_at_once() {
    let site = Site::start();
    let id = site.convert("web1");
    site.begun(1);
    let back_by = |time: Value| {
        let body = json!({ "back_by": time }).to_string();
        http(&site.data, "POST", &format!("/tasks/{id}/back-by"), &body)
    };
    for time in [json!(minutes_from_now(600)), json!(null)] {
        let (status, _, task) = back_by(time.clone());
        assert_eq!((status, &task["back_by"], &task["state"]), (200, &time, &json!("running")), "{task}");
    }
    let (status, _, problem) = back_by(json!("soon"));
    println!("{status}: {}", problem["detail"]);
    assert_eq!(status, 422, "{problem}");
    // It takes five minutes to start.
    assert_eq!(back_by(json!(minutes_from_now(4))).0, 200);
    let told = receive(&site.connection);
    assert!(matches!(told, protocol::message::ControllerMessage::Show { .. }), "{told:?}");
    let told = receive(&site.connection);
    println!("the machine is told: {told:?}");
    assert!(matches!(told, protocol::message::ControllerMessage::Power { .. }));
    site.is(&id, "failed");
    println!("{}", site.task(&id)["error"]);
    let log = get(&site.data, &format!("/tasks/{id}/log")).to_string();
    assert!(log.contains("the machine stays for as long as it takes, says "), "{log}");
    site.controller.stop();
}

#[test]
fn what_cannot_be_a_time_to_be_back_is_refused() {
    let site = Site::start();
    let request = json!({ "name": "web1", "output": site.folder.path(), "back_by": "tomorrow" });
    let body = json!({ "machine": site.machine, "request": request });
    let (status, _, problem) = http(&site.data, "POST", "/tasks", &body.to_string());
    println!("{status}: {}", problem["detail"]);
    assert!(status == 422 && problem["detail"].as_str().unwrap().contains("06:00 Europe/Berlin"), "{problem}");
    site.controller.stop();
}
