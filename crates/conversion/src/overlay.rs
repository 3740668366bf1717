//! Overlays: qcow2 images that take writes in place of the image below them. Made and joined by `qemu-img`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Context;
use crate::workdir::remove_if_present;
use crate::{Error, ErrorKind, Result};

/// An overlay on a disk.
#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    path: PathBuf,
}

impl Overlay {
    /// A fresh overlay at `path` over `base`, which has `base_format`. An earlier file at `path` is thrown away: an
    /// overlay holds nothing that cannot be made again.
    pub(crate) fn create(path: PathBuf, base: &Path, base_format: &str) -> Result<Self> {
        remove_if_present(&path)?;
        qemu_img(&["create", "-q", "-f", "qcow2", "-F", base_format, "-b"], &[base, &path])?;
        Ok(Self { path })
    }

    /// An overlay that an earlier run made, if it is still there.
    pub(crate) fn existing(path: PathBuf) -> Option<Self> {
        path.exists().then_some(Self { path })
    }

    /// The overlay's file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what the overlay holds into the image below. It stays whole meanwhile, so that a join that was killed is
    /// simply done again.
    pub(crate) fn join(&self) -> Result<()> {
        qemu_img(&["commit", "-q", "-d"], &[&self.path])
    }

    /// Removes the overlay.
    pub(crate) fn discard(self) -> Result<()> {
        remove_if_present(&self.path)
    }
}

/// Runs `qemu-img` with `options` and then `files`.
fn qemu_img(options: &[&str], files: &[&Path]) -> Result<()> {
    let mut command = Command::new("qemu-img");
    // In a group of its own: Ctrl-C means us, and we end when it is done; a join that is cut off looks like a failure.
    command.args(options).args(files).stdin(Stdio::null()).process_group(0);
    // And when we are killed it is too: what goes on writing would meet the one that does it again.
    let run = qemu::die_with_us(&mut command).output();
    let output = run.context(ErrorKind::Refused, || "qemu-img could not be run (Debian package qemu-utils)".into())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().chars().take(500).collect::<String>();
    let kind = if said.contains("No space left") { ErrorKind::Target } else { ErrorKind::Internal };
    Err(Error::new(kind, format!("qemu-img {} failed ({}): {said}", options[0], output.status)))
}
