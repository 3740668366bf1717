//! A running virtual machine.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::command::{self, Files, PROGRAM, Pflash};
use crate::firmware::find_ovmf;
use crate::process::{NOBODY, Process, Surroundings};
use crate::scratch::Scratch;
use crate::{
    Accelerator, Confinement, Error, ErrorKind, Exit, ExitKind, Firmware, Hardware, Picture, Qmp, Result, Serial, tpm,
};

/// Longest picture of a screen.
const SCREEN_SIZE_MAX: u64 = 256 << 20;

/// A running virtual machine. Dropping it kills it.
pub struct Vm {
    process: Process,
    /// Ends by itself when QEMU has, and is killed with it at the latest.
    _tpm: Option<Process>,
    qmp: Qmp,
    serial_ports: Vec<Serial>,
    accelerator: Accelerator,
    /// Removed after the process.
    scratch: Scratch,
}

impl Hardware {
    /// Starts the machine. Errors: [`ErrorKind::Missing`] without QEMU, OVMF or swtpm where they are needed, [`ErrorKind::Hardware`],
    /// [`ErrorKind::Exited`] with QEMU's words when it refuses (an image that is in use, for one).
    pub fn start(&self) -> Result<Vm> {
        let nobody = self.confinement == Confinement::Unprivileged && rustix::process::geteuid().is_root();
        let mut accelerator = self.accelerator.unwrap_or_else(Accelerator::probe);
        let kvm_group = if nobody { kvm_group() } else { None };
        if nobody && self.accelerator.is_none() && accelerator == Accelerator::Kvm && kvm_group.is_none() {
            accelerator = Accelerator::Tcg; // `nobody` cannot open /dev/kvm
        }
        let scratch = Scratch::new(nobody)?;
        let mut files = OpenedFiles { hand_over: nobody, folder: scratch.path(), sets: 0, descriptors: Vec::new() };
        let pflash = private_firmware(&self.firmware, scratch.path())?;
        let pflash = pflash.as_ref().map(|(code, variables)| Pflash { code, variables });
        let mut arguments = command::arguments(self, accelerator, pflash, &mut files)?;
        for (set, fd) in &files.descriptors {
            arguments.extend(["-add-fd".into(), format!("fd={},set={set}", fd.as_raw_fd())]);
        }
        let mut inherited: Vec<OwnedFd> = files.descriptors.into_iter().map(|(_, fd)| fd).collect();

        let monitor = socket(&mut inherited)?;
        let descriptor = inherited[inherited.len() - 1].as_raw_fd();
        arguments.extend(["-chardev".into(), format!("socket,id=qmp,fd={descriptor}")]);
        arguments.extend(["-mon".into(), "chardev=qmp,mode=control".into()]);
        let mut serial_ports = Vec::new();
        for (index, port) in self.serial_ports.iter().enumerate() {
            let ours = socket(&mut inherited)?;
            let descriptor = inherited[inherited.len() - 1].as_raw_fd();
            arguments.extend(["-chardev".into(), format!("socket,id=serial{index},fd={descriptor}")]);
            arguments.extend(["-serial".into(), format!("chardev:serial{index}")]);
            serial_ports.push(Serial::new(ours, port.log.as_deref())?);
        }

        let as_nobody = nobody.then_some(kvm_group);
        let mut tpm = None;
        if self.tpm {
            let (process, socket) = tpm::start(scratch.path(), as_nobody)?;
            arguments.extend(["-chardev".into(), format!("socket,id=tpm,fd={}", socket.as_raw_fd())]);
            arguments.extend(["-tpmdev".into(), "emulator,id=tpm0,chardev=tpm".into()]);
            arguments.extend(["-device".into(), "tpm-crb,tpmdev=tpm0".into()]);
            inherited.push(socket);
            tpm = Some(process);
        }

        let network_namespace = match &self.network_namespace {
            Some(path) => Some(File::open(path).map_err(|e| Error::io(path.display().to_string(), e))?),
            None => None,
        };
        let mut command = Command::new(PROGRAM);
        command.args(&arguments).current_dir("/");
        let surroundings = Surroundings { inherited, network_namespace, as_nobody };
        let process = Process::start(command, surroundings)?;
        let qmp = Qmp::connect(monitor).map_err(|e| last_words(&process, e))?;
        Ok(Vm { process, _tpm: tpm, qmp, serial_ports, accelerator, scratch })
    }
}

impl Vm {
    /// QEMU's monitor.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// A serial port by its place in [`Hardware::serial_ports`]; the guest's `ttyS<index>`.
    /// Panics when the machine was started without it.
    pub fn serial(&self, index: usize) -> &Serial {
        &self.serial_ports[index]
    }

    /// How its code is executed.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// Process id of QEMU.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Processor time that QEMU took until now, or until it ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        self.process.cpu_time()
    }

    /// What the screen shows, as a PNG file's content.
    pub fn screenshot(&self) -> Result<Vec<u8>> {
        self.qmp.execute("screendump", json!({ "filename": self.scratch.file("screen.png"), "format": "png" }))?;
        self.scratch.read("screen.png", SCREEN_SIZE_MAX)
    }

    /// What the screen shows, to be compared with an earlier picture.
    pub fn picture(&self) -> Result<Picture> {
        self.qmp.execute("screendump", json!({ "filename": self.scratch.file("screen.ppm"), "format": "ppm" }))?;
        Picture::parse_ppm(&self.scratch.read("screen.ppm", SCREEN_SIZE_MAX)?)
    }

    /// The 25 lines of 80 characters that a VGA in text mode shows, without trailing blanks: firmware, boot loaders and
    /// early kernels. Once the guest has switched to graphics it is what stood there last.
    pub fn text_screen(&self) -> Result<String> {
        const COLUMNS: usize = 80;
        const CELLS: usize = COLUMNS * 25;
        let arguments = json!({ "val": 0xb8000, "size": CELLS * 2, "filename": self.scratch.file("screen.text") });
        self.qmp.execute("pmemsave", arguments)?;
        let cells = self.scratch.read("screen.text", 2 * CELLS as u64)?;
        // A cell is a character of code page 437 and its colours; what is not ASCII there are lines and blocks.
        let character = |cell: &[u8]| if matches!(cell[0], 0x20..=0x7e) { char::from(cell[0]) } else { ' ' };
        let line = |row: &[u8]| row.chunks_exact(2).map(character).collect::<String>().trim_end().to_owned();
        Ok(cells.chunks(COLUMNS * 2).map(line).collect::<Vec<_>>().join("\n").trim_end().to_owned())
    }

    /// Waits until QEMU ends; `None` after `timeout`.
    pub fn wait(&self, timeout: Duration) -> Option<Exit> {
        let (status, killed_by_us) = self.process.wait(timeout)?;
        let reason = self.qmp.shutdown_reason(Duration::from_secs(5));
        use std::os::unix::process::ExitStatusExt;
        let kind = match (status.code(), reason.as_deref()) {
            _ if killed_by_us => ExitKind::Quit,
            (Some(0), Some("guest-shutdown")) => ExitKind::PowerOff,
            (Some(0), Some("guest-reset")) => ExitKind::Reset,
            (Some(0), _) => ExitKind::Quit,
            (Some(code), _) => ExitKind::Failed(code),
            (None, _) => ExitKind::Crashed(status.signal().unwrap_or_default()),
        };
        Some(Exit { kind, stderr: self.process.stderr() })
    }

    /// Whether QEMU still runs.
    pub fn is_running(&self) -> bool {
        self.process.wait(Duration::ZERO).is_none()
    }

    /// Kills QEMU and waits until it is gone: the power cable is pulled.
    pub fn kill(&self) {
        self.process.kill();
    }
}

/// Both ends of a socket: ours is returned, QEMU's goes to `inherited`.
fn socket(inherited: &mut Vec<OwnedFd>) -> Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("making a pair of sockets", e))?;
    inherited.push(theirs.into());
    Ok(ours)
}

/// When QEMU refuses to start, its standard error says why and the closed monitor does not.
fn last_words(process: &Process, error: Error) -> Error {
    if error.kind == ErrorKind::Exited {
        process.wait(Duration::from_secs(5));
        Error::new(ErrorKind::Exited, format!("{PROGRAM} did not start: {}", process.stderr()))
    } else {
        error
    }
}

/// Code and variables of OVMF; fresh variables are copied into `folder`.
fn private_firmware(firmware: &Firmware, folder: &Path) -> Result<Option<(PathBuf, PathBuf)>> {
    let Firmware::Uefi { secure_boot, variables } = firmware else { return Ok(None) };
    let files = find_ovmf(*secure_boot)?;
    let kept = match variables {
        Some(path) => path.clone(),
        None => folder.join("variables.fd"),
    };
    if variables.is_none() || !kept.exists() {
        std::fs::copy(&files.variables, &kept).map_err(|e| Error::io(format!("copying {}", kept.display()), e))?;
        std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o600))
            .map_err(|e| Error::io(kept.display().to_string(), e))?;
    }
    Ok(Some((files.code, kept)))
}

/// The group that may open `/dev/kvm`.
fn kvm_group() -> Option<u32> {
    let device = std::fs::metadata("/dev/kvm").ok()?;
    (device.mode() & 0o060 == 0o060).then_some(device.gid())
}

/// Opens files for a QEMU that may not open them itself.
struct OpenedFiles<'a> {
    hand_over: bool,
    folder: &'a Path,
    sets: usize,
    descriptors: Vec<(usize, OwnedFd)>,
}

impl Files for OpenedFiles<'_> {
    fn image(&mut self, path: &Path, writable: bool) -> Result<String> {
        if !self.hand_over {
            let path = std::path::absolute(path).map_err(|e| Error::io(path.display().to_string(), e))?;
            return text(&path);
        }
        // QEMU takes from a set the descriptor with exactly the access that it wants, and opens a writable image for
        // reading until its device appears.
        for write in [false, true] {
            if write && !writable {
                break;
            }
            let file = OpenOptions::new().read(true).write(write).open(path);
            let file = file.map_err(|e| Error::io(format!("opening {}", path.display()), e))?;
            self.descriptors.push((self.sets, file.into()));
        }
        self.sets += 1;
        Ok(format!("/dev/fdset/{}", self.sets - 1))
    }

    fn plain(&mut self, path: &Path) -> Result<String> {
        if !self.hand_over {
            let path = std::path::absolute(path).map_err(|e| Error::io(path.display().to_string(), e))?;
            return text(&path);
        }
        let count = std::fs::read_dir(self.folder).map(Iterator::count).unwrap_or_default();
        let copy = self.folder.join(format!("file{count}"));
        let failed = |e| Error::io(format!("copying {} to {}", path.display(), copy.display()), e);
        std::fs::copy(path, &copy).map_err(failed)?;
        std::os::unix::fs::chown(&copy, Some(NOBODY), Some(NOBODY)).map_err(failed)?;
        text(&copy)
    }
}

fn text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::new(ErrorKind::Hardware, format!("{}: expected a name in UTF-8", path.display())))
}
