//! What was acknowledged is kept: over SIGKILL under load, on a disk that is full, in a data directory that cannot be written,
//! and before an older program than the one that wrote it.
#![allow(clippy::unwrap_used)]

mod program;
#[path = "../../controller/tests/support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use controller::api::Status;
use program::vconverter;
use serde_json::{Value, json};
use support::{Agent, eventually, get, http, machine};

const SERVE: [&str; 5] = ["serve", "--no-console", "--listen", "127.0.0.1:0", "--json"];

/// `vconverter serve`, killed (SIGKILL) when the test is done with it.
struct Served(Child, Status);

impl Served {
    fn start(data: &Path) -> Self {
        let mut child = vconverter(data, &SERVE).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, serde_json::from_str(&line).unwrap())
    }

    /// To its end, as an operator ends it.
    fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// That a controller does not start, and the one line that it says.
fn refusal(data: &Path) -> String {
    let output = vconverter(data, &SERVE).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len(), said.lines().count()), (Some(1), 0, 1), "{said}");
    println!("{}", said.trim_end());
    said
}

/// One request, on a connection that may break: status and body.
fn ask(data: &Path, method: &str, path: &str, body: &Value) -> io::Result<(u16, Value)> {
    let mut stream = UnixStream::connect(data.join("controller.sock"))?;
    let body = body.to_string();
    write!(
        stream,
        "{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    // An answer that was cut off is none.
    if length != Some(body.len()) {
        return Err(broken());
    }
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

/// What one operator did that was acknowledged, and what is not known of.
#[derive(Default)]
struct Deeds {
    profiles: BTreeSet<String>,
    deleted: BTreeSet<String>,
    tasks: BTreeSet<String>,
    cancelled: BTreeSet<String>,
    /// Answers that said that nothing was done.
    refused: BTreeSet<String>,
}

/// Makes profiles and tasks, takes some away again, until it is told to stop or nobody answers.
fn work(data: &Path, operator: usize, round: usize, machine: &str, output: &Path, is_over: &AtomicBool) -> Deeds {
    let mut deeds = Deeds::default();
    for number in 0.. {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        let name = format!("o{operator}-r{round}-{number}");
        let mut tell = |answer: io::Result<(u16, Value)>| match answer {
            Ok((200..300, value)) => Some(value),
            Ok((status, problem)) => {
                deeds.refused.insert(format!("{status} {}", problem["detail"].as_str().unwrap_or_default()));
                // Whoever is refused asks again a little later.
                std::thread::sleep(Duration::from_millis(20));
                None
            }
            Err(_) => None,
        };
        let profile = tell(ask(data, "PUT", &format!("/profiles/{name}"), &json!({ "settings": { "verify": true } })));
        let request = json!({ "name": name, "output": output });
        let schedule = json!({ "start_at": "2099-12-01T22:00[Europe/Berlin]" });
        let body = json!({ "machine": machine, "wait": true, "request": request, "schedule": schedule });
        let task = tell(ask(data, "POST", "/tasks", &body)).map(|task| task["id"].as_str().unwrap().to_owned());
        // Few are kept: a fast machine would make more than a controller keeps.
        let asked_to_delete = profile.is_some() && number % 16 != 0;
        let deleted =
            asked_to_delete && tell(ask(data, "DELETE", &format!("/profiles/{name}"), &Value::Null)).is_some();
        let cancelled = match &task {
            Some(task) if number % 2 == 0 => {
                tell(ask(data, "POST", &format!("/tasks/{task}/cancel"), &json!({}))).is_some()
            }
            _ => false,
        };
        if deleted {
            deeds.deleted.insert(name);
        } else if profile.is_some() && !asked_to_delete {
            deeds.profiles.insert(name);
        }
        if let Some(task) = task {
            if cancelled {
                deeds.cancelled.insert(task.clone());
            }
            deeds.tasks.insert(task);
        }
    }
    deeds
}

/// Whether everything that was acknowledged is so.
fn is_kept(data: &Path, deeds: &[Deeds]) {
    let profiles = get(data, "/profiles");
    let profiles: BTreeSet<&str> =
        profiles.as_array().unwrap().iter().map(|profile| profile["name"].as_str().unwrap()).collect();
    for deeds in deeds {
        for name in &deeds.profiles {
            assert!(profiles.contains(name.as_str()), "profile {name} was acknowledged and is gone");
        }
        for name in &deeds.deleted {
            assert!(!profiles.contains(name.as_str()), "profile {name} was deleted and is back");
        }
        for task in &deeds.tasks {
            let (status, _, found) = http(data, "GET", &format!("/tasks/{task}"), "");
            assert_eq!(status, 200, "task {task} was acknowledged and is gone");
            assert!(!deeds.cancelled.contains(task) || found["state"] == "cancelled", "{found}");
        }
    }
}

fn counted(deeds: &[Deeds]) -> String {
    let count = |of: fn(&Deeds) -> usize| deeds.iter().map(of).sum::<usize>();
    format!(
        "{} profiles made, {} deleted, {} tasks made, {} cancelled",
        count(|deeds| deeds.profiles.len()),
        count(|deeds| deeds.deleted.len()),
        count(|deeds| deeds.tasks.len()),
        count(|deeds| deeds.cancelled.len())
    )
}

const OPERATORS: usize = 4;

/// Lets operators work while `meanwhile` runs.
fn under_load(data: &Path, round: usize, machine: &str, output: &Path, meanwhile: impl FnOnce()) -> Vec<Deeds> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let operators: Vec<_> = (0..OPERATORS)
            .map(|operator| {
                let is_over = &is_over;
                scope.spawn(move || work(data, operator, round, machine, output, is_over))
            })
            .collect();
        meanwhile();
        is_over.store(true, Ordering::SeqCst);
        operators.into_iter().map(|operator| operator.join().unwrap()).collect()
    })
}

#[test]
fn a_controller_that_is_killed_under_load_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (data, output) = (folder.path().join("data"), folder.path().join("vms"));
    fs::create_dir(&output).unwrap();
    let mut served = Served::start(&data);
    let (connection, id) = Agent::new(&served.1).enrol(&data, &machine("B5BRN12"));
    drop(connection);
    let mut all = Vec::new();
    for round in 0..5 {
        let deeds = under_load(&data, round, &id, &output, || {
            std::thread::sleep(Duration::from_millis(300 + 170 * round as u64));
            served.0.kill().unwrap();
            served.0.wait().unwrap();
        });
        println!("killed: {}", counted(&deeds));
        assert!(deeds.iter().all(|deeds| deeds.refused.is_empty()), "{:?}", deeds[0].refused);
        assert!(deeds.iter().any(|deeds| !deeds.tasks.is_empty()), "there was no load");
        all.extend(deeds);
        served = Served::start(&data);
        is_kept(&data, &all);
    }
}

/// A small filesystem, unmounted when it is dropped; `None` where nothing can be mounted.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&path).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: no small filesystem can be mounted here");
            return None;
        }
        Some(Self(path))
    }

    fn remount(&self, how: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status().unwrap();
        assert!(status.success(), "remount {how}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a test that failed may have left a controller inside.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_loses_nothing_and_is_worked_on_when_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path().join("small"), "6m") else { return };
    let (data, output) = (small.0.join("data"), folder.path().join("vms"));
    fs::create_dir(&output).unwrap();
    let served = Served::start(&data);
    let (connection, id) = Agent::new(&served.1).enrol(&data, &machine("B5BRN12"));
    drop(connection);
    let filler = small.0.join("filler");
    let fill = || {
        let file = fs::File::create(&filler).unwrap();
        // To the last byte.
        for piece in [64 << 10, 4096, 1] {
            let bytes = vec![1; piece];
            while (&file).write_all(&bytes).is_ok() {}
        }
    };
    let pause = || std::thread::sleep(Duration::from_millis(700));
    let mut looked = None;
    let deeds = under_load(&data, 0, &id, &output, || {
        pause();
        fill();
        // The journal has some room of its own.
        eventually("writing fails", || {
            matches!(ask(&data, "PUT", "/profiles/one-more", &json!({ "settings": {} })), Ok((500.., _)))
        });
        pause();
        looked = Some(get(&data, "/status"));
        fs::remove_file(&filler).unwrap();
        eventually("there is room again", || {
            matches!(ask(&data, "PUT", "/profiles/one-more", &json!({ "settings": {} })), Ok((200, _)))
        });
        pause();
    });
    println!("filled and emptied: {}", counted(&deeds));
    let refused: BTreeSet<&String> = deeds.iter().flat_map(|deeds| &deeds.refused).collect();
    println!("while it was full: {refused:?}");
    assert!(
        !refused.is_empty() && refused.iter().all(|said| said.contains("disk is full") && said.contains("make room"))
    );
    assert_eq!(looked.unwrap()["pid"], served.0.id(), "it answers on a full disk");
    is_kept(&data, &deeds);

    // Killed while the disk is full, and started there.
    fill();
    drop(served);
    let full = vconverter(&data, &SERVE).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut full = full;
    let mut line = String::new();
    BufReader::new(full.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let started = !line.is_empty();
    if started {
        is_kept(&data, &deeds);
        full.kill().unwrap();
    }
    let ended = full.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    println!("started on a full disk: {started}: {said}");
    assert!(
        started || (said.lines().count() == 1 && (said.contains("full") || said.contains("No space left"))),
        "{said}"
    );
    fs::remove_file(&filler).unwrap();
    let _served = Served::start(&data);
    is_kept(&data, &deeds);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_refused_with_one_line_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path().join("small"), "8m") else { return };
    let data = small.0.join("data");
    small.remount("ro");
    let said = refusal(&data);
    assert!(said.contains("data directory") && said.contains("Read-only file system"), "{said}");
    small.remount("rw");
    let served = Served::start(&data);
    let authority = served.1.ca_fingerprint.clone();
    let (status, _, _) = http(&data, "PUT", "/profiles/kept", r#"{"settings":{}}"#);
    assert_eq!(status, 200);
    // Killed: there is a journal to be read.
    drop(served);
    small.remount("ro");
    let said = refusal(&data);
    assert!(said.contains("data directory") && said.contains("Read-only file system"), "{said}");
    small.remount("rw");
    let served = Served::start(&data);
    assert_eq!(served.1.ca_fingerprint, authority);
    assert_eq!(get(&data, "/profiles")[0]["name"], "kept");
    served.stop();
}

/// Raises the schema's version by so much, as another program would, and leaves everything in the database itself.
fn raise_version(database: &Path, by: i32) {
    let script = "import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
version = connection.execute('PRAGMA user_version').fetchone()[0]
connection.execute(f'PRAGMA user_version = {version + int(sys.argv[2])}')
connection.execute('PRAGMA wal_checkpoint(TRUNCATE)')
connection.close()";
    let by = by.to_string();
    let ran = Command::new("python3").args(["-c", script]).arg(database).arg(by).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn an_older_program_refuses_a_newer_schema_with_one_line_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let served = Served::start(&data);
    let (status, _, _) = http(&data, "PUT", "/profiles/kept", r#"{"settings":{}}"#);
    assert_eq!(status, 200);
    served.stop();
    let database = data.join("controller.db");
    raise_version(&database, 1);
    let before = fs::read(&database).unwrap();
    let said = refusal(&data);
    assert!(said.contains("controller.db") && said.contains("written by a newer vconverter"), "{said}");
    assert!(fs::read(&database).unwrap() == before, "it was changed");
    // The program that wrote it finds everything.
    raise_version(&database, -1);
    let _served = Served::start(&data);
    assert_eq!(get(&data, "/profiles")[0]["name"], "kept");
}
