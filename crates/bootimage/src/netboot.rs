//! What starts the boot image over the network: the folder `netboot/`, as the PXE service expects it. UEFI HTTP boot takes
//! the ISO.
//!
//! | file | for whom |
//! | --- | --- |
//! | `undionly.kpxe` | BIOS PXE: iPXE on the driver of the card's own ROM |
//! | `boot.efi` | UEFI PXE with Secure Boot off: kernel, initramfs and configuration in one EFI program (UKI) |
//! | `vmlinuz`, `initramfs.img` | what iPXE and GRUB start; the configuration is in this initramfs |
//! | `shimx64.efi`, `grubx64.efi` | UEFI PXE with Secure Boot on, where the DHCP server itself names this service (`next-server`): Debian's signed chain with the GRUB of networks (`grubnetx64`), which fetches more by TFTP |
//!
//! The loaders' configurations are the service's own, as they hold its addresses. A file whose package cannot be had is
//! left out, and said so. Nothing in here is secret.

use std::fs;
use std::path::Path;

use crate::iso::SHIM;
use crate::uki::write_uki;
use crate::{Error, Result, package};

/// The kernel's command line where the loader has none of its own: both consoles, as from the ISO, and what it was started from.
const COMMAND_LINE: &str = "console=ttyS0,115200 console=tty0 loglevel=5 vconverter.boot=pxe";
const STUB: (&str, &str) = ("/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "systemd-boot-efi");

/// Loaders that are copied: path, package, name in the folder.
const COPIED: &[(&str, &str, &str)] = &[
    ("/usr/lib/ipxe/undionly.kpxe", "ipxe", "undionly.kpxe"),
    (SHIM, "shim-signed", "shimx64.efi"),
    ("/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", "grub-efi-amd64-signed", "grubx64.efi"),
];

/// What is to be started.
pub(crate) struct Contents<'a> {
    pub(crate) vmlinuz: &'a Path,
    /// The initramfs with the configuration behind it.
    pub(crate) initramfs: &'a Path,
}

/// Fills `folder`, which is made.
pub(crate) fn write_netboot(contents: &Contents<'_>, folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    progress("making the loaders for the network");
    fs::create_dir_all(folder).map_err(|e| Error::path("create", folder, e))?;
    for (path, package, name) in COPIED {
        match package::find_file(path, package, progress) {
            Ok(from) => {
                fs::copy(&from, folder.join(name)).map_err(|e| Error::path("copy", &from, e))?;
            }
            Err(error) => progress(&format!("start over the network without {name}: {error}")),
        }
    }
    for (from, name) in [(contents.vmlinuz, "vmlinuz"), (contents.initramfs, "initramfs.img")] {
        fs::copy(from, folder.join(name)).map_err(|e| Error::path("copy", from, e))?;
    }
    match package::find_file(STUB.0, STUB.1, progress) {
        Ok(stub) => write_uki(&stub, contents, COMMAND_LINE, &folder.join("boot.efi")),
        Err(error) => {
            progress(&format!("start over the network without boot.efi: {error}"));
            Ok(())
        }
    }
}
