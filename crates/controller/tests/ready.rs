//! Cold Cloning Ready: who is listed there, how it came and whether it answers; batches; tasks that wait for a machine.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use controller::Timestamp;
use conversion::{Cancel, Observer};
use machine::Machine;
use protocol::message::{AgentKind, AgentMessage, ControllerMessage};
use serde_json::{Value, json};

use support::*;

/// A conversion that counts how often it was begun.
fn counting(begun: &Arc<AtomicUsize>) -> Arc<dyn controller::tasks::Converter> {
    let begun = Arc::clone(begun);
    Arc::new(Fake(move |_, _: &dyn Observer, _: &Cancel| {
        begun.fetch_add(1, Ordering::SeqCst);
        Ok(Value::Null)
    }))
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    (folder, data)
}

/// A machine of its own: serial numbers of one length would share a UUID.
fn other_machine(serial: &str) -> Machine {
    let mut other = machine(serial);
    other.smbios.uuid = Some(format!("4c4c4544-0042-3510-8052-{:0>12}", serial.len() * 7));
    other
}

fn shown(data: &std::path::Path, machine: &str) -> Value {
    get(data, &format!("/machines/{machine}"))
}

fn post(data: &std::path::Path, path: &str, body: &Value) -> (u16, Value) {
    let (status, _, answer) = http(data, "POST", path, &body.to_string());
    (status, answer)
}

#[test]
fn a_machine_in_the_boot_image_is_listed_with_how_it_came_since_when_and_whether_it_answers() {
    let (_folder, data) = folder();
    let controller = start(&data, nothing());
    let mut agent = Agent::new(controller.status());
    let (connection, id) = agent.enrol(&data, &machine("B5BRN12"));
    let first = shown(&data, &id);
    assert_eq!((&first["cold_cloning_ready"], &first["boot_medium"]), (&json!(true), &json!("pxe")), "{first}");
    assert_eq!(first["answers"], true, "{first}");
    assert!(first["silent_seconds"].as_u64().unwrap() <= 20, "{first}");

    // The link is cut, and the controller started again: the machine did not start anew.
    drop(connection);
    eventually("it has left", || shown(&data, &id)["cold_cloning_ready"] == false);
    let gone = shown(&data, &id);
    assert_eq!((&gone["state"], &gone["answers"]), (&json!("offline"), &json!(false)));
    assert_eq!((&gone["boot_medium"], &gone["ready_since"]), (&Value::Null, &Value::Null));
    controller.stop();
    let controller = start(&data, nothing());
    agent.follow(controller.status());
    let connection = agent.hello().unwrap();
    assert_eq!(receive(&connection), ControllerMessage::Approved);
    report(&connection, &machine("B5BRN12"));
    eventually("it is back", || shown(&data, &id)["cold_cloning_ready"] == true);
    assert_eq!(shown(&data, &id)["ready_since"], first["ready_since"]);

    // Started anew it has another key.
    drop(connection);
    let (_connection, same) = Agent::new(controller.status()).enrol(&data, &machine("B5BRN12"));
    assert_eq!(same, id);
    let again = shown(&data, &id);
    // As texts, 10.2 comes behind 10.25.
    let since = |machine: &Value| serde_json::from_value::<Timestamp>(machine["ready_since"].clone()).unwrap();
    assert!(since(&again) > since(&first), "{again}");
    controller.stop();
}

#[test]
fn a_machine_that_runs_its_own_system_is_not_among_them() {
    let (_folder, data) = folder();
    let controller = start(&data, nothing());
    let mut agent = Agent::new(controller.status());
    agent.kind = AgentKind::Agent;
    let (_connection, id) = agent.enrol(&data, &machine("B5BRN12"));
    let live = shown(&data, &id);
    assert_eq!((&live["state"], &live["cold_cloning_ready"]), (&json!("ready"), &json!(false)));
    assert_eq!((&live["booted"], &live["boot_medium"]), (&json!("live"), &Value::Null));
    assert_eq!((&live["ready_since"], &live["answers"]), (&Value::Null, &json!(true)));
    controller.stop();
}

#[test]
fn a_selection_that_mixes_kinds_is_split_into_two_batches() {
    let (folder, data) = folder();
    let begun = Arc::new(AtomicUsize::new(0));
    let controller = start(&data, counting(&begun));
    let (_first, cold) = Agent::new(controller.status()).enrol(&data, &machine("B5BRN12"));
    let (_second, cold_too) = Agent::new(controller.status()).enrol(&data, &other_machine("B5BRN1234"));
    let mut agent = Agent::new(controller.status());
    agent.kind = AgentKind::Agent;
    let (_third, live) = agent.enrol(&data, &other_machine("A-LIVE-ONE"));
    let wish =
        |machine: &str, name: &str| json!({ "machine": machine, "request": { "name": name, "output": folder.path() } });
    let body = json!({ "conversions": [wish(&cold, "a"), wish(&live, "b"), wish(&cold_too, "c")] });
    let (status, batches) = post(&data, "/batches", &body);
    assert_eq!(status, 201, "{batches}");
    let kinds: Vec<(&str, Vec<&str>)> = batches
        .as_array()
        .unwrap()
        .iter()
        .map(|batch| {
            let tasks = batch["tasks"].as_array().unwrap();
            assert!(tasks.iter().all(|task| task["batch"] == batch["id"]), "{batch}");
            (batch["kind"].as_str().unwrap(), tasks.iter().map(|task| task["name"].as_str().unwrap()).collect())
        })
        .collect();
    assert_eq!(kinds, [("cold-cloning-ready", vec!["a", "c"]), ("live", vec!["b"])]);
    eventually("all were converted", || begun.load(Ordering::SeqCst) == 3);

    // One that cannot be is in the way of all.
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    let body = json!({ "conversions": [wish(&cold, "d"), wish(&live, "taken")] });
    assert_eq!(post(&data, "/batches", &body).0, 409);
    let body = json!({ "conversions": [wish(&cold, "e"), wish(&live, "e")] });
    assert_eq!(post(&data, "/batches", &body).0, 409);
    assert_eq!(post(&data, "/batches", &json!({ "conversions": [] })).0, 400);
    assert_eq!(list(&data, "/tasks").as_array().unwrap().len(), 3);
    controller.stop();
}

#[test]
fn a_task_waits_for_its_machine_over_a_restart_and_takes_it_up_whatever_its_key_after_a_yes() {
    let (folder, data) = folder();
    let begun = Arc::new(AtomicUsize::new(0));
    let controller = start(&data, counting(&begun));
    let mut agent = Agent::new(controller.status());
    agent.kind = AgentKind::Agent;
    let (connection, id) = agent.enrol(&data, &machine("B5BRN12"));
    drop(connection);
    eventually("it has left", || shown(&data, &id)["state"] == "offline");

    let request = json!({ "name": "web1", "output": folder.path() });
    let (status, refused) = post(&data, "/tasks", &json!({ "machine": id, "request": request }));
    assert_eq!(status, 409, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("is not connected"), "{refused}");
    let (status, task) = post(&data, "/tasks", &json!({ "machine": id, "request": request, "wait": true }));
    assert_eq!((status, &task["state"]), (201, &json!("waiting")), "{task}");
    let task = task["id"].as_str().unwrap().to_owned();
    let resume = format!("/tasks/{task}/resume");
    let (status, early) = post(&data, &resume, &json!({}));
    assert_eq!(status, 409, "{early}");
    controller.stop();

    let controller = start(&data, counting(&begun));
    let state = || get(&data, &format!("/tasks/{task}"))["state"].as_str().unwrap().to_owned();
    assert_eq!(state(), "waiting");
    // Its own system is not what it waits for.
    agent.follow(controller.status());
    let live = agent.hello().unwrap();
    assert_eq!(receive(&live), ControllerMessage::Approved);
    report(&live, &machine("B5BRN12"));
    eventually("it is live", || shown(&data, &id)["state"] == "ready");
    assert_eq!(state(), "waiting");
    drop(live);

    // Another machine is not either.
    let (_other, _) = Agent::new(controller.status()).enrol(&data, &other_machine("ANOTHER-MACHINE"));
    assert_eq!(state(), "waiting");
    let (connection, same) = Agent::new(controller.status()).enrol(&data, &machine("B5BRN12"));
    assert_eq!(same, id, "the same hardware with another key");
    eventually("it was found", || state() == "unconfirmed");
    let ControllerMessage::Show { text } = receive(&connection) else { panic!("the machine is not told") };
    assert!(text.contains(&format!("vconverter tasks resume {task}")), "{text}");
    drop(connection);
    eventually("it waits again", || state() == "waiting");

    let (connection, _) = Agent::new(controller.status()).enrol(&data, &machine("B5BRN12"));
    eventually("it was found again", || state() == "unconfirmed");
    send(&connection, &AgentMessage::Heartbeat { sequence: 1 });
    assert_eq!(begun.load(Ordering::SeqCst), 0, "not before the yes");
    let (status, resumed) = post(&data, &resume, &json!({}));
    assert_eq!(status, 200, "{resumed}");
    eventually("it is done", || state() == "done");
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    assert_eq!(post(&data, &resume, &json!({})).0, 409, "once");
    let audit = get(&data, "/audit");
    let actions: Vec<&str> = audit
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["subject"] == task.as_str())
        .filter_map(|line| line["action"].as_str())
        .collect();
    let found = "task found its machine";
    assert_eq!(actions, ["task confirmed", found, found, "task created"]);
    controller.stop();
}

#[test]
fn a_machine_that_is_there_is_not_waited_for() {
    let (folder, data) = folder();
    let begun = Arc::new(AtomicUsize::new(0));
    let controller = start(&data, counting(&begun));
    let (_connection, id) = Agent::new(controller.status()).enrol(&data, &machine("B5BRN12"));
    let request = json!({ "name": "web1", "output": folder.path() });
    let (status, task) = post(&data, "/tasks", &json!({ "machine": id, "request": request, "wait": true }));
    assert_eq!(status, 201, "{task}");
    eventually("it was begun", || begun.load(Ordering::SeqCst) == 1);
    controller.stop();
}
