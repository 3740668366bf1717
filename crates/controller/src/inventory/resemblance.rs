//! Whether a machine that was added and one that reported are the same.
//!
//! What an operator typed may be old, an address may have gone to another machine, and two sites may use the same private
//! addresses. So, as between two reports (`identity`), two signs must agree and none may contradict before the controller
//! joins anything by itself; one that agrees is only shown.

use machine::Machine;

use super::MachineAddress;
use crate::identity::MachineIdentity;

/// What agrees between the two and what does not. `None`: one of them does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resemblance {
    /// The SMBIOS UUID.
    uuid: Option<bool>,
    /// The IP address is one of the machine's network cards. That it is not says little: DHCP.
    address: bool,
    /// The host name.
    name: Option<bool>,
}

impl Resemblance {
    /// Compares what an operator said with what an agent reported.
    pub fn of(address: &MachineAddress, name: Option<&str>, uuid: Option<&str>, report: &Machine) -> Self {
        let identity = MachineIdentity::of(report);
        let said = MachineIdentity::of_uuid(uuid);
        let ip = address.ip().filter(|ip| !ip.is_loopback());
        let hostname = report.guest.hostname.as_deref();
        let name = match (address.host_name(), hostname) {
            (_, None) => None,
            (Some(said), Some(hostname)) => Some(is_same_name(said, hostname)),
            // What a machine is called may be anything: only that it is the host name says something.
            (None, Some(hostname)) => name.filter(|name| is_same_name(name, hostname)).map(|_| true),
        };
        Self {
            uuid: said.uuid.as_ref().zip(identity.uuid.as_ref()).map(|(said, reported)| said == reported),
            address: ip
                .is_some_and(|ip| report.nics.iter().flat_map(|nic| &nic.addresses).any(|own| own.address == ip)),
            name,
        }
    }

    /// They are one machine.
    pub fn is_certain(self) -> bool {
        self.agreeing() >= 2 && self.uuid != Some(false) && self.name != Some(false)
    }

    /// They may be one: an operator is asked.
    pub fn is_possible(self) -> bool {
        self.agreeing() >= 1 && self.uuid != Some(false)
    }

    /// They are two machines: not even an operator can join them.
    pub fn is_impossible(self) -> bool {
        self.uuid == Some(false)
    }

    /// What agrees, in words.
    pub fn signs(self) -> Vec<&'static str> {
        let signs =
            [(self.uuid == Some(true), "UUID"), (self.address, "address"), (self.name == Some(true), "host name")];
        signs.into_iter().filter_map(|(agrees, sign)| agrees.then_some(sign)).collect()
    }

    fn agreeing(self) -> usize {
        self.signs().len()
    }
}

/// Equal but for case; where only one has a domain, its first part counts.
fn is_same_name(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_end_matches('.'), other.trim_end_matches('.'));
    let host = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_local = host(one) == "localhost";
    let one_has_none = one.contains('.') != other.contains('.');
    !is_local && (one.eq_ignore_ascii_case(other) || (one_has_none && host(one) == host(other)))
}

#[cfg(test)]
mod tests {
    use machine::{IpNet, MacAddress, Nic, Smbios};

    use super::*;

    const UUID: &str = "4c4c4544-0042-3510-8052-b4c04f4e3132";

    fn report(uuid: &str, address: &str, hostname: &str) -> Machine {
        let nic = Nic {
            name: "eth0".into(),
            mac: MacAddress([0x52, 0x54, 0, 0, 0, 1]),
            addresses: vec![IpNet { address: address.parse().unwrap(), prefix_length: 24 }],
            driver: None,
            link_up: true,
        };
        let mut report = Machine {
            smbios: Smbios { uuid: Some(uuid.into()), ..Smbios::default() },
            nics: vec![nic],
            ..Machine::default()
        };
        report.guest.hostname = (!hostname.is_empty()).then(|| hostname.into());
        report
    }

    fn seen(address: &str, name: &str, uuid: &str, report: &Machine) -> (bool, bool, bool) {
        let some = |text: &'static str| (!text.is_empty()).then_some(text);
        let (name, uuid): (&'static str, &'static str) = (name.to_owned().leak(), uuid.to_owned().leak());
        let found = Resemblance::of(&address.parse().unwrap(), some(name), some(uuid), report);
        println!("{address} {name:?} {uuid:?}: {:?}", found.signs());
        (found.is_certain(), found.is_possible(), found.is_impossible())
    }

    #[test]
    fn two_signs_are_certain_one_is_shown_and_another_uuid_never_is_the_same() {
        let web = report(&UUID.to_uppercase(), "192.0.2.10", "web1.example.org");
        let (certain, shown, nothing) = ((true, true, false), (false, true, false), (false, false, false));
        assert_eq!(seen("192.0.2.10", "WEB1", "", &web), certain);
        assert_eq!(seen("192.0.2.10", "the shop", UUID, &web), certain, "what it is called may be anything");
        assert_eq!(seen("web1", "", UUID, &web), certain);
        assert_eq!(seen("192.0.2.10", "", "", &web), shown, "an address may have gone to another machine");
        assert_eq!(seen("192.0.2.99", "web1", "", &web), shown);
        assert_eq!(seen("192.0.2.10", "db1", "", &web), shown);
        assert_eq!(seen("web1.example.org", "", "", &web), shown);
        assert_eq!(seen("db1", "", UUID, &web), shown, "the host name contradicts");
        assert_eq!(seen("192.0.2.11", "db1", "", &web), nothing);
        assert_eq!(seen("web1.example.com", "", "", &web), nothing, "another domain");
        let other = "4c4c4544-0042-3510-8052-b4c04f4e3133";
        assert_eq!(seen("192.0.2.10", "web1", other, &web), (false, false, true));
    }

    #[test]
    fn what_every_machine_has_is_no_sign() {
        let nothing = (false, false, false);
        let local = report("00000000-0000-0000-0000-000000000000", "127.0.0.1", "localhost.localdomain");
        assert_eq!(seen("127.0.0.1", "localhost", "", &local), nothing);
        assert_eq!(seen("localhost.localdomain", "", "00000000-0000-0000-0000-000000000000", &local), nothing);
    }
}
