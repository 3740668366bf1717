//! Programs of the system that do the work: run, and quoted with their last words when they fail.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// A program to be run to its end.
#[derive(Debug)]
pub(crate) struct Tool {
    command: Command,
    name: String,
    package: &'static str,
}

impl Tool {
    /// A program, and the Debian package to be named when it is missing.
    pub(crate) fn new(name: &str, package: &'static str) -> Self {
        let mut command = Command::new(name);
        // Daemons' folders are missing from the PATH of ordinary users.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C").stdin(Stdio::null());
        Self { command, name: name.into(), package }
    }

    /// The same program, started as `prepare` says (in a namespace, for one).
    pub(crate) fn prepared(mut self, prepare: impl FnOnce(&mut Command)) -> Self {
        prepare(&mut self.command);
        self
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Runs it and returns its standard output.
    pub(crate) fn run(mut self) -> Result<String> {
        let output = self.command.output().map_err(|e| self.missing(e))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = stderr.trim().lines().rev().take(12).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Err(Error::new(format!("{}: {}: {}", self.name, output.status, last.join("\n"))))
    }

    fn missing(&self, e: std::io::Error) -> Error {
        if e.kind() == std::io::ErrorKind::NotFound {
            Error::new(format!("{} not found: install the package {}", self.name, self.package))
        } else {
            Error::io(format!("starting {}", self.name), e)
        }
    }
}
