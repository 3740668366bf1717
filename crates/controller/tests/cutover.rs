//! A VM takes its source's place, and gives it back. The hypervisor is a mock, a program that answers as virsh does and keeps what
//! it is told in a file; the last test has a libvirt daemon of its own.
#![allow(clippy::unwrap_used)]

#[path = "support/libvirtd.rs"]
mod libvirtd;
mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use controller::{Config, Controller, DataDirectory};
use conversion::{Cancel, Observer};
use libvirtd::Libvirtd;
use machine::{Capabilities, DiskBus, FirmwareKind, HypervInterfaces, Machine, Nic, NicModel};
use protocol::message::{AgentMessage, ControllerMessage, PowerAction};
use serde_json::{Value, json};
use support::*;
use target::{Definition, DiskFile, DomainState, Virsh};

/// Answers `list`, `domstate`, `domiflist`, `define`, `domif-setlink`, `start`, `shutdown`, `destroy`; the folder of its own name plus `.d` holds
/// the domain's state and what it was told.
const VIRSH: &str = r#"#!/bin/sh
d="$0.d"; mkdir -p "$d"
[ "$1 $2" = "--quiet --connect" ] || exit 9
shift 3
echo "$*" >>"$d/told"
case "$1" in
  list) [ ! -e "$d/state" ] || echo web1 ;;
  domstate) cat "$d/state" ;;
  domiflist) echo ' -           network   default   virtio   52:54:00:12:34:56' ;;
  define) [ -e "$d/state" ] || echo 'shut off' >"$d/state" ;;
  start) [ ! -e "$d/broken" ] || { echo 'error: no space left' >&2; exit 1; }; echo running >"$d/state" ;;
  destroy) echo 'shut off' >"$d/state" ;;
  shutdown) [ -e "$d/deaf" ] || echo 'shut off' >"$d/state" ;;
esac
"#;

const CUTOVER_MAX: Duration = Duration::from_secs(300);

struct Site {
    folder: tempfile::TempDir,
    data: PathBuf,
    virsh: PathBuf,
    controller: Controller,
    connection: Option<protocol::Connection>,
    machine: String,
}

impl Site {
    /// One whose hypervisor is the mock.
    fn start(verdict: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let virsh = folder.path().join("virsh");
        std::fs::write(&virsh, VIRSH).unwrap();
        std::fs::set_permissions(&virsh, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self::start_with(folder, &virsh, verdict, &machine("B5BRN12"), "<domain/>")
    }

    /// `definition`: what the conversion leaves for the hypervisor.
    fn start_with(
        folder: tempfile::TempDir,
        virsh: &Path,
        verdict: &'static str,
        source: &Machine,
        definition: &str,
    ) -> Self {
        let (data, virsh) = (folder.path().join("data"), virsh.to_path_buf());
        let result = folder.path().join("web1");
        std::fs::create_dir(&result).unwrap();
        std::fs::write(result.join("web1.xml"), definition).unwrap();
        let outcome = json!({
            "name": "web1", "folder": result, "definition": "web1.xml", "disks": [], "incomplete": false, "verified": null,
            "fixups": [], "warnings": [],
            "proof": conversion::Proof { verdict: serde_json::from_value(json!(verdict)).unwrap(), ..conversion::Proof::default() },
        });
        let done = Fake(move |_, _: &dyn Observer, _: &Cancel| Ok(outcome.clone()));
        let mut config = Config::new(DataDirectory::new(&data), ([127, 0, 0, 1], 0).into(), Arc::new(done));
        config.virsh.clone_from(&virsh);
        let controller = Controller::start(config).unwrap();
        let (connection, machine) = Agent::new(controller.status()).enrol(&data, source);
        Self { folder, data, virsh, controller, connection: Some(connection), machine }
    }

    /// A conversion that is done; the machine stands in the boot image still.
    fn convert(&self) -> String {
        let output = self.folder.path().join("out");
        let _ = std::fs::create_dir(&output);
        let body = json!({ "machine": self.machine, "request": { "name": "web1", "output": output } });
        let (status, _, task) = http(&self.data, "POST", "/tasks", &body.to_string());
        assert_eq!(status, 201, "{task}");
        let id = task["id"].as_str().unwrap().to_owned();
        eventually("it is done", || get(&self.data, &format!("/tasks/{id}"))["state"] == "done");
        id
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, answer) = http(&self.data, "POST", path, &body.to_string());
        (status, answer)
    }

    /// The cutover when it is over: a hypervisor on a loaded machine takes its time.
    fn ends(&self, id: &str) -> Value {
        let (path, begun) = (format!("/tasks/{id}/cutover"), Instant::now());
        loop {
            let cutover = get(&self.data, &path);
            if !["running", "undoing"].contains(&cutover["state"].as_str().unwrap()) {
                return cutover;
            }
            assert!(begun.elapsed() < CUTOVER_MAX, "never: the cutover ends: {cutover}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(&format!("{}.d", self.virsh.display())).join(name)
    }

    /// What the hypervisor was told that changes something.
    fn told(&self) -> Vec<String> {
        let told = std::fs::read_to_string(self.file("told")).unwrap_or_default();
        let changes =
            told.lines().filter(|line| !["list", "domstate", "domiflist"].iter().any(|asked| line.starts_with(asked)));
        changes.map(str::to_owned).collect()
    }

    fn log(&self, id: &str) -> String {
        let log = get(&self.data, &format!("/tasks/{id}/log"));
        let lines = log.as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// The machine ends when it is told to.
fn obey(connection: protocol::Connection) -> std::thread::JoinHandle<PowerAction> {
    std::thread::spawn(move || {
        loop {
            if let ControllerMessage::Power { action, .. } = receive(&connection) {
                return action;
            }
        }
    })
}

#[test]
fn the_source_goes_before_its_vm_comes_and_the_other_way_round() {
    let mut site = Site::start("passed");
    let id = site.convert();
    let source = obey(site.connection.take().unwrap());
    let (status, begun) = site.post(&format!("/tasks/{id}/cutover"), &json!({}));
    assert_eq!((status, &begun["connection"]), (200, &json!("qemu:///system")), "{begun}");
    let ended = site.ends(&id);
    assert_eq!(source.join().unwrap(), PowerAction::PowerOff);
    println!("{ended}\n{}", site.log(&id));
    assert_eq!((&ended["state"], &ended["error"]), (&json!("done"), &Value::Null));
    let told = site.told();
    println!("{told:#?}");
    assert!(told[0].starts_with("define --file ") && told.last().unwrap() == "start --domain web1");
    assert!(site.log(&id).contains("the VM is running"));
    assert_eq!(site.post(&format!("/tasks/{id}/cutover"), &json!({ "source_is_off": true })).0, 409, "it runs already");

    let (status, _) = site.post(&format!("/tasks/{id}/cutover/undo"), &json!({}));
    let ended = site.ends(&id);
    assert_eq!((status, &ended["state"]), (200, &json!("undone")), "{ended}");
    assert!(site.told().iter().any(|line| line == "shutdown --domain web1"));
    assert_eq!(std::fs::read_to_string(site.file("state")).unwrap(), "shut off\n");
    assert!(site.log(&id).contains("the VM is off, and its NICs are disconnected"));
    site.controller.stop();
}

#[test]
fn what_stands_against_it_is_said_and_nothing_is_done() {
    let site = Site::start("inconclusive");
    let id = site.convert();
    let path = format!("/tasks/{id}/cutover");
    for (body, said) in
        [(json!({}), "say --unproven"), (json!({ "unproven": true, "connection": "--help" }), "such as qemu:///system")]
    {
        let (status, problem) = site.post(&path, &body);
        println!("{status}: {}", problem["detail"]);
        assert!(status >= 400 && problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
    let (status, problem) = site.post(&format!("{path}/undo"), &json!({}));
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("no cutover"), "{problem}");
    assert_eq!((site.told().len(), http(&site.data, "GET", &path, "").0), (0, 404));

    // A machine that cannot be ended keeps its place.
    let connection = site.connection.as_ref().unwrap();
    let (status, begun) = site.post(&path, &json!({ "unproven": true }));
    assert_eq!(status, 200, "{begun}");
    while !matches!(receive(connection), ControllerMessage::Power { .. }) {}
    send(connection, &AgentMessage::PowerFailed { reason: "the machine cannot be ended: a backup runs".into() });
    let ended = site.ends(&id);
    println!("{ended}");
    assert_eq!(ended["state"], "failed");
    assert!(ended["error"].as_str().unwrap().contains("a backup runs") && site.told().is_empty());
    site.controller.stop();
}

#[test]
fn a_hypervisor_that_refuses_leaves_a_cutover_that_can_be_asked_for_again() {
    let mut site = Site::start("passed");
    let id = site.convert();
    drop(site.connection.take());
    let path = format!("/tasks/{id}/cutover");
    eventually("the machine is gone", || {
        site.post(&path, &json!({})).1["detail"].as_str().unwrap_or_default().contains("--source-is-off")
    });
    std::fs::create_dir_all(site.file("")).unwrap();
    std::fs::write(site.file("broken"), "").unwrap();
    let off = json!({ "source_is_off": true });
    assert_eq!(site.post(&path, &off).0, 200);
    let ended = site.ends(&id);
    println!("{ended}");
    assert!(ended["state"] == "failed" && ended["error"].as_str().unwrap().contains("no space left"));
    std::fs::remove_file(site.file("broken")).unwrap();
    assert_eq!(site.post(&path, &off).0, 200);
    assert_eq!(site.ends(&id)["state"], "done");
    site.controller.stop();
}

#[test]
fn libvirt_runs_what_was_converted() {
    let folder = tempfile::tempdir().unwrap();
    let Some(libvirtd) = Libvirtd::start(folder.path()) else { return };
    let mut source = machine("B5BRN12");
    let mac = "52:54:00:77:00:01".parse().unwrap();
    source.nics = vec![Nic {
        name: "eno1".into(),
        mac,
        addresses: vec![machine::IpNet { address: "100::1".parse().unwrap(), prefix_length: 64 }],
        driver: None,
        link_up: true,
    }];
    let disk = folder.path().join("web1.raw");
    std::fs::File::create(&disk).unwrap().set_len(source.disks[0].virtual_size.0).unwrap();
    let definition = target::libvirt::domain_xml(&Definition {
        name: "web1",
        machine: &source,
        capabilities: &Capabilities {
            disk_bus: DiskBus::Virtio,
            nic_model: NicModel::Virtio,
            firmware: FirmwareKind::Bios,
            clock_utc: true,
            secure_boot: None,
            tpm: false,
            hyperv: HypervInterfaces::None,
        },
        disks: &[DiskFile { path: disk, format: "raw".into() }],
        link_up: false,
    });
    let definition = Libvirtd::without_kvm(&definition.unwrap());
    let mut site = Site::start_with(folder, Path::new("virsh"), "passed", &source, &definition);
    let id = site.convert();
    let machine_ends = obey(site.connection.take().unwrap());
    let path = format!("/tasks/{id}/cutover");
    let (status, begun) = site.post(&path, &json!({ "connection": libvirtd.connection }));
    assert_eq!(status, 200, "{begun}");
    let ended = site.ends(&id);
    machine_ends.join().unwrap();
    println!("{}", site.log(&id));
    assert_eq!((&ended["state"], &ended["error"]), (&json!("done"), &Value::Null), "{}", libvirtd.log());
    assert!(site.log(&id).contains("nothing answers at 100::1") && site.log(&id).contains("the VM is running"));
    let link = libvirtd.link_of("web1");
    println!("{link}");
    assert_eq!(link, "up");

    // It has no guest that could shut down: this does it in its place.
    assert_eq!(site.post(&format!("{path}/undo"), &json!({})).0, 200);
    let begun = Instant::now();
    while !site.log(&id).contains("the VM is shut down") {
        assert!(begun.elapsed() < CUTOVER_MAX, "{}", site.log(&id));
        std::thread::sleep(Duration::from_millis(100));
    }
    Virsh::new("virsh", &libvirtd.connection).power_off("web1").unwrap();
    let ended = site.ends(&id);
    println!("{}", site.log(&id));
    assert_eq!(ended["state"], "undone", "{ended}");
    assert_eq!(Virsh::new("virsh", &libvirtd.connection).state("web1").unwrap(), DomainState::ShutOff);
    assert_eq!(libvirtd.link_of("web1"), "down");
    site.controller.stop();
}
