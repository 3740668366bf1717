//! Debian's tools, run as programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, ErrorKind, Result};

/// A program and the Debian package that brings it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

pub(crate) const APT_CACHE: Tool = Tool { name: "apt-cache", package: "apt" };
pub(crate) const APT_GET: Tool = Tool { name: "apt-get", package: "apt" };
pub(crate) const DPKG_DEB: Tool = Tool { name: "dpkg-deb", package: "dpkg" };
pub(crate) const DEPMOD: Tool = Tool { name: "depmod", package: "kmod" };
pub(crate) const GRUB_MKIMAGE: Tool = Tool { name: "grub-mkimage", package: "grub-common" };
pub(crate) const LOADKEYS: Tool = Tool { name: "loadkeys", package: "kbd" };
pub(crate) const MFORMAT: Tool = Tool { name: "mformat", package: "mtools" };
pub(crate) const MMD: Tool = Tool { name: "mmd", package: "mtools" };
pub(crate) const MCOPY: Tool = Tool { name: "mcopy", package: "mtools" };
pub(crate) const OBJDUMP: Tool = Tool { name: "objdump", package: "binutils" };
pub(crate) const STRIP: Tool = Tool { name: "strip", package: "binutils" };
pub(crate) const XORRISO: Tool = Tool { name: "xorriso", package: "xorriso" };
pub(crate) const XZ: Tool = Tool { name: "xz", package: "xz-utils" };
pub(crate) const ZSTD: Tool = Tool { name: "zstd", package: "zstd" };

impl Tool {
    /// Where it is: in PATH, or in the folders for administrators that an operator's PATH often lacks.
    pub(crate) fn find(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
        folders.map(|folder| folder.join(self.name)).find(|candidate| candidate.is_file())
    }

    /// The tool as a command with a plain locale.
    pub(crate) fn command(self) -> Result<Command> {
        let program = self.find().ok_or_else(|| {
            let what = format!("{} is not installed: install the package {}", self.name, self.package);
            Error::new(ErrorKind::MissingTool, what)
        })?;
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `command` to its end and returns the text that it printed.
    pub(crate) fn run(self, command: &mut Command) -> Result<String> {
        self.output(command).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Runs `command` to its end and returns the bytes that it printed.
    pub(crate) fn output(self, command: &mut Command) -> Result<Vec<u8>> {
        let output = command.output().map_err(|e| Error::io(format!("start {}", self.name), e))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(4)..].join("; ");
        Err(Error::new(ErrorKind::ToolFailed, format!("{} failed ({}): {last}", self.name, output.status)))
    }
}

/// The file of a Debian package that is not a program.
pub(crate) fn package_file(path: &str, package: &str) -> Result<PathBuf> {
    if Path::new(path).is_file() {
        return Ok(path.into());
    }
    Err(Error::new(ErrorKind::MissingTool, format!("{path} is not there: install the package {package}")))
}
