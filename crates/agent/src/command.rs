//! Commands of an operator's, before the machine is restarted and after it is back.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::message::COMMAND_OUTPUT_MAX;

/// How long output is awaited from what a command left running.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// How a command ended, and what it printed last.
pub(crate) struct Ended {
    /// Its exit status; `None` where it did not end by itself.
    pub(crate) status: Option<i32>,
    /// At most [`COMMAND_OUTPUT_MAX`] bytes.
    pub(crate) output: String,
}

/// Runs a command by the shell, for at most so long; then it and all that it started is ended.
pub(crate) fn run(command: &str, time_max: Duration) -> Ended {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = match shell.spawn() {
        Ok(child) => child,
        Err(error) => return Ended { status: None, output: format!("/bin/sh cannot be started: {error}") },
    };
    let output = Arc::<Mutex<Vec<u8>>>::default();
    let readers: Vec<_> = [
        child.stdout.take().map(|stream| follow(stream, Arc::clone(&output))),
        child.stderr.take().map(|stream| follow(stream, Arc::clone(&output))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let status = wait(&mut child, time_max);
    let drained = Instant::now() + DRAIN_MAX;
    while readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < drained {
        thread::sleep(Duration::from_millis(20));
    }
    let text = String::from_utf8_lossy(&output.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
    match status {
        Ok(status) => Ended { status: Some(status), output: text },
        Err(why) => Ended { status: None, output: format!("{text}\n{why}") },
    }
}

fn wait(child: &mut Child, time_max: Duration) -> Result<i32, String> {
    let deadline = Instant::now() + time_max;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.code().ok_or_else(|| format!("it was ended: {status}")),
            Ok(None) if Instant::now() >= deadline => {
                end_group(child);
                let _ = child.wait();
                return Err(format!("it was ended after {} s", time_max.as_secs()));
            }
            Ok(None) => thread::sleep(Duration::from_millis(50)),
            Err(error) => return Err(format!("it cannot be waited for: {error}")),
        }
    }
}

/// The shell leads a process group of its own.
#[expect(unsafe_code)]
fn end_group(child: &Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // SAFETY: kill has no preconditions; the child was not waited for, so its number is still its own.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

fn follow(mut stream: impl Read + Send + 'static, output: Arc<Mutex<Vec<u8>>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            let mut kept = output.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&buffer[..length]);
            let beyond = kept.len().saturating_sub(COMMAND_OUTPUT_MAX);
            kept.drain(..beyond);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_end_by_themselves_or_are_ended_with_all_they_started() {
        let ended = run("echo out; echo err >&2; exit 3", Duration::from_secs(20));
        assert_eq!(ended.status, Some(3));
        assert!(ended.output.contains("out\n") && ended.output.contains("err\n"), "{}", ended.output);
        let begun = Instant::now();
        let ended = run("sleep 600 & sleep 600", Duration::from_millis(300));
        assert!(ended.status.is_none() && ended.output.contains("ended after"), "{}", ended.output);
        assert!(begun.elapsed() < Duration::from_secs(10));
        let ended = run("yes | head -c 1000000; printf end", Duration::from_secs(20));
        assert!(ended.output.len() <= COMMAND_OUTPUT_MAX && ended.output.ends_with("end"));
    }
}
