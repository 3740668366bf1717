//! One interface on its way to an address, and staying there: link, VLAN, static addresses or DHCP.
//!
//! No link, no answer and a lost lease are states that are shown, and it goes on until the interface goes or the
//! settings change; then it takes away what it set.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::IpNet;

use super::interface::{Interface, find_interface, vlan_name};
use super::packet::PacketSocket;
use super::resolver::Resolver;
use super::rtnetlink;
use super::settings::{LinkSettings, Mode, Wanted, contains, everywhere};
use crate::console::log;
use crate::dhcp::{Action, Client, Lease};
use crate::status::{NicStatus, Status};
use crate::{Error, Result};

/// How often links, addresses and settings are looked at.
pub(super) const INTERVAL: Duration = Duration::from_millis(500);
/// What a card needs to agree on a speed, after which a missing link is worth a word.
const NEGOTIATION: Duration = Duration::from_secs(6);
/// Unanswered questions after which the screen says that there is no DHCP server.
const SILENT_TRIES: u32 = 4;
/// Between two tries of what failed.
const PAUSE: Duration = Duration::from_secs(5);

/// What is set on an interface, in one of its VLANs or in none.
#[derive(Clone, Debug)]
pub(super) struct Part {
    settings: LinkSettings,
    /// Whether the interface is shown as this part is.
    is_first: bool,
    /// Largest packet of the interface itself: that of the part with the largest.
    interface_mtu: Option<u32>,
    /// What it was before anything was set.
    mtu_before: Option<u32>,
}

impl Part {
    /// The parts of an interface with these settings.
    pub(super) fn list(interface: &Interface, links: &[&LinkSettings]) -> Vec<Self> {
        let interface_mtu = links.iter().filter_map(|link| link.mtu).max();
        let mtu_before = interface_mtu.and_then(|_| interface.mtu());
        let parts = links.iter().enumerate().map(|(n, &settings)| Self {
            settings: settings.clone(),
            is_first: n == 0,
            interface_mtu,
            mtu_before,
        });
        parts.collect()
    }
}

/// One interface and what is known of it.
pub(super) struct Port {
    /// What has the link.
    interface: Interface,
    /// What has the addresses: the interface itself, or a VLAN on it.
    bearer: Interface,
    part: Part,
    hostname: String,
    /// The settings that this is about, by their number.
    number: u64,
    wanted: Arc<Wanted>,
    status: Arc<Status>,
    resolver: Arc<Resolver>,
    /// The address of the DHCP lease.
    leased: Option<IpNet>,
    /// Addresses that were set here.
    set: Vec<IpNet>,
    note: String,
    said: String,
    link: bool,
}

impl Port {
    pub(super) fn new(
        interface: Interface,
        part: Part,
        hostname: &str,
        wanted: &Arc<Wanted>,
        number: u64,
        status: &Arc<Status>,
        resolver: &Arc<Resolver>,
    ) -> Self {
        Self {
            bearer: interface.clone(),
            interface,
            part,
            hostname: hostname.to_owned(),
            number,
            wanted: Arc::clone(wanted),
            status: Arc::clone(status),
            resolver: Arc::clone(resolver),
            leased: None,
            set: Vec::new(),
            note: String::new(),
            said: String::new(),
            link: false,
        }
    }

    /// Runs until the interface is gone or other settings are wanted.
    pub(super) fn run(&mut self) {
        while self.goes_on() {
            match self.prepare() {
                Ok(()) => {
                    match self.part.settings.mode {
                        Mode::Static => self.run_static(),
                        Mode::Dhcp => self.run_dhcp(),
                        Mode::Off => {}
                    }
                    break;
                }
                Err(error) => {
                    self.tell(&error.chain());
                    self.rest(PAUSE);
                }
            }
        }
        self.clear();
        if !self.interface.is_present() {
            log(format!("network: {} is gone", self.interface.name));
            self.status.set_nic(self.shown_as(), None);
        }
    }

    fn goes_on(&self) -> bool {
        self.wanted.number() == self.number && self.interface.is_present()
    }

    /// Sleeps, but not beyond the life of these settings.
    fn rest(&self, pause: Duration) {
        let started = Instant::now();
        while started.elapsed() < pause && self.goes_on() {
            std::thread::sleep(INTERVAL.min(pause));
        }
    }

    /// Switches the interface on with speed, MTU and VLAN as set.
    fn prepare(&mut self) -> Result<()> {
        let named = |name: &str, e: Error| Error { context: format!("{name}: {}", e.context), ..e };
        let name = self.interface.name.clone();
        if let Some(speed) = self.part.settings.speed()?
            && let Err(error) = self.interface.set_speed(Some(speed))
        {
            // The link as negotiated is better than none.
            log(format!("network: {}", error.chain()));
        }
        if let Some(mtu) = self.part.interface_mtu {
            rtnetlink::set_mtu(self.interface.index, mtu).map_err(|e| named(&name, e))?;
        }
        rtnetlink::switch(self.interface.index, true).map_err(|e| named(&name, e))?;
        let Some(id) = self.part.settings.vlan else { return Ok(()) };
        let vlan = vlan_name(&name, id);
        if let Some(old) = find_interface(&vlan) {
            rtnetlink::delete_link(old.index).map_err(|e| named(&vlan, e))?;
        }
        rtnetlink::create_vlan(self.interface.index, id, &vlan).map_err(|e| named(&name, e))?;
        self.bearer = find_interface(&vlan).ok_or_else(|| Error::new(format!("{vlan}: made, but not there")))?;
        if let Some(mtu) = self.part.settings.mtu {
            rtnetlink::set_mtu(self.bearer.index, mtu).map_err(|e| named(&vlan, e))?;
        }
        rtnetlink::switch(self.bearer.index, true).map_err(|e| named(&vlan, e))
    }

    /// Takes away what was set.
    fn clear(&mut self) {
        // Routes of IPv4 go with the last address.
        let routes = self.static_routes().unwrap_or_default();
        for route in routes.iter().filter(|route| route.destination.address.is_ipv6()) {
            let _ = rtnetlink::remove_route(self.bearer.index, route);
        }
        for net in std::mem::take(&mut self.set) {
            // With the interface gone there is nothing to take from.
            let _ = rtnetlink::remove_address(self.bearer.index, net);
        }
        if self.bearer != self.interface {
            let _ = rtnetlink::delete_link(self.bearer.index);
        }
        if let Some(mtu) = self.part.mtu_before {
            let _ = rtnetlink::set_mtu(self.interface.index, mtu);
        }
        if self.part.settings.speed.is_some() {
            let _ = self.interface.set_speed(None);
        }
    }

    /// Waits for a link; false when there is nothing to wait for any more.
    fn wait_for_link(&mut self) -> bool {
        let started = Instant::now();
        while self.goes_on() {
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

    fn has_link(&mut self) -> bool {
        self.link = self.goes_on() && self.interface.has_link();
        self.link
    }

    fn run_static(&mut self) {
        while self.wait_for_link() {
            match self.set_static() {
                Ok(()) => self.tell("configured"),
                Err(error) => {
                    self.tell(&error.chain());
                    self.rest(PAUSE);
                    continue;
                }
            }
            while self.has_link() {
                std::thread::sleep(INTERVAL);
                self.show();
            }
        }
    }

    fn set_static(&mut self) -> Result<()> {
        // One that the kernel refuses keeps none of the others away.
        let mut first = Ok(());
        for net in self.part.settings.static_addresses()? {
            first = first.and(self.add_address(net));
        }
        for route in self.static_routes()? {
            first = first.and(self.add_route(&route));
        }
        first
    }

    /// With several interfaces the first one's default route is taken, where the settings have no metric.
    fn static_routes(&self) -> Result<Vec<rtnetlink::Route>> {
        let (settings, nets) = (&self.part.settings, self.part.settings.static_addresses()?);
        let mut routes = Vec::new();
        for gateway in settings.gateways() {
            let metric = self.interface.index;
            let route =
                rtnetlink::Route { destination: everywhere(gateway), gateway: Some(gateway), metric, on_link: false };
            routes.push(route);
        }
        if settings.mode == Mode::Static {
            for route in &settings.routes {
                let link_local = matches!(route.via, IpAddr::V6(address) if address.is_unicast_link_local());
                let on_link = !link_local && !nets.iter().any(|net| contains(net, route.via));
                let (destination, gateway) = (route.destination()?, Some(route.via));
                routes.push(rtnetlink::Route { destination, gateway, metric: route.metric, on_link });
            }
        }
        Ok(routes)
    }

    fn add_address(&mut self, net: IpNet) -> Result<()> {
        rtnetlink::add_address(self.bearer.index, net).map_err(|e| self.named(e))?;
        if !self.set.contains(&net) {
            self.set.push(net);
        }
        Ok(())
    }

    fn add_route(&self, route: &rtnetlink::Route) -> Result<()> {
        rtnetlink::add_route(self.bearer.index, route).map_err(|e| self.named(e))
    }

    /// A route that a DHCP server gave. With several interfaces the first one's default route is taken.
    fn add_leased_route(&self, destination: IpNet, gateway: Option<IpAddr>) -> Result<()> {
        let metric = self.interface.index;
        self.add_route(&rtnetlink::Route { destination, gateway, metric, on_link: false })
    }

    fn named(&self, e: Error) -> Error {
        Error { context: format!("{}: {}", self.bearer.name, e.context), ..e }
    }

    fn run_dhcp(&mut self) {
        let started = Instant::now();
        // Differs between machines by the address and between starts by the time it took to come here.
        let [_, _, a, b, c, d] = self.interface.mac.0;
        let transaction = u32::from_be_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b1) ^ random();
        let mut client: Option<Client> = None;
        while self.wait_for_link() {
            let actions = match &mut client {
                Some(client) => client.link_restored(started.elapsed()),
                None => {
                    self.tell("asking for an address (DHCP)");
                    Vec::new()
                }
            };
            let client = client.get_or_insert_with(|| {
                Client::new(self.interface.mac.0, &self.hostname, transaction, started.elapsed())
            });
            // An IPv6 address of the settings stands beside what DHCP gives.
            let done = self.set_static().and_then(|()| self.talk(client, actions, started));
            if let Err(error) = done {
                self.tell(&error.chain());
                self.rest(PAUSE);
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
            if !self.has_link() {
                return Ok(());
            }
            self.show();
            let now = started.elapsed();
            let wait = client.deadline().saturating_sub(now).min(INTERVAL);
            actions = if client.listens() {
                if socket.is_none() {
                    socket = Some(PacketSocket::open(self.bearer.index)?);
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
                actions = client.wake(started.elapsed());
                // The answer to a renewal, which goes out by UDP, comes back through it.
                if client.listens() && socket.is_none() {
                    socket = Some(PacketSocket::open(self.bearer.index)?);
                }
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
                self.give_up_lease()
            }
        };
        if let Err(error) = done {
            self.tell(&error.chain());
        }
    }

    fn send(&self, message: &[u8], server: Option<Ipv4Addr>, socket: &mut Option<PacketSocket>) -> Result<()> {
        let own = match self.leased {
            Some(IpNet { address: IpAddr::V4(address), .. }) => address,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        if let Some(server) = server {
            // The answer comes back through the packet socket.
            let sent = UdpSocket::bind(SocketAddrV4::new(own, 68))
                .and_then(|udp| udp.send_to(message, SocketAddrV4::new(server, 67)));
            return sent.map(drop).map_err(|e| Error::io(format!("{}: renew with {server}", self.bearer.name), e));
        }
        if socket.is_none() {
            *socket = Some(PacketSocket::open(self.bearer.index)?);
        }
        socket.as_ref().map_or(Ok(()), |socket| socket.broadcast(message, own))
    }

    fn configure(&mut self, lease: &Lease) -> Result<()> {
        let net = IpNet { address: lease.address.into(), prefix_length: lease.prefix_length };
        if self.leased != Some(net) {
            self.give_up_lease()?;
            self.add_address(net)?;
            self.leased = Some(net);
        }
        for &(network, prefix_length, gateway) in &lease.routes {
            let gateway = (!gateway.is_unspecified()).then_some(gateway.into());
            self.add_leased_route(IpNet { address: network.into(), prefix_length }, gateway)?;
        }
        if let Some(gateway) = lease.gateway.map(IpAddr::V4) {
            if !contains(&net, gateway) {
                self.add_leased_route(IpNet { address: gateway, prefix_length: 32 }, None)?;
            }
            self.add_leased_route(everywhere(gateway), Some(gateway))?;
        }
        self.resolver.set(&self.bearer.name, lease)
    }

    fn give_up_lease(&mut self) -> Result<()> {
        let Some(old) = self.leased.take() else { return Ok(()) };
        self.set.retain(|net| *net != old);
        rtnetlink::remove_address(self.bearer.index, old).map_err(|e| self.named(e))
    }

    /// Shows what is the matter; a repetition changes nothing.
    fn tell(&mut self, note: &str) {
        note.clone_into(&mut self.note);
        self.show();
    }

    /// The number that it is shown under.
    fn shown_as(&self) -> u32 {
        if self.part.is_first { self.interface.index } else { self.bearer.index }
    }

    /// Shows the interface as it is now.
    fn show(&mut self) {
        let addresses =
            if self.link { rtnetlink::addresses(self.bearer.index).unwrap_or_default() } else { Vec::new() };
        let listed = addresses.iter().map(|net| format!("{net} ")).collect::<String>();
        let said = format!("{listed}{}", self.note);
        if said != self.said {
            log(format!("network: {}: {said}", self.bearer.name));
            self.said = said;
        }
        // A VLAN beside others is shown as soon as it is made.
        if !self.part.is_first && self.bearer == self.interface {
            return;
        }
        self.status.set_nic(
            self.shown_as(),
            Some(NicStatus {
                name: self.bearer.name.clone(),
                driver: self.interface.driver.clone(),
                mac: self.interface.mac,
                link: self.link,
                speed: self.interface.speed().filter(|_| self.link),
                addresses,
                note: self.note.clone(),
            }),
        );
    }
}

/// A number that need not be secret: DHCP's transaction tells our answers from other clients'.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let filled = fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    filled.map_or(0, |()| u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests;
