//! A controller with machines for the console's tests and screenshots: `console_site FOLDER`.
//!
//! Real are the controller, its store, its API and the agents' protocol, pairing included. **Faked** are the machines
//! (agents that report `machines.rs` and serve no disk) and the conversion (it copies nothing; its numbers, its boot proof
//! and the picture are made up, and its log says so). Prints one line of JSON when it is ready, and ends at the end of its
//! standard input.
#![allow(clippy::unwrap_used)]

mod conversion;
mod machines;
#[path = "../../../controller/tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use controller::{Config, ConsoleConfig, Controller, DataDirectory};
use machine::Machine;
use protocol::message::{
    About, AgentMessage, BootMedium, ControllerMessage, HEARTBEAT_SECONDS, MESSAGE_BYTES_MAX, Report, read_message,
    write_message,
};
use protocol::pairing::{Pairing, Role};
use protocol::{Connection, message::AgentKind};
use serde_json::json;

use crate::machines::{Place, machines};
use crate::support::{Agent, approve, eventually, get, receive};

fn main() {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("usage: console_site FOLDER"));
    let (data, output) = (folder.join("data"), folder.join("vms"));
    std::fs::create_dir_all(&output).unwrap();
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut config = Config::new(DataDirectory::new(&data), loopback, Arc::new(conversion::Rehearsal));
    config.console = Some(ConsoleConfig { listen: loopback, certificate: None });
    let controller = Controller::start(config).unwrap();
    let setup_code = controller.make_setup_code().unwrap().expect("nobody has set it up yet").to_string();
    let url = format!("https://{}", controller.status().console_address.unwrap());
    let mut waiting = Vec::new();
    for (machine, place) in machines() {
        let agent = agent(&controller, place);
        let connection = agent.hello().unwrap();
        let code = pair(&connection, &machine);
        if place == Place::Waiting {
            waiting.push(json!({ "name": product(&machine), "code": code }));
            std::thread::spawn(move || serve(&connection, &machine, place));
            continue;
        }
        enrol(&data, &connection, &code, &machine, place);
        if place != Place::Offline {
            std::thread::spawn(move || serve(&connection, &machine, place));
        }
    }
    println!("{}", json!({ "url": url, "setup_code": setup_code, "output": output, "waiting": waiting }));
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    controller.stop();
}

fn agent(controller: &Controller, place: Place) -> Agent {
    let mut agent = Agent::new(controller.status());
    agent.kind = if place == Place::Live { AgentKind::Agent } else { AgentKind::BootImage };
    agent
}

fn product(machine: &Machine) -> String {
    [&machine.smbios.manufacturer, &machine.smbios.product].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
}

/// The agent's side of a pairing; the code on its screen.
fn pair(connection: &Connection, machine: &Machine) -> String {
    let ControllerMessage::PairingCommit { commitment } = receive(connection) else { panic!("no commitment") };
    let pairing = Pairing::start(Role::Agent, connection.binding().clone()).unwrap();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let about = About {
        product: product(machine),
        serial: text(&machine.smbios.serial),
        hostname: text(&machine.guest.hostname),
    };
    write_message(connection, &AgentMessage::PairingCommit { commitment: pairing.commitment(), about }).unwrap();
    let committed = pairing.receive_commitment(commitment);
    write_message(connection, &AgentMessage::PairingReveal { nonce: committed.nonce() }).unwrap();
    let ControllerMessage::PairingReveal { nonce } = receive(connection) else { panic!("no nonce") };
    committed.receive_nonce(nonce).unwrap().to_string()
}

fn enrol(data: &Path, connection: &Connection, code: &str, machine: &Machine, place: Place) {
    // The machines that stay waiting come last, so that this one is meant.
    eventually("the machine waits", || get(data, "/machines").to_string().contains("waiting-for-approval"));
    let approval = approve(data, code);
    assert_eq!(receive(connection), ControllerMessage::Approved);
    report(connection, machine, place);
    let (status, _, answer) = approval.join().unwrap();
    assert_eq!(status, 200, "{answer}");
}

fn report(connection: &Connection, machine: &Machine, place: Place) {
    let boot_medium = match place {
        Place::Live => None,
        Place::Ready(medium) => Some(medium),
        Place::Waiting | Place::Offline => Some(BootMedium::Iso),
    };
    let warnings = machines::warnings(machine);
    let report = Report { machine: machine.clone(), kernel: "6.1.0-38-amd64".into(), warnings, boot_medium };
    write_message(connection, &AgentMessage::Report(Box::new(report))).unwrap();
}

/// Reports when it is approved or asked, and beats until the controller is gone.
fn serve(connection: &Connection, machine: &Machine, place: Place) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for sequence in 1.. {
                std::thread::sleep(Duration::from_secs(HEARTBEAT_SECONDS));
                if write_message(connection, &AgentMessage::Heartbeat { sequence }).is_err() {
                    return;
                }
            }
        });
        connection.set_read_timeout(None);
        loop {
            match read_message::<ControllerMessage>(connection, MESSAGE_BYTES_MAX) {
                Ok(ControllerMessage::Approved | ControllerMessage::Refresh) => report(connection, machine, place),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });
}
