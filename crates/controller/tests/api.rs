//! The API as programs see it: its document, lists in pages, and events.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::*;

/// The document is part of the repository, so that a change of the API is seen in review and the console's types are made
/// of it. `UPDATE_GOLDEN=1` writes it anew.
#[test]
fn the_document_is_the_one_in_the_repository() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let _controller = start(&data, nothing());
    let document = get(&data, "/openapi.json");
    assert_eq!(document["openapi"].as_str().unwrap().split('.').take(2).collect::<Vec<_>>(), ["3", "1"]);
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&golden).unwrap_or_default() == text,
        "{} is not what the controller serves: look at it with UPDATE_GOLDEN=1",
        golden.display()
    );
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let told = (operation["operationId"].as_str(), operation["summary"].as_str(), operation["x-role"].as_str());
            let (Some(id), Some(summary), Some(role)) = told else { panic!("{method} {path}: {operation}") };
            println!("{role:13} {:6} {path:40} {id}: {summary}", method.to_uppercase());
            assert_eq!(
                operation["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"],
                "#/components/schemas/Problem",
                "{method} {path}"
            );
        }
    }
}

/// A controller that knows `count` machines, and an output folder.
fn site(count: usize) -> (tempfile::TempDir, PathBuf, controller::Controller, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let controller = start(&data, nothing());
    let serial = |number: usize| "S".repeat(number + 1);
    let ids = (0..count).map(|number| Agent::new(controller.status()).enrol(&data, &machine(&serial(number))).1);
    let ids = ids.collect();
    (folder, data, controller, ids)
}

#[test]
fn lists_come_in_pages_that_hold_each_item_once_and_are_searched() {
    let (folder, data, _controller, mut ids) = site(5);
    let waiting = Agent::new(_controller.status()).hello().unwrap();
    pair(&waiting);
    eventually("it waits", || list(&data, "/machines")[0]["state"] == "waiting-for-approval");
    let (mut seen, mut path, mut pages) = (Vec::new(), "/machines?limit=2".to_owned(), 0);
    loop {
        let page = get(&data, &path);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|item| item["id"].as_str().unwrap_or("waiting").to_owned()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/machines?limit=2&after={next}");
    }
    ids.sort();
    let expected: Vec<String> = std::iter::once("waiting".to_owned()).chain(ids.iter().cloned()).collect();
    assert_eq!((seen, pages), (expected, 3));
    let found = |search: &str| list(&data, &format!("/machines?search={search}")).as_array().unwrap().len();
    assert_eq!((found("ssss"), found("SSSSS"), found("phys-a"), found("%25"), found("raw")), (2, 1, 1, 0, 0));
    assert_eq!(found(&ids[0]), 1);

    for (number, id) in ids.iter().enumerate() {
        let request = json!({ "name": format!("vm{number}"), "output": folder.path() });
        let body = json!({ "machine": id, "request": request, "wait": true }).to_string();
        assert_eq!(http(&data, "POST", "/tasks", &body).0, 201);
    }
    let first = get(&data, "/tasks?limit=3");
    let next = first["next"].as_str().unwrap();
    let second = get(&data, &format!("/tasks?limit=3&after={next}"));
    let names = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|task| task["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (names(&first), names(&second)),
        (["vm4", "vm3", "vm2"].map(String::from).into(), ["vm1", "vm0"].map(String::from).into())
    );
    assert_eq!(second["next"], Value::Null);
    assert_eq!(names(&get(&data, "/tasks?search=vm3")), ["vm3"]);
    for wrong in ["/tasks?limit=many", "/tasks?order=name", "/machines?limit=-1"] {
        assert_eq!(http(&data, "GET", wrong, "").0, 400, "{wrong}");
    }
}

#[test]
fn machines_and_tasks_are_told_as_they_change() {
    let (folder, data, controller, ids) = site(1);
    let mut events = events(&data);
    assert_eq!(events.next().unwrap().0, "resync", "the lists are to be read now");
    let body = json!({ "machine": ids[0], "request": { "name": "vm", "output": folder.path() }, "wait": true });
    let (_, _, task) = http(&data, "POST", "/tasks", &body.to_string());
    let (event, told) = events.find(|(event, _)| event == "task").unwrap();
    println!("{event}: {} is {}", told["id"], told["state"]);
    assert_eq!(told["id"], task["id"]);

    let agent = Agent::new(controller.status());
    let connection = agent.hello().unwrap();
    let code = pair(&connection);
    let (_, waits) =
        events.find(|(event, told)| event == "machine" && told["state"] == "waiting-for-approval").unwrap();
    assert_eq!(waits["id"], Value::Null);
    let approval = approve(&data, &code);
    receive(&connection);
    report(&connection, &machine("SS"));
    approval.join().unwrap();
    let (_, gone) = events.find(|(event, _)| event == "machine-gone").unwrap();
    assert_eq!(gone["key"], waits["key"]);
    let (_, known) = events.find(|(event, told)| event == "machine" && told["state"] == "ready").unwrap();
    drop(connection);
    let (_, offline) = events
        .find(|(event, told)| event == "machine" && told["id"] == known["id"] && told["state"] == "offline")
        .unwrap();
    println!("{} was told to wait, to be ready and to be gone", offline["id"]);
    controller.stop();
}

#[test]
fn two_hundred_readers_of_events_are_served() {
    let (folder, data, _controller, ids) = site(1);
    let mut readers: Vec<_> = (0..200).map(|_| events(&data)).collect();
    for reader in &mut readers {
        assert_eq!(reader.next().unwrap().0, "resync");
    }
    let body = json!({ "machine": ids[0], "request": { "name": "vm", "output": folder.path() }, "wait": true });
    assert_eq!(http(&data, "POST", "/tasks", &body.to_string()).0, 201);
    for reader in &mut readers {
        let (_, told) = reader.find(|(event, _)| event == "task").unwrap();
        assert_eq!(told["name"], "vm");
    }
}
