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
            // The disk is then offered on a bus that such a kernel knows since its first day.
            let disk = if has("ahci") { DiskBus::Sata } else { DiskBus::Ide };
            warnings.push(format!("no virtio disks for kernel {}: {}", kernel.version, reason(&error)));
            (None, Buses { disk, nic })
        }
    }
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
