//! How long a copy will take, from what is in use and how fast it came when the machine's link was tested.

use std::time::Duration;

use machine::ByteCount;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tasks;
use crate::sessions::TestedLink;
use crate::{Error, ErrorKind, Result, Timestamp};

/// A copy's time, if it goes as fast as the test did. What follows it (fix-ups, the boot proof) takes minutes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forecast {
    /// Seconds that the copy takes.
    pub copy_seconds: u64,
    /// Content a second, in bytes: as tested, or less where a limit says so.
    pub bytes_per_second: u64,
    /// When the link was tested.
    pub tested_at: Timestamp,
}

impl Forecast {
    /// Of `bytes` over a link, where no more than `limit` bytes a second may come over it.
    pub(super) fn new(bytes: ByteCount, link: &TestedLink, limit: Option<u64>) -> Self {
        let rate = link.test.rate(limit);
        Self { copy_seconds: bytes.0.div_ceil(rate), bytes_per_second: rate, tested_at: link.tested_at }
    }

    /// When a copy that is begun at `start` is over.
    pub(super) fn end(&self, start: Timestamp) -> Timestamp {
        // Past any date that can be told.
        start.after(Duration::from_secs(self.copy_seconds.min(u64::from(u32::MAX))))
    }
}

impl Tasks {
    /// Tests how fast a machine's content comes.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where the machine is copied just now; those of
    /// [`Sessions::test_link`](crate::sessions::Sessions::test_link).
    pub fn test_link(&self, machine: &str) -> Result<TestedLink> {
        let running: Vec<String> = self.running().tasks.keys().cloned().collect();
        for task in running {
            if self.0.store.existing_task(&task)?.machine == machine {
                let context = format!("task {task} works with machine {machine}: its progress tells how fast it goes");
                return Err(Error::new(ErrorKind::Conflict, context));
            }
        }
        self.0.sessions.test_link(machine, self.0.bandwidth.task(None))
    }

    /// Where the link of the machine was tested: how long its copy takes, within the limits of `start`.
    pub(super) fn forecast(
        &self,
        machine: &str,
        bytes: ByteCount,
        own_limit: Option<u64>,
        start: Timestamp,
    ) -> Result<Option<Forecast>> {
        let Some(link) = self.0.sessions.tested_link(machine) else { return Ok(None) };
        let limit = [own_limit, self.0.store.limits()?.rate(start)].into_iter().flatten().min();
        Ok(Some(Forecast::new(bytes, &link, limit)))
    }
}

#[cfg(test)]
mod tests {
    use conversion::LinkTest;

    use super::*;

    #[test]
    fn the_slower_of_link_and_limit_decides() {
        let test = LinkTest { bytes: ByteCount::mib(400), sent: ByteCount::mib(200), milliseconds: 4000 };
        let link = TestedLink { test, bytes_per_second: test.rate(None), tested_at: Timestamp(0) };
        assert_eq!(link.bytes_per_second, 100 << 20);
        let seconds = |limit| Forecast::new(ByteCount::gib(100), &link, limit).copy_seconds;
        assert_eq!((seconds(None), seconds(Some(10 << 20)), seconds(Some(1 << 30))), (1024, 5120, 1024));
        assert_eq!(Forecast::new(ByteCount::ZERO, &link, None).copy_seconds, 0);
        let endless = Forecast::new(ByteCount(u64::MAX), &link, Some(1));
        assert!(endless.end(Timestamp(0)) > Timestamp(0));
    }
}
