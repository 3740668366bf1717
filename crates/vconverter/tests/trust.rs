//! Users, tokens and credentials on the command line, and the command line on another machine.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const GOOD: &str = "correct horse battery";

/// A controller with a console on a free port.
struct Serving {
    _folder: tempfile::TempDir,
    data: PathBuf,
    child: Child,
    started: Value,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(more: &[&str]) -> Serving {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    serve_in(folder, &data, more)
}

fn serve_in(folder: tempfile::TempDir, data: &Path, more: &[&str]) -> Serving {
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0", "--json"];
    let mut child =
        vconverter(data).args(arguments).args(more).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let started = serde_json::from_str(&line).unwrap_or(Value::Null);
    Serving { _folder: folder, data: data.to_owned(), child, started }
}

fn vconverter(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vconverter"));
    for variable in ["VCONVERTER_TOKEN", "VCONVERTER_CONTROLLER", "VCONVERTER_CONFIG", "CREDENTIALS_DIRECTORY"] {
        command.env_remove(variable);
    }
    command.env("VCONVERTER_DATA", data).stdin(Stdio::null());
    command
}

/// Runs with something on standard input.
fn run(mut command: Command, arguments: &[&str], input: &str) -> Output {
    let mut child =
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

impl Serving {
    fn here(&self, arguments: &[&str], input: &str) -> String {
        let output = run(vconverter(&self.data), arguments, input);
        assert!(output.status.success(), "{arguments:?}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// From another machine: it has no data directory, only a URL, a fingerprint and a token.
    fn there(&self, token: &str, pin: &str, arguments: &[&str]) -> Output {
        let mut command = vconverter(Path::new("/nonexistent"));
        command.args(["--controller", &self.url(), "--ca-fingerprint", pin]).env("VCONVERTER_TOKEN", token);
        run(command, arguments, "")
    }

    fn url(&self) -> String {
        format!("https://{}", self.started["console_address"].as_str().unwrap())
    }

    fn pin(&self) -> &str {
        self.started["ca_fingerprint"].as_str().unwrap()
    }
}

#[test]
fn a_setup_code_is_printed_only_while_there_is_no_user() {
    let serving = serve(&[]);
    assert_eq!(serving.started["setup_code"].as_str().unwrap().len(), 19, "{}", serving.started);
    assert_eq!(
        serving.here(&["users", "add", "Ada", "--role", "administrator"], &format!("{GOOD}\n")),
        "ada: administrator\n"
    );
    let data = serving.data.clone();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("data");
    assert!(Command::new("cp").arg("-a").arg(&data).arg(&copy).status().unwrap().success());
    drop(serving);
    let again = serve_in(folder, &copy, &[]);
    assert_eq!(again.started["setup_code"], Value::Null);
    assert!(again.here(&["users"], "").contains("ada"));
}

#[test]
fn users_and_credentials_are_kept_from_the_command_line() {
    let serving = serve(&[]);
    serving.here(&["users", "add", "ada", "--role", "administrator"], GOOD);
    let short = run(vconverter(&serving.data), &["users", "add", "bob", "--role", "viewer"], "short\n");
    assert_eq!(
        (short.status.code(), told(&short).contains("at least 12 characters")),
        (Some(2), true),
        "{}",
        told(&short)
    );
    serving.here(&["users", "add", "bob", "--role", "viewer"], GOOD);
    assert_eq!(
        serving.here(&["users", "change", "bob", "--role", "operator", "--disable"], ""),
        "bob: operator, disabled\n"
    );
    let last = run(vconverter(&serving.data), &["users", "remove", "ada"], "");
    assert_eq!((last.status.code(), told(&last).contains("no administrator would be left")), (Some(4), true));
    serving.here(&["users", "remove", "bob"], "");

    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0LWtleQ\n-----END OPENSSH PRIVATE KEY-----\n";
    serving.here(&["credentials", "set", "web1", "--kind", "ssh-password", "--user", "root"], "s3cret-of-web1\n");
    serving.here(&["credentials", "set", "web2", "--kind", "ssh-key", "--user", "root"], key);
    let listed = serving.here(&["credentials"], "") + &serving.here(&["credentials", "--json"], "");
    assert!(listed.contains("web1") && listed.contains("ssh-key"), "{listed}");
    assert!(!listed.contains("s3cret") && !listed.contains("c2VjcmV0"), "{listed}");
    serving.here(&["credentials", "remove", "web1"], "");
    assert!(!serving.here(&["credentials"], "").contains("web1"));
}

#[test]
fn the_command_line_works_on_another_machine_with_a_token_and_a_fingerprint() {
    let serving = serve(&[]);
    let token = serving.here(&["tokens", "make", "ci", "--role", "viewer"], "");
    let token = token.trim();
    let good = serving.there(token, serving.pin(), &["status"]);
    assert!(good.status.success(), "{}", told(&good));
    assert!(told(&good).contains(serving.pin()));
    assert!(serving.there(token, serving.pin(), &["machines", "--json"]).status.success());
    let above = serving.there(token, serving.pin(), &["users"]);
    assert_eq!((above.status.code(), told(&above).contains("administrator")), (Some(4), true), "{}", told(&above));

    let foreign = serving.there(token, &"ab".repeat(32), &["status"]);
    println!("{}", told(&foreign));
    assert_eq!(foreign.status.code(), Some(5));
    let unpinned = run(
        {
            let mut command = vconverter(Path::new("/nonexistent"));
            command.args(["--controller", &serving.url()]).env("VCONVERTER_TOKEN", token);
            command.env("VCONVERTER_CA_FILE", serving.data.join("identity/console.pem"));
            command
        },
        &["status"],
        "",
    );
    assert!(unpinned.status.success(), "the CA in the file signed it, for 127.0.0.1: {}", told(&unpinned));

    let id = serde_json::from_str::<Value>(&serving.here(&["tokens", "--json"], "")).unwrap()[0]["id"].clone();
    serving.here(&["tokens", "revoke", id.as_str().unwrap()], "");
    let revoked = serving.there(token, serving.pin(), &["status"]);
    assert_eq!((revoked.status.code(), told(&revoked).contains("revoked")), (Some(4), true), "{}", told(&revoked));
    let none = serving.there("", serving.pin(), &["status"]);
    assert_eq!((none.status.code(), told(&none).contains("--token-file")), (Some(2), true), "{}", told(&none));
}

#[test]
fn enrolment_tokens_are_made_shown_once_and_revoked() {
    let serving = serve(&[]);
    assert!(serving.here(&["agents"], "").starts_with("no agents"));
    assert!(serving.here(&["agents", "token", "list"], "").starts_with("no enrolment tokens"));
    let operator = serving.here(&["tokens", "make", "ci", "--role", "operator"], "");
    let create = ["agents", "token", "create", "--label", "rack 4", "--expires", "2h"];
    let made = serving.there(operator.trim(), serving.pin(), &create);
    assert!(made.status.success(), "{}", told(&made));
    let token = String::from_utf8(made.stdout).unwrap();
    assert!(token.starts_with(&format!("vce_{}_", serving.pin())) && token.trim().len() == 101, "{}", token.len());
    let listed = serving.here(&["agents", "token", "list", "--json"], "");
    let tokens: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&tokens[0]["label"], &tokens[0]["used_at"]), (&Value::from("rack 4"), &Value::Null));
    assert!(!listed.contains(token.trim().rsplit_once('_').unwrap().1));
    let id = tokens[0]["id"].as_str().unwrap();
    serving.here(&["agents", "token", "revoke", id], "");
    assert!(serving.here(&["agents", "token", "list"], "").contains("revoked 2"));

    let viewer = serving.here(&["tokens", "make", "seer", "--role", "viewer"], "");
    let refused = serving.there(viewer.trim(), serving.pin(), &create);
    assert_eq!((refused.status.code(), told(&refused).contains("operator")), (Some(4), true), "{}", told(&refused));
    for (arguments, code) in [
        (&["agents", "token", "create", "--expires", "31d"][..], 2),
        (&["agents", "token", "create", "--expires", "soon"], 2),
        (&["agents", "token", "revoke", "e-00000000"], 3),
        (&["agents", "revoke", "00000000"], 3),
    ] {
        let output = run(vconverter(&serving.data), arguments, "");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", told(&output));
    }
}

#[test]
fn a_passphrase_locks_the_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let (data, phrase) = (folder.path().join("data"), folder.path().join("phrase"));
    std::fs::write(&phrase, "a long enough phrase\n").unwrap();
    let serving = serve_in(folder, &data, &["--passphrase-file", phrase.to_str().unwrap()]);
    serving.here(&["credentials", "set", "web1", "--kind", "ssh-password", "--user", "root"], "s3cret-of-web1\n");
    assert!(!data.join("credentials.key").exists());
    let mut serving = serving;
    serving.child.kill().unwrap();
    serving.child.wait().unwrap();
    let without = run(vconverter(&data), &["serve", "--no-console", "--listen", "127.0.0.1:0"], "");
    assert_eq!(without.status.code(), Some(2), "{}", told(&without));
    assert!(told(&without).contains("--passphrase-file"), "{}", told(&without));
}
