//! Which kernel modules go into an initramfs: chosen by folder or name, closed over what they need.
//!
//! Needs are the hard dependencies of `modules.dep` and the soft ones of `modules.softdep`, whose names may be aliases
//! (`crypto-crc32c`). See modules.dep(5) and modprobe.d(5).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use crate::{Error, ErrorKind, Result};

/// Modules of the boot image, by the start of their path below `kernel/`: whatever may hold or carry a disk.
/// Wireless, Infiniband, RDMA storage, sound and graphics are not for a converter.
pub(crate) const BOOT_IMAGE: &[&str] = &[
    "arch/x86/crypto/crc32",
    "arch/x86/crypto/crct10dif",
    "arch/x86/crypto/sha256-",
    "block/t10-pi",
    "crypto/blake2b_generic",
    "crypto/crc",
    "crypto/xxhash_generic",
    "drivers/ata/",
    "drivers/block/loop",
    "drivers/block/mtip32xx/",
    "drivers/block/virtio_blk",
    "drivers/block/xen-blkfront",
    "drivers/cdrom/",
    "drivers/hid/hid-apple",
    "drivers/hid/hid-cherry",
    "drivers/hid/hid-generic",
    "drivers/hid/hid-hyperv",
    "drivers/hid/hid-lenovo",
    "drivers/hid/hid-logitech",
    "drivers/hid/hid-microsoft",
    "drivers/hid/usbhid/",
    "drivers/hv/hv_vmbus",
    "drivers/input/serio/",
    "drivers/input/evdev",
    "drivers/md/",
    "drivers/message/fusion/",
    "drivers/mmc/",
    "drivers/net/ethernet/",
    "drivers/net/hyperv/",
    "drivers/net/mdio/",
    "drivers/net/phy/",
    "drivers/net/usb/",
    "drivers/net/virtio_net",
    "drivers/net/vmxnet3/",
    "drivers/net/xen-netfront",
    "drivers/nvme/host/nvme.ko",
    "drivers/pci/controller/vmd",
    "drivers/scsi/",
    "drivers/usb/common/",
    "drivers/usb/core/",
    "drivers/usb/host/",
    "drivers/usb/storage/",
    "drivers/virtio/virtio_",
    "drivers/watchdog/",
    "fs/btrfs/",
    "fs/efivarfs/",
    "fs/exfat/",
    "fs/ext4/",
    "fs/fat/",
    "fs/isofs/",
    "fs/nls/",
    "fs/ntfs3/",
    "fs/udf/",
    "fs/xfs/",
    "lib/crc",
    "lib/libcrc32c",
];

/// What matches above and still stays out: network storage that RDMA brings in, SCSI test drivers, iSCSI and FCoE
/// initiators (their disks are not the machine's own).
pub(crate) const BOOT_IMAGE_WITHOUT: &[&str] = &[
    "drivers/md/bcache/",
    "drivers/net/ethernet/mellanox/mlx5/core/mlx5_vdpa",
    "drivers/scsi/bnx2fc/",
    "drivers/scsi/bnx2i/",
    "drivers/scsi/cxgbi/",
    "drivers/scsi/fcoe/",
    "drivers/scsi/iscsi_tcp",
    "drivers/scsi/pcmcia/",
    "drivers/scsi/qedf/",
    "drivers/scsi/qedi/",
    "drivers/scsi/scsi_debug",
    "drivers/usb/host/u132",
    "drivers/watchdog/softdog",
];

/// Modules of the appliance: virtio disks and the filesystems of guests.
pub(crate) const APPLIANCE: &[&str] = &[
    "arch/x86/crypto/crc32",
    "arch/x86/crypto/crct10dif",
    "crypto/blake2b_generic",
    "crypto/crc32c_generic",
    "crypto/xxhash_generic",
    "drivers/block/virtio_blk",
    "drivers/md/dm-mod",
    "drivers/virtio/virtio_pci",
    "fs/btrfs/",
    "fs/ext4/",
    "fs/fat/",
    "fs/nls/nls_ascii",
    "fs/nls/nls_cp437",
    "fs/nls/nls_iso8859-1",
    "fs/nls/nls_utf8",
    "fs/xfs/",
    "lib/libcrc32c",
];

/// Index of all modules of one kernel.
pub(crate) struct ModuleIndex {
    /// Path below the modules folder → paths of what must be loaded before.
    dependencies: BTreeMap<String, Vec<String>>,
    /// Module name (with `_`) → path.
    by_name: HashMap<String, String>,
    /// Alias pattern and module name, in the order of `modules.alias`.
    aliases: Vec<(String, String)>,
    /// Module name → names or aliases of modules it wants.
    soft: HashMap<String, Vec<String>>,
}

/// A choice of modules and the index files that describe just them.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Paths below the modules folder, sorted.
    pub(crate) paths: BTreeSet<String>,
    /// `modules.dep` of the selection.
    pub(crate) dep: String,
    /// `modules.alias` of the selection.
    pub(crate) alias: String,
    /// `modules.softdep` of the selection.
    pub(crate) softdep: String,
}

/// Reads the index files that depmod wrote into `folder`.
pub(crate) fn load_index(folder: &Path) -> Result<ModuleIndex> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|e| Error::path("read", &path, e))
    };
    Ok(parse_index(&read("modules.dep")?, &read("modules.alias")?, &read("modules.softdep")?))
}

fn parse_index(dep: &str, alias: &str, softdep: &str) -> ModuleIndex {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let dependencies: BTreeMap<String, Vec<String>> =
        dep.lines().filter_map(|line| line.split_once(':')).map(|(path, needs)| (path.into(), words(needs))).collect();
    let by_name = dependencies.keys().map(|path| (module_name(path), path.clone())).collect();
    let aliases = alias
        .lines()
        .filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' '))
        .map(|(pattern, name)| (pattern.to_owned(), name.to_owned()))
        .collect();
    let mut soft: HashMap<String, Vec<String>> = HashMap::new();
    for line in softdep.lines() {
        let mut parts = line.split_whitespace();
        if let (Some("softdep"), Some(name)) = (parts.next(), parts.next()) {
            let wanted = parts.filter(|word| !word.ends_with(':')).map(str::to_owned);
            soft.entry(name.to_owned()).or_default().extend(wanted);
        }
    }
    ModuleIndex { dependencies, by_name, aliases, soft }
}

/// `kernel/drivers/scsi/sd_mod.ko` → `sd_mod`; modprobe takes `-` and `_` for the same.
pub(crate) fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split_once(".ko").map_or(file, |(name, _)| name).replace('-', "_")
}

impl ModuleIndex {
    /// The modules whose path below `kernel/` begins with one of `wanted` and none of `without`, and all they need.
    pub(crate) fn select(&self, wanted: &[&str], without: &[&str]) -> Result<Selection> {
        let begins = |path: &str, list: &[&str]| {
            let below = path.strip_prefix("kernel/").unwrap_or(path);
            list.iter().any(|start| below.starts_with(start))
        };
        let mut open: Vec<&str> = self.dependencies.keys().map(String::as_str).collect();
        open.retain(|path| begins(path, wanted) && !begins(path, without));
        if open.is_empty() {
            return Err(Error::new(ErrorKind::NoKernel, "the kernel package has none of the modules that are needed"));
        }
        let mut paths = BTreeSet::new();
        while let Some(path) = open.pop() {
            if !paths.insert(path.to_owned()) {
                continue;
            }
            open.extend(self.dependencies.get(path).into_iter().flatten().map(String::as_str));
            for name in self.soft.get(&module_name(path)).into_iter().flatten() {
                open.extend(self.resolve(name));
            }
        }
        Ok(self.describe(paths))
    }

    /// The paths that a module name or a plain alias stands for; none for what is built in.
    fn resolve(&self, name: &str) -> Vec<&str> {
        let canonical = name.replace('-', "_");
        if let Some(path) = self.by_name.get(&canonical) {
            return vec![path];
        }
        let named = self.aliases.iter().filter(|(pattern, _)| pattern.replace('-', "_") == canonical);
        named.filter_map(|(_, module)| self.by_name.get(&module.replace('-', "_")).map(String::as_str)).collect()
    }

    fn describe(&self, paths: BTreeSet<String>) -> Selection {
        let names: BTreeSet<String> = paths.iter().map(|path| module_name(path)).collect();
        let (mut dep, mut alias, mut softdep) = (String::new(), String::new(), String::new());
        for path in &paths {
            let needs = self.dependencies.get(path).map(|needs| needs.join(" ")).unwrap_or_default();
            dep.push_str(format!("{path}: {needs}").trim_end());
            dep.push('\n');
        }
        for (pattern, name) in self.aliases.iter().filter(|(_, name)| names.contains(&name.replace('-', "_"))) {
            alias.push_str(&format!("alias {pattern} {name}\n"));
        }
        for name in &names {
            if let Some(wanted) = self.soft.get(name) {
                softdep.push_str(&format!("softdep {name} pre: {}\n", wanted.join(" ")));
            }
        }
        Selection { paths, dep, alias, softdep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n\
        kernel/fs/jbd2/jbd2.ko:\nkernel/lib/crc16.ko:\nkernel/crypto/crc32c_generic.ko:\n\
        kernel/arch/x86/crypto/crc32c-intel.ko:\nkernel/drivers/scsi/sd_mod.ko: kernel/block/t10-pi.ko\n\
        kernel/block/t10-pi.ko: kernel/lib/crc-t10dif.ko\nkernel/lib/crc-t10dif.ko:\n\
        kernel/crypto/crct10dif_generic.ko:\nkernel/sound/x.ko:\n";
    const ALIAS: &str = "# comment\nalias crypto-crc32c crc32c_generic\nalias crypto-crc32c crc32c_intel\n\
        alias crct10dif crct10dif_generic\nalias scsi:t-0x00* sd_mod\nalias snd x\n";
    const SOFT: &str = "softdep ext4 pre: crypto-crc32c\nsoftdep jbd2 pre: crypto-crc32c\n\
        softdep crc_t10dif pre: crct10dif\nsoftdep x pre: ext4 post: sd_mod\n";

    fn selected(wanted: &[&str]) -> Selection {
        parse_index(DEP, ALIAS, SOFT).select(wanted, &[]).unwrap()
    }

    fn names(selection: &Selection) -> Vec<String> {
        selection.paths.iter().map(|path| module_name(path)).collect()
    }

    #[test]
    fn soft_dependencies_by_alias_bring_every_provider() {
        assert_eq!(names(&selected(&["fs/ext4/"])), ["crc32c_intel", "crc32c_generic", "ext4", "jbd2", "crc16"]);
    }

    #[test]
    fn needs_of_needs_are_brought() {
        let brought = names(&selected(&["drivers/scsi/"]));
        assert_eq!(brought, ["t10_pi", "crct10dif_generic", "sd_mod", "crc_t10dif"]);
    }

    #[test]
    fn the_index_describes_the_selection_only() {
        let selection = selected(&["drivers/scsi/"]);
        assert_eq!(selection.alias, "alias crct10dif crct10dif_generic\nalias scsi:t-0x00* sd_mod\n");
        assert_eq!(selection.softdep, "softdep crc_t10dif pre: crct10dif\n");
        assert!(selection.dep.contains("kernel/drivers/scsi/sd_mod.ko: kernel/block/t10-pi.ko\n"));
        assert!(!selection.dep.contains("ext4"));
    }

    #[test]
    fn words_of_pre_and_post_are_both_wanted() {
        let brought = names(&selected(&["sound/"]));
        assert!(brought.contains(&"ext4".into()) && brought.contains(&"sd_mod".into()), "{brought:?}");
    }

    #[test]
    fn nothing_selected_is_an_error() {
        assert!(parse_index(DEP, ALIAS, SOFT).select(&["net/"], &[]).is_err());
        assert!(parse_index(DEP, ALIAS, SOFT).select(&["fs/"], &["fs/"]).is_err());
    }
}
