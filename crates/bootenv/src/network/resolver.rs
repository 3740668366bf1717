//! `/etc/resolv.conf`, from the settings and what DHCP servers told the interfaces.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::dhcp::Lease;
use crate::{Error, Result};

/// glibc looks at no more.
const NAME_SERVERS_MAX: usize = 3;
const PATH: &str = "/etc/resolv.conf";

/// The name servers of the machine.
#[derive(Debug, Default)]
pub struct Resolver {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    configured: Vec<IpAddr>,
    leased: BTreeMap<String, Lease>,
}

impl Resolver {
    /// Takes the name servers of the settings, and forgets what interfaces were told.
    ///
    /// # Errors
    /// The file cannot be written; so for all of these.
    pub fn configure(&self, servers: &[IpAddr]) -> Result<()> {
        self.change(|state| *state = State { configured: servers.to_vec(), leased: BTreeMap::new() })
    }

    /// Takes what an interface was told.
    ///
    /// # Errors
    /// See [`Resolver::configure`].
    pub fn set(&self, interface: &str, lease: &Lease) -> Result<()> {
        self.change(|state| drop(state.leased.insert(interface.to_owned(), lease.clone())))
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let (path, new) = (Path::new(PATH), Path::new("/etc/resolv.conf.new"));
        let text = resolver_text(&state.configured, state.leased.values());
        fs::write(new, text).and_then(|()| fs::rename(new, path)).map_err(|e| Error::path("write", path, e))
    }
}

/// The name servers in force, for messages.
pub fn name_servers() -> Vec<String> {
    let text = fs::read_to_string(PATH).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_prefix("nameserver ")).map(|server| server.trim().to_owned()).collect()
}

fn resolver_text<'a>(configured: &[IpAddr], leases: impl Iterator<Item = &'a Lease>) -> String {
    let mut servers = configured.to_vec();
    let mut domains = Vec::new();
    for lease in leases {
        servers.extend(lease.dns.iter().copied().map(IpAddr::V4));
        domains.extend(lease.domain.clone());
    }
    let mut text = String::new();
    domains.dedup();
    if !domains.is_empty() {
        let _ = writeln!(text, "search {}", domains.join(" "));
    }
    let mut written = HashSet::new();
    for server in servers.into_iter().filter(|server| written.insert(*server)).take(NAME_SERVERS_MAX) {
        let _ = writeln!(text, "nameserver {server}");
    }
    text.push_str("options timeout:2 attempts:2\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    #[test]
    fn configured_name_servers_come_first_and_none_twice() {
        let lease = |dns: &[[u8; 4]], domain: &str| Lease {
            address: [192, 0, 2, 7].into(),
            prefix_length: 24,
            gateway: None,
            routes: Vec::new(),
            dns: dns.iter().map(|&a| a.into()).collect(),
            domain: Some(domain.into()),
            server: Ipv4Addr::UNSPECIFIED,
            duration: Duration::MAX,
            renew_after: Duration::MAX,
            rebind_after: Duration::MAX,
        };
        let leases =
            [lease(&[[10, 0, 0, 1], [10, 0, 0, 2]], "a.example"), lease(&[[10, 0, 0, 1], [10, 0, 0, 3]], "b.example")];
        assert_eq!(
            resolver_text(&["10.0.0.2".parse().unwrap()], leases.iter()),
            "search a.example b.example\nnameserver 10.0.0.2\nnameserver 10.0.0.1\nnameserver 10.0.0.3\noptions timeout:2 attempts:2\n"
        );
    }
}
