//! A real agent at a real controller: enrolled by a token, known by its certificate, revoked. Needs root.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use lab::Site;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

struct Agent {
    child: Child,
    status: BufReader<ChildStdout>,
}

impl Agent {
    /// On the controller's own host, with nothing but an address, and a token on standard input where there is one.
    fn start(site: &Site, state: &Path, disk: &Path, token: Option<&str>) -> Self {
        let mut command = site.program("vconverter-agent");
        command
            .args(["--controller", &site.controller_address()])
            .arg("--state-dir")
            .arg(state)
            .arg("--disk")
            .arg(disk);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if token.is_some() {
            command.args(["--enrol", "-"]).stdin(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        if let Some(token) = token {
            child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        }
        let status = BufReader::new(child.stdout.take().unwrap());
        Self { child, status }
    }

    /// Its status lines, up to one with this text.
    fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while self.status.read_line(&mut seen).unwrap() > 0 {
            if seen.lines().last().is_some_and(|line| line.contains(text)) {
                return seen;
            }
        }
        panic!("it ended without {text:?}: {seen}");
    }

    fn end(mut self) -> String {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!self.child.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The only agent, once it is as it should be.
fn agent_that(site: &Site, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let agents = site.json(&["agents"]).unwrap();
        if agents.as_array().unwrap().len() == 1 && is_so(&agents[0]) {
            return agents[0].clone();
        }
        assert!(start.elapsed() < PATIENCE, "never {what}: {agents}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_machine_is_enrolled_by_a_token_known_by_its_certificate_and_gone_when_it_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let (state, disk) = (folder.path().join("state"), folder.path().join("disk"));
    std::fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let site = Site::new(folder.path()).unwrap();
    let made = site.json(&["agents", "token", "create", "--label", "rack 4", "--expires", "1h"]).unwrap();
    let token = made["token"].as_str().unwrap();

    let mut agent = Agent::start(&site, &state, &disk, Some(token));
    let shown = agent.until("\"ready\"");
    assert!(!shown.contains("waiting"), "{shown}");
    let certified = agent_that(&site, "certified", |agent| agent["certified_until"].is_string());
    println!("certified until {}", certified["certified_until"]);
    drop(agent);
    agent_that(&site, "gone", |agent| agent["connected"] == false);

    // Neither token nor fingerprint is needed any more, and nobody is asked.
    let mut agent = Agent::start(&site, &state, &disk, None);
    let shown = agent.until("\"ready\"");
    assert!(!shown.contains("waiting"), "{shown}");

    let said = Agent::start(&site, &folder.path().join("another"), &disk, Some(token)).end();
    println!("{said}");
    assert!(said.contains("refused the enrolment token: it was used before"), "{said}");

    let key = certified["key"].as_str().unwrap();
    site.json(&["agents", "revoke", &key[..16]]).unwrap();
    println!("{}", agent.until("revoked by an operator"));
    println!("{}", agent.until("this machine's key was revoked"));
    let log = site.controller_log();
    assert!(!log.contains("vce_") && !log.contains(token.rsplit_once('_').unwrap().1), "a token in the log");
}
