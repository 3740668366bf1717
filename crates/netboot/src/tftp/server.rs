//! The server: one task listens for requests, each transfer is a task with a socket of its own.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use super::packet::{BLOCK_SIZE_MAX, ClientPacket, PACKET_LENGTH_MAX, ReadRequest, TftpError, parse_packet};
use super::packet::{TIMEOUT_MAX, data_head, error, options};
use super::{Step, Transfer};
use crate::Interface;
use crate::files::{BootPath, Content, parse_path};
use crate::log::Entry;
use crate::port::bind_udp;
use crate::preflight::Heard;
use crate::site::Site;

/// Transfers at once, and of one address. A ROM has one, two while it asks for a size.
const TRANSFERS_MAX: usize = 512;
const TRANSFERS_OF_ADDRESS_MAX: usize = 8;
/// The first wait for an answer where the client wants no other; it doubles with each repetition up to the last.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(TIMEOUT_MAX);
/// No transfer takes longer, whatever trickles in.
const TRANSFER_MAX: Duration = Duration::from_secs(3600);

/// Addresses and ports of clients that are being served.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<HashSet<SocketAddr>>);

impl Clients {
    /// A place for `client`, or why there is none; `Ok(None)` for a request that is repeated.
    fn admit(self: &Arc<Self>, client: SocketAddr) -> Result<Option<Place>, &'static str> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.contains(&client) {
            return Ok(None);
        }
        if all.len() >= TRANSFERS_MAX {
            return Err("too many transfers at once");
        }
        if all.iter().filter(|other| other.ip() == client.ip()).count() >= TRANSFERS_OF_ADDRESS_MAX {
            return Err("too many transfers of one address at once");
        }
        all.insert(client);
        Ok(Some(Place { clients: Arc::clone(self), client }))
    }
}

/// A client's place among the transfers.
struct Place {
    clients: Arc<Clients>,
    client: SocketAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.client);
    }
}

/// Answers requests on `socket` for ever.
pub(crate) async fn serve(
    socket: UdpSocket,
    interface: Interface,
    heard: Arc<Heard>,
    clients: Arc<Clients>,
    site: Arc<Site>,
) {
    let mut buffer = [0; PACKET_LENGTH_MAX + 1];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(failure) => {
                tracing::debug!(%failure, "TFTP socket");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if client.ip() == IpAddr::V4(interface.address) {
            // Our own broadcast: the port is open.
            heard.tftp.store(true, Ordering::Relaxed);
        }
        let refusal = match parse_packet(&buffer[..length]) {
            Some(ClientPacket::Read(request)) => match clients.admit(client) {
                Ok(Some(place)) => {
                    let transfer = answer(request, interface.clone(), place, Arc::clone(&site));
                    tokio::spawn(transfer);
                    continue;
                }
                Ok(None) => continue,
                Err(why) => {
                    let entry =
                        Entry { answer: "an error".into(), why: why.into(), ..entry(&interface, client, "TFTP") };
                    site.log.write(entry);
                    TftpError::Failed("too many transfers, try again later")
                }
            },
            Some(ClientPacket::Write) => TftpError::ReadOnly,
            _ => continue,
        };
        let _ = socket.send_to(&error(refusal), client).await;
    }
}

fn entry(interface: &Interface, client: SocketAddr, request: &str) -> Entry {
    Entry { address: Some(client.ip()), interface: interface.name.clone(), request: request.into(), ..Entry::default() }
}

/// One request from its first packet to its line in the log.
async fn answer(request: ReadRequest, interface: Interface, place: Place, site: Arc<Site>) {
    let client = place.client;
    let entry = entry(&interface, client, &format!("TFTP {}", request.name));
    let path = parse_path(&request.name);
    let mac = path.as_ref().and_then(|path| path.machine);
    let entry = Entry { mac, ..entry };
    let (answer, why) = match transfer(&request, path.as_ref(), &interface, client, &site).await {
        Ok(End::Whole(told)) => {
            if let Some(path) = &path {
                site.sent(path);
            }
            (told, "it is a boot file".into())
        }
        Ok(End::SizeOnly(size)) => (format!("{size} bytes long"), "it asked for the size only".into()),
        Ok(End::Ended(sent, why)) => (format!("{sent} bytes, then it ended"), why),
        Ok(End::NotFound) => ("no such file".to_owned(), "no boot file has this name".into()),
        Err(failure) => ("an error".to_owned(), failure.to_string()),
    };
    site.log.write(Entry { answer, why, ..entry });
}

/// How a transfer ended.
enum End {
    Whole(String),
    SizeOnly(u64),
    Ended(u64, String),
    NotFound,
}

async fn transfer(
    request: &ReadRequest,
    path: Option<&BootPath>,
    interface: &Interface,
    client: SocketAddr,
    site: &Site,
) -> io::Result<End> {
    let socket = bind_udp(interface, interface.address, 0)?;
    socket.connect(client).await?;
    let content = match path.and_then(|path| site.open(path)) {
        Some(Ok(content)) => content,
        Some(Err(failure)) => {
            let _ = socket.send(&error(TftpError::Failed("the file cannot be read"))).await;
            return Err(failure);
        }
        None => {
            let _ = socket.send(&error(TftpError::NotFound)).await;
            return Ok(End::NotFound);
        }
    };
    let start = Instant::now();
    let mut transfer = Transfer::new(request, content.size());
    let sent = |transfer: &Transfer| {
        (transfer.acknowledged().saturating_mul(u64::from(transfer.pace().0))).min(content.size())
    };
    let wait = request.timeout.map_or(WAIT, |seconds| Duration::from_secs(seconds.into()));
    let mut step = transfer.start();
    let mut buffer = [0; PACKET_LENGTH_MAX + 1];
    let mut deadline = Instant::now() + wait;
    loop {
        match &step {
            Step::Options(agreed) => send(&socket, &options(agreed)).await?,
            Step::Blocks { first, last } => {
                if let Err(failure) = send_blocks(&socket, &content, &transfer, *first..=*last).await {
                    let _ = socket.send(&error(TftpError::Failed("the file cannot be read"))).await;
                    return Err(failure);
                }
            }
            Step::Wait => {}
            Step::Done => {
                let (block_size, window) = transfer.pace();
                let seconds = start.elapsed().as_secs_f64();
                let size = content.size();
                return Ok(End::Whole(format!(
                    "{size} bytes in {seconds:.1} s, blocks of {block_size}, windows of {window}"
                )));
            }
            Step::GiveUp => {
                return Ok(End::Ended(sent(&transfer), "no answer: switched off, gone on, or UDP is filtered".into()));
            }
        }
        if step != Step::Wait {
            deadline = Instant::now() + (wait * 2_u32.saturating_pow(transfer.retries())).min(WAIT_MAX);
        }
        if start.elapsed() > TRANSFER_MAX {
            return Ok(End::Ended(sent(&transfer), "it took too long".into()));
        }
        let received = tokio::time::timeout_at(deadline.into(), socket.recv(&mut buffer)).await;
        step = match received {
            Err(_) => transfer.time_out(),
            // The kernel tells of an ICMP message: nobody is at the client's port any more.
            Ok(Err(failure)) if failure.kind() == io::ErrorKind::ConnectionRefused => {
                return Ok(End::Ended(sent(&transfer), "it closed its port".into()));
            }
            Ok(Err(failure)) => return Err(failure),
            Ok(Ok(length)) => match parse_packet(&buffer[..length]) {
                Some(ClientPacket::Ack(number)) => transfer.acknowledge(number),
                Some(ClientPacket::Error(_)) if transfer.acknowledged() == 0 && request.wants_size => {
                    return Ok(End::SizeOnly(content.size()));
                }
                Some(ClientPacket::Error(text)) => {
                    return Ok(End::Ended(sent(&transfer), format!("it said: {text}")));
                }
                _ => Step::Wait,
            },
        };
    }
}

async fn send_blocks(
    socket: &UdpSocket,
    content: &Content,
    transfer: &Transfer,
    blocks: std::ops::RangeInclusive<u64>,
) -> io::Result<()> {
    let mut packet = [0; 4 + BLOCK_SIZE_MAX as usize];
    for block in blocks {
        let (offset, length) = transfer.range(block);
        packet[..4].copy_from_slice(&data_head(block));
        content.read_at(offset, &mut packet[4..4 + length])?;
        send(socket, &packet[..4 + length]).await?;
    }
    Ok(())
}

/// Sends; what the kernel drops is sent again as what a network drops.
async fn send(socket: &UdpSocket, packet: &[u8]) -> io::Result<()> {
    match socket.send(packet).await {
        // ENOBUFS
        Err(failure) if failure.kind() != io::ErrorKind::ConnectionRefused && failure.raw_os_error() != Some(105) => {
            Err(failure)
        }
        _ => Ok(()),
    }
}
