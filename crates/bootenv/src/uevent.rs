//! Events of the kernel about devices that come and go (`NETLINK_KOBJECT_UEVENT`).

use std::collections::HashMap;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::{Error, Result};

/// An event has a few variables; the kernel's own limit is 64 in 2 KiB.
const EVENT_LENGTH_MAX: usize = 8192;

/// The socket on which events come in.
pub struct Events {
    socket: OwnedFd,
}

/// One event: its variables (`ACTION`, `SUBSYSTEM`, `DEVNAME`, `MODALIAS`, …).
pub type Event = HashMap<String, String>;

impl Events {
    /// Listens from now on.
    ///
    /// # Errors
    /// The operating system's.
    #[allow(unsafe_code)]
    pub fn open() -> Result<Self> {
        let failed = || Error::io("open the socket for device events", io::Error::last_os_error());
        // SAFETY: plain system call, the result is checked.
        let raw = unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, libc::NETLINK_KOBJECT_UEVENT)
        };
        if raw < 0 {
            return Err(failed());
        }
        // SAFETY: `raw` is a new descriptor that nothing else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: all-zero bytes are a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or_default();
        address.nl_groups = 1;
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
        // SAFETY: the address is initialised, `length` is its size.
        if unsafe { libc::bind(raw, (&raw const address).cast(), length) } != 0 {
            return Err(failed());
        }
        // Hundreds of devices may appear while a driver is loaded.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 4 << 20);
        Ok(Self { socket })
    }

    /// Waits for the next event; `None` where events were lost and everything is to be looked at anew.
    ///
    /// # Errors
    /// The operating system's.
    pub fn next(&self) -> Result<Option<Event>> {
        let mut buffer = [0; EVENT_LENGTH_MAX];
        loop {
            match rustix::net::recv(&self.socket, buffer.as_mut_slice(), rustix::net::RecvFlags::empty()) {
                Ok((length, _)) => return Ok(Some(parse_event(&buffer[..length]))),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOBUFS) => return Ok(None),
                Err(errno) => return Err(Error::io("receive device events", errno)),
            }
        }
    }
}

/// Reads the kernel's form: `action@devpath`, then `NAME=value`, each ended by NUL.
pub fn parse_event(bytes: &[u8]) -> Event {
    let words = bytes.split(|&b| b == 0).filter_map(|word| std::str::from_utf8(word).ok());
    words.filter_map(|word| word.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_by_its_variables() {
        let event = parse_event(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=sda\0\xff\xfe\0SEQNUM=7\0");
        assert_eq!(event.get("DEVNAME").map(String::as_str), Some("sda"));
        assert_eq!(event.len(), 4);
        assert!(parse_event(b"").is_empty());
    }

    #[test]
    fn the_socket_opens_without_privilege() {
        Events::open().unwrap();
    }
}
