//! A server's night, whole: it is started once from the network, must be back before its copy could be over, and is given back to
//! its own system; the next time only what changed is sent; then its VM takes its place, and gives it back. Needs root.
#![allow(clippy::unwrap_used)]

#[path = "../../controller/tests/support/libvirtd.rs"]
mod libvirtd;

use std::net::Ipv6Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{Boot, Judge, Kind, Session, Site, SourceMachine, pairing_code};
use libvirtd::Libvirtd;
use qemu::NicBackend;

/// Under translation on a loaded machine a boot to the login took 15 minutes.
const BOOT: Duration = Duration::from_secs(1800);
const COMMAND: Duration = Duration::from_secs(300);

/// In so many minutes, as `--back-by` takes it.
fn in_minutes(minutes: u32) -> String {
    let date = Command::new("date").args(["-u", "-d", &format!("+{minutes} min"), "+%H:%M UTC"]).output().unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

fn log_of(site: &Site, task: &str) -> String {
    site.vconverter(&["tasks", "log", task]).unwrap().1
}

#[test]
#[ignore = "full row"]
fn a_server_goes_home_in_time_comes_back_and_hands_over_to_its_vm() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it needs root");
        return;
    }
    let begun = Instant::now();
    let say = |text: &str| println!("[{:>4} s] {text}", begun.elapsed().as_secs());
    let folder = tempfile::tempdir().unwrap();
    let machine = SourceMachine::make(Kind::A, folder.path()).unwrap();
    let mut site = Site::new(folder.path()).unwrap();
    site.start_pxe().unwrap();
    let boot_once = |site: &Site| site.json(&["pxe", "policy", &machine.mac, "boot-once"]).unwrap();
    boot_once(&site);
    let mut hardware = machine.hardware(Boot::Disk, NicBackend::Unplugged);
    hardware.nics[0].boot_rom = true;
    hardware.boot_from_network = true;
    site.lan().plug(&mut hardware, 0).unwrap();
    let vm = hardware.start().unwrap();
    let (_, id) = site.pair(&vm).unwrap();
    say("Cold Cloning Ready");

    // How long it would take, and a time by which that is not possible: a machine needs five minutes to be back.
    let output = site.output().display().to_string();
    let (_, told) = site.vconverter(&["preflight", &id, "--output", &output, "--test-links"]).unwrap();
    say(&told);
    assert!(told.contains("to be read, in about 0:"), "{told}");
    let convert =
        ["convert", &id, "--name", "phys-a", "--output", &output, "--detach", "--bandwidth", "2M", "--back-by"];
    let task = site.json(&[&convert[..], &[&in_minutes(6)]].concat()).unwrap();
    let task = task["id"].as_str().unwrap().to_owned();
    let ended = site.wait_for_task(&task, Duration::from_secs(600)).unwrap();
    say(&format!("{}: {}", ended["state"], ended["error"]));
    assert!(ended["state"] == "failed" && ended["error"].as_str().unwrap().contains("must be back by"), "{ended}");
    assert!(
        log_of(&site, &task).contains("the machine is given back: it starts its own system"),
        "{}",
        log_of(&site, &task)
    );

    let mut session = Session::login(vm.serial(0), &machine.hostname, &machine.root_password, BOOT).unwrap();
    say("its own system is there again");
    session.output("date > /srv/written-at-home && sync", COMMAND).unwrap();
    boot_once(&site);
    let mut screen = vm.serial(0).reader_from_now();
    session.output("systemctl --no-block reboot", COMMAND).unwrap();
    // Each start of the boot image has a key of its own, and so a code of its own.
    let code = pairing_code(&mut screen, BOOT).unwrap();
    site.json(&["machines", "approve", &code]).unwrap();
    assert_eq!(site.ready_machine(BOOT).unwrap(), id, "it is the same machine");
    say("Cold Cloning Ready again");

    site.json(&["tasks", "bandwidth", &task, "unlimited"]).unwrap();
    site.json(&["tasks", "back-by", &task, "never"]).unwrap();
    site.json(&["tasks", "retry", &task]).unwrap();
    let ended = site.wait_for_task(&task, BOOT).unwrap();
    let log = log_of(&site, &task);
    say(&log);
    assert_eq!(ended["state"], "done", "{ended}");
    assert_eq!(ended["outcome"]["proof"]["verdict"], "passed", "{ended}");
    let result = site.output().join("phys-a");
    let scratch = tempfile::tempdir().unwrap();
    let disk = result.join(ended["outcome"]["disks"][0]["file"].as_str().unwrap());
    let judge = Judge::new(&disk, &machine, scratch.path()).unwrap();
    say(&format!("in the VM: {}", judge.text("/srv/written-at-home").unwrap().trim()));
    drop(judge);

    // The hypervisor of the test, whose QEMU translates.
    let libvirtd = Libvirtd::start(folder.path()).expect("libvirtd");
    let definition = result.join("phys-a.xml");
    let text = std::fs::read_to_string(&definition).unwrap();
    std::fs::write(&definition, Libvirtd::without_kvm(&text)).unwrap();
    let (status, _) = site.vconverter(&["cutover", &task, "--hypervisor", &libvirtd.connection]).unwrap();
    say(&log_of(&site, &task)[log.len()..]);
    assert!(status.success(), "{status}");
    assert!(vm.wait(Duration::from_secs(60)).is_some(), "the source is switched off");
    let address = site.lan().address_of(&machine.mac).unwrap();
    assert!(log_of(&site, &task).contains(&format!("nothing answers at {address}")), "its silence was seen");
    assert_eq!(libvirtd.link_of("phys-a"), "up");
    let address = wait_for_ssh(&libvirtd, &machine);
    say(&format!("the VM answers at {address} with the source's SSH host keys"));

    let (status, _) = site.vconverter(&["cutover", &task, "--undo"]).unwrap();
    let log = log_of(&site, &task);
    say(&log[log.len().saturating_sub(400)..]);
    assert!(status.success(), "{status}");
    assert_eq!(libvirtd.link_of("phys-a"), "down");
}

/// Waits until the VM answers on the hypervisor's network as the source did: with its SSH host keys.
fn wait_for_ssh(libvirtd: &Libvirtd, machine: &SourceMachine) -> String {
    let address = format!("{}%br0", link_local(&machine.mac));
    let begun = Instant::now();
    loop {
        let scan = libvirtd.inside("ssh-keyscan").args(["-T", "10", &address]).output().unwrap();
        let said = String::from_utf8_lossy(&scan.stdout).into_owned();
        let mut keys: Vec<_> = said.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect();
        keys.sort();
        if keys == machine.ssh_host_keys {
            return address;
        }
        assert!(begun.elapsed() < BOOT, "{address}: {said}{}", String::from_utf8_lossy(&scan.stderr));
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// The address that a NIC gives itself (RFC 4291, appendix A).
fn link_local(mac: &str) -> Ipv6Addr {
    let mac: Vec<u16> = mac.split(':').map(|byte| u16::from_str_radix(byte, 16).unwrap()).collect();
    let [a, b, c, d, e, f] = mac[..] else { panic!("no MAC address: {mac:?}") };
    Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
}
