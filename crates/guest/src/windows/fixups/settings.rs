//! Settings of Windows that are right on one machine and wrong on another.

use super::ground::Ground;
use super::registry::Registry;
use crate::Result;
use crate::plan::Fixup;
use crate::windows::hive::Data;

/// `SanPolicy` of partmgr: all disks online (Microsoft, "VDS_SAN_POLICY enumeration").
const SAN_POLICY_ONLINE_ALL: u32 = 1;

pub(super) fn plan(ground: &Ground<'_>, registry: &mut Registry<'_>) -> Result<Vec<Fixup>> {
    let mut fixups = Vec::new();
    set_where_there(registry, "Control\\CrashControl", "AutoReboot", 0)?;
    fixups.push(Fixup::new(
        "stop-codes",
        "no restart after a stop code",
        "a stop code that is seen can be understood; a VM that restarts for ever cannot",
        registry.take(),
    ));
    if ground.release.major >= 6 {
        set_where_there(registry, "Services\\partmgr\\Parameters", "SanPolicy", SAN_POLICY_ONLINE_ALL)?;
        fixups.push(Fixup::new(
            "san-policy",
            "all disks are brought online",
            "Windows Server leaves disks of a new bus offline, and with them the data",
            registry.take(),
        ));
    }
    if ground.release.version() >= (6, 2) {
        set_where_there(registry, "Control\\Session Manager\\Power", "HiberbootEnabled", 0)?;
        fixups.push(Fixup::new(
            "fast-startup",
            "no Fast Startup",
            "a half-hibernated Windows brings the state of its old hardware back at its next start",
            registry.take(),
        ));
    }
    Ok(fixups)
}

/// Sets a number in every control set that has the key above; others have no such part of Windows.
fn set_where_there(registry: &mut Registry<'_>, path: &str, name: &str, number: u32) -> Result<()> {
    let above = path.rsplit_once('\\').map_or("", |(above, _)| above);
    for set in registry.control_sets.clone() {
        if registry.system.has(&format!("{set}\\{above}"))? {
            registry.system.set(&format!("{set}\\{path}"), name, &Data::of_dword(number))?;
        }
    }
    Ok(())
}
