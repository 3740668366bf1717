//! Which accelerator works here, found by booting something.
//!
//! `/dev/kvm` may exist and hang as soon as a guest enters long mode (seen on nested machines), so its presence says
//! nothing. Nor does it when a few instructions work: there is KVM that interprets a guest's long mode (kvm-pvm), in which
//! a kernel unpacks itself for minutes. The probe is a boot sector (`probe.S`) that enters long mode with paging, executes
//! instructions that trap, adds 33 million numbers to memory, takes timer interrupts and leaves through QEMU's debug exit
//! device; it takes about half a second under TCG.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::command::PROGRAM;

/// How guest code is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accelerator {
    /// By the processor, through KVM.
    Kvm,
    /// By QEMU's translator; works everywhere, ten to thirty times slower.
    Tcg,
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The boot sector writes 0x31 to the debug exit device, which makes QEMU exit with `value << 1 | 1`.
const PROBE_PASSED: i32 = 0x31 << 1 | 1;

/// `probe.S`, assembled.
static PROBE: &[u8; 512] = include_bytes!("probe.bin");

impl Accelerator {
    /// KVM if a probe guest ran under it within five seconds, else TCG. Probed once in a process; without
    /// `/dev/kvm` nothing is started.
    pub fn probe() -> Self {
        static FOUND: OnceLock<Accelerator> = OnceLock::new();
        *FOUND.get_or_init(|| if Path::new("/dev/kvm").exists() && Self::Kvm.works() { Self::Kvm } else { Self::Tcg })
    }

    /// Whether the probe guest runs to its end under this accelerator.
    pub fn works(self) -> bool {
        self.run_probe().unwrap_or(false)
    }

    /// The value of QEMU's `-accel`.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }

    fn run_probe(self) -> std::io::Result<bool> {
        let mut disk = tempfile::NamedTempFile::new()?;
        disk.write_all(PROBE)?;
        disk.seek(SeekFrom::Start(0))?;
        disk.as_file().set_len(1 << 20)?; // SeaBIOS takes no disk of a single sector
        let drive = format!("if=none,id=probe,format=raw,readonly=on,file={}", disk.path().display());
        let mut child = Command::new(PROGRAM)
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-m", "32"])
            .args(["-accel", self.argument(), "-cpu", "max"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=probe,bootindex=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let deadline = Instant::now() + PROBE_TIMEOUT;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() >= deadline => break None,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        match status {
            Some(status) => Ok(status.code() == Some(PROBE_PASSED)),
            None => {
                child.kill()?;
                child.wait()?;
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_guest_is_a_boot_sector() {
        assert_eq!(PROBE[510..], [0x55, 0xaa]);
    }
}
