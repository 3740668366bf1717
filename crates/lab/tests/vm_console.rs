//! A machine of the lab, converted in a browser: `web/e2e/machine.mjs` with Debian's Chromium, from the controller's first start
//! and the pairing code on the machine's screen to the picture of the VM's boot proof. Needs root.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lab::{Boot, Kind, Site, SourceMachine, hash_file, pairing_code};
use serde_json::json;

/// From power-on to the pairing code, on a loaded machine without KVM.
const PATIENCE: Duration = Duration::from_secs(600);

#[test]
#[ignore = "full row"]
fn a_machine_is_approved_converted_and_seen_to_boot_in_a_browser() {
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web");
    let folder = tempfile::tempdir().unwrap();
    let machine = SourceMachine::make(Kind::A, folder.path()).unwrap();
    let before = hash_file(&machine.disk).unwrap();
    let mut site = Site::new(folder.path()).unwrap();
    let iso = site.boot_image().unwrap();
    let console = site.start_console().unwrap();
    let (vm, _cable) = site.switch_on(&machine, Boot::Iso(&iso)).unwrap();
    let code = pairing_code(&mut vm.serial(0).reader(), PATIENCE).unwrap();
    println!("on the machine's screen: {code}; the controller says {console}");

    let there = json!({
        "url": format!("https://{}", console["console_address"].as_str().unwrap()),
        "setup_code": console["setup_code"],
        "pairing_code": code,
        "hostname": machine.hostname,
        "output": site.output(),
    });
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm_console");
    let mut browser = Command::new("node");
    browser.current_dir(&web).arg("e2e/machine.mjs").arg(&pictures).stdin(Stdio::piped());
    // On the controller's host: its console listens there alone.
    let mut browser = site.lan().controller().enter(&mut browser).spawn().unwrap();
    browser.stdin.take().unwrap().write_all(there.to_string().as_bytes()).unwrap();
    let seen = browser.wait().unwrap();
    assert!(seen.success(), "{seen}: what was seen is in {}", pictures.display());
    println!("pictures: {}", pictures.display());

    let shown = std::fs::read(pictures.join("proof.png")).unwrap();
    let kept = std::fs::read(site.output().join(&machine.hostname).join("proof/screen.png")).unwrap();
    assert!(shown == kept, "the console shows the picture that lies with the VM");
    vm.kill();
    assert_eq!(before, hash_file(&machine.disk).unwrap(), "the source's disk was changed");
}
