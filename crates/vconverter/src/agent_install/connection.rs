//! A connection by the OpenSSH client, run as a program: its configuration, keys, agent and jump hosts work as the
//! administrator knows them.
//!
//! The connection is a session in which a small script at the other end, the *keeper*, looks around, makes a folder for the
//! program and takes it away when its input ends: after a failure, after Ctrl-C, when this process was killed or the link
//! was cut. All other commands share that connection.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use controller::trust::Secret;
use conversion::Cancel;

use super::address::Address;
use super::helper::{Folder, VARIABLE, own_program};
use super::said::{Kind, Refusal};
use super::script::{self, KEEPER};
use super::session::{Ended, Line, Session};
use crate::failure::{Code, Failure, Result};

/// Time for a connection's TCP handshake and banner.
const CONNECT_SECONDS: u32 = 15;
/// Time for everything up to the keeper's word; a server waits two minutes for a login.
const LOGIN: Duration = Duration::from_secs(150);
/// Time for an answer of the keeper.
const ANSWER: Duration = Duration::from_secs(60);

/// How to log in somewhere.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) address: Address,
    pub(super) password: Option<Secret>,
    /// The host key that it must have.
    pub(super) host_key: Option<String>,
}

/// How to reach a machine.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) target: Login,
    pub(super) jump: Option<Login>,
    pub(super) identity: Option<PathBuf>,
    /// Instead of the user's own configuration of OpenSSH.
    pub(super) ssh_config: Option<PathBuf>,
}

/// An open connection.
pub(super) struct Connection {
    // In the order in which they end.
    keeper: Session,
    way: Way,
    cancel: Cancel,
    folder: Folder,
    _jump_folder: Option<Folder>,
    /// What the keeper saw.
    pub(super) seen: Vec<String>,
}

/// Why there is no connection.
pub(super) enum NoConnection {
    /// The host key of the target, or of the jump host, is not known.
    UnknownKey {
        is_jump: bool,
        failure: Failure,
        shown: Option<String>,
    },
    /// A password may help.
    NoPassword {
        is_jump: bool,
        failure: Failure,
    },
    Other(Failure),
}

impl From<Failure> for NoConnection {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl Connection {
    /// Logs in and looks around.
    pub(super) fn open(way: &Way, cancel: &Cancel) -> std::result::Result<Self, NoConnection> {
        let folder = prepared_folder(&way.target)?;
        let jump_folder = way.jump.as_ref().map(prepared_folder).transpose()?;
        let mut command = Command::new("ssh");
        command.args(common(way, &way.target, &folder)?);
        command.args(["-o", "ControlMaster=yes", "-o", "ControlPersist=no"]);
        if let (Some(jump), Some(jump_folder)) = (&way.jump, &jump_folder) {
            command.args(["-o", &format!("ProxyCommand={}", proxy_command(way, jump, jump_folder)?)]);
        }
        command.args(["--", &way.target.address.to_string(), &script::remote(KEEPER)]);
        command.envs(environment(&folder)?);
        let mut keeper = Session::start(command, cancel)?;
        let mut seen = Vec::new();
        loop {
            match keeper.line(LOGIN)? {
                Line::Said(line) => match script::word(&line) {
                    Some("ready") => break,
                    Some(fact) => seen.push(fact.to_owned()),
                    None => {}
                },
                Line::Ended => return Err(refused(way, &keeper.end()?, &folder, jump_folder.as_ref())),
                Line::Late => {
                    let text = format!("{} did not finish the login within {} s", way.target.address, LOGIN.as_secs());
                    return Err(Failure::new(Code::Failed, text).into());
                }
            }
        }
        Ok(Self { keeper, way: way.clone(), cancel: cancel.clone(), folder, _jump_folder: jump_folder, seen })
    }

    /// Orders something of the keeper, and returns what it says up to a line that begins with one of `ends`.
    pub(super) fn order(&mut self, order: &str, ends: &[&str]) -> Result<Vec<String>> {
        self.keeper.write(format!("{order}\n").as_bytes())?;
        let mut said = Vec::new();
        loop {
            match self.keeper.line(ANSWER)? {
                Line::Said(line) => {
                    let Some(word) = script::word(&line) else { continue };
                    said.push(word.to_owned());
                    if ends.iter().any(|end| word.starts_with(end)) {
                        return Ok(said);
                    }
                }
                Line::Ended | Line::Late => return Err(self.lost()),
            }
        }
    }

    /// Starts a command over the same connection.
    pub(super) fn start(&self, command_line: &str) -> Result<Session> {
        let mut command = Command::new("ssh");
        command.args(common(&self.way, &self.way.target, &self.folder)?);
        // Where the connection is gone, no other is made.
        command.args(["-o", "ControlMaster=no", "-o", "ProxyCommand=exit 1", "-o", "BatchMode=yes"]);
        command.args(["--", &self.way.target.address.to_string(), command_line]);
        Session::start(command, &self.cancel)
    }

    /// Runs a command that gets `input`, to its end.
    pub(super) fn run(&self, command_line: &str, input: &[u8]) -> Result<Ended> {
        let mut session = self.start(command_line)?;
        session.write(input)?;
        session.end()
    }

    pub(super) fn lost(&self) -> Failure {
        let text =
            format!("the connection to {} was lost; what was begun there undoes itself", self.way.target.address);
        Failure::new(Code::Failed, text)
    }
}

/// A folder of a connection, with what its helper needs.
fn prepared_folder(login: &Login) -> Result<Folder> {
    let folder = Folder::new()?;
    if let Some(password) = &login.password {
        folder.offer_password(password)?;
    }
    if let Some(fingerprint) = &login.host_key {
        folder.pin(fingerprint)?;
    }
    Ok(folder)
}

/// Options of every call.
fn common(way: &Way, login: &Login, folder: &Folder) -> Result<Vec<OsString>> {
    let mut options: Vec<OsString> = Vec::new();
    if let Some(file) = &way.ssh_config {
        options.extend(["-F".into(), file.into()]);
    }
    let mut set = |option: String| options.extend(["-o".into(), option.into()]);
    for option in [
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
        "ServerAliveInterval=10",
        "ServerAliveCountMax=3",
        "NumberOfPasswordPrompts=1",
        "EscapeChar=none",
        "RequestTTY=no",
        "RemoteCommand=none",
        "PermitLocalCommand=no",
        "ClearAllForwardings=yes",
        "ForwardAgent=no",
        "ForwardX11=no",
        "LogLevel=INFO",
    ] {
        set(option.into());
    }
    set(format!("ConnectTimeout={CONNECT_SECONDS}"));
    set(format!("ControlPath={}", folder.path().join("s").display()));
    set(folder.host_key_command()?);
    if login.host_key.is_some() {
        // What is known otherwise does not count.
        set("UserKnownHostsFile=none".into());
        set("GlobalKnownHostsFile=none".into());
        set("VerifyHostKeyDNS=no".into());
    }
    match &login.password {
        None => set("BatchMode=yes".into()),
        // Each key that is tried first counts as a failure with the server.
        Some(_) if way.identity.is_none() => set("PubkeyAuthentication=no".into()),
        Some(_) => {}
    }
    if let Some(identity) = &way.identity {
        options.extend(["-i".into(), identity.into(), "-o".into(), "IdentitiesOnly=yes".into()]);
    }
    if let Some(port) = login.address.port {
        options.extend(["-p".into(), port.to_string().into()]);
    }
    Ok(options)
}

/// A connection through the jump host, of which the shell knows only quoted words. What it says goes to a file: so it is
/// known which of the two refused.
fn proxy_command(way: &Way, jump: &Login, folder: &Folder) -> Result<String> {
    // OpenSSH puts `exec` before it.
    let mut words = vec!["env".to_owned()];
    words.extend(
        environment(folder)?.iter().map(|(name, value)| script::quoted(&format!("{name}={}", value.to_string_lossy()))),
    );
    words.push("ssh".into());
    let options = common(way, jump, folder)?;
    // ClearAllForwardings would take -W away.
    let options = options.chunks(2).filter(|pair| pair[1] != "ClearAllForwardings=yes").flatten();
    words.extend(options.map(|option| script::quoted(&option.to_string_lossy()).replace('%', "%%")));
    words.extend(["-o", "ControlMaster=no", "-W", "'[%h]:%p'", "--"].map(str::to_owned));
    words.push(script::quoted(&jump.address.to_string()));
    words.push(format!("2>{}", script::quoted(&folder.path().join("said").display().to_string())));
    Ok(words.join(" "))
}

/// What has OpenSSH ask us for the password.
fn environment(folder: &Folder) -> Result<Vec<(&'static str, OsString)>> {
    Ok(vec![
        (VARIABLE, folder.path().into()),
        ("SSH_ASKPASS", own_program()?.into()),
        ("SSH_ASKPASS_REQUIRE", "force".into()),
        ("LC_ALL", "C".into()),
    ])
}

fn refused(way: &Way, ended: &Ended, folder: &Folder, jump_folder: Option<&Folder>) -> NoConnection {
    let said_by_jump = jump_folder.and_then(|folder| fs::read_to_string(folder.path().join("said")).ok());
    let said_by_jump = said_by_jump.unwrap_or_default();
    let target = way.target.address.to_string();
    // The jump host took us, and cannot go on.
    if let (Some(jump), Some((_, why))) = (&way.jump, said_by_jump.split_once("open failed: ")) {
        let why = why.lines().next().unwrap_or_default();
        let text = format!("{} cannot reach {target}: {why}", jump.address);
        return Failure::new(Code::Failed, text).into();
    }
    let by_jump = way.jump.as_ref().zip(jump_folder).filter(|_| {
        let own = |line: &&str| !line.trim().is_empty() && !line.starts_with("Warning: ");
        said_by_jump.lines().any(|line| own(&line))
    });
    let (login, said, key, is_jump) = match by_jump {
        Some((jump, folder)) => (jump, said_by_jump.as_str(), folder.seen(), true),
        None => (&way.target, ended.said.as_str(), folder.seen(), false),
    };
    let host = login.address.to_string();
    let refusal = Refusal {
        host: &host,
        said,
        key,
        is_pinned: login.host_key.is_some(),
        with_password: login.password.is_some(),
        pin_option: if is_jump { "--jump-host-key" } else { "--host-key" },
        password_option: if is_jump { "--jump-password-file" } else { "--password-file" },
    };
    // The login worked, and the command did not.
    if !is_jump && ended.status.code() != Some(255) {
        let text = format!("{host} runs no commands: {}", super::said::plain(said));
        return Failure::new(Code::Refused, text).into();
    }
    let failure = refusal.failure();
    match refusal.kind() {
        Kind::UnknownKey => {
            NoConnection::UnknownKey { is_jump, failure, shown: refusal.key.map(|key| key.fingerprint) }
        }
        Kind::DeniedWithoutPassword => NoConnection::NoPassword { is_jump, failure },
        Kind::ChangedKey | Kind::Other => failure.into(),
    }
}
