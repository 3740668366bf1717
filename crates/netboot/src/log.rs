//! The record of each request, its answer and the reason: why a machine did not boot.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Records kept in memory; older ones are dropped.
pub(crate) const RECORDS_MAX: usize = 2000;

/// A request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Record {
    /// Counts up from 1 since the start of the service.
    pub number: u64,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub at: OffsetDateTime,
    /// The machine's network card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The machine's SMBIOS UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Its address, where it has one already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Our interface.
    pub interface: String,
    /// What it asked: `BIOS PXE: which boot file?`, `TFTP vmlinuz`.
    pub request: String,
    /// What it was answered; `nothing` where it was not.
    pub answer: String,
    /// Why.
    pub why: String,
}

/// What the writer of a record knows; the log adds number and time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) mac: Option<machine::MacAddress>,
    pub(crate) uuid: Option<String>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) interface: String,
    pub(crate) request: String,
    pub(crate) answer: String,
    pub(crate) why: String,
}

/// The last records.
#[derive(Default)]
pub struct Log {
    records: Mutex<(u64, VecDeque<Record>)>,
}

impl Log {
    pub(crate) fn write(&self, entry: Entry) {
        let mac = entry.mac.map(|mac| mac.to_string());
        tracing::debug!(mac = mac.as_deref().unwrap_or("-"), "{}: {} ({})", entry.request, entry.answer, entry.why);
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.0 += 1;
        let record = Record {
            number: records.0,
            at: OffsetDateTime::now_utc(),
            mac,
            uuid: entry.uuid,
            address: entry.address,
            interface: entry.interface,
            request: entry.request,
            answer: entry.answer,
            why: entry.why,
        };
        if records.1.len() == RECORDS_MAX {
            records.1.pop_front();
        }
        records.1.push_back(record);
    }

    /// The records behind number `after`, the oldest first, at most `max`.
    pub fn records(&self, after: u64, max: usize) -> Vec<Record> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.1.iter().filter(|record| record.number > after).take(max).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_the_last_records_only() {
        let log = Log::default();
        for number in 0..RECORDS_MAX + 5 {
            log.write(Entry { request: number.to_string(), ..Entry::default() });
        }
        let all = log.records(0, usize::MAX);
        assert_eq!((all.len(), all[0].number, all[0].request.as_str()), (RECORDS_MAX, 6, "5"));
        assert_eq!(log.records(RECORDS_MAX as u64, 3).len(), 3);
    }
}
