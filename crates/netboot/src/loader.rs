//! What each firmware is sent, with the fewest moving parts that were seen to work.
//!
//! | firmware | boot file | then | why, and what to know |
//! | --- | --- | --- | --- |
//! | BIOS PXE | `pxelinux.0` by TFTP | `ldlinux.c32`, its configuration, kernel and two initramfs by TFTP | It reads the proxyDHCP answer itself and asks the server it came from. GRUB (`i386-pc-pxe`) and iPXE ask the LAN's DHCP server for the rest (`net_default_server`, `next-server`), so they would need a core made for each address of this service. `lpxelinux.0` speaks HTTP through UNDI, which some ROMs do badly. iPXE as a ROM gets the same file as any ROM: one path, tested with the ROM that QEMU has. |
//! | UEFI PXE | `vconverter.efi` by TFTP | nothing: a unified kernel image | EDK2 loads it whole, with windows of RFC 7440. Debian's stub takes LoadOptions over its own command line; by PXE there are none. **Secure Boot refuses it**, because nobody signed it. A signed chain does not help here: shim takes GRUB from us, but the signed GRUB asks the LAN's DHCP server for its configuration and cannot be told otherwise. Ways out: HTTP boot, the ISO, or `next-server` on the DHCP server set to this service with the boot file `shimx64.efi`. |
//! | UEFI HTTP boot | `shimx64.efi` by HTTP | `grubx64.efi`, `grub.cfg`, kernel and two initramfs by HTTP | One chain with Secure Boot on and off. GRUB has the address from the URL; `$cmdpath` leads to its folder. It asks with `Range:` where it goes back in a file. |
//!
//! The menu of unknown machines is the firmware's own (option 43: F8 within ten seconds), so that no loader has been
//! started when the machine goes on to its own disk:
//!
//! | firmware | how it goes on |
//! | --- | --- |
//! | BIOS PXE | item of type 0, taken after ten seconds: the ROM returns to the BIOS, which tries its next device |
//! | UEFI PXE | the same; EDK2 ends the boot option with `EFI_ABORTED` and tries the next. A loader that returned with success would end in the firmware's own menu instead, which waits for ever |
//! | UEFI HTTP boot | has no menu: unknown machines are not answered, and the log says which policy would change that |
//!
//! Menu answers ask for the boot file in a second exchange: unicast to our port 4011, or broadcast to port 67.

use crate::files::BootFiles;
use crate::{Client, Firmware};

/// Seconds that the firmware's menu waits for F8.
pub const MENU_SECONDS: u8 = 10;
/// What the firmware shows meanwhile.
pub const MENU_PROMPT: &str = "Own disk in 10 s. F8: vconverter boot image";
/// The menu's first item.
pub const MENU_LOCAL: &str = "Start from this machine's own disk";
/// The menu's second item.
pub const MENU_IMAGE: &str = "vconverter boot image (cold cloning)";

/// Kernel command line where a loader gives one; nothing depends on it.
const COMMAND_LINE: &str = "console=ttyS0,115200 console=tty0 loglevel=5";

/// The first file for a firmware; `None` where there is no boot image for it.
pub fn boot_file(firmware: Firmware) -> Option<&'static str> {
    match firmware {
        Firmware::Bios => Some("pxelinux.0"),
        Firmware::UefiPxe => Some("vconverter.efi"),
        Firmware::UefiHttp => Some("shimx64.efi"),
        Firmware::Other(_) => None,
    }
}

/// Every file that a firmware needs.
pub fn needed_files(firmware: Firmware) -> &'static [&'static str] {
    match firmware {
        Firmware::Bios => &["pxelinux.0", "ldlinux.c32", "vmlinuz", "initramfs.img", "configuration.img"],
        Firmware::UefiPxe => &["vconverter.efi"],
        Firmware::UefiHttp => &["shimx64.efi", "grubx64.efi", "vmlinuz", "initramfs.img", "configuration.img"],
        Firmware::Other(_) => &[],
    }
}

/// The files of a firmware that are missing.
pub fn missing_files(firmware: Firmware, files: &BootFiles) -> Vec<&'static str> {
    needed_files(firmware).iter().copied().filter(|name| !files.has(name)).collect()
}

/// Whether a machine has the whole boot image when it has this file.
pub(crate) fn completes(name: &str) -> bool {
    matches!(name, "initramfs.img" | "vconverter.efi")
}

/// The path of a machine's file: it carries the machine, so that the log tells who asked for what.
pub fn path_of(client: &Client, file: &str) -> String {
    format!("m/{}/{file}", client.mac.plain())
}

/// PXELINUX's configuration. Names are relative to the folder that it was loaded from.
pub(crate) fn pxelinux_configuration() -> String {
    format!(
        "DEFAULT vconverter\nPROMPT 0\nSAY Starting the vconverter boot image ...\nLABEL vconverter\n\
         \x20 KERNEL vmlinuz\n  INITRD initramfs.img,configuration.img\n  APPEND {COMMAND_LINE}\n"
    )
}

/// GRUB's configuration. `$cmdpath` is the folder that GRUB was loaded from.
pub(crate) fn grub_configuration() -> String {
    format!(
        "echo 'Starting the vconverter boot image ...'\n\
         linux $cmdpath/vmlinuz {COMMAND_LINE}\n\
         initrd $cmdpath/initramfs.img $cmdpath/configuration.img\n\
         boot\n"
    )
}
