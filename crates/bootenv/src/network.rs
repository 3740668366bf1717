//! Network Configurator: brings every interface up at once, by DHCP or as configured; one that is dead holds up none.
//!
//! Each interface has a thread. No link, no answer and a lost lease are states that are shown, and it goes on for ever.

pub mod interface;
pub mod packet;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use interface::{Interface, list_interfaces};
use machine::IpNet;
use packet::PacketSocket;

use crate::configuration::{Mode, Network};
use crate::console::log;
use crate::dhcp::{Action, Client, Lease};
use crate::status::{NicStatus, Status};
use crate::{Error, Result};

/// How often links and new interfaces are looked for.
const INTERVAL: Duration = Duration::from_millis(500);
/// What a card needs to agree on a speed, after which a missing link is worth a word.
const NEGOTIATION: Duration = Duration::from_secs(6);
/// What drivers need to find their cards, after which their absence is worth a word.
const DISCOVERY: Duration = Duration::from_secs(15);
/// Unanswered questions after which the screen says that there is no DHCP server.
const SILENT_TRIES: u32 = 4;

/// Watches for interfaces and configures each; for a thread of its own.
pub fn run(network: &Network, hostname: &str, status: &Arc<Status>) -> ! {
    let resolver = Arc::new(Resolver::new(network.dns.clone()));
    let mut known: HashSet<(String, u32)> = HashSet::new();
    let (started, mut missed) = (Instant::now(), false);
    loop {
        for interface in list_interfaces() {
            if !known.insert((interface.name.clone(), interface.index)) {
                continue;
            }
            log(format!("network: {} {} {}", interface.name, interface.driver, interface.mac));
            if !network.allows(&interface.name, interface.mac) {
                log(format!("network: {} is left alone, as configured", interface.name));
                continue;
            }
            let (network, resolver, status) = (network.clone(), Arc::clone(&resolver), Arc::clone(status));
            let hostname = hostname.to_owned();
            std::thread::spawn(move || {
                let mut port = Port { interface, status, resolver, address: None, note: String::new(), link: false };
                port.run(&network, &hostname);
            });
        }
        if known.is_empty() && !missed && started.elapsed() > DISCOVERY {
            missed = true;
            log("network: no network interface with a driver found; waiting for one, without it nothing can be copied");
        }
        std::thread::sleep(INTERVAL);
    }
}

/// One interface and what is known of it.
struct Port {
    interface: Interface,
    status: Arc<Status>,
    resolver: Arc<Resolver>,
    address: Option<IpNet>,
    note: String,
    link: bool,
}

impl Port {
    fn run(&mut self, network: &Network, hostname: &str) {
        while let Err(error) = self.interface.bring_up() {
            self.tell(&error.chain());
            if !self.interface.is_present() {
                return self.gone();
            }
            std::thread::sleep(Duration::from_secs(5));
        }
        match network.mode {
            Mode::Static => self.run_static(network),
            Mode::Dhcp => self.run_dhcp(hostname),
        }
        self.gone();
    }

    /// Waits for a link; false when the interface is gone.
    fn wait_for_link(&mut self) -> bool {
        let started = Instant::now();
        while self.interface.is_present() {
            self.link = self.interface.has_link();
            if self.link {
                return true;
            }
            let negotiating = started.elapsed() < NEGOTIATION;
            self.tell(if negotiating { "waiting for a link" } else { "no link: is the cable in?" });
            std::thread::sleep(INTERVAL);
        }
        false
    }

    fn run_static(&mut self, network: &Network) {
        while self.wait_for_link() {
            if self.address.is_none() {
                let lease = network
                    .static_address()
                    .map(|(address, prefix_length)| static_lease(network, address, prefix_length));
                match lease.and_then(|lease| self.configure(&lease)) {
                    Ok(()) => self.tell("configured"),
                    Err(error) => self.tell(&error.chain()),
                }
            }
            while self.interface.has_link() {
                std::thread::sleep(INTERVAL);
            }
        }
    }

    fn run_dhcp(&mut self, hostname: &str) {
        let started = Instant::now();
        // Differs between machines by the address and between starts by the time it took to come here.
        let seed = u32::from_be_bytes([
            self.interface.mac.0[2],
            self.interface.mac.0[3],
            self.interface.mac.0[4],
            self.interface.mac.0[5],
        ]);
        let transaction = seed.wrapping_mul(0x9e37_79b1) ^ random();
        let mut client: Option<Client> = None;
        while self.wait_for_link() {
            let actions = match &mut client {
                Some(client) => client.link_restored(started.elapsed()),
                None => {
                    self.tell("asking for an address (DHCP)");
                    Vec::new()
                }
            };
            let client = client
                .get_or_insert_with(|| Client::new(self.interface.mac.0, hostname, transaction, started.elapsed()));
            if let Err(error) = self.talk(client, actions, started) {
                self.tell(&error.chain());
                std::thread::sleep(Duration::from_secs(2));
            }
        }
    }

    /// Runs the client until the link is lost.
    fn talk(&mut self, client: &mut Client, mut actions: Vec<Action>, started: Instant) -> Result<()> {
        let mut socket: Option<PacketSocket> = None;
        loop {
            for action in actions {
                self.act(action, &mut socket);
            }
            if !self.interface.has_link() {
                return Ok(());
            }
            let now = started.elapsed();
            let wait = client.deadline().saturating_sub(now).min(INTERVAL);
            actions = if client.listens() {
                if socket.is_none() {
                    socket = Some(PacketSocket::open(self.interface.index)?);
                }
                let answer = match &socket {
                    Some(socket) => socket.receive(wait)?,
                    None => None,
                };
                answer.map(|answer| client.receive(started.elapsed(), &answer)).unwrap_or_default()
            } else {
                socket = None;
                std::thread::sleep(wait);
                Vec::new()
            };
            if actions.is_empty() {
                if client.listens() && socket.is_none() {
                    socket = Some(PacketSocket::open(self.interface.index)?);
                }
                actions = client.wake(started.elapsed());
            }
            if client.tries() > SILENT_TRIES {
                self.tell("no DHCP server answers; asking on");
            }
        }
    }

    fn act(&mut self, action: Action, socket: &mut Option<PacketSocket>) {
        let done = match action {
            Action::Send { message, server } => self.send(&message, server, socket),
            Action::Configure(lease) => {
                let done = self.configure(&lease);
                if done.is_ok() {
                    self.tell(&format!("DHCP from {}", lease.server));
                }
                done
            }
            Action::Deconfigure => {
                self.tell("the DHCP lease ended");
                self.deconfigure()
            }
        };
        if let Err(error) = done {
            self.tell(&error.chain());
        }
    }

    fn send(&self, message: &[u8], server: Option<Ipv4Addr>, socket: &mut Option<PacketSocket>) -> Result<()> {
        let own = match self.address {
            Some(IpNet { address: IpAddr::V4(address), .. }) => address,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        if let Some(server) = server {
            // The answer comes back through the packet socket.
            let sent = UdpSocket::bind(SocketAddrV4::new(own, 68))
                .and_then(|udp| udp.send_to(message, SocketAddrV4::new(server, 67)));
            return sent.map(drop).map_err(|e| Error::io(format!("{}: renew with {server}", self.interface.name), e));
        }
        if socket.is_none() {
            *socket = Some(PacketSocket::open(self.interface.index)?);
        }
        socket.as_ref().map_or(Ok(()), |socket| socket.broadcast(message, own))
    }

    fn configure(&mut self, lease: &Lease) -> Result<()> {
        let address = IpNet { address: lease.address.into(), prefix_length: lease.prefix_length };
        if self.address != Some(address) {
            self.interface.set_address(lease.address, lease.prefix_length)?;
            self.address = Some(address);
        }
        let none = Ipv4Addr::UNSPECIFIED;
        for &(network, prefix_length, gateway) in &lease.routes {
            self.interface.add_route(network, prefix_length, gateway)?;
        }
        if let Some(gateway) = lease.gateway {
            let mask = u32::from(interface::mask(lease.prefix_length));
            if u32::from(gateway) & mask != u32::from(lease.address) & mask {
                self.interface.add_route(gateway, 32, none)?;
            }
            self.interface.add_route(none, 0, gateway)?;
        }
        self.resolver.set(&self.interface.name, lease)
    }

    fn deconfigure(&mut self) -> Result<()> {
        self.address = None;
        self.interface.set_address(Ipv4Addr::UNSPECIFIED, 0)
    }

    fn gone(&mut self) {
        log(format!("network: {} is gone", self.interface.name));
        self.status.set_nic(self.interface.index, None);
    }

    /// Shows what is the matter; a repetition changes nothing.
    fn tell(&mut self, note: &str) {
        let address = self.address.map(|address| address.to_string()).unwrap_or_default();
        let address = if self.link { address } else { String::new() };
        let said = format!("{address} {note}");
        if said != self.note {
            let name = &self.interface.name;
            log(format!("network: {name}: {}", said.trim()));
            self.note = said;
        }
        self.status.set_nic(
            self.interface.index,
            Some(NicStatus {
                name: self.interface.name.clone(),
                driver: self.interface.driver.clone(),
                mac: self.interface.mac,
                link: self.link,
                address: self.address,
                note: note.to_owned(),
            }),
        );
    }
}

fn static_lease(network: &Network, address: Ipv4Addr, prefix_length: u8) -> Lease {
    let gateway = match network.gateway {
        Some(IpAddr::V4(gateway)) => Some(gateway),
        _ => None,
    };
    Lease {
        address,
        prefix_length,
        gateway,
        routes: Vec::new(),
        dns: Vec::new(),
        domain: None,
        server: Ipv4Addr::UNSPECIFIED,
        duration: Duration::MAX,
        renew_after: Duration::MAX,
        rebind_after: Duration::MAX,
    }
}

/// A number that need not be secret: DHCP's transaction tells our answers from other clients'.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let filled = fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    filled.map_or(0, |()| u32::from_ne_bytes(bytes))
}

/// `/etc/resolv.conf`, from the configuration and what the interfaces were told.
struct Resolver {
    configured: Vec<IpAddr>,
    leased: Mutex<BTreeMap<String, Lease>>,
}

/// glibc looks at no more.
const NAME_SERVERS_MAX: usize = 3;

impl Resolver {
    fn new(configured: Vec<IpAddr>) -> Self {
        Self { configured, leased: Mutex::default() }
    }

    fn set(&self, interface: &str, lease: &Lease) -> Result<()> {
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        leased.insert(interface.to_owned(), lease.clone());
        let (path, new) = (Path::new("/etc/resolv.conf"), Path::new("/etc/resolv.conf.new"));
        let text = resolver_text(&self.configured, leased.values());
        fs::write(new, text).and_then(|()| fs::rename(new, path)).map_err(|e| Error::path("write", path, e))
    }
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

    #[test]
    fn configured_name_servers_come_first_and_none_twice() {
        let lease = |dns: &[[u8; 4]], domain: &str| Lease {
            dns: dns.iter().map(|&a| a.into()).collect(),
            domain: Some(domain.into()),
            ..static_lease(&Network::default(), [192, 0, 2, 7].into(), 24)
        };
        let leases =
            [lease(&[[10, 0, 0, 1], [10, 0, 0, 2]], "a.example"), lease(&[[10, 0, 0, 1], [10, 0, 0, 3]], "b.example")];
        assert_eq!(
            resolver_text(&["10.0.0.2".parse().unwrap()], leases.iter()),
            "search a.example b.example\nnameserver 10.0.0.2\nnameserver 10.0.0.1\nnameserver 10.0.0.3\noptions timeout:2 attempts:2\n"
        );
    }
}
