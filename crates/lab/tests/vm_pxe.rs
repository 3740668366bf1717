//! Machines with the network first in their firmware's order: what each firmware does with the PXE service beside an
//! ordinary DHCP server. Without a policy it comes back to its own system; with *boot once* it reaches Cold Cloning Ready
//! without a key; F8 does the same by hand. Needs root.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::{Boot, Kind, Lan, Site, SourceMachine, hash_file};
use netboot::{BootFiles, Client, Options, Policy, Ruling, Service};
use qemu::{Disk, DiskBus, Firmware, FwCfg, Hardware, Image, MachineType, Nic, NicBackend, NicModel, SerialPort, Vm};
use serde_json::json;
use tempfile::TempDir;

const MAC: &str = "52:54:00:00:77:01";
/// Firmware waits for several things that do not come, and the machine of the test may be loaded.
const PATIENCE: Duration = Duration::from_secs(900);

/// Firmware with the network first.
#[derive(Clone, Copy, PartialEq)]
enum Start {
    /// SeaBIOS with the card's PXE ROM.
    Bios,
    /// OVMF's own PXE.
    UefiPxe,
    /// OVMF's HTTP boot.
    UefiHttp,
    /// The same with Secure Boot on.
    UefiHttpSecure,
}

impl Start {
    fn hardware(self) -> Hardware {
        let is_bios = self == Self::Bios;
        let mut hardware = Hardware::new(if is_bios { MachineType::Pc } else { MachineType::Q35 });
        if !is_bios {
            hardware.firmware = Firmware::Uefi { secure_boot: self == Self::UefiHttpSecure, variables: None };
            // It would try IPv6 for minutes.
            hardware.fw_cfg.push(FwCfg { name: "opt/org.tianocore/IPv6Support".into(), content: "n".into() });
        }
        hardware.memory_mib = 512;
        let model = if is_bios { NicModel::E1000 } else { NicModel::Virtio };
        let nic = Nic::new(model, MAC, NicBackend::Unplugged);
        hardware.nics.push(Nic { boot_rom: is_bios, ..nic });
        hardware.boot_from_network = true;
        hardware.smbios.uuid = Some("4c4c4544-0042-3510-8052-b4c04f4e3132".into());
        hardware.serial_ports.push(SerialPort::default());
        hardware
    }
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: not root");
    }
    root
}

struct NoPolicy;
impl Policy for NoPolicy {
    fn rule(&self, client: &Client) -> Ruling {
        // iPXE and EDK2 write its first fields in different orders.
        let known = client.uuids().iter().any(|uuid| uuid == "4c4c4544-0042-3510-8052-b4c04f4e3132");
        Ruling { why: if known { "known by its UUID".into() } else { "another UUID".into() }, ..Ruling::UNKNOWN }
    }
}

/// A disk whose system says `OWN DISK` on the serial port.
fn own_disk(start: Start, folder: &Path) -> Disk {
    let path = folder.join("own.raw");
    if start == Start::Bios {
        // ds = 0; for each byte at 7c15: out 3f8; then halt.
        let code = b"\x31\xc0\x8e\xd8\xbe\x15\x7c\xac\x84\xc0\x74\x06\xba\xf8\x03\xee\xeb\xf5\xf4\xeb\xfd";
        let mut sectors = [code.as_slice(), b"OWN DISK\r\n\0"].concat();
        sectors.resize(510, 0);
        sectors.extend_from_slice(&[0x55, 0xaa]);
        sectors.resize(1 << 20, 0);
        std::fs::write(&path, sectors).unwrap();
        return Disk::new(Image::new(path, "raw"), DiskBus::Ide);
    }
    // The signed chain, so that it is taken under Secure Boot too. The firmware's console is on the serial port.
    let script = "printf 'echo OWN DISK\\nsleep 600\\n' > grub.cfg && \
        truncate -s 16M own.raw && mformat -i own.raw -T 32768 -h 16 -s 63 :: && \
        mmd -i own.raw ::/EFI ::/EFI/BOOT ::/EFI/debian && mcopy -i own.raw grub.cfg ::/EFI/debian/ && \
        mcopy -i own.raw /usr/lib/shim/shimx64.efi.signed ::/EFI/BOOT/BOOTX64.EFI && \
        mcopy -i own.raw /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed ::/EFI/BOOT/grubx64.efi";
    assert!(Command::new("sh").args(["-c", script]).current_dir(folder).status().unwrap().success());
    Disk::new(Image::new(path, "raw"), DiskBus::Ahci)
}

/// The service with files that nobody gets, a machine without a policy, and no key.
fn comes_back_to_its_own_disk(start: Start) {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut lan = Lan::new().unwrap();
    let mut files = BootFiles::default();
    for name in ["undionly.kpxe", "vmlinuz", "initramfs.img", "boot.efi", "vconverter.iso"] {
        files.insert(name, b"not to be started".to_vec());
    }
    let options = Options {
        interfaces: Vec::new(),
        http_port: 80,
        files,
        policy: Arc::new(NoPolicy),
        findings: Box::new(|_| {}),
    };
    let service = lan.controller().inside(|| Service::start(options)).unwrap().unwrap();
    let mut hardware = start.hardware();
    hardware.disks.push(own_disk(start, folder.path()));
    lan.plug(&mut hardware, 0).unwrap();
    let (vm, begun) = (hardware.start().unwrap(), Instant::now());
    let started = vm.serial(0).reader().wait_for("OWN DISK", PATIENCE);
    println!("own disk {} s after power-on", begun.elapsed().as_secs());
    let records = service.log().records(0, 100);
    for record in &records {
        println!("{}: {} ({})", record.request, record.answer, record.why);
    }
    println!("{}\n{}", vm.text_screen().unwrap(), vm.serial(0).text());
    started.unwrap();
    let menu = records.iter().find(|record| record.answer.starts_with("menu: own disk after 10 s")).expect("a menu");
    assert_eq!(menu.why, "known by its UUID");
    assert!(!records.iter().any(|record| record.request.starts_with("TFTP")), "it fetched a boot file");
}

#[test]
fn a_bios_machine_without_a_policy_comes_back_to_its_own_disk() {
    comes_back_to_its_own_disk(Start::Bios);
}

#[test]
#[ignore = "full row"]
fn a_uefi_machine_without_a_policy_comes_back_to_its_own_disk() {
    comes_back_to_its_own_disk(Start::UefiPxe);
}

#[test]
#[ignore = "full row"]
fn a_uefi_machine_with_secure_boot_and_without_a_policy_comes_back_to_its_own_disk() {
    comes_back_to_its_own_disk(Start::UefiHttpSecure);
}

/// A folder, and a site in it with the PXE service and a boot image for its controller; nothing without root.
fn site() -> Option<(TempDir, Site)> {
    if !root() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(folder.path()).unwrap();
    site.start_pxe().unwrap();
    Some((folder, site))
}

fn tell_pxe_log(site: &Site) -> String {
    let (_, log) = site.vconverter(&["pxe", "log"]).unwrap();
    println!("{log}");
    log
}

/// What the boot image says of it in its log.
fn tell_memory(vm: &Vm) {
    let text = vm.serial(0).text();
    let line = text.lines().find(|line| line.contains("vconverter: memory: ")).expect("a line about memory");
    println!("{line}");
}

/// From power-on to Cold Cloning Ready; the pairing code is compared on the serial console.
fn becomes_ready(site: &Site, vm: &Vm) -> String {
    let begun = Instant::now();
    let paired = site.pair(vm);
    println!("{} s after power-on", begun.elapsed().as_secs());
    let log = tell_pxe_log(site);
    let (_, id) = paired.unwrap_or_else(|error| {
        let text = vm.serial(0).text();
        panic!("{error}\n{}\n{}", vm.text_screen().unwrap(), &text[text.len().saturating_sub(3000)..])
    });
    tell_memory(vm);
    let shown = site.json(&["machines", "show", &id]).unwrap();
    assert_eq!(shown["cold_cloning_ready"], true, "{shown}");
    assert!(log.contains("policy: boot once") || log.contains("chosen from the menu by a key"), "{log}");
    id
}

fn boots_once(start: Start) {
    let Some((_folder, mut site)) = site() else { return };
    let boot_once = |site: &Site| drop(site.json(&["pxe", "policy", MAC, "boot-once"]).unwrap());
    // OVMF tries PXE first. Under Secure Boot it refuses what it gets there and goes on to HTTP boot by itself.
    let is_set_late = start == Start::UefiHttp;
    if !is_set_late {
        boot_once(&site);
    }
    let mut hardware = start.hardware();
    site.lan().plug(&mut hardware, 0).unwrap();
    let vm = hardware.start().unwrap();
    if is_set_late {
        vm.serial(0).reader().wait_for("HTTP Boot over IPv4", PATIENCE).unwrap();
        boot_once(&site);
    }
    becomes_ready(&site, &vm);
    assert_eq!(
        site.json(&["pxe", "policy"]).unwrap(),
        json!([]),
        "boot once is used up when the image has reported in"
    );
    let machines = site.json(&["machines"]).unwrap();
    let is_by_http = matches!(start, Start::UefiHttp | Start::UefiHttpSecure);
    assert_eq!(machines[0]["boot_medium"], if is_by_http { "uefi-http" } else { "pxe" }, "{}", machines[0]);
    if start == Start::UefiHttpSecure {
        assert_eq!(machines[0]["report"]["firmware"]["secure_boot"], true, "{}", machines[0]["report"]["firmware"]);
    }
}

#[test]
#[ignore = "full row"]
fn uefi_pxe_reaches_cold_cloning_ready_with_boot_once() {
    boots_once(Start::UefiPxe);
}

#[test]
#[ignore = "full row"]
fn uefi_http_boot_reaches_cold_cloning_ready_with_boot_once() {
    boots_once(Start::UefiHttp);
}

#[test]
#[ignore = "full row"]
fn uefi_http_boot_with_secure_boot_reaches_cold_cloning_ready_with_boot_once() {
    boots_once(Start::UefiHttpSecure);
}

/// What the service advises where Secure Boot is on and there is no HTTP boot: the machine's own answers stay away.
#[test]
#[ignore = "full row"]
fn uefi_pxe_with_secure_boot_reaches_cold_cloning_ready_where_the_dhcp_server_names_the_service() {
    let Some((_folder, mut site)) = site() else { return };
    site.json(&["pxe", "policy", MAC, "ignore"]).unwrap();
    site.lan().name_boot_file("shimx64.efi").unwrap();
    let mut hardware = Start::UefiHttpSecure.hardware();
    site.lan().plug(&mut hardware, 0).unwrap();
    let vm = hardware.start().unwrap();
    let begun = Instant::now();
    let paired = site.pair(&vm);
    println!("{} s after power-on", begun.elapsed().as_secs());
    let log = tell_pxe_log(&site);
    let (_, id) = paired.unwrap_or_else(|error| panic!("{error}\n{}", vm.serial(0).text()));
    let shown = site.json(&["machines", "show", &id]).unwrap();
    assert_eq!((&shown["cold_cloning_ready"], &shown["boot_medium"]), (&json!(true), &json!("pxe")), "{shown}");
    assert_eq!(shown["report"]["firmware"]["secure_boot"], true, "{}", shown["report"]["firmware"]);
    assert!(log.contains("TFTP /grubx64.efi") || log.contains("TFTP grubx64.efi"), "{log}");
}

#[test]
#[ignore = "full row"]
fn a_bios_machine_reaches_cold_cloning_ready_by_f8() {
    let Some((_folder, mut site)) = site() else { return };
    let mut hardware = Start::Bios.hardware();
    site.lan().plug(&mut hardware, 0).unwrap();
    let vm = hardware.start().unwrap();
    let press = |key: &str| vm.qmp().send_keys(&[key]).unwrap();
    let begun = Instant::now();
    let wait_for_screen = |text: &str| {
        while !vm.text_screen().unwrap().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "no {text:?}: {}", vm.text_screen().unwrap());
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    // Not before it is asked for: this ROM takes a key pressed earlier for another.
    wait_for_screen("F8: ");
    press("f8");
    wait_for_screen("own disk");
    press("down");
    std::thread::sleep(Duration::from_secs(1));
    press("ret");
    becomes_ready(&site, &vm);
}

#[test]
#[ignore = "full row"]
fn a_bios_machine_started_by_pxe_is_converted_with_boot_proof() {
    let Some((folder, mut site)) = site() else { return };
    let machine = SourceMachine::make(Kind::A, folder.path()).unwrap();
    let before = hash_file(&machine.disk).unwrap();
    site.json(&["pxe", "policy", &machine.mac, "boot-once"]).unwrap();
    let mut hardware = machine.hardware(Boot::Disk, NicBackend::Unplugged);
    hardware.nics[0].boot_rom = true;
    hardware.boot_from_network = true;
    site.lan().plug(&mut hardware, 0).unwrap();
    let vm = hardware.start().unwrap();
    let id = becomes_ready(&site, &vm);
    let output = site.output().display().to_string();
    let task = site.json(&["convert", &id, "--name", "phys-a", "--output", &output, "--detach"]).unwrap();
    let task = site.wait_for_task(task["id"].as_str().unwrap(), Duration::from_secs(1800)).unwrap();
    vm.kill();
    assert_eq!(task["state"], "done", "{task}");
    let proof = &task["outcome"]["proof"];
    println!("boot proof: {proof}");
    assert_eq!(proof["verdict"], "passed", "{proof}");
    assert_eq!(hash_file(&machine.disk).unwrap(), before, "the source's disk was changed");
}
