//! How many there are of what.

use std::collections::BTreeMap;

use super::{Store, storage};
use crate::Result;

impl Store {
    /// Tasks by state, as it is written.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub(crate) fn task_counts(&self) -> Result<BTreeMap<String, u64>> {
        let mut counts = BTreeMap::new();
        for task in super::tasks::query(&self.connection(), "true", [])? {
            *counts.entry(task.state.to_string()).or_default() += 1;
        }
        Ok(counts)
    }

    /// Machines that are known.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage).
    pub(crate) fn machine_count(&self) -> Result<u64> {
        let count = self.connection().query_row("SELECT count(*) FROM machines", [], |row| row.get::<_, i64>(0));
        count.map(i64::cast_unsigned).map_err(|e| storage("machines cannot be counted", e))
    }
}
