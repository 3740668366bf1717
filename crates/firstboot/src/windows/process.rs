//! Programs, each run to its end with what it started, in a job that can be ended as a whole.
//!
//! Output goes to a file, not through a pipe: a program that stays in the background would keep a pipe open. Unsafe for
//! `CreateProcessW` and jobs, which std does not have.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{HANDLE, HANDLE_FLAG_INHERIT, SetHandleInformation, WAIT_OBJECT_0};
use windows_sys::Win32::Globalization::{CP_OEMCP, MultiByteToWideChar};
use windows_sys::Win32::System::JobObjects::{AssignProcessToJobObject, CreateJobObjectW, TerminateJobObject};
use windows_sys::Win32::System::Threading::{
    CREATE_NO_WINDOW, CREATE_SUSPENDED, CREATE_UNICODE_ENVIRONMENT, CreateProcessW, GetExitCodeProcess,
    PROCESS_INFORMATION, ResumeThread, STARTF_USESTDHANDLES, STARTUPINFOW, TerminateProcess, WaitForSingleObject,
};

use super::{last_error, wide};
use crate::command::CommandLine;
use crate::system::{Ended, OUTPUT_BYTES_MAX};
use crate::{Error, ErrorKind, Result};

const POLL_MS: u32 = 250;
/// Exit code of what was ended from outside.
const ENDED_BY_US: u32 = 1;

/// Where and for how long a program is run.
pub(super) struct Conditions<'a> {
    /// Current folder.
    pub(super) folder: &'a Path,
    /// File for its output, overwritten.
    pub(super) output: &'a Path,
    /// How long it may run.
    pub(super) patience: Duration,
    /// Set when this program is to stop.
    pub(super) stop: &'a AtomicBool,
}

/// Runs `command`, whose program is a whole path.
pub(super) fn run(command: &CommandLine, conditions: &Conditions<'_>) -> Result<Ended> {
    let child = start(command, conditions)?;
    let code = wait(&child, command, conditions);
    let output = read_output(conditions.output);
    let code = code.map_err(|error| match (&error.kind, output.trim()) {
        (ErrorKind::TimedOut, said) if !said.is_empty() => {
            Error { context: format!("{}; it wrote: {said}", error.context), ..error }
        }
        _ => error,
    })?;
    Ok(Ended { code, output })
}

struct Child {
    process: OwnedHandle,
    job: Option<OwnedHandle>,
}

fn start(command: &CommandLine, conditions: &Conditions<'_>) -> Result<Child> {
    let opened = |result: std::io::Result<File>, what: &str| result.map_err(|error| Error::io(what, error));
    let output = opened(File::create(conditions.output), "file for the output")?;
    let input = opened(File::open("NUL"), "NUL")?;
    for file in [&output, &input] {
        // SAFETY: the handle is open for as long as `file` lives.
        if unsafe { SetHandleInformation(file.as_raw_handle(), HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT) } == 0 {
            return Err(last_error("a handle to be inherited"));
        }
    }
    let startup = STARTUPINFOW {
        cb: u32::try_from(size_of::<STARTUPINFOW>()).unwrap_or(0),
        dwFlags: STARTF_USESTDHANDLES,
        hStdInput: input.as_raw_handle(),
        hStdOutput: output.as_raw_handle(),
        hStdError: output.as_raw_handle(),
        ..Default::default()
    };
    let program = wide(&command.program);
    let mut line = wide(&command.to_string());
    let folder = wide(&conditions.folder.to_string_lossy());
    let mut found = PROCESS_INFORMATION::default();
    // SAFETY: every pointer is to a buffer or struct that lives through the call, the texts end with a zero, and the command
    // line is one that may be written to.
    let started = unsafe {
        CreateProcessW(
            program.as_ptr(),
            line.as_mut_ptr(),
            std::ptr::null(),
            std::ptr::null(),
            1,
            CREATE_SUSPENDED | CREATE_NO_WINDOW | CREATE_UNICODE_ENVIRONMENT,
            std::ptr::null(),
            folder.as_ptr(),
            &raw const startup,
            &raw mut found,
        )
    };
    if started == 0 {
        return Err(last_error(command.program.clone()));
    }
    // SAFETY: both handles were just given to this program and are closed nowhere else.
    let (process, thread) =
        unsafe { (OwnedHandle::from_raw_handle(found.hProcess), OwnedHandle::from_raw_handle(found.hThread)) };
    let job = job_of(&process);
    // SAFETY: the thread's handle is open.
    unsafe { ResumeThread(thread.as_raw_handle()) };
    Ok(Child { process, job })
}

/// A job that holds `process`; without one (a program in a job already, before Windows 8) the process is ended alone.
fn job_of(process: &OwnedHandle) -> Option<OwnedHandle> {
    // SAFETY: a job without name and attributes.
    let job: HANDLE = unsafe { CreateJobObjectW(std::ptr::null(), std::ptr::null()) };
    if job.is_null() {
        return None;
    }
    // SAFETY: the handle was just given to this program and is closed nowhere else.
    let job = unsafe { OwnedHandle::from_raw_handle(job) };
    // SAFETY: both handles are open.
    (unsafe { AssignProcessToJobObject(job.as_raw_handle(), process.as_raw_handle()) } != 0).then_some(job)
}

fn wait(child: &Child, command: &CommandLine, conditions: &Conditions<'_>) -> Result<u32> {
    let begun = Instant::now();
    // SAFETY: the process' handle is open.
    while unsafe { WaitForSingleObject(child.process.as_raw_handle(), POLL_MS) } != WAIT_OBJECT_0 {
        let is_late = begun.elapsed() >= conditions.patience;
        let stops = conditions.stop.load(Ordering::Relaxed);
        if is_late || stops {
            end(child);
            let kind = if stops { ErrorKind::Stopping } else { ErrorKind::TimedOut };
            let after = begun.elapsed().as_secs();
            return Err(Error::new(kind, format!("{} was ended after {after} s", command.program)));
        }
    }
    let mut code = 0;
    // SAFETY: the process' handle is open, `code` is written to.
    if unsafe { GetExitCodeProcess(child.process.as_raw_handle(), &raw mut code) } == 0 {
        return Err(last_error("exit code"));
    }
    Ok(code)
}

fn end(child: &Child) {
    // SAFETY: the handles are open; what they stand for is this program's own.
    unsafe {
        match &child.job {
            Some(job) => TerminateJobObject(job.as_raw_handle(), ENDED_BY_US),
            None => TerminateProcess(child.process.as_raw_handle(), ENDED_BY_US),
        };
        WaitForSingleObject(child.process.as_raw_handle(), 10_000);
    }
}

fn read_output(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(OUTPUT_BYTES_MAX as u64).read_to_end(&mut bytes));
    if read.is_err() || bytes.is_empty() {
        return String::new();
    }
    // Most programs write UTF-8's part that all code pages share, newer ones UTF-8; netsh and cmd the console's code page.
    if let Ok(text) = std::str::from_utf8(&bytes) {
        return text.to_owned();
    }
    let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    let mut units = vec![0_u16; bytes.len()];
    // SAFETY: both buffers are as long as said; no code page makes more units than it has bytes.
    let count = unsafe { MultiByteToWideChar(CP_OEMCP, 0, bytes.as_ptr(), length, units.as_mut_ptr(), length) };
    String::from_utf16_lossy(&units[..usize::try_from(count).unwrap_or(0).min(units.len())])
}
