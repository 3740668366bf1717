//! Automated Remote Cold Cloning, unattended: from `vconverter convert --rcc --at …` to the boot proof and the source back at its own
//! login prompt, for each way into the boot image. Needs root.
#![allow(clippy::unwrap_used)]

#[path = "rcc/failures.rs"]
mod failures;
mod rcc;

use lab::{Judge, Kind, SourceMachine};
use qemu::{Firmware, Hardware, WatchdogModel};
use rcc::*;

/// Only by signatures: what the firmware would refuse, it refuses.
fn with_secure_boot(machine: &SourceMachine, hardware: &mut Hardware) {
    hardware.firmware = Firmware::Uefi { secure_boot: true, variables: machine.secure_variables.clone() };
}

/// A night of a machine. `way`: what has to be taken. `log`: what has to be in the task's log.
fn converts_and_comes_back(live: &LiveMachine, options: &[&str], way: &str, log: &[&str]) {
    let (_, plan) = live
        .site
        .vconverter(&["convert", &live.id, "--name", "dry", "--output", "/tmp", "--rcc", "--dry-run"])
        .unwrap();
    println!("{plan}");
    let mut screen = live.vm().serial(0).reader_from_now();
    let at = in_seconds(25);
    let task = live.convert(&[&["--at", &at], options].concat());
    live.sees(&mut screen, "boot image 0.");
    live.sees(&mut screen, "restore: the boot path is as it was");
    live.is_back(screen, &task);
    let ended = live.site.wait_for_task(&task, BOOT).unwrap();
    let said = live.log(&task);
    println!("{said}");
    assert_eq!(ended["state"], "done", "{}\n{}", ended["error"], live.site.controller_log());
    println!("{}", serde_json::to_string_pretty(&ended["course"]).unwrap());
    assert_eq!(ended["course"]["way"], way);
    assert_eq!(ended["outcome"]["proof"]["verdict"], "passed", "{ended}");
    for text in log {
        assert!(said.contains(text), "{text} is not in the log");
    }
    live.say(&format!("downtime: {} s", ended["downtime_seconds"]));
    // The source's agent is not in the VM.
    let result = live.site.output().join(&live.machine.hostname);
    let disk = result.join(ended["outcome"]["disks"][0]["file"].as_str().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let judge = Judge::new(&disk, &live.machine, scratch.path()).unwrap();
    assert_eq!(judge.text("/etc/hostname").unwrap().trim(), live.machine.hostname);
    for path in ["/var/lib/vconverter-agent/agent.json", "/etc/systemd/system/vconverter-agent.service"] {
        assert_eq!(judge.text(path).unwrap(), "", "{path} is in the VM");
    }
}

#[test]
fn bios_and_grub() {
    if !is_root() {
        return;
    }
    let no_kexec = "sysctl kernel.kexec_load_disabled=1";
    let live = LiveMachine::start(Kind::A, |_, hardware| hardware.watchdog = Some(WatchdogModel::Bmc), no_kexec);
    converts_and_comes_back(&live, &[], "grub", &["kexec is not possible", "it was away for"]);
}

#[test]
#[ignore = "full row"]
fn kexec() {
    if is_root() {
        let live = LiveMachine::start(Kind::A, |_, hardware| hardware.watchdog = Some(WatchdogModel::I6300Esb), "");
        converts_and_comes_back(&live, &["--way", "kexec"], "kexec", &["way: kexec"]);
    }
}

#[test]
#[ignore = "full row"]
fn uefi_with_boot_on_lvm() {
    if is_root() {
        let live = LiveMachine::start(Kind::D, |_, _| {}, "");
        converts_and_comes_back(&live, &["--accept-no-watchdog"], "boot-next", &["grub is not possible"]);
    }
}

#[test]
#[ignore = "full row"]
fn secure_boot() {
    if is_root() {
        let live = LiveMachine::start(
            Kind::D,
            with_secure_boot,
            "mokutil --sb-state 2>/dev/null || od -An -tx1 /sys/firmware/efi/efivars/SecureBoot-*",
        );
        converts_and_comes_back(&live, &["--accept-no-watchdog"], "boot-next", &["grub is not possible"]);
    }
}

#[test]
#[ignore = "full row"]
fn systemd_boot() {
    if is_root() {
        let live = LiveMachine::start(Kind::E, |_, _| {}, "");
        converts_and_comes_back(&live, &["--accept-no-watchdog", "--way", "systemd-boot"], "systemd-boot", &[]);
    }
}

#[test]
#[ignore = "full row"]
fn boot_on_the_second_disk() {
    if is_root() {
        let live = LiveMachine::start(Kind::F, |_, hardware| hardware.watchdog = Some(WatchdogModel::Bmc), "");
        converts_and_comes_back(&live, &["--way", "grub"], "grub", &[]);
    }
}

#[test]
#[ignore = "full row"]
fn a_static_address_on_a_network_without_dhcp() {
    if is_root() {
        let address = "ip address flush dev ens3; pkill dhclient; ip address add 10.77.0.50/24 dev ens3; ip address add 10.77.0.51/32 dev ens3; \
            ip route replace default via 10.77.0.1; \
            printf 'auto lo\\niface lo inet loopback\\nauto ens3\\niface ens3 inet static\\n address 10.77.0.50/24\\n gateway 10.77.0.1\\n' \
            > /etc/network/interfaces; ip -br address";
        let live = LiveMachine::start_on(Kind::A, |site| site.lan().stop_dhcp(), |_, _| {}, address);
        converts_and_comes_back(&live, &["--accept-no-watchdog", "--way", "grub"], "grub", &[]);
    }
}
