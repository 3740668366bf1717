//! Backup and restore as an operator meets them: beside a controller that works, on a stopped one, with what is damaged,
//! and killed at any moment.
#![allow(clippy::unwrap_used)]

mod program;
#[path = "../../controller/tests/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use controller::api::Status;
use program::vconverter;
use protocol::message::ControllerMessage;
use serde_json::{Value, json};

use support::{Agent, eventually, machine, receive, report};

fn run(data: &Path, arguments: &[&str]) -> Output {
    vconverter(data, arguments).output().unwrap()
}

fn json(data: &Path, arguments: &[&str]) -> Value {
    let output = run(data, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs to a failure: exit code, and its one line on standard error.
fn fail(data: &Path, arguments: &[&str]) -> (i32, String) {
    let output = run(data, arguments);
    assert_eq!(output.stdout, b"", "{arguments:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.lines().count(), 1, "{message}");
    (output.status.code().unwrap(), message)
}

/// `vconverter serve`, killed when the test is done with it.
struct Served(Child, Status);

impl Served {
    fn start(data: &Path) -> Self {
        let arguments = ["serve", "--no-console", "--listen", "127.0.0.1:0", "--json"];
        let mut child = vconverter(data, &arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, serde_json::from_str(&line).unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Site {
    _folder: tempfile::TempDir,
    data: PathBuf,
    file: PathBuf,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (data, file) = (folder.path().join("data"), folder.path().join("state.tar.zst"));
        Self { _folder: folder, data, file }
    }

    fn file(&self) -> &str {
        self.file.to_str().unwrap()
    }

    /// Everything in the folder of the backup.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.file.parent().unwrap()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_state_saved_beside_a_running_controller_comes_back_with_machine_key_and_policy() {
    let site = Site::new();
    let served = Served::start(&site.data);
    let mut agent = Agent::new(&served.1);
    let (connection, id) = agent.enrol(&site.data, &machine("B5BRN12"));
    json(&site.data, &["pxe", "policy", "52:54:00:12:34:56", "ignore", "--json"]);
    let made = json(&site.data, &["backup", site.file(), "--json"]);
    let paths: Vec<&str> =
        made["manifest"]["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"controller.db") && paths.contains(&"identity/ca.pem"), "{paths:?}");
    assert_eq!(site.file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(site.names(), ["data", "state.tar.zst"], "nothing is left beside");
    // What comes later is not in it.
    json(&site.data, &["pxe", "policy", "52:54:00:12:34:57", "ignore", "--json"]);

    let (code, message) = fail(&site.data, &["restore", site.file(), "--force"]);
    assert!(code == 4 && message.contains("another controller"), "{code} {message}");
    let (code, message) = fail(&site.data, &["backup", site.file()]);
    assert!(code == 4 && message.contains("--force"), "{code} {message}");
    let fingerprint = served.1.ca_fingerprint.clone();
    drop((connection, served));
    let (code, message) = fail(&site.data, &["restore", site.file()]);
    assert!(code == 4 && message.contains("--force"), "{code} {message}");
    let restored = json(&site.data, &["restore", site.file(), "--force", "--json"]);
    let before = PathBuf::from(restored["before"].as_str().unwrap());
    assert!(before.starts_with(&site.data) && before.join("controller.db").is_file(), "{before:?}");
    assert!(before.join("identity/ca.pem").is_file());

    for data in [site.data.clone(), site.data.with_file_name("elsewhere")] {
        if data != site.data {
            let fresh = json(&data, &["restore", site.file(), "--json"]);
            assert_eq!(fresh["before"], Value::Null);
        }
        for file in ["controller.db", "identity/ca.pem"] {
            assert_eq!(data.join(file).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        }
        let served = Served::start(&data);
        assert_eq!(served.1.ca_fingerprint, fingerprint, "the key is the same");
        let rules = json(&data, &["pxe", "policy", "--json"]);
        assert_eq!(rules.as_array().unwrap().len(), 1, "{rules}");
        agent.follow(&served.1);
        let connection = agent.hello().unwrap();
        assert_eq!(receive(&connection), ControllerMessage::Approved, "the approval is known");
        report(&connection, &machine("B5BRN12"));
        eventually("the machine is ready", || json(&data, &["machines", "--json"])[0]["id"] == json!(id));
    }
}

#[test]
fn everything_that_a_controller_keeps_is_in_its_backup() {
    let site = Site::new();
    drop(Served::start(&site.data));
    json(&site.data, &["backup", site.file(), "--json"]);
    let copy = site.data.with_file_name("copy");
    json(&copy, &["restore", site.file(), "--json"]);
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !["controller.sock", "controller.db-wal", "controller.db-shm"].contains(&name.as_str()));
        names.sort();
        names
    };
    assert_eq!(names(&copy), names(&site.data));
    assert_eq!(names(&copy.join("identity")), names(&site.data.join("identity")));
}

#[test]
fn a_backup_after_sigkill_holds_what_was_acknowledged() {
    let site = Site::new();
    let served = Served::start(&site.data);
    json(&site.data, &["pxe", "policy", "52:54:00:12:34:56", "ignore", "--json"]);
    drop(served);
    assert!(site.data.join("controller.db-wal").metadata().unwrap().len() > 0, "it is in the journal alone");
    json(&site.data, &["backup", site.file(), "--json"]);
    let copy = site.data.with_file_name("copy");
    json(&copy, &["restore", site.file(), "--json"]);
    let _served = Served::start(&copy);
    assert_eq!(json(&copy, &["pxe", "policy", "--json"]).as_array().unwrap().len(), 1);
}

#[test]
fn what_cannot_be_used_is_refused_with_one_line_and_changes_nothing() {
    let site = Site::new();
    let (code, message) = fail(&site.data, &["backup", site.file()]);
    assert!(code == 3 && message.contains("no controller's database"), "{code} {message}");
    assert!(!site.data.exists() && site.names().is_empty());
    assert_eq!(fail(&site.data, &["restore", site.file()]).0, 3);

    drop(Served::start(&site.data));
    let database = || std::fs::read(site.data.join("controller.db")).unwrap();
    let there = database();
    json(&site.data, &["backup", site.file(), "--json"]);
    let whole = std::fs::read(&site.file).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    let text = b"this is a letter to my mother, not a backup".to_vec();
    for (what, content) in
        [("cut", whole[..whole.len() - 1].to_vec()), ("changed", changed), ("empty", Vec::new()), ("text", text)]
    {
        std::fs::write(&site.file, content).unwrap();
        let (code, message) = fail(&site.data, &["restore", "--force", site.file()]);
        assert!(code == 1 && message.contains("backup") && message.contains("state.tar.zst"), "{what}: {message}");
        assert!(database() == there && !site.data.join("restore.new").exists(), "{what}");
    }
}

#[test]
fn a_restore_that_is_killed_leaves_the_earlier_state_or_the_restored_one_whole() {
    let site = Site::new();
    drop(Served::start(&site.data));
    // Some megabytes that do not compress, so that a restore takes a while.
    let library = site.data.join("drivers");
    std::fs::create_dir(&library).unwrap();
    let mut random: u64 = 1;
    for number in 0..12 {
        let noise = std::iter::repeat_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 56) as u8
        });
        std::fs::write(library.join(format!("{number}.bin")), noise.take(1 << 20).collect::<Vec<u8>>()).unwrap();
    }
    json(&site.data, &["backup", site.file(), "--json"]);
    let fingerprint = |data: &Path| Served::start(data).1.ca_fingerprint.clone();
    let saved = fingerprint(&site.data);
    let (mut early, mut late) = (0, 0);
    for round in 0..24 {
        let data = site.data.with_file_name(format!("other-{round}"));
        let own = fingerprint(&data);
        assert_ne!(own, saved);
        let mut restoring =
            vconverter(&data, &["restore", "--force", site.file()]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(8 * round));
        let _ = restoring.kill();
        restoring.wait().unwrap();
        let now = fingerprint(&data);
        let drivers = std::fs::read_dir(data.join("drivers")).map_or(0, Iterator::count);
        match now == own {
            true => early += 1,
            false => late += 1,
        }
        assert!((now == own && drivers == 0) || (now == saved && drivers == 12), "round {round}: {drivers} drivers");
        std::fs::remove_dir_all(&data).unwrap();
    }
    println!("killed before it was whole: {early}, after: {late}");
}
