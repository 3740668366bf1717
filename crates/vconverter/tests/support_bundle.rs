//! The support bundle of a controller that is full of secrets.
#![allow(clippy::unwrap_used)]

mod program;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use controller::store::{LogLevel, NewTask, NewUser, SealedCredential, Sighting, Store};
use controller::trust::{Credential, CredentialKind, Role};
use controller::{DataDirectory, Timestamp};
use serde_json::Value;

/// Wherever a secret could be, this is in it.
const PLANTED: &str = "Xyzzy-Planted-4711";

fn vconverter(data: &Path, arguments: &[&str]) -> Output {
    program::vconverter(data, arguments).env("SMTP_PASSWORD", PLANTED).output().unwrap()
}

/// All of a bundle, unpacked by tar.
fn unpacked(file: &Path) -> String {
    let command = "zstd -dc \"$1\" | tar -xOf -";
    let output = Command::new("sh").args(["-c", command, "sh"]).arg(file).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn bundle(data: &Path, file: &Path) -> (Value, String) {
    let output = vconverter(data, &["support-bundle", file.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_slice(&output.stdout).unwrap(), unpacked(file))
}

#[test]
fn no_secret_is_in_it_and_what_helps_is() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("support.tar.zst"));
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::create_dir(data.join("identity")).unwrap();
    let key = format!("-----BEGIN PRIVATE KEY-----\n{PLANTED}\n-----END PRIVATE KEY-----\n");
    std::fs::write(data.join("identity/ca.pem"), &key).unwrap();
    let directory = DataDirectory::new(&data);
    let store = Store::open(&directory.database()).unwrap();
    std::fs::write(data.join("credentials.key"), PLANTED).unwrap();
    let machine = plant(&store);
    let request = serde_json::json!({ "name": "web1", "output": "/srv/vms", "password": PLANTED }).to_string();
    let new = NewTask {
        rcc: None,
        held: false,
        name: "web1",
        machine: &machine,
        output: folder.path().to_str().unwrap(),
        request: &request,
        waits: false,
        plan: None,
        bytes_per_second: None,
        back_by: None,
    };
    let task = store.create_task(&new, "uid 0").unwrap();
    for message in [
        format!("guest says: password={PLANTED}"),
        format!("Authorization: Bearer {PLANTED}"),
        format!("https://root:{PLANTED}@mirror.example/debian"),
        key.clone(),
        "disk /dev/sda: 4096 bytes at 8192 could not be read".into(),
    ] {
        store.log_task(&task, LogLevel::Warning, &message).unwrap();
    }
    store.write_audit("uid 0", "login", "root", &format!("token: {PLANTED}")).unwrap();
    let raw = std::fs::read(data.join("controller.db-wal")).unwrap();
    assert!(String::from_utf8_lossy(&raw).contains(PLANTED), "it is in the database");

    let (told, text) = bundle(&data, &file);
    assert!(!text.contains(PLANTED), "{}", text.lines().find(|line| line.contains(PLANTED)).unwrap());
    assert!(!text.contains("argon2"), "a hash of a password");
    for part in ["tasks.json", "audit.txt", "settings.toml", "programs.txt", "disk-space.txt", "data-directory.txt"] {
        assert!(told["parts"].as_array().unwrap().iter().any(|name| name == part), "{part}: {told}");
    }
    for helps in
        ["could not be read", "\"name\": \"web1\"", "identity/ca.pem", "bytes free", "qemu-img", "data-dir = ", "Linux"]
    {
        assert!(text.contains(helps), "{helps}");
    }
    assert_eq!(told["missing"], serde_json::json!([]), "{told}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["data", "support.tar.zst"], "nothing is left beside");
}

/// A user, a token, a credential; and a machine, whose id is returned.
fn plant(store: &Store) -> String {
    let hash = format!("$argon2id${PLANTED}");
    store.add_user(NewUser { name: "admin", role: Role::Administrator, password: &hash }, true, "uid 0").unwrap();
    let now = Timestamp::now();
    let (name, user) = ("vcenter".to_owned(), "root".to_owned());
    let about = Credential { name, kind: CredentialKind::SshPassword, user, created_at: now, changed_at: now };
    store.set_credential(&SealedCredential { about, sealed: PLANTED.as_bytes().to_vec() }, "uid 0").unwrap();
    store.approve_key("aa", "x", "uid 0").unwrap();
    let report = machine::Machine::default();
    let sighting =
        Sighting { key: "aa", report: &report, booted: "boot-image", agent_version: "0.1.0", boot_medium: None };
    store.machine_reported(&sighting).unwrap()
}

#[test]
fn without_a_state_it_says_so_and_tells_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("support.tar.zst");
    let (told, text) = bundle(&folder.path().join("data"), &file);
    assert!(told["missing"][0].as_str().unwrap().contains("it is not there") && text.contains("qemu-img"), "{told}");
    let again = vconverter(folder.path(), &["support-bundle", file.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(4));
}
