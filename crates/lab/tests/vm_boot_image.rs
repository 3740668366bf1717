//! The boot image in the hands of somebody at the machine: a controller typed on its console, a network that is not
//! there. Needs root.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::{Duration, Instant};

use lab::{Boot, CONTROLLER_NAME, Kind, Site, SourceMachine, hash_file};
use qemu::{Clock, ExitKind, Hardware, Nic, NicBackend, NicModel, Vm};

/// From power-on to a question, on a loaded machine without KVM.
const PATIENCE: Duration = Duration::from_secs(600);
const MIB: u64 = 1 << 20;

/// Machine (a) with an ISO made with these options.
struct Case {
    folder: tempfile::TempDir,
    site: Site,
    machine: SourceMachine,
    hardware: Hardware,
    /// Hash of its disk.
    before: u128,
}

impl Case {
    fn new(options: &[&str]) -> Self {
        Self::with(|_| options.iter().map(ToString::to_string).collect())
    }

    /// With options that name something of the machine.
    fn with(options: impl FnOnce(&SourceMachine) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::new(folder.path()).unwrap();
        let machine = SourceMachine::make(Kind::A, folder.path()).unwrap();
        let options = options(&machine);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let iso = site.boot_image_with(&options).unwrap();
        let hardware = machine.hardware(Boot::Iso(&iso), NicBackend::Unplugged);
        let before = hash_file(&machine.disk).unwrap();
        Self { folder, site, machine, hardware, before }
    }

    fn address(&self) -> String {
        self.site.controller_address()
    }

    /// Options of an ISO that knows the controller: where it is does not depend on the site.
    fn known() -> [&'static str; 2] {
        ["--controller", "10.77.0.2:7770"]
    }

    fn is_unchanged(&self) {
        assert_eq!(self.before, hash_file(&self.machine.disk).unwrap(), "the source's disk was changed");
    }
}

/// Waits for what is said on the serial port, from the start.
fn wait_for(vm: &Vm, text: &str) {
    if let Err(error) = vm.serial(0).reader().wait_for(text, PATIENCE) {
        panic!("{error}\n{}", vm.serial(0).text());
    }
    println!("the serial port says: {text}");
}

/// Waits until the screen shows a text.
fn wait_for_screen(vm: &Vm, text: &str) {
    let start = Instant::now();
    loop {
        let screen = vm.text_screen().unwrap();
        if screen.contains(text) {
            println!("the screen shows:\n{}", screen.trim_end());
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no {text:?} on the screen:\n{screen}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Switches the machine off by its own menu, and sees it off.
fn switch_off(vm: &Vm) {
    let mut reader = vm.serial(0).reader_from_now();
    vm.serial(0).write("p").unwrap();
    reader.wait_for("Switch this machine off?", PATIENCE).unwrap();
    vm.serial(0).write("yes\r").unwrap();
    let exit = vm.wait(PATIENCE).expect("the machine is still on");
    assert_eq!(exit.kind, ExitKind::PowerOff, "{}", vm.serial(0).text());
}

/// Types into the serial port once a question is there, and returns what was said up to the answer's effect.
fn answer(vm: &Vm, question: &str, typed: &str, effect: &str) -> String {
    let mut reader = vm.serial(0).reader_from_now();
    vm.serial(0).write(&format!("{typed}\r")).unwrap();
    let said = reader.wait_for(effect, PATIENCE);
    println!("{question} {typed} -> {effect}");
    said.unwrap_or_else(|error| panic!("{error}\n{}", vm.serial(0).text()))
}

/// The whole way with a typed address and a clock in the year 2000: the first answer is no; the second is yes; the agent is
/// ended and started again in the middle of the copy, as whoever types the address again does it.
#[test]
#[ignore = "boots and copies a machine: minutes"]
fn a_typed_controller_gets_nothing_before_somebody_at_the_machine_says_yes() {
    let mut case = Case::new(&[]);
    let (address, mut hardware) = (case.address(), case.hardware.clone());
    hardware.clock = Clock::At("2000-01-01T00:00:00".into());
    let (vm, _cable) = case.site.switch_on_hardware(hardware).unwrap();
    wait_for(&vm, "Controller (HOST:PORT): ");
    wait_for(&vm, "network: eth0: 10.77.0.");
    answer(&vm, "Controller?", &address, "pairing code: ");
    let code = case.site.approve(&vm).unwrap();
    let question = format!("Does the controller's operator see the code {code}? yes / no: ");
    wait_for(&vm, &question);
    wait_for_screen(&vm, question.trim_end());
    let machines = case.site.json(&["machines"]).unwrap();
    println!("while it is asked the controller knows: {machines}");
    assert!(machines.as_array().unwrap().iter().all(|m| m["id"].is_null() && m["state"] != "ready"), "{machines}");
    assert!(!case.site.controller_log().contains("machine reported"));

    answer(&vm, &question, "no", "is dropped, and it got nothing of the disks");
    wait_for_screen(&vm, "is left. Another one, or the right");
    assert!(!case.site.controller_log().contains("machine reported"));

    // A mistake, as it turns out: the same address again, and the same code.
    answer(&vm, "Controller?", &address, &question);
    answer(&vm, &question, "perhaps", "Please type yes or no");
    answer(&vm, &question, "yes", "is trusted until the restart");
    let id = case.site.ready_machine(PATIENCE).unwrap();

    let output = case.site.output().display().to_string();
    let arguments = ["convert", &id, "--name", "vm", "--output", &output, "--verify", "--no-prove-boot", "--detach"];
    let task = case.site.json(&arguments).unwrap()["id"].as_str().unwrap().to_string();
    let start = Instant::now();
    let at = loop {
        let task = case.site.json(&["tasks", "show", &task]).unwrap();
        assert_ne!(task["state"], "failed", "{task}");
        let done = task["progress"]["done"].as_u64().unwrap_or_default();
        if task["step"] == "copy" && done > 50 * MIB {
            break done;
        }
        assert!(start.elapsed() < PATIENCE, "{task}");
        std::thread::sleep(Duration::from_millis(200));
    };
    let mut reader = vm.serial(0).reader_from_now();
    vm.serial(0).write("c").unwrap();
    reader.wait_for("Controller (HOST:PORT): ", PATIENCE).unwrap();
    let said = answer(&vm, "Controller?", &address, "agent: ready");
    println!("the agent was ended at {} MiB and started again: {}", at / MIB, said.trim());
    assert!(said.contains("agent: ended") && said.contains("agent: started"), "{said}");
    assert!(!said.contains("operator see the code"), "it was asked again: {said}");
    let task = case.site.wait_for_task(&task, Duration::from_secs(1800)).unwrap();
    assert_eq!(task["state"], "done", "{task}");
    assert_eq!(task["outcome"]["verified"], true, "{task}");
    assert!(case.folder.path().join("vms/vm/vm.xml").is_file());
    switch_off(&vm);
    case.is_unchanged();
}

#[test]
#[ignore = "boots a machine: a minute"]
fn a_machine_without_a_network_card_says_so_and_can_be_switched_off() {
    let mut case = Case::new(&Case::known());
    case.hardware.nics.clear();
    let vm = case.hardware.start().unwrap();
    wait_for(&vm, "network: no network interface with a driver found");
    wait_for_screen(&vm, "no network interface with a driver found");
    wait_for_screen(&vm, "waiting for the network");
    switch_off(&vm);
    case.is_unchanged();
}

#[test]
#[ignore = "boots a machine: a minute"]
fn a_network_without_dhcp_is_told_and_used_as_soon_as_it_is_there() {
    let mut case = Case::new(&Case::known());
    case.site.lan().stop_dhcp();
    let (vm, _cable) = case.site.switch_on_hardware(case.hardware.clone()).unwrap();
    wait_for(&vm, "network: eth0: no DHCP server answers");
    wait_for_screen(&vm, "no DHCP server answers");
    assert_eq!(case.site.json(&["machines"]).unwrap().as_array().unwrap().len(), 0);
    assert_eq!(std::fs::read_dir(case.site.output()).unwrap().count(), 0, "nothing is half-made");
    case.site.lan().start_dhcp().unwrap();
    wait_for(&vm, "pairing code: ");
    switch_off(&vm);
    case.is_unchanged();
}

#[test]
#[ignore = "boots a machine: a minute"]
fn a_controller_is_found_by_its_name_from_a_static_address() {
    let controller = format!("{CONTROLLER_NAME}:7770");
    let options = ["--controller", &controller, "--address", "10.77.0.50/24", "--gateway", "10.77.0.1"];
    let mut case = Case::new(&[&options[..], &["--dns", "10.77.0.1"]].concat());
    let (vm, _cable) = case.site.switch_on_hardware(case.hardware.clone()).unwrap();
    let (_, id) = case.site.pair(&vm).unwrap();
    assert!(vm.serial(0).text().contains("eth0: 10.77.0.50/24 configured"), "{}", vm.serial(0).text());
    assert!(!vm.serial(0).text().contains("operator see the code"), "a pinned controller is not asked about");
    let machine = case.site.json(&["machines", "show", &id]).unwrap();
    println!("{}", machine["address"]);
    assert!(machine["address"].as_str().unwrap().starts_with("10.77.0.50"), "{machine}");
    assert_eq!(case.site.lan().address_of(&case.machine.mac), None, "it asked for an address nevertheless");
    switch_off(&vm);
    case.is_unchanged();
}

/// All that a builder may fix: a bond of two cards on a VLAN with small packets, a German keyboard, a rescue key. The machine
/// is reached by that key alone, and still is when the bond's first cable is pulled.
#[test]
#[ignore = "boots a machine: a minute"]
fn a_bond_on_a_vlan_is_used_and_the_rescue_key_opens_the_machine() {
    let keys = tempfile::tempdir().unwrap();
    let [key, other] = ["key", "other"].map(|name| {
        let path = keys.path().join(name).display().to_string();
        let status = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path]).status();
        assert!(status.unwrap().success());
        path
    });
    let second = "52:54:00:00:79:02";
    let mut case = Case::with(|machine| {
        let network = format!("bond=active-backup:{}+{second},vlan=77,mtu=1400", machine.mac);
        let public = format!("{key}.pub");
        let options = [&Case::known()[..], &["--network", &network, "--keymap", "de-latin1", "--ssh-key", &public]];
        options.concat().into_iter().map(str::to_owned).collect()
    });
    case.hardware.nics.push(Nic::new(NicModel::E1000, second, NicBackend::Unplugged));
    let _ports = [0, 1].map(|nic| case.site.lan().plug_trunk(&mut case.hardware, nic, 77).unwrap());
    let vm = case.hardware.start().unwrap();
    wait_for(&vm, "pairing code: ");
    wait_for_screen(&vm, "Pairing code; ");
    let (_, id) = case.site.pair(&vm).unwrap();
    vm.serial(0).write("\x1bOP").unwrap();
    wait_for_screen(&vm, "Start menu");
    vm.serial(0).write("\x1b[B\x1b[B\x1b[B\r").unwrap();
    wait_for_screen(&vm, "vconverter   Log");
    vm.serial(0).write("\x1b").unwrap();
    wait_for_screen(&vm, "ready");
    let machine = case.site.json(&["machines", "show", &id]).unwrap();
    let address = machine["address"].as_str().unwrap().rsplit_once(':').unwrap().0.to_owned();
    println!("ready at {address}");
    assert!(address.starts_with("10.77.0."), "{machine}");

    let mut ssh = |key: &str, command: &str| {
        let mut ssh = Command::new("ssh");
        ssh.args(["-i", key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "ConnectTimeout=30"]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes"]);
        ssh.args(["-F", "none", &format!("root@{address}"), command]);
        case.site.lan().controller().enter(&mut ssh);
        let output = ssh.output().unwrap();
        println!("ssh: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
        (output.status.success(), text(&output.stdout))
    };
    let (_, refused) = ssh(&other, "id");
    assert_eq!(refused, "", "another key opened it");
    let (is_in, said) = ssh(&key, "id; cat /proc/net/bonding/*; ip -o link");
    assert!(is_in && said.contains("uid=0"), "{said}");
    assert!(said.contains("fault-tolerance (active-backup)") && said.contains(second), "{said}");
    assert!(said.contains("mtu 1400"), "{said}");

    vm.qmp().set_link(0, false).unwrap();
    let (is_in, said) = ssh(&key, "cat /proc/net/bonding/*");
    assert!(is_in && said.lines().any(|line| line.starts_with("Currently Active Slave: ")), "{said}");
    vm.qmp().set_link(0, true).unwrap();

    // The keys of a German keyboard: where others have y there is z.
    let mut reader = vm.serial(0).reader_from_now();
    vm.qmp().send_keys(&["c"]).unwrap();
    reader.wait_for("Controller (HOST:PORT): ", PATIENCE).unwrap();
    vm.qmp().send_keys(&["y"]).unwrap();
    wait_for_screen(&vm, "(HOST:PORT): z");
    vm.kill();
    case.is_unchanged();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
