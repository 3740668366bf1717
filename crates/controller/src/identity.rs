//! Whether two agents stand on one machine: by SMBIOS UUID, serial number and MAC addresses together.
//!
//! Each of the three lies at times: boards are sold with the UUID of their neighbour, serial numbers read "To Be Filled
//! By O.E.M.", and MACs move with a card. So two must agree and none may contradict.

use machine::Machine;

/// What a machine is recognised by. Values that makers leave unset are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineIdentity {
    /// SMBIOS system UUID, lower case.
    pub uuid: Option<String>,
    /// SMBIOS system serial number.
    pub serial: Option<String>,
    /// MAC addresses as text, sorted.
    pub macs: Vec<String>,
}

impl MachineIdentity {
    /// The identity in an agent's report.
    pub fn of(machine: &Machine) -> Self {
        let clean = |text: &Option<String>| {
            text.as_deref().map(str::trim).filter(|text| !is_placeholder(text)).map(str::to_owned)
        };
        let mut macs: Vec<String> = machine.nics.iter().map(|nic| nic.mac.to_string()).collect();
        macs.sort();
        macs.dedup();
        Self {
            uuid: clean(&machine.smbios.uuid).map(|uuid| uuid.to_ascii_lowercase()),
            serial: clean(&machine.smbios.serial),
            macs,
        }
    }

    /// One of which only a UUID is known, if it is any.
    pub fn of_uuid(uuid: Option<&str>) -> Self {
        let uuid = uuid.map(str::trim).filter(|uuid| !is_placeholder(uuid)).map(str::to_ascii_lowercase);
        Self { uuid, ..Self::default() }
    }

    /// At least two of UUID, serial and MACs agree (of the MACs one in common is enough), and neither UUID nor serial
    /// differs. Exchanged network cards do not make another machine.
    pub fn is_same_machine(&self, other: &Self) -> bool {
        let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
        let macs = self.macs.iter().any(|mac| other.macs.contains(mac));
        let agreeing = [same(&self.uuid, &other.uuid), same(&self.serial, &other.serial), macs];
        !self.contradicts(other) && agreeing.into_iter().filter(|agrees| *agrees).count() >= 2
    }

    /// Both have a UUID or a serial number and the two differ.
    pub fn contradicts(&self, other: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        differ(&self.uuid, &other.uuid) || differ(&self.serial, &other.serial)
    }
}

/// Values that firmware shows where nothing was set (DSP0134, 7.2.1 for the UUID; the texts are makers' habits).
fn is_placeholder(text: &str) -> bool {
    let bare: String = text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let repeated = bare.bytes().all(|byte| bare.as_bytes().first() == Some(&byte));
    let known = [
        "tobefilledbyoem",
        "defaultstring",
        "systemserialnumber",
        "none",
        "notspecified",
        "notapplicable",
        "notavailable",
        "unknown",
        "serialnumber",
        "oem",
        "na",
        "0123456789",
        "123456789",
        "1234567890",
        "03000200040005000006000700080009",
    ];
    repeated || known.contains(&bare.as_str())
}

#[cfg(test)]
mod tests {
    use machine::{MacAddress, Nic, Smbios};

    use super::*;

    fn identity(uuid: &str, serial: &str, macs: &[u8]) -> MachineIdentity {
        let nic = |last: &u8| Nic {
            name: "eth0".into(),
            mac: MacAddress([0x52, 0x54, 0, 0, 0, *last]),
            addresses: vec![],
            driver: None,
            link_up: true,
        };
        MachineIdentity::of(&Machine {
            smbios: Smbios { uuid: Some(uuid.into()), serial: Some(serial.into()), ..Smbios::default() },
            nics: macs.iter().map(nic).collect(),
            ..Machine::default()
        })
    }

    const UUID: &str = "4C4C4544-0042-3510-8052-B4C04F4E3132";

    #[test]
    fn two_of_three_agree_and_none_contradicts() {
        let this = identity(UUID, "B5BRN12", &[1, 2]);
        assert!(this.is_same_machine(&identity(&UUID.to_lowercase(), "B5BRN12", &[9])), "cards were exchanged");
        assert!(this.is_same_machine(&identity(UUID, "", &[2])), "the serial number cannot be read");
        assert!(!this.is_same_machine(&identity(UUID, "B5BRN13", &[1, 2])), "serial numbers differ");
        assert!(!this.is_same_machine(&identity("", "", &[1, 2])), "a MAC alone is not enough");
        assert!(!this.is_same_machine(&identity(UUID, "", &[])), "a UUID alone is not enough");
    }

    #[test]
    fn placeholders_of_makers_identify_nothing() {
        for (uuid, serial) in [
            ("00000000-0000-0000-0000-000000000000", "To Be Filled By O.E.M."),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", "Default string"),
            ("03000200-0400-0500-0006-000700080009", "System Serial Number"),
        ] {
            let this = identity(uuid, serial, &[]);
            assert_eq!(this, MachineIdentity::default());
            assert!(!this.is_same_machine(&this.clone()));
        }
    }
}
