//! The TPM 2.0 of a virtual machine: swtpm, a program of its own beside QEMU, which speaks to it over a socket that both
//! inherit (swtpm(8), `--ctrl type=unixio,clientfd=`). It begins empty, and what it keeps goes with the machine.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use crate::process::{NOBODY, Process, Surroundings};
use crate::{Error, Result};

/// The program, found by `PATH`.
pub(crate) const PROGRAM: &str = "swtpm";

/// Whether machines can have a TPM here: whether swtpm is installed.
pub fn has_tpms() -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(PROGRAM).is_file())
}

/// Starts a TPM whose state is in `folder`, and returns it with QEMU's end of its socket.
pub(crate) fn start(folder: &Path, as_nobody: Option<Option<u32>>) -> Result<(Process, OwnedFd)> {
    let state = folder.join("tpm");
    let failed = |e| Error::io(format!("making {}", state.display()), e);
    std::fs::create_dir(&state).map_err(failed)?;
    if as_nobody.is_some() {
        std::os::unix::fs::chown(&state, Some(NOBODY), Some(NOBODY)).map_err(failed)?;
    }
    let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("making a pair of sockets", e))?;
    let mut command = Command::new(PROGRAM);
    // No comma can be in the name: it is made here, below the folder for temporary files.
    command.args(["socket", "--tpm2", "--terminate", "--tpmstate", &format!("dir={},mode=0600", state.display())]);
    command.args(["--ctrl", &format!("type=unixio,clientfd={}", theirs.as_raw_fd())]).current_dir("/");
    let surroundings = Surroundings { inherited: vec![theirs.into()], network_namespace: None, as_nobody };
    Ok((Process::start(command, surroundings)?, ours.into()))
}
