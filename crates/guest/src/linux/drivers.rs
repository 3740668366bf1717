//! Boot drivers: the initramfs of the kernel that will boot finds virtio disks, now and after the next kernel update.

use std::collections::BTreeSet;

use machine::{DiskBus, NicModel};

use crate::linux::kernel::BootKernel;
use crate::linux::modules::{Modules, Presence};
use crate::linux::{initramfs, reason, shell};
use crate::plan::{Change, Fixup};
use crate::{Error, ErrorKind, FileTree, Result};

/// Drivers without which the root filesystem on a virtio disk is not found.
const REQUIRED: [&str; 2] = ["virtio_pci", "virtio_blk"];

/// Drivers that the next initramfs should have as well.
const USEFUL: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net"];

/// What the guest has drivers for.
pub(super) struct Buses {
    pub(super) disk: DiskBus,
    pub(super) nic: NicModel,
}

/// Plans the fix-up `boot-drivers`; says on which hardware the guest runs with it.
pub(super) fn plan(
    tree: &dyn FileTree,
    kernel: Option<&BootKernel>,
    warnings: &mut Vec<String>,
) -> (Option<Fixup>, Buses) {
    let Some(kernel) = kernel else {
        return (None, Buses { disk: DiskBus::Sata, nic: NicModel::E1000e });
    };
    let modules = match Modules::load(tree, &kernel.version) {
        Ok(modules) => modules,
        Err(error) => {
            warnings.push(format!("drivers of kernel {} are not known: {}", kernel.version, reason(&error)));
            return (None, Buses { disk: DiskBus::Sata, nic: NicModel::E1000e });
        }
    };
    let has = |name: &str| modules.presence(name) != Presence::Absent;
    let nic = if has("virtio_net") {
        NicModel::Virtio
    } else if has("e1000e") {
        NicModel::E1000e
    } else {
        NicModel::E1000
    };
    match boot_drivers(tree, kernel, &modules) {
        Ok(fixup) => (Some(fixup), Buses { disk: DiskBus::Virtio, nic }),
        Err(error) => {
            warnings.push(format!("no virtio disks for kernel {}: {}", kernel.version, reason(&error)));
            (None, Buses { disk: old_bus(tree, kernel, &modules, warnings), nic })
        }
    }
}

/// The bus on which a kernel finds its disks as it is.
pub(super) fn bus_without_virtio(
    tree: &dyn FileTree,
    kernel: Option<&BootKernel>,
    warnings: &mut Vec<String>,
) -> DiskBus {
    let known = kernel.and_then(|kernel| Some((kernel, Modules::load(tree, &kernel.version).ok()?)));
    known.map_or(DiskBus::Sata, |(kernel, modules)| old_bus(tree, kernel, &modules, warnings))
}

/// The bus, of those that such a kernel knows since its first day, for which its initramfs has the drivers already.
fn old_bus(tree: &dyn FileTree, kernel: &BootKernel, modules: &Modules, warnings: &mut Vec<String>) -> DiskBus {
    let present = |driver: &str| modules.presence(driver) != Presence::Absent;
    let buses = [("ahci", DiskBus::Sata), ("ata_piix", DiskBus::Ide)].into_iter().filter(|(driver, _)| present(driver));
    let ready = |driver: &str| {
        let needed = modules.closure(&[driver, "sd_mod"]);
        let contents = |path: &str| initramfs::read(tree, path, 0, &kernel.version, &needed).ok();
        needed.is_empty()
            || kernel.initramfs.as_deref().and_then(contents).is_some_and(|contents| {
                contents.ended_early || needed.iter().all(|name| contents.modules.contains_key(name))
            })
    };
    let buses: Vec<_> = buses.collect();
    if let Some((_, bus)) = buses.iter().find(|(driver, _)| ready(driver)) {
        return *bus;
    }
    warnings.push(format!(
        "kernel {} may not find its disks: its initramfs has drivers neither for SATA nor for IDE",
        kernel.version
    ));
    buses.first().map_or(DiskBus::Ide, |(_, bus)| *bus)
}

fn boot_drivers(tree: &dyn FileTree, kernel: &BootKernel, modules: &Modules) -> Result<Fixup> {
    for name in REQUIRED {
        if modules.presence(name) == Presence::Absent {
            return Err(Error::new(ErrorKind::Missing, format!("the kernel has no driver {name}")));
        }
    }
    let needed = modules.closure(&REQUIRED);
    let mut changes = Vec::new();
    let mut lacking = false;
    if !needed.is_empty() {
        let path = kernel
            .initramfs
            .as_deref()
            .ok_or_else(|| Error::new(ErrorKind::Missing, "there is no initramfs, and the drivers are not built in"))?;
        let contents = initramfs::read(tree, path, 0, &kernel.version, &needed)?;
        let missing: BTreeSet<String> =
            needed.iter().filter(|name| !contents.modules.contains_key(*name)).cloned().collect();
        if !contents.ended_early && !missing.is_empty() {
            lacking = true;
            let size = tree.metadata(path)?.map_or(0, |metadata| metadata.size);
            let extension = initramfs::extension(tree, modules, &contents, size, &missing)?;
            changes.push(Change::append(path, size, extension.bytes, extension.brings));
        }
    }
    changes.extend(generator(tree, modules, lacking)?);
    let reason = format!(
        "kernel {} ({}) needs virtio_pci and virtio_blk to find its root filesystem on a virtual disk",
        kernel.version, kernel.chosen_by
    );
    Ok(Fixup::new("boot-drivers", "virtio drivers in the initramfs", reason, changes))
}

/// Configuration of the generator, so that the next kernel's initramfs has the drivers too.
fn generator(tree: &dyn FileTree, modules: &Modules, lacking: bool) -> Result<Option<Change>> {
    let names: Vec<&str> = USEFUL.into_iter().filter(|name| modules.presence(name) == Presence::Module).collect();
    if names.is_empty() {
        return Ok(None);
    }
    if tree.exists("/usr/sbin/mkinitramfs")? {
        // MODULES=most takes every storage driver by itself.
        if !lacking && initramfs_tools_policy(tree)? == "most" {
            return Ok(None);
        }
        let path = "/etc/initramfs-tools/modules";
        let mut text = tree.text(path)?.unwrap_or_default();
        let listed: BTreeSet<String> = text
            .lines()
            .filter_map(|line| line.split('#').next()?.split_whitespace().next().map(|name| name.replace('-', "_")))
            .collect();
        let new: Vec<&&str> = names.iter().filter(|name| !listed.contains(**name)).collect();
        if new.is_empty() {
            return Ok(None);
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        new.iter().for_each(|name| text.push_str(&format!("{name}\n")));
        return Change::write(tree, path, text.as_bytes(), 0o644);
    }
    if tree.exists("/usr/bin/dracut")? || tree.exists("/usr/sbin/dracut")? {
        let text = format!("# Virtual hardware, wherever the image is made.\nadd_drivers+=\" {} \"\n", names.join(" "));
        return Change::write(tree, "/etc/dracut.conf.d/50-virtio.conf", text.as_bytes(), 0o644);
    }
    Ok(None)
}

/// `MODULES` of initramfs.conf(5), files of `conf.d` later than the main one.
fn initramfs_tools_policy(tree: &dyn FileTree) -> Result<String> {
    let mut policy = "most".to_owned();
    let mut files = vec!["/etc/initramfs-tools/initramfs.conf".to_owned()];
    let more = tree.list("/etc/initramfs-tools/conf.d")?;
    files.extend(more.into_iter().map(|entry| format!("/etc/initramfs-tools/conf.d/{}", entry.name)));
    for path in files {
        if let Some(value) = tree.text(&path)?.and_then(|text| shell::value(&text, "MODULES")) {
            policy = value;
        }
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::linux::module_index::Index;
    use crate::plan::apply;
    use crate::{MemoryTree, State};

    const FOLDER: &str = "/usr/lib/modules/6.1";

    fn kernel() -> BootKernel {
        let initramfs = Some("/boot/initrd.img-6.1".to_owned());
        BootKernel { version: "6.1".into(), image: "/boot/vmlinuz-6.1".into(), initramfs, chosen_by: "test" }
    }

    fn packed(text: &str) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn guest(initramfs: &[u8]) -> MemoryTree {
        let dep = "kernel/virtio_blk.ko.xz: kernel/virtio.ko.xz\nkernel/virtio_pci.ko.xz: kernel/virtio.ko.xz\n\
                   kernel/virtio.ko.xz:\nkernel/ahci.ko.xz:\n";
        MemoryTree::new()
            .with_link("/lib", "usr/lib")
            .with(&format!("{FOLDER}/modules.dep"), dep)
            .with(&format!("{FOLDER}/modules.alias"), "alias virtio:d00000002v* virtio_blk\nalias pci:v8086* ahci\n")
            .with(&format!("{FOLDER}/kernel/virtio_blk.ko.xz"), packed("block"))
            .with(&format!("{FOLDER}/kernel/virtio_pci.ko.xz"), packed("pci"))
            .with(&format!("{FOLDER}/kernel/virtio.ko.xz"), packed("base"))
            .with("/usr/bin/dracut", "")
            .with("/boot/initrd.img-6.1", initramfs)
    }

    fn made(tree: &MemoryTree) -> crate::Plan {
        let mut warnings = Vec::new();
        let (fixup, buses) = plan(tree, Some(&kernel()), &mut warnings);
        assert!(warnings.is_empty() && buses.disk == DiskBus::Virtio, "{warnings:?}");
        let empty = crate::Plan::without_fixups(machine::FirmwareKind::Bios, machine::Family::Linux);
        crate::Plan { fixups: fixup.into_iter().collect(), ..empty }
    }

    #[test]
    fn missing_drivers_come_with_dependencies_and_an_index_that_keeps_what_was_there() {
        let mut old = Index::default();
        old.insert("ahci", "kernel/ahci.ko:");
        let image = initramfs::archive(&[
            ("usr/lib/modules/6.1/kernel/ahci.ko", b"x"),
            ("usr/lib/modules/6.1/modules.dep.bin", &old.to_bytes()),
        ]);
        let mut tree = guest(&image);
        let plan = made(&tree);
        assert_eq!(apply(&plan, &[], &mut tree)[0].state, State::Done);
        let after = initramfs::read(&tree, "/boot/initrd.img-6.1", 0, "6.1", &BTreeSet::new()).unwrap();
        assert_eq!(after.modules["virtio_blk"], "usr/lib/modules/6.1/kernel/virtio_blk.ko");
        let index = Index::parse(&after.indexes["modules.dep.bin"]).unwrap();
        assert_eq!(index.values("virtio_pci"), ["kernel/virtio_pci.ko: kernel/virtio.ko"]);
        assert_eq!(index.values("ahci"), ["kernel/ahci.ko:"]);
        let aliases = Index::parse(&after.indexes["modules.alias.bin"]).unwrap();
        assert_eq!(aliases.values("virtio:d00000002v*"), ["virtio_blk"]);
        assert!(tree.text("/etc/dracut.conf.d/50-virtio.conf").unwrap().unwrap().contains("virtio_blk"));
        assert!(made(&tree).already_so());
    }

    #[test]
    fn a_kernel_without_virtio_gets_a_bus_that_its_initramfs_has_drivers_for_and_a_warning() {
        let dep = "kernel/ahci.ko:\nkernel/ata_piix.ko:\n";
        let without = MemoryTree::new().with("/lib/modules/6.1/modules.dep", dep);
        for (has, bus, warned) in
            [("ahci", DiskBus::Sata, 1), ("ata_piix", DiskBus::Ide, 1), ("other", DiskBus::Sata, 2)]
        {
            let module = format!("lib/modules/6.1/kernel/{has}.ko");
            let tree = without.clone().with("/boot/initrd.img-6.1", initramfs::archive(&[(&module, b"x")]));
            let mut warnings = Vec::new();
            let (fixup, buses) = plan(&tree, Some(&kernel()), &mut warnings);
            assert!(fixup.is_none() && buses.disk == bus && warnings.len() == warned, "{has}: {warnings:?}");
            assert!(warnings[0].contains("virtio_pci"), "{warnings:?}");
        }
    }

    /// A guest whose /boot is full cannot take the drivers: its initramfs stays as it is, and so does its bus.
    #[test]
    fn a_guest_without_room_for_the_drivers_keeps_the_bus_that_it_has() {
        let image = initramfs::archive(&[("usr/lib/modules/6.1/kernel/ahci.ko", b"x")]);
        let ample = guest(&image).with("/boot/vmlinuz-6.1", "").with("/etc/os-release", "ID=debian\n");
        let mut tree = ample.clone().with_room(64);
        let machine = machine::Machine::default();
        let plan = crate::plan(&tree, &machine, &[], &[]).unwrap();
        assert_eq!(plan.capabilities.disk_bus, DiskBus::Sata, "{plan}");
        assert!(plan.warnings.iter().any(|warning| warning.contains("boot-drivers is left out")), "{plan}");
        assert!(plan.warnings.iter().any(|warning| warning.contains("no room for all fix-ups (/: ")), "{plan}");
        let outcome = apply(&plan, &[], &mut tree).swap_remove(0);
        assert_eq!((outcome.id.as_str(), outcome.state), ("boot-drivers", State::Refused));
        // A plan that did not know of it says the same when it is applied.
        let unknowing = crate::plan(&ample, &machine, &[], &[]).unwrap();
        assert_eq!(unknowing.capabilities.disk_bus, DiskBus::Virtio, "{unknowing}");
        let failed = apply(&unknowing, &[], &mut tree).pop().unwrap();
        assert_eq!((failed.id.as_str(), failed.state), ("boot-drivers", State::NoRoom));
        assert_eq!(tree.read("/boot/initrd.img-6.1", 1 << 20).unwrap().unwrap(), image);
    }

    #[test]
    fn drivers_built_into_the_kernel_need_no_initramfs() {
        let tree = MemoryTree::new()
            .with("/lib/modules/6.1/modules.dep", "")
            .with("/lib/modules/6.1/modules.builtin", "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\n");
        assert!(made(&tree).already_so());
    }
}
