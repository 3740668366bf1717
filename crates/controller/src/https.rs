//! The port of console and API for the network: TLS 1.2 and 1.3, HTTP/1.1.
//!
//! Strangers reach it, so everything has a bound: connections in all and from one address, the time for a handshake, for
//! the head of a request (an idle connection too) and, in [`crate::api`], for bodies and their lengths.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use protocol::tls::{load_web_identity, web_identity};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::api::Origin;
use crate::{DataDirectory, Error, ErrorKind, Result};

/// Port for browsers and programs, where none is chosen.
pub const CONSOLE_PORT: u16 = 8443;

/// Connections in all.
const CONNECTIONS_MAX: usize = 768;
/// Connections from one address. Browsers behind one translated address share them.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 384;
/// Time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the head of a request, from the end of the one before.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head of a request in bytes.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// How often certificates are looked at again: an operator's may have been renewed, our own are made anew in time.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(15 * 60);
/// Names and addresses in our own certificate.
const NAMES_MAX: usize = 64;

/// What the port is started with.
#[derive(Clone, Debug)]
pub struct ConsoleConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// An operator's certificate chain and key (PEM); without them the controller's own CA signs one.
    pub certificate: Option<CertificateFiles>,
}

/// An operator's certificate.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain, the server's own first.
    pub chain: PathBuf,
    /// Its private key, which only its owner may read.
    pub key: PathBuf,
}

/// The port, listened on.
pub(crate) struct Https {
    listener: TcpListener,
    certificates: Certificates,
}

struct Certificates {
    directory: DataDirectory,
    files: Option<CertificateFiles>,
    acceptor: TlsAcceptor,
    looked_at: Instant,
}

impl Https {
    /// Listens. It must be called within the runtime that serves it.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] where it cannot listen, [`ErrorKind::Invalid`] for certificates that cannot be used.
    pub(crate) fn bind(config: &ConsoleConfig, directory: &DataDirectory) -> Result<(Self, SocketAddr)> {
        let network = |e| Error::with(ErrorKind::Network, format!("console {}: cannot listen", config.listen), e);
        let socket = std::net::TcpListener::bind(config.listen).map_err(network)?;
        socket.set_nonblocking(true).map_err(network)?;
        let listener = TcpListener::from_std(socket).map_err(network)?;
        let address = listener.local_addr().map_err(network)?;
        let files = config.certificate.clone();
        let acceptor = load(directory, files.as_ref())?;
        let certificates = Certificates { directory: directory.clone(), files, acceptor, looked_at: Instant::now() };
        Ok((Self { listener, certificates }, address))
    }

    /// Serves `router` for as long as it is polled.
    pub(crate) async fn serve(mut self, router: Router) {
        let counts = Counts::default();
        loop {
            let (socket, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "console: a connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let address = address.ip().to_canonical();
            let Some(place) = counts.enter(address) else {
                tracing::debug!(%address, "console: too many connections");
                continue;
            };
            let acceptor = self.certificates.acceptor().await;
            tokio::spawn(connection(socket, address, acceptor, router.clone(), place));
        }
    }
}

/// One connection to its end.
async fn connection(socket: TcpStream, address: IpAddr, acceptor: TlsAcceptor, router: Router, _place: Place) {
    let _ = socket.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await else { return };
    let router = router.layer(axum::Extension(Origin(Some(address))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%address, "console: {}", crate::chain(&error));
    }
}

impl Certificates {
    /// The configuration of now. One that cannot be read any more changes nothing.
    async fn acceptor(&mut self) -> TlsAcceptor {
        if self.looked_at.elapsed() >= CERTIFICATE_CHECK {
            self.looked_at = Instant::now();
            let (directory, files) = (self.directory.clone(), self.files.clone());
            match tokio::task::spawn_blocking(move || load(&directory, files.as_ref())).await {
                Ok(Ok(acceptor)) => self.acceptor = acceptor,
                Ok(Err(error)) => tracing::warn!("the console's certificate stays as it was: {}", error.chain()),
                Err(error) => tracing::error!(%error, "the console's certificate was not looked at"),
            }
        }
        self.acceptor.clone()
    }
}

fn load(directory: &DataDirectory, files: Option<&CertificateFiles>) -> Result<TlsAcceptor> {
    let unusable = |e: protocol::Error| Error::with(ErrorKind::Invalid, "the console's certificate", e);
    let (chain, key) = match files {
        Some(files) => load_web_identity(&files.chain, &files.key),
        None => web_identity(&directory.identity(), &own_names()),
    }
    .map_err(unusable)?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| Error::with(ErrorKind::Invalid, "the console's certificate and key", e))?;
    let mut config = config;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What this machine is called: its host name, its addresses, and localhost.
fn own_names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".into(), "::1".into()];
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    if is_name && host.len() <= 253 {
        names.push(host);
    }
    let mut addresses: Vec<String> = nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        })
        .filter(|address| match address {
            IpAddr::V4(v4) => !v4.is_loopback(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        })
        .map(|address| address.to_string())
        .collect();
    addresses.sort();
    addresses.dedup();
    names.extend(addresses);
    names.truncate(NAMES_MAX);
    names
}

/// How many connections there are, in all and by address.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A counted connection; dropping it makes room.
struct Place {
    counts: Counts,
    address: IpAddr,
}

impl Counts {
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let mut counts = self.lock();
        let of_address = counts.get(&address).copied().unwrap_or(0);
        if of_address >= CONNECTIONS_PER_ADDRESS_MAX || counts.values().sum::<usize>() >= CONNECTIONS_MAX {
            return None;
        }
        counts.insert(address, of_address + 1);
        Some(Place { counts: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_keep_the_others_out() {
        let counts = Counts::default();
        let enter = |last: u8| counts.enter([192, 0, 2, last].into());
        let mut places: Vec<Place> = std::iter::from_fn(|| enter(1)).take(2000).collect();
        assert_eq!(places.len(), CONNECTIONS_PER_ADDRESS_MAX);
        places.extend(std::iter::from_fn(|| enter(2)).take(2000));
        places.extend(enter(3));
        assert_eq!(places.len(), CONNECTIONS_MAX);
        drop(places);
        assert!(counts.lock().is_empty());
    }

    #[test]
    fn the_own_names_hold_localhost_and_no_link_local_address() {
        let names = own_names();
        println!("{names:?}");
        assert!(names.iter().any(|name| name == "localhost") && !names.iter().any(|name| name.starts_with("fe80")));
    }
}
