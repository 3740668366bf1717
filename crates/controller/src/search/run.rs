//! A search, from its first connect to its last.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::pace::Pace;
use super::probe::Network;
use super::{Plan, Shared, lock};

/// Connects that wait for an answer at a time. With silent addresses it, and not the rate, may be what a search goes by.
pub(super) const AT_ONCE_MAX: usize = 256;

/// Knocks everywhere, port after port, so that no machine is asked for all at once. To drop it ends it.
pub(super) async fn run(network: Arc<impl Network>, plan: &Plan, search: &Shared) {
    let start = network.now();
    let at_once = Arc::new(Semaphore::new(AT_ONCE_MAX));
    let mut pace = Pace::new(plan.rate);
    let mut knocks = JoinSet::new();
    for port in &plan.ports {
        for address in plan.range.addresses() {
            let address = SocketAddr::new(address, *port);
            // It is never closed.
            let Ok(room) = Arc::clone(&at_once).acquire_owned().await else { return };
            network.wait_until(pace.take(network.now())).await;
            let (network, search) = (Arc::clone(&network), Arc::clone(search));
            knocks.spawn(async move {
                let knock = network.knock(address).await;
                lock(&search).note(address.ip(), address.port(), knock, network.now().saturating_sub(start));
                drop(room);
            });
            while knocks.try_join_next().is_some() {}
        }
    }
    while knocks.join_next().await.is_some() {}
}
