//! Whether a machine is gone from the network: nothing of it answers any more.
//!
//! A port that is open, and one that is closed and says so, are both signs of life; only silence on all of them is none. A
//! machine that drops everything that it is asked cannot be told from one that is off: that is why its agent, where it has one,
//! ended it before.

use std::io::ErrorKind as Io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind, Result};

/// What servers have open, or at least closed with an answer: SSH, RPC, SMB, RDP, and what hardly any has.
const PORTS: [u16; 5] = [22, 135, 445, 3389, 9];
/// Time for one answer; the machine is in the same data centre.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Rounds of silence in a row.
const ROUNDS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);

/// Waits until nothing answers at `addresses`; says what was seen.
///
/// # Errors
/// [`ErrorKind::Network`] with what still answers after `patience`.
pub(super) fn wait_for(addresses: &[IpAddr], patience: Duration) -> Result<String> {
    if addresses.is_empty() {
        return Ok("no address of the source is known: whether it is silent was not seen".into());
    }
    let deadline = Instant::now() + patience;
    let mut silent = 0;
    while silent < ROUNDS {
        match sign_of_life(addresses) {
            None => silent += 1,
            Some(sign) if Instant::now() >= deadline => {
                let context = format!("the source is not gone: {sign}");
                return Err(Error::new(ErrorKind::Network, context));
            }
            Some(_) => silent = 0,
        }
        if silent < ROUNDS {
            std::thread::sleep(PAUSE);
        }
    }
    let shown: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    Ok(format!("the source is gone: nothing answers at {}", shown.join(", ")))
}

/// The first sign of life of a round, all ports at a time.
fn sign_of_life(addresses: &[IpAddr]) -> Option<String> {
    let all = addresses.iter().flat_map(|address| PORTS.map(|port| SocketAddr::new(*address, port)));
    std::thread::scope(|scope| {
        let asked: Vec<_> = all.map(|address| scope.spawn(move || answers(address))).collect();
        asked.into_iter().filter_map(|one| one.join().ok().flatten()).next()
    })
}

fn answers(address: SocketAddr) -> Option<String> {
    match TcpStream::connect_timeout(&address, ANSWER_MAX) {
        Ok(_) => Some(format!("{address} is open")),
        Err(error) if error.kind() == Io::ConnectionRefused => Some(format!("{address} refuses connections")),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_is_a_sign_of_life_and_an_address_that_nobody_has_is_silent() {
        let error = wait_for(&["127.0.0.1".parse().unwrap()], Duration::ZERO).unwrap_err();
        println!("{error}");
        assert!(error.to_string().starts_with("the source is not gone: 127.0.0.1:"));
        // RFC 6666: packets to it are discarded wherever they are routed at all.
        let seen = wait_for(&["100::1".parse().unwrap()], Duration::ZERO).unwrap();
        assert_eq!(seen, "the source is gone: nothing answers at 100::1");
        assert!(wait_for(&[], Duration::ZERO).unwrap().contains("was not seen"));
    }
}
