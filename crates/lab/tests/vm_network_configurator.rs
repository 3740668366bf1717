//! The Network Configurator driven by keystrokes on a serial console: from a network without DHCP to an approved machine.
//! Needs root.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use lab::{Boot, CONTROLLER, CONTROLLER_NAME, GATEWAY, Kind, Site, SourceMachine, hash_file};
use qemu::{NicBackend, Vm};

/// From power-on to a screen, on a loaded machine without KVM.
const PATIENCE: Duration = Duration::from_secs(600);

const UP: &str = "\x1b[A";
const DOWN: &str = "\x1b[B";
const RIGHT: &str = "\x1b[C";
/// Control-U: empties a field.
const CLEAR: &str = "\x15";

/// Presses keys and waits for what they lead to.
fn press(vm: &Vm, keys: &str, effect: &str) {
    let mut reader = vm.serial(0).reader_from_now();
    vm.serial(0).write(keys).unwrap();
    if let Err(error) = reader.wait_for(effect, PATIENCE) {
        panic!("{error}\nserial port:\n{}", vm.serial(0).text());
    }
    println!("{keys:?} -> {effect}");
}

/// A line of a form that has the focus.
fn focused(label: &str, content: &str) -> String {
    format!("> {label:<18}{content}")
}

/// Types a controller into its field, which has the focus, and goes back to it; each way ends with its own words.
fn try_controller(vm: &Vm, controller: &str, words: &str) {
    press(vm, &format!("{CLEAR}{controller}\r"), words);
    press(vm, UP, &focused("Controller", &format!("{controller}_")));
}

#[test]
#[ignore = "boots a machine: minutes"]
fn a_machine_without_dhcp_is_brought_to_its_approval_by_keystrokes() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(folder.path()).unwrap();
    site.lan().stop_dhcp();
    let machine = SourceMachine::make(Kind::A, folder.path()).unwrap();
    let before = hash_file(&machine.disk).unwrap();
    let iso = site.boot_image_with(&[]).unwrap();
    let (vm, _cable) = site.switch_on_hardware(machine.hardware(Boot::Iso(&iso), NicBackend::Unplugged)).unwrap();
    let mut reader = vm.serial(0).reader();
    reader.wait_for("the Network Configurator is on the screen", PATIENCE).unwrap();
    reader.wait_for("> Controller", PATIENCE).unwrap();
    println!("the screen shows:\n{}", vm.text_screen().unwrap().trim_end());

    // Without an address there is no way.
    try_controller(&vm, "198.51.100.1:7770", "no address: no DHCP server answers");

    // The interface is the line above; static, with a gateway that is not there.
    press(&vm, &format!("{UP}\r"), &focused("IPv4", "< DHCP >"));
    press(&vm, &format!("{RIGHT}{DOWN}10.77.0.50/24{DOWN}10.77.0.99"), &focused("Gateway", "10.77.0.99_"));
    println!("the form:\n{}", vm.text_screen().unwrap().trim_end());
    press(&vm, &format!("{UP}{UP}{UP}{UP}\r"), "> [ Apply and test ]");
    press(&vm, "\r", "no route: gateway 10.77.0.99 does not answer or knows no way to 198.51.100.1");
    // From the button up to the controller.
    press(&vm, &format!("{UP}{UP}{UP}{UP}"), "> Controller");
    try_controller(&vm, "10.77.0.77:7770", "nobody answers for 10.77.0.77");
    try_controller(&vm, &format!("{GATEWAY}:7770"), "refused: 10.77.0.1 answers, but nothing listens on port 7770");
    try_controller(&vm, &format!("{CONTROLLER_NAME}:7770"), "no name server is known to ask");
    press(&vm, &format!("{DOWN}10.77.0.98\r"), "> Computer name");
    press(&vm, &format!("{UP}{UP}\r"), "no answer from name server 10.77.0.98");
    println!("the screen shows:\n{}", vm.text_screen().unwrap().trim_end());
    press(&vm, CLEAR, &focused("Name servers", "_"));

    // The right one: the status comes by itself, with the code; the machine is approved and confirmed.
    press(&vm, &format!("{UP}{CLEAR}{CONTROLLER}:7770\r"), "pairing code: ");
    let code = site.approve(&vm).unwrap();
    let question = format!("Does the controller's operator see the code {code}?");
    vm.serial(0).reader().wait_for(&question, PATIENCE).unwrap();
    press(&vm, "yes\r", "is trusted until the restart");
    let id = site.ready_machine(PATIENCE).unwrap();
    let shown = site.json(&["machines", "show", &id]).unwrap();
    println!("Cold Cloning Ready: {} at {}", shown["id"], shown["address"]);
    assert!(shown["address"].as_str().unwrap().starts_with("10.77.0.50"), "{shown}");
    vm.kill();
    assert_eq!(before, hash_file(&machine.disk).unwrap(), "the source's disk was changed");
}
