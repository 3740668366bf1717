//! A customer's LAN: a bridge, machines on taps, an ordinary DHCP and name server, and the controller's host on a
//! cable.
//!
//! ```text
//!  namespace "lan":  br0 10.77.0.1 ── tap0, tap1, … (machines)       namespace "controller":
//!                      └── dnsmasq    └── ctl0 ═══════════════════════ eth0 10.77.0.2
//! ```
//! Neither namespace has a way out. Names never clash, because each LAN has its own.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use qemu::{Hardware, NicBackend};
use tempfile::TempDir;

use crate::namespace::{Daemon, Namespace};
use crate::tool::Tool;
use crate::trunk::{Sockets, TrunkPort};
use crate::{Error, Result};

/// Address of the controller's host.
pub const CONTROLLER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Its name, where the DHCP server is asked as a name server (it tells that it is one).
pub const CONTROLLER_NAME: &str = "controller.lab.test";
/// Address of the DHCP server, which is the default gateway that it tells (and that leads nowhere).
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// A network for machines and a controller. Dropping it tears it down.
#[derive(Debug)]
pub struct Lan {
    // In the order in which they end.
    dhcp: Option<Daemon>,
    controller: Namespace,
    lan: Namespace,
    taps: u32,
    boot_file: Option<String>,
    folder: TempDir,
}

impl Lan {
    /// A LAN with a running DHCP server.
    pub fn new() -> Result<Self> {
        let folder = TempDir::new().map_err(|e| Error::io("making a temporary folder", e))?;
        let (lan, controller) = (Namespace::new()?, Namespace::new()?);
        lan.ip("link add br0 type bridge forward_delay 0 stp_state 0")?;
        lan.ip(&format!("address add {GATEWAY}/24 dev br0"))?;
        lan.ip("link set br0 up")?;
        let other = controller.path();
        lan.ip(&format!("link add ctl0 type veth peer name eth0 netns {}", other.display()))?;
        lan.ip("link set ctl0 master br0 up")?;
        controller.ip(&format!("address add {CONTROLLER}/24 dev eth0"))?;
        controller.ip("link set eth0 up")?;
        let mut lan = Self { dhcp: None, controller, lan, taps: 0, boot_file: None, folder };
        lan.start_dhcp()?;
        Ok(lan)
    }

    /// Where the controller's programs belong: `lan.controller().enter(&mut command)`.
    pub fn controller(&self) -> &Namespace {
        &self.controller
    }

    /// Where the machines and the DHCP server are.
    pub fn machines(&self) -> &Namespace {
        &self.lan
    }

    /// Plugs a NIC of `hardware` (by its place in [`Hardware::nics`]) into the LAN.
    pub fn plug(&mut self, hardware: &mut Hardware, nic: usize) -> Result<Cable> {
        let name = format!("tap{}", self.taps);
        self.taps += 1;
        self.lan.ip(&format!("tuntap add dev {name} mode tap"))?;
        self.lan.ip(&format!("link set {name} master br0 up"))?;
        let wanted = hardware.nics.get_mut(nic).ok_or_else(|| Error::new(format!("hardware: no NIC {nic}")))?;
        wanted.backend = NicBackend::Tap(name.clone());
        hardware.network_namespace = Some(self.lan.path());
        Ok(Cable(name))
    }

    /// Plugs a NIC into a switch's port on which the LAN is the VLAN `vlan`: frames without its tag go nowhere. The port
    /// works until it is dropped.
    pub fn plug_trunk(&mut self, hardware: &mut Hardware, nic: usize, vlan: u16) -> Result<TrunkPort> {
        let Cable(tap) = self.plug(hardware, nic)?;
        let socket = |side: &str| self.folder.path().join(format!("{tap}.{side}"));
        let sockets = Sockets { machine: socket("machine"), port: socket("port") };
        let wanted = hardware.nics.get_mut(nic).ok_or_else(|| Error::new(format!("hardware: no NIC {nic}")))?;
        wanted.backend = NicBackend::Datagrams { own: sockets.machine.clone(), peer: sockets.port.clone() };
        self.lan.inside(|| TrunkPort::start(&sockets, &tap, vlan))?
    }

    /// Cuts a cable: frames are lost, and the machine's own link stays up (as behind a switch that failed).
    pub fn cut(&self, cable: &Cable) -> Result<()> {
        self.lan.ip(&format!("link set {} nomaster", cable.0))
    }

    /// Joins a cut cable.
    pub fn join(&self, cable: &Cable) -> Result<()> {
        self.lan.ip(&format!("link set {} master br0", cable.0))
    }

    /// Slows the controller's cable down to `megabit_per_s` in the direction to the controller.
    pub fn slow_down(&self, megabit_per_s: u32) -> Result<()> {
        let arguments = format!("qdisc replace dev ctl0 root tbf rate {megabit_per_s}mbit burst 256k latency 100ms");
        let tool = Tool::new("tc", "iproute2").args(arguments.split_ascii_whitespace());
        tool.prepared(|command| {
            self.lan.enter(command);
        })
        .run()
        .map(drop)
    }

    /// Bytes that were sent to the controller, with all headers.
    pub fn sent_to_controller(&self) -> Result<u64> {
        let tool = Tool::new("ip", "iproute2").args(["-json", "-stats", "link", "show", "ctl0"]);
        let shown = tool.prepared(|command| {
            self.lan.enter(command);
        });
        let shown: serde_json::Value =
            serde_json::from_str(&shown.run()?).map_err(|e| Error::new(format!("ip -json: {e}")))?;
        let sent = shown[0]["stats64"]["tx"]["bytes"].as_u64();
        sent.ok_or_else(|| Error::new(format!("ip -json: no bytes sent in {shown}")))
    }

    /// The controller's cable.
    pub fn controller_cable(&self) -> Cable {
        Cable("ctl0".into())
    }

    /// Stops the DHCP server: from now on nobody gets an address.
    pub fn stop_dhcp(&mut self) {
        self.dhcp = None;
    }

    /// Has the DHCP server itself name a boot file, on the controller's host, to whoever asks by PXE.
    pub fn name_boot_file(&mut self, file: &str) -> Result<()> {
        self.stop_dhcp();
        self.boot_file = Some(file.to_owned());
        self.start_dhcp()
    }

    /// Starts the DHCP server, if it was stopped. It gives 10.77.0.100 to 10.77.0.199.
    pub fn start_dhcp(&mut self) -> Result<()> {
        if self.dhcp.is_some() {
            return Ok(());
        }
        let mut command = Command::new("dnsmasq");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"])
            // As a name server it knows the controller and nobody else.
            .args(["--no-resolv", "--no-hosts", &format!("--host-record={CONTROLLER_NAME},{CONTROLLER}")])
            .args(["--interface=br0", "--bind-interfaces", "--no-ping", "--dhcp-authoritative", "--log-dhcp"])
            .args(["--dhcp-range=10.77.0.100,10.77.0.199,255.255.255.0,1h"])
            .args(self.boot_file.iter().map(|file| format!("--dhcp-boot={file},,{CONTROLLER}")))
            .arg(format!("--dhcp-leasefile={}", self.leases_path().display()))
            .arg(format!("--log-facility={}", self.folder.path().join("dnsmasq.log").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.lan.enter(&mut command);
        self.dhcp = Some(Daemon::start(command)?);
        Ok(())
    }

    /// The address that the DHCP server gave to a hardware address, if any.
    pub fn address_of(&self, mac: &str) -> Option<Ipv4Addr> {
        let leases = std::fs::read_to_string(self.leases_path()).ok()?;
        // dnsmasq: expiry, hardware address, address, name, client id
        leases.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            if fields.get(1)?.eq_ignore_ascii_case(mac) { fields.get(2)?.parse().ok() } else { None }
        })
    }

    /// What the DHCP server logged.
    pub fn dhcp_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("dnsmasq.log")).unwrap_or_default()
    }

    fn leases_path(&self) -> PathBuf {
        self.folder.path().join("leases")
    }
}

/// A cable of a [`Lan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cable(String);
