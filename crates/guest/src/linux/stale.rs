//! What the old hardware left behind: caches of device names, rules bound to it, daemons that watch it.

use machine::Machine;

use crate::plan::{Change, Fixup};
use crate::{FileTree, Result};

/// Files that name the source's devices and are made again, or not needed, on other hardware.
const FILES: [(&str, &str); 12] = [
    ("/boot/grub/device.map", "GRUB's map of firmware disks"),
    ("/boot/grub2/device.map", "GRUB's map of firmware disks"),
    ("/etc/lvm/devices/system.devices", "LVM's list of devices by their ids"),
    ("/etc/lvm/cache/.cache", "LVM's cache of device names"),
    ("/run/blkid/blkid.tab", "cache of filesystems by device"),
    ("/etc/blkid.tab", "cache of filesystems by device"),
    ("/etc/blkid/blkid.tab", "cache of filesystems by device"),
    ("/dev/.blkid.tab", "cache of filesystems by device"),
    ("/etc/multipath/bindings", "multipath names of the source's disks"),
    ("/etc/multipath/wwids", "multipath's list of the source's disks"),
    ("/etc/udev/rules.d/70-persistent-cd.rules", "names of the source's CD drives"),
    ("/var/lib/hp/hpsmh", "state of the hardware's web console"),
];

/// Services that have nothing to watch, or fail, on virtual hardware.
const SERVICES: [(&str, &str); 22] = [
    ("mcelog", "machine checks are the host's"),
    ("smartd", "virtual disks have no SMART data"),
    ("smartmontools", "virtual disks have no SMART data"),
    ("hddtemp", "virtual disks have no temperature"),
    ("openipmi", "there is no BMC"),
    ("ipmi", "there is no BMC"),
    ("ipmievd", "there is no BMC"),
    ("ipmidetectd", "there is no BMC"),
    ("bmc-watchdog", "there is no BMC"),
    ("fancontrol", "there are no fans"),
    ("thinkfan", "there are no fans"),
    ("thermald", "there are no thermal sensors"),
    ("megaraid_sas_monitor", "the RAID controller is gone"),
    ("mdmpd", "the multipath hardware is gone"),
    ("hpasmlited", "the HP management hardware is gone"),
    ("hp-health", "the HP management hardware is gone"),
    ("hp-asrd", "the HP management hardware is gone"),
    ("amsd", "the HP management hardware is gone"),
    ("dataeng", "the Dell management hardware is gone"),
    ("dsm_sa_datamgrd", "the Dell management hardware is gone"),
    ("instsvcdrv", "the Dell management hardware is gone"),
    ("vivaldiframeworkd", "the RAID controller is gone"),
];

/// Tools of other hypervisors: told, not removed, because removing packages means running the guest's programs.
const TOOLS: [(&str, &str); 7] = [
    ("/usr/bin/vmtoolsd", "open-vm-tools (VMware)"),
    ("/usr/sbin/vmtoolsd", "VMware Tools"),
    ("/etc/vmware-tools", "VMware Tools"),
    ("/usr/sbin/VBoxService", "VirtualBox guest additions"),
    ("/usr/sbin/xe-daemon", "XenServer guest utilities"),
    ("/usr/sbin/hv_kvp_daemon", "Hyper-V daemons"),
    ("/usr/bin/prltoolsd", "Parallels Tools"),
];

/// Where units and init scripts lie.
const UNITS: [&str; 4] =
    ["/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system", "/run/systemd/system"];

/// Plans `stale-hardware-state` and `hardware-daemons`.
pub(super) fn plan(tree: &dyn FileTree, _: &Machine, warnings: &mut Vec<String>) -> Result<Vec<Fixup>> {
    let mut removed = Vec::new();
    let mut why = Vec::new();
    for (path, what) in FILES {
        if tree.metadata(path)?.is_some_and(|metadata| metadata.kind == crate::tree::FileKind::File) {
            removed.push(Change::Remove { path: path.to_owned() });
            why.push(what);
        }
    }
    why.dedup();
    let reason = match why.as_slice() {
        [] => "lists of the source's devices mislead the guest on other hardware".to_owned(),
        why => format!("they name the source's devices: {}", why.join(", ")),
    };
    let state = Fixup::new("stale-hardware-state", "lists of the source's devices removed", reason, removed);

    let mut masked = Vec::new();
    let mut why = Vec::new();
    for (name, reason) in SERVICES {
        let mut present = tree.exists(&format!("/etc/init.d/{name}"))?;
        for folder in UNITS {
            present = present || tree.exists(&format!("{folder}/{name}.service"))?;
        }
        let path = format!("/etc/systemd/system/{name}.service");
        if present && tree.read_link(&path)?.as_deref() != Some("/dev/null") {
            masked.push(Change::Link { path, target: "/dev/null".to_owned() });
            why.push(format!("{name}: {reason}"));
        }
    }
    let reason = if why.is_empty() { "daemons of hardware that is gone only fail".to_owned() } else { why.join("; ") };
    let daemons = Fixup::new("hardware-daemons", "daemons of the old hardware switched off", reason, masked);

    let mut told = Vec::new();
    for (path, what) in TOOLS {
        if tree.exists(path)? && !told.contains(&what) {
            told.push(what);
            warnings.push(format!("{what} is installed: it has nothing to do on this hypervisor and can be removed"));
        }
    }
    Ok(vec![state, daemons])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryTree;

    #[test]
    fn only_what_is_there_is_removed_or_masked() {
        let tree = MemoryTree::new()
            .with("/boot/grub/device.map", "(hd0) /dev/disk/by-id/ata-X")
            .with("/lib/systemd/system/smartd.service", "")
            .with("/usr/bin/vmtoolsd", "");
        let mut warnings = Vec::new();
        let fixups = plan(&tree, &Machine::default(), &mut warnings).unwrap();
        assert_eq!(fixups[0].changes, [Change::Remove { path: "/boot/grub/device.map".into() }]);
        assert_eq!(fixups[1].changes[0].path(), "/etc/systemd/system/smartd.service");
        assert!(warnings[0].contains("VMware"));
        assert!(plan(&MemoryTree::new(), &Machine::default(), &mut vec![]).unwrap().iter().all(|f| f.already_so));
    }
}
