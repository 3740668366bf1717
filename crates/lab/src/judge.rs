//! Judges of a converted disk that share no code with us: qemu-img and debugfs.

use std::path::{Path, PathBuf};

use crate::tool::Tool;
use crate::{Error, Result, SourceMachine};

/// A converted disk, opened with the tools of others.
pub struct Judge {
    raw: PathBuf,
    root: u64,
}

impl Judge {
    /// Lets qemu-img check the image at `disk` and turn it into raw in `folder`. `machine` tells where its root
    /// filesystem is.
    pub fn new(disk: &Path, machine: &SourceMachine, folder: &Path) -> Result<Self> {
        let checked = Tool::new("qemu-img", "qemu-utils").args(["check", "-f", "qcow2"]).arg(disk).run()?;
        if !checked.contains("No errors were found") {
            return Err(Error::new(format!("qemu-img check: {checked}")));
        }
        let raw = folder.join("judged.raw");
        Tool::new("qemu-img", "qemu-utils").args(["convert", "-O", "raw"]).arg(disk).arg(&raw).run()?;
        Ok(Self { raw, root: machine.root()?.offset })
    }

    /// Text of a file of the root filesystem.
    pub fn text(&self, path: &str) -> Result<String> {
        self.debugfs(&format!("cat {path}"))
    }

    /// SHA-256 of a file of the root filesystem, hexadecimal.
    pub fn sha256(&self, path: &str) -> Result<String> {
        let copy = self.raw.with_extension("file");
        self.debugfs(&format!("dump {path} {}", copy.display()))?;
        let sum = Tool::new("sha256sum", "coreutils").arg(&copy).run()?;
        Ok(sum.split_whitespace().next().unwrap_or_default().to_string())
    }

    /// SSH host keys: type and base64, sorted, as [`SourceMachine::ssh_host_keys`].
    pub fn ssh_host_keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for kind in ["ecdsa", "ed25519", "rsa"] {
            let text = self.text(&format!("/etc/ssh/ssh_host_{kind}_key.pub"))?;
            keys.push(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        }
        keys.sort();
        Ok(keys)
    }

    fn debugfs(&self, request: &str) -> Result<String> {
        let filesystem = format!("{}?offset={}", self.raw.display(), self.root);
        Tool::new("debugfs", "e2fsprogs").args(["-R", request, &filesystem]).run()
    }
}
