//! Domain XML of libvirt (libvirt.org, "Domain XML format") for QEMU and KVM.

use std::io;

use machine::{DiskBus, DiskIdentity, FirmwareKind, NicModel};
use quick_xml::Writer;
use quick_xml::events::BytesText;

use crate::definition::{Chipset, path_text};
use crate::enlightenment::{CLOCK, SPINLOCK_TRIES, enlightenments};
use crate::{Definition, Error, Result};

/// Serial numbers longer than this are cut by IDE and by virtio-blk.
const SERIAL_MAX: usize = 20;

type Xml = Writer<Vec<u8>>;

/// The domain's definition, to be given to `virsh define`. It does not start the domain and does not mark it for
/// autostart (which is no part of a definition). Errors: hardware that libvirt's machines do not have, names that XML
/// cannot carry.
pub fn domain_xml(definition: &Definition<'_>) -> Result<String> {
    definition.check()?;
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    let written = xml
        .create_element("domain")
        .with_attribute(("type", "kvm"))
        .write_inner_content(|xml| write_domain(xml, definition).map_err(io::Error::other));
    written.map_err(|e| match e.downcast::<Error>() {
        Ok(own) => own,
        Err(other) => Error::invalid(format!("domain XML: {other}")),
    })?;
    let mut text =
        String::from_utf8(xml.into_inner()).map_err(|e| Error::invalid(format!("domain XML: expected UTF-8: {e}")))?;
    text.push('\n');
    Ok(text)
}

fn write_domain(xml: &mut Xml, definition: &Definition<'_>) -> Result<()> {
    text(xml, "name", &[], definition.name)?;
    text(xml, "memory", &[("unit", "MiB")], &definition.memory_mib().to_string())?;
    text(xml, "vcpu", &[("placement", "static")], &definition.cpus().to_string())?;
    write_os(xml, definition)?;
    nest(xml, "features", &[], |xml| {
        empty(xml, "acpi", &[])?;
        empty(xml, "apic", &[])?;
        write_enlightenments(xml, definition)?;
        if definition.secure_boot() { empty(xml, "smm", &[("state", "on")]) } else { Ok(()) }
    })?;
    let (sockets, cores, threads) = definition.topology();
    nest(xml, "cpu", &[("mode", "host-passthrough"), ("check", "none")], |xml| {
        let (sockets, cores, threads) = (sockets.to_string(), cores.to_string(), threads.to_string());
        empty(xml, "topology", &[("sockets", &sockets), ("cores", &cores), ("threads", &threads)])
    })?;
    let clock = if definition.capabilities.clock_utc { "utc" } else { "localtime" };
    nest(xml, "clock", &[("offset", clock)], |xml| {
        empty(xml, "timer", &[("name", "rtc"), ("tickpolicy", "catchup")])?;
        empty(xml, "timer", &[("name", "pit"), ("tickpolicy", "delay")])?;
        empty(xml, "timer", &[("name", "hpet"), ("present", "no")])?;
        match enlightenments(definition.capabilities.hyperv).iter().any(|one| one.flag == CLOCK) {
            true => empty(xml, "timer", &[("name", "hypervclock"), ("present", "yes")]),
            false => Ok(()),
        }
    })?;
    text(xml, "on_poweroff", &[], "destroy")?;
    text(xml, "on_reboot", &[], "restart")?;
    text(xml, "on_crash", &[], "destroy")?;
    nest(xml, "devices", &[], |xml| write_devices(xml, definition))
}

fn write_enlightenments(xml: &mut Xml, definition: &Definition<'_>) -> Result<()> {
    let offered = enlightenments(definition.capabilities.hyperv);
    if offered.is_empty() {
        return Ok(());
    }
    nest(xml, "hyperv", &[("mode", "custom")], |xml| {
        offered.iter().filter_map(|one| one.element).try_for_each(|element| match element {
            "spinlocks" => empty(xml, element, &[("state", "on"), ("retries", SPINLOCK_TRIES)]),
            _ => empty(xml, element, &[("state", "on")]),
        })
    })
}

fn write_os(xml: &mut Xml, definition: &Definition<'_>) -> Result<()> {
    let machine = match definition.chipset() {
        Chipset::Pc => "pc",
        Chipset::Q35 => "q35",
    };
    let uefi = definition.firmware() == FirmwareKind::Uefi;
    let attributes: &[_] = if uefi { &[("firmware", "efi")] } else { &[] };
    nest(xml, "os", attributes, |xml| {
        text(xml, "type", &[("arch", "x86_64"), ("machine", machine)], "hvm")?;
        if !uefi {
            return Ok(());
        }
        let secure = if definition.secure_boot() { "yes" } else { "no" };
        nest(xml, "firmware", &[], |xml| {
            empty(xml, "feature", &[("enabled", secure), ("name", "enrolled-keys")])?;
            empty(xml, "feature", &[("enabled", secure), ("name", "secure-boot")])
        })?;
        empty(xml, "loader", &[("secure", secure)])
    })
}

fn write_devices(xml: &mut Xml, definition: &Definition<'_>) -> Result<()> {
    let (bus, prefix) = match definition.capabilities.disk_bus {
        DiskBus::Virtio => ("virtio", "vd"),
        DiskBus::Sata => ("sata", "sd"),
        DiskBus::Ide => ("ide", "hd"),
    };
    for (index, disk, file) in definition.disks() {
        nest(xml, "disk", &[("type", "file"), ("device", "disk")], |xml| {
            empty(xml, "driver", &[("name", "qemu"), ("type", &file.format), ("discard", "unmap")])?;
            empty(xml, "source", &[("file", &path_text(&file.path)?)])?;
            let sector = disk.logical_sector_size.bytes();
            if sector != 512 {
                let sector = sector.to_string();
                empty(xml, "blockio", &[("logical_block_size", &sector), ("physical_block_size", &sector)])?;
            }
            empty(xml, "target", &[("dev", &format!("{prefix}{}", letter(index))), ("bus", bus)])?;
            if let Some(serial) = serial_text(&disk.identity) {
                text(xml, "serial", &[], &serial)?;
            }
            empty(xml, "boot", &[("order", &(index + 1).to_string())])
        })?;
    }
    let model = match definition.capabilities.nic_model {
        NicModel::Virtio => "virtio",
        NicModel::E1000 => "e1000",
        NicModel::E1000e => "e1000e",
        NicModel::Rtl8139 => "rtl8139",
    };
    for nic in &definition.machine.nics {
        nest(xml, "interface", &[("type", "network")], |xml| {
            empty(xml, "mac", &[("address", &nic.mac.to_string())])?;
            empty(xml, "source", &[("network", "default")])?;
            empty(xml, "model", &[("type", model)])?;
            empty(xml, "link", &[("state", if definition.link_up { "up" } else { "down" })])
        })?;
    }
    nest(xml, "serial", &[("type", "pty")], |xml| empty(xml, "target", &[("port", "0")]))?;
    nest(xml, "console", &[("type", "pty")], |xml| empty(xml, "target", &[("type", "serial"), ("port", "0")]))?;
    empty(xml, "input", &[("type", "tablet"), ("bus", "usb")])?;
    nest(xml, "graphics", &[("type", "vnc"), ("port", "-1"), ("autoport", "yes"), ("listen", "127.0.0.1")], |xml| {
        empty(xml, "listen", &[("type", "address"), ("address", "127.0.0.1")])
    })?;
    nest(xml, "video", &[], |xml| empty(xml, "model", &[("type", "vga")]))?;
    if definition.capabilities.tpm {
        nest(xml, "tpm", &[("model", "tpm-crb")], |xml| {
            empty(xml, "backend", &[("type", "emulator"), ("version", "2.0")])
        })?;
    }
    nest(xml, "rng", &[("model", "virtio")], |xml| text(xml, "backend", &[("model", "random")], "/dev/urandom"))
}

/// The suffix of a disk's name: `a` to `x`; [`Definition::check`] allows no more.
fn letter(index: usize) -> char {
    ('a'..='z').nth(index).unwrap_or('z')
}

/// The source disk's serial number in the alphabet of libvirt's schema; none where nothing is left.
fn serial_text(identity: &DiskIdentity) -> Option<String> {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "_.+- ".contains(*c);
    let text: String = identity.serial.as_ref()?.chars().filter(allowed).take(SERIAL_MAX).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn empty(xml: &mut Xml, name: &str, attributes: &[(&str, &str)]) -> Result<()> {
    let written = xml.create_element(name).with_attributes(attributes.iter().copied()).write_empty();
    written.map(drop).map_err(write_error)
}

fn text(xml: &mut Xml, name: &str, attributes: &[(&str, &str)], content: &str) -> Result<()> {
    let element = xml.create_element(name).with_attributes(attributes.iter().copied());
    element.write_text_content(BytesText::new(content)).map(drop).map_err(write_error)
}

fn nest(
    xml: &mut Xml,
    name: &str,
    attributes: &[(&str, &str)],
    inner: impl FnOnce(&mut Xml) -> Result<()>,
) -> Result<()> {
    let element = xml.create_element(name).with_attributes(attributes.iter().copied());
    element.write_inner_content(|xml| inner(xml).map_err(io::Error::other)).map(drop).map_err(write_error)
}

fn write_error(e: io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(own) => own,
        Err(other) => Error::invalid(format!("domain XML: {other}")),
    }
}
