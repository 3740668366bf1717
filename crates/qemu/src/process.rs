//! The QEMU process itself: started in its own process group, killed when it is dropped or when we die.
//!
//! One thread starts it and waits for it. It has to be the same: the kernel sends the parent-death signal when the
//! *thread* that started a process ends.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind, Result};

/// How QEMU ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Who ended it.
    pub kind: ExitKind,
    /// The last words on its standard error.
    pub stderr: String,
}

/// Who ended QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// The guest switched itself off.
    PowerOff,
    /// The guest reset itself, and [`crate::OnReset::Exit`] was asked for.
    Reset,
    /// We did.
    Quit,
    /// QEMU failed with this exit code.
    Failed(i32),
    /// A signal that we did not send.
    Crashed(i32),
}

/// User and group of `nobody`, the same on all distributions that matter.
pub(crate) const NOBODY: u32 = 65534;

const STDERR_KEPT: usize = 16 << 10;

/// What surrounds the process.
#[derive(Default)]
pub(crate) struct Surroundings {
    /// Descriptors that it inherits under their own numbers.
    pub(crate) inherited: Vec<OwnedFd>,
    /// Network namespace to enter.
    pub(crate) network_namespace: Option<File>,
    /// Become `nobody`, with this supplementary group.
    pub(crate) as_nobody: Option<Option<u32>>,
}

pub(crate) struct Process {
    pid: i32,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ended: Option<(ExitStatus, Duration)>,
    killed_by_us: bool,
    stderr: Vec<u8>,
}

/// Makes the kernel kill what `command` starts when the thread that starts it ends, by whatever cause. Who uses it waits for
/// the program in that thread.
pub fn die_with_us(command: &mut Command) -> &mut Command {
    let ours = std::process::id();
    // SAFETY: between fork and exec only system calls on values captured before are made; nothing allocates.
    unsafe { command.pre_exec(move || settle(ours, &[], None, None)) }
}

impl Process {
    /// Starts `command` and a thread that waits for it.
    pub(crate) fn start(mut command: Command, surroundings: Surroundings) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let ours = std::process::id();
        let inherited: Vec<RawFd> = surroundings.inherited.iter().map(AsRawFd::as_raw_fd).collect();
        let namespace = surroundings.network_namespace.as_ref().map(AsRawFd::as_raw_fd);
        let nobody = surroundings.as_nobody;
        // SAFETY: between fork and exec only system calls on values captured before are made; nothing allocates.
        unsafe {
            command.pre_exec(move || settle(ours, &inherited, namespace, nobody));
        }
        let shared = Arc::new(Shared::default());
        let (sender, receiver) = mpsc::channel();
        let watched = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("qemu-watch".into())
            .spawn(move || {
                let child = command.spawn();
                drop((command, surroundings)); // our copies of the descriptors, so that ends of sockets are seen
                match child {
                    Ok(child) => {
                        // A pid is at most 2²² (proc(5), pid_max).
                        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
                        if sender.send(Ok(pid)).is_ok() {
                            watched.watch(child, pid);
                        }
                    }
                    Err(e) => drop(sender.send(Err(e))),
                }
            })
            .map_err(|e| Error::io("starting a thread", e))?;
        match receiver.recv() {
            Ok(Ok(pid)) => Ok(Self { pid, shared }),
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => {
                let package = if program == crate::tpm::PROGRAM { program.as_str() } else { "qemu-system-x86" };
                let context = format!("{program} not found: install the package {package}");
                Err(Error::new(ErrorKind::Missing, context))
            }
            Ok(Err(e)) => Err(Error::io(format!("starting {program}"), e)),
            Err(_) => Err(Error::new(ErrorKind::Exited, format!("starting {program}: its thread ended"))),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Processor time of the process until now, or until its end.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let state = self.shared.lock();
        if let Some((_, time)) = state.ended {
            return Ok(time);
        }
        let path = format!("/proc/{}/stat", self.pid);
        let stat = std::fs::read_to_string(&path).map_err(|e| Error::io(format!("reading {path}"), e))?;
        parse_cpu_ticks(&stat)
            // SAFETY: sysconf has no preconditions.
            .map(|ticks| Duration::from_secs_f64(ticks as f64 / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64))
            .ok_or_else(|| Error::new(ErrorKind::Io, format!("{path}: no times of utime and stime")))
    }

    /// Waits for the end; `None` after `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<(ExitStatus, bool)> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if let Some((status, _)) = state.ended {
                return Some((status, state.killed_by_us));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Kills the process group and waits until it is gone.
    pub(crate) fn kill(&self) {
        {
            let mut state = self.shared.lock();
            if state.ended.is_some() {
                return;
            }
            state.killed_by_us = true;
            // SAFETY: the process is not reaped while the lock is held and `ended` is none, so the id is still its own.
            unsafe { libc::kill(-self.pid, libc::SIGKILL) };
        }
        self.wait(Duration::from_secs(10));
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().stderr).trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, mut child: Child, pid: i32) {
        if let Some(mut stderr) = child.stderr.take() {
            let mut buffer = [0; 1024];
            while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                let mut state = self.lock();
                state.stderr.extend_from_slice(&buffer[..n]);
                let excess = state.stderr.len().saturating_sub(STDERR_KEPT);
                state.stderr.drain(..excess);
            }
        }
        wait_unreaped(pid);
        let mut state = self.lock();
        state.ended = Some(reap(pid));
        self.changed.notify_all();
    }
}

/// Runs in the new process before QEMU does.
fn settle(
    parent: u32,
    inherited: &[RawFd],
    namespace: Option<RawFd>,
    nobody: Option<Option<u32>>,
) -> std::io::Result<()> {
    let check = |result: i32| if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: plain system calls; the group list points at a live local of the given length.
    unsafe {
        if let Some(namespace) = namespace {
            check(libc::setns(namespace, libc::CLONE_NEWNET))?;
        }
        if let Some(group) = nobody {
            let groups = [group.unwrap_or(NOBODY)];
            check(libc::setgroups(groups.len(), groups.as_ptr()))?;
            check(libc::setresgid(NOBODY, NOBODY, NOBODY))?;
            check(libc::setresuid(NOBODY, NOBODY, NOBODY))?;
        }
        // After the change of user, which would clear it.
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        if libc::getppid().cast_unsigned() != parent {
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH)); // it died in between
        }
        for fd in inherited {
            check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
        }
    }
    Ok(())
}

/// Waits for the end without releasing the process id.
fn wait_unreaped(pid: i32) {
    loop {
        // SAFETY: `info` is a plain structure, valid when zeroed, that the call fills.
        let result = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid.cast_unsigned(), &raw mut info, libc::WEXITED | libc::WNOWAIT)
        };
        if result == 0 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// Status and processor time of a process that ended.
fn reap(pid: i32) -> (ExitStatus, Duration) {
    let mut status = 0;
    // SAFETY: both pointers are to live locals; a rusage is plain numbers.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::wait4(pid, &raw mut status, 0, &raw mut usage);
        usage
    };
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec.cast_unsigned()) + Duration::from_micros(t.tv_usec.cast_unsigned())
    };
    (ExitStatus::from_raw(status), time(usage.ru_utime) + time(usage.ru_stime))
}

/// utime + stime (fields 14 and 15 of proc(5) stat), in clock ticks. The program's name in field 2 may hold blanks.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_a_name_with_blanks() {
        let stat = "7 (qemu (x) y) S 1 7 7 0 -1 4194560 9 0 0 0 120 30 0 0 20 0 1 0 5 0";
        assert_eq!(parse_cpu_ticks(stat), Some(150));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let process = Process::start(command, Surroundings::default()).unwrap();
        let path = format!("/proc/{}", process.pid());
        assert!(std::path::Path::new(&path).exists());
        drop(process);
        assert!(!std::path::Path::new(&path).exists());
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let Err(error) = Process::start(Command::new("no-such-qemu"), Surroundings::default()) else {
            panic!("a program that does not exist was started");
        };
        assert_eq!(error.kind, ErrorKind::Missing);
        assert!(error.to_string().contains("qemu-system-x86"), "{error}");
    }

    #[test]
    fn last_words_and_status_are_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo broken >&2; exit 3"]);
        let process = Process::start(command, Surroundings::default()).unwrap();
        let (status, by_us) = process.wait(Duration::from_secs(10)).unwrap();
        assert_eq!((status.code(), by_us, process.stderr().as_str()), (Some(3), false, "broken"));
    }
}
