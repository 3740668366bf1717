//! The system that the agent is installed on: where its files are, what starts its services, and how its commands run.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind, Result};

/// Longest time for a command of the system; systemd gives a service 90 s to stop.
const COMMAND_SECONDS_MAX: u64 = 120;
/// How often it is looked whether a command has ended.
const PAUSE: Duration = Duration::from_millis(20);
/// What is quoted of a command's last words.
const SAID_BYTES_MAX: u64 = 4096;
/// Where administrators' commands are, whatever the caller's PATH says.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What starts the services of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum InitSystem {
    Systemd,
    OpenRc,
    Sysv,
}

/// Runs a command to its end.
type Runner = dyn Fn(&[String]) -> Result<()>;

/// This machine's own system, or one that is mounted somewhere and does not run.
pub(super) struct System {
    root: PathBuf,
    /// Nothing runs there: no command is given.
    offline: bool,
    /// Runs commands; replaced in tests.
    runner: Box<Runner>,
}

impl System {
    /// The running one, or that below `root`.
    pub(super) fn new(root: Option<&Path>) -> Self {
        Self {
            root: root.unwrap_or(Path::new("/")).to_path_buf(),
            offline: root.is_some(),
            runner: Box::new(run_command),
        }
    }

    /// One below `root` that is said to run, and whose commands go to `runner`.
    #[cfg(test)]
    pub(super) fn running(root: &Path, runner: impl Fn(&[String]) -> Result<()> + 'static) -> Self {
        Self { root: root.to_path_buf(), offline: false, runner: Box::new(runner) }
    }

    pub(super) fn is_offline(&self) -> bool {
        self.offline
    }

    /// Whether this is the system that we run on.
    pub(super) fn is_own(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where an absolute path of that system is for us.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(super) fn exists(&self, path: impl AsRef<Path>) -> bool {
        // A link that leads nowhere is there.
        fs::symlink_metadata(self.path(path)).is_ok()
    }

    /// A command of that system, by name.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| self.path(path).is_file())
    }

    /// Our own program's file: what is copied, and what runs in the background.
    pub(super) fn program(&self) -> PathBuf {
        // Also when it was deleted meanwhile, and in a child before it has become another program.
        "/proc/self/exe".into()
    }

    /// What starts its services.
    ///
    /// # Errors
    /// [`ErrorKind::Service`] where none is known.
    pub(super) fn init_system(&self) -> Result<InitSystem> {
        // Of a system that does not run, what it would start with.
        let signs: [(InitSystem, &[&str]); 3] = match self.offline {
            false => [
                (InitSystem::Systemd, &["/run/systemd/system"]),
                (InitSystem::OpenRc, &["/run/openrc"]),
                (InitSystem::Sysv, &["/etc/init.d", "/etc/rc.d/init.d"]),
            ],
            true => [
                (InitSystem::Systemd, &["/usr/lib/systemd/systemd", "/lib/systemd/systemd"]),
                (InitSystem::OpenRc, &["/sbin/openrc-run", "/usr/sbin/openrc-run", "/sbin/runscript"]),
                (InitSystem::Sysv, &["/etc/init.d", "/etc/rc.d/init.d"]),
            ],
        };
        let found = signs.into_iter().find(|(_, signs)| signs.iter().any(|sign| self.path(sign).exists()));
        found.map(|(init, _)| init).ok_or_else(|| {
            let text = "neither systemd nor OpenRC nor SysV init scripts are here: run the agent with --once, and again after each start";
            Error::new(ErrorKind::Service, text)
        })
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// [`ErrorKind::Service`] with its last words where it fails.
    pub(super) fn run(&self, command: &[String]) -> Result<()> {
        (self.runner)(command)
    }

    /// Whether files can be made in a folder, or in the nearest one above it that is there. A file is made and removed.
    pub(super) fn is_writable(&self, folder: &Path) -> bool {
        let there = self.path(folder);
        let Some(there) = there.ancestors().find(|folder| folder.is_dir()) else { return false };
        let probe = there.join(format!(".vconverter-probe-{}", std::process::id()));
        let made = fs::File::options().write(true).create_new(true).open(&probe);
        let _ = fs::remove_file(&probe);
        made.is_ok()
    }
}

/// A failed step on a file, with what to do where that is known.
pub(super) fn file_error(what: &str, path: &Path, error: std::io::Error) -> Error {
    let folder = path.parent().unwrap_or(path).display();
    let context = match error.raw_os_error() {
        Some(libc::ENOSPC) => format!("no space is left on the filesystem of {folder}"),
        Some(libc::EDQUOT) => format!("the quota on the filesystem of {folder} is used up"),
        Some(libc::EROFS) => format!("the filesystem of {folder} is read-only"),
        Some(libc::EACCES | libc::EPERM) => format!("not allowed to write in {folder}: it takes root"),
        _ => format!("cannot {what} {}", path.display()),
    };
    Error::new(ErrorKind::Service, context).because(error)
}

fn run_command(command: &[String]) -> Result<()> {
    let shown = command.join(" ");
    let failed = |why: String| Error::new(ErrorKind::Service, format!("{shown}: {why}"));
    let [program, arguments @ ..] = command else { return Err(failed("no command".into())) };
    let path = FOLDERS.join(":");
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    // On a thread of its own: a service that was started may hold the pipe for ever.
    let said = child.stderr.take().map(|stderr| {
        let (sender, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.take(SAID_BYTES_MAX).read_to_end(&mut text);
            let _ = sender.send(String::from_utf8_lossy(&text).trim().replace('\n', "; "));
        });
        said
    });
    let status = wait(&mut child, Duration::from_secs(COMMAND_SECONDS_MAX)).map_err(|e| failed(e.to_string()))?;
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let said = said.and_then(|said| said.recv_timeout(Duration::from_secs(1)).ok()).unwrap_or_default();
            Err(failed(if said.is_empty() { status.to_string() } else { said }))
        }
        None => Err(failed(format!("not done within {COMMAND_SECONDS_MAX} s"))),
    }
}

/// How a child ended; `None` where it did not in time, and was killed.
fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > timeout {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_is_quoted() {
        let run = |line: &str| run_command(&["sh".into(), "-c".into(), line.into()]);
        assert!(run("exit 0").is_ok());
        let error = run("echo a >&2; echo b >&2; exit 3").unwrap_err();
        assert!(error.to_string().ends_with(": a; b"), "{error}");
        let error = run_command(&["no-such-command".into()]).unwrap_err();
        assert!(error.to_string().starts_with("no-such-command: No such file"), "{error}");
    }

    #[test]
    fn the_init_system_that_runs_counts_and_of_a_mounted_one_what_it_has() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| fs::create_dir_all(root.path().join(path)).unwrap();
        let (live, mounted) = (System::running(root.path(), |_| Ok(())), System::new(Some(root.path())));
        assert!(live.init_system().unwrap_err().to_string().contains("--once"));
        make("etc/init.d");
        assert_eq!(live.init_system().unwrap(), InitSystem::Sysv);
        make("lib/systemd");
        fs::write(root.path().join("lib/systemd/systemd"), "").unwrap();
        assert_eq!(
            (live.init_system().unwrap(), mounted.init_system().unwrap()),
            (InitSystem::Sysv, InitSystem::Systemd)
        );
        make("run/openrc");
        assert_eq!(live.init_system().unwrap(), InitSystem::OpenRc);
        make("run/systemd/system");
        assert_eq!(live.init_system().unwrap(), InitSystem::Systemd);
    }
}
