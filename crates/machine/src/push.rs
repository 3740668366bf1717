//! Words of an automated Remote Cold Cloning: how a live machine could be started from the boot image once (*ways*), what is put on it
//! for that (the *push*), what is written down before (the *record*), and what became of it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ByteCount, IpNet, MacAddress};

/// A way to start the boot image once, from a running system. Each leads back to the machine's own system by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// UEFI: our own signed chain on the ESP, and `BootNext` (UEFI specification 2.10, section 3.1.2).
    BootNext,
    /// The running kernel starts ours in its place; nothing is written to a disk.
    Kexec,
    /// GRUB 2: an entry in `custom.cfg`, and `next_entry` in the environment block.
    Grub,
    /// systemd-boot: an entry, and the variable `LoaderEntryOneShot` (Boot Loader Interface).
    SystemdBoot,
}

impl Way {
    /// Every way, the safest first.
    pub const ALL: [Self; 4] = [Self::BootNext, Self::Kexec, Self::Grub, Self::SystemdBoot];

    /// As it is typed and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BootNext => "boot-next",
            Self::Kexec => "kexec",
            Self::Grub => "grub",
            Self::SystemdBoot => "systemd-boot",
        }
    }

    /// Whether the machine goes through its firmware on the way to the boot image.
    pub fn resets(self) -> bool {
        self != Self::Kexec
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Way {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|way| way.as_str() == text);
        known.ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("way: expected one of {known}, found {:?}", text.chars().take(40).collect::<String>())
        })
    }
}

/// What an agent found out about starting the boot image on its machine. Nothing was changed for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Survey {
    /// `HOST:PORT` at which the agent reaches its controller.
    #[serde(default)]
    pub controller: String,
    /// Every way, the safest first.
    pub ways: Vec<WayFinding>,
    /// Whether the agent is installed as a service: only then it is back after the restart.
    pub installed: bool,
    /// What would reset the machine if it hung; `None` where there is nothing.
    pub watchdog: Option<Watchdog>,
    /// Modaliases of all devices.
    pub modaliases: Vec<String>,
    /// Drivers of the disk controllers and NICs that the boot image cannot do without, as the running kernel calls them.
    #[serde(default)]
    pub drivers: Vec<String>,
    /// Its network as it works now.
    pub network: NetworkIdentity,
}

/// One way on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WayFinding {
    /// Which.
    pub way: Way,
    /// Why it cannot be taken, a sentence each; none where it can.
    pub refused: Vec<String>,
    /// What an operator should know of it.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Bytes free where its files go; `None` where they go to memory.
    pub room: Option<ByteCount>,
}

/// Something that resets a machine which hangs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Watchdog {
    /// As its driver calls it: `IPMI`, `i6300ESB timer`.
    pub name: String,
    /// Longest time that it can be set to, in seconds.
    pub seconds_max: u32,
    /// Whether it goes on counting while the machine is reset, as one in a BMC does. Any other helps with kexec alone, and in the boot
    /// image.
    pub survives_reset: bool,
}

/// How a machine's network works, by hardware addresses: names change with the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NetworkIdentity {
    /// Its name, without domain.
    pub hostname: String,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Interfaces that have addresses.
    pub links: Vec<NetworkLink>,
}

/// An interface with its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NetworkLink {
    /// Permanent address of its NIC; of all members where it is a bond.
    pub macs: Vec<MacAddress>,
    /// Policy of the bond, as the kernel names it (`active-backup`, `802.3ad`); `None` where it is none.
    pub bond: Option<String>,
    /// Identifier of its 802.1Q VLAN.
    pub vlan: Option<u16>,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// Its addresses, those of links' own (fe80::) left out.
    pub addresses: Vec<IpNet>,
    /// Its routes through gateways, default ones too.
    pub routes: Vec<Route>,
}

/// A route through a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Route {
    /// Where to: `0.0.0.0/0` and `::/0` are default routes.
    pub destination: IpNet,
    /// Through whom.
    pub gateway: IpAddr,
    /// Smaller ones are preferred.
    #[serde(default)]
    pub metric: u32,
}

/// What is put on a machine, and how it is started from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PushOrder {
    /// Which task it is for.
    pub task: String,
    /// Which way.
    pub way: Way,
    /// The kernel's command line.
    pub command_line: String,
    /// Seconds after which the watchdog resets a machine that hangs between its restart and the boot image's agent; `None`
    /// where no watchdog is to be used.
    pub watchdog_seconds: Option<u32>,
}

/// What stands in the place of the boot path of a machine: whether it is as it was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BootPathReport {
    /// Which task it was for.
    pub task: String,
    /// Which way was taken.
    pub way: Option<Way>,
    /// What was undone just now, a line each; none where all was as before.
    pub undone: Vec<String>,
    /// What differs from the record still, a line each; none where the boot path is as it was.
    pub differences: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_read_as_they_are_written() {
        for way in Way::ALL {
            assert_eq!(way.to_string().parse(), Ok(way));
        }
        assert!("lilo".parse::<Way>().unwrap_err().contains("boot-next"));
    }
}
