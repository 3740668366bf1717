//! Copies a disk through a real agent and a real `vconverter serve`, compares hashes, and prints the peak memory of both;
//! fails where that is more than they may need. Usage: `huge_copy DISK FOLDER`, as root; `tools/bench memory` makes the
//! disk.
//!
//! It ends where the copy is complete: what comes then (fix-ups, definition, proof) is no work of these two programs.
#![allow(clippy::unwrap_used)] // a measuring program, not the product

use std::path::Path;
use std::time::{Duration, Instant};

use lab::Site;

/// What an agent may have in all.
const AGENT_MAX_KIB: u64 = 64 << 10;
/// What a controller may need above idle.
const CONTROLLER_MAX_KIB: u64 = 128 << 10;
const PATIENCE: Duration = Duration::from_secs(3600);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [disk, folder] = &arguments[..] else { panic!("usage: huge_copy DISK FOLDER") };
    let (disk, folder) = (Path::new(disk), Path::new(folder));
    let site = Site::new(folder).unwrap();
    let agent = site.start_agent(disk, &folder.join("agent")).unwrap();
    let machine = site.pair_agent(&agent).unwrap();
    let idle = site.controller_peak_memory_kib().unwrap();
    let output = site.output().display().to_string();
    let began = Instant::now();
    let arguments =
        ["convert", &machine, "--name", "huge", "--output", &output, "--verify", "--no-prove-boot", "--detach"];
    let task = site.json(&arguments).unwrap()["id"].as_str().unwrap().to_owned();
    let (mut copied, mut steps) = (0, Vec::new());
    loop {
        let shown = site.json(&["tasks", "show", &task]).unwrap();
        let step = shown["step"].as_str().unwrap_or_default().to_owned();
        if step == "copy" {
            copied = copied.max(shown["progress"]["done"].as_u64().unwrap_or_default());
        }
        if steps.last() != Some(&step) {
            println!("{:>7.1} s: {step}", began.elapsed().as_secs_f64());
            steps.push(step.clone());
        }
        if !["", "check", "copy", "verify"].contains(&step.as_str()) {
            break;
        }
        assert!(shown["state"] == "running" || shown["state"] == "queued", "{shown}");
        assert!(began.elapsed() < PATIENCE, "it is still in {step}: {shown}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let (agent_peak, controller_peak) = (agent.peak_memory_kib().unwrap(), site.controller_peak_memory_kib().unwrap());
    let above = controller_peak.saturating_sub(idle);
    println!(
        "{} bytes of disk, at least {copied} of them copied and verified in {:.1} s",
        std::fs::metadata(disk).unwrap().len(),
        began.elapsed().as_secs_f64()
    );
    println!("agent: peak {agent_peak} KiB, the gate is {AGENT_MAX_KIB}");
    println!(
        "controller: peak {controller_peak} KiB, {idle} before the copy, {above} above it, the gate is {CONTROLLER_MAX_KIB}"
    );
    assert!(steps.iter().any(|step| step == "copy") && steps.iter().any(|step| step == "verify"), "{steps:?}");
    site.json(&["tasks", "cancel", &task]).unwrap();
    assert!(agent_peak <= AGENT_MAX_KIB && above <= CONTROLLER_MAX_KIB, "a gate was not kept");
}
