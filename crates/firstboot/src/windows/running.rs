//! [`System`] on the Windows that runs.
//!
//! Unsafe for its version and its host name.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use machine::firstboot::{DRIVERS_FOLDER, DiskSignature, SCRIPTS_FOLDER, Scaffolding, StepResult};
use windows_sys::Wdk::System::SystemServices::RtlGetVersion;
use windows_sys::Win32::System::SystemInformation::{ComputerNameDnsHostname, GetComputerNameExW, OSVERSIONINFOW};

use super::{adapters, certificates, devices, disks, from_wide, process, registry, removal, serial, shutdown};
use crate::adapters::Adapter;
use crate::command::CommandLine;
use crate::letters::{LetterChange, VolumeSeen};
use crate::network::RegistryValue;
use crate::run::Places;
use crate::system::{Ended, Facts, System};
use crate::{Error, ErrorKind, Result};

/// Output of the program that runs, beside the plan.
const OUTPUT_FILE: &str = "output.tmp";
/// Windows 10 1607: pnputil has words instead of letters.
const PNPUTIL_WORDS_SINCE: u32 = 14_393;

/// The system that this program runs on.
pub(super) struct Windows {
    places: Places,
    stop: Arc<AtomicBool>,
}

impl Windows {
    /// One that nothing stops.
    pub(super) fn new(places: &Places) -> Self {
        Self::stopped_by(places, Arc::default())
    }

    /// One in which everything that waits ends when `stop` is set.
    pub(super) fn stopped_by(places: &Places, stop: Arc<AtomicBool>) -> Self {
        Self { places: places.clone(), stop }
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Stopping, "told to stop"));
        }
        Ok(())
    }

    fn system32(&self, program: &str) -> PathBuf {
        self.places.system_root.join("System32").join(program)
    }
}

impl System for Windows {
    fn wait_for_devices(&mut self, patience: Duration) -> Result<()> {
        let done = devices::wait_until_installed(patience, || self.stop.load(Ordering::Relaxed));
        self.check_stop()?;
        if done {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TimedOut, format!("windows still installs devices after {} s", patience.as_secs())))
    }

    fn run(&mut self, command: &CommandLine, patience: Duration) -> Result<Ended> {
        self.check_stop()?;
        let mut command = command.clone();
        if !Path::new(&command.program).is_absolute() {
            command.program = shown(&self.system32(&command.program));
        }
        let scripts = self.places.folder.join(SCRIPTS_FOLDER);
        let folder = if scripts.is_dir() { &scripts } else { &self.places.folder };
        let output = self.places.folder.join(OUTPUT_FILE);
        process::run(&command, &process::Conditions { folder, output: &output, patience, stop: &self.stop })
    }

    fn driver_command(&self, inf: &str) -> CommandLine {
        let inf = shown(&self.places.folder.join(DRIVERS_FOLDER).join(inf.replace('/', "\\")));
        let program = self.system32("pnputil.exe");
        if !program.is_file() {
            let own = std::env::current_exe().unwrap_or_default();
            return CommandLine::new(shown(&own), ["--install-driver".to_owned(), inf]);
        }
        let (_, _, build) = version();
        if build >= PNPUTIL_WORDS_SINCE {
            return CommandLine::new(shown(&program), ["/add-driver".to_owned(), inf, "/install".to_owned()]);
        }
        CommandLine::new(shown(&program), ["-i".to_owned(), "-a".to_owned(), inf])
    }

    fn script_command(&self, file: &str) -> CommandLine {
        let path = shown(&self.places.folder.join(SCRIPTS_FOLDER).join(file));
        let extension = file.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "exe" => CommandLine::new(path, [""; 0]),
            "ps1" => {
                let program = self.system32(r"WindowsPowerShell\v1.0\powershell.exe");
                let words = ["-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File", path.as_str()];
                CommandLine::new(shown(&program), words)
            }
            _ => CommandLine::new(shown(&self.system32("cmd.exe")), ["/d", "/c", path.as_str()]),
        }
    }

    fn adapters(&mut self) -> Result<Vec<Adapter>> {
        adapters::adapters()
    }

    fn set_value(&mut self, value: &RegistryValue) -> Result<()> {
        registry::set(value)
    }

    fn trust_publisher(&mut self, file: &str) -> Result<StepResult> {
        certificates::trust_publisher(&self.places.folder.join(DRIVERS_FOLDER).join(file.replace('/', "\\")))
    }

    fn bring_online(&mut self, disk: &DiskSignature) -> Result<StepResult> {
        disks::bring_online(disk)
    }

    fn volumes(&mut self) -> Result<Vec<VolumeSeen>> {
        disks::volumes()
    }

    fn change_letter(&mut self, change: &LetterChange) -> Result<()> {
        disks::change_letter(change)
    }

    fn remove_ghost(&mut self, instance_id: &str) -> Result<StepResult> {
        devices::remove_ghost(instance_id)
    }

    fn facts(&mut self) -> Facts {
        let key = registry::Key::open(r"SOFTWARE\Microsoft\Windows NT\CurrentVersion").ok().flatten();
        let (major, minor, build) = version();
        Facts {
            hostname: host_name(),
            product: key.and_then(|key| key.text("ProductName")).unwrap_or_default(),
            version: format!("{major}.{minor}.{build}"),
            boot_drive: std::env::var("SystemDrive").unwrap_or_default(),
        }
    }

    fn write_serial(&mut self, port: &str, line: &str) -> Result<()> {
        serial::write_line(port, line)
    }

    fn restart(&mut self) -> Result<()> {
        shutdown::restart()
    }

    fn sleep(&mut self, time: Duration) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.check_stop()?;
            std::thread::sleep(Duration::from_millis(100).min(time));
        }
        Ok(())
    }

    fn remove(&mut self, scaffolding: &Scaffolding) -> Vec<String> {
        removal::remove(scaffolding, &self.places)
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// As the kernel says it, whatever a manifest or a compatibility setting would.
fn version() -> (u32, u32, u32) {
    let length = u32::try_from(size_of::<OSVERSIONINFOW>()).unwrap_or(0);
    let mut found = OSVERSIONINFOW { dwOSVersionInfoSize: length, ..Default::default() };
    // SAFETY: the struct says its own length and is written to.
    unsafe { RtlGetVersion(&raw mut found) };
    (found.dwMajorVersion, found.dwMinorVersion, found.dwBuildNumber)
}

fn host_name() -> String {
    let mut units = [0; 256];
    let mut length = 256;
    // SAFETY: the buffer is as long as `length` says, which is written to.
    let done = unsafe { GetComputerNameExW(ComputerNameDnsHostname, units.as_mut_ptr(), &raw mut length) };
    if done == 0 { String::new() } else { from_wide(&units) }
}
