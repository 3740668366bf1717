//! How fast a machine's content comes over its link, as it was measured while its agent is connected.

use std::sync::PoisonError;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use conversion::{Cancel, LinkTest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Sessions;
use crate::bandwidth::TaskBandwidth;
use crate::{Error, ErrorKind, Result, Timestamp};

/// Time for a test in all, the agent's look at what is in use included.
const TEST_MAX: Duration = Duration::from_secs(30);

/// A test of a machine's link, and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestedLink {
    /// What was measured.
    #[serde(flatten)]
    pub test: LinkTest,
    /// Content a second, in bytes.
    pub bytes_per_second: u64,
    /// When.
    pub tested_at: Timestamp,
}

impl Sessions {
    /// Tests the link of a machine that is connected: some seconds of its content are sent and thrown away, within what may
    /// come in at the time. One test at a time, so that they do not measure each other.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`] where it is not connected, nothing came in time, or its agent cannot,
    /// [`ErrorKind::Storage`].
    pub fn test_link(&self, machine: &str, bandwidth: TaskBandwidth) -> Result<TestedLink> {
        let _one = self.0.link_tests.lock().unwrap_or_else(PoisonError::into_inner);
        if self.kind_of(machine).is_none() {
            return Err(Error::new(ErrorKind::Conflict, format!("machine {machine} is not connected")));
        }
        let connected = self.connected_machine(machine, "link test", bandwidth)?;
        let (cancel, (over, is_over)) = (Cancel::default(), channel::<()>());
        let late = cancel.clone();
        let watch = std::thread::Builder::new().name("link test".into()).spawn(move || {
            if is_over.recv_timeout(TEST_MAX) == Err(RecvTimeoutError::Timeout) {
                late.cancel();
            }
        });
        watch.map_err(|e| Error::io("no thread for the link test", e))?;
        let tested = conversion::test_link(&connected, &cancel);
        drop(over);
        let test = tested.map_err(|e| match e.kind {
            conversion::ErrorKind::Cancelled => {
                let context = format!("machine {machine}: its link was not tested within {} s", TEST_MAX.as_secs());
                Error::new(ErrorKind::Conflict, context)
            }
            _ => Error::with(ErrorKind::Conflict, format!("the link of machine {machine} cannot be tested"), e),
        })?;
        let tested = TestedLink { test, bytes_per_second: test.rate(None), tested_at: Timestamp::now() };
        self.registry().note_link(machine, tested);
        tracing::info!(machine, bytes = test.bytes.0, milliseconds = test.milliseconds, "link tested");
        Ok(tested)
    }

    /// The last test since the machine's agent connected.
    pub fn tested_link(&self, machine: &str) -> Option<TestedLink> {
        self.registry().of_machine(machine).and_then(|(session, _)| session.link_test)
    }
}
