//! A program that is killed at a system call of its own, or whose system call fails: strace's injection. What is tested is the
//! program that is shipped, without a hook in it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, Result};

/// Time for strace to let go.
const DETACH_MAX: Duration = Duration::from_secs(5);

/// A system call of a program, the `nth` of one of its threads that concerns the file, from 1.
#[derive(Clone, Debug)]
pub struct SystemCall {
    /// As strace names it: `rename`, `openat`.
    pub name: &'static str,
    /// The file that it concerns.
    pub path: PathBuf,
    /// Which of them, counted for each thread.
    pub nth: u32,
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The program is killed (SIGKILL) before the call is made.
    Kill,
    /// The call is not made, and fails with this error: `ENOSPC`.
    Fail(&'static str),
    /// The call is made after so many seconds.
    Delay(u32),
}

/// strace on a running program and on what it starts. Dropping it lets the program go on by itself.
#[derive(Debug)]
pub struct Tampering {
    strace: Child,
    log: PathBuf,
}

impl Tampering {
    /// Begins; `log` is a file that tells what was done.
    pub fn begin(process: u32, call: &SystemCall, effect: Effect, log: &Path) -> Result<Self> {
        let effect = match effect {
            Effect::Kill => "signal=SIGKILL".to_owned(),
            Effect::Fail(error) => format!("error={error}"),
            Effect::Delay(seconds) => format!("delay_enter={seconds}s"),
        };
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &process.to_string(), "-e", &format!("trace={}", call.name), "-P"]);
        command
            .arg(&call.path)
            .args(["-e", &format!("inject={}:{effect}:when={}", call.name, call.nth), "-o"])
            .arg(log);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let spawned = qemu::die_with_us(&mut command).spawn();
        let mut strace = spawned.map_err(|e| Error::io("starting strace (Debian package strace)", e))?;
        let said = strace.stderr.take().map(BufReader::new);
        // It says so when it holds all threads.
        let mut lines = said.into_iter().flat_map(BufRead::lines).map_while(|line| line.ok());
        let tampering = Self { strace, log: log.to_path_buf() };
        let attached = lines.by_ref().find(|line| line.contains(" attached"));
        // What it says later is read, or it would come to a stand.
        std::thread::spawn(move || lines.for_each(drop));
        match attached {
            Some(_) => Ok(tampering),
            None => Err(Error::new(format!("strace cannot attach to process {process}"))),
        }
    }

    /// Whether the call came and was tampered with.
    pub fn is_done(&self) -> bool {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.contains("INJECTED") || log.contains("DELAYED") || log.contains("killed by SIGKILL")
    }
}

impl Drop for Tampering {
    fn drop(&mut self) {
        if let Some(process) = Pid::from_raw(self.strace.id().cast_signed()) {
            let _ = kill_process(process, Signal::INT);
        }
        // One that does not hear it is killed: the kernel lets what it held go on.
        let start = Instant::now();
        while matches!(self.strace.try_wait(), Ok(None)) && start.elapsed() < DETACH_MAX {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
