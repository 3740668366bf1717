//! The agent's configuration: a JSON file, and flags that go before it.

use std::path::{Path, PathBuf};

use protocol::enrolment::EnrolmentToken;
use protocol::message::BootMedium;
use protocol::tls::Fingerprint;
use serde::Deserialize;

use crate::enrolment::{VARIABLE, load_token, parse_token};
use crate::{Error, ErrorKind, Result};

/// What an agent is told at its start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Config {
    /// `HOST:PORT` of the controller; an IPv6 address stands in brackets.
    pub controller: String,
    /// SHA-256 of the controller's CA certificate. Without it somebody at the machine confirms the pairing code,
    /// too (see `paired`).
    #[serde(default)]
    pub ca_fingerprint: Option<Fingerprint>,
    /// File with a one-time token that approves this machine; `-` is standard input. One in the state folder is the agent's
    /// own: it goes when it was used, and from then on needs not be there.
    #[serde(default)]
    pub enrol: Option<PathBuf>,
    /// The token itself. It names the CA: no other controller is told of it.
    #[serde(skip)]
    pub enrolment: Option<EnrolmentToken>,
    /// Where the agent keeps its key and certificates, and where the file `confirmed` is looked for.
    pub state_dir: PathBuf,
    /// File with the facts about the guest on the disks (JSON of [`machine::Guest`]); may appear later.
    #[serde(default)]
    pub guest_facts: Option<PathBuf>,
    /// File that the last status is kept in, instead of a screen.
    #[serde(default)]
    pub status_file: Option<PathBuf>,
    /// Serve these devices or raw images instead of the machine's disks.
    #[serde(default)]
    pub disks: Option<Vec<PathBuf>>,
    /// File with the kernel's names of the machine's disks, one a line: no other is one, and without the file none is. It
    /// changes as disks come and go.
    #[serde(default)]
    pub machine_disks: Option<PathBuf>,
    /// Boot image only: file with what became of the machine's boot path, where the boot image was pushed to it (JSON of
    /// [`machine::push::BootPathReport`]).
    #[serde(default)]
    pub boot_path: Option<PathBuf>,
    /// Whether this is the boot image, where nothing else uses the disks.
    #[serde(default)]
    pub boot_image: Option<bool>,
    /// What the boot image was started from.
    #[serde(default)]
    pub boot_medium: Option<BootMedium>,
}

/// Longest configuration file in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// How the program is called.
pub(crate) const USAGE: &str = "usage: vconverter-agent --config FILE\n       vconverter-agent --controller HOST:PORT \
     [--ca-fingerprint HEX] --state-dir DIR [--enrol FILE|-] [--guest-facts FILE] [--disk PATH]...\n\
     A one-time token of `vconverter agents token create` is in the file of --enrol, or in the variable VCONVERTER_ENROL.";

impl Config {
    /// Reads the command line (without the program's name), and the token where there is one: of `--enrol`, else of the
    /// environment.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], saying what is wrong.
    pub fn from_arguments(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let wrong = |text: String| Error::new(ErrorKind::Config, format!("{text}\n{USAGE}"));
        let mut settings = serde_json::Map::new();
        let mut disks = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| wrong(format!("{flag} needs a value")));
            let (name, value) = match flag.as_str() {
                "--config" => {
                    let file = load_settings(Path::new(&value()?))?;
                    for (name, value) in file {
                        settings.entry(name).or_insert(value);
                    }
                    continue;
                }
                "--disk" => {
                    disks.push(serde_json::Value::String(value()?));
                    continue;
                }
                "--controller" => ("controller", value()?),
                "--ca-fingerprint" => ("ca_fingerprint", value()?),
                "--state-dir" => ("state_dir", value()?),
                "--enrol" => ("enrol", value()?),
                "--guest-facts" => ("guest_facts", value()?),
                _ => return Err(wrong(format!("unknown argument {flag:?}"))),
            };
            settings.insert(name.to_owned(), serde_json::Value::String(value));
        }
        if !disks.is_empty() {
            settings.insert("disks".to_owned(), serde_json::Value::Array(disks));
        }
        let mut config: Self = serde_json::from_value(serde_json::Value::Object(settings))
            .map_err(|e| wrong(format!("configuration: {e}")))?;
        config.enrolment = match (&config.enrol, std::env::var(VARIABLE)) {
            (Some(path), _) if path.starts_with(&config.state_dir) && !path.exists() => None,
            (Some(path), _) => Some(load_token(path)?),
            (None, Ok(text)) => Some(parse_token(&text)?),
            (None, Err(_)) => None,
        };
        if let (Some(token), Some(pin)) = (&config.enrolment, config.ca_fingerprint)
            && token.authority() != pin
        {
            let text = "the enrolment token is of another controller than the CA fingerprint";
            return Err(Error::new(ErrorKind::Config, text));
        }
        Ok(config)
    }

    /// The CA that the controller must have, where somebody said it.
    pub(crate) fn authority(&self) -> Option<Fingerprint> {
        self.enrolment.as_ref().map(EnrolmentToken::authority).or(self.ca_fingerprint)
    }

    /// The token was used: its file goes, where it is the agent's own.
    pub(crate) fn forget_token(&self) {
        if let Some(path) = self.enrol.as_ref().filter(|path| path.starts_with(&self.state_dir)) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Whether this is the boot image: told, or else by where the state lives.
    pub(crate) fn is_boot_image(&self) -> bool {
        self.boot_image.unwrap_or_else(|| self.state_dir.starts_with("/run/vconverter"))
    }
}

fn load_settings(path: &Path) -> Result<serde_json::Map<String, serde_json::Value>> {
    let wrong = || Error::new(ErrorKind::Config, format!("cannot read the configuration {}", path.display()));
    let length = std::fs::metadata(path).map_err(|e| wrong().because(e))?.len();
    if length > CONFIG_BYTES_MAX {
        return Err(Error::new(ErrorKind::Config, format!("{}: too long", path.display())));
    }
    let text = std::fs::read(path).map_err(|e| wrong().because(e))?;
    serde_json::from_slice(&text).map_err(|e| wrong().because(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Config> {
        Config::from_arguments(arguments.iter().map(|a| (*a).to_owned()))
    }

    #[test]
    fn flags_go_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.json");
        std::fs::write(
            &file,
            r#"{"controller":"a:1","ca_fingerprint":null,"state_dir":"/run/vconverter/agent","guest_facts":"/g"}"#,
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let config = parse(&["--config", file]).unwrap();
        assert_eq!((config.controller.as_str(), config.ca_fingerprint), ("a:1", None));
        assert!(config.is_boot_image());
        assert_eq!(parse(&["--config", file, "--controller", "b:2"]).unwrap().controller, "b:2");
        assert_eq!(parse(&["--controller", "b:2", "--config", file]).unwrap().controller, "b:2");
    }

    #[test]
    fn a_token_comes_from_a_file_for_its_owner_only_and_agrees_with_the_fingerprint() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let token = EnrolmentToken::random(Fingerprint(protocol::message::Bytes32([7; 32]))).unwrap();
        std::fs::write(&file, format!("{}\n", token.expose())).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let name = file.to_str().unwrap();
        let arguments = ["--controller", "a:1", "--state-dir", "/s", "--enrol", name];
        let config = parse(&arguments).unwrap();
        assert_eq!((config.authority(), config.enrolment.as_ref()), (Some(token.authority()), Some(&token)));
        let (same, other) = ("07".repeat(32), "08".repeat(32));
        assert!(parse(&[&arguments[..], &["--ca-fingerprint", &same]].concat()).is_ok());
        let refused = parse(&[&arguments[..], &["--ca-fingerprint", &other]].concat()).unwrap_err();
        assert!(refused.to_string().contains("another controller"), "{refused}");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = parse(&arguments).unwrap_err();
        assert!(refused.to_string().contains("expected mode 0600"), "{refused}");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(parse(&arguments).unwrap_err().kind, ErrorKind::Config);
    }

    #[test]
    fn a_token_in_the_state_folder_goes_when_it_was_used_and_is_not_missed() {
        use std::os::unix::fs::OpenOptionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (state, file) = (folder.path().to_str().unwrap(), folder.path().join("token"));
        let token = EnrolmentToken::random(Fingerprint(protocol::message::Bytes32([7; 32]))).unwrap();
        let mut made = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&file).unwrap();
        std::io::Write::write_all(&mut made, token.expose().as_bytes()).unwrap();
        let arguments = ["--controller", "a:1", "--state-dir", state, "--enrol", file.to_str().unwrap()];
        let config = parse(&arguments).unwrap();
        assert_eq!(config.enrolment.as_ref(), Some(&token));
        crate::paired::Paired::remember_enrolled(&config, token.authority()).unwrap();
        assert!(!file.exists());
        assert_eq!(parse(&arguments).unwrap().enrolment, None);
    }

    #[test]
    fn wrong_arguments_are_told() {
        let fingerprint = ["--controller", "a:1", "--state-dir", "/s", "--ca-fingerprint", "12"];
        for wrong in [&["--sing"][..], &["--controller"], &["--controller", "a:1"], &fingerprint] {
            assert_eq!(parse(wrong).unwrap_err().kind, ErrorKind::Config, "{wrong:?}");
        }
    }
}
