//! Scheduled tasks of a running controller: their time comes, is changed, and survives a restart.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use controller::Timestamp;
use controller::tasks::Converter;
use conversion::{Cancel, Observer};
use protocol::message::ControllerMessage;
use serde_json::{Value, json};

use support::*;

const LATER: &str = "2099-12-01T22:00[Europe/Berlin]";

/// A conversion that is done at once and counts how often.
fn counting(begun: &Arc<AtomicUsize>) -> Arc<dyn Converter> {
    let begun = begun.clone();
    Arc::new(Fake(move |_, _: &dyn Observer, _: &Cancel| {
        begun.fetch_add(1, Ordering::SeqCst);
        Ok(Value::Null)
    }))
}

fn post(data: &Path, path: &str, body: &Value) -> (u16, Value) {
    let (status, _, answer) = http(data, "POST", path, &body.to_string());
    (status, answer)
}

fn task(data: &Path, id: &str) -> Value {
    get(data, &format!("/tasks/{id}"))
}

fn log(data: &Path, id: &str) -> Vec<String> {
    let log = get(data, &format!("/tasks/{id}/log"));
    log.as_array().unwrap().iter().map(|line| format!("{} {}", line["level"], line["message"])).collect()
}

/// A controller with one machine that is ready.
struct Site {
    folder: tempfile::TempDir,
    controller: controller::Controller,
    agent: Agent,
    _connection: protocol::Connection,
    machine: String,
    begun: Arc<AtomicUsize>,
}

impl Site {
    fn start() -> Self {
        let (folder, begun) = (tempfile::tempdir().unwrap(), Arc::default());
        let data = folder.path().join("data");
        let controller = start(&data, counting(&begun));
        let agent = Agent::new(controller.status());
        let (connection, machine) = agent.enrol(&data, &machine("B5BRN12"));
        Self { folder, controller, agent, _connection: connection, machine, begun }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn wish(&self, name: &str, schedule: &Value) -> Value {
        let request = json!({ "name": name, "output": self.folder.path() });
        json!({ "machine": self.machine, "request": request, "schedule": schedule })
    }

    /// The id of a task that was taken.
    fn task(&self, name: &str, schedule: &Value) -> String {
        let (status, task) = post(&self.data(), "/tasks", &self.wish(name, schedule));
        assert_eq!(status, 201, "{task}");
        task["id"].as_str().unwrap().to_owned()
    }

    /// The controller ends and another is started; the machine comes again.
    fn restart(self) -> Self {
        let Self { folder, controller, mut agent, machine: id, begun, .. } = self;
        let data = folder.path().join("data");
        controller.stop();
        let controller = start(&data, counting(&begun));
        agent.follow(controller.status());
        let connection = agent.hello().unwrap();
        assert_eq!(receive(&connection), ControllerMessage::Approved);
        report(&connection, &machine("B5BRN12"));
        eventually("the machine is back", || get(&data, &format!("/machines/{id}"))["state"] == "ready");
        Self { folder, controller, agent, _connection: connection, machine: id, begun }
    }

    fn is(&self, task: &str, state: &str) {
        eventually(&format!("the task is {state}"), || get(&self.data(), &format!("/tasks/{task}"))["state"] == state);
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

#[test]
fn a_scheduled_task_survives_a_restart_and_begins_when_its_schedule_is_changed() {
    let site = Site::start();
    let id = site.task("web1", &json!({ "start_at": LATER }));
    let shown = task(&site.data(), &id);
    assert_eq!((&shown["state"], &shown["due_at"]), (&json!("scheduled"), &json!("2099-12-01T21:00:00Z")), "{shown}");
    assert_eq!(shown["schedule"], json!({ "start_at": LATER, "windows": [] }));

    let site = site.restart();
    let shown = task(&site.data(), &id);
    assert_eq!((&shown["state"], &shown["due_at"]), (&json!("scheduled"), &json!("2099-12-01T21:00:00Z")), "{shown}");
    let path = format!("/tasks/{id}/schedule");
    let window = "Mon 01:00-01:01 Asia/Tokyo";
    let (status, changed) = post(&site.data(), &path, &json!({ "start_at": LATER, "windows": [window] }));
    assert_eq!((status, &changed["state"]), (200, &json!("scheduled")), "{changed}");
    assert_eq!(changed["due_at"], "2099-12-06T16:00:00Z", "the Monday after");
    assert_eq!(site.begun(), 0);

    let (status, freed) = post(&site.data(), &path, &json!({}));
    assert_eq!(status, 200, "{freed}");
    site.is(&id, "done");
    assert_eq!(site.begun(), 1);
    let log = log(&site.data(), &id);
    println!("{log:#?}");
    assert!(log.iter().any(|line| line.contains("scheduled: begins at 2099-12-06T16:00:00Z")), "{log:?}");
    let audit = get(&site.data(), "/audit");
    let actions: Vec<&str> =
        audit.as_array().unwrap().iter().filter_map(|line| line["action"].as_str()).take(3).collect();
    assert_eq!(actions, ["task scheduled", "task scheduled", "task created"]);
    assert_eq!(post(&site.data(), &path, &json!({})).0, 409, "it is over");
    let site = site.restart();
    site.is(&id, "done");
    assert_eq!(site.begun(), 1, "once");
    site.controller.stop();
}

#[test]
fn a_task_begins_by_itself_when_its_time_comes() {
    let site = Site::start();
    let start = Timestamp((Timestamp::now().0 / 1000 + 3) * 1000);
    let id = site.task("web1", &json!({ "start_at": start.to_string() }));
    let other = site.task("web2", &json!({ "start_at": LATER }));
    site.is(&id, "done");
    let started: Timestamp = serde_json::from_value(task(&site.data(), &id)["started_at"].clone()).unwrap();
    println!("was to start at {start}, did at {started}");
    assert!(started >= start, "{started} {start}");
    assert_eq!((site.begun(), &task(&site.data(), &other)["state"]), (1, &json!("scheduled")));
    site.controller.stop();
}

#[test]
fn what_was_due_while_the_controller_was_down_is_run_once_and_said() {
    let site = Site::start();
    let id = site.task("web1", &json!({ "start_at": LATER }));
    let Site { folder, controller, machine: _machine, begun, .. } = site;
    let data = folder.path().join("data");
    controller.stop();
    // As if it had been down for an hour: its plan and its time are an hour earlier.
    let earlier = Timestamp((Timestamp::now().0 / 1000 - 3600) * 1000);
    let database = rusqlite::Connection::open(data.join("controller.db")).unwrap();
    let plan: String = database.query_row("SELECT plan FROM tasks", [], |row| row.get(0)).unwrap();
    let mut plan: Value = serde_json::from_str(&plan).unwrap();
    plan["schedule"]["start_at"] = json!(earlier.to_string());
    for moment in ["created_at", "fixed_at"] {
        plan[moment] = json!(Timestamp(earlier.0 - 3_600_000));
    }
    database
        .execute("UPDATE tasks SET plan = ?1, due_at = ?2", rusqlite::params![plan.to_string(), earlier.0])
        .unwrap();
    drop(database);

    let controller = start(&data, counting(&begun));
    // Its machine is not there: it is begun, and fails with that.
    eventually("it was begun", || task(&data, &id)["started_at"].is_string());
    let log = log(&data, &id);
    println!("{log:#?}");
    let said = format!("it was to begin at {earlier}, when the controller was not running");
    assert_eq!(log.iter().filter(|line| line.starts_with("\"warning\"") && line.contains(&said)).count(), 1, "{log:?}");
    controller.stop();
}

#[test]
fn an_operator_begins_a_scheduled_task_now_cancels_it_and_tries_it_again() {
    let site = Site::start();
    let schedule = json!({ "start_at": LATER, "windows": ["Mon 01:00-01:01 UTC"] });
    let id = site.task("web1", &schedule);
    let ask = |what: &str| post(&site.data(), &format!("/tasks/{id}/{what}"), &json!({})).0;
    assert_eq!(ask("cancel"), 200);
    site.is(&id, "cancelled");
    assert_eq!((ask("start"), ask("schedule")), (409, 409));
    assert_eq!(ask("retry"), 200);
    site.is(&id, "scheduled");
    assert_eq!(ask("start"), 200);
    site.is(&id, "done");
    assert_eq!((ask("start"), site.begun()), (409, 1));
    assert_eq!(post(&site.data(), "/tasks/t-00000000/start", &json!({})).0, 404);
    site.controller.stop();
}

#[test]
fn schedules_that_cannot_be_are_refused() {
    let site = Site::start();
    let many: Vec<String> = (0..33).map(|minute| format!("Mon 01:{minute:02}-02:00 UTC")).collect();
    for (schedule, said) in [
        (json!({ "start_at": "2020-01-01T00:00Z" }), "has passed"),
        (json!({ "start_at": "2099-01-01T00:00" }), "its zone too"),
        (json!({ "start_at": "2099-01-01T00:00[Mars]" }), "time zone"),
        (json!({ "windows": ["Sat 22:00-22:00 UTC"] }), "two different times"),
        (json!({ "windows": many }), "at most 32"),
        (json!({ "every": "1h" }), "unknown field"),
    ] {
        let (status, problem) = post(&site.data(), "/tasks", &site.wish("web1", &schedule));
        println!("{problem}");
        assert_eq!(status, 422, "{schedule}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
    let id = site.task("web1", &json!({ "start_at": LATER }));
    let path = format!("/tasks/{id}/schedule");
    assert_eq!(post(&site.data(), &path, &json!({ "start_at": "2020-01-01T00:00Z" })).0, 422);
    assert_eq!(task(&site.data(), &id)["state"], "scheduled");
    assert_eq!(site.begun(), 0);
    site.controller.stop();
}
