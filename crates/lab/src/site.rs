//! A customer's site: a LAN, and on its controller's host a real `vconverter serve`, driven through its command line as an
//! operator would. End-to-end tests and the demonstration are told with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use qemu::{Hardware, NicBackend, SerialReader, Vm};
use serde_json::Value;

use crate::lan::{CONTROLLER, Cable, Lan};
use crate::namespace::Daemon;
use crate::{Boot, Error, Result, SourceMachine};

/// The controller's agent port.
const PORT: u16 = 7770;
/// How long a machine may take from power-on to its pairing code, and a command of the controller to answer.
const PAIRING: Duration = Duration::from_secs(600);

/// A LAN with a running controller. Dropping it ends everything.
pub struct Site {
    controller: Option<Daemon>,
    lan: Lan,
    folder: PathBuf,
    programs: PathBuf,
    /// The boot image that the controller offers by PXE.
    pxe: Option<PathBuf>,
    /// Where the programs keep temporary files, where that is not the system's folder.
    temporary: Option<PathBuf>,
    /// The controller serves its console.
    console: bool,
}

impl Site {
    /// A site whose files lie in `folder`; its controller is started.
    pub fn new(folder: &Path) -> Result<Self> {
        Self::start(folder, None)
    }

    /// The same, whose programs keep their temporary files in a folder of the site, so that it is seen what they leave.
    pub fn with_temporary_folder(folder: &Path) -> Result<Self> {
        let temporary = folder.join("tmp");
        fs::create_dir_all(&temporary).map_err(|e| Error::file(&temporary, e))?;
        Self::start(folder, Some(temporary))
    }

    fn start(folder: &Path, temporary: Option<PathBuf>) -> Result<Self> {
        let site = folder.join("vms");
        fs::create_dir_all(&site).map_err(|e| Error::file(&site, e))?;
        let (lan, programs, folder) = (Lan::new()?, programs()?, folder.to_path_buf());
        let mut site = Self { controller: None, lan, folder, programs, pxe: None, temporary, console: false };
        site.start_controller()?;
        Ok(site)
    }

    /// The network.
    pub fn lan(&mut self) -> &mut Lan {
        &mut self.lan
    }

    /// Where results appear.
    pub fn output(&self) -> PathBuf {
        self.folder.join("vms")
    }

    /// Where agents find the controller.
    pub fn controller_address(&self) -> String {
        format!("{CONTROLLER}:{PORT}")
    }

    /// Starts the controller, if it does not run, and waits until it answers.
    pub fn start_controller(&mut self) -> Result<()> {
        let log = self.folder.join("controller.log");
        let log = File::options().create(true).append(true).open(&log).map_err(|e| Error::file(&log, e))?;
        let mut command = self.program("vconverter");
        command.args(["--json", "serve", "--listen", &self.controller_address()]).env("RUST_LOG", "info");
        match self.console {
            true => command.args(["--console", "127.0.0.1:0"]),
            false => command.arg("--no-console"),
        };
        if let Some(boot_image) = &self.pxe {
            command.args(["--pxe", "--boot-image"]).arg(boot_image);
        }
        let started = self.folder.join("controller.json");
        let started = File::create(&started).map_err(|e| Error::file(&started, e))?;
        command.stdout(started).stderr(log);
        self.controller = Some(Daemon::start(command)?);
        let start = Instant::now();
        loop {
            match self.json(&["tasks"]) {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > Duration::from_secs(30) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// The most memory that the controller ever had, in KiB.
    pub fn controller_peak_memory_kib(&self) -> Result<u64> {
        let controller = self.controller.as_ref().ok_or_else(|| Error::new("the controller does not run"))?;
        controller.peak_memory_kib()
    }

    /// Builds the boot image, and starts the controller again with the PXE service.
    pub fn start_pxe(&mut self) -> Result<()> {
        let iso = self.boot_image()?;
        self.kill_controller();
        self.pxe = iso.parent().map(Path::to_path_buf);
        self.start_controller()
    }

    /// Starts the controller again with its console, for a browser on its host, and returns what it says: `console_address`
    /// and `setup_code`.
    pub fn start_console(&mut self) -> Result<Value> {
        self.kill_controller();
        self.console = true;
        self.start_controller()?;
        let path = self.folder.join("controller.json");
        let said = fs::read(&path).map_err(|e| Error::file(&path, e))?;
        serde_json::from_slice(&said).map_err(|e| Error::new(format!("{}: no JSON: {e}", path.display())))
    }

    /// The controller's process.
    pub fn controller_process(&self) -> Option<u32> {
        self.controller.as_ref().map(Daemon::process)
    }

    /// Kills the controller with SIGKILL.
    pub fn kill_controller(&mut self) {
        self.controller = None;
    }

    /// One of our programs, on the controller's host, with the controller's data directory.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.env("VCONVERTER_DATA", self.folder.join("data")).stdin(Stdio::null());
        if let Some(temporary) = &self.temporary {
            command.env("TMPDIR", temporary);
        }
        self.lan.controller().enter(&mut command);
        command
    }

    /// Runs `vconverter` and returns how it ended and what it printed.
    pub fn vconverter(&self, arguments: &[&str]) -> Result<(ExitStatus, String)> {
        let mut command = self.program("vconverter");
        command.args(arguments).stderr(Stdio::inherit());
        let output = command.output().map_err(|e| Error::io("running vconverter", e))?;
        Ok((output.status, String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Runs `vconverter --json …`, which has to succeed, and returns its answer.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.program("vconverter");
        let output = command.arg("--json").args(arguments).output().map_err(|e| Error::io("running vconverter", e))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
            return Err(Error::new(format!("vconverter {}: {}: {said}", arguments.join(" "), output.status)));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|e| Error::new(format!("vconverter {}: no JSON: {e}", arguments.join(" "))))
    }

    /// Builds the boot image for this site's controller and returns its ISO.
    pub fn boot_image(&self) -> Result<PathBuf> {
        self.boot_image_with(&["--controller", &self.controller_address()])
    }

    /// Builds a boot image with these options, or with none, so that it asks on its screen, and returns its ISO.
    pub fn boot_image_with(&self, options: &[&str]) -> Result<PathBuf> {
        let folder = self.folder.join("boot");
        let folder_text = folder.display().to_string();
        let arguments = [&["boot-image", "build", "--output", &folder_text], options].concat();
        let (status, said) = self.vconverter(&arguments)?;
        match status.success() {
            true => Ok(folder.join("vconverter.iso")),
            false => Err(Error::new(format!("boot-image build: {status}: {said}"))),
        }
    }

    /// Plugs the machine into the LAN and switches it on.
    pub fn switch_on(&mut self, machine: &SourceMachine, boot: Boot<'_>) -> Result<(Vm, Cable)> {
        self.switch_on_hardware(machine.hardware(boot, NicBackend::Unplugged))
    }

    /// Plugs the first NIC of some hardware into the LAN and switches it on.
    pub fn switch_on_hardware(&mut self, mut hardware: Hardware) -> Result<(Vm, Cable)> {
        let cable = self.lan.plug(&mut hardware, 0)?;
        Ok((hardware.start()?, cable))
    }

    /// Waits for the pairing code on a machine's serial console, types it into the controller, and returns it with the
    /// machine's id.
    pub fn pair(&self, vm: &Vm) -> Result<(String, String)> {
        let code = self.approve(vm)?;
        Ok((code, self.ready_machine(PAIRING)?))
    }

    /// Waits for the pairing code on a machine's serial console and types it into the controller.
    pub fn approve(&self, vm: &Vm) -> Result<String> {
        let code = pairing_code(&mut vm.serial(0).reader(), PAIRING)?;
        self.json(&["machines", "approve", &code])?;
        Ok(code)
    }

    /// Starts an agent on the LAN that serves `disk` as a machine's only one. It runs until it is dropped (SIGKILL), and
    /// keeps its key in `folder`, where its status lines go too.
    pub fn start_agent(&self, disk: &Path, folder: &Path) -> Result<RunningAgent> {
        self.start_agent_with(disk, folder, &[])
    }

    /// The same with further arguments.
    pub fn start_agent_with(&self, disk: &Path, folder: &Path, arguments: &[&str]) -> Result<RunningAgent> {
        fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let log = folder.join("agent.log");
        let output = File::options().create(true).append(true).open(&log).map_err(|e| Error::file(&log, e))?;
        let mut command = Command::new(self.programs.join("vconverter-agent"));
        let status = self.json(&["status"])?;
        let fingerprint = status["ca_fingerprint"].as_str().unwrap_or_default();
        command.args(["--controller", &self.controller_address(), "--ca-fingerprint", fingerprint, "--state-dir"]);
        command
            .arg(folder.join("state"))
            .arg("--disk")
            .arg(disk)
            .args(arguments)
            .stdout(output)
            .stderr(Stdio::inherit());
        self.lan.machines().enter(&mut command);
        Ok(RunningAgent { process: Daemon::start(command)?, log })
    }

    /// Types the pairing code that the agent shows into the controller, and returns the machine's id.
    pub fn pair_agent(&self, agent: &RunningAgent) -> Result<String> {
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(&agent.log).unwrap_or_default();
            let code = log.split("\"pairing_code\":\"").nth(1).and_then(|rest| rest.split('"').next());
            if let Some(code) = code {
                self.json(&["machines", "approve", code])?;
                return self.ready_machine(PAIRING);
            }
            if start.elapsed() > Duration::from_secs(60) {
                return Err(Error::new(format!("the agent shows no pairing code: {log}")));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until a machine is connected, approved and reported, and returns its id.
    pub fn ready_machine(&self, timeout: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            let machines = self.json(&["machines"])?;
            let ready = machines
                .as_array()
                .into_iter()
                .flatten()
                .find(|machine| machine["id"].is_string() && machine["state"] == "ready");
            if let Some(machine) = ready {
                return Ok(machine["id"].as_str().unwrap_or_default().to_string());
            }
            if start.elapsed() > timeout {
                return Err(Error::new(format!("no machine became ready: {machines}")));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Waits until a task has ended and returns it.
    pub fn wait_for_task(&self, id: &str, timeout: Duration) -> Result<Value> {
        let start = Instant::now();
        loop {
            let task = self.json(&["tasks", "show", id])?;
            if matches!(task["state"].as_str(), Some("done" | "failed" | "cancelled")) {
                return Ok(task);
            }
            if start.elapsed() > timeout {
                return Err(Error::new(format!("task {id} did not end in time: {task}")));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Where our programs are.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// What the controller logged.
    pub fn controller_log(&self) -> String {
        fs::read_to_string(self.folder.join("controller.log")).unwrap_or_default()
    }
}

/// Waits for the next pairing code on a machine's serial console.
pub fn pairing_code(screen: &mut SerialReader, timeout: Duration) -> Result<String> {
    screen.wait_for("pairing code: ", timeout)?;
    let line = screen.next_line(Duration::from_secs(30))?;
    Ok(line.unwrap_or_default().trim().to_string())
}

/// An agent that runs beside the lab's machines. Dropping it kills it with SIGKILL.
pub struct RunningAgent {
    process: Daemon,
    log: PathBuf,
}

impl RunningAgent {
    /// The most memory that it ever had, in KiB.
    pub fn peak_memory_kib(&self) -> Result<u64> {
        self.process.peak_memory_kib()
    }
}

/// The folder of our programs: beside this one, or above a test.
fn programs() -> Result<PathBuf> {
    let executable = std::env::current_exe().map_err(|e| Error::io("finding our own program", e))?;
    let folders = executable.ancestors().skip(1).take(2);
    folders.map(Path::to_path_buf).find(|folder| folder.join("vconverter").is_file()).ok_or_else(|| {
        Error::new(format!("no program vconverter near {}: build it first (make build)", executable.display()))
    })
}
