//! The end of the machine that the agent runs on, as the controller's operator wants it.

use std::process::{Command, Stdio};

use protocol::message::PowerAction;

use crate::{Error, ErrorKind, Result, Screen, Status};

/// What an administrator would type, on systemd and elsewhere; the first that the machine has and that succeeds.
const RESTART: [&[&str]; 3] = [&["systemctl", "reboot"], &["shutdown", "-r", "now"], &["reboot"]];
const POWER_OFF: [&[&str]; 3] = [&["systemctl", "poweroff"], &["shutdown", "-h", "now"], &["poweroff"]];

/// In the boot image, tells PID 1, which does it; on the machine's own system, asks that to shut down in its order.
///
/// # Errors
/// [`ErrorKind::Refused`] where none of the ways works.
pub(crate) fn end_machine(action: PowerAction, detail: String, in_boot_image: bool, screen: &Screen) -> Result<()> {
    let status = match action {
        PowerAction::Restart => Status::Restarting { detail },
        PowerAction::PowerOff => Status::SwitchingOff { detail },
        PowerAction::Unknown => return Err(unknown()),
    };
    screen.show(status);
    match in_boot_image {
        true => Ok(()),
        false => end_own_system(action),
    }
}

/// Asks the machine's own system to shut down in its order.
///
/// # Errors
/// [`ErrorKind::Refused`] where none of the ways works.
pub(crate) fn end_own_system(action: PowerAction) -> Result<()> {
    match action {
        PowerAction::Restart => run_first(&RESTART),
        PowerAction::PowerOff => run_first(&POWER_OFF),
        PowerAction::Unknown => Err(unknown()),
    }
}

fn unknown() -> Error {
    Error::new(ErrorKind::Refused, "this agent does not know how the machine is to be ended")
}

/// Runs the first of these that the machine has and that succeeds.
pub(crate) fn run_first(ways: &[&[&str]]) -> Result<()> {
    let mut tried = Vec::new();
    for way in ways {
        let mut command = Command::new(way[0]);
        command.args(&way[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => tried.push(format!("{}: {status}", way.join(" "))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tried.push(format!("{}: {error}", way.join(" "))),
        }
    }
    if tried.is_empty() {
        tried.push(format!("there is no {}", ways.iter().map(|way| way[0]).collect::<Vec<_>>().join(", nor ")));
    }
    Err(Error::new(ErrorKind::Refused, format!("the machine cannot be ended: {}", tried.join("; "))))
}
