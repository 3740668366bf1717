use std::fs;

use super::*;

/// A machine with two adapters in a bond, a VLAN over it, a bridge over that, an adapter of its own, and what containers make.
fn system(root: &Path) -> System {
    let net = root.join("sys/class/net");
    let interface = |name: &str, files: &[(&str, &str)]| {
        for (file, text) in [("type", "1"), ("mtu", "1500")].iter().chain(files) {
            let path = net.join(name).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
    };
    let worn = "52:54:00:00:00:01";
    interface("eth0", &[("address", worn), ("device/x", ""), ("bonding_slave/perm_hwaddr", worn)]);
    interface("eth1", &[("address", worn), ("device/x", ""), ("bonding_slave/perm_hwaddr", "52:54:00:00:00:02")]);
    interface("eth2", &[("address", "52:54:00:00:00:03"), ("device/x", ""), ("mtu", "9000")]);
    interface("bond0", &[("bonding/slaves", "eth0 eth1"), ("bonding/mode", "802.3ad 4")]);
    interface("bond0.5", &[]);
    interface("br0", &[("bridge/x", ""), ("brif/veth1/x", ""), ("brif/bond0.5/x", "")]);
    interface("veth1", &[]);
    interface("docker0", &[("bridge/x", ""), ("brif/veth1/x", "")]);
    interface("ib0", &[("device/x", ""), ("type", "32")]);
    fs::create_dir_all(root.join("proc/net/vlan")).unwrap();
    fs::create_dir_all(root.join("proc/sys/kernel")).unwrap();
    fs::write(root.join("proc/net/vlan/config"), "VLAN Dev name | VLAN ID\nbond0.5        | 5  | bond0\n").unwrap();
    fs::write(root.join("proc/sys/kernel/hostname"), "web1.example.org\n").unwrap();
    fs::write(
        root.join("proc/net/route"),
        "Iface Destination\nbr0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
    )
    .unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("run/systemd/resolve")).unwrap();
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.53\noptions edns0\n").unwrap();
    fs::write(root.join("run/systemd/resolve/resolv.conf"), "nameserver 192.0.2.53\nnameserver fe80::1%eth0\n")
        .unwrap();
    System::with_root(root, root.join("state"))
}

#[test]
fn links_are_followed_down_to_their_adapters() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(folder.path());
    let net = |text: &str| IpNet { address: text.parse().unwrap(), prefix_length: 24 };
    let addresses: Vec<(String, IpNet)> = [
        ("br0", "192.168.2.7"),
        ("br0", "192.168.2.8"),
        ("eth2", "10.0.0.2"),
        ("docker0", "172.17.0.1"),
        ("veth1", "10.9.9.9"),
        ("ib0", "10.8.8.8"),
    ]
    .map(|(name, address)| (name.to_owned(), net(address)))
    .into();
    let identity = identity(&system, &addresses);
    println!("{identity:#?}");
    assert_eq!(identity.hostname, "web1");
    assert_eq!(identity.dns, ["192.0.2.53".parse::<IpAddr>().unwrap()]);
    let [bridged, single] = &identity.links[..] else { panic!("two links lead outside") };
    assert_eq!((bridged.vlan, bridged.bond.as_deref()), (Some(5), Some("802.3ad")));
    assert_eq!(bridged.macs, ["52:54:00:00:00:01", "52:54:00:00:00:02"].map(|mac| mac.parse().unwrap()));
    assert_eq!((bridged.addresses.len(), bridged.routes.len()), (2, 1));
    assert_eq!((single.mtu, single.vlan, single.bond.as_ref()), (Some(9000), None, None));
}

#[test]
fn interfaces_that_are_made_of_each_other_in_a_circle_end() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(folder.path());
    fs::write(folder.path().join("proc/net/vlan/config"), "bond0.5 | 5 | br0\n").unwrap();
    assert_eq!(wire(&system, "br0", 0), None);
}
