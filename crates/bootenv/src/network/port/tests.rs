use std::process::Command;

use super::*;
use crate::network::settings::{Network, RouteSettings};

const INSIDE: &str = "VCONVERTER_TEST_NAMESPACE";

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}: {}{}", ip("address"), ip("route"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Not a test by itself: what the next one starts in a network namespace of its own, with a cable `v0`-`v1`.
#[test]
fn in_a_namespace() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let route = |to: &str, via: &str, metric| RouteSettings { to: to.into(), via: via.parse().unwrap(), metric };
    let settings = LinkSettings {
        mode: Mode::Static,
        addresses: ["192.0.2.7/24", "192.0.2.8/24", "198.51.100.1/32", "2001:db8::7/64"].map(String::from).to_vec(),
        routes: vec![
            route("0.0.0.0/0", "192.0.2.1", 100),
            route("203.0.113.0/24", "198.51.100.254", 0),
            route("::/0", "fe80::1", 1024),
            route("2001:db8:1::/48", "2001:db8::1", 20),
        ],
        mtu: Some(1400),
        ..LinkSettings::default()
    };
    let interface = find_interface("v0").unwrap();
    let (wanted, status) = (Arc::new(Wanted::new(Network::default())), Arc::new(Status::default()));
    let parts = Part::list(&interface, &[&settings]);
    let mut port = Port::new(interface, parts[0].clone(), "vm", &wanted, 0, &status, &Arc::new(Resolver::default()));
    let running = std::thread::spawn(move || port.run());
    wait_for("configured", || status.picture().nics.values().any(|nic| nic.note == "configured"));
    let (addresses, routes, routes6) = (ip("address show v0"), ip("-4 route"), ip("-6 route"));
    println!("{addresses}{routes}{routes6}");
    for wanted in ["192.0.2.7/24", "192.0.2.8/24", "198.51.100.1/32", "2001:db8::7/64", "mtu 1400"] {
        assert!(addresses.contains(wanted), "{wanted}");
    }
    for wanted in ["default via 192.0.2.1 dev v0 metric 100", "203.0.113.0/24 via 198.51.100.254 dev v0 onlink"] {
        assert!(routes.lines().any(|line| line.replace("proto boot ", "").trim_end().starts_with(wanted)), "{wanted}");
    }
    for wanted in ["default via fe80::1 dev v0 metric 1024", "2001:db8:1::/48 via 2001:db8::1 dev v0 metric 20"] {
        assert!(routes6.lines().any(|line| line.replace("proto boot ", "").starts_with(wanted)), "{wanted}");
    }
    wanted.set(Network::default());
    running.join().unwrap();
    let (addresses, routes, routes6) = (ip("address show v0"), ip("-4 route"), ip("-6 route"));
    println!("{addresses}{routes}{routes6}");
    assert!(!addresses.contains("192.0.2") && !addresses.contains("2001:db8") && addresses.contains("mtu 1500"));
    assert!(routes.trim().is_empty() && !routes6.contains("via"), "nothing is left");
    println!("all of it");
}

#[test]
fn all_addresses_and_routes_of_a_link_come_up_and_go_again() {
    let setup = "mount -t sysfs sysfs /sys && ip link set lo up && ip link add v0 type veth peer name v1 && \
        ip link set v1 up && exec \"$0\" --exact network::port::tests::in_a_namespace --nocapture";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", setup]);
    command.arg(std::env::current_exe().unwrap()).env(INSIDE, "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success() && said.contains("all of it"));
}
