//! How many connections there may be: the memory that strangers can take.
//!
//! A connection holds about 300 KiB and a thread, so [`STRANGERS_MAX`] of them hold 20 MiB. It counts as a stranger's
//! until its key is seen to be approved.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections that are not approved, in all.
const STRANGERS_MAX: usize = 64;
/// Connections that are not approved, from one address. Machines behind one translated address share it.
const STRANGERS_PER_ADDRESS_MAX: usize = 16;
/// Connections of approved agents, control and data.
const APPROVED_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Counts {
    strangers: usize,
    by_address: HashMap<IpAddr, usize>,
    approved: usize,
}

/// Counts connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<Mutex<Counts>>);

/// A counted connection; dropping it makes room.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Gate,
    address: IpAddr,
    approved: bool,
}

impl Gate {
    /// Lets a stranger in; `None` where there are too many.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Pass> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.strangers >= STRANGERS_MAX || of_address >= STRANGERS_PER_ADDRESS_MAX {
            return None;
        }
        counts.strangers += 1;
        counts.by_address.insert(address, of_address + 1);
        Some(Pass { gate: self.clone(), address, approved: false })
    }
}

impl Counts {
    fn stranger_leaves(&mut self, address: IpAddr) {
        self.strangers -= 1;
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Pass {
    /// The connection is an approved agent's; `false` where there are too many of those.
    pub(super) fn approve(&mut self) -> bool {
        let mut counts = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.approved {
            return true;
        }
        if counts.approved >= APPROVED_MAX {
            return false;
        }
        counts.stranger_leaves(self.address);
        counts.approved += 1;
        self.approved = true;
        true
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut counts = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        match self.approved {
            true => counts.approved -= 1,
            false => counts.stranger_leaves(self.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_keep_the_others_out() {
        let gate = Gate::default();
        let flooder: IpAddr = [192, 0, 2, 1].into();
        let mut passes: Vec<Pass> = std::iter::from_fn(|| gate.enter(flooder)).take(1000).collect();
        assert_eq!(passes.len(), STRANGERS_PER_ADDRESS_MAX);
        let other = gate.enter([192, 0, 2, 2].into());
        assert!(other.is_some());
        assert!(passes[0].approve());
        passes.extend(gate.enter(flooder));
        assert_eq!(passes.len(), STRANGERS_PER_ADDRESS_MAX + 1);
        drop((passes, other));
        let counts = gate.0.lock().unwrap();
        assert_eq!((counts.strangers, counts.approved, counts.by_address.len()), (0, 0, 0));
    }
}
