//! A boot image that the controller pushes to this machine, which runs its own system: its files come in pieces, `oneshot` puts them in
//! place, starts them once, and undoes all that.
//!
//! Pieces lie in memory (`/run`) until they are placed. What is left of an earlier push is undone as soon as the agent starts, whether
//! there is a controller or not.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use machine::push::{BootPathReport, PushOrder, Survey};
use oneshot::{Restart, System};
use protocol::message::PowerAction;
use protocol::piece::FilePiece;

use crate::pieces::{Bounds, Incoming, discard};
use crate::power::run_first;
use crate::{Config, Error, ErrorKind, Result, Screen, Status};

const BOUNDS: Bounds = Bounds { files: 16, file_bytes: 64 << 20, bytes: 64 << 20 };
/// Longest report of the boot image about the boot path.
const REPORT_BYTES_MAX: u64 = 1 << 20;
/// The orderly way into a kernel that is loaded; without systemd there is none.
const KEXEC: [&[&str]; 1] = [&["systemctl", "kexec"]];
/// `wall` may wait for a terminal that takes nothing.
const WALL_MAX: Duration = Duration::from_secs(5);

/// What became of the boot path of the last push: said until the controller kept it. Shared by all connections.
#[derive(Default)]
pub(crate) struct BootPath(Mutex<Option<BootPathReport>>);

impl BootPath {
    /// In the boot image, what that restored; on the machine's own system, what is undone just now.
    pub(crate) fn look(config: &Config) -> Self {
        let found = match (config.is_boot_image(), &config.boot_path) {
            (true, Some(path)) => load_report(path),
            (true, None) => None,
            (false, _) => withdraw(config).unwrap_or_else(|error| {
                let differences = vec![format!("what a push left cannot be undone: {}", error.chain())];
                Some(BootPathReport { differences, ..BootPathReport::default() })
            }),
        };
        Self(Mutex::new(found))
    }

    /// What is still to be said.
    pub(crate) fn untold(&self) -> Option<BootPathReport> {
        self.lock().clone()
    }

    fn set(&self, report: BootPathReport) {
        *self.lock() = Some(report);
    }

    /// The controller kept it.
    pub(crate) fn told(&self, config: &Config, task: &str) {
        let mut untold = self.lock();
        if untold.as_ref().is_some_and(|report| report.task == task) {
            let is_whole = untold.take().is_some_and(|report| report.differences.is_empty());
            // What could not be undone is tried again at the next start; so is what cannot be forgotten.
            if is_whole && !config.is_boot_image() {
                let _ = oneshot::forget(&system(config));
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<BootPathReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load_report(path: &std::path::Path) -> Option<BootPathReport> {
    let failed = |what: String| {
        let differences = vec![format!("the boot image does not know what it restored: {what}")];
        Some(BootPathReport { differences, ..BootPathReport::default() })
    };
    match std::fs::metadata(path) {
        // It was not pushed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => failed(error.to_string()),
        Ok(metadata) if metadata.len() > REPORT_BYTES_MAX => failed("its report is too long".into()),
        Ok(_) => match std::fs::read(path)
            .map_err(|e| e.to_string())
            .and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string()))
        {
            Ok(report) => Some(report),
            Err(error) => failed(error),
        },
    }
}

fn system(config: &Config) -> System {
    System::new(&config.state_dir)
}

/// Undoes what there is of a push.
fn withdraw(config: &Config) -> Result<Option<BootPathReport>> {
    oneshot::withdraw(&system(config)).map_err(refused)
}

fn refused(error: oneshot::Error) -> Error {
    Error::new(ErrorKind::Refused, error.chain())
}

/// The push of one connection.
pub(crate) struct Push {
    folder: PathBuf,
    coming: Option<Incoming>,
    /// Why a piece could not be taken, until that can be told.
    failure: Option<String>,
    is_placed: bool,
    /// When the machine is to be restarted.
    due: Option<Instant>,
}

impl Push {
    /// None yet.
    pub(crate) fn new() -> Self {
        let folder = PathBuf::from(format!("/run/vconverter-agent-{}", std::process::id()));
        Self { folder, coming: None, failure: None, is_placed: false, due: None }
    }

    /// How the machine could be started from the boot image.
    pub(crate) fn survey(config: &Config) -> Survey {
        Survey { controller: config.controller.clone(), ..oneshot::survey(&system(config)) }
    }

    /// Takes a piece; that one was not taken is told when all should be there.
    pub(crate) fn take(&mut self, piece: &FilePiece) {
        if self.coming.as_ref().is_none_or(|coming| coming.push < piece.push) {
            discard(&self.folder);
            (self.coming, self.failure) = (Some(Incoming::new(piece.push, BOUNDS)), None);
        }
        if let Some(coming) = self.coming.as_mut().filter(|coming| coming.push == piece.push && !coming.is_refused())
            && let Err(why) = coming.take(&self.folder, piece)
        {
            self.failure = Some(format!("{}: {why}", piece.name));
        }
    }

    /// All files are there: puts them in place. Returns what was done; what cannot be done leaves nothing behind.
    pub(crate) fn place(&mut self, config: &Config, push: u64, order: &PushOrder) -> Result<Vec<String>> {
        let coming = self.coming.take().filter(|coming| coming.push == push);
        let placed = match (coming, self.failure.take()) {
            (None, _) => Err(Error::new(ErrorKind::Refused, "no files of this push came")),
            (_, Some(why)) => Err(Error::new(ErrorKind::Refused, why)),
            (Some(_), None) => oneshot::place(&system(config), order, &self.folder).map_err(refused),
        };
        discard(&self.folder);
        self.is_placed = placed.is_ok();
        placed
    }

    /// Warns who is logged in, and notes when the machine is to be restarted.
    pub(crate) fn start(&mut self, text: &str, warning: Duration) -> Result<()> {
        if !self.is_placed {
            return Err(Error::new(ErrorKind::Refused, "nothing is in place that could be started"));
        }
        let when = match warning.as_secs() {
            0 => "now".to_owned(),
            seconds @ 1..120 => format!("in {seconds} seconds"),
            seconds => format!("in {} minutes", seconds / 60),
        };
        warn(&format!("{text} It is restarted {when}.\n"));
        self.due = Some(Instant::now() + warning);
        Ok(())
    }

    /// Whether the time to restart has come; how long until then otherwise.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Changes what the firmware or a boot loader looks at, and restarts the machine.
    pub(crate) fn restart(&mut self, config: &Config, screen: &Screen) -> Result<()> {
        self.due = None;
        let restart = oneshot::arm(&system(config)).map_err(refused)?;
        screen.show(Status::Restarting { detail: "into the boot image".into() });
        match restart {
            Restart::Firmware => crate::power::end_own_system(PowerAction::Restart),
            Restart::Kexec => run_first(&KEXEC),
        }
    }

    /// Undoes what an earlier connection placed, where there is a record of it.
    pub(crate) fn withdraw_left(&mut self, config: &Config, boot_path: &BootPath) -> Result<()> {
        if let Some(report) = withdraw(config)? {
            boot_path.set(report);
        }
        Ok(())
    }

    /// Undoes everything.
    pub(crate) fn withdraw(&mut self, config: &Config, boot_path: &BootPath) -> Result<BootPathReport> {
        (self.due, self.is_placed, self.coming) = (None, false, None);
        discard(&self.folder);
        let report = withdraw(config)?.unwrap_or_default();
        boot_path.set(report.clone());
        Ok(report)
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        discard(&self.folder);
    }
}

/// Says something on every terminal; where that cannot be done, nobody is logged in at one.
fn warn(text: &str) {
    let started = Command::new("wall").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut wall) = started else { return };
    if let Some(mut input) = wall.stdin.take() {
        let _ = input.write_all(text.as_bytes());
    }
    let deadline = Instant::now() + WALL_MAX;
    while matches!(wall.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            let _ = wall.kill();
            let _ = wall.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
