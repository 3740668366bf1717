//! Where an installed agent keeps what it is told and what it knows, and what can be said of it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use protocol::tls::Identity;
use serde::{Deserialize, Serialize};

use super::background;
use super::system::{InitSystem, System};

/// Configuration, key and certificates of an installed agent.
pub(super) const STATE: &str = "/var/lib/vconverter-agent";
/// Its configuration.
pub(super) const CONFIG: &str = "/var/lib/vconverter-agent/agent.json";
/// Folders for the state of an agent that runs once; both are gone after a restart. Not that of the boot image.
pub(super) const ONCE: [&str; 2] = ["/run/vconverter-agent", "/dev/shm/vconverter-agent"];
/// The program's folder, and the one where that is read-only.
pub(super) const PROGRAM_FOLDERS: [&str; 2] = ["/usr/local/sbin", "/opt/vconverter"];
/// The program's name.
pub(super) const PROGRAM: &str = "vconverter-agent";
/// In a state folder: what the agent did last.
pub(super) const STATUS_FILE: &str = "status.json";
/// In a state folder: a token that was not used yet.
pub(super) const TOKEN_FILE: &str = "token";
/// In [`STATE`]: what was installed.
pub(super) const RECORD: &str = "installed.json";
/// Longest file of a state folder that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What was installed, and what had to be made for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: String,
    pub(super) init: InitSystem,
    pub(super) program: PathBuf,
    /// Folders that were not there before; they go when they are empty.
    pub(super) folders: Vec<PathBuf>,
}

impl Record {
    /// That of a system, where it can be read.
    pub(super) fn load(system: &System) -> Option<Self> {
        read_json(&system.path(STATE).join(RECORD))
    }
}

/// What `status` says.
#[derive(Debug, Serialize)]
pub(super) struct Installed {
    /// Whether it starts with the system.
    installed: bool,
    /// Whether one runs that is not installed, and gone after a restart.
    once: bool,
    /// Whether one runs now.
    running: bool,
    /// That is installed; of a running one see `last`.
    version: Option<String>,
    init: Option<InitSystem>,
    program: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    /// `HOST:PORT`.
    controller: Option<String>,
    /// Fingerprint of the agent's key, once it has one.
    key: Option<String>,
    /// What the agent did last.
    last: Option<serde_json::Value>,
}

impl Installed {
    pub(super) fn load(system: &System) -> Self {
        let record = Record::load(system);
        let once = ONCE.iter().find(|folder| system.path(folder).join("agent.json").is_file());
        let state = match &record {
            Some(_) => Some(STATE),
            None => once.copied(),
        };
        let folder = state.map(|state| system.path(state));
        let file = |name: &str| folder.as_ref().and_then(|folder| read_json(&folder.join(name)));
        let config: Option<serde_json::Value> = file("agent.json");
        let runs = |state: &str| {
            system.is_own() && !background::find(&Path::new(state).join("agent.json")).unwrap_or_default().is_empty()
        };
        Self {
            installed: record.is_some(),
            once: once.is_some_and(|state| runs(state)),
            running: state.is_some_and(runs),
            version: record.as_ref().map(|record| record.version.clone()),
            init: record.as_ref().map(|record| record.init),
            program: record.map(|record| record.program),
            state_dir: state.map(PathBuf::from),
            controller: config.and_then(|config| Some(config["controller"].as_str()?.to_owned())),
            key: folder.as_deref().and_then(key),
            last: file(STATUS_FILE),
        }
    }
}

/// The fingerprint of the key in a state folder; none is made here.
pub(super) fn key(state: &Path) -> Option<String> {
    state
        .join("agent.pem")
        .is_file()
        .then(|| Identity::load_or_create_agent(state).ok()?.key().ok())?
        .map(|key| key.to_string())
}

/// A file of a state folder; `None` where it cannot be read or is no such JSON.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The version, and of a program's file its length and hash: whoever copied it sees that it came over whole.
pub(super) fn version(program: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    let hashed = fs::File::open(program).and_then(|mut file| std::io::copy(&mut file, &mut hasher));
    let file = hashed.map(|length| format!("\n{length} bytes, blake3 {}", hasher.finalize())).unwrap_or_default();
    format!("vconverter-agent {}{file}", env!("CARGO_PKG_VERSION"))
}
