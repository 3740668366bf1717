//! Tells systemd when `serve` is up and when it stops (sd_notify(3)); without systemd it tells nobody.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Agents and clients can connect.
pub(crate) const READY: &str = "READY=1";
/// Tasks come to a safe point.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Says it to whoever started this program. Where that fails, it is logged: a service without readiness is stopped by
/// systemd, which tells why.
pub(crate) fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!("{state} cannot be told to systemd: {error}");
    }
}

fn send(socket: &OsString, state: &str) -> std::io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_hears_it_on_both_kinds_of_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("vconverter-test-{}", std::process::id());
        let there = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, heard) in [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}").into(), UnixDatagram::bind_addr(&there).unwrap()),
        ] {
            send(&socket, READY).unwrap();
            let mut buffer = [0; 64];
            let length = heard.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1", "{socket:?}");
        }
        assert!(send(&folder.path().join("absent").into_os_string(), READY).is_err());
    }
}
