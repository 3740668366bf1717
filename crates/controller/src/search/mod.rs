//! Looks through a range of addresses for machines that could get an agent: TCP connects to the ports of SSH and Windows, at
//! a bounded rate, and nothing else. No login is tried, nothing is sent; of SSH the server's greeting is read.
//!
//! One search at a time, started by an operator and audited. Its result is kept until the next one, in memory: a
//! controller that is started again has none.

mod banner;
mod pace;
mod probe;
mod range;
mod run;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use crate::inventory::Reach;
use crate::store::Store;
use crate::{Error, ErrorKind, Result, Timestamp};

use probe::{Knock, Network, Tcp};
pub use range::{ADDRESSES_MAX, AddressRange};

/// Ports of a search that names none: SSH, then RPC, SMB, Remote Desktop and Remote Management of Windows.
pub const PORTS: [u16; 6] = [22, 135, 445, 3389, 5985, 5986];
/// Connects a second of a search that says nothing of it.
pub const RATE: u32 = 100;
/// Connects a second at most.
pub const RATE_MAX: u32 = 1000;
/// Ports of a search.
const PORTS_MAX: usize = 16;
/// Machines that are kept. A firewall that answers for a whole network is no find.
const HOSTS_MAX: usize = 4096;

/// A search that is asked for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSearch {
    /// Where: `192.0.2.0/24`, `192.0.2.10-192.0.2.50`, `192.0.2.10-50`, or one address; at most 65536 addresses (a /16, or a
    /// /112 of IPv6).
    #[schemars(length(min = 1, max = 100))]
    pub range: String,
    /// Which ports; those of SSH and Windows where it is empty. At most 16.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub ports: Vec<u16>,
    /// Connects a second, at most 1000; 100 where nothing is said.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub rate: Option<u32>,
}

/// Where a search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SearchState {
    /// It goes on.
    Running,
    /// It came to its end.
    Done,
    /// An operator ended it.
    Cancelled,
}

/// A search, and how far it is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SearchView {
    /// Where, as it is usually written.
    pub range: String,
    /// Addresses of the range.
    pub addresses: u32,
    /// Which ports of each.
    pub ports: Vec<u16>,
    /// Connects a second at most.
    pub rate: u32,
    /// Where it is.
    pub state: SearchState,
    /// Who asked for it.
    pub actor: String,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Connects that were answered, refused or waited for in vain.
    pub done: u32,
    /// Connects of the whole search.
    pub total: u32,
    /// Connects a second so far.
    pub connects_per_second: Option<u32>,
    /// While it runs: seconds to its end at that rate.
    pub seconds_left: Option<u64>,
    /// Addresses with an open port.
    pub found: u32,
    /// Of those, how many are more than are kept.
    pub not_kept: u32,
    /// Connects that could not be tried: there is no route, or the controller has no descriptors left.
    pub unreachable: u32,
}

/// An address with an open port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FoundHost {
    /// Where.
    pub address: IpAddr,
    /// Its open ports, ascending.
    pub ports: Vec<u16>,
    /// What its SSH server says of itself: at most 120 characters, none of them a control character.
    pub ssh: Option<String>,
    /// How it can be reached, by that.
    pub reach: Reach,
}

/// What is to be searched.
#[derive(Clone, Debug)]
struct Plan {
    range: AddressRange,
    ports: Vec<u16>,
    rate: u32,
}

/// A search and what it found.
struct Search {
    plan: Plan,
    actor: String,
    state: SearchState,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
    /// Since the start, as the network's clock has it: a clock that is set does not change it.
    elapsed: Duration,
    done: u32,
    /// All that answered: as many as the range has at most.
    answered: HashSet<IpAddr>,
    /// What the first of them answered.
    hosts: BTreeMap<IpAddr, Answers>,
    unreachable: u32,
}

/// What an address answered.
#[derive(Debug, Default)]
struct Answers {
    ports: Vec<u16>,
    ssh: Option<String>,
}

type Shared = Arc<Mutex<Search>>;

/// The searches of a controller: the last one.
pub struct Searches {
    store: Arc<Store>,
    last: Mutex<Option<(Shared, AbortHandle)>>,
}

impl Searches {
    /// None yet.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, last: Mutex::default() }
    }

    /// Begins a search on the runtime that this is called on. It is in the audit log before its first connect.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]; [`ErrorKind::Conflict`] while another one runs; [`ErrorKind::Storage`].
    pub fn start(&self, new: &NewSearch, actor: &str) -> Result<SearchView> {
        self.start_on(Tcp::new(), new, actor)
    }

    fn start_on(&self, network: impl Network, new: &NewSearch, actor: &str) -> Result<SearchView> {
        let plan = Plan::of(new)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((search, _)) = &*last
            && lock(search).state == SearchState::Running
        {
            let context = format!("a search of {} runs: wait for its end, or cancel it", lock(search).plan.range);
            return Err(Error::new(ErrorKind::Conflict, context));
        }
        let ports: Vec<String> = plan.ports.iter().map(u16::to_string).collect();
        let detail = format!("ports {}, {} connects at most {} a second", ports.join(","), plan.total(), plan.rate);
        self.store.write_audit(actor, "search started", &plan.range.to_string(), &detail)?;
        let search: Shared = Arc::new(Mutex::new(Search::new(plan.clone(), actor)));
        let (kept, store) = (Arc::clone(&search), Arc::clone(&self.store));
        let running = tokio::spawn(async move {
            run::run(Arc::new(network), &plan, &kept).await;
            let ended = tokio::task::spawn_blocking(move || end(&kept, SearchState::Done, "controller", &store));
            if let Ok(Err(error)) = ended.await {
                tracing::error!("{}", error.chain());
            }
        });
        let view = lock(&search).view();
        *last = Some((search, running.abort_handle()));
        Ok(view)
    }

    /// Ends the search that runs. What it found stays.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there was none, [`ErrorKind::Conflict`] where it is over, [`ErrorKind::Storage`].
    pub fn cancel(&self, actor: &str) -> Result<SearchView> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((search, running)) = &*last else {
            return Err(Error::new(ErrorKind::NotFound, "nothing was searched"));
        };
        if lock(search).state != SearchState::Running {
            return Err(Error::new(ErrorKind::Conflict, "the search is over"));
        }
        running.abort();
        end(search, SearchState::Cancelled, actor, &self.store)?;
        Ok(lock(search).view())
    }

    /// The last search.
    pub fn last(&self) -> Option<SearchView> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|(search, _)| lock(search).view())
    }

    /// At most `limit` addresses that it found after `after`, ascending; only those that have the text `text` in their address
    /// or in what their SSH server says.
    pub fn found(&self, after: Option<IpAddr>, limit: usize, text: Option<&str>) -> Vec<FoundHost> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((search, _)) = &*last else { return Vec::new() };
        let search = lock(search);
        let rest = search.hosts.iter().filter(|(address, _)| after.is_none_or(|after| **address > after));
        let hosts = rest.map(|(address, answers)| answers.view(*address));
        hosts.filter(|host| text.is_none_or(|text| host.has(text))).take(limit).collect()
    }
}

impl Plan {
    fn of(new: &NewSearch) -> Result<Self> {
        let invalid = |context: String| Error::new(ErrorKind::Invalid, context);
        let range = new.range.parse().map_err(|why| invalid(format!("range: {why}")))?;
        let mut ports = if new.ports.is_empty() { PORTS.to_vec() } else { new.ports.clone() };
        ports.sort_unstable();
        ports.dedup();
        if ports.len() > PORTS_MAX || ports.contains(&0) {
            return Err(invalid(format!("ports: expected at most {PORTS_MAX}, from 1 to 65535")));
        }
        let rate = new.rate.unwrap_or(RATE);
        if !(1..=RATE_MAX).contains(&rate) {
            return Err(invalid(format!("rate: expected 1 to {RATE_MAX} connects a second, found {rate}")));
        }
        Ok(Self { range, ports, rate })
    }

    fn total(&self) -> u32 {
        self.range.len().saturating_mul(u32::try_from(self.ports.len()).unwrap_or(u32::MAX))
    }
}

impl Search {
    fn new(plan: Plan, actor: &str) -> Self {
        Self {
            plan,
            actor: actor.to_owned(),
            state: SearchState::Running,
            started_at: Timestamp::now(),
            ended_at: None,
            elapsed: Duration::ZERO,
            done: 0,
            answered: HashSet::new(),
            hosts: BTreeMap::new(),
            unreachable: 0,
        }
    }

    /// Keeps what a connect showed.
    fn note(&mut self, address: IpAddr, port: u16, knock: Knock, elapsed: Duration) {
        self.done += 1;
        self.elapsed = self.elapsed.max(elapsed);
        match knock {
            Knock::Closed => {}
            Knock::Unreachable => self.unreachable += 1,
            Knock::Open { ssh } => {
                self.answered.insert(address);
                if self.hosts.len() >= HOSTS_MAX && !self.hosts.contains_key(&address) {
                    return;
                }
                let answers = self.hosts.entry(address).or_default();
                answers.ports.push(port);
                answers.ports.sort_unstable();
                answers.ssh = answers.ssh.take().or(ssh);
            }
        }
    }

    fn view(&self) -> SearchView {
        let (plan, total) = (&self.plan, self.plan.total());
        let millis = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX);
        let rate = (millis >= 1000).then(|| (u64::from(self.done) * 1000 + millis / 2) / millis);
        let left = u64::from(total - self.done.min(total)).div_ceil(rate.unwrap_or(plan.rate.into()).max(1));
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        SearchView {
            range: plan.range.to_string(),
            addresses: plan.range.len(),
            ports: plan.ports.clone(),
            rate: plan.rate,
            state: self.state,
            actor: self.actor.clone(),
            started_at: self.started_at,
            ended_at: self.ended_at,
            done: self.done,
            total,
            connects_per_second: rate.map(|rate| u32::try_from(rate).unwrap_or(u32::MAX)),
            seconds_left: (self.state == SearchState::Running).then_some(left),
            found: count(self.answered.len()),
            not_kept: count(self.answered.len() - self.hosts.len()),
            unreachable: self.unreachable,
        }
    }
}

impl FoundHost {
    fn has(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let ssh = self.ssh.as_deref().unwrap_or_default();
        self.address.to_string().contains(&text) || ssh.to_lowercase().contains(&text)
    }
}

impl Answers {
    fn view(&self, address: IpAddr) -> FoundHost {
        let has = |ports: &[u16]| ports.iter().any(|port| self.ports.contains(port));
        let reach = match () {
            () if self.ssh.is_some() || has(&[22]) => Reach::Ssh,
            () if has(&[5985, 5986]) => Reach::Winrm,
            () => Reach::Unknown,
        };
        FoundHost { address, ports: self.ports.clone(), ssh: self.ssh.clone(), reach }
    }
}

/// The end of a search that did not end before, with its line in the audit log.
fn end(search: &Shared, state: SearchState, actor: &str, store: &Store) -> Result<()> {
    let (range, detail) = {
        let mut search = lock(search);
        if search.state != SearchState::Running {
            return Ok(());
        }
        search.state = state;
        search.ended_at = Some(Timestamp::now());
        let found = search.view();
        (found.range, format!("{} of {} connects, {} addresses answer", found.done, found.total, found.found))
    };
    let action = if state == SearchState::Cancelled { "search cancelled" } else { "search ended" };
    store.write_audit(actor, action, &range, &detail)
}

fn lock(search: &Shared) -> MutexGuard<'_, Search> {
    search.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::probe::fake::FakeNetwork;
    use super::*;
    use crate::store::temporary_store;

    fn new(range: &str, ports: &[u16], rate: u32) -> NewSearch {
        NewSearch { range: range.into(), ports: ports.to_vec(), rate: Some(rate) }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Waits for the end of the last search.
    async fn ended(searches: &Searches) -> SearchView {
        loop {
            match searches.last() {
                Some(view) if view.state != SearchState::Running => return view,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    #[test]
    fn a_search_knocks_once_at_each_port_of_each_address_and_never_faster_than_its_rate() {
        let (_folder, store) = temporary_store();
        let store = Arc::new(store);
        let searches = Searches::new(Arc::clone(&store));
        let answers = |address: SocketAddr| match (address.ip(), address.port()) {
            (IpAddr::V4(ip), 22) if ip.octets()[3] == 7 => Knock::Open { ssh: Some("SSH-2.0-OpenSSH_9.2".into()) },
            (IpAddr::V4(ip), 445 | 5985) if ip.octets()[3] == 9 => Knock::Open { ssh: None },
            (IpAddr::V4(ip), _) if ip.octets()[3] == 200 => Knock::Unreachable,
            _ => Knock::Closed,
        };
        let network = FakeNetwork::new(answers);
        let view = runtime().block_on(async {
            searches.start_on(network.clone(), &new("192.0.2.0/24", &[22, 445, 5985], 50), "user ada").unwrap();
            ended(&searches).await
        });
        let knocks = network.knocks();
        println!("{} of {} in {:?}", view.done, view.total, knocks.last().unwrap().0);
        assert_eq!((view.done, view.total, knocks.len()), (762, 762, 762));
        let mut each: Vec<SocketAddr> = knocks.iter().map(|(_, address)| *address).collect();
        each.sort();
        each.dedup();
        assert_eq!(each.len(), 762, "none twice");
        for (start, _) in &knocks {
            let second = *start..*start + Duration::from_secs(1);
            let within = knocks.iter().filter(|(at, _)| second.contains(at)).count();
            assert!(within <= 50, "{within} connects in the second from {start:?}");
        }
        assert_eq!(view.connects_per_second, Some(50));
        assert_eq!((view.found, view.unreachable, view.seconds_left), (2, 3, None));
        let found = searches.found(None, 10, None);
        let ip = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        assert_eq!((found[0].address, found[0].reach, found[0].ports.as_slice()), (ip(7), Reach::Ssh, [22].as_slice()));
        assert_eq!(found[0].ssh.as_deref(), Some("SSH-2.0-OpenSSH_9.2"));
        assert_eq!(
            (found[1].address, found[1].reach, found[1].ports.as_slice()),
            (ip(9), Reach::Winrm, [445, 5985].as_slice())
        );
        assert_eq!(searches.found(None, 10, Some("openssh")), found[..1]);
        assert_eq!(searches.found(Some(ip(7)), 10, None).len(), 1);
        let told: Vec<String> =
            store.audit(5).unwrap().into_iter().map(|line| format!("{} {}", line.actor, line.action)).collect();
        assert_eq!(told, ["controller search ended", "user ada search started"]);
    }

    #[test]
    fn one_search_runs_at_a_time_and_a_cancelled_one_knocks_no_more() {
        let (_folder, store) = temporary_store();
        let store = Arc::new(store);
        let searches = Searches::new(Arc::clone(&store));
        assert_eq!(searches.cancel("user ada").unwrap_err().kind, ErrorKind::NotFound);
        // Nobody answers: connects wait until they are given up, which on this clock is never.
        let network = FakeNetwork::silent();
        runtime().block_on(async {
            searches.start_on(network.clone(), &new("10.0.0.0/16", &[22], 1000), "user ada").unwrap();
            while network.knocks().len() < 10 {
                tokio::task::yield_now().await;
            }
            let second = searches.start_on(FakeNetwork::silent(), &new("192.0.2.1", &[22], 1), "user eve").unwrap_err();
            assert_eq!(second.kind, ErrorKind::Conflict);
            let view = searches.cancel("user eve").unwrap();
            assert_eq!((view.state, view.seconds_left), (SearchState::Cancelled, None));
            assert_eq!(searches.cancel("user eve").unwrap_err().kind, ErrorKind::Conflict);
            let settle = async || {
                for _ in 0..1000 {
                    tokio::task::yield_now().await;
                }
            };
            settle().await;
            let knocks = network.knocks().len();
            println!("{knocks} connects at once");
            assert!(knocks <= run::AT_ONCE_MAX, "{knocks}");
            settle().await;
            assert_eq!(network.knocks().len(), knocks);
            assert_eq!(network.open(), 0, "all were given up");
            searches.start_on(FakeNetwork::new(|_| Knock::Closed), &new("192.0.2.1", &[22], 1), "user eve").unwrap();
            assert_eq!(ended(&searches).await.done, 1);
        });
        let told: Vec<String> = store.audit(5).unwrap().into_iter().map(|line| line.action).collect();
        assert_eq!(told, ["search ended", "search started", "search cancelled", "search started"]);
    }

    #[test]
    fn a_network_that_answers_everywhere_is_kept_in_bounds() {
        let (_folder, store) = temporary_store();
        let searches = Searches::new(Arc::new(store));
        let view = runtime().block_on(async {
            let network = FakeNetwork::new(|_| Knock::Open { ssh: None });
            searches.start_on(network, &new("10.0.0.0/16", &[22, 445], 1000), "user ada").unwrap();
            ended(&searches).await
        });
        assert_eq!((view.found, view.not_kept), (65_534, 65_534 - 4096));
        assert_eq!(searches.found(None, usize::MAX, None).len(), HOSTS_MAX);
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        let (_folder, store) = temporary_store();
        let searches = Searches::new(Arc::new(store));
        let many: Vec<u16> = (1..=17).collect();
        for wrong in [
            new("10.0.0.0/15", &[], 1),
            new("192.0.2.1", &[0], 1),
            new("192.0.2.1", &many, 1),
            new("192.0.2.1", &[], 0),
            new("192.0.2.1", &[], 1001),
        ] {
            let error = searches.start_on(FakeNetwork::silent(), &wrong, "user ada").unwrap_err();
            println!("{error}");
            assert_eq!(error.kind, ErrorKind::Invalid);
        }
        assert!(searches.last().is_none());
    }
}
