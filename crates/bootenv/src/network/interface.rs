//! One network interface: link, address and routes, through the kernel's ioctls (netdevice(7), route(7)).

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use machine::MacAddress;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::{Error, Result};

/// An Ethernet interface with hardware behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name in this kernel; 15 bytes at most.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// Its address.
    pub mac: MacAddress,
    /// Kernel driver.
    pub driver: String,
}

const FOLDER: &str = "/sys/class/net";
/// ARPHRD_ETHER of linux/if_arp.h.
const ETHERNET: &str = "1";

/// The Ethernet interfaces that are there, by number.
pub fn list_interfaces() -> Vec<Interface> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let mut interfaces: Vec<Interface> = entries.filter_map(|entry| interface(&entry.path())).collect();
    interfaces.sort_by_key(|interface| interface.index);
    interfaces
}

fn interface(folder: &Path) -> Option<Interface> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).map(|t| t.trim().to_owned()).unwrap_or_default();
    if !folder.join("device").exists() || read("type") != ETHERNET {
        return None;
    }
    let driver = fs::read_link(folder.join("device/driver")).unwrap_or_default();
    Some(Interface {
        name: folder.file_name()?.to_str()?.to_owned(),
        index: read("ifindex").parse().ok()?,
        mac: read("address").parse().ok()?,
        driver: driver.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    })
}

impl Interface {
    fn file(&self, name: &str) -> PathBuf {
        Path::new(FOLDER).join(&self.name).join(name)
    }

    /// Whether it is still there.
    pub fn is_present(&self) -> bool {
        self.file("ifindex").exists()
    }

    /// Whether a link is seen; only known while the interface is up.
    pub fn has_link(&self) -> bool {
        fs::read_to_string(self.file("carrier")).is_ok_and(|carrier| carrier.trim() == "1")
    }

    /// Switches it on.
    ///
    /// # Errors
    /// The operating system's; so for all of these.
    #[allow(unsafe_code)]
    pub fn bring_up(&self) -> Result<()> {
        let mut request = self.request();
        control(libc::SIOCGIFFLAGS, &raw mut request, &format!("{}: read the flags", self.name))?;
        // SAFETY: SIOCGIFFLAGS filled this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
        control(libc::SIOCSIFFLAGS, &raw mut request, &format!("{}: switch on", self.name))
    }

    /// Gives it an address; 0.0.0.0 takes the present one and its routes away.
    ///
    /// # Errors
    /// See [`Interface::bring_up`].
    pub fn set_address(&self, address: Ipv4Addr, prefix_length: u8) -> Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_addr = socket_address(address);
        control(libc::SIOCSIFADDR, &raw mut request, &format!("{}: set the address {address}", self.name))?;
        if address.is_unspecified() {
            return Ok(());
        }
        request.ifr_ifru.ifru_netmask = socket_address(mask(prefix_length));
        control(libc::SIOCSIFNETMASK, &raw mut request, &format!("{}: set the prefix /{prefix_length}", self.name))
    }

    /// Adds a route; `gateway` 0.0.0.0 for what is on the link itself. One that is there is no error.
    ///
    /// # Errors
    /// See [`Interface::bring_up`].
    #[allow(unsafe_code)]
    pub fn add_route(&self, network: Ipv4Addr, prefix_length: u8, gateway: Ipv4Addr) -> Result<()> {
        // SAFETY: all-zero bytes are a valid rtentry.
        let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
        let mut name = self.name.clone().into_bytes();
        name.push(0);
        route.rt_dst = socket_address(network);
        route.rt_genmask = socket_address(mask(prefix_length));
        route.rt_gateway = socket_address(gateway);
        route.rt_dev = name.as_mut_ptr().cast();
        // With several interfaces the first one's default route is taken; the kernel subtracts one.
        route.rt_metric = libc::c_short::try_from(self.index).unwrap_or(libc::c_short::MAX);
        route.rt_flags = libc::RTF_UP;
        if !gateway.is_unspecified() {
            route.rt_flags |= libc::RTF_GATEWAY;
        }
        let what = format!("{}: add the route {network}/{prefix_length} by {gateway}", self.name);
        match control(libc::SIOCADDRT, &raw mut route, &what) {
            Err(Error { source: Some(source), .. }) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    #[allow(unsafe_code)]
    fn request(&self) -> libc::ifreq {
        // SAFETY: all-zero bytes are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays NUL.
        for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(self.name.bytes()) {
            *to = from.cast_signed();
        }
        request
    }
}

/// The mask of a prefix length.
pub(crate) fn mask(prefix_length: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix_length.min(32))).unwrap_or(0))
}

/// An IPv4 address as the ioctls take it.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    // Port (two bytes), then the address in network order, as in sockaddr_in.
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from.cast_signed();
    }
    libc::sockaddr { sa_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(), sa_data: data }
}

#[allow(unsafe_code)]
fn control<T>(operation: libc::Ioctl, argument: *mut T, what: &str) -> Result<()> {
    let socket: OwnedFd = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::io(what, errno))?;
    // SAFETY: the callers pass the structure that belongs to the operation, alive for the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), operation, argument) } != 0 {
        return Err(Error::io(what, io::Error::last_os_error()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_follow_prefix_lengths() {
        let masks = [0, 1, 24, 32, 200].map(|bits| mask(bits).to_string());
        assert_eq!(masks, ["0.0.0.0", "128.0.0.0", "255.255.255.0", "255.255.255.255", "255.255.255.255"]);
    }

    #[test]
    fn addresses_lie_behind_the_port() {
        let address = socket_address([192, 0, 2, 7].into());
        assert_eq!(address.sa_data[..7], [0, 0, 192u8.cast_signed(), 0, 2, 7, 0]);
    }

    #[test]
    fn an_interface_that_is_not_there_is_told_by_name() {
        let none = Interface { name: "none0".into(), index: 9999, mac: MacAddress([2; 6]), driver: String::new() };
        assert!(none.bring_up().unwrap_err().context.starts_with("none0"));
        assert!(!none.is_present() && !none.has_link());
    }
}
