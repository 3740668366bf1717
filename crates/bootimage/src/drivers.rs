//! Which kernel modules are wanted, by the start of their path below `kernel/`.
//!
//! Folders, not names: a driver that a newer kernel adds is in by itself. What they need is found by
//! [`modules`](crate::modules), so only what hardware or an operator asks for by itself stands here.

/// Modules of the boot image: whatever may hold a disk or carry it away, and what an operator types on.
/// Wireless, InfiniBand, modems, sound and graphics are not for a converter.
pub(crate) const BOOT_IMAGE: &[&str] = &[
    // What dm-crypt, dm-integrity, btrfs and iSCSI compute with; asked for by alias while they run.
    "arch/x86/crypto/",
    "crypto/",
    "lib/crc",
    "lib/libcrc32c",
    // Without t10-pi no SCSI disk appears.
    "block/t10-pi",
    // Storage.
    "drivers/acpi/nfit/",
    "drivers/ata/",
    "drivers/block/loop",
    "drivers/block/mtip32xx/",
    "drivers/block/skd",
    "drivers/block/sx8",
    "drivers/block/virtio_blk",
    "drivers/block/xen-blkfront",
    "drivers/cdrom/",
    "drivers/firmware/edd",
    "drivers/firmware/iscsi_ibft",
    "drivers/md/",
    "drivers/memstick/",
    "drivers/message/fusion/",
    "drivers/misc/cardreader/",
    "drivers/misc/cb710/",
    "drivers/misc/tifm_7xx1",
    "drivers/mmc/",
    "drivers/nvdimm/",
    "drivers/nvme/host/",
    "drivers/pci/controller/",
    "drivers/scsi/",
    "drivers/ufs/",
    "drivers/usb/storage/",
    // Buses.
    "drivers/hv/",
    "drivers/usb/common/",
    "drivers/usb/core/",
    "drivers/usb/host/",
    "drivers/usb/roles/",
    "drivers/virtio/virtio_",
    // Network.
    "drivers/net/bonding/",
    "drivers/net/ethernet/",
    "drivers/net/fjes/",
    "drivers/net/hyperv/",
    "drivers/net/mdio/",
    "drivers/net/phy/",
    "drivers/net/usb/",
    "drivers/net/virtio_net",
    "drivers/net/vmxnet3/",
    "drivers/net/xen-netfront",
    // The NIC function of QLogic's 8100 series stands there since Linux 5.5.
    "drivers/staging/qlge/",
    "net/8021q/",
    // Keyboards; those of BMCs are USB ones.
    "drivers/hid/hid-apple",
    "drivers/hid/hid-cherry",
    "drivers/hid/hid-generic",
    "drivers/hid/hid-hyperv",
    "drivers/hid/hid-lenovo",
    "drivers/hid/hid-logitech",
    "drivers/hid/hid-microsoft",
    "drivers/hid/usbhid/",
    "drivers/input/evdev",
    "drivers/input/serio/",
    "drivers/watchdog/",
    // Filesystems that lie on one machine's disks.
    "fs/adfs/",
    "fs/affs/",
    "fs/bcachefs/",
    "fs/befs/",
    "fs/bfs/",
    "fs/btrfs/",
    "fs/efivarfs/",
    "fs/efs/",
    "fs/erofs/",
    "fs/exfat/",
    "fs/ext4/",
    "fs/f2fs/",
    "fs/fat/",
    "fs/freevxfs/",
    "fs/hfs/",
    "fs/hfsplus/",
    "fs/hpfs/",
    "fs/isofs/",
    "fs/jfs/",
    "fs/minix/",
    "fs/nilfs2/",
    "fs/nls/",
    "fs/ntfs/",
    "fs/ntfs3/",
    "fs/omfs/",
    "fs/overlayfs/",
    "fs/qnx4/",
    "fs/qnx6/",
    "fs/reiserfs/",
    "fs/romfs/",
    "fs/squashfs/",
    "fs/sysv/",
    "fs/udf/",
    "fs/ufs/",
    "fs/xfs/",
    "fs/zonefs/",
];

/// What matches above and still stays out.
pub(crate) const BOOT_IMAGE_WITHOUT: &[&str] = &[
    // Self-tests and user interfaces of the kernel's cryptography.
    "crypto/af_alg",
    "crypto/algif_",
    "crypto/ansi_cprng",
    "crypto/crypto_user",
    "crypto/tcrypt",
    // A cache that is registered writes to its disks.
    "drivers/md/bcache/",
    "drivers/md/dm-delay",
    "drivers/md/dm-flakey",
    "drivers/md/dm-log-writes",
    "drivers/md/faulty",
    "drivers/md/md-cluster",
    "drivers/message/fusion/mptctl",
    "drivers/message/fusion/mptlan",
    // Takes memory away from a machine that needs it for the copy.
    "drivers/hv/hv_balloon",
    "drivers/virtio/virtio_balloon",
    "drivers/virtio/virtio_mem",
    // PCMCIA cards: no machine that is worth converting has its disk or its network there.
    "drivers/mmc/host/sdricoh_cs",
    "drivers/net/ethernet/3com/3c574_cs",
    "drivers/net/ethernet/3com/3c589_cs",
    "drivers/net/ethernet/8390/axnet_cs",
    "drivers/net/ethernet/8390/pcnet_cs",
    "drivers/net/ethernet/amd/nmclan_cs",
    "drivers/net/ethernet/fujitsu/",
    "drivers/net/ethernet/smsc/smc91c92_cs",
    "drivers/net/ethernet/xircom/",
    "drivers/scsi/pcmcia/",
    "drivers/usb/host/sl811_cs",
    // The chips of network switches, with the largest firmware files of all.
    "drivers/net/ethernet/marvell/prestera/",
    "drivers/net/ethernet/mellanox/mlxsw/",
    // Mobile modems, which somebody would have to dial with.
    "drivers/net/usb/cdc-phonet",
    "drivers/net/usb/cdc_mbim",
    "drivers/net/usb/hso",
    "drivers/net/usb/huawei_cdc_ncm",
    "drivers/net/usb/kalmia",
    "drivers/net/usb/lg-vl600",
    "drivers/net/usb/qmi_wwan",
    "drivers/net/usb/sierra_net",
    // Brings InfiniBand's whole stack.
    "drivers/nvme/host/nvme-rdma",
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
    "fs/fuse/fuse",
    "fs/nls/nls_ascii",
    "fs/nls/nls_cp437",
    "fs/nls/nls_iso8859-1",
    "fs/nls/nls_utf8",
    "fs/xfs/",
    "lib/libcrc32c",
];

/// Modules that a boot image for one known machine has besides the drivers of its devices: what makes disks of SCSI and
/// NVMe devices, firmware RAID and volumes, keyboards, VLANs and bonds.
pub(crate) const ONE_MACHINE: &[&str] = &[
    "arch/x86/crypto/crc32",
    "arch/x86/crypto/crct10dif",
    "block/t10-pi",
    "crypto/crc32c_generic",
    "drivers/hid/hid-generic",
    "drivers/hid/usbhid/",
    "drivers/input/evdev",
    "drivers/md/dm-mod",
    "drivers/md/md-mod",
    "drivers/md/raid",
    "drivers/net/bonding/",
    "drivers/scsi/sd_mod",
    "drivers/usb/storage/usb-storage",
    "drivers/usb/storage/uas",
    "fs/efivarfs/",
    "fs/fat/vfat",
    "fs/nls/nls_ascii",
    "fs/nls/nls_cp437",
    "fs/nls/nls_iso8859-1",
    "fs/nls/nls_utf8",
    "net/8021q/",
];

/// What a pushed boot image has besides those of one machine: it writes to the filesystems that its machine starts from, to
/// undo what it was started by, and it has what resets a machine that hangs.
pub(crate) const PUSHED: &[&str] = &[
    "drivers/char/ipmi/ipmi_devintf",
    "drivers/char/ipmi/ipmi_si",
    // What finds the timer of Intel's chipsets, on whose devices iTCO_wdt waits.
    "drivers/i2c/busses/i2c-i801",
    "drivers/mfd/lpc_ich",
    "drivers/watchdog/hpwdt",
    "drivers/watchdog/i6300esb",
    "drivers/watchdog/iTCO_",
    "drivers/watchdog/sp5100_tco",
    "drivers/watchdog/wdat_wdt",
    "fs/ext4/",
    "fs/xfs/",
    "lib/libcrc32c",
];

/// Drivers that kernels had in the place of those of ours: by the name there, by the name here.
pub(crate) const RENAMED: &[(&str, &str)] = &[
    // The IDE drivers before libata; they went with Linux 5.14.
    ("ide_generic", "ata_generic"),
    ("ide_pci_generic", "ata_generic"),
    ("piix", "ata_piix"),
    ("amd74xx", "pata_amd"),
    ("atiixp", "pata_atiixp"),
    ("via82cxxx", "pata_via"),
    ("serverworks", "pata_serverworks"),
    ("siimage", "pata_sil680"),
    // Smart Arrays are hpsa's since Linux 4.14.
    ("cciss", "hpsa"),
    ("mpt2sas", "mpt3sas"),
    // Makers' own, of devices that the kernel's drives too.
    ("r8125", "r8169"),
    ("r8168", "r8169"),
    ("r8101", "r8169"),
];
