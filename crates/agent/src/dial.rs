//! Finds the way to the controller, and says plainly why there is none.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use protocol::Connection;
use protocol::tls::AgentTls;

use crate::inventory::has_network_address;
use crate::{Error, ErrorKind, Result};

/// Time for one address to answer.
const CONNECT_SECONDS_MAX: u64 = 10;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Connects to `HOST:PORT` and does the TLS handshake.
///
/// # Errors
/// [`ErrorKind::Link`] with a sentence for the screen, [`ErrorKind::Untrusted`] for a wrong certificate,
/// [`ErrorKind::Config`] for something that is no address.
pub(crate) fn dial(controller: &str, tls: &AgentTls) -> Result<Connection> {
    let mut failure = None;
    for address in resolve(controller)? {
        let connected = TcpStream::connect_timeout(&address, Duration::from_secs(CONNECT_SECONDS_MAX));
        match connected {
            Ok(socket) => return Ok(Connection::connect(socket, tls)?),
            Err(error) => failure = Some(unreached(controller, address, error)),
        }
    }
    Err(failure.unwrap_or_else(|| not_found(controller)))
}

fn resolve(controller: &str) -> Result<Vec<SocketAddr>> {
    let host = controller.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if host.is_none() {
        return Err(Error::new(ErrorKind::Config, format!("controller {controller:?}: expected HOST:PORT")));
    }
    match controller.to_socket_addrs() {
        Ok(found) => Ok(found.take(ADDRESSES_MAX).collect()),
        Err(error) if has_network_address() => Err(not_found(controller).because(error)),
        Err(_) => Err(no_network()),
    }
}

fn unreached(controller: &str, address: SocketAddr, error: io::Error) -> Error {
    if !address.ip().is_loopback() && !has_network_address() {
        return no_network();
    }
    let shown = match controller == address.to_string() {
        true => controller.to_owned(),
        false => format!("{controller} ({address})"),
    };
    let text = match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("{shown} refuses the connection: no controller listens there"),
        io::ErrorKind::TimedOut => format!("{shown} does not answer"),
        io::ErrorKind::NetworkUnreachable => format!("no route to {shown}: is the gateway set?"),
        io::ErrorKind::HostUnreachable => format!("{shown} cannot be reached: no such host on its network"),
        _ => format!("cannot connect to {shown}"),
    };
    Error::new(ErrorKind::Link, text).because(error)
}

fn not_found(controller: &str) -> Error {
    Error::new(ErrorKind::Link, format!("the name in {controller} is not found: is a name server set?"))
}

fn no_network() -> Error {
    Error::new(ErrorKind::Link, "this machine has no network address yet: cable, driver or DHCP?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls() -> AgentTls {
        let identity = protocol::tls::Identity::create_agent().unwrap();
        AgentTls::new(&identity, protocol::tls::Trust::Pairing).unwrap()
    }

    #[test]
    fn a_port_where_nobody_listens_is_told() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = dial(&free.to_string(), &tls()).unwrap_err();
        assert!(error.to_string().contains("no controller listens there"), "{error}");
    }

    #[test]
    fn something_that_is_no_address_is_told() {
        for wrong in ["", "host", ":1", "host:", "host:99999"] {
            assert_eq!(dial(wrong, &tls()).unwrap_err().kind, ErrorKind::Config, "{wrong}");
        }
    }

    #[test]
    fn a_name_that_does_not_exist_is_told() {
        let error = dial("no-such-host.invalid:1", &tls()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Link, "{error}");
    }
}
