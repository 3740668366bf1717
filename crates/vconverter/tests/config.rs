//! The configuration file as an operator meets it.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// Without a variable that would go before the file.
fn vconverter(file: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vconverter"));
    command.args(arguments).env("VCONVERTER_CONFIG", file).env_remove("VCONVERTER_DATA").env_remove("RUST_LOG");
    command.stdin(Stdio::null());
    command
}

fn run(file: &Path, arguments: &[&str]) -> Output {
    vconverter(file, arguments).output().unwrap()
}

fn json(file: &Path, arguments: &[&str]) -> Value {
    let output = run(file, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vconverter.toml");
    std::fs::write(&file, text.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
    (folder, file)
}

#[test]
fn serve_takes_the_file_and_its_options_go_before_it() {
    let (folder, file) = written("data-dir = \"FOLDER/data\"\nlisten = \"127.0.0.1:1\"\n");
    let notify = folder.path().join("notify");
    let heard = UnixDatagram::bind(&notify).unwrap();
    heard.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut child = vconverter(&file, &["serve", "--no-console", "--listen", "127.0.0.1:0", "--json"])
        .env("NOTIFY_SOCKET", &notify)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let status: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(status["data_dir"], json!(folder.path().join("data")));
    assert!(status["agent_address"].as_str().unwrap().starts_with("127.0.0.1:"), "{status}");
    let said = || {
        let mut buffer = [0; 64];
        let length = heard.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!(said(), "READY=1");
    // A client finds the socket by the same file.
    assert_eq!(json(&file, &["machines", "--json"]), json!([]));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(said(), "STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn show_tells_where_each_value_comes_from_and_is_a_file_again() {
    let (folder, file) = written("# of ours\ndata-dir = \"FOLDER/data\"\n\n[pxe]\ninterfaces = [\"eth0\", \"eth1\"]\n");
    let shown = json(&file, &["config", "show", "--json"]);
    let at = |line: usize| json!(format!("{}:{line}", file.display()));
    assert_eq!((&shown["data-dir"]["from"], &shown["pxe.interfaces"]["from"]), (&at(2), &at(5)));
    assert_eq!((&shown["listen"]["value"], &shown["listen"]["from"]), (&json!("0.0.0.0:7770"), &json!("default")));
    let given = json(&file, &["config", "show", "--json", "--data-dir", "/x"]);
    assert_eq!(given["data-dir"], json!({ "value": "/x", "from": "--data-dir" }));
    let output = vconverter(&file, &["config", "show", "--json"]).env("VCONVERTER_DATA", "/y").output().unwrap();
    let set: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(set["data-dir"], json!({ "value": "/y", "from": "VCONVERTER_DATA" }));

    let text = run(&file, &["config", "show"]).stdout;
    let again = folder.path().join("again.toml");
    std::fs::write(&again, &text).unwrap();
    let values = |shown: &Value| {
        let all = shown.as_object().unwrap().iter();
        all.map(|(name, setting)| (name.clone(), setting["value"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(
        values(&json(&again, &["config", "show", "--json"])),
        values(&shown),
        "{}",
        String::from_utf8_lossy(&text)
    );
}

#[test]
fn check_tells_what_cannot_work_and_what_is_misspelt() {
    let (folder, file) = written("data-dir = \"/var/lib/x\"\n[pxe]\nboot-image = \"FOLDER\"\ninterfaces = [\"lo\"]\n");
    let good = run(&file, &["config", "check"]);
    assert!(good.status.success() && String::from_utf8_lossy(&good.stdout).contains("good"), "{good:?}");

    let wrong = folder.path().join("wrong.toml");
    let text = "data-dir = \"x\"\n[pxe]\nenabled = true\ninterfaces = [\"nothing0\", \"../../class\"]\n";
    std::fs::write(&wrong, text).unwrap();
    let checked = run(&file, &["config", "check", wrong.to_str().unwrap(), "--json"]);
    assert_eq!(checked.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let faults: Vec<&str> = told["faults"].as_array().unwrap().iter().map(|fault| fault.as_str().unwrap()).collect();
    assert!(faults.len() == 4 && faults[0].contains("wrong.toml:1") && faults[2].contains("nothing0"), "{faults:?}");

    std::fs::write(&wrong, "listen = \"127.0.0.1:0\"\n[pxe]\nhttpport = 80\n").unwrap();
    for arguments in [&["config", "check"][..], &["serve"], &["machines"], &["config", "show"]] {
        let output = run(&wrong, arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(
            message.contains("wrong.toml:3: unknown field `httpport`") && message.lines().count() == 1,
            "{message}"
        );
    }
    let absent = folder.path().join("absent.toml");
    assert_eq!(run(&absent, &["machines"]).status.code(), Some(3));
    // What looks at no controller minds no configuration.
    assert!(run(&absent, &["completions", "bash"]).status.success());
}
