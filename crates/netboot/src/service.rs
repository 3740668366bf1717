//! The running service: its sockets, one set for each interface, and their tasks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::dhcp::{MESSAGE_LENGTH_MAX, parse_request};
use crate::log::Entry;
use crate::port::{bind_udp, explain, listen_tcp};
use crate::preflight::{Heard, TFTP_PORT, look_at_files, look_at_network};
use crate::proxy::{BOOT_SERVER_PORT, DHCP_PORT, Outcome, Station, respond};
use crate::site::Site;
use crate::{BootFiles, Client, Error, Finding, Interface, Log, Policy, Result, http, load_interfaces, tftp};

/// Where HTTP is served unless told otherwise: some firmware takes no other port.
pub const HTTP_PORT: u16 = 80;
/// Threads that all sockets share.
const THREADS: usize = 2;
/// How often it is looked whether machines came back for their boot file.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What the service is started with.
pub struct Options {
    /// Interfaces by name; none means all that can be used.
    pub interfaces: Vec<String>,
    /// Port of HTTP.
    pub http_port: u16,
    /// What is served.
    pub files: BootFiles,
    /// Who gets what.
    pub policy: Arc<dyn Policy>,
    /// Told what was found out about the network, within seconds of the start.
    pub findings: Box<dyn Fn(&Finding) + Send>,
}

/// The running service. Dropping it stops it.
pub struct Service {
    log: Arc<Log>,
    interfaces: Vec<Interface>,
    runtime: Option<Runtime>,
    stop: watch::Sender<bool>,
    preflight: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts it; when this returns, machines are answered.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NoInterface`], [`crate::ErrorKind::PortTaken`], [`crate::ErrorKind::Forbidden`], each saying
    /// what to do; [`crate::ErrorKind::Io`].
    pub fn start(options: Options) -> Result<Self> {
        let interfaces = load_interfaces(&options.interfaces)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("netboot")
            .enable_all()
            .build()
            .map_err(|e| Error::io("no threads for the PXE service", e))?;
        let mut findings = look_at_files(&options.files);
        let log = Arc::new(Log::default());
        let site = Arc::new(Site::new(options.files, options.policy, Arc::clone(&log)));
        let clients = Arc::default();
        let mut looked_at = Vec::new();
        {
            let _inside = runtime.enter();
            // All or nothing: every socket is there before the first one answers.
            let sockets: Vec<Sockets> =
                interfaces.iter().map(|it| Sockets::bind(it, options.http_port)).collect::<Result<_>>()?;
            for (sockets, interface) in sockets.into_iter().zip(&interfaces) {
                let heard = Arc::new(Heard::default());
                let answers = |port| Answering {
                    interface: interface.clone(),
                    port,
                    http_port: options.http_port,
                    heard: Arc::clone(&heard),
                    site: Arc::clone(&site),
                };
                runtime.spawn(answers(DHCP_PORT).run(sockets.dhcp));
                runtime.spawn(answers(BOOT_SERVER_PORT).run(sockets.boot_server));
                runtime.spawn(tftp::serve(
                    sockets.tftp,
                    interface.clone(),
                    Arc::clone(&heard),
                    Arc::clone(&clients),
                    Arc::clone(&site),
                ));
                runtime.spawn(http::serve(sockets.http, interface.clone(), Arc::clone(&site)));
                looked_at.push((interface.clone(), heard));
            }
        }
        let (stop, stopped) = watch::channel(false);
        let watched = Arc::clone(&site);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                watched.note_lost(Instant::now());
            }
        });
        let tell = options.findings;
        let preflight = std::thread::Builder::new().name("preflight".into()).spawn(move || {
            for (interface, heard) in &looked_at {
                if *stopped.borrow() {
                    return;
                }
                findings.extend(look_at_network(interface, heard));
            }
            for finding in &findings {
                tell(finding);
            }
        });
        let preflight = preflight.map_err(|e| Error::io("no thread for the PXE service", e))?;
        Ok(Self { log, interfaces, runtime: Some(runtime), stop, preflight: Some(preflight) })
    }

    /// The record of all requests.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Where it works.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
        if let Some(preflight) = self.preflight.take() {
            let _ = preflight.join();
        }
    }
}

/// The sockets of an interface.
struct Sockets {
    dhcp: UdpSocket,
    boot_server: UdpSocket,
    tftp: UdpSocket,
    http: TcpListener,
}

impl Sockets {
    fn bind(interface: &Interface, http_port: u16) -> Result<Self> {
        let bind = |what: &str, port: u16| {
            bind_udp(interface, Ipv4Addr::UNSPECIFIED, port).map_err(|e| explain(what, "udp", port, interface, e))
        };
        let http = listen_tcp(interface, http_port).and_then(TcpListener::from_std);
        Ok(Self {
            dhcp: bind("proxyDHCP", DHCP_PORT)?,
            boot_server: bind("PXE boot server", BOOT_SERVER_PORT)?,
            tftp: bind("TFTP", TFTP_PORT)?,
            http: http.map_err(|e| explain("HTTP", "tcp", http_port, interface, e))?,
        })
    }
}

/// A port on which DHCP messages are answered.
struct Answering {
    interface: Interface,
    port: u16,
    http_port: u16,
    heard: Arc<Heard>,
    site: Arc<Site>,
}

impl Answering {
    async fn run(self, socket: UdpSocket) {
        let mut buffer = [0; MESSAGE_LENGTH_MAX + 1];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((_, source)) if source.ip() == IpAddr::V4(self.interface.address) => {
                    // Our own broadcast: the port is open.
                    let heard = if self.port == DHCP_PORT { &self.heard.dhcp } else { &self.heard.boot_server };
                    heard.store(true, Ordering::Relaxed);
                }
                Ok((length, source)) => self.answer(&socket, &buffer[..length], source).await,
                Err(failure) => {
                    tracing::debug!(%failure, port = self.port, "DHCP socket");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn answer(&self, socket: &UdpSocket, datagram: &[u8], source: SocketAddr) {
        let (Some(request), SocketAddr::V4(source)) = (parse_request(datagram), source) else { return };
        let now = Instant::now();
        let station = Station {
            address: self.interface.address,
            http_port: self.http_port,
            files: &self.site.files,
            has_chosen: self.site.has_chosen(request.mac, now),
        };
        match respond(&request, self.port, source, &station, &*self.site.policy) {
            Outcome::NotOurs => {}
            Outcome::Silence { client, why } => {
                self.note(&client, request.address, "nothing".into(), why.into_owned());
            }
            Outcome::Answer { client, datagram, to, answer, why, file, is_choice } => {
                let sent = socket.send_to(&datagram, SocketAddr::V4(to)).await;
                let answer = match &sent {
                    Ok(_) => answer,
                    Err(failure) => format!("{answer}, which could not be sent: {failure}"),
                };
                if let (Some(path), Ok(_)) = (file, &sent) {
                    self.site.offered(client.mac, &path, &self.interface.name);
                }
                if is_choice && !client.is_ipxe {
                    self.site.chosen(client.mac, now);
                }
                self.note(&client, request.address, answer, why.into_owned());
            }
        }
    }

    fn note(&self, client: &Client, address: Ipv4Addr, answer: String, why: String) {
        self.site.log.write(Entry {
            mac: Some(client.mac),
            uuid: client.uuids().into_iter().next(),
            address: (!address.is_unspecified()).then_some(IpAddr::V4(address)),
            interface: self.interface.name.clone(),
            request: format!("{}{}: which boot file?", client.firmware, if client.is_ipxe { " (iPXE)" } else { "" }),
            answer,
            why,
        });
    }
}
