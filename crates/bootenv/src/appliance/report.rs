//! The second serial port, on which the host reads what the appliance does.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use guest::appliance::Report;
use rustix::termios::{OptionalActions, QueueSelector, tcdrain, tcflush, tcgetattr, tcsetattr};

use crate::{Error, Result, console};

/// The port.
const PORT: &str = "/dev/ttyS1";

/// Time in which the port must take all that was written.
const DRAIN: Duration = Duration::from_secs(30);

/// Writes reports, one line of JSON each.
pub(super) struct Reporter {
    port: File,
}

impl Reporter {
    /// Opens the port, without echo or translation of bytes.
    pub(super) fn open() -> Result<Self> {
        let path = Path::new(PORT);
        let port = console::open_console(path).map_err(|e| Error::path("open", path, e))?;
        let mut settings = tcgetattr(&port).map_err(|e| Error::path("settings of", path, e))?;
        settings.make_raw();
        tcsetattr(&port, OptionalActions::Now, &settings).map_err(|e| Error::path("settings of", path, e))?;
        tcflush(&port, QueueSelector::IFlush).map_err(|e| Error::path("flush", path, e))?;
        Ok(Self { port })
    }

    /// Sends a report and waits until the port has taken it.
    pub(super) fn send(&mut self, report: &Report) -> Result<()> {
        let mut line = serde_json::to_vec(report).map_err(|e| Error::new(format!("report: {e}")))?;
        line.push(b'\n');
        let path = Path::new(PORT);
        self.port.write_all(&line).map_err(|e| Error::path("write to", path, e))?;
        let end = Instant::now() + DRAIN;
        while let Err(errno) = tcdrain(&self.port) {
            if errno != rustix::io::Errno::INTR || Instant::now() > end {
                return Err(Error::path("write to", path, errno));
            }
        }
        Ok(())
    }

    /// Tells what is being done; a lost line of log is no reason to stop.
    pub(super) fn log(&mut self, text: &str) {
        super::log(text);
        let _ = self.send(&Report::Log { text: text.to_owned() });
    }
}
