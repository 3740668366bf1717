//! The hypervisor that libvirt manages, by its own program `virsh`: domains are defined, connected, started and stopped.
//!
//! Each call is one process with a time limit. Output is read in English (`LC_ALL=C`) and only where it is made for programs.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use machine::MacAddress;

use crate::{Error, Result};

/// Longest time for one call.
const CALL_MAX: Duration = Duration::from_secs(120);
/// Longest output that is kept of one call, in bytes.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Where domains are, and the program that reaches it.
#[derive(Clone, Debug)]
pub struct Virsh {
    program: PathBuf,
    connection: String,
}

/// What a domain does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// It is not defined.
    Absent,
    /// It is defined and does not run.
    ShutOff,
    /// It runs, or is between running and not.
    Active(String),
}

impl Virsh {
    /// The hypervisor at `connection`: `qemu:///system`.
    pub fn new(program: impl Into<PathBuf>, connection: impl Into<String>) -> Self {
        Self { program: program.into(), connection: connection.into() }
    }

    /// What a domain does.
    ///
    /// # Errors
    /// [`ErrorKind::Hypervisor`](crate::ErrorKind::Hypervisor) where the program is missing, fails or takes too long. So have all
    /// others.
    pub fn state(&self, name: &str) -> Result<DomainState> {
        let all = self.call("its domains cannot be listed", ["list", "--all", "--name"])?;
        if !all.lines().any(|line| line == name) {
            return Ok(DomainState::Absent);
        }
        let state = self.call(&format!("domain {name}: its state is not known"), ["domstate", "--domain", name])?;
        Ok(match state.trim() {
            "shut off" => DomainState::ShutOff,
            other => DomainState::Active(other.to_owned()),
        })
    }

    /// Defines a domain by its XML, or changes the definition of one that is there.
    ///
    /// # Errors
    /// As [`Virsh::state`].
    pub fn define(&self, xml: &Path) -> Result<()> {
        let what = format!("{}: it cannot be defined", xml.display());
        self.call(&what, [OsStr::new("define"), OsStr::new("--file"), xml.as_os_str()]).map(drop)
    }

    /// Starts a domain that is shut off.
    ///
    /// # Errors
    /// As [`Virsh::state`].
    pub fn start(&self, name: &str) -> Result<()> {
        self.call(&format!("domain {name}: it cannot be started"), ["start", "--domain", name]).map(drop)
    }

    /// Asks a domain's guest to shut down, and does not wait for it.
    ///
    /// # Errors
    /// As [`Virsh::state`].
    pub fn shut_down(&self, name: &str) -> Result<()> {
        self.call(&format!("domain {name}: it cannot be shut down"), ["shutdown", "--domain", name]).map(drop)
    }

    /// Switches a domain off, as by pulling its plug.
    ///
    /// # Errors
    /// As [`Virsh::state`].
    pub fn power_off(&self, name: &str) -> Result<()> {
        self.call(&format!("domain {name}: it cannot be switched off"), ["destroy", "--domain", name]).map(drop)
    }

    /// Connects or disconnects all NICs of a domain that is shut off, from its next start on. Returns how many it has.
    ///
    /// # Errors
    /// As [`Virsh::state`].
    pub fn set_links(&self, name: &str, is_up: bool) -> Result<usize> {
        let state = if is_up { "up" } else { "down" };
        let what = format!("domain {name}: its NICs cannot be listed");
        let listed = self.call(&what, ["domiflist", "--domain", name, "--inactive"])?;
        let macs: Vec<&str> = listed.lines().filter_map(mac_of).collect();
        for mac in &macs {
            let what = format!("domain {name}: the link of its NIC {mac} cannot be set {state}");
            self.call(&what, ["domif-setlink", "--domain", name, "--interface", mac, "--state", state, "--config"])?;
        }
        Ok(macs.len())
    }

    fn call<S: AsRef<OsStr>>(&self, what: &str, words: impl IntoIterator<Item = S>) -> Result<String> {
        let failed = |why: &str| Error::hypervisor(format!("{}: {what}: {why}", self.connection));
        let mut command = Command::new(&self.program);
        command.arg("--quiet").arg("--connect").arg(&self.connection).args(words).env("LC_ALL", "C");
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                failed(&format!("there is no {}: install libvirt-clients", self.program.display()))
            }
            _ => failed(&e.to_string()),
        })?;
        // Read beside the waiting: a pipe holds less than some outputs.
        let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let deadline = Instant::now() + CALL_MAX;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(&format!("no answer within {} s", CALL_MAX.as_secs())));
                }
                Err(e) => return Err(failed(&e.to_string())),
            }
        };
        let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        match status.success() {
            true => Ok(out),
            false => {
                let why: Vec<&str> = err.lines().map(|line| line.trim_start_matches("error: ").trim()).collect();
                let why = why.into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
                Err(failed(if why.is_empty() { "it failed without a word" } else { &why }))
            }
        }
    }
}

/// The hardware address of a line of `domiflist`, its last column.
fn mac_of(line: &str) -> Option<&str> {
    line.split_whitespace().last().filter(|word| word.parse::<MacAddress>().is_ok())
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.by_ref().take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
            // What is longer is not kept, and its writer not stopped.
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use crate::ErrorKind;

    use super::*;

    /// libvirt's own test driver: each connection has one running domain, named test.
    fn test_driver() -> Option<Virsh> {
        let virsh = Virsh::new("virsh", "test:///default");
        match virsh.state("test") {
            Ok(_) => Some(virsh),
            Err(error) => {
                println!("skipped: {error}");
                None
            }
        }
    }

    /// The driver changes no links; `controller`'s tests have a daemon that does.
    #[test]
    fn libvirt_is_understood() {
        let Some(virsh) = test_driver() else { return };
        assert_eq!(virsh.state("test").unwrap(), DomainState::Active("running".into()));
        assert_eq!(virsh.state("tes").unwrap(), DomainState::Absent, "a name is a whole name");
        virsh.shut_down("test").unwrap();
        virsh.power_off("test").unwrap();
        for refused in [
            virsh.set_links("test", false).map(drop),
            virsh.start("test"),
            virsh.start("nobody"),
            virsh.define(Path::new("/nothing/there.xml")),
        ] {
            let error = refused.unwrap_err();
            println!("{error}");
            assert_eq!(error.kind, ErrorKind::Hypervisor);
        }
    }

    #[test]
    fn a_program_that_is_missing_or_a_connection_that_leads_nowhere_is_told() {
        let error = Virsh::new("/nothing/virsh", "qemu:///system").state("web1").unwrap_err();
        assert!(error.to_string().contains("install libvirt-clients"), "{error}");
        if test_driver().is_some() {
            let error = Virsh::new("virsh", "nowhere:///system").state("web1").unwrap_err();
            println!("{error}");
            assert!(error.to_string().starts_with("nowhere:///system: its domains cannot be listed: "), "{error}");
        }
    }
}
