//! Getting in: the connection with what an operator gave or is asked for, what is found there, and who can be root.

use std::io::{BufRead, IsTerminal, Write, stdin};
use std::path::PathBuf;

use controller::trust::Secret;
use conversion::Cancel;

use super::address::Address;
use super::connection::{Connection, Login, NoConnection, Way};
use super::elevation::Elevation;
use super::script::Facts;
use super::session::Ended;
use super::steps::Steps;
use super::upload::upload;
use crate::arguments::ReachAgent;
use crate::failure::{Code, Failure, Result};
use crate::secret_input;
use crate::settings::read_secret;
use crate::signals::Signals;

/// The oldest kernel that the agent's program starts on.
const KERNEL_MIN: (u32, u32) = (3, 2);

/// A machine that was reached, and where commands can be run as root.
pub(super) struct Reached {
    pub(super) connection: Connection,
    pub(super) facts: Facts,
    pub(super) elevation: Elevation,
    pub(super) host: String,
    pub(super) is_behind_jump: bool,
    pub(super) steps: Steps,
    is_quiet: bool,
}

impl Reached {
    /// Connects, looks, and finds out how to be root, telling each.
    pub(super) fn open(reach: &ReachAgent, json: bool) -> Result<Self> {
        Self::reach(reach, json, false)
    }

    /// The same, told by nothing but failures.
    pub(super) fn quietly(reach: &ReachAgent, json: bool) -> Result<Self> {
        Self::reach(reach, json, true)
    }

    fn reach(reach: &ReachAgent, json: bool, is_quiet: bool) -> Result<Self> {
        let cancel = Cancel::default();
        Signals::listen()?.cancel_in_background(cancel.clone())?;
        let mut way = way(reach)?;
        let connection = connect(&mut way, &cancel)?;
        let facts = Facts::parse(&connection.seen);
        let host = way.target.address.to_string();
        let steps = Steps { json };
        let tell = |step: &str, detail: &str| if is_quiet { Ok(()) } else { steps.tell(step, detail) };
        let by = way.jump.as_ref().map(|jump| format!(" through {}", jump.address)).unwrap_or_default();
        tell("connect", &format!("{host}{by}, as {}", facts.user))?;
        let init = facts.init.clone().unwrap_or_else(|| "no known init system".into());
        tell("look", &format!("{} {}, kernel {}, {init}", facts.system, facts.cpu, facts.kernel))?;
        check(&facts, &host)?;
        let given = reach.sudo_password_file.as_deref().map(read_secret).transpose()?;
        let given = given.or_else(|| way.target.password.clone());
        let question = format!("sudo's password of {} on {}", facts.user, way.target.address.host);
        let elevation = Elevation::find(&connection, &facts, given.as_ref(), &|| ask(&question))?;
        tell("root", elevation.describe())?;
        let is_behind_jump = way.jump.is_some();
        Ok(Self { connection, facts, elevation, host, is_behind_jump, steps, is_quiet })
    }

    /// Tells a step, where steps are told.
    pub(super) fn tell(&self, step: &str, detail: &str) -> Result<()> {
        if self.is_quiet { Ok(()) } else { self.steps.tell(step, detail) }
    }

    /// The program of the agent that is installed; else ours, brought there for the time of this connection.
    pub(super) fn agent_program(&mut self) -> Result<PathBuf> {
        match &self.facts.installed {
            Some(program) => Ok(program.into()),
            None => upload(self),
        }
    }

    /// Runs the agent's program as root to its end.
    pub(super) fn run_agent(&self, program: &std::path::Path, arguments: &str) -> Result<Ended> {
        let line = self.elevation.command(&format!("{} {arguments}", program.display()));
        let ended = self.connection.run(&line, self.elevation.input().as_bytes())?;
        if ended.status.code() == Some(255) {
            return Err(self.connection.lost());
        }
        Ok(ended)
    }
}

fn way(reach: &ReachAgent) -> Result<Way> {
    let Address { user, host, port } = reach.target.0.clone();
    let read = |path: &Option<PathBuf>| path.as_deref().map(read_secret).transpose();
    let target = Login {
        address: Address { user, host, port: reach.port.or(port) },
        password: read(&reach.password_file)?,
        host_key: reach.host_key.clone(),
    };
    let jump = match &reach.jump {
        Some(address) => Some(Login {
            address: address.clone(),
            password: read(&reach.jump_password_file)?,
            host_key: reach.jump_host_key.clone(),
        }),
        None => None,
    };
    if let Some(identity) = reach.identity.as_ref().filter(|identity| !identity.is_file()) {
        return Err(Failure::new(Code::NotFound, format!("{}: no such key", identity.display())));
    }
    Ok(Way { target, jump, identity: reach.identity.clone(), ssh_config: reach.ssh_config.clone() })
}

/// Connects; on a terminal an unknown host key and a password that is missing are asked for, each once.
fn connect(way: &mut Way, cancel: &Cancel) -> Result<Connection> {
    // The keys and the passwords of two hosts.
    for _ in 0..4 {
        match Connection::open(way, cancel) {
            Ok(connection) => return Ok(connection),
            Err(NoConnection::Other(failure)) => return Err(failure),
            Err(NoConnection::UnknownKey { is_jump, failure, shown }) => {
                let login = login(way, is_jump, &failure)?;
                let Some(shown) = shown.filter(|_| stdin().is_terminal()) else { return Err(failure) };
                let question = format!(
                    "{} shows the host key {shown}, which is not known here. Is it the right one",
                    login.address
                );
                if !agree(&question)? {
                    return Err(failure);
                }
                login.host_key = Some(shown);
            }
            Err(NoConnection::NoPassword { is_jump, failure }) => {
                let login = login(way, is_jump, &failure)?;
                match ask(&format!("password of {}", login.address))? {
                    Some(password) => login.password = Some(password),
                    None => return Err(failure),
                }
            }
        }
    }
    Err(Failure::new(Code::Refused, "the host keys changed while they were asked for"))
}

fn login<'a>(way: &'a mut Way, is_jump: bool, failure: &Failure) -> Result<&'a mut Login> {
    match is_jump {
        true => way.jump.as_mut().ok_or_else(|| Failure::new(failure.code, failure.message.clone())),
        false => Ok(&mut way.target),
    }
}

/// A password from the terminal; `None` where there is none.
fn ask(question: &str) -> Result<Option<Secret>> {
    match stdin().is_terminal() {
        true => secret_input::read_line(question).map(|line| Some(Secret::new(line))),
        false => Ok(None),
    }
}

fn agree(question: &str) -> Result<bool> {
    let failed = |e: std::io::Error| Failure::io("terminal", &e);
    let mut terminal = std::io::stderr();
    write!(terminal, "{question}? [yes/no] ").and_then(|()| terminal.flush()).map_err(failed)?;
    let mut line = String::new();
    stdin().lock().read_line(&mut line).map_err(failed)?;
    Ok(line.trim() == "yes")
}

/// Whether the agent's program can run there.
fn check(facts: &Facts, host: &str) -> Result<()> {
    let refused = |why: String| Err(Failure::new(Code::Refused, format!("{host}: {why}")));
    if facts.system != "Linux" {
        return refused(format!("it runs {}, and the agent installs itself on Linux", facts.system));
    }
    if facts.cpu != "x86_64" {
        return refused(format!("its processor is {}, and there is an agent for x86_64 only", facts.cpu));
    }
    match facts.kernel_version() {
        Some(version) if version < KERNEL_MIN => {
            let (major, minor) = KERNEL_MIN;
            refused(format!("its kernel is {}, and the agent needs {major}.{minor}", facts.kernel))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_on_which_no_agent_starts_are_told() {
        let why = |system: &str, cpu: &str, kernel: &str| {
            let facts = Facts { system: system.into(), cpu: cpu.into(), kernel: kernel.into(), ..Facts::default() };
            check(&facts, "web1").err().map(|failure| failure.message).unwrap_or_default()
        };
        assert_eq!(why("Linux", "x86_64", "3.2.0-4-amd64"), "");
        assert!(why("FreeBSD", "amd64", "14.1").contains("runs FreeBSD"));
        assert!(why("Linux", "aarch64", "6.1.0").contains("its processor is aarch64"));
        assert!(why("Linux", "x86_64", "2.6.32-754.el6").contains("its kernel is 2.6.32-754.el6"));
    }
}
