//! Controllers that this agent was paired with although nobody told it their CA's fingerprint.
//!
//! At an address without a pin anybody may answer, and say that an operator approved. The code that the operator compared
//! proves nothing to the machine until somebody at the machine says that both are the same. That answer is a file,
//! `confirmed`, in the state folder, with the code in it; from then on the CA that the code was bound to is pinned at that
//! address, for as long as the state folder lives (in the boot image: until it restarts).

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use protocol::pairing::PairingCode;
use protocol::tls::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::{Config, Error, ErrorKind, Result};

/// Controllers that are remembered; the oldest that nobody confirmed goes first.
const CONTROLLERS_MAX: usize = 8;
/// More than all of them take.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// A code with blanks around it.
const CONFIRMATION_BYTES_MAX: u64 = 64;

/// A controller that computed a code with this agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Paired {
    /// Its address, as it was given.
    controller: String,
    ca_fingerprint: Fingerprint,
    /// Of the last pairing: the link may be cut, and its approval come in a session without one.
    pairing_code: String,
    /// Whether somebody at this machine said that the controller shows that code.
    confirmed: bool,
}

impl Paired {
    /// The CA that nobody else may have at the configured address.
    pub(crate) fn pin(config: &Config) -> Option<Fingerprint> {
        let paired = load(config);
        paired
            .into_iter()
            .find(|one| one.confirmed && one.controller == config.controller)
            .map(|one| one.ca_fingerprint)
    }

    /// The controller with this CA, at whatever address.
    pub(crate) fn with_authority(config: &Config, ca_fingerprint: Fingerprint) -> Option<Self> {
        load(config).into_iter().find(|one| one.ca_fingerprint == ca_fingerprint)
    }

    /// Whether it was confirmed.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// The code to be confirmed.
    pub(crate) fn code(&self) -> &str {
        &self.pairing_code
    }

    /// Keeps the code of a pairing. A CA that was confirmed stays so.
    pub(crate) fn remember(config: &Config, ca_fingerprint: Fingerprint, code: &str) -> Result<()> {
        let confirmed = Self::with_authority(config, ca_fingerprint).is_some_and(|one| one.confirmed);
        store(
            config,
            Self { controller: config.controller.clone(), ca_fingerprint, pairing_code: code.into(), confirmed },
        )
    }

    /// Keeps that a token of this controller enrolled the machine: the token named its CA, so nobody is asked.
    pub(crate) fn remember_enrolled(config: &Config, ca_fingerprint: Fingerprint) -> Result<()> {
        let (controller, pairing_code) = (config.controller.clone(), String::new());
        store(config, Self { controller, ca_fingerprint, pairing_code, confirmed: true })?;
        config.forget_token();
        Ok(())
    }

    /// Whether the file `confirmed` holds this controller's code; if so that is kept, and the file goes.
    pub(crate) fn take_confirmation(&mut self, config: &Config) -> Result<bool> {
        let path = config.state_dir.join("confirmed");
        let mut text = String::new();
        let read = fs::File::open(&path).and_then(|file| file.take(CONFIRMATION_BYTES_MAX).read_to_string(&mut text));
        let said = read.ok().and_then(|_| text.trim().parse::<PairingCode>().ok());
        if said.is_none() || said != self.pairing_code.parse().ok() {
            return Ok(false);
        }
        self.confirmed = true;
        store(config, self.clone())?;
        let _ = fs::remove_file(&path);
        Ok(true)
    }
}

fn path(config: &Config) -> PathBuf {
    config.state_dir.join("controllers.json")
}

/// Newest first; nothing where nothing can be read: then the machine is paired anew.
fn load(config: &Config) -> Vec<Paired> {
    let mut text = Vec::new();
    match fs::File::open(path(config)).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text)) {
        Ok(_) => serde_json::from_slice(&text).unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

fn store(config: &Config, newest: Paired) -> Result<()> {
    let mut all = load(config);
    all.retain(|one| one.ca_fingerprint != newest.ca_fingerprint || one.controller != newest.controller);
    all.insert(0, newest);
    while all.len() > CONTROLLERS_MAX {
        let unconfirmed = all.iter().skip(1).rposition(|one| !one.confirmed);
        all.remove(unconfirmed.map_or(all.len() - 1, |place| place + 1));
    }
    let (path, beside) = (path(config), config.state_dir.join("controllers.json.new"));
    let unwritten = |e| Error::new(ErrorKind::Config, format!("cannot write {}", path.display())).because(e);
    let text = serde_json::to_vec(&all)
        .map_err(|e| Error::new(ErrorKind::Config, "the controllers' fingerprints").because(e))?;
    fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path)).map_err(unwritten)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::message::Bytes32;

    fn config(folder: &tempfile::TempDir, controller: &str) -> Config {
        let state = folder.path().to_str().unwrap();
        let arguments = ["--controller", controller, "--state-dir", state];
        Config::from_arguments(arguments.map(str::to_owned)).unwrap()
    }

    fn ca(n: u8) -> Fingerprint {
        Fingerprint(Bytes32([n; 32]))
    }

    fn confirm(config: &Config, text: &str) -> bool {
        fs::write(config.state_dir.join("confirmed"), text).unwrap();
        Paired::with_authority(config, ca(1)).unwrap().take_confirmation(config).unwrap()
    }

    #[test]
    fn only_the_code_itself_confirms_and_pins() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder, "a:1");
        Paired::remember(&config, ca(1), "7Q4K-9XZM").unwrap();
        assert!(!Paired::with_authority(&config, ca(1)).unwrap().take_confirmation(&config).unwrap(), "no file");
        for wrong in ["", "yes", "7Q4K-9XZN", "7Q4K-9XZM 7Q4K-9XZM", "*", "7Q4K", &"7Q4K-9XZM\n".repeat(5000), "\u{0}"]
        {
            assert!(!confirm(&config, wrong), "{wrong:?}");
            assert_eq!(Paired::pin(&config), None);
        }
        assert!(confirm(&config, " 7q4k-9xzm\n"));
        assert_eq!(Paired::pin(&config), Some(ca(1)));
        assert!(!config.state_dir.join("confirmed").exists(), "used once");
    }

    #[test]
    fn a_token_pins_its_controller_and_no_empty_answer_confirms_another() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder, "a:1");
        Paired::remember_enrolled(&config, ca(2)).unwrap();
        assert_eq!(Paired::pin(&config), Some(ca(2)));
        Paired::remember(&config, ca(1), "7Q4K-9XZM").unwrap();
        assert!(!confirm(&config, ""));
    }

    #[test]
    fn a_confirmed_authority_stays_so_and_lends_it_to_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (config(&folder, "a:1"), config(&folder, "b:2"));
        Paired::remember(&first, ca(1), "7Q4K-9XZM").unwrap();
        assert!(confirm(&first, "7Q4K-9XZM"));
        Paired::remember(&second, ca(2), "0000-0000").unwrap();
        assert_eq!((Paired::pin(&first), Paired::pin(&second)), (Some(ca(1)), None));
        assert!(!Paired::with_authority(&second, ca(2)).unwrap().is_confirmed());
        // The first one again, at another address, after the controller forgot the machine.
        Paired::remember(&second, ca(1), "1111-1111").unwrap();
        assert!(Paired::with_authority(&second, ca(1)).unwrap().is_confirmed());
        assert_eq!(Paired::pin(&first), Some(ca(1)), "its first address keeps its pin");
        // A hundred strangers do not push it out.
        for n in 3..103 {
            Paired::remember(&first, ca(n), "2222-2222").unwrap();
        }
        assert_eq!(load(&first).len(), CONTROLLERS_MAX);
        assert!(Paired::with_authority(&first, ca(1)).is_some_and(|one| one.is_confirmed()));
    }
}
