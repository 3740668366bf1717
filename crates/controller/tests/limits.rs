//! How much runs at once and how fast, and settings that come from profiles.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use controller::Controller;
use conversion::{Cancel, Observer, Source, StreamMode, StreamRequest};
use machine::ByteOffset;
use protocol::Connection;
use protocol::message::ControllerMessage;
use serde_json::{Value, json};
use support::*;

struct Site {
    folder: tempfile::TempDir,
    data: PathBuf,
    machine: String,
    agent: Agent,
    connection: Connection,
    _controller: Controller,
}

impl Site {
    fn start(converter: Arc<dyn controller::tasks::Converter>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let controller = start(&data, converter);
        let agent = Agent::new(controller.status());
        let (connection, machine) = agent.enrol(&data, &machine("B5BRN12"));
        Self { folder, data, machine, agent, connection, _controller: controller }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, answer) = http(&self.data, method, path, &body.to_string());
        (status, answer)
    }

    fn convert(&self, request: Value, more: Value) -> (u16, Value) {
        let mut body = json!({ "machine": self.machine, "request": request });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ask("POST", "/tasks", &body)
    }

    fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, &body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }
}

/// A conversion that works until it is cancelled, and counts those at work.
fn working(at_work: &Arc<AtomicUsize>) -> Arc<dyn controller::tasks::Converter> {
    let at_work = Arc::clone(at_work);
    Arc::new(Fake(move |_, _: &dyn Observer, cancel: &Cancel| {
        at_work.fetch_add(1, Ordering::SeqCst);
        while !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(10));
        }
        at_work.fetch_sub(1, Ordering::SeqCst);
        Err(cancel.check().unwrap_err())
    }))
}

#[test]
fn no_more_tasks_run_than_are_allowed_and_a_higher_limit_counts_at_once() {
    let at_work = Arc::default();
    let site = Site::start(working(&at_work));
    assert_eq!(get(&site.data, "/limits"), json!({ "running": 4, "bytes_per_second": null, "windows": [] }));
    site.ok("PUT", "/limits", json!({ "running": 2 }));
    for number in 0..5 {
        let (status, task) =
            site.convert(json!({ "name": format!("vm{number}"), "output": site.folder.path() }), json!({}));
        assert_eq!(status, 201, "{task}");
    }
    let running = || at_work.load(Ordering::SeqCst);
    let count = |state: &str| list(&site.data, &format!("/tasks?search={state}")).as_array().unwrap().len();
    eventually("two work", || running() == 2);
    assert_eq!((count("running"), count("queued")), (2, 3));
    site.ok("PUT", "/limits", json!({ "running": 3 }));
    eventually("three work", || running() == 3);
    site.ok("PUT", "/limits", json!({ "running": 1 }));
    assert_eq!(running(), 3, "what runs goes on");
    for wrong in [
        json!({ "running": 0 }),
        json!({ "running": 65 }),
        json!({ "running": 4, "bytes_per_second": 0 }),
        json!({ "running": 4, "windows": [{ "window": "whenever", "bytes_per_second": 1 }] }),
        json!({ "running": 4, "colour": "red" }),
    ] {
        assert_eq!(site.ask("PUT", "/limits", &wrong).0, 422, "{wrong}");
    }
    assert_eq!(get(&site.data, "/limits")["running"], 1);
}

/// A conversion that reads one stream of its source, and says how long that took.
fn reading() -> Arc<dyn controller::tasks::Converter> {
    Arc::new(Fake(|source: Source, _: &dyn Observer, cancel: &Cancel| {
        let Source::Remote(remote) = source else { panic!("a local source") };
        let mode = StreamMode::Data { skip_unreadable: false };
        let mut stream = remote.open_stream(&StreamRequest::whole(0, mode, ByteOffset(0)), cancel)?;
        let (start, mut bytes) = (Instant::now(), 0);
        let mut buffer = vec![0; 64 << 10];
        loop {
            cancel.check()?;
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(json!({ "bytes": bytes, "seconds": start.elapsed().as_secs_f64() })),
                Ok(count) => bytes += count,
                Err(e) => return Err(conversion::Error::because(conversion::ErrorKind::Source, "stream", e)),
            }
        }
    }))
}

#[test]
fn what_comes_in_keeps_to_the_rate_of_its_task_and_of_all_and_to_changes() {
    let site = Site::start(reading());
    let request = json!({ "name": "vm", "output": site.folder.path(), "bytes_per_second": 1_000_000 });
    let (_, task) = site.convert(request, json!({}));
    let id = task["id"].as_str().unwrap();
    assert_eq!(task["bytes_per_second"], 1_000_000);
    let ControllerMessage::ServeDisk(serve) = receive(&site.connection) else { panic!("not asked for a disk") };
    let stream = site.agent.open_stream(serve.stream).unwrap();
    let sender = std::thread::spawn(move || {
        for _ in 0..80 {
            (&stream).write_all(&[7; 50_000]).unwrap();
        }
        stream.finish();
    });
    std::thread::sleep(Duration::from_millis(500));
    // From here on all together may bring half of it, and then as much as they like.
    site.ok("PUT", "/limits", json!({ "running": 4, "bytes_per_second": 500_000 }));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(get(&site.data, &format!("/tasks/{id}"))["state"], "running");
    site.ok("PUT", "/limits", json!({ "running": 4 }));
    let changed = site.ok("POST", &format!("/tasks/{id}/bandwidth"), json!({ "bytes_per_second": 2_000_000 }));
    assert_eq!(changed["bytes_per_second"], 2_000_000);
    sender.join().unwrap();
    eventually("it is done", || get(&site.data, &format!("/tasks/{id}"))["state"] == "done");
    let outcome = &get(&site.data, &format!("/tasks/{id}"))["outcome"];
    println!("4,000,000 bytes at 1 MB/s, then 0.5, then 2: {outcome}");
    assert_eq!(outcome["bytes"], 4_000_000);
    // 0.5 MB, 1 MB, and the rest at 2 MB/s: not before 3.6 s, however idle this machine is.
    assert!(outcome["seconds"].as_f64().unwrap() > 3.4, "{outcome}");
    assert_eq!(site.ask("POST", &format!("/tasks/{id}/bandwidth"), &json!({ "bytes_per_second": null })).0, 409);
}

#[test]
fn profiles_are_copied_into_tasks_and_reach_them_no_more() {
    let at_work = Arc::default();
    let site = Site::start(working(&at_work));
    let output = site.folder.path();
    let (status, problem) = site.convert(json!({ "name": "a" }), json!({}));
    println!("{problem}");
    assert_eq!(status, 422, "nobody names an output folder");

    let (status, problem) = site.ask("PUT", "/profiles/still", &json!({ "settings": { "bytes_per_second": 0 } }));
    assert!(status == 422 && problem["detail"].as_str().unwrap().contains("pause it instead"), "{problem}");
    let nightly = json!({ "output": output, "verify": true, "format": "raw", "windows": ["daily 01:00-01:01 UTC"] });
    site.ok("PUT", "/profiles/nightly", json!({ "settings": nightly }));
    site.ok(
        "PUT",
        "/profiles/standard",
        json!({ "settings": { "output": output, "proof_time_s": 60 }, "is_default": true }),
    );
    let (status, task) = site.convert(json!({ "name": "a", "verify": false }), json!({ "profile": "nightly" }));
    assert_eq!(status, 201, "{task}");
    assert_eq!(
        (&task["request"]["verify"], &task["request"]["format"]),
        (&json!(false), &json!("raw")),
        "the request counts"
    );
    assert_eq!(
        (&task["state"], &task["schedule"]["windows"]),
        (&json!("scheduled"), &json!(["daily 01:00-01:01 UTC"]))
    );
    let (_, standard) = site.convert(json!({ "name": "b" }), json!({}));
    assert_eq!(standard["request"]["proof_time_s"], 60, "the default profile");
    let (_, plain) = site.convert(json!({ "name": "c", "output": output }), json!({ "profile": "none" }));
    assert_eq!(plain["request"]["proof_time_s"], Value::Null);

    site.ok("PUT", "/profiles/standard", json!({ "settings": { "output": output, "proof_time_s": 90 } }));
    let id = standard["id"].as_str().unwrap();
    assert_eq!(get(&site.data, &format!("/tasks/{id}"))["request"]["proof_time_s"], 60, "later edits do not reach it");
    assert_eq!(site.convert(json!({ "name": "d" }), json!({})).0, 422, "no profile is the default any more");
    assert_eq!(site.convert(json!({ "name": "d" }), json!({ "profile": "weekly" })).0, 404);

    site.ok("PUT", "/profiles/nightly", json!({ "settings": nightly, "is_default": true }));
    site.ok("PUT", "/profiles/standard", json!({ "settings": {}, "is_default": true }));
    let defaults: Vec<Value> = get(&site.data, "/profiles").as_array().unwrap().clone();
    let defaults: Vec<_> =
        defaults.iter().filter(|one| one["is_default"] == true).map(|one| one["name"].clone()).collect();
    assert_eq!(defaults, ["standard"], "there is one");
    site.ok("DELETE", "/profiles/nightly", json!({}));
    assert_eq!(site.ask("DELETE", "/profiles/nightly", &json!({})).0, 404);
    for wrong in ["/profiles/none", "/profiles/%20", "/profiles/a%0Ab"] {
        assert_eq!(site.ask("PUT", wrong, &json!({ "settings": {} })).0, 422, "{wrong}");
    }
}

#[test]
fn what_can_be_known_of_a_conversion_is_told_before_it_is_asked_for() {
    let site = Site::start(working(&Arc::default()));
    let request = json!({ "name": "vm", "output": site.folder.path() });
    let body = json!({ "conversions": [{ "machine": site.machine, "request": request }] });
    let report = site.ok("POST", "/preflight", body.clone());
    let rules = |report: &Value, severity: &str| -> Vec<String> {
        let findings = report[0]["findings"].as_array().unwrap().iter();
        let findings = findings.filter(|finding| finding["severity"] == severity && finding["rule"] != "programs");
        findings.map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect()
    };
    println!("{report}");
    assert_eq!((rules(&report, "blocker"), rules(&report, "warning")), (vec![], vec!["guest".to_owned()]));
    assert!(report[0]["free_bytes"].as_u64().unwrap() > 0);
    assert!(list(&site.data, "/tasks").as_array().unwrap().is_empty(), "nothing was asked for");

    let (_, task) = site.convert(request, json!({}));
    let id = task["id"].as_str().unwrap();
    let warned =
        || get(&site.data, &format!("/tasks/{id}/log")).to_string().contains("no operating system was recognised");
    eventually("the task's log says it too", warned);
    assert_eq!(rules(&site.ok("POST", "/preflight", body), "blocker"), ["name"], "a task makes it already");
    let request = json!({ "name": "vm", "output": "/nowhere" });
    let body = json!({ "conversions": [{ "machine": site.machine, "request": request }] });
    assert_eq!(rules(&site.ok("POST", "/preflight", body), "blocker"), ["output"]);
}
