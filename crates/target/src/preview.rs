//! How to look at a converted machine without a hypervisor's management: one QEMU command.

use machine::{DiskBus, FirmwareKind};

use crate::definition::{Chipset, path_text};
use crate::{Definition, Error, Result};

/// Where the package ovmf puts code and variables.
const OVMF: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];
const OVMF_SECURE: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"];

/// A shell command that shows the machine in a window. Whatever is done there is thrown away (`-snapshot`), and it has
/// no network, because the source may still be running. It has no TPM, which would be another program to start and to end, and
/// no interfaces of Hyper-V, which KVM alone has: guests start without.
pub fn qemu_command(definition: &Definition<'_>) -> Result<String> {
    definition.check()?;
    let machine = match definition.chipset() {
        Chipset::Pc => "pc",
        Chipset::Q35 => "q35",
    };
    let smm = if definition.secure_boot() { ",smm=on" } else { "" };
    let clock = if definition.capabilities.clock_utc { "utc" } else { "localtime" };
    let mut words: Vec<String> =
        ["qemu-system-x86_64", "-snapshot", "-nic", "none", "-accel", "kvm", "-accel", "tcg", "-cpu", "max"]
            .map(String::from)
            .to_vec();
    let mut pair = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
    pair("-machine", format!("{machine}{smm}"));
    pair("-m", format!("{}M", definition.memory_mib()));
    pair("-smp", definition.cpus().to_string());
    pair("-rtc", format!("base={clock}"));
    if definition.firmware() == FirmwareKind::Uefi {
        let [code, variables] = if definition.secure_boot() { OVMF_SECURE } else { OVMF };
        pair("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"));
        pair("-drive", format!("if=pflash,unit=1,format=raw,snapshot=on,file={variables}"));
        if definition.secure_boot() {
            pair("-global", "driver=cfi.pflash01,property=secure,value=on".into());
        }
    }
    let device = match definition.capabilities.disk_bus {
        DiskBus::Virtio => "virtio-blk-pci",
        DiskBus::Sata | DiskBus::Ide => "ide-hd",
    };
    for (index, disk, file) in definition.disks() {
        if file.format.contains(|c: char| !c.is_ascii_alphanumeric()) {
            return Err(Error::invalid(format!("disk {index}: expected an image format, found {:?}", file.format)));
        }
        let path = path_text(&file.path)?.replace(',', ",,");
        pair("-drive", format!("if=none,id=disk{index},format={},file={path}", file.format));
        let place = match definition.capabilities.disk_bus {
            DiskBus::Virtio => String::new(),
            DiskBus::Sata => format!(",bus=ide.{index}"),
            DiskBus::Ide => format!(",bus=ide.{},unit={}", index / 2, index % 2),
        };
        let sector = match disk.logical_sector_size.bytes() {
            512 => String::new(),
            n => format!(",logical_block_size={n},physical_block_size={n}"),
        };
        pair("-device", format!("{device},drive=disk{index},bootindex={}{place}{sector}", index + 1));
    }
    Ok(words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "))
}

/// A word for a POSIX shell.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:+@%".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quote("format=raw,file=/a/b.qcow2"), "format=raw,file=/a/b.qcow2");
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }
}
