//! Network namespaces without names: held by a descriptor, gone with the last process that uses them.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::tool::Tool;
use crate::{Error, Result};

/// A network namespace. Dropping it ends it, as soon as no process is left inside.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A fresh namespace whose loopback is up.
    pub(crate) fn new() -> Result<Self> {
        let failed = |e| Error::io("making a network namespace", e);
        // A thread of its own enters it; ours stays where it is.
        let made = std::thread::spawn(|| -> io::Result<File> {
            // SAFETY: unshare changes only the calling thread's network namespace.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            File::open("/proc/thread-self/ns/net")
        });
        let file =
            made.join().map_err(|_| Error::new("making a network namespace: its thread ended"))?.map_err(failed)?;
        let namespace = Self { file };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// A path that opens the namespace while this process holds it: for [`qemu::Hardware::network_namespace`] and
    /// nsenter(1).
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Makes `command` run inside.
    pub fn enter<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let namespace = self.file.as_raw_fd();
        // SAFETY: between fork and exec one system call is made. The child inherits the descriptor under its number
        // and loses it at exec.
        unsafe {
            command.pre_exec(move || match libc::setns(namespace, libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            })
        }
    }

    /// Runs `work` on a thread inside. Threads that it starts are inside too, and stay there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = self.file.as_raw_fd();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: setns changes only the calling thread's network namespace, and the descriptor is ours.
                match unsafe { libc::setns(namespace, libc::CLONE_NEWNET) } {
                    0 => Ok(work()),
                    _ => Err(Error::io("entering a network namespace", io::Error::last_os_error())),
                }
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs ip(8) inside.
    pub(crate) fn ip(&self, arguments: &str) -> Result<()> {
        let tool = Tool::new("ip", "iproute2").args(arguments.split_ascii_whitespace());
        let tool = tool.prepared(|command| {
            self.enter(command);
        });
        tool.run().map(drop)
    }
}

/// A program that runs until it is dropped, or until this process dies.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: u32,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        // SAFETY: between fork and exec one system call is made.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let (stop, stopped) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel();
        // The thread stays for as long as the program: the kernel's signal is bound to the thread that started it.
        let thread = std::thread::spawn(move || match command.stdin(Stdio::null()).spawn() {
            Ok(mut child) => {
                let _ = started.send(Ok(child.id()));
                let _ = stopped.recv();
                let _ = child.kill();
                let _ = child.wait();
            }
            Err(e) => drop(started.send(Err(e))),
        });
        match start.recv() {
            Ok(Ok(process)) => Ok(Self { process, stop: Some(stop), thread: Some(thread) }),
            Ok(Err(e)) => Err(Error::io(format!("starting {name}"), e)),
            Err(_) => Err(Error::new(format!("starting {name}: its thread ended"))),
        }
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    /// The most memory that the program ever had, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process);
        let status = std::fs::read_to_string(&path).map_err(|e| Error::file(Path::new(&path), e))?;
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak.ok_or_else(|| Error::new(format!("{path}: no VmHWM")))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
