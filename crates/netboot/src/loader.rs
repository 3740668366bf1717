//! What each firmware is sent, with the fewest moving parts that were seen to work.
//!
//! | firmware | boot file | then | why, and what to know |
//! | --- | --- | --- | --- |
//! | BIOS PXE | `undionly.kpxe` (iPXE on the ROM's own driver) by TFTP | as the next row | It has HTTP, which TFTP without windows cannot match, and is alive. It asks DHCP a second time, as user class `iPXE` (option 77). |
//! | BIOS PXE, iPXE already | `boot.ipxe`, a script, by HTTP | kernel and initramfs by HTTP | Names in the script are relative to its URL: iPXE's `next-server`, like GRUB's `net_default_server`, is the LAN's DHCP server and not we. GRUB (`i386-pc-pxe`) would need a core made for each address of this service for that reason. |
//! | UEFI PXE | `boot.efi` by TFTP | nothing: a unified kernel image | EDK2 loads it whole, with windows of RFC 7440. Debian's stub takes LoadOptions over its own command line, and iPXE passes the file's name there: nothing in the boot image depends on the command line. **Secure Boot refuses it**, because nobody signed it. A signed chain does not help here: shim takes GRUB from us, but the signed GRUB asks the LAN's DHCP server for its configuration and cannot be told otherwise. Ways out: HTTP boot, the ISO, or `next-server` on the DHCP server set to this service with the boot file `shimx64.efi`. |
//! | UEFI HTTP boot | `vconverter.iso` by HTTP | nothing: the firmware starts from it as from a CD | The firmware keeps it as a RAM disk (UEFI specification 2.10, section 24.7.3.1), so the signed chain of the ISO holds with Secure Boot on and off, and no loader needs a network: Debian's signed GRUB of networks, fetched by HTTP, asked for nothing more (OVMF, `grubnetx64` 2.06). |
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
//! Menu answers ask for the boot file in a second exchange: unicast to our port 4011, or broadcast to port 67. When a ROM
//! that is not iPXE has chosen so, its iPXE is known for a minute and not asked again.

use crate::files::{BootFiles, plain};
use crate::{Client, Firmware};

/// Seconds that the firmware's menu waits for F8.
pub(crate) const MENU_SECONDS: u8 = 10;
/// What the firmware shows meanwhile.
pub(crate) const MENU_PROMPT: &str = "Own disk in 10 s. F8: vconverter boot image";
/// The menu's first item.
pub(crate) const MENU_LOCAL: &str = "Start from this machine's own disk";
/// The menu's second item.
pub(crate) const MENU_IMAGE: &str = "vconverter boot image (cold cloning)";

/// Name of the ISO.
pub(crate) const ISO: &str = "vconverter.iso";
/// Name of the script for iPXE.
pub(crate) const IPXE_SCRIPT: &str = "boot.ipxe";
/// Name of GRUB's configuration.
pub(crate) const GRUB_CONFIGURATION: &str = "grub.cfg";

/// Kernel command line where a loader gives one; nothing depends on it.
const COMMAND_LINE: &str = "console=ttyS0,115200 console=tty0 loglevel=5";
/// By this word the boot image knows what it was started from, and says so to the controller.
const STARTED_FROM: &str = "vconverter.boot=";

/// The first file for a client; `None` where there is no boot image for it.
pub(crate) fn boot_file(client: &Client) -> Option<&'static str> {
    match client.firmware {
        Firmware::Bios if client.is_ipxe => Some(IPXE_SCRIPT),
        Firmware::Bios => Some("undionly.kpxe"),
        Firmware::UefiPxe => Some("boot.efi"),
        Firmware::UefiHttp => Some(ISO),
        Firmware::Other(_) => None,
    }
}

/// Whether a client takes its first file by HTTP and wants a URL.
pub(crate) fn is_by_http(client: &Client) -> bool {
    client.firmware == Firmware::UefiHttp || (client.firmware == Firmware::Bios && client.is_ipxe)
}

/// Every file of the boot image's folder that a firmware needs.
pub(crate) fn needed_files(firmware: Firmware) -> &'static [&'static str] {
    match firmware {
        Firmware::Bios => &["undionly.kpxe", "vmlinuz", "initramfs.img"],
        Firmware::UefiPxe => &["boot.efi"],
        Firmware::UefiHttp => &[ISO],
        Firmware::Other(_) => &[],
    }
}

/// The files of a firmware that are missing.
pub(crate) fn missing_files(firmware: Firmware, files: &BootFiles) -> Vec<&'static str> {
    needed_files(firmware).iter().copied().filter(|name| !files.has(name)).collect()
}

/// Whether a machine has the whole boot image when it has this file.
pub(crate) fn completes(name: &str) -> bool {
    matches!(name, "initramfs.img" | "boot.efi" | ISO)
}

/// The path of a machine's file: it carries the machine, so that the log tells who asked for what.
pub(crate) fn path_of(client: &Client, file: &str) -> String {
    format!("m/{}/{file}", plain(client.mac))
}

/// iPXE's script. Names are relative to its URL; when something fails, the machine goes on in its own order.
pub(crate) fn ipxe_script() -> String {
    format!(
        "#!ipxe\necho Starting the vconverter boot image ...\n\
         kernel vmlinuz initrd=initramfs.img {COMMAND_LINE} {STARTED_FROM}pxe || exit 1\ninitrd initramfs.img || exit 1\nboot || exit 1\n"
    )
}

/// GRUB's configuration, where a DHCP server names this service itself. `$cmdpath` is the folder that GRUB was loaded
/// from: `(tftp,192.0.2.1)`.
pub(crate) fn grub_configuration() -> String {
    format!(
        "echo 'Starting the vconverter boot image ...'\n\
         linux $cmdpath/vmlinuz {COMMAND_LINE} {STARTED_FROM}pxe\n\
         initrd $cmdpath/initramfs.img\n\
         boot\n"
    )
}
