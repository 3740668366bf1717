//! Networks, without machines. Needs root.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{CONTROLLER, GATEWAY, Lan};
use qemu::{Hardware, MachineType, Nic, NicBackend, NicModel};

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: not root");
    }
    root
}

/// Whether a TCP connection from the machines' side to a listener on the controller's side succeeds.
fn reaches(lan: &Lan, port: u16) -> bool {
    let script = format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{CONTROLLER}/{port}'");
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    lan.machines().enter(&mut command).output().unwrap().status.success()
}

#[test]
fn machines_reach_the_controller_until_its_cable_is_cut() {
    if !root() {
        return;
    }
    let lan = Lan::new().unwrap();
    let mut listener = Command::new("python3");
    listener.args(["-m", "http.server", "--bind", &CONTROLLER.to_string(), "8080"]);
    listener.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut listener = lan.controller().enter(&mut listener).spawn().unwrap();
    let start = Instant::now();
    while !reaches(&lan, 8080) && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let before = reaches(&lan, 8080);
    lan.cut(&lan.controller_cable()).unwrap();
    let during = reaches(&lan, 8080);
    lan.join(&lan.controller_cable()).unwrap();
    let after = reaches(&lan, 8080);
    listener.kill().unwrap();
    listener.wait().unwrap();
    assert_eq!((before, during, after), (true, false, true));
}

/// Processes whose network namespace is this one.
fn inhabitants(namespace: u64) -> usize {
    let inside =
        |entry: &std::fs::DirEntry| std::fs::metadata(entry.path().join("ns/net")).is_ok_and(|m| m.ino() == namespace);
    std::fs::read_dir("/proc").unwrap().flatten().filter(inside).count()
}

#[test]
fn two_networks_do_not_meet_and_leave_nothing_behind() {
    if !root() {
        return;
    }
    let (mut one, mut two) = (Lan::new().unwrap(), Lan::new().unwrap());
    for lan in [&mut one, &mut two] {
        let mut hardware = Hardware::new(MachineType::Pc);
        hardware.nics.push(Nic::new(NicModel::E1000, "52:54:00:00:00:09", NicBackend::Unplugged));
        lan.plug(&mut hardware, 0).unwrap();
        assert_eq!(hardware.nics[0].backend, NicBackend::Tap("tap0".into()));
    }
    let first = std::fs::metadata(one.machines().path()).unwrap().ino();
    assert_eq!(inhabitants(first), 1); // its DHCP server
    drop(one);
    assert_eq!(inhabitants(first), 0);
    let mut show = Command::new("ip");
    show.args(["-br", "address", "show", "br0"]);
    let output = two.machines().enter(&mut show).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(&GATEWAY.to_string()));
}
