//! The hardware abstraction layer of Windows 2000, XP and Server 2003: set-up chose it, with its kernel, by the machine's
//! interrupt controller and number of processors, and Windows keeps it. Vista and later choose at every start.
//!
//! Source: `hal.inf` of XP, whose sections are named by these hardware ids; Microsoft, KB 309283, "HAL options after Windows XP or
//! Windows Server 2003 Setup", with the program of each.

use std::fmt;

use machine::Note;
use serde::{Deserialize, Serialize};

use super::fields::Reader;
use crate::Result;

/// Where the device "computer" stands.
const PLACES: [&str; 2] = ["Enum\\Root\\ACPI_HAL\\0000", "Enum\\Root\\PCI_HAL\\0000"];

/// What one needs of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Needs {
    /// ACPI, else a BIOS without it.
    acpi: bool,
    /// An interrupt controller of several processors (APIC).
    apic: bool,
    /// Whether more than one processor is used.
    several_processors: bool,
}

/// Hardware id, program on the installation medium, needs.
const KNOWN: [(&str, &str, Needs); 6] = [
    ("acpiapic_mp", "halmacpi.dll", Needs { acpi: true, apic: true, several_processors: true }),
    ("acpiapic_up", "halaacpi.dll", Needs { acpi: true, apic: true, several_processors: false }),
    ("acpipic_up", "halacpi.dll", Needs { acpi: true, apic: false, several_processors: false }),
    ("mps_mp", "halmps.dll", Needs { acpi: false, apic: true, several_processors: true }),
    ("mps_up", "halapic.dll", Needs { acpi: false, apic: true, several_processors: false }),
    ("e_isa_up", "hal.dll", Needs { acpi: false, apic: false, several_processors: false }),
];

/// Which one there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hal {
    /// Hardware id of the computer: `acpiapic_mp`.
    pub id: String,
    /// As Windows calls it: `ACPI Multiprocessor PC`.
    pub name: Option<String>,
}

impl Hal {
    /// `None` since Vista, and where nothing tells.
    pub(super) fn read(reader: &Reader<'_>) -> Result<Option<Self>> {
        if reader.windows.release.major > 5 {
            return Ok(None);
        }
        for place in PLACES {
            let key = reader.current(place)?;
            let Some(id) = key.texts("HardwareID")?.into_iter().next() else { continue };
            return Ok(Some(Self { id: id.to_ascii_lowercase(), name: key.label("DeviceDesc")? }));
        }
        Ok(None)
    }

    fn known(&self) -> Option<(&'static str, Needs)> {
        KNOWN.iter().find(|(id, ..)| *id == self.id).map(|(_, program, needs)| (*program, *needs))
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let name = self.name.as_deref().unwrap_or(&self.id);
        let Some((program, needs)) = self.known() else {
            let what = format!("a HAL of a machine of its own: {name}");
            return vec![Note::warning(what, "it may need that machine: a VM starts with a HAL of Windows' own alone")];
        };
        let what = format!("the HAL is {program} ({name})");
        if !needs.acpi {
            let apic = if needs.apic { " and must offer a multiprocessor (MPS) table" } else { "" };
            return vec![Note::warning(
                what,
                format!(
                    "without ACPI: the VM does not switch itself off at shutdown, not every hypervisor starts it{apic}"
                ),
            )];
        }
        if !needs.several_processors {
            let more = if needs.apic { "" } else { ", and its interrupts are shared" };
            return vec![Note::info(what, format!("one processor of the VM is used, however many it has{more}"))];
        }
        vec![Note::info(what, "the VM needs ACPI and an APIC; one processor is enough")]
    }
}

impl fmt::Display for Hal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.known().map_or("not one of Windows' own", |(program, _)| program);
        writeln!(f, "{}: {} ({program})", self.id, self.name.as_deref().unwrap_or("not told"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::Severity;

    #[test]
    fn each_hal_says_what_its_machine_must_have() {
        let told = |id: &str| {
            let note = Hal { id: id.into(), name: None }.notes().remove(0);
            println!("{note}");
            note
        };
        assert_eq!(told("acpiapic_mp").severity, Severity::Info);
        assert!(told("acpiapic_up").meaning.starts_with("one processor of the VM is used"));
        assert!(told("acpipic_up").what.contains("halacpi.dll") && told("acpipic_up").meaning.contains("shared"));
        assert!(told("mps_mp").meaning.contains("MPS"));
        assert!(told("e_isa_up").meaning.contains("does not switch itself off"));
        assert_eq!(told("syspro_mp").severity, Severity::Warning);
    }
}
