//! Runs a command and writes what it cost to a file: `cost FILE COMMAND [ARGUMENT]…` gives a line with CPU-seconds (user
//! and system), wall seconds, and the peak resident memory in KiB of the largest process. Whatever the command started is
//! counted: processes that it left behind are adopted and waited for, which `time` does not do. The exit status is the
//! command's.
// A measuring program, not the product; all children are waited for at once, which clippy does not see.
#![allow(unsafe_code, clippy::unwrap_used, clippy::zombie_processes)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, program, rest @ ..] = &arguments[..] else { panic!("usage: cost FILE COMMAND [ARGUMENT]…") };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let began = Instant::now();
    let child = Command::new(program).args(rest).spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    let (mut status, mut wall) = (None, 0.0);
    // Until no child is left: the command, and then whatever it left behind.
    while let Ok(Some((pid, ended))) = rustix::process::wait(rustix::process::WaitOptions::empty()) {
        if pid.as_raw_pid().cast_unsigned() == child.id() {
            status = Some(ExitStatus::from_raw(ended.as_raw()));
            wall = began.elapsed().as_secs_f64();
        }
    }
    // SAFETY: `getrusage` fills the structure, for which all zeros are a value.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage), 0);
        usage
    };
    let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    let cpu = micros(usage.ru_utime) + micros(usage.ru_stime);
    std::fs::write(file, format!("{}.{:06} {wall:.3} {}\n", cpu / 1_000_000, cpu % 1_000_000, usage.ru_maxrss))
        .unwrap();
    match status.and_then(|status| status.code()) {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => ExitCode::FAILURE,
    }
}
