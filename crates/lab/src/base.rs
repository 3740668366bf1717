//! Debian as the lab's machines have it: one tarball for each generator of initramfs, made by mmdebstrap.

use std::path::PathBuf;

use crate::tool::Tool;
use crate::{Result, cache};

/// Changes whenever the recipe below does in a way that its inputs do not show.
const RECIPE: u32 = 1;
const SUITE: &str = "bookworm";

/// The password of every machine's root.
pub const ROOT_PASSWORD: &str = "vconverter";

/// What makes the initramfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Debian's initramfs-tools with `MODULES=most`, and LVM.
    InitramfsTools,
    /// dracut; the initramfs is made later, for the machine.
    Dracut,
}

/// In every machine. The ordinary kernel: the cloud kernel has neither e1000 nor AHCI.
const PACKAGES: &str = "linux-image-amd64,zstd,systemd-sysv,dbus,udev,kmod,openssh-server,iproute2,ifupdown,\
                        isc-dhcp-client,grub-pc-bin,grub2-common,e2fsprogs,procps";

/// Left out of the machines to keep copies short: documentation, and drivers of hardware that no lab machine has.
const EXCLUDED: [&str; 40] = [
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/lib/modules/*/kernel/sound/*",
    "/lib/modules/*/kernel/drivers/gpu/*",
    "/lib/modules/*/kernel/drivers/media/*",
    "/lib/modules/*/kernel/drivers/infiniband/*",
    "/lib/modules/*/kernel/drivers/staging/*",
    "/lib/modules/*/kernel/drivers/iio/*",
    "/lib/modules/*/kernel/drivers/comedi/*",
    "/lib/modules/*/kernel/drivers/hwmon/*",
    "/lib/modules/*/kernel/drivers/platform/*",
    "/lib/modules/*/kernel/drivers/mtd/*",
    "/lib/modules/*/kernel/drivers/target/*",
    "/lib/modules/*/kernel/drivers/bluetooth/*",
    "/lib/modules/*/kernel/drivers/mfd/*",
    "/lib/modules/*/kernel/drivers/isdn/*",
    "/lib/modules/*/kernel/drivers/net/wireless/*",
    "/lib/modules/*/kernel/drivers/net/usb/*",
    "/lib/modules/*/kernel/drivers/net/ethernet/mellanox/*",
    "/lib/modules/*/kernel/drivers/net/ethernet/qlogic/*",
    "/lib/modules/*/kernel/drivers/net/ethernet/chelsio/*",
    "/lib/modules/*/kernel/drivers/net/ethernet/cavium/*",
    "/lib/modules/*/kernel/drivers/net/ethernet/netronome/*",
    "/lib/modules/*/kernel/net/bluetooth/*",
    "/lib/modules/*/kernel/net/mac80211/*",
    "/lib/modules/*/kernel/net/wireless/*",
    "/lib/modules/*/kernel/net/sunrpc/*",
    "/lib/modules/*/kernel/fs/xfs/*",
    "/lib/modules/*/kernel/fs/btrfs/*",
    "/lib/modules/*/kernel/fs/nfs*",
    "/lib/modules/*/kernel/fs/ocfs2/*",
    "/lib/modules/*/kernel/fs/smb/*",
    "/lib/modules/*/kernel/fs/gfs2/*",
    "/lib/modules/*/kernel/fs/ceph/*",
    "/lib/modules/*/kernel/fs/f2fs/*",
    "/lib/modules/*/kernel/fs/jfs/*",
    "/lib/modules/*/kernel/fs/reiserfs/*",
];

/// The tarball of a base; made once in about two minutes.
pub(crate) fn tarball(base: Base) -> Result<PathBuf> {
    let (name, more) = match base {
        Base::InitramfsTools => (
            "base-initramfs-tools",
            "initramfs-tools,lvm2,dosfstools,efibootmgr,grub-efi-amd64-bin,grub-efi-amd64-signed,shim-signed",
        ),
        Base::Dracut => ("base-dracut", "dracut,cpio"),
    };
    // Empty means Debian's own servers, with security updates.
    let mirror = std::env::var("VCONVERTER_DEBIAN_MIRROR").unwrap_or_default();
    let inputs = format!("{RECIPE} {SUITE} {mirror} {PACKAGES} {more} {EXCLUDED:?} {ROOT_PASSWORD}");
    let folder = cache::entry(name, &inputs, |folder| {
        let mut tool = Tool::new("mmdebstrap", "mmdebstrap")
            .args(["--variant=minbase", "--format=tar", "--quiet"])
            .arg("--aptopt=Acquire::Languages \"none\"")
            .arg("--aptopt=Apt::Install-Recommends \"false\"")
            .args(EXCLUDED.map(|path| format!("--dpkgopt=path-exclude={path}")))
            .arg(format!("--include={PACKAGES},{more}"))
            .arg(format!("--customize-hook=echo root:{ROOT_PASSWORD} | chpasswd --root \"$1\""))
            .arg("--customize-hook=rm -f \"$1\"/etc/ssh/ssh_host_*; : > \"$1\"/etc/machine-id")
            .args([SUITE.as_ref(), folder.join("base.tar").as_os_str()]);
        if !mirror.is_empty() {
            tool = tool.arg(&mirror);
        }
        tool.run().map(drop)
    })?;
    Ok(folder.join("base.tar"))
}
