//! The Device Installer on a machine whose three disk controllers have no driver in the boot image: they are listed by
//! name, and the drivers come from a USB stick, from a URL and from the controller, without a restart. The machine is then
//! converted. Needs root.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bootimage::{BuildOptions, KernelChoice, Programs, build_boot_image, load_kernel};
use lab::{Boot, CONTROLLER, Kind, Site, SourceMachine, hash_file};
use qemu::{
    Disk, DiskBus, Firmware, Hardware, HbaModel, Image, MachineType, Nic, NicBackend, NicModel, SerialPort, Vm,
};

/// From power-on to a screen, on a loaded machine without KVM.
const PATIENCE: Duration = Duration::from_secs(600);
const UP: &str = "\x1b[A";
const DOWN: &str = "\x1b[B";
const F1: &str = "\x1bOP";
const ESCAPE: &str = "\x1b";
const HTTP_PORT: u16 = 8080;

/// The drivers that the boot image lacks: of the system's disk, and of two others.
const WITHOUT: [&str; 3] = ["megaraid_sas", "mptsas", "sym53c8xx"];

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

/// A boot image for the site's controller without the drivers, and these, by their names.
fn boot_image(site: &Site, folder: &Path) -> (PathBuf, Vec<PathBuf>) {
    let mut options = BuildOptions::new(folder.join("boot")).unwrap();
    options.kernel = KernelChoice::Cached;
    options.programs = Programs::beside_executable().unwrap();
    options.controller = Some(site.controller_address());
    options.ca_fingerprint = site.json(&["status"]).unwrap()["ca_fingerprint"].as_str().map(str::to_owned);
    options.without = WITHOUT.map(str::to_owned).to_vec();
    let built = build_boot_image(&options, &mut |line| println!("{line}")).unwrap();
    let modules = load_kernel(&KernelChoice::Cached, &mut |_| {}).unwrap().modules;
    let driver = |name: &str| {
        let found = Command::new("find").arg(&modules).args(["-name", &format!("{name}.ko")]).output().unwrap();
        PathBuf::from(String::from_utf8(found.stdout).unwrap().trim())
    };
    (built.media.unwrap().iso, WITHOUT.map(driver).to_vec())
}

/// A stick with a folder for us, and a file that is none of our business.
fn stick(folder: &Path, driver: &Path) -> PathBuf {
    let path = folder.join("stick.raw");
    File::create(&path).unwrap().set_len(32 << 20).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(["-i", path.to_str().unwrap()]).args(arguments).status().unwrap();
        assert!(status.success(), "{program}");
    };
    run("mformat", &["-T", "65536", "-h", "64", "-s", "32", "::"]);
    run("mmd", &["::/vconverter-drivers"]);
    run("mcopy", &[driver.to_str().unwrap(), "::/vconverter-drivers/"]);
    path
}

/// Answers every connection with the file.
fn serve(listener: TcpListener, file: PathBuf) {
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut asked = [0; 4096];
            let length = socket.read(&mut asked).unwrap_or(0);
            println!("asked: {}", String::from_utf8_lossy(&asked[..length]).lines().next().unwrap_or_default());
            let content = fs::read(&file).unwrap();
            let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len());
            let _ = socket.write_all(&content);
        }
    });
}

fn disk(folder: &Path, name: &str, bus: DiskBus) -> Disk {
    let path = folder.join(format!("{name}.raw"));
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let mut disk = Disk::new(Image::new(path, "raw"), bus);
    disk.serial = Some(name.to_uppercase());
    disk
}

/// Waits until the machine reports disks with these serial numbers, and no others.
fn reports_disks(site: &Site, machine: &str, serials: &[&str]) {
    let begun = Instant::now();
    let mut wanted: Vec<&str> = serials.to_vec();
    wanted.sort_unstable();
    loop {
        let shown = site.json(&["machines", "show", machine]).unwrap();
        let disks = shown["report"]["disks"].as_array().cloned().unwrap_or_default();
        let mut found: Vec<String> =
            disks.iter().map(|disk| disk["identity"]["serial"].as_str().unwrap_or_default().to_owned()).collect();
        found.sort_unstable();
        if found == wanted {
            println!("reported after {} s: {found:?}", begun.elapsed().as_secs());
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "expected {wanted:?}, found {found:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
#[ignore = "full row"]
fn disks_without_a_driver_get_it_from_a_stick_a_url_and_the_controller_and_are_converted() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(folder.path()).unwrap();
    let (iso, drivers) = boot_image(&site, folder.path());
    let [megaraid_sas, mptsas, sym53c8xx] = drivers.as_slice() else { panic!("{drivers:?}") };
    let machine = SourceMachine::make(Kind::A, folder.path()).unwrap();
    let before = hash_file(&machine.disk).unwrap();
    let listener = site.lan().controller().inside(|| TcpListener::bind((CONTROLLER, HTTP_PORT))).unwrap().unwrap();
    serve(listener, mptsas.clone());

    let mut hardware = machine.hardware(Boot::Iso(&iso), NicBackend::Unplugged);
    hardware.disks[0].bus = DiskBus::Scsi(HbaModel::MegaSas);
    hardware.disks.push(disk(folder.path(), "second", DiskBus::Scsi(HbaModel::MptSas1068)));
    hardware.disks.push(disk(folder.path(), "third", DiskBus::Scsi(HbaModel::Lsi53c895a)));
    hardware.disks.push(Disk::new(Image::new(stick(folder.path(), sym53c8xx), "raw"), DiskBus::UsbStick));
    let (vm, _cable) = site.switch_on_hardware(hardware).unwrap();
    wait_for(&vm, "MegaRAID SAS 1078 [1000:0060]: lacks the module megaraid_sas, which this boot image has not");
    wait_for(&vm, "[1000:0054]: lacks the module mptsas, which this boot image has not");
    wait_for(&vm, "[1000:0012]: lacks the module sym53c8xx, which this boot image has not");
    let (_, id) = site.pair(&vm).unwrap();

    press(&vm, F1, "> Network Configurator");
    press(&vm, DOWN, "> Device Installer");
    press(&vm, "\r", "> [ Read a USB stick or CD ]");
    println!("the screen shows:\n{}", vm.text_screen().unwrap().trim_end());
    press(&vm, &format!("{UP}\r"), "It lacks the module");
    println!("a device:\n{}", vm.text_screen().unwrap().trim_end());
    press(&vm, "\r", "Fetch from URL");
    press(&vm, &format!("{DOWN}\r"), "sym53c8xx.ko installed: sym53c8xx is loaded");
    reports_disks(&site, &id, &["THIRD"]);
    println!("after the stick:\n{}", vm.text_screen().unwrap().trim_end());

    let url = format!("http://{CONTROLLER}:{HTTP_PORT}/mptsas.ko");
    press(&vm, &format!("{DOWN}{url}\r"), "mptsas.ko installed: mptsas is loaded");
    reports_disks(&site, &id, &["SECOND", "THIRD"]);
    press(&vm, ESCAPE, "\x1b[2J");

    let file = megaraid_sas.display().to_string();
    let added = site.json(&["drivers", "add", &file]).unwrap();
    println!("{added}");
    assert_eq!(added[0]["modules"][0], "megaraid_sas", "{added}");
    let pushed = site.json(&["drivers", "push", &id]).unwrap();
    println!("{pushed}");
    assert_eq!((&pushed[0]["installed"], &pushed[0]["text"]), (&true.into(), &"megaraid_sas is loaded".into()));
    reports_disks(&site, &id, &[&machine.disk_serial, "SECOND", "THIRD"]);
    let shown = site.json(&["machines", "show", &id]).unwrap();
    println!("{}", shown["report"]["guest"]);

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

/// A module without the signature at its end (`struct module_signature` and a mark, Linux, include/linux/module_signature.h).
fn unsigned(module: &[u8]) -> Vec<u8> {
    let body = module.strip_suffix(b"~Module signature appended~\n").expect("a signed module");
    let (body, length) = body.split_at(body.len() - 4);
    let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
    body[..body.len() - 8 - length].to_vec()
}

/// The same module as if it were for another kernel, whose name is as long.
fn for_another_kernel(module: &[u8], release: &str, other: &str) -> Vec<u8> {
    assert_eq!(release.len(), other.len());
    let vermagic = format!("vermagic={release}");
    let at = module.windows(vermagic.len()).position(|window| window == vermagic.as_bytes()).expect("a vermagic");
    let mut changed = module.to_vec();
    changed[at + "vermagic=".len()..at + vermagic.len()].copy_from_slice(other.as_bytes());
    changed
}

#[test]
#[ignore = "full row"]
fn under_secure_boot_an_unsigned_module_and_one_for_another_kernel_are_refused_with_what_takes_them() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(folder.path()).unwrap();
    let (iso, drivers) = boot_image(&site, folder.path());
    let signed = fs::read(&drivers[0]).unwrap();
    let mut hardware = Hardware::new(MachineType::Q35);
    hardware.firmware = Firmware::Uefi { secure_boot: true, variables: None };
    hardware.memory_mib = 1024;
    hardware.cdrom = Some(iso);
    hardware.boot_from_cdrom = true;
    hardware.disks.push(disk(folder.path(), "first", DiskBus::Scsi(HbaModel::MegaSas)));
    hardware.nics.push(Nic::new(NicModel::E1000e, "52:54:00:00:78:01", NicBackend::Unplugged));
    hardware.serial_ports.push(SerialPort::default());
    let (vm, _cable) = site.switch_on_hardware(hardware).unwrap();
    let (_, id) = site.pair(&vm).unwrap();
    let push = |content: &[u8]| {
        let path = folder.path().join("megaraid_sas.ko");
        fs::write(&path, content).unwrap();
        site.json(&["drivers", "add", path.to_str().unwrap()]).unwrap();
        let (status, said) = site.vconverter(&["drivers", "push", &id, "megaraid_sas.ko"]).unwrap();
        println!("{status}: {said}");
        (status.code(), said)
    };
    let build = "vconverter boot-image build";
    let (code, said) = push(&unsigned(&signed));
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("megaraid_sas.ko is not signed: this kernel refuses it under Secure Boot, and trusts"),
        "{said}"
    );
    assert!(said.contains(&format!("{build} --add-driver megaraid_sas.ko")), "{said}");

    let kernel = load_kernel(&KernelChoice::Cached, &mut |_| {}).unwrap().release;
    let other = kernel.replace("6.1.0", "6.0.9");
    let (code, said) = push(&for_another_kernel(&signed, &kernel, &other));
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains(&format!("it is for Linux {other}, and this boot image has {kernel}")), "{said}");
    assert!(said.contains(&format!("{build} --kernel linux-image-{other} --add-driver megaraid_sas.ko")), "{said}");

    let (code, said) = push(&signed);
    assert_eq!((code, said.contains("megaraid_sas is loaded")), (Some(0), true), "{said}");
    reports_disks(&site, &id, &["FIRST"]);
}
