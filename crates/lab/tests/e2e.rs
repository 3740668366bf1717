//! The whole way, for each machine of the lab: cloned over a network or from its disk, fixed up, seen to boot, and
//! compared with its source by tools of others. Each prints what it saw. Needs root.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use lab::{Judge, Kind, SourceMachine, cold_clone, cold_clone_on, hash_file};
use qemu::{Firmware, Hardware};
use serde_json::Value;

/// A running commentary with times.
fn commentary() -> impl Fn(&str) {
    let start = Instant::now();
    move |line| println!("[{:>4} s] {line}", start.elapsed().as_secs())
}

/// Hostname, SSH host keys and file checksums of the result are the source's, and the boot proof passed.
fn is_its_source(machine: &SourceMachine, outcome: &Value, result: &Path, say: &dyn Fn(&str)) {
    let proof = &outcome["proof"];
    assert_eq!(proof["verdict"], "passed", "{proof}");
    assert_eq!(proof["guest"]["hostname"], machine.hostname.as_str(), "{proof}");
    assert!(result.join("proof/screen.png").exists() && result.join("proof/serial.log").exists());
    assert_eq!(outcome["verified"], true);
    assert_eq!(outcome["incomplete"], false);

    let scratch = tempfile::tempdir().unwrap();
    let disk = result.join(outcome["disks"][0]["file"].as_str().unwrap());
    let judge = Judge::new(&disk, machine, scratch.path()).unwrap();
    assert_eq!(judge.text("/etc/hostname").unwrap().trim(), machine.hostname);
    assert_eq!(judge.ssh_host_keys().unwrap(), machine.ssh_host_keys);
    for file in &machine.files {
        assert_eq!(judge.sha256(&file.path).unwrap(), file.sha256, "{}", file.path);
    }
    say(&format!(
        "equal to the source: host name, {} SSH host keys, {} files",
        machine.ssh_host_keys.len(),
        machine.files.len()
    ));
}

fn is_cold_cloned_over_the_network(kind: Kind, firmware: &str) {
    let (folder, say) = (tempfile::tempdir().unwrap(), commentary());
    let clone = cold_clone(kind, folder.path(), &say).unwrap();
    assert_eq!(clone.before, clone.after, "the source's disk was changed");
    let report = &clone.reported["report"];
    assert_eq!(report["firmware"]["kind"], firmware);
    assert_eq!(report["disks"][0]["identity"]["serial"], clone.machine.disk_serial.as_str());
    assert_eq!(report["nics"][0]["mac"], clone.machine.mac.as_str());
    assert_eq!(report["smbios"]["serial"], clone.machine.smbios[2].as_str());
    assert_eq!(report["guest"]["hostname"], clone.machine.hostname.as_str());
    is_its_source(&clone.machine, &clone.outcome, &clone.result, &say);
}

#[test]
fn a_bios_machine_is_cold_cloned_from_the_iso() {
    is_cold_cloned_over_the_network(Kind::A, "bios");
}

#[test]
fn a_uefi_machine_with_lvm_is_cold_cloned_from_the_iso() {
    is_cold_cloned_over_the_network(Kind::B, "uefi");
}

/// Its firmware enforces Secure Boot, and so do the VM and its boot proof: shim, GRUB and kernel are Debian's signed ones.
#[test]
#[ignore = "a conversion over the network and a boot: minutes"]
fn a_uefi_machine_with_secure_boot_is_proven_to_start_under_it() {
    let (folder, say) = (tempfile::tempdir().unwrap(), commentary());
    let secure = |hardware: &mut Hardware| {
        hardware.firmware = Firmware::Uefi { secure_boot: true, variables: None };
    };
    let clone = cold_clone_on(Kind::B, &secure, folder.path(), &say).unwrap();
    assert_eq!(clone.reported["report"]["firmware"]["secure_boot"], true, "{}", clone.reported["report"]["firmware"]);
    let definition = std::fs::read_to_string(clone.result.join("phys-b.xml")).unwrap();
    assert!(definition.contains(r#"<loader secure="yes"/>"#), "{definition}");
    is_its_source(&clone.machine, &clone.outcome, &clone.result, &say);
    let console = std::fs::read(clone.result.join("proof/serial.log")).unwrap();
    let console = String::from_utf8_lossy(&console);
    let line = console.lines().find(|line| line.contains("Secure boot enabled") || line.contains("locked down"));
    say(&format!("the kernel in the proof says: {line:?}"));
    assert!(line.is_some(), "{console}");
    assert_eq!(clone.before, clone.after, "the source's disk was changed");
}

/// Converts the machine's disk file into `folder`, with verification and boot proof.
fn convert(machine: &SourceMachine, folder: &Path, say: &dyn Fn(&str)) -> Value {
    let vconverter = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("vconverter");
    let output = Command::new(vconverter)
        .args(["--json", "convert", "--verify", "--name", &machine.hostname, "--output"])
        .arg(folder)
        .arg(&machine.disk)
        .output()
        .unwrap();
    let lines = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{lines}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "done");
    lab::tell(&last["outcome"], say);
    last["outcome"].clone()
}

/// Its kernel has virtio, but there is no room to put that into its initramfs; nor for UUIDs in its fstab.
#[test]
#[ignore = "an appliance run and a boot: minutes"]
fn a_machine_without_a_free_block_boots_on_the_bus_that_it_has() {
    let (folder, say) = (tempfile::tempdir().unwrap(), commentary());
    let machine = SourceMachine::make(Kind::C, folder.path()).unwrap();
    machine.fill_root().unwrap();
    let before = hash_file(&machine.disk).unwrap();
    let outcome = convert(&machine, folder.path(), &say);
    let result =
        |id: &str| outcome["fixups"].as_array().unwrap().iter().find(|f| f["id"] == id).unwrap()["result"].clone();
    assert_eq!((result("boot-drivers"), result("device-names")), ("left out".into(), "left out".into()));
    assert!(outcome["warnings"].to_string().contains("no room for"), "{outcome}");
    let definition = std::fs::read_to_string(folder.path().join("phys-c/phys-c.xml")).unwrap();
    assert!(!definition.contains("bus='virtio'") && !definition.contains("bus=\"virtio\""), "{definition}");
    assert_eq!((&outcome["proof"]["verdict"], &outcome["verified"]), (&"passed".into(), &true.into()), "{outcome}");
    assert_eq!(before, hash_file(&machine.disk).unwrap(), "the source's disk was changed");
}

#[test]
fn a_machine_whose_initramfs_lacks_virtio_is_converted_from_its_disk() {
    let (folder, say) = (tempfile::tempdir().unwrap(), commentary());
    let machine = SourceMachine::make(Kind::C, folder.path()).unwrap();
    let before = hash_file(&machine.disk).unwrap();
    let outcome = &convert(&machine, folder.path(), &say);
    let drivers = outcome["fixups"].as_array().unwrap().iter().find(|f| f["id"] == "boot-drivers").unwrap();
    assert_eq!(drivers["result"], "made");
    // Deleted files fill the free blocks: what is copied is what is used.
    let (copied, used) = (outcome["disks"][0]["total"].as_u64().unwrap(), machine.used_bytes());
    say(&format!("copied {copied} bytes of {used} used, on a disk of {}", machine.disk_size));
    assert!(copied < used + used / 10, "free blocks were copied: {copied} bytes for {used} used");
    assert_eq!(before, hash_file(&machine.disk).unwrap(), "the source's disk was changed");
    is_its_source(&machine, outcome, &folder.path().join("phys-c"), &say);
}
