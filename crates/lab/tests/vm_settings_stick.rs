//! Settings of the Network Configurator go on the USB stick to the next machine: set and saved by keystrokes on a machine
//! started by BIOS, used without a key on one started by UEFI with Secure Boot. Needs root.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{Boot, CONTROLLER, Kind, Site, SourceMachine, hash_file};
use qemu::{Disk, DiskBus, Firmware, Hardware, Image, MachineType, Nic, NicBackend, NicModel, SerialPort, Vm};

/// From power-on to a screen, on a loaded machine without KVM.
const PATIENCE: Duration = Duration::from_secs(600);
const UP: &str = "\x1b[A";
const DOWN: &str = "\x1b[B";
const RIGHT: &str = "\x1b[C";
const F1: &str = "\x1bOP";
const ESCAPE: &str = "\x1b";
/// Control-U: empties a field.
const CLEAR: &str = "\x15";
const ADDRESS: &str = "10.77.0.50";
const STICK_BYTES: u64 = 256 << 20;
const SETTINGS_BYTES: usize = 1 << 20;

/// Presses keys and waits for what they lead to.
fn press(vm: &Vm, keys: &str, effect: &str) {
    let mut reader = vm.serial(0).reader_from_now();
    vm.serial(0).write(keys).unwrap();
    if let Err(error) = reader.wait_for(effect, PATIENCE) {
        panic!("{error}\nserial port:\n{}", vm.serial(0).text());
    }
    println!("{keys:?} -> {effect}");
}

fn wait_for(vm: &Vm, text: &str) {
    if let Err(error) = vm.serial(0).reader().wait_for(text, PATIENCE) {
        panic!("{error}\nserial port:\n{}", vm.serial(0).text());
    }
    println!("the serial port says: {text}");
}

/// Waits until the screen shows a text.
fn wait_for_screen(vm: &Vm, text: &str) {
    let begun = Instant::now();
    loop {
        let screen = vm.text_screen().unwrap();
        if screen.contains(text) {
            return println!("the screen shows:\n{}", screen.trim_end());
        }
        assert!(begun.elapsed() < PATIENCE, "no {text:?} on the screen:\n{screen}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The ISO on a stick that is larger, as `dd` leaves it.
fn write_stick(iso: &Path, folder: &Path) -> PathBuf {
    let path = folder.join("stick.raw");
    fs::copy(iso, &path).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(STICK_BYTES).unwrap();
    path
}

/// Where the partition for settings begins, by the GPT of the ISO.
fn settings_offset(iso: &[u8]) -> usize {
    let starts = iso[1024..1024 + 128 * 128]
        .chunks(128)
        .map(|entry| usize::try_from(u64::from_le_bytes(entry[32..40].try_into().unwrap())).unwrap() * 512);
    starts.into_iter().find(|&start| iso[start + 43..].starts_with(b"VCSETTINGS")).expect("a partition for settings")
}

/// Runs one of mtools on the partition for settings.
fn mtools(stick: &Path, offset: usize, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command.arg("-i").arg(format!("{}@@{offset}", stick.display())).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn plug_stick(hardware: &mut Hardware, stick: &Path, read_only: bool) {
    let mut disk = Disk::new(Image::new(stick, "raw"), DiskBus::UsbStick);
    disk.serial = Some("STICK".into());
    disk.read_only = read_only;
    hardware.disks.insert(0, disk);
}

/// Approves a machine at the controller and confirms its code here; its report, once it is ready.
fn confirm(site: &Site, vm: &Vm, known: Option<&str>) -> (String, serde_json::Value) {
    let code = site.approve(vm).unwrap();
    wait_for(vm, &format!("Does the controller's operator see the code {code}?"));
    press(vm, "yes\r", "is trusted until the restart");
    let begun = Instant::now();
    loop {
        let machines = site.json(&["machines"]).unwrap();
        let ready = |machine: &&serde_json::Value| {
            machine["state"] == "ready" && machine["id"].as_str().is_some_and(|id| Some(id) != known)
        };
        if let Some(machine) = machines.as_array().unwrap().iter().find(ready) {
            let id = machine["id"].as_str().unwrap().to_owned();
            let shown = site.json(&["machines", "show", &id]).unwrap();
            println!("Cold Cloning Ready: {id} at {}", shown["address"]);
            assert!(shown["address"].as_str().unwrap().starts_with(ADDRESS), "{shown}");
            return (id, shown);
        }
        assert!(begun.elapsed() < PATIENCE, "{machines}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Serial numbers of the disks that a machine reports.
fn disks(shown: &serde_json::Value) -> Vec<String> {
    let disks = shown["report"]["disks"].as_array().unwrap();
    disks.iter().map(|disk| disk["identity"]["serial"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
#[ignore = "full row"]
fn settings_saved_on_the_stick_bring_the_next_machine_up_without_a_key() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(folder.path()).unwrap();
    site.lan().stop_dhcp();
    let machine = SourceMachine::make(Kind::A, folder.path()).unwrap();
    let before = hash_file(&machine.disk).unwrap();
    let iso = site.boot_image_with(&[]).unwrap();
    let stick = write_stick(&iso, folder.path());
    let iso = fs::read(iso).unwrap();
    let offset = settings_offset(&iso);

    let mut hardware = machine.hardware(Boot::Disk, NicBackend::Unplugged);
    plug_stick(&mut hardware, &stick, false);
    let (vm, cable) = site.switch_on_hardware(hardware).unwrap();
    wait_for(&vm, "settings: none were saved yet as vconverter.toml on sd");
    wait_for(&vm, "> Controller");
    press(&vm, &format!("{UP}\r"), "> IPv4");
    press(&vm, &format!("{RIGHT}{DOWN}{ADDRESS}/24{UP}{UP}{UP}\r"), "> [ Apply and test ]");
    press(&vm, &format!("{UP}{UP}{UP}{UP}"), "> Controller");
    let keys = format!("{CLEAR}{CONTROLLER}:7770{DOWN}{DOWN}{DOWN}{DOWN}{DOWN}");
    press(&vm, &keys, "> [ Save to a USB stick for the next machine ]");
    press(&vm, "\r", "settings: saved in vconverter.toml on sd");
    wait_for_screen(&vm, " Settings: saved in vconverter.toml on sd");
    press(&vm, &format!("{UP}\r"), "pairing code: ");
    let (first, shown) = confirm(&site, &vm, None);
    assert_eq!(disks(&shown), std::slice::from_ref(&machine.disk_serial), "the stick is no disk of the machine");
    vm.kill();
    drop(cable);
    assert_eq!(before, hash_file(&machine.disk).unwrap(), "the source's disk was changed");

    let saved = mtools(&stick, offset, "mtype", &["::/vconverter.toml"]);
    println!("{saved}");
    let mut written = fs::read(&stick).unwrap();
    let end = offset + SETTINGS_BYTES;
    assert_ne!(written[offset..end], iso[offset..end]);
    written[offset..end].copy_from_slice(&iso[offset..end]);
    assert!(written[..iso.len()] == iso, "something else was written to on the stick");
    assert!(written[iso.len()..].iter().all(|&byte| byte == 0), "something else was written to on the stick");

    // The same stick may carry drivers, too.
    let driver = folder.path().join("nothing.ko");
    fs::write(&driver, b"no module").unwrap();
    mtools(&stick, offset, "mmd", &["::/vconverter-drivers"]);
    mtools(&stick, offset, "mcopy", &[driver.to_str().unwrap(), "::/vconverter-drivers/"]);

    let mut hardware = Hardware::new(MachineType::Q35);
    hardware.firmware = Firmware::Uefi { secure_boot: true, variables: None };
    hardware.memory_mib = 1024;
    let blank = folder.path().join("blank.raw");
    File::create(&blank).unwrap().set_len(64 << 20).unwrap();
    let mut disk = Disk::new(Image::new(blank, "raw"), DiskBus::Ahci);
    disk.serial = Some("NEXT".into());
    hardware.disks.push(disk);
    plug_stick(&mut hardware, &stick, true);
    hardware.nics.push(Nic::new(NicModel::E1000e, "52:54:00:00:79:02", NicBackend::Unplugged));
    hardware.serial_ports.push(SerialPort::default());
    let (vm, _cable) = site.switch_on_hardware(hardware).unwrap();
    wait_for(&vm, "settings: as saved in vconverter.toml on sd");
    wait_for(&vm, &format!("eth0: {ADDRESS}/24 configured"));
    let (_, shown) = confirm(&site, &vm, Some(&first));
    assert_eq!(disks(&shown), ["NEXT"], "the stick is no disk of the machine");

    press(&vm, F1, "> Network Configurator");
    press(&vm, DOWN, "> Device Installer");
    press(&vm, "\r", "> [ Read a USB stick or CD ]");
    press(&vm, "\r", "nothing.ko refused: ");
    // Reading drivers lets a stick go; this one stays, for settings.
    assert!(!vm.serial(0).text().contains("its drivers are read; it can be removed"));

    // Its switch was moved before it went on.
    press(&vm, ESCAPE, "\x1b[2J");
    press(&vm, F1, "> Network Configurator");
    press(&vm, "\r", "> Controller");
    press(&vm, &DOWN.repeat(5), "> [ Save to a USB stick for the next machine ]");
    press(&vm, "\r", "settings: not saved: vconverter.toml on sd");
    wait_for(&vm, "it is write-protected");
}
