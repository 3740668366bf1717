//! Installations in a folder that stands for a system, whose commands are written down.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use protocol::enrolment::EnrolmentToken;
use protocol::message::Bytes32;
use protocol::tls::Fingerprint;
use tempfile::TempDir;

use super::arguments::Wish;
use super::installation;
use super::plan::{Plan, Step};
use super::removal;
use super::state::{Installed, Record, STATE};
use super::system::System;
use crate::{Error, ErrorKind};

type Commands = Rc<RefCell<Vec<String>>>;

/// A system with these files (empty, executable) and folders (with a slash at the end), and the commands that it was given.
fn make_system(files: &[&str]) -> (TempDir, System, Commands) {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let path = root.path().join(file);
        match file.ends_with('/') {
            true => fs::create_dir_all(path).unwrap(),
            false => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
        }
    }
    let commands = Commands::default();
    let log = Rc::clone(&commands);
    let system = System::running(root.path(), move |command| {
        log.borrow_mut().push(command.join(" "));
        match command[0].as_str() {
            "false" => Err(Error::new(ErrorKind::Service, "it fails")),
            _ => Ok(()),
        }
    });
    (root, system, commands)
}

const SYSTEMD: [&str; 3] = ["run/systemd/system/", "etc/systemd/system/multi-user.target.wants/", "usr/local/sbin/"];
const OPENRC: [&str; 4] = ["run/openrc/", "etc/init.d/x", "etc/runlevels/default/", "sbin/supervise-daemon"];
const DEBIAN: [&str; 4] = ["etc/init.d/x", "usr/sbin/update-rc.d", "var/lib/x", "opt/"];
const SLACKWARE: [&str; 5] =
    ["etc/init.d/x", "etc/rc.d/rc3.d/", "etc/rc.d/rc6.d/", "etc/rc.d/rc0.d/", "usr/sbin/other"];
const ALL: [&[&str]; 4] = [&SYSTEMD, &OPENRC, &DEBIAN, &SLACKWARE];

fn token() -> EnrolmentToken {
    EnrolmentToken::random(Fingerprint(Bytes32([7; 32]))).unwrap()
}

fn wish() -> Wish {
    let token = Some(token().expose());
    Wish { controller: "192.0.2.10:7770".into(), enrol: Some("-".into()), token, ..Wish::default() }
}

/// What is in a tree: kind, mode and content of each path.
fn content(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let bytes = match metadata.file_type() {
                kind if kind.is_dir() => {
                    folders.push(path.clone());
                    Vec::new()
                }
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                _ => fs::read(&path).unwrap(),
            };
            found.insert(path, (metadata.permissions().mode(), bytes));
        }
    }
    found
}

fn golden(name: &str, shown: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, shown).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), shown, "{name}: UPDATE_GOLDEN=1 writes it");
}

#[test]
fn plans_are_what_they_were() {
    let names = ["systemd.txt", "openrc.txt", "sysv-debian.txt", "sysv-slackware.txt"];
    for (files, name) in ALL.into_iter().zip(names) {
        let (_root, system, _) = make_system(files);
        let shown = installation::plan(&system, &wish()).unwrap().to_string();
        assert!(!shown.contains("vce_"), "the token is shown");
        golden(name, &shown.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }
}

#[test]
fn what_is_installed_and_removed_leaves_the_tree_as_it_was() {
    for files in ALL {
        let (root, system, commands) = make_system(files);
        let before = content(root.path());
        installation::plan(&system, &wish()).unwrap().apply(&system, &|_| ()).unwrap().keep();
        let record = Record::load(&system).unwrap();
        let program = system.path(&record.program);
        assert_eq!(fs::read(&program).unwrap(), fs::read("/proc/self/exe").unwrap());
        let mode = |path: &str| fs::metadata(system.path(STATE).join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!([mode(""), mode("token"), mode("agent.json"), mode("installed.json")], [0o700, 0o600, 0o600, 0o600]);
        let shown = serde_json::to_value(Installed::load(&system)).unwrap();
        assert_eq!(shown["controller"], "192.0.2.10:7770", "{shown}");
        // As the agent does at its work.
        fs::write(system.path(STATE).join("agent.pem"), "key").unwrap();

        let removed = removal::apply(&removal::plan(&system).unwrap(), &system).unwrap();
        println!("{removed:#?}\n{:#?}", commands.borrow());
        assert_eq!(content(root.path()), before, "{files:?}");
        assert!(removal::apply(&removal::plan(&system).unwrap(), &system).unwrap().is_empty(), "twice");
    }
}

#[test]
fn a_sysv_script_is_removed_as_one_where_openrc_is_installed_beside() {
    let (root, system, commands) = make_system(&[&DEBIAN[..], &["etc/runlevels/default/", "usr/local/sbin/"]].concat());
    let before = content(root.path());
    installation::plan(&system, &wish()).unwrap().apply(&system, &|_| ()).unwrap().keep();
    // As Debian's update-rc.d does.
    std::os::unix::fs::symlink(
        "/etc/init.d/vconverter-agent",
        root.path().join("etc/runlevels/default/vconverter-agent"),
    )
    .unwrap();
    commands.borrow_mut().clear();
    removal::apply(&removal::plan(&system).unwrap(), &system).unwrap();
    assert_eq!(content(root.path()), before);
    let given = ["/etc/init.d/vconverter-agent stop", "update-rc.d -f vconverter-agent remove"];
    assert_eq!(commands.borrow().as_slice(), given);
}

#[test]
fn a_failure_after_any_step_leaves_the_tree_as_it_was() {
    for files in ALL {
        let (root, system, commands) = make_system(files);
        let before = content(root.path());
        let whole = installation::plan(&system, &wish()).unwrap();
        for place in 0..=whole.steps.len() {
            let mut plan = whole.clone();
            plan.steps.insert(place, Step::run(&["false"], &[]));
            let error = plan.apply(&system, &|_| ()).err().unwrap().chain();
            assert_eq!(error, "it fails; everything was undone", "after {place} steps of {files:?}");
            assert_eq!(content(root.path()), before, "after {place} steps of {files:?}");
        }
        // Also what the service itself wrote until then.
        let applied = whole.apply(&system, &|_| ()).unwrap();
        fs::write(system.path(STATE).join("agent.pem"), "key").unwrap();
        applied.undo().unwrap();
        assert_eq!(content(root.path()), before);
        let last = commands.borrow().last().cloned().unwrap_or_default();
        println!("the last command: {last}");
    }
}

#[test]
fn an_update_keeps_the_key_and_one_that_fails_the_old_program() {
    for files in ALL {
        let (root, system, commands) = make_system(files);
        installation::plan(&system, &wish()).unwrap().apply(&system, &|_| ()).unwrap().keep();
        let program = system.path(&Record::load(&system).unwrap().program);
        fs::write(&program, "an older one").unwrap();
        fs::write(system.path(STATE).join("agent.pem"), "key").unwrap();
        let before = content(root.path());

        let other = Wish { controller: "192.0.2.99:7770".into(), ..wish() };
        let whole = installation::plan(&system, &other).unwrap();
        for place in 0..=whole.steps.len() {
            let mut plan = whole.clone();
            plan.steps.insert(place, Step::run(&["false"], &[]));
            commands.borrow_mut().clear();
            let error = plan.apply(&system, &|_| ()).err().unwrap().chain();
            assert_eq!(error, "it fails; everything was undone");
            assert_eq!(content(root.path()), before, "after {place} steps of {files:?}");
            let commands = commands.borrow();
            assert!(commands.last().unwrap().contains("restart"), "the old one runs again: {commands:?}");
            assert!(!commands.iter().any(|command| command.contains("remove") || command.ends_with(" stop")));
        }
        whole.apply(&system, &|_| ()).unwrap().keep();
        let key = fs::read(system.path(STATE).join("agent.pem")).unwrap();
        assert_eq!((key.as_slice(), fs::metadata(&program).unwrap().len() > 1000), (&b"key"[..], true));
        let all: Vec<_> =
            content(root.path()).into_keys().filter(|path| path.to_string_lossy().contains("vconverter-")).collect();
        assert!(
            !all.iter().any(|path| path.to_string_lossy().contains("-old") || path.to_string_lossy().contains("-new"))
        );
        removal::apply(&removal::plan(&system).unwrap(), &system).unwrap();
    }
}

#[test]
fn a_mounted_system_gets_files_and_links_and_no_command() {
    let (root, live, _) = make_system(&["usr/lib/systemd/systemd", "usr/sbin/update-rc.d"]);
    drop(live);
    let system = System::new(Some(root.path()));
    let before = content(root.path());
    let plan = installation::plan(&system, &wish()).unwrap();
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::Run { .. })), "{plan}");
    plan.apply(&system, &|_| ()).unwrap().keep();
    assert!(
        fs::read_link(root.path().join("etc/systemd/system/multi-user.target.wants/vconverter-agent.service")).is_ok()
    );
    removal::apply(&removal::plan(&system).unwrap(), &system).unwrap();
    assert_eq!(content(root.path()), before);
}

#[test]
fn a_token_of_another_controller_than_the_fingerprint_says_is_refused_before_anything_is_done() {
    let (_root, system, _) = make_system(&SYSTEMD);
    let wrong = Wish { ca_fingerprint: Some(Fingerprint(Bytes32([8; 32]))), ..wish() };
    let error = installation::plan(&system, &wrong).unwrap_err();
    assert!(error.kind == ErrorKind::Config && error.context.contains("another controller"), "{error}");
    let wrong = Wish { token: Some("vce_1".into()), ..wish() };
    assert_eq!(installation::plan(&system, &wrong).unwrap_err().kind, ErrorKind::Config);
}

#[test]
fn a_file_that_stood_there_is_there_again_when_the_plan_is_undone() {
    let (root, system, _) = make_system(&["etc/x"]);
    fs::write(root.path().join("etc/x"), "theirs").unwrap();
    std::os::unix::fs::symlink("x", root.path().join("etc/l")).unwrap();
    let before = content(root.path());
    let steps = vec![Step::text("/etc/x", 0o600, "ours"), Step::link("/etc/l", "y"), Step::link("/etc/n", "z")];
    let plan = Plan { steps, settle: Vec::new() };
    let applied = plan.apply(&system, &|_| ()).unwrap();
    assert_eq!(fs::read(root.path().join("etc/x")).unwrap(), b"ours");
    applied.undo().unwrap();
    assert_eq!(content(root.path()), before);
    // A folder in the way is no file to be replaced.
    fs::create_dir(root.path().join("etc/x.vconverter-new")).unwrap();
    let error = plan.apply(&system, &|_| ()).err().unwrap();
    println!("{error}");
    fs::remove_dir(root.path().join("etc/x.vconverter-new")).unwrap();
    assert_eq!(content(root.path()), before);
}
