//! DHCP client for IPv4 (RFC 2131, options of RFC 2132 and RFC 3442): a state machine without sockets and clocks.
//!
//! Time comes in as a duration since some start and datagrams as bytes; what is to be done comes out as [`Action`]s.
//! It asks for ever: no answer is a state that is shown, not an end.

mod message;

use std::net::Ipv4Addr;
use std::time::Duration;

pub use message::{Answer, Offer, parse_datagram};
use message::{Request, encode};

/// Tries of one request before the search starts anew.
const REQUEST_TRIES_MAX: u32 = 4;
/// Longest wait between two tries while there is no lease.
const RETRY_MAX: Duration = Duration::from_secs(16);
/// Shortest wait between two tries to renew (RFC 2131, section 4.4.5).
const RENEW_RETRY_MIN: Duration = Duration::from_secs(60);

/// An address with all that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// Length of the network's prefix in bits.
    pub prefix_length: u8,
    /// The default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Further routes: network, prefix length, gateway (0.0.0.0: on the link).
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Domain to search.
    pub domain: Option<String>,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// From its acknowledgement on.
    pub duration: Duration,
    /// When it is renewed (T1), from its acknowledgement on.
    pub renew_after: Duration,
    /// When any server is asked (T2).
    pub rebind_after: Duration,
}

/// What a client is to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this DHCP message: to `server`, or to everyone.
    Send {
        /// The message, without IP and UDP headers.
        message: Vec<u8>,
        /// `None`: broadcast, from our address if we have one.
        server: Option<Ipv4Addr>,
    },
    /// Use this lease.
    Configure(Lease),
    /// The lease is no longer ours.
    Deconfigure,
}

/// Where the client stands (the states of RFC 2131, figure 5).
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Selecting { tries: u32 },
    Requesting { offer: Offer, tries: u32 },
    Bound { lease: Lease, since: Duration },
    Renewing { lease: Lease, since: Duration },
    Rebinding { lease: Lease, since: Duration },
}

/// The client of one interface.
#[derive(Clone, Debug)]
pub struct Client {
    mac: [u8; 6],
    hostname: String,
    transaction: u32,
    started: Duration,
    state: State,
    /// When something is to be done although nothing came.
    deadline: Duration,
}

impl Client {
    /// A client that begins to search at `now`. `transaction` should differ from one start to the next.
    pub fn new(mac: [u8; 6], hostname: &str, transaction: u32, now: Duration) -> Self {
        Self {
            mac,
            hostname: hostname.to_owned(),
            transaction,
            started: now,
            state: State::Selecting { tries: 0 },
            deadline: now,
        }
    }

    /// When [`Client::wake`] is to be called.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether datagrams are of interest now; while a lease is fresh the socket can be closed.
    pub fn listens(&self) -> bool {
        !matches!(self.state, State::Bound { .. })
    }

    /// Discoveries sent without an answer.
    pub fn tries(&self) -> u32 {
        match self.state {
            State::Selecting { tries } => tries,
            _ => 0,
        }
    }

    /// The link came back: makes sure that the lease still holds here.
    pub fn link_restored(&mut self, now: Duration) -> Vec<Action> {
        match &self.state {
            State::Bound { lease, since } | State::Renewing { lease, since } | State::Rebinding { lease, since } => {
                let (lease, since) = (lease.clone(), *since);
                self.state = State::Rebinding { lease, since };
            }
            State::Selecting { .. } | State::Requesting { .. } => self.state = State::Selecting { tries: 0 },
        }
        self.deadline = now;
        self.wake(now)
    }

    /// Does what is due at `now`; nothing before the deadline.
    pub fn wake(&mut self, now: Duration) -> Vec<Action> {
        if now < self.deadline {
            return Vec::new();
        }
        match self.state.clone() {
            State::Selecting { tries } => {
                if tries == 0 {
                    self.started = now;
                }
                self.state = State::Selecting { tries: tries.saturating_add(1) };
                self.deadline = now + back_off(tries);
                vec![self.send(now, &Request::discover(), None)]
            }
            State::Requesting { offer, tries } if tries < REQUEST_TRIES_MAX => {
                let request = Request::select(&offer);
                self.state = State::Requesting { offer, tries: tries + 1 };
                self.deadline = now + back_off(tries);
                vec![self.send(now, &request, None)]
            }
            State::Requesting { .. } => self.search(now),
            State::Bound { lease, since } => {
                self.transaction = self.transaction.wrapping_add(1);
                self.started = now;
                self.state = State::Renewing { lease, since };
                self.wake(now)
            }
            State::Renewing { lease, since } if now < since + lease.rebind_after => {
                let left = (since + lease.rebind_after).saturating_sub(now);
                self.deadline = now + (left / 2).max(RENEW_RETRY_MIN).min(left);
                let server = Some(lease.server);
                vec![self.send(now, &Request::renew(lease.address), server)]
            }
            State::Renewing { lease, since } => {
                self.state = State::Rebinding { lease, since };
                self.wake(now)
            }
            State::Rebinding { lease, since } if now < since + lease.duration => {
                let left = (since + lease.duration).saturating_sub(now);
                self.deadline = now + (left / 2).clamp(Duration::from_secs(4), RENEW_RETRY_MIN).min(left);
                vec![self.send(now, &Request::renew(lease.address), None)]
            }
            State::Rebinding { .. } => {
                let mut actions = vec![Action::Deconfigure];
                actions.extend(self.search(now));
                actions
            }
        }
    }

    /// Takes an answer that came in; those for others, and late ones, change nothing.
    pub fn receive(&mut self, now: Duration, answer: &Answer) -> Vec<Action> {
        if answer.transaction != self.transaction || answer.mac != self.mac {
            return Vec::new();
        }
        match (self.state.clone(), &answer.offer) {
            (State::Selecting { tries: 1.. }, Some(offer)) if !answer.is_acknowledgement => {
                self.state = State::Requesting { offer: offer.clone(), tries: 0 };
                self.deadline = now;
                self.wake(now)
            }
            (State::Requesting { offer: wanted, .. }, Some(offer))
                if answer.is_acknowledgement && offer.address == wanted.address =>
            {
                self.bind(now, offer)
            }
            (State::Renewing { .. } | State::Rebinding { .. }, Some(offer)) if answer.is_acknowledgement => {
                self.bind(now, offer)
            }
            (State::Requesting { offer, .. }, None) if answer.server.is_none_or(|server| server == offer.server) => {
                // At once would be a storm where a server refuses what it offers.
                self.state = State::Selecting { tries: 0 };
                self.deadline = now + Duration::from_secs(4);
                Vec::new()
            }
            (State::Renewing { .. } | State::Rebinding { .. }, None) => {
                let mut actions = vec![Action::Deconfigure];
                actions.extend(self.search(now));
                actions
            }
            _ => Vec::new(),
        }
    }

    fn bind(&mut self, now: Duration, offer: &Offer) -> Vec<Action> {
        let lease = offer.lease();
        self.deadline = now + lease.renew_after;
        self.state = State::Bound { lease: lease.clone(), since: now };
        vec![Action::Configure(lease)]
    }

    fn search(&mut self, now: Duration) -> Vec<Action> {
        self.transaction = self.transaction.wrapping_add(1);
        self.state = State::Selecting { tries: 0 };
        self.deadline = now;
        self.wake(now)
    }

    fn send(&self, now: Duration, request: &Request, server: Option<Ipv4Addr>) -> Action {
        let seconds = now.saturating_sub(self.started).as_secs();
        let message = encode(request, self.mac, &self.hostname, self.transaction, seconds);
        Action::Send { message, server }
    }
}

/// 1, 2, 4, 8, 16, 16 … seconds, less than RFC 2131 proposes: a man is waiting in front of the machine.
fn back_off(tries: u32) -> Duration {
    Duration::from_secs(1 << tries.min(4)).min(RETRY_MAX)
}

/// For fuzzing: a packet, as offer and as acknowledgement to a client that waits for it.
pub fn fuzz_packet(bytes: &[u8]) {
    let Some(answer) = parse_datagram(bytes) else { return };
    let mut client = Client::new(answer.mac, "vconverter", answer.transaction, Duration::ZERO);
    client.wake(Duration::ZERO);
    client.receive(Duration::from_secs(1), &Answer { is_acknowledgement: false, ..answer.clone() });
    client.receive(Duration::from_secs(2), &Answer { is_acknowledgement: true, ..answer });
    for _ in 0..20 {
        let now = client.deadline();
        client.wake(now);
        assert!(client.deadline() > now, "a deadline that is due again at once");
    }
}

#[cfg(test)]
mod tests;
