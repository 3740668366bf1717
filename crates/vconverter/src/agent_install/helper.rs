//! What OpenSSH asks this program, which it starts for that: a password, and whether a host key is known.
//!
//! A password comes through a FIFO in a folder of ours alone, so it is in no file, argument or environment. Only a question
//! for a password is answered: none for a passphrase, a code or a yes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use controller::trust::Secret;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::failure::{Failure, Result};

/// Names the folder of the connection to the program that is asked for a password.
pub(super) const VARIABLE: &str = "VCONVERTER_SSH_FOLDER";
/// The argument that has this program say whether a host key is known.
const HOST_KEY: &str = "ssh-host-key";
/// Longest name of a temporary folder in which OpenSSH finds room for its socket's name.
const FOLDER_BYTES_MAX: usize = 60;

/// A folder for the time of one connection.
pub(super) struct Folder {
    path: PathBuf,
}

/// The host key that a server showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostKey {
    pub(super) kind: String,
    /// `SHA256:…`, as OpenSSH writes it.
    pub(super) fingerprint: String,
}

impl Folder {
    pub(super) fn new() -> Result<Self> {
        let temporary = std::env::temp_dir();
        let temporary = if temporary.as_os_str().len() > FOLDER_BYTES_MAX { "/tmp".into() } else { temporary };
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let path = temporary.join(format!("vconverter-{}-{now:x}", std::process::id()));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| Failure::io(&format!("{}", path.display()), &e))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whoever opens the FIFO gets the password, as long as this process lives.
    pub(super) fn offer_password(&self, password: &Secret) -> Result<()> {
        let path = self.path.join("password");
        let failed = |e: std::io::Error| Failure::io(&format!("{}", path.display()), &e);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(|e| failed(e.into()))?;
        let line = Secret::new(format!("{}\n", password.expose()));
        let fifo = path.clone();
        let offered = std::thread::Builder::new().name("password".into()).spawn(move || {
            // Until the folder is gone.
            while let Ok(mut reader) = File::options().write(true).open(&fifo) {
                let _ = reader.write_all(line.expose().as_bytes());
                drop(reader);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        offered.map(drop).map_err(failed)
    }

    /// Takes only a host with this key for the right one.
    pub(super) fn pin(&self, fingerprint: &str) -> Result<()> {
        let path = self.path.join("pin");
        fs::write(&path, fingerprint).map_err(|e| Failure::io(&format!("{}", path.display()), &e))
    }

    /// The key that the host showed.
    pub(super) fn seen(&self) -> Option<HostKey> {
        let text = fs::read_to_string(self.path.join("seen")).ok()?;
        let (kind, fingerprint) = text.trim().split_once(' ')?;
        Some(HostKey { kind: kind.to_owned(), fingerprint: fingerprint.to_owned() })
    }

    /// OpenSSH's option `KnownHostsCommand` that asks us.
    pub(super) fn host_key_command(&self) -> Result<String> {
        let own = own_program()?;
        // Arguments in quotes; a percent sign begins a token.
        let quoted = |path: &Path| format!("\"{}\"", path.display().to_string().replace('%', "%%"));
        Ok(format!("KnownHostsCommand={} {HOST_KEY} {} %H %t %K %f", quoted(&own), quoted(&self.path)))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The program that is running.
pub(super) fn own_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|e| Failure::io("finding our own program", &e))
}

/// Answers OpenSSH where it is who started this program.
pub(crate) fn answer() -> Option<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [word, folder, host, kind, key, fingerprint] = &arguments[..]
        && word == HOST_KEY
    {
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        let line = known_host(Path::new(folder), [text(host), text(kind), text(key), text(fingerprint)]);
        print!("{line}");
        return Some(ExitCode::SUCCESS);
    }
    let folder = std::env::var_os(VARIABLE)?;
    let question = arguments.first().map(|question| question.to_string_lossy().into_owned()).unwrap_or_default();
    let password = is_for_password(&question).then(|| read_password(Path::new(&folder))).flatten();
    Some(match password {
        Some(password) => {
            print!("{}", password.expose());
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    })
}

/// A line of known hosts for the key that is pinned. Before the connection OpenSSH asks which kinds are known: then all is
/// `NONE`.
fn known_host(folder: &Path, [host, kind, key, fingerprint]: [String; 4]) -> String {
    if fingerprint == "NONE" {
        return String::new();
    }
    let _ = fs::write(folder.join("seen"), format!("{kind} {fingerprint}\n"));
    match fs::read_to_string(folder.join("pin")) {
        Ok(pin) if pin == fingerprint => format!("{host} {kind} {key}\n"),
        _ => String::new(),
    }
}

/// `ada@web1's password: `, or PAM's `(ada@web1) Password: `.
fn is_for_password(question: &str) -> bool {
    question.trim_end().trim_end_matches(':').to_ascii_lowercase().ends_with("password")
}

fn read_password(folder: &Path) -> Option<Secret> {
    let mut line = String::new();
    let fifo = folder.join("password");
    // Without one, opening would wait for ever.
    fs::symlink_metadata(&fifo).ok()?;
    BufReader::new(File::open(fifo).ok()?).read_line(&mut line).ok()?;
    Some(Secret::new(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_question_for_a_password_is_answered() {
        for question in ["ada@web1's password: ", "(ada@web1) Password: ", "Password:"] {
            assert!(is_for_password(question), "{question}");
        }
        for question in
            ["Enter passphrase for key '/k': ", "Verification code: ", "Password changed, go on (yes/no)? ", ""]
        {
            assert!(!is_for_password(question), "{question}");
        }
    }

    #[test]
    fn a_password_comes_once_for_each_question_and_is_in_no_file() {
        let folder = Folder::new().unwrap();
        assert!(read_password(folder.path()).is_none());
        folder.offer_password(&Secret::new("s3 cret".into())).unwrap();
        for _ in 0..2 {
            assert_eq!(read_password(folder.path()).unwrap().expose(), "s3 cret\n");
        }
        let path = folder.path().to_path_buf();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_host_is_known_by_its_pinned_key_alone() {
        let folder = Folder::new().unwrap();
        let ask = |fingerprint: &str| {
            known_host(folder.path(), ["[web1]:2222", "ssh-ed25519", "AAAA", fingerprint].map(str::to_owned))
        };
        assert_eq!((ask("NONE"), folder.seen()), (String::new(), None));
        assert_eq!(ask("SHA256:a"), "");
        let seen = HostKey { kind: "ssh-ed25519".into(), fingerprint: "SHA256:a".into() };
        assert_eq!(folder.seen(), Some(seen));
        folder.pin("SHA256:a").unwrap();
        assert_eq!((ask("SHA256:a").as_str(), ask("SHA256:b").as_str()), ("[web1]:2222 ssh-ed25519 AAAA\n", ""));
    }
}
