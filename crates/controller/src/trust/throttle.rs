//! How fast somebody may guess.
//!
//! Each attempt counts as failed until it has succeeded, so that many at once gain nothing. The name that is tried and
//! the address that tries each have some attempts free; after those each further one doubles a wait. A name's wait stays
//! short, for else a stranger could keep its owner out; an address's grows long. Pure: the time is told to it.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use crate::Timestamp;

/// Attempts without a wait.
const FREE: u32 = 5;
/// The first wait in milliseconds; each further failure doubles it.
const FIRST_WAIT_MS: u64 = 1000;
/// The longest wait for a name.
const NAME_WAIT_MAX_MS: u64 = 30_000;
/// The longest wait for an address.
const ADDRESS_WAIT_MAX_MS: u64 = 15 * 60 * 1000;
/// One failure is forgotten after each this long: an office behind one address has its typos.
const FORGETS_ONE_MS: u64 = 2 * 60 * 1000;
/// Failures that are counted: an hour forgets them all.
const FAILURES_MAX: u32 = 30;
/// Names, and addresses, that are remembered.
const ENTRIES_MAX: usize = 4096;

/// The failures of all names and addresses.
#[derive(Debug, Default)]
pub struct Throttle {
    names: Failures<String>,
    addresses: Failures<IpAddr>,
}

#[derive(Debug)]
struct Failures<K>(HashMap<K, Count>);

#[derive(Clone, Copy, Debug)]
struct Count {
    failed: u32,
    last: Timestamp,
    /// Up to when failures were forgotten already.
    forgot_at: Timestamp,
}

impl Throttle {
    /// Whether this attempt may be made now; it counts as failed until [`Throttle::succeeded`].
    ///
    /// # Errors
    /// How many milliseconds to wait, where it may not; then it counts for nothing.
    pub fn attempt(&mut self, name: &str, address: Option<IpAddr>, now: Timestamp) -> Result<(), u64> {
        let address = address.map(network_of);
        let of_name = self.names.wait(&name.to_owned(), now, NAME_WAIT_MAX_MS);
        let of_address = address.map_or(0, |address| self.addresses.wait(&address, now, ADDRESS_WAIT_MAX_MS));
        match of_name.max(of_address) {
            0 => {
                self.names.count(name.to_owned(), now);
                if let Some(address) = address {
                    self.addresses.count(address, now);
                }
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// The same where nothing is tried that has a name: only the address counts.
    ///
    /// # Errors
    /// How many milliseconds to wait.
    pub fn attempt_from(&mut self, address: IpAddr, now: Timestamp) -> Result<(), u64> {
        let address = network_of(address);
        match self.addresses.wait(&address, now, ADDRESS_WAIT_MAX_MS) {
            0 => {
                self.addresses.count(address, now);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// An attempt of [`Throttle::attempt_from`] was good: its address gets back this one.
    pub fn succeeded_from(&mut self, address: IpAddr) {
        if let Some(count) = self.addresses.0.get_mut(&network_of(address)) {
            count.failed = count.failed.saturating_sub(1);
        }
    }

    /// The attempt was good: its name begins anew. Its address gets back this one attempt, no more: else whoever has one
    /// good password could try others for ever.
    pub fn succeeded(&mut self, name: &str, address: Option<IpAddr>) {
        self.names.0.remove(name);
        if let Some(address) = address {
            self.succeeded_from(address);
        }
    }
}

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Failures<K> {
    /// Milliseconds until the next attempt.
    fn wait(&self, key: &K, now: Timestamp, wait_max_ms: u64) -> u64 {
        let Some(count) = self.0.get(key) else { return 0 };
        let Some(doublings) = count.failures(now).checked_sub(FREE) else { return 0 };
        let wait = FIRST_WAIT_MS.saturating_mul(1 << doublings.min(FAILURES_MAX)).min(wait_max_ms);
        wait.saturating_sub(now.millis_since(count.last))
    }

    fn count(&mut self, key: K, now: Timestamp) {
        if self.0.len() >= ENTRIES_MAX && !self.0.contains_key(&key) {
            self.make_room(now);
        }
        let count = self.0.entry(key).or_insert(Count { failed: 0, last: now, forgot_at: now });
        let failed = count.failures(now);
        let forgot_at = match failed {
            0 => now,
            _ => Timestamp(now.0.saturating_sub((now.millis_since(count.forgot_at) % FORGETS_ONE_MS).cast_signed())),
        };
        *count = Count { failed: (failed + 1).min(FAILURES_MAX), last: now, forgot_at };
    }

    /// Forgets what is over, else who failed least: a flood of names displaces itself, not those that are attacked.
    fn make_room(&mut self, now: Timestamp) {
        self.0.retain(|_, count| count.failures(now) > 0);
        if self.0.len() >= ENTRIES_MAX {
            let least = self.0.iter().min_by_key(|(_, count)| (count.failed, count.last)).map(|(key, _)| key.clone());
            least.map(|key| self.0.remove(&key));
        }
    }
}

impl Count {
    /// Those that are not forgotten by now.
    fn failures(&self, now: Timestamp) -> u32 {
        let forgotten = now.millis_since(self.forgot_at) / FORGETS_ONE_MS;
        self.failed.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }
}

/// An address as one customer has it: of IPv6 the first 64 bits.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some([192, 0, 2, last].into())
    }

    /// Attempts that are let through within `ms`, tried every 100 ms from another address each.
    fn tried(
        throttle: &mut Throttle,
        name: &str,
        address: impl Fn(u64) -> Option<IpAddr>,
        from: i64,
        ms: i64,
    ) -> usize {
        let times = (from..from + ms).step_by(100);
        times.filter(|at| throttle.attempt(name, address(at.unsigned_abs()), Timestamp(*at)).is_ok()).count()
    }

    #[test]
    fn a_name_is_tried_five_times_then_seldom_then_twice_a_minute() {
        let mut throttle = Throttle::default();
        let spread = |at: u64| Some(IpAddr::from((u32::try_from(at).unwrap() / 100 + (10 << 24)).to_be_bytes()));
        let minute = tried(&mut throttle, "admin", spread, 0, 60_000);
        let day = 24 * 3600 * 1000;
        let hour = tried(&mut throttle, "admin", spread, 60_000, 3_600_000);
        println!("{minute} in the first minute, {hour} in the hour after it");
        assert_eq!(minute, 5 + 5, "five at once, then after 1, 2, 4, 8 and 16 s");
        assert!((119..=121).contains(&hour), "{hour}");
        assert_eq!(throttle.attempt("other", address(1), Timestamp(day)), Ok(()), "nobody else waits");
    }

    #[test]
    fn an_address_that_only_guesses_gets_one_try_in_minutes_whatever_name_it_tries() {
        let mut throttle = Throttle::default();
        let mut passed = 0;
        for at in (0..2 * 3_600_000).step_by(1000) {
            passed += usize::from(throttle.attempt(&format!("user{at}"), address(7), Timestamp(at)).is_ok());
        }
        println!("{passed} attempts in two hours");
        assert!((60..=75).contains(&passed), "{passed}");
        assert_eq!(throttle.attempt("user", address(8), Timestamp(7_200_000)), Ok(()));
    }

    #[test]
    fn a_good_login_frees_its_name_and_not_its_address() {
        let mut throttle = Throttle::default();
        for at in 0..40 {
            // The attacker's own account between each try.
            if throttle.attempt("mine", address(1), Timestamp(at)).is_ok() {
                throttle.succeeded("mine", address(1));
            }
            let _ = throttle.attempt("admin", address(1), Timestamp(at));
        }
        assert!(throttle.attempt("mine", address(1), Timestamp(41)).is_err());
        assert!(throttle.attempt("mine", address(2), Timestamp(41)).is_ok());
        let mut throttle = Throttle::default();
        for at in 0..100 {
            assert_eq!(throttle.attempt("me", address(1), Timestamp(at)), Ok(()), "{at}");
            throttle.succeeded("me", address(1));
        }
    }

    #[test]
    fn failures_are_forgotten_and_a_clock_that_is_set_back_locks_nobody_out_for_long() {
        let mut throttle = Throttle::default();
        for _ in 0..FREE {
            throttle.attempt("admin", None, Timestamp(1_000_000)).unwrap();
        }
        assert_eq!(throttle.attempt("admin", None, Timestamp(1_000_000)), Err(1000));
        assert_eq!(throttle.attempt("admin", None, Timestamp(0)), Err(1000));
        let later = 1_000_000 + i64::from(FREE) * 120_000;
        for _ in 0..FREE {
            throttle.attempt("admin", None, Timestamp(later)).unwrap();
        }
    }

    #[test]
    fn a_flood_of_names_and_addresses_is_bounded_and_does_not_free_who_is_attacked() {
        let mut throttle = Throttle::default();
        for _ in 0..FREE {
            throttle.attempt("admin", address(1), Timestamp(0)).unwrap();
        }
        for at in 1..20_000_u32 {
            let from = Some(IpAddr::V6(Ipv6Addr::from_bits(u128::from(at) << 64)));
            throttle.attempt(&format!("name{at}"), from, Timestamp(1)).unwrap();
        }
        assert!(throttle.names.0.len() <= ENTRIES_MAX && throttle.addresses.0.len() <= ENTRIES_MAX);
        assert!(throttle.attempt("admin", address(9), Timestamp(2)).is_err());
        assert!(throttle.attempt("fresh", address(1), Timestamp(2)).is_err());
    }

    #[test]
    fn an_office_behind_one_address_has_its_typos() {
        let mut throttle = Throttle::default();
        for minute in 0..600_i64 {
            let (name, now) = (format!("user{}", minute % 50), Timestamp(minute * 60_000));
            assert_eq!(throttle.attempt(&name, address(1), now), Ok(()), "minute {minute}");
            if minute % 4 != 0 {
                throttle.succeeded(&name, address(1));
            }
        }
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let mut throttle = Throttle::default();
        for host in 0..u128::from(FREE) {
            let from = Some(IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | host)));
            throttle.attempt(&format!("name{host}"), from, Timestamp(0)).unwrap();
        }
        let another = Some(IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | 0xffff)));
        assert!(throttle.attempt("name", another, Timestamp(0)).is_err());
    }
}
