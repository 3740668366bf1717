//! What is left to the operator where nothing runs at a guest's first boot: each thing in words, with what is to be set.

use std::fmt::Display;

use machine::firstboot::{AdapterSettings, DRIVERS_FOLDER, FOLDER, IpSettings, Plan};

use crate::windows::Release;

/// Vista and Server 2008: since then Windows may leave disks offline that it did not know.
const OFFLINE_SINCE: (u16, u16) = (6, 0);

/// That nothing runs on `release`, and why; then a line for each thing that `plan` would have done.
pub(super) fn warnings(release: &Release, why: &str, plan: &Plan) -> Vec<String> {
    let mut left = Vec::new();
    if !plan.drivers.is_empty() {
        let folder =
            format!("{FOLDER}/{DRIVERS_FOLDER}").replacen("/Program Files", "%ProgramFiles%", 1).replace('/', "\\");
        left.push(format!("let the device manager look for drivers in {folder}, for each device without one"));
    }
    if !plan.ghosts.is_empty() {
        left.push(format!(
            "remove the old network adapters, which the device manager shows with devmgr_show_nonpresent_devices=1: {}",
            list(&plan.ghosts)
        ));
    }
    left.extend(plan.network.adapters.iter().filter_map(adapter));
    left.extend(plan.network.routes.iter().map(|route| {
        format!("set the route to {} by {}, where it is missing (route -p add)", route.destination, route.next_hop)
    }));
    if plan.disks.len() > 1 && release.version() >= OFFLINE_SINCE {
        left.push("look whether every data disk is online and can be written to (disk management)".into());
    }
    if plan.mounts.len() > 1 {
        let letters: Vec<String> = plan.mounts.iter().map(|mount| format!("{}:", mount.letter)).collect();
        left.push(format!("look whether every volume has its drive letter: {}", list(&letters)));
    }
    if !plan.scripts.is_empty() {
        let names: Vec<&str> = plan.scripts.iter().map(|script| script.file.as_str()).collect();
        left.push(format!("run the scripts of the first boot, which are not in the guest: {}", list(&names)));
    }
    let first = format!("{release}: nothing runs at its first boot: {why}");
    [first].into_iter().chain(left.into_iter().map(|task| format!("by hand: {task}"))).collect()
}

/// What an adapter had that was set; nothing where that was nothing.
fn adapter(old: &AdapterSettings) -> Option<String> {
    let AdapterSettings { name, description, mac, ipv4, ipv6, dns_suffix, wins, mtu, .. } = old;
    let mut settings = Vec::new();
    for (family, ip) in [("IPv4", ipv4), ("IPv6", ipv6)] {
        let IpSettings { addresses, gateways, dns, routes, .. } = ip;
        let gateways: Vec<_> = gateways.iter().map(|gateway| gateway.address).collect();
        let routes: Vec<String> =
            routes.iter().map(|route| format!("{} by {}", route.destination, route.next_hop)).collect();
        told(&mut settings, &format!("{family} addresses"), addresses);
        told(&mut settings, "gateways", &gateways);
        told(&mut settings, "DNS servers", dns);
        told(&mut settings, "routes", &routes);
    }
    told(&mut settings, "WINS servers", wins);
    told(&mut settings, "DNS suffix", dns_suffix.as_slice());
    told(&mut settings, "MTU", mtu.as_slice());
    if settings.is_empty() {
        return None;
    }
    let mac = mac.map(|mac| format!(", {mac}")).unwrap_or_default();
    let device = description.as_deref().unwrap_or("an adapter of an unknown kind");
    Some(format!("give the network adapter the settings of {name:?} ({device}{mac}): {}", settings.join("; ")))
}

fn told(settings: &mut Vec<String>, what: &str, values: &[impl Display]) {
    if !values.is_empty() {
        settings.push(format!("{what} {}", list(values)));
    }
}

fn list(values: &[impl Display]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::Architecture;
    use machine::firstboot::{DiskSignature, Gateway, MountRestore, NetworkSettings, PartitionIdentity, Route, Script};
    use machine::{ByteOffset, IpNet, MacAddress};

    fn net(address: [u8; 4], prefix_length: u8) -> IpNet {
        IpNet { address: address.into(), prefix_length }
    }

    fn plan() -> Plan {
        let lan = AdapterSettings {
            name: "LAN".into(),
            description: Some("Broadcom".into()),
            mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
            ipv4: IpSettings {
                addresses: vec![net([192, 0, 2, 7], 24), net([192, 0, 2, 8], 24)],
                gateways: vec![Gateway { address: [192, 0, 2, 1].into(), metric: None }],
                dns: vec![[192, 0, 2, 53].into()],
                ..Default::default()
            },
            dns_suffix: Some("corp.example".into()),
            mtu: Some(1400),
            ..Default::default()
        };
        let automatic = IpSettings { automatic: true, ..Default::default() };
        let dhcp = AdapterSettings { ipv4: automatic.clone(), ipv6: automatic, ..Default::default() };
        let route = Route { destination: net([10, 0, 0, 0], 8), next_hop: [192, 0, 2, 9].into(), metric: None };
        let mount = |letter| MountRestore {
            partition: PartitionIdentity::Mbr { signature: 1, offset: ByteOffset(1 << 20) },
            letter,
        };
        Plan {
            drivers: vec![machine::firstboot::StagedDriver { inf: "netkvm/netkvm.inf".into() }],
            disks: vec![DiskSignature::Mbr { signature: 1 }, DiskSignature::Mbr { signature: 2 }],
            mounts: vec![mount('C'), mount('E')],
            ghosts: vec!["PCI\\VEN_14E4&DEV_1639\\0".into()],
            network: NetworkSettings { adapters: vec![lan, dhcp], routes: vec![route] },
            scripts: vec![Script { file: "10-licence.cmd".into(), timeout_s: 60 }],
            ..Plan::default()
        }
    }

    #[test]
    fn each_thing_that_is_left_is_told_with_its_values() {
        let release = Release::parse("2008", Architecture::X86).unwrap();
        let told = warnings(&release, "too old", &plan());
        let expected = [
            "Windows Server 2008 (6.0.6002, x86): nothing runs at its first boot: too old",
            "by hand: let the device manager look for drivers in %ProgramFiles%\\vconverter\\firstboot\\drivers, for each device without one",
            "by hand: remove the old network adapters, which the device manager shows with devmgr_show_nonpresent_devices=1: PCI\\VEN_14E4&DEV_1639\\0",
            "by hand: give the network adapter the settings of \"LAN\" (Broadcom, 02:00:00:00:00:01): IPv4 addresses 192.0.2.7/24, 192.0.2.8/24; gateways 192.0.2.1; DNS servers 192.0.2.53; DNS suffix corp.example; MTU 1400",
            "by hand: set the route to 10.0.0.0/8 by 192.0.2.9, where it is missing (route -p add)",
            "by hand: look whether every data disk is online and can be written to (disk management)",
            "by hand: look whether every volume has its drive letter: C:, E:",
            "by hand: run the scripts of the first boot, which are not in the guest: 10-licence.cmd",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn nothing_is_told_of_what_was_not_set() {
        let release = Release::parse("xp", Architecture::X86).unwrap();
        let told = warnings(&release, "too old", &Plan::default());
        assert_eq!(told, ["Windows XP (5.1.2600, x86): nothing runs at its first boot: too old"]);
        // XP has no disks that are offline.
        assert!(!warnings(&release, "", &plan()).iter().any(|line| line.contains("online")));
    }
}
