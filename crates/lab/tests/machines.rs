//! The source machines, started on the hardware that they believe to be. Needs root and minutes: `--ignored`.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use lab::{Boot, CONTROLLER, Kind, Lan, Session, SourceMachine, hash_file};

/// On an idle machine a boot takes half a minute and a command a second; under translation on a loaded one 910 s to the
/// login were seen.
const BOOT: Duration = Duration::from_secs(1800);
const COMMAND: Duration = Duration::from_secs(300);

/// Boots the machine in a LAN of its own, logs in on its serial console and compares it with its facts.
fn boots_and_is_itself(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let machine = SourceMachine::make(kind, folder.path()).unwrap();
    let before = hash_file(&machine.disk).unwrap();
    let mut lan = Lan::new().unwrap();
    let mut hardware = machine.hardware(Boot::Disk, qemu::NicBackend::Unplugged);
    hardware.disks[0].snapshot = true;
    let cable = lan.plug(&mut hardware, 0).unwrap();
    let start = Instant::now();
    let vm = hardware.start().unwrap();
    let mut session = Session::login(vm.serial(0), &machine.hostname, &machine.root_password, BOOT).unwrap();
    println!("{}: login after {:.0?}, {:.0?} CPU", machine.hostname, start.elapsed(), vm.cpu_time().unwrap());

    assert_eq!(session.output("hostname", COMMAND).unwrap().trim(), machine.hostname);
    let sums = session.run("cd /srv/lab && sha256sum -c SHA256SUMS", COMMAND).unwrap();
    assert_eq!((sums.status, sums.output.matches(": OK").count()), (0, machine.files.len()), "{}", sums.output);
    let keys = session.output("cut -d' ' -f1,2 /etc/ssh/ssh_host_*.pub | sort", COMMAND).unwrap();
    assert_eq!(keys.lines().collect::<Vec<_>>(), machine.ssh_host_keys);
    let swap = session.output("tail -n +2 /proc/swaps", COMMAND).unwrap();
    let has_swap = matches!(kind, Kind::A | Kind::B | Kind::C);
    assert_eq!(swap.lines().count(), usize::from(has_swap), "{swap}");
    let serial = session.output("cat /sys/class/dmi/id/product_serial", COMMAND).unwrap();
    assert_eq!(serial.trim(), machine.smbios[2]);
    let disk = session.output("udevadm info -q property -n sda | grep ^ID_SERIAL_SHORT=", COMMAND).unwrap();
    assert_eq!(disk.trim(), format!("ID_SERIAL_SHORT={}", machine.disk_serial));

    // The network: an address by DHCP, and the controller's host until the cable is cut.
    let address =
        session.output("for i in $(seq 60); do hostname -I | grep 10.77 && break; sleep 1; done", COMMAND * 2);
    assert_eq!(address.unwrap().trim().parse().ok(), lan.address_of(&machine.mac), "{}", lan.dhcp_log());
    let probe = format!("timeout 5 bash -c 'exec 3<>/dev/tcp/{CONTROLLER}/9'; echo $?");
    assert!(session.output(&probe, COMMAND).unwrap().contains("refused"));
    lan.cut(&cable).unwrap();
    assert!(!session.output(&probe, COMMAND).unwrap().contains("refused"));

    drop(vm);
    assert_eq!(hash_file(&machine.disk).unwrap(), before);
}

#[test]
#[ignore = "boots a machine: minutes"]
fn machine_a_boots_and_is_itself() {
    boots_and_is_itself(Kind::A);
}

#[test]
#[ignore = "boots a machine: minutes"]
fn machine_d_boots_and_is_itself() {
    boots_and_is_itself(Kind::D);
}

#[test]
#[ignore = "boots a machine: minutes"]
fn machine_e_boots_and_is_itself() {
    boots_and_is_itself(Kind::E);
}

#[test]
#[ignore = "boots a machine: minutes"]
fn machine_f_boots_and_is_itself() {
    boots_and_is_itself(Kind::F);
}

#[test]
#[ignore = "boots a machine: minutes"]
fn machine_c_boots_and_is_itself() {
    boots_and_is_itself(Kind::C);
}

/// (b) has no serial console: its firmware's boot entry, GRUB, kernel, initramfs and LVM have worked when it asks the
/// DHCP server for an address, and its SSH server answers.
#[test]
#[ignore = "boots a machine: minutes"]
fn machine_b_boots_by_its_firmware_entry_and_offers_ssh() {
    let folder = tempfile::tempdir().unwrap();
    let machine = SourceMachine::make(Kind::B, folder.path()).unwrap();
    let mut lan = Lan::new().unwrap();
    let mut hardware = machine.hardware(Boot::Disk, qemu::NicBackend::Unplugged);
    hardware.disks[0].snapshot = true;
    lan.plug(&mut hardware, 0).unwrap();
    let start = Instant::now();
    let vm = hardware.start().unwrap();
    let address = loop {
        if let Some(address) = lan.address_of(&machine.mac) {
            break address;
        }
        assert!(start.elapsed() < BOOT, "no address; serial port:\n{}\n{}", vm.serial(0).text(), lan.dhcp_log());
        std::thread::sleep(Duration::from_secs(1));
    };
    let script = format!("timeout 60 bash -c 'exec 3<>/dev/tcp/{address}/22; head -c 8 <&3'");
    let banner = loop {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]);
        let output = lan.controller().enter(&mut command).output().unwrap();
        if output.status.success() {
            break output.stdout;
        }
        assert!(start.elapsed() < BOOT, "no answer from {address}");
        std::thread::sleep(Duration::from_secs(3));
    };
    assert_eq!(banner, b"SSH-2.0-");
    println!("{}: ssh after {:.0?}, {:.0?} CPU", machine.hostname, start.elapsed(), vm.cpu_time().unwrap());
    assert!(!vm.serial(0).text().contains("login:"));
}
