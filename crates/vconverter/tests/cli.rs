//! The program as an operator and a script meet it: exit codes, one clear line for each error, and a controller that is
//! killed.
#![allow(clippy::unwrap_used)]

mod program;
#[path = "../../controller/tests/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use controller::api::Status;
use program::vconverter;
use protocol::message::ControllerMessage;
use serde_json::Value;

use support::{Agent, eventually, machine, receive, report};

fn run(data: &Path, arguments: &[&str]) -> Output {
    vconverter(data, arguments).output().unwrap()
}

/// Runs to a failure: exit code, and what was said on standard error.
fn fail(data: &Path, arguments: &[&str]) -> (i32, String) {
    let output = run(data, arguments);
    assert_eq!(output.stdout, b"", "{arguments:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn json(data: &Path, arguments: &[&str]) -> Value {
    let output = run(data, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `vconverter serve`, killed when the test is done with it.
struct Served {
    child: Child,
    status: Status,
}

impl Served {
    fn start(data: &Path) -> Self {
        let mut child = vconverter(data, &["serve", "--no-console", "--listen", "127.0.0.1:0", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, status: serde_json::from_str(&line).unwrap() }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    (folder, data)
}

#[test]
fn help_tells_the_exit_codes_and_shows_examples() {
    let (_folder, data) = folder();
    let help = run(&data, &["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("Exit codes:") && text.contains("vconverter machines approve"), "{text}");
    for command in ["serve", "machines", "convert", "tasks", "inspect", "config", "backup"] {
        let text = String::from_utf8(run(&data, &[command, "--help"]).stdout).unwrap();
        assert!(text.contains(&format!("vconverter {command}")) && text.contains("Example"), "{text}");
    }
}

#[test]
fn wrong_usage_is_2() {
    let (_folder, data) = folder();
    let cases: [&[&str]; 6] = [
        &[],
        &["convert", "/dev/null"],
        &["convert", "web1,web2", "-o", ".", "--name", "both"],
        &["convert", "disk.img", "-o", ".", "--format", "vmdk"],
        &["serve", "--no-console", "--listen", "everywhere"],
        &["boot-image", "build", "--output", "b", "--gateway", "192.0.2.1"],
    ];
    for arguments in cases {
        assert_eq!(run(&data, arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert!(!data.exists());
}

#[test]
fn a_source_that_is_not_there_is_3() {
    let (folder, data) = folder();
    let missing = folder.path().join("absent.img");
    let missing = missing.to_str().unwrap();
    for arguments in [vec!["inspect", missing], vec!["convert", missing, "-o", "."]] {
        let (code, message) = fail(&data, &arguments);
        assert_eq!(code, 3, "{message}");
        assert!(message.contains("absent.img: No such file"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn a_folder_is_no_disk() {
    let (folder, data) = folder();
    let (code, message) = fail(&data, &["inspect", folder.path().to_str().unwrap()]);
    assert!(code == 1 || code == 4, "{code} {message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn inspect_keeps_its_contract_for_a_disk_of_unknown_contents() {
    let (folder, data) = folder();
    let disk = folder.path().join("disk.img");
    std::fs::write(&disk, vec![0xa5; 1 << 20]).unwrap();
    let shown = json(&data, &["inspect", disk.to_str().unwrap(), "--json"]);
    let inspected = &shown["disks"][0];
    assert_eq!((&inspected["format"], &inspected["virtual_size"]), (&"raw".into(), &(1 << 20).into()));
    assert_eq!((&inspected["partition_table"], &inspected["logical_sector_size"]), (&"none".into(), &512.into()));
    assert!(inspected["volumes"].is_array());
    assert_eq!((&shown["firmware"], &shown["guest"]["family"]), (&"unknown".into(), &"unknown".into()));
    let text = run(&data, &["inspect", disk.to_str().unwrap()]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("no partition table"));
}

#[test]
fn without_a_controller_its_commands_say_so_with_5() {
    let (_folder, data) = folder();
    for arguments in [vec!["machines"], vec!["tasks"], vec!["machines", "approve", "0000-0000"]] {
        let (code, message) = fail(&data, &arguments);
        assert_eq!(code, 5, "{message}");
        assert!(message.contains("vconverter serve") && message.lines().count() == 1, "{message}");
    }
    let (code, message) = fail(&data, &["convert", "web1", "--name", "web1", "-o", "."]);
    assert_eq!(code, 5);
    assert!(message.contains("web1 is no file or block device here, so it must be a machine"), "{message}");
    assert!(!data.exists(), "asking makes nothing");
}

#[test]
fn a_controller_that_cannot_start_says_why() {
    let (folder, data) = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (code, message) = fail(&file.join("data"), &["serve", "--no-console", "--listen", "127.0.0.1:0"]);
    assert!(code == 1 && message.contains("data directory"), "{code} {message}");

    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o777)).unwrap();
    let (code, message) = fail(&data, &["serve", "--no-console", "--listen", "127.0.0.1:0"]);
    assert!(code == 2 && message.contains("others can write into it"), "{code} {message}");

    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let (code, message) = fail(&data, &["serve", "--no-console", "--listen", &address]);
    assert!(code == 1 && message.contains(&format!("agent port {address}: cannot listen")), "{code} {message}");
}

#[test]
fn a_running_controller_answers_and_keeps_a_second_one_out() {
    let (_folder, data) = folder();
    let served = Served::start(&data);
    assert_eq!(data.join("controller.sock").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let (code, message) = fail(&data, &["serve", "--no-console", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 4);
    assert!(message.contains(&format!("process {}", served.child.id())), "{message}");
    assert_eq!(json(&data, &["machines", "--json"]), serde_json::json!([]));
    assert_eq!(json(&data, &["tasks", "--json"]), serde_json::json!([]));
    for (arguments, expected) in [
        (vec!["machines", "approve", "0000-0000"], 3),
        (vec!["machines", "approve", "no code at all"], 2),
        (vec!["machines", "show", "../tasks"], 3),
        (vec!["tasks", "show", "t-00000000"], 3),
        (vec!["tasks", "watch", "t-00000000"], 3),
        (vec!["tasks", "cancel", "t-00000000"], 3),
        (vec!["convert", "web1", "--name", "web1", "-o", "."], 3),
    ] {
        let (code, message) = fail(&data, &arguments);
        assert_eq!(code, expected, "{arguments:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn sigterm_ends_a_controller_well() {
    let (_folder, data) = folder();
    let mut served = Served::start(&data);
    let pid = served.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
    assert_eq!(fail(&data, &["machines"]).0, 5);
    Served::start(&data).kill();
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    let (folder, data) = folder();
    let served = Served::start(&data);
    let mut agent = Agent::new(&served.status);
    let (connection, id) = agent.enrol(&data, &machine("B5BRN12"));
    served.kill();

    let served = Served::start(&data);
    drop(connection);
    agent.follow(&served.status);
    assert_eq!(served.status.ca_fingerprint.len(), 64);
    let connection = agent.hello().unwrap();
    assert_eq!(receive(&connection), ControllerMessage::Approved, "the approval was kept, and so was the key");
    report(&connection, &machine("B5BRN12"));
    eventually("the machine is ready", || json(&data, &["machines", "--json"])[0]["state"] == "ready");
    let output = folder.path().to_str().unwrap();
    let new = ["convert", &id, "--name", "web1", "--output", output, "--no-prove-boot", "--detach", "--json"];
    let task = json(&data, &new)["id"].as_str().unwrap().to_owned();
    assert!(matches!(receive(&connection), ControllerMessage::ServeDisk(_)), "the task copies");
    served.kill();

    let served = Served::start(&data);
    assert_eq!(json(&data, &["tasks", "show", &task, "--json"])["state"], "running");
    let again = ["convert", &id, "--name", "web1", "--output", output];
    let (code, message) = fail(&data, &again);
    assert!(code == 4 && message.contains("is not connected"), "{message}");
    agent.follow(&served.status);
    let connection = agent.hello().unwrap();
    assert_eq!(receive(&connection), ControllerMessage::Approved);
    report(&connection, &machine("B5BRN12"));
    assert!(matches!(receive(&connection), ControllerMessage::ServeDisk(_)), "it goes on by itself");
    let (code, message) = fail(&data, &again);
    assert!(code == 4 && message.contains("another task"), "{message}");
    assert!(run(&data, &["tasks", "cancel", &task]).status.success());
    let watched = run(&data, &["tasks", "watch", &task, "--json"]);
    assert_eq!(watched.status.code(), Some(130), "{}", String::from_utf8_lossy(&watched.stderr));
    let lines = String::from_utf8(watched.stdout).unwrap();
    let told: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(told.iter().any(|line| line["event"] == "step" && line["step"] == "copy"), "{lines}");
    let last = told.last().unwrap();
    assert_eq!((&last["event"], &last["state"]), (&"failed".into(), &"cancelled".into()), "{lines}");
    assert!(!folder.path().join("web1").exists(), "nothing half-made has the final name");
}

#[test]
fn a_scheduled_conversion_is_told_shown_and_changed_over_sigkill() {
    let (folder, data) = folder();
    let served = Served::start(&data);
    let mut agent = Agent::new(&served.status);
    let (_connection, id) = agent.enrol(&data, &machine("B5BRN12"));
    let output = folder.path().to_str().unwrap();
    let start = "2099-12-01T22:00[Europe/Berlin]";
    let convert = ["convert", &id, "--name", "web1", "-o", output, "--no-link-test", "--start-at", start];
    let told = run(&data, &convert);
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    assert!(text.contains("begins 2099-12-01T21:00:00Z (not before 2099-12-01T22:00[Europe/Berlin])"), "{text}");
    served.kill();

    let served = Served::start(&data);
    agent.follow(&served.status);
    let listed = String::from_utf8(run(&data, &["tasks"]).stdout).unwrap();
    assert!(listed.contains("scheduled") && listed.contains("begins 2099-12-01T21:00:00Z"), "{listed}");
    let task = json(&data, &["tasks", "--json"])[0]["id"].as_str().unwrap().to_owned();
    let window = "Sat 22:00-06:00 Europe/Berlin";
    let changed = json(&data, &["tasks", "schedule", &task, "--window", window, "--json"]);
    assert_eq!((&changed["schedule"]["start_at"], &changed["schedule"]["windows"][0]), (&start.into(), &window.into()));
    assert_eq!(changed["due_at"], "2099-12-05T21:00:00Z");
    let changed = json(&data, &["tasks", "schedule", &task, "--no-window", "--json"]);
    assert_eq!(changed["due_at"], "2099-12-01T21:00:00Z");
    let shown = String::from_utf8(run(&data, &["tasks", "show", &task]).stdout).unwrap();
    assert!(shown.contains("schedule    not before 2099-12-01T22:00[Europe/Berlin]"), "{shown}");

    let (code, message) =
        fail(&data, &["convert", &id, "--name", "web2", "-o", output, "--wait", "--start-at", "2020-01-01T00:00Z"]);
    assert!(code == 2 && message.contains("has passed"), "{code} {message}");
    let disk = folder.path().join("disk.img");
    std::fs::write(&disk, [0; 4096]).unwrap();
    let local = ["convert", disk.to_str().unwrap(), "-o", output, "--window", window];
    assert_eq!(fail(&data, &local).0, 2);
    for wrong in [
        &["tasks", "schedule", &task][..],
        &["tasks", "schedule", &task, "--now", "--no-window"],
        &["tasks", "schedule", &task, "--start-at", "22:00"],
        &["tasks", "schedule", &task, "--window", "whenever"],
    ] {
        assert_eq!(run(&data, wrong).status.code(), Some(2), "{wrong:?}");
    }
    let begun = json(&data, &["tasks", "schedule", &task, "--now", "--json"]);
    assert_eq!(begun["state"], "queued", "its machine is not there: {begun}");
    assert!(run(&data, &["tasks", "cancel", &task]).status.success());
}
