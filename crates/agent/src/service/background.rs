//! Agents in the background: started, found and ended. They are known by their arguments in `/proc`, so that no file with a
//! process number can be wrong.
#![allow(unsafe_code)]

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::system::file_error;
use crate::{Error, ErrorKind, Result};

/// Time for an agent to end by itself.
const END_SECONDS_MAX: u64 = 10;
/// Time in which one that cannot work ends.
const EARLY: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(50);
/// Longest command line that could be an agent's, in bytes.
const ARGUMENTS_BYTES_MAX: u64 = 4096;
/// Beside the configuration: what a background agent says on standard error since its start.
const LOG: &str = "agent.log";

/// Starts `program --config CONFIG` in the background, unless such an agent runs.
///
/// # Errors
/// [`ErrorKind::Service`] where it cannot be started, or ends at once.
pub(super) fn start_unless_running(program: &Path, config: &Path) -> Result<()> {
    let failed = |e| Error::new(ErrorKind::Service, "cannot start the agent").because(e);
    if !find(config).map_err(failed)?.is_empty() {
        return Ok(());
    }
    // By its name where it has one still: administrators see it in their lists.
    let named = std::env::current_exe().ok().filter(|path| path.is_file());
    let log = config.with_file_name(LOG);
    let errors = fs::File::create(&log).map_err(|e| file_error("write", &log, e))?;
    let mut command = Command::new(named.as_deref().unwrap_or(program));
    command.arg0("vconverter-agent").arg("--config").arg(config).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    // SAFETY: between fork and exec one system call is made. It may fail only in a leader of processes, which a child is not.
    unsafe {
        command.pre_exec(|| match libc::setsid() {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let mut child = command.spawn().map_err(failed)?;
    let start = Instant::now();
    while start.elapsed() < EARLY {
        if let Some(status) = child.try_wait().map_err(failed)? {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let said = said.trim().trim_start_matches("vconverter-agent: ");
            let text = format!("the agent ended at once ({status}): {said}");
            return Err(Error::new(ErrorKind::Service, text));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Ends all agents of a configuration; how many.
///
/// # Errors
/// [`ErrorKind::Service`] where one does not end.
pub(super) fn end_all(config: &Path) -> Result<usize> {
    let failed = |e| Error::new(ErrorKind::Service, "cannot end the agent").because(e);
    let found = find(config).map_err(failed)?;
    for (signal, seconds) in [(libc::SIGTERM, END_SECONDS_MAX), (libc::SIGKILL, END_SECONDS_MAX)] {
        for process in find(config).map_err(failed)? {
            // SAFETY: kill takes two numbers.
            if unsafe { libc::kill(process, signal) } != 0 {
                let error = io::Error::last_os_error();
                if error.raw_os_error() != Some(libc::ESRCH) {
                    return Err(failed(error));
                }
            }
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            if find(config).map_err(failed)?.is_empty() {
                return Ok(found.len());
            }
            std::thread::sleep(PAUSE);
        }
    }
    Err(Error::new(ErrorKind::Service, format!("process {found:?} does not end, even by SIGKILL")))
}

/// The processes of agents with this configuration that run as the same user.
pub(super) fn find(config: &Path) -> io::Result<Vec<i32>> {
    let own = fs::metadata("/proc/self")?.uid();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let is_own = entry.metadata().is_ok_and(|metadata| metadata.uid() == own);
        let mut arguments = Vec::new();
        // A process that ended meanwhile is none.
        let read = fs::File::open(entry.path().join("cmdline"));
        let read = read.and_then(|file| file.take(ARGUMENTS_BYTES_MAX).read_to_end(&mut arguments));
        if is_own && read.is_ok() && is_agent(&arguments, config) {
            found.push(process);
        }
    }
    Ok(found)
}

/// Whether arguments, each with a zero behind it, are those of an agent with this configuration.
fn is_agent(arguments: &[u8], config: &Path) -> bool {
    let mut words = arguments.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    program.ends_with(b"vconverter-agent")
        && words.next() == Some(b"--config")
        && words.next() == Some(config.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_known_by_its_arguments() {
        let is = |arguments: &[u8]| is_agent(arguments, Path::new("/s/agent.json"));
        assert!(is(b"vconverter-agent\0--config\0/s/agent.json\0"));
        assert!(is(b"/usr/local/sbin/vconverter-agent\0--config\0/s/agent.json\0"));
        assert!(!is(b"vconverter-agent\0--config\0/s/other.json\0"));
        assert!(!is(b"vconverter-agent\0end\0--config\0/s/agent.json\0"));
        assert!(!is(b"vi\0--config\0/s/agent.json\0") && !is(b""));
    }

    #[test]
    fn a_program_that_ends_at_once_is_told_and_one_that_nobody_started_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("agent.json");
        // This test's own program does not know the argument.
        let error = start_unless_running(Path::new("/proc/self/exe"), &config).unwrap_err();
        println!("{error}");
        assert!(error.to_string().starts_with("the agent ended at once"), "{error}");
        assert_eq!(end_all(&config).unwrap(), 0);
    }
}
