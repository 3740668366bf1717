//! Waits for processes: PID 1 inherits every orphan, and the ones we started are waited for by name.
//!
//! One place calls waitpid, so that nobody takes another's exit. It looks every quarter of a second, between starts:
//! `std` waits by itself for a child whose program could not be started.

use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

const INTERVAL: Duration = Duration::from_millis(250);

#[derive(Default)]
struct Reaper {
    /// Our own processes; with a status once they have ended.
    own: Mutex<HashMap<i32, Option<WaitStatus>>>,
    ended: Condvar,
}

fn reaper() -> &'static Reaper {
    static REAPER: OnceLock<Reaper> = OnceLock::new();
    REAPER.get_or_init(Reaper::default)
}

/// Reaps for ever; for a thread of its own in PID 1.
pub fn run() -> ! {
    loop {
        reap_ended();
        std::thread::sleep(INTERVAL);
    }
}

fn reap_ended() {
    let reaper = reaper();
    let mut own = reaper.own.lock().unwrap_or_else(PoisonError::into_inner);
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if let Some(entry) = own.get_mut(&pid.as_raw_nonzero().get()) {
            *entry = Some(status);
        }
    }
    reaper.ended.notify_all();
}

/// Starts a process that [`wait_for`] waits for.
///
/// # Errors
/// The operating system's.
pub fn start(command: &mut Command) -> io::Result<Child> {
    let mut own = reaper().own.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    own.insert(Pid::from_child(&child).as_raw_nonzero().get(), None);
    Ok(child)
}

/// Waits for the end of a process from [`start`] and says how it ended: `exit code 1`, `signal 9`.
pub fn wait_for(child: &Child) -> String {
    let reaper = reaper();
    let pid = Pid::from_child(child).as_raw_nonzero().get();
    let mut own = reaper.own.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match own.get(&pid) {
            None => return "no such process".into(),
            Some(Some(status)) => {
                let text = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (None, Some(signal)) => format!("signal {signal}"),
                    (None, None) => "an unknown end".into(),
                };
                own.remove(&pid);
                return text;
            }
            Some(None) => own = reaper.ended.wait(own).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_and_a_missing_program_is_an_error() {
        std::thread::spawn(|| run());
        let ended = |script: &str| wait_for(&start(Command::new("/bin/sh").args(["-c", script])).unwrap());
        assert_eq!(ended("exit 7"), "exit code 7");
        assert_eq!(ended("kill -9 $$"), "signal 9");
        for _ in 0..20 {
            assert!(start(&mut Command::new("/nonexistent")).is_err());
        }
        assert_eq!(ended("true"), "exit code 0");
    }
}
