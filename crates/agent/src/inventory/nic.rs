//! Network interfaces with hardware behind them, from `/sys/class/net`.

use std::path::Path;

use machine::{MacAddress, Nic};

use super::{addresses, list, read_line, read_number};

/// All of them, by name.
pub(super) fn load_nics() -> Vec<Nic> {
    let addresses = addresses::load_addresses();
    let mut nics: Vec<Nic> = list("/sys/class/net").iter().filter_map(|sys| load_nic(sys)).collect();
    for nic in &mut nics {
        nic.addresses = addresses.iter().filter(|(name, _)| *name == nic.name).map(|(_, net)| *net).collect();
    }
    nics.sort_by(|a, b| a.name.cmp(&b.name));
    nics
}

fn load_nic(sys: &Path) -> Option<Nic> {
    /// `ARPHRD_ETHER` of `linux/if_arp.h`.
    const ETHERNET: u64 = 1;
    // Bridges, bonds, VLANs and tunnels have no device.
    if !sys.join("device").exists() || read_number(sys.join("type")) != Some(ETHERNET) {
        return None;
    }
    let name = sys.file_name()?.to_str()?.to_owned();
    // A member of a bond wears the bond's address.
    let worn = || read_line(sys.join("bonding_slave/perm_hwaddr")).or_else(|| read_line(sys.join("address")));
    let mac: MacAddress = match addresses::permanent_mac(&name) {
        Some(mac) => mac,
        None => worn()?.parse().ok()?,
    };
    let driver = std::fs::read_link(sys.join("device/driver")).ok();
    Some(Nic {
        mac,
        addresses: Vec::new(),
        driver: driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned())),
        link_up: read_number(sys.join("carrier")) == Some(1),
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_interfaces_with_hardware_are_nics() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path().join("vcvtest0");
        std::fs::create_dir_all(sys.join("device")).unwrap();
        std::fs::write(sys.join("type"), "1\n").unwrap();
        std::fs::write(sys.join("address"), "52:54:00:12:34:56\n").unwrap();
        std::fs::write(sys.join("carrier"), "1\n").unwrap();
        std::os::unix::fs::symlink("/sys/bus/pci/drivers/e1000e", sys.join("device/driver")).unwrap();
        let nic = load_nic(&sys).unwrap();
        assert_eq!((nic.mac.to_string().as_str(), nic.driver.as_deref()), ("52:54:00:12:34:56", Some("e1000e")));
        assert!(nic.link_up);
        std::fs::create_dir(sys.join("bonding_slave")).unwrap();
        std::fs::write(sys.join("bonding_slave/perm_hwaddr"), "52:54:00:00:00:09\n").unwrap();
        assert_eq!(load_nic(&sys).unwrap().mac.to_string(), "52:54:00:00:00:09");
        std::fs::write(sys.join("type"), "772\n").unwrap();
        assert_eq!(load_nic(&sys), None);
    }
}
