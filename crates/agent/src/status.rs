//! What the agent tells the screen: one JSON object a line on its standard output.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// What the agent is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// On the way to the controller; `detail` says what failed last.
    Connecting {
        /// For a person.
        detail: String,
    },
    /// An operator has to approve the machine.
    WaitingForApproval {
        /// The code to compare or type.
        pairing_code: String,
        /// For a person.
        detail: String,
    },
    /// The controller says that it approved; somebody at the machine has to say that it is the right one.
    WaitingForConfirmation {
        /// The code that the controller's operator has to see.
        pairing_code: String,
        /// For a person.
        detail: String,
    },
    /// Approved; nothing to do yet.
    Ready,
    /// A disk is being sent.
    Copying {
        /// Its device.
        disk: String,
        /// Used bytes sent.
        done: u64,
        /// Used bytes in all.
        total: u64,
    },
    /// A disk is being read again and hashed.
    Verifying {
        /// Its device.
        disk: String,
        /// Used bytes hashed.
        done: u64,
        /// Used bytes in all.
        total: u64,
    },
    /// Something went wrong with a disk.
    Failed {
        /// For a person.
        detail: String,
    },
    /// Something the controller wants shown.
    Message {
        /// For a person.
        detail: String,
    },
    /// The machine starts anew now: in the boot image that is for PID 1 to do.
    Restarting {
        /// Why, for a person.
        detail: String,
    },
    /// The machine is switched off now: in the boot image that is for PID 1 to do.
    SwitchingOff {
        /// Why, for a person.
        detail: String,
    },
    /// Nothing is to be done, and the machine stays in the boot image until somebody says more.
    Staying {
        /// Why, for a person.
        detail: String,
    },
    /// The conversion ended.
    Finished {
        /// For a person.
        detail: String,
    },
}

/// Where status lines go; clones share it.
#[derive(Clone)]
pub struct Screen {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    output: Box<dyn Write + Send>,
    last: Option<Status>,
    last_progress: Option<Instant>,
}

/// Pause between two lines that differ in their counts only.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);

impl Screen {
    /// A screen that writes lines to `output`.
    pub fn new(output: impl Write + Send + 'static) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { output: Box::new(output), last: None, last_progress: None })) }
    }

    /// Shows `status`, unless it is on the screen already. Nobody listening is no error.
    pub fn show(&self, status: Status) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.last.as_ref() == Some(&status) {
            return;
        }
        if let Status::Copying { done, total, .. } | Status::Verifying { done, total, .. } = &status {
            if done < total && inner.last_progress.is_some_and(|at| at.elapsed() < PROGRESS_PAUSE) {
                return;
            }
            inner.last_progress = Some(Instant::now());
        }
        if let Ok(mut line) = serde_json::to_vec(&status) {
            line.push(b'\n');
            let _ = inner.output.write_all(&line).and_then(|()| inner.output.flush());
        }
        inner.last = Some(status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_the_screen_expects() {
        let line = serde_json::to_string(&Status::WaitingForApproval {
            pairing_code: "0000-0000".into(),
            detail: String::new(),
        });
        assert_eq!(line.unwrap(), r#"{"status":"waiting_for_approval","pairing_code":"0000-0000","detail":""}"#);
        assert_eq!(serde_json::to_string(&Status::Ready).unwrap(), r#"{"status":"ready"}"#);
        let line = serde_json::to_string(&Status::Copying { disk: "sda".into(), done: 1, total: 2 });
        assert_eq!(line.unwrap(), r#"{"status":"copying","disk":"sda","done":1,"total":2}"#);
    }
}
