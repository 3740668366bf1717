//! Sockets on an interface, and who has a port that is taken.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::ffi::OsStrExt;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::{Error, ErrorKind, Interface};

/// Bytes that wait in a socket while a thousand machines start at once; the kernel may give less.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A UDP socket that hears and speaks on `interface` only.
pub(crate) fn bind_udp(interface: &Interface, address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    UdpSocket::from_std(udp(interface, address, port, false)?.into())
}

/// The same without a runtime; `shared` lets others have the port too.
pub(crate) fn udp(interface: &Interface, address: Ipv4Addr, port: u16, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    socket.set_broadcast(true)?;
    if port != 0 {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    socket.set_reuse_address(shared)?;
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(address, port)).into())?;
    Ok(socket)
}

/// A listening TCP socket on the interface's address.
pub(crate) fn listen_tcp(interface: &Interface, port: u16) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A port whose last connections are not quite forgotten is free nevertheless.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(interface.address, port)).into())?;
    socket.listen(256)?;
    Ok(socket.into())
}

/// What a port is for, and why it cannot be had, in plain words.
pub(crate) fn explain(what: &str, protocol: &str, port: u16, interface: &Interface, failure: io::Error) -> Error {
    let place = format!("{what}: {} port {port} on {}", protocol.to_ascii_uppercase(), interface.name);
    match failure.kind() {
        io::ErrorKind::AddrInUse => {
            let owner = owner(protocol, port).unwrap_or_else(|| "another program".into());
            let remedy = match port {
                67 => {
                    "stop it, or run this service on another machine of the network: it stands beside a DHCP server, not on it"
                }
                _ => "stop it",
            };
            Error::new(ErrorKind::PortTaken, format!("{place} is taken by {owner}: {remedy}"))
        }
        io::ErrorKind::PermissionDenied => Error::new(
            ErrorKind::Forbidden,
            format!(
                "{place} is not allowed: run as root, or with the capabilities CAP_NET_BIND_SERVICE and CAP_NET_RAW"
            ),
        ),
        _ => Error::io(place, failure),
    }
}

/// The program that has a port, as far as this process may see it.
fn owner(protocol: &str, port: u16) -> Option<String> {
    let table = fs::read_to_string(format!("/proc/thread-self/net/{protocol}")).ok()?;
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        (u16::from_str_radix(local, 16).ok()? == port).then(|| fields.get(9).copied())?
    })?;
    let socket = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = |entry: fs::DirEntry| {
            fs::read_link(entry.path()).is_ok_and(|it| it.as_os_str().as_bytes() == socket.as_bytes())
        };
        if descriptors.flatten().any(holds) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {})", name.trim(), process.file_name().to_string_lossy()));
        }
    }
    None
}
