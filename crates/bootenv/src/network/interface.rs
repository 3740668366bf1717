//! One network interface: what the kernel says of it (sysfs-class-net), its speed and duplex (ethtool's ioctls).

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use machine::MacAddress;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::settings::LinkSpeed;
use crate::{Error, Result};

/// An Ethernet interface.
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
/// IFNAMSIZ of linux/if.h, less its NUL.
const NAME_LENGTH_MAX: usize = 15;

/// The Ethernet interfaces with hardware behind them that are there, by number.
pub fn list_interfaces() -> Vec<Interface> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let hardware = entries.filter(|entry| entry.path().join("device").exists());
    let mut interfaces: Vec<Interface> = hardware.filter_map(|entry| read_interface(&entry.path())).collect();
    interfaces.sort_by_key(|interface| interface.index);
    interfaces
}

/// The interface of a name, with hardware or made of others.
pub fn find_interface(name: &str) -> Option<Interface> {
    read_interface(&Path::new(FOLDER).join(name))
}

fn read_interface(folder: &Path) -> Option<Interface> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).map(|t| t.trim().to_owned()).unwrap_or_default();
    if read("type") != ETHERNET {
        return None;
    }
    let driver = fs::read_link(folder.join("device/driver")).unwrap_or_default();
    Some(Interface {
        name: folder.file_name()?.to_str()?.to_owned(),
        index: read("ifindex").parse().ok()?,
        // A member of a bond has the bond's address; what tells it from others is its own.
        mac: read("bonding_slave/perm_hwaddr").parse().or_else(|_| read("address").parse()).ok()?,
        driver: driver.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    })
}

/// The name of a VLAN's interface, as ip(8) makes it, cut to what the kernel takes.
pub fn vlan_name(parent: &str, id: u16) -> String {
    let end = format!(".{id}");
    let kept: String = parent.chars().take(NAME_LENGTH_MAX - end.len()).collect();
    kept + &end
}

impl Interface {
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(FOLDER).join(&self.name).join(name)
    }

    /// Whether it is still there.
    pub fn is_present(&self) -> bool {
        self.read("ifindex").parse() == Ok(self.index)
    }

    /// Whether a link is seen; only known while the interface is up.
    pub fn has_link(&self) -> bool {
        self.read("carrier") == "1"
    }

    /// The largest packet in bytes.
    pub fn mtu(&self) -> Option<u32> {
        self.read("mtu").parse().ok()
    }

    /// Speed in megabits a second and duplex, as `1000/full`, where there is a link and the driver says it.
    pub fn speed(&self) -> Option<String> {
        let megabits: u32 = self.read("speed").parse().ok().filter(|&megabits| megabits > 0)?;
        let duplex = Some(self.read("duplex")).filter(|duplex| matches!(duplex.as_str(), "full" | "half"));
        Some(duplex.map_or_else(|| megabits.to_string(), |duplex| format!("{megabits}/{duplex}")))
    }

    /// Sets speed and duplex, or has them negotiated again. 1000 is negotiated with nothing else on offer, for twisted
    /// pair knows no other way (IEEE 802.3, 40.5.1).
    ///
    /// # Errors
    /// A driver that does not take it: most virtual ones.
    pub fn set_speed(&self, speed: Option<LinkSpeed>) -> Result<()> {
        let what = match speed {
            Some(speed) => format!(
                "{}: set the speed {}/{}",
                self.name,
                speed.megabits,
                if speed.full_duplex { "full" } else { "half" }
            ),
            None => format!("{}: have the speed negotiated", self.name),
        };
        let mut link = EthtoolCommand { command: ETHTOOL_GSET, ..EthtoolCommand::default() };
        self.ethtool(&mut link).map_err(|e| Error::io(&what, e))?;
        link.command = ETHTOOL_SSET;
        link.advertising = link.supported;
        link.autonegotiation = 1;
        if let Some(speed) = speed {
            link.speed = speed.megabits;
            link.speed_high = 0;
            link.duplex = u8::from(speed.full_duplex);
            if speed.megabits == 1000 {
                let modes = if speed.full_duplex { ADVERTISED_1000_FULL } else { ADVERTISED_1000_HALF };
                link.advertising = modes | ADVERTISED_AUTONEGOTIATION;
            } else {
                link.autonegotiation = 0;
            }
        }
        self.ethtool(&mut link).map_err(|e| Error::io(&what, e))
    }

    #[allow(unsafe_code)]
    fn ethtool(&self, command: &mut EthtoolCommand) -> io::Result<()> {
        // SAFETY: all-zero bytes are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays NUL.
        for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(self.name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        // SAFETY: for these two commands the kernel reads and writes one ethtool_cmd behind the pointer; it and the
        // request live until the call returns.
        match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// linux/sockios.h
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// linux/ethtool.h, as the following.
const ETHTOOL_GSET: u32 = 1;
const ETHTOOL_SSET: u32 = 2;
const ADVERTISED_1000_HALF: u32 = 1 << 4;
const ADVERTISED_1000_FULL: u32 = 1 << 5;
const ADVERTISED_AUTONEGOTIATION: u32 = 1 << 6;

/// `struct ethtool_cmd`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct EthtoolCommand {
    command: u32,
    supported: u32,
    advertising: u32,
    speed: u16,
    duplex: u8,
    port: u8,
    phy_address: u8,
    transceiver: u8,
    autonegotiation: u8,
    mdio_support: u8,
    transmit_packets_max: u32,
    receive_packets_max: u32,
    speed_high: u16,
    crossover: u8,
    crossover_wanted: u8,
    partner_advertising: u32,
    reserved: [u32; 2],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ethtool_structure_has_the_kernels_size() {
        assert_eq!(size_of::<EthtoolCommand>(), 44);
    }

    #[test]
    fn an_interface_that_is_not_there_is_told_by_name() {
        let none = Interface { name: "none0".into(), index: 9999, mac: MacAddress([2; 6]), driver: String::new() };
        assert!(none.set_speed(None).unwrap_err().context.starts_with("none0"));
        assert!(!none.is_present() && !none.has_link() && none.speed().is_none());
    }

    #[test]
    fn names_of_vlans_fit() {
        assert_eq!(vlan_name("eth0", 12), "eth0.12");
        assert_eq!(vlan_name("enp130s0f1np1", 4094), "enp130s0f1.4094");
    }
}
