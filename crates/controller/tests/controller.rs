//! A running controller, with agents made of `protocol` on its port and a plain HTTP client on its socket.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use controller::ErrorKind;
use conversion::{Cancel, CopyProgress, Event, Observer, Source, Step, StreamMode, StreamRequest};
use machine::{ByteCount, ByteOffset};
use protocol::message::{AgentMessage, Bytes32, ControllerMessage, StreamToken};
use serde_json::{Value, json};

use support::*;

/// A data directory inside a folder that serves as output.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    (folder, data)
}

/// A controller with one machine that is ready.
struct Site {
    folder: tempfile::TempDir,
    data: PathBuf,
    controller: controller::Controller,
    agent: Agent,
    connection: protocol::Connection,
    machine: String,
}

impl Site {
    fn start(converter: Arc<dyn controller::tasks::Converter>) -> Self {
        let (folder, data) = folder();
        let controller = start(&data, converter);
        let agent = Agent::new(controller.status());
        let (connection, machine) = agent.enrol(&data, &machine("B5BRN12"));
        Self { folder, data, controller, agent, connection, machine }
    }

    fn get(&self, path: &str) -> Value {
        get(&self.data, path)
    }

    fn post(&self, path: &str, body: &Value) -> (u16, String, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http(&self.data, "POST", path, &body)
    }

    /// Asks for a conversion of the machine: status and answer.
    fn convert(&self, name: &str) -> (u16, Value) {
        let request = json!({ "name": name, "output": self.folder.path() });
        let (status, _, answer) = self.post("/tasks", &json!({ "machine": self.machine, "request": request }));
        (status, answer)
    }

    /// The id of a task that was begun.
    fn task(&self) -> String {
        let (status, task) = self.convert("web1");
        assert_eq!(status, 201, "{task}");
        task["id"].as_str().unwrap().to_owned()
    }

    fn is(&self, task: &str, state: &str) {
        eventually(&format!("the task is {state}"), || self.get(&format!("/tasks/{task}"))["state"] == state);
    }
}

#[test]
fn a_machine_pairs_is_approved_reports_and_is_known_by_its_key_from_then_on() {
    let (_folder, data) = folder();
    let controller = start(&data, nothing());
    let mut agent = Agent::new(controller.status());
    let (connection, id) = agent.enrol(&data, &machine("B5BRN12"));
    send(&connection, &AgentMessage::Heartbeat { sequence: 7 });
    assert_eq!(receive(&connection), ControllerMessage::HeartbeatAck { sequence: 7 });
    let shown = get(&data, &format!("/machines/{id}"));
    assert_eq!((&shown["state"], &shown["cold_cloning_ready"]), (&json!("ready"), &json!(true)));
    assert_eq!(shown["report"]["smbios"]["serial"], "B5BRN12");

    drop(connection);
    eventually("the machine is offline", || get(&data, &format!("/machines/{id}"))["state"] == "offline");
    controller.stop();
    let controller = start(&data, nothing());
    agent.follow(controller.status());
    let again = agent.hello().unwrap();
    assert_eq!(receive(&again), ControllerMessage::Approved, "no second pairing");
    report(&again, &machine("B5BRN12"));
    eventually("the machine is ready", || get(&data, &format!("/machines/{id}"))["state"] == "ready");

    let rebooted = Agent::new(controller.status());
    let (_connection, same) = rebooted.enrol(&data, &machine("B5BRN12"));
    assert_eq!(same, id, "another key of the same machine is the same record");
    assert_eq!(list(&data, "/machines").as_array().unwrap().len(), 1);
}

#[test]
fn five_wrong_codes_close_the_session_and_are_audited() {
    let (_folder, data) = folder();
    let controller = start(&data, nothing());
    let connection = Agent::new(controller.status()).hello().unwrap();
    let code = pair(&connection);
    eventually("the machine waits", || list(&data, "/machines")[0]["state"] == "waiting-for-approval");
    let (status, _, problem) = approve(&data, "no code at all").join().unwrap();
    assert_eq!((status, &problem["kind"]), (422, &json!("invalid")), "a text that is no code counts nothing");
    let wrong = if code == "0000-0000" { "1111-1111" } else { "0000-0000" };
    for _ in 0..5 {
        let (status, content_type, problem) = approve(&data, wrong).join().unwrap();
        assert_eq!((status, content_type.as_str()), (404, "application/problem+json"), "{problem}");
    }
    assert!(matches!(receive(&connection), ControllerMessage::Denied { .. }));
    assert!(is_closed(&connection));
    let (status, _, problem) = approve(&data, &code).join().unwrap();
    assert_eq!(status, 404, "the right code comes too late: {problem}");
    let audit = get(&data, "/audit");
    let wrong = audit.as_array().unwrap().iter().filter(|line| line["action"] == "wrong pairing code").count();
    assert_eq!(wrong, 6);
    assert_eq!(list(&data, "/machines"), json!([]));
}

#[test]
fn a_machine_that_is_not_approved_can_do_nothing_but_wait() {
    let (_folder, data) = folder();
    let controller = start(&data, nothing());
    let agent = Agent::new(controller.status());
    let connection = agent.hello().unwrap();
    pair(&connection);
    send(&connection, &AgentMessage::Heartbeat { sequence: 1 });
    assert_eq!(receive(&connection), ControllerMessage::HeartbeatAck { sequence: 1 });
    let refused = agent.open_stream(StreamToken::random().unwrap()).unwrap_err();
    assert_eq!(refused.kind, protocol::ErrorKind::Refused);
    report(&connection, &machine("B5BRN12"));
    assert!(is_closed(&connection));
    eventually("nothing is kept", || list(&data, "/machines") == json!([]));

    let chatty = Agent::new(controller.status()).hello().unwrap();
    pair(&chatty);
    for sequence in 0..200 {
        let heartbeat = AgentMessage::Heartbeat { sequence };
        if protocol::message::write_message(&chatty, &heartbeat).is_err() {
            break;
        }
    }
    assert!(is_closed(&chatty), "a flood is cut");
}

#[test]
fn a_second_session_with_one_key_is_refused_and_audited_once() {
    let mut site = Site::start(nothing());
    let agent = &mut site.agent;
    let instance = std::mem::replace(&mut agent.instance, Bytes32([9; 32]));
    for _ in 0..3 {
        assert_eq!(agent.hello().unwrap_err().kind, protocol::ErrorKind::Refused);
    }
    let audit = get(&site.data, "/audit");
    let refused = audit.as_array().unwrap().iter().filter(|line| line["action"] == "second session refused").count();
    assert_eq!(refused, 1);
    send(&site.connection, &AgentMessage::Heartbeat { sequence: 1 });
    assert_eq!(receive(&site.connection), ControllerMessage::HeartbeatAck { sequence: 1 });

    agent.instance = instance;
    let after_a_cut_link = agent.hello().unwrap();
    assert_eq!(receive(&after_a_cut_link), ControllerMessage::Approved);
    assert!(is_closed(&site.connection));
    report(&after_a_cut_link, &machine("B5BRN12"));
    eventually("the new session is the machine's", || {
        site.get(&format!("/machines/{}", site.machine))["state"] == "ready"
    });
}

#[test]
fn a_key_on_another_machine_is_denied() {
    let site = Site::start(nothing());
    report(&site.connection, &machine("A-CLONE-WITH-THE-AGENT'S-KEY"));
    assert!(matches!(receive(&site.connection), ControllerMessage::Denied { .. }));
    assert!(is_closed(&site.connection));
    assert_eq!(site.get("/machines")["items"].as_array().unwrap().len(), 1);
}

/// Opens one stream and returns what it carries as text.
#[test]
fn a_forgotten_machine_is_cut_off_and_its_key_gets_nowhere_any_more() {
    let (_folder, data) = folder();
    let controller = start(&data, nothing());
    let agent = Agent::new(controller.status());
    let (connection, id) = agent.enrol(&data, &machine("S1"));
    let (status, _, answer) = http(&data, "DELETE", &format!("/machines/{id}"), "");
    assert_eq!((status, answer["keys"].as_array().unwrap().len()), (200, 1), "{answer}");
    assert!(is_closed(&connection));
    let (status, _, _) = http(&data, "DELETE", &format!("/machines/{id}"), "");
    assert_eq!(status, 404);
    let Err(refused) = agent.hello() else { panic!("a revoked key is let in") };
    println!("{refused}");
    assert!(refused.to_string().contains("revoked"), "{refused}");
    assert_eq!(list(&data, "/machines").as_array().unwrap().len(), 0);

    let (_, another) = Agent::new(controller.status()).enrol(&data, &machine("S1"));
    assert_ne!(another, id, "with another key it is approved anew");
    assert_eq!(
        get(&data, "/audit?limit=9").as_array().unwrap().iter().filter(|l| l["action"] == "machine forgotten").count(),
        1
    );
}

fn read_a_stream(source: &Source, cancel: &Cancel) -> conversion::Result<Value> {
    let Source::Remote(remote) = source else { panic!("a task has a remote source") };
    assert_eq!(remote.machine().disks.len(), 1);
    let wish = StreamRequest::whole(0, StreamMode::Data { skip_unreadable: false }, ByteOffset(4096));
    let mut stream = remote.open_stream(&wish, cancel)?;
    let mut text = String::new();
    let failed = |e| conversion::Error::because(conversion::ErrorKind::Source, "stream", e);
    stream.read_to_string(&mut text).map_err(failed)?;
    Ok(json!({ "read": text }))
}

/// A conversion that reads one stream of its source.
fn streaming() -> Arc<dyn controller::tasks::Converter> {
    Arc::new(Fake(|source, _: &dyn Observer, cancel: &Cancel| read_a_stream(&source, cancel)))
}

#[test]
fn a_stream_token_is_good_once_and_for_one_key() {
    let site = Site::start(streaming());
    let agent = &site.agent;
    let thief = Agent::new(site.controller.status());
    let (_thief_connection, _) = thief.enrol(&site.data, &machine("ANOTHER-MACHINE"));

    let task = site.task();
    let ControllerMessage::ServeDisk(serve) = receive(&site.connection) else { panic!("not asked for a disk") };
    assert_eq!((serve.task.as_str(), serve.disk.size), (task.as_str(), ByteCount::gib(1)));
    assert_eq!(serve.disk.identity.serial.as_deref(), Some("DISK-B5BRN12"));
    assert!(
        matches!(serve.mode, protocol::message::StreamMode::Data { resume: ByteOffset(4096), .. }),
        "{:?}",
        serve.mode
    );
    assert_eq!(thief.open_stream(serve.stream).unwrap_err().kind, protocol::ErrorKind::Refused);
    let stream = agent.open_stream(serve.stream).unwrap();
    assert_eq!(agent.open_stream(serve.stream).unwrap_err().kind, protocol::ErrorKind::Refused);
    (&stream).write_all(b"the disk").unwrap();
    stream.finish();
    site.is(&task, "done");
    assert_eq!(site.get(&format!("/tasks/{task}"))["outcome"], json!({ "read": "the disk" }));
    assert!(matches!(receive(&site.connection), ControllerMessage::Finish { .. }));
    assert_eq!(agent.open_stream(serve.stream).unwrap_err().kind, protocol::ErrorKind::Refused);
}

#[test]
fn a_stream_waits_for_a_machine_whose_link_was_cut() {
    let site = Site::start(streaming());
    let agent = &site.agent;
    let task = site.task();
    assert!(matches!(receive(&site.connection), ControllerMessage::ServeDisk(_)));
    site.connection.abort();

    let again = agent.hello().unwrap();
    assert_eq!(receive(&again), ControllerMessage::Approved);
    report(&again, &machine("B5BRN12"));
    let ControllerMessage::ServeDisk(serve) = receive(&again) else { panic!("not asked again") };
    let stream = agent.open_stream(serve.stream).unwrap();
    (&stream).write_all(b"at last").unwrap();
    stream.finish();
    site.is(&task, "done");
    assert_eq!(site.get(&format!("/tasks/{task}"))["outcome"], json!({ "read": "at last" }));
}

#[test]
fn an_agent_that_cannot_serve_a_disk_fails_the_task_with_its_reason() {
    let site = Site::start(streaming());
    let task = site.task();
    for _ in 0..3 {
        let ControllerMessage::ServeDisk(serve) = receive(&site.connection) else { panic!("not asked for a disk") };
        let reason = "the disk is locked\u{1b}[2J by its controller".to_owned();
        send(&site.connection, &AgentMessage::StreamFailed { stream: serve.stream, reason });
    }
    site.is(&task, "failed");
    let error = site.get(&format!("/tasks/{task}"))["error"].as_str().unwrap().to_owned();
    assert!(error.contains("/dev/sda: the disk is locked[2J by its controller"), "{error}");
    assert!(matches!(receive(&site.connection), ControllerMessage::Show { .. }));
}

/// A conversion that waits to be told to go on, counting how often it was begun.
fn patient(begun: Arc<AtomicUsize>, go_on: mpsc::Receiver<()>) -> Arc<dyn controller::tasks::Converter> {
    let go_on = Mutex::new(go_on);
    Arc::new(Fake(move |_, observer: &dyn Observer, cancel: &Cancel| {
        begun.fetch_add(1, Ordering::SeqCst);
        observer.event(Event::Step { step: Step::Copy });
        let progress =
            CopyProgress { done: ByteCount(25), total: ByteCount(100), sent: ByteCount(7), ..CopyProgress::default() };
        observer.event(Event::Progress { step: Step::Copy, progress });
        observer.event(Event::Warning { message: "the clock stands in the year 2000".into() });
        loop {
            cancel.check()?;
            match go_on.lock().unwrap().recv_timeout(std::time::Duration::from_millis(20)) {
                Ok(()) => return Ok(json!({ "made": true })),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            }
        }
    }))
}

#[test]
fn a_running_task_goes_on_with_the_next_controller() {
    let begun = Arc::new(AtomicUsize::new(0));
    let (_never, go_on) = mpsc::channel();
    let site = Site::start(patient(begun.clone(), go_on));
    let task = site.task();
    eventually("the task copies", || {
        let shown = site.get(&format!("/tasks/{task}"));
        (&shown["state"], &shown["step"], &shown["progress"]["done"]) == (&json!("running"), &json!("copy"), &json!(25))
    });
    let Site { folder: _folder, data, controller, .. } = site;
    controller.stop();

    let (told, go_on) = mpsc::channel();
    let controller = start(&data, patient(begun.clone(), go_on));
    eventually("the task was begun again", || begun.load(Ordering::SeqCst) == 2);
    told.send(()).unwrap();
    eventually("the task is done", || get(&data, &format!("/tasks/{task}"))["state"] == "done");
    let log = get(&data, &format!("/tasks/{task}/log"));
    let messages: Vec<&str> = log.as_array().unwrap().iter().filter_map(|line| line["message"].as_str()).collect();
    assert!(messages.contains(&"the controller was started again: going on"), "{messages:?}");
    assert!(messages.contains(&"the clock stands in the year 2000"), "{messages:?}");
    let last = log.as_array().unwrap().last().unwrap();
    assert_eq!(get(&data, &format!("/tasks/{task}/log?after={}", last["id"])), json!([]));
    controller.stop();
}

#[test]
fn a_task_is_cancelled_and_tried_again() {
    let begun = Arc::new(AtomicUsize::new(0));
    let (told, go_on) = mpsc::channel();
    let site = Site::start(patient(begun.clone(), go_on));
    let task = site.task();
    let (status, busy) = site.convert("web1");
    assert_eq!(status, 409, "{busy}");
    let (retry, cancel) = (format!("/tasks/{task}/retry"), format!("/tasks/{task}/cancel"));
    let ask = |path: &str| site.post(path, &Value::Null).0;
    assert_eq!(ask(&retry), 409, "it is not over");
    eventually("the task was begun", || begun.load(Ordering::SeqCst) == 1);
    assert_eq!(ask(&cancel), 200);
    site.is(&task, "cancelled");
    assert_eq!(ask(&cancel), 409);
    assert_eq!(ask(&retry), 200);
    told.send(()).unwrap();
    site.is(&task, "done");
    assert_eq!(begun.load(Ordering::SeqCst), 2);
}

#[test]
fn a_conversion_that_panics_fails_its_task_and_nothing_else() {
    let site = Site::start(Arc::new(Fake(|_, _: &dyn Observer, _: &Cancel| panic!("a broken invariant"))));
    let task = site.task();
    site.is(&task, "failed");
    site.get("/status");
}

#[test]
fn requests_that_cannot_be_are_refused_with_problems() {
    let Site { folder, data, machine: id, controller: _controller, connection: _connection, .. } =
        Site::start(nothing());
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    let absent = folder.path().join("absent");
    let task = |request: Value| json!({ "machine": id, "request": request }).to_string();
    let cases = [
        ("GET", "/nothing", String::new(), 404, "not-found"),
        ("DELETE", "/machines", String::new(), 405, "invalid"),
        ("GET", "/machines/m-00000000", String::new(), 404, "not-found"),
        ("GET", "/tasks/t-00000000/log", String::new(), 404, "not-found"),
        ("GET", "/audit?limit=many", String::new(), 400, "invalid"),
        ("POST", "/tasks", "{".to_owned(), 400, "invalid"),
        ("POST", "/tasks", json!({ "machine": id }).to_string(), 422, "invalid"),
        ("POST", "/tasks", task(json!({ "name": "vm", "output": "relative" })), 422, "invalid"),
        ("POST", "/tasks", task(json!({ "name": "vm", "output": absent })), 422, "invalid"),
        ("POST", "/tasks", task(json!({ "name": "../vm", "output": folder.path() })), 422, "invalid"),
        ("POST", "/tasks", task(json!({ "name": "taken", "output": folder.path() })), 409, "conflict"),
    ];
    for (method, path, body, expected, kind) in cases {
        let (status, content_type, problem) = http(&data, method, path, &body);
        let found = (status, content_type.as_str(), problem["kind"].as_str(), problem["status"].as_u64());
        let wanted = (expected, "application/problem+json", Some(kind), Some(u64::from(expected)));
        assert_eq!(found, wanted, "{method} {path}: {problem}");
        assert_eq!(problem["type"], "about:blank");
    }
    assert_eq!(list(&data, "/tasks"), json!([]));
}

#[test]
fn a_body_that_nothing_wants_and_that_comes_late_costs_nobody_the_answer() {
    let (_folder, data) = folder();
    let controller = start(&data, nothing());
    for (resource, status) in [("/tasks/t-00000000/resume", "404"), ("/nothing", "404"), ("/status", "405")] {
        let mut stream = std::os::unix::net::UnixStream::connect(data.join("controller.sock")).unwrap();
        let head = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n";
        stream.write_all(format!("POST /api/v1{resource} {head}").as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        stream.write_all(b"{}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
    }
    controller.stop();
}

#[test]
fn socket_and_keys_are_for_their_owner_only() {
    let (_folder, data) = folder();
    let controller = start(&data, nothing());
    let mut secrets = vec![data.join("controller.sock"), data.join("controller.db"), data.join("controller.lock")];
    secrets.extend(std::fs::read_dir(data.join("identity")).unwrap().map(|entry| entry.unwrap().path()));
    assert!(secrets.len() >= 5, "{secrets:?}");
    for secret in &secrets {
        assert_eq!(secret.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{secret:?}");
    }
    for folder in [data.clone(), data.join("identity")] {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{folder:?}");
    }
    controller.stop();
}

#[test]
fn a_dead_controllers_socket_is_replaced_and_a_living_controller_is_left_alone() {
    let (_folder, data) = folder();
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(data.join("controller.sock")).unwrap());
    let controller = start(&data, nothing());
    assert_eq!(get(&data, "/status")["pid"], std::process::id());
    let directory = controller::DataDirectory::new(&data);
    let config = controller::Config::new(directory, ([127, 0, 0, 1], 0).into(), nothing());
    let Err(error) = controller::Controller::start(config) else { panic!("two controllers in one data directory") };
    assert_eq!(error.kind, ErrorKind::Locked);
    assert_eq!(get(&data, "/status")["pid"], std::process::id());
    controller.stop();
}

/// The smallest kernel module that says these things of itself (ELF-64, sections: none, .modinfo, names).
fn module(strings: &[&str]) -> Vec<u8> {
    let modinfo: Vec<u8> = strings.iter().flat_map(|s| s.bytes().chain([0])).collect();
    let names = b"\0.modinfo\0.shstrtab\0";
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (bytes[0x10], bytes[0x12]) = (1, 62);
    let headers = (64 + modinfo.len() + names.len()) as u64;
    bytes[0x28..0x30].copy_from_slice(&headers.to_le_bytes());
    (bytes[0x3a], bytes[0x3c], bytes[0x3e]) = (64, 3, 2);
    bytes.extend(&modinfo);
    bytes.extend(names);
    for (name, offset, length) in [(0, 0, 0), (1, 64, modinfo.len()), (10, 64 + modinfo.len(), names.len())] {
        let mut section = [0; 64];
        section[0] = name;
        section[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
        section[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
        bytes.extend(section);
    }
    bytes
}

/// Puts bytes as they are; status and answer.
fn put(data: &std::path::Path, path: &str, body: &[u8]) -> (u16, Value) {
    let mut stream = std::os::unix::net::UnixStream::connect(data.join("controller.sock")).unwrap();
    let length = body.len();
    write!(stream, "PUT /api/v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")
        .unwrap();
    // One that is refused is not read to its end.
    let _ = stream.write_all(body);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn drivers_of_the_library_are_pushed_to_the_boot_image_and_its_answer_is_told() {
    let site = Site::start(nothing());
    let ours = module(&["name=raid", "vermagic=6.1.0 SMP", &format!("description={}", "x".repeat(60_000))]);
    let (status, added) = put(&site.data, "/drivers/raid.ko", &ours);
    assert_eq!((status, &added["modules"][0], &added["kernels"][0]), (200, &json!("raid"), &json!("6.1.0")), "{added}");
    let (status, _) = put(&site.data, "/drivers/other.ko", &module(&["name=other", "vermagic=6.12.1 SMP"]));
    assert_eq!(status, 200);
    assert_eq!(put(&site.data, "/drivers/text.ko", b"text").0, 422);
    assert_eq!(put(&site.data, "/drivers/..%2Fraid.ko", &ours).0, 400);
    let listed = site.get("/drivers");
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");

    // The machine has Linux 6.1.0: the other is not for it.
    let path = format!("/machines/{}/drivers", site.machine);
    let (data, asked) = (site.data.clone(), path.clone());
    let pushed = std::thread::spawn(move || http(&data, "POST", &asked, r#"{"names":[]}"#));
    let mut received = Vec::new();
    let push = loop {
        match receive(&site.connection) {
            ControllerMessage::DriverPiece(piece) => {
                assert_eq!((piece.name.as_str(), piece.offset), ("raid.ko", received.len() as u64));
                received.extend_from_slice(piece.content.bytes());
            }
            ControllerMessage::InstallDrivers { push } => break push,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(received, ours);
    let outcome = protocol::driver::DriverOutcome {
        name: "raid.ko".into(),
        installed: true,
        text: "raid is\u{1b} loaded".into(),
    };
    send(&site.connection, &AgentMessage::DriversInstalled { push: push + 1, outcomes: vec![] });
    send(&site.connection, &AgentMessage::DriversInstalled { push, outcomes: vec![outcome] });
    let (status, _, answer) = pushed.join().unwrap();
    assert_eq!((status, &answer[0]["text"]), (200, &json!("raid is loaded")), "{answer}");
    let audit = site.get("/audit?limit=1");
    assert_eq!((&audit[0]["action"], &audit[0]["detail"]), (&json!("drivers pushed"), &json!("raid.ko")), "{audit}");

    let (status, _, _) = site.post(&path, &json!({ "names": ["missing.ko"] }));
    assert_eq!(status, 404);
    let (status, _, left) = http(&site.data, "DELETE", "/drivers/raid.ko", "");
    assert_eq!((status, left.as_array().unwrap().len()), (200, 1));
    let (status, _, answer) = site.post(&path, &json!({ "names": [] }));
    assert_eq!(status, 404, "{answer}");
    drop(site.connection);
    eventually("the machine is offline", || list(&site.data, "/machines")[0]["state"] == "offline");
    let (status, _, answer) = http(&site.data, "POST", &path, r#"{"names":["other.ko"]}"#);
    assert_eq!(status, 409, "{answer}");
    site.controller.stop();
}
