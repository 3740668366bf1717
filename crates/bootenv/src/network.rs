//! The machine's network: every interface is brought up at once, by DHCP or as told; one that is dead holds up none.
//!
//! Each interface has a thread, and each of its VLANs. What is wanted may change at any time ([`settings::Wanted`]); then each takes away what
//! it set and all begin anew.

pub mod interface;
pub mod packet;
mod port;
pub mod reachability;
pub mod resolver;
pub mod rtnetlink;
pub mod settings;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlink_packet_route::link::BondMode;

use crate::Result;
use crate::console::log;
use crate::status::Status;
use interface::{Interface, find_interface, list_interfaces};
use port::{INTERVAL, Part, Port};
use resolver::Resolver;
use settings::{Bond, BondPolicy, Wanted};

/// The first bond's interface; others have a number behind. Not `bond0`: the kernel makes one of that name by itself when bonding is loaded.
const BOND: &str = "bond.vc";
/// The name of the machine in the boot image where none is set.
const HOSTNAME: &str = "vconverter";
/// The kernel's number for `lo` (LOOPBACK_IFINDEX of include/net/net_namespace.h).
const LOOPBACK: u32 = 1;
/// What drivers need to find their cards, after which their absence is worth a word.
const DISCOVERY: Duration = Duration::from_secs(15);

/// Watches for interfaces and configures each; for a thread of its own.
pub fn run(wanted: &Arc<Wanted>, status: &Arc<Status>) -> ! {
    // The kernel tells its own programs over it that a gateway does not answer.
    if let Err(error) = rtnetlink::switch(LOOPBACK, true) {
        log(error.chain());
    }
    let resolver = Arc::new(Resolver::default());
    let (started, mut missed) = (Instant::now(), false);
    loop {
        let (number, network) = wanted.get();
        let hostname = network.hostname.as_deref().unwrap_or(HOSTNAME);
        if let Err(errno) = rustix::system::sethostname(hostname.as_bytes()) {
            log(format!("set the host name: {errno}"));
        }
        if let Err(error) = resolver.configure(&network.dns) {
            log(error.chain());
        }
        wanted.take_effect(number);
        let mut ports: HashMap<(String, u32), Vec<JoinHandle<()>>> = HashMap::new();
        let bonds = network.bonds();
        let mut bonded: Vec<Bonded> = (0..bonds.len()).map(Bonded::new).collect();
        while wanted.number() == number {
            let interfaces = list_interfaces();
            let mut found: Vec<_> =
                interfaces.iter().map(|one| (one.clone(), network.links_of(&one.name, one.mac))).collect();
            for ((bond, links), bonded) in bonds.iter().zip(&mut bonded) {
                found.extend(bonded.gather(bond, &interfaces).map(|interface| (interface, links.clone())));
            }
            for (interface, links) in found {
                let key = (interface.name.clone(), interface.index);
                if ports.get(&key).is_some_and(|parts| parts.is_empty() || parts.iter().any(|part| !part.is_finished()))
                {
                    continue;
                }
                log(format!("network: {} {} {}", interface.name, interface.driver, interface.mac));
                if links.is_empty() {
                    log(format!("network: {} is left alone, as configured", interface.name));
                }
                let parts = Part::list(&interface, &links).into_iter().map(|part| {
                    let mut port = Port::new(interface.clone(), part, hostname, wanted, number, status, &resolver);
                    std::thread::spawn(move || port.run())
                });
                ports.insert(key, parts.collect());
            }
            if ports.is_empty() && !missed && started.elapsed() > DISCOVERY {
                missed = true;
                log(
                    "network: no network interface with a driver found; waiting for one, without it nothing can be copied",
                );
            }
            std::thread::sleep(INTERVAL);
        }
        log("network: other settings; configuring every interface anew");
        for port in ports.into_values().flatten() {
            // A thread that panicked has said so.
            let _ = port.join();
        }
        status.update(|picture| picture.nics.clear());
        bonded.iter_mut().for_each(Bonded::dissolve);
    }
}

/// A bond, as far as it is made.
struct Bonded {
    /// Of its interface.
    name: String,
    index: Option<u32>,
    members: Vec<u32>,
    /// What went wrong, each said once.
    failed: BTreeSet<String>,
}

impl Bonded {
    /// The bond of this number, which is not made yet.
    fn new(number: usize) -> Self {
        let name = if number == 0 { BOND.to_owned() } else { format!("{BOND}{number}") };
        Self { name, index: None, members: Vec::new(), failed: BTreeSet::new() }
    }

    /// Makes the bond and takes in the members that are there; the bond's interface.
    fn gather(&mut self, bond: &Bond, interfaces: &[Interface]) -> Option<Interface> {
        match self.try_gather(bond, interfaces) {
            Ok(interface) => interface,
            Err(error) => {
                self.complain(error.chain());
                None
            }
        }
    }

    fn complain(&mut self, failed: String) {
        if !self.failed.contains(&failed) {
            log(format!("network: {}: {failed}", self.name));
            self.failed.insert(failed);
        }
    }

    fn try_gather(&mut self, bond: &Bond, interfaces: &[Interface]) -> Result<Option<Interface>> {
        if self.index.is_none() {
            if let Some(old) = find_interface(&self.name) {
                rtnetlink::delete_link(old.index)?;
            }
            rtnetlink::create_bond(&self.name, mode(bond.policy))?;
            self.index = find_interface(&self.name).map(|interface| interface.index);
        }
        let Some(index) = self.index else { return Ok(None) };
        for member in interfaces.iter().filter(|interface| bond.members.contains(&interface.mac)) {
            if self.members.contains(&member.index) {
                continue;
            }
            match rtnetlink::switch(member.index, false).and_then(|()| rtnetlink::set_bond(member.index, index)) {
                Ok(()) => {
                    log(format!("network: {} is a member of {}", member.name, self.name));
                    self.members.push(member.index);
                }
                // The others do without it.
                Err(error) => self.complain(format!("{}: {}", member.name, error.chain())),
            }
        }
        // Without a member it has no address yet, and a DHCP client none to tell.
        Ok(find_interface(&self.name).filter(|_| !self.members.is_empty()))
    }

    fn dissolve(&mut self) {
        if let Some(index) = self.index.take() {
            for member in self.members.drain(..) {
                let _ = rtnetlink::set_bond(member, 0);
            }
            if let Err(error) = rtnetlink::delete_link(index) {
                log(error.chain());
            }
        }
    }
}

fn mode(policy: BondPolicy) -> BondMode {
    match policy {
        BondPolicy::ActiveBackup => BondMode::ActiveBackup,
        BondPolicy::Lacp => BondMode::Ieee8023Ad,
        BondPolicy::BalanceXor => BondMode::BalanceXor,
    }
}
