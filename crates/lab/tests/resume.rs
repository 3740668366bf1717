//! What is killed or cut in the middle of a copy goes on where it was: a real controller and a real agent on a slow link.
//! Needs root.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use lab::{Kind, Site, SourceMachine, hash_file};

const MIB: u64 = 1 << 20;
const RESENT_MAX: u64 = 64 * MIB;
const PATIENCE: Duration = Duration::from_secs(600);

/// Where a copy is, in bytes.
fn done(site: &Site, task: &str) -> (String, u64) {
    let task = site.json(&["tasks", "show", task]).unwrap();
    let step = task["step"].as_str().unwrap_or_default().to_string();
    assert_ne!(task["state"], "failed", "{task}");
    (step, task["progress"]["done"].as_u64().unwrap_or_default())
}

/// Waits until the copy has passed `bytes` and returns where it is.
fn wait_past(site: &Site, task: &str, bytes: u64) -> u64 {
    let start = Instant::now();
    loop {
        let (step, at) = done(site, task);
        assert!(step == "copy" || step.is_empty() || step == "check", "the copy ended too early, in {step}, at {at}");
        if at >= bytes {
            return at;
        }
        assert!(start.elapsed() < PATIENCE, "the copy stands at {at}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn a_copy_survives_a_killed_agent_a_killed_controller_and_a_cut_link() {
    // A minute where time does not matter; else just longer than a dead peer is waited for.
    let full = std::env::var("VCONVERTER_ROWS").is_ok_and(|rows| !rows.is_empty());
    let cut = Duration::from_secs(if full { 60 } else { 20 });
    let folder = tempfile::tempdir().unwrap();
    let machine = SourceMachine::make(Kind::A, folder.path()).unwrap();
    let before = hash_file(&machine.disk).unwrap();
    let mut site = Site::new(folder.path()).unwrap();
    site.lan().slow_down(200).unwrap();
    let agent = site.start_agent(&machine.disk, &folder.path().join("agent")).unwrap();
    let id = site.pair_agent(&agent).unwrap();
    let output = site.output().display().to_string();
    let arguments = ["convert", &id, "--name", "vm", "--output", &output, "--verify", "--no-prove-boot", "--detach"];
    let task = site.json(&arguments).unwrap()["id"].as_str().unwrap().to_string();

    let at = wait_past(&site, &task, 100 * MIB);
    drop(agent);
    println!("agent killed at {} MiB", at / MIB);
    let _agent = site.start_agent(&machine.disk, &folder.path().join("agent")).unwrap();

    let at = wait_past(&site, &task, at + 100 * MIB);
    site.kill_controller();
    println!("controller killed at {} MiB", at / MIB);
    site.start_controller().unwrap();
    let again = wait_past(&site, &task, 1);
    println!("controller goes on at {} MiB", again / MIB);
    assert!(at.saturating_sub(again) < RESENT_MAX, "{} MiB were lost", (at - again) / MIB);

    let at = wait_past(&site, &task, at + 100 * MIB);
    let cable = site.lan().controller_cable();
    site.lan().cut(&cable).unwrap();
    println!("link cut at {} MiB for {} s", at / MIB, cut.as_secs());
    std::thread::sleep(cut);
    site.lan().join(&cable).unwrap();
    site.lan().slow_down(10_000).unwrap();

    let task = site.wait_for_task(&task, PATIENCE).unwrap();
    assert_eq!(task["state"], "done", "{task}");
    assert_eq!(task["outcome"]["verified"], true, "{task}");
    let used = task["outcome"]["disks"][0]["total"].as_u64().unwrap();
    let sent = site.lan().sent_to_controller().unwrap();
    println!("{} MiB used, {} MiB crossed the link in all", used / MIB, sent / MIB);
    // Three interruptions, and a few per cent for headers and for the hashes of the verification.
    assert!(sent < used + used / 10 + 3 * RESENT_MAX, "{sent} bytes crossed the link for {used} used");
    assert_eq!(before, hash_file(&machine.disk).unwrap(), "the source's disk was changed");
}
