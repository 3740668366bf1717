//! INF files of Windows itself that drivers include: what they bring is in the guest already, and is named, not read.
//!
//! From "Specifying the Include and Needs directives" and the reference of the device classes concerned.

/// An INF file of Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxInf {
    /// Its name.
    pub name: &'static str,
    /// What a driver takes from it.
    pub brings: &'static str,
}

const KNOWN: &[InboxInf] = &[
    InboxInf { name: "battery.inf", brings: "batteries" },
    InboxInf { name: "bth.inf", brings: "Bluetooth" },
    InboxInf { name: "cdrom.inf", brings: "optical drives" },
    InboxInf { name: "disk.inf", brings: "disks" },
    InboxInf { name: "hdaudbus.inf", brings: "the bus of HD audio" },
    InboxInf { name: "hidbth.inf", brings: "Bluetooth input devices" },
    InboxInf { name: "hidi2c.inf", brings: "input devices on I2C" },
    InboxInf { name: "input.inf", brings: "input devices (hidusb)" },
    InboxInf { name: "keyboard.inf", brings: "keyboards" },
    InboxInf { name: "ks.inf", brings: "kernel streaming" },
    InboxInf { name: "kscaptur.inf", brings: "kernel streaming of captured video" },
    InboxInf { name: "ksfilter.inf", brings: "kernel streaming filters" },
    InboxInf { name: "machine.inf", brings: "buses and how PCI devices are set up" },
    InboxInf { name: "mdmcpq.inf", brings: "USB modems and serial ports (usbser)" },
    InboxInf { name: "mf.inf", brings: "devices of several functions (mf)" },
    InboxInf { name: "monitor.inf", brings: "monitors" },
    InboxInf { name: "msdv.inf", brings: "digital video" },
    InboxInf { name: "msmouse.inf", brings: "mice" },
    InboxInf { name: "msports.inf", brings: "serial and parallel ports" },
    InboxInf { name: "mshdc.inf", brings: "IDE and AHCI controllers (atapi, intelide, pciide, msahci, storahci)" },
    InboxInf { name: "netnwifi.inf", brings: "wireless networks" },
    InboxInf { name: "netrndis.inf", brings: "networks over USB (RNDIS)" },
    InboxInf { name: "netvwifibus.inf", brings: "virtual wireless networks" },
    InboxInf { name: "pci.inf", brings: "how PCI devices are set up" },
    InboxInf { name: "rndiscmp.inf", brings: "networks over USB (RNDIS)" },
    InboxInf { name: "sti.inf", brings: "scanners and cameras" },
    InboxInf { name: "umbus.inf", brings: "the user mode bus" },
    InboxInf { name: "usb.inf", brings: "USB hubs and composite devices" },
    InboxInf { name: "usbport.inf", brings: "USB controllers" },
    InboxInf { name: "usbstor.inf", brings: "USB disks" },
    InboxInf { name: "usbvideo.inf", brings: "USB cameras" },
    InboxInf { name: "volume.inf", brings: "volumes" },
    InboxInf { name: "wdma_usb.inf", brings: "USB audio" },
    InboxInf { name: "wdmaudio.inf", brings: "audio" },
    InboxInf { name: "winusb.inf", brings: "USB devices of programs (WinUSB)" },
    InboxInf { name: "wudfrd.inf", brings: "drivers in user mode (WUDFRd)" },
];

/// The INF file of Windows with this name, in any case.
pub fn inbox_inf(name: &str) -> Option<InboxInf> {
    KNOWN.iter().copied().find(|known| known.name.eq_ignore_ascii_case(name.trim()))
}
