//! The role of the boot image: from a machine that has just started to an agent that serves its disks.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::Controller;
use crate::configuration::{self, Configuration, Push, load_configuration};
use crate::console::log;
use crate::disks::{is_disk, list_disks, set_all_read_only, set_read_only};
use crate::network::settings::Wanted;
use crate::status::Status;
use crate::uevent::{Event, Events};
use crate::unclaimed::{Places, list_unclaimed};
use crate::{
    agent, conversation, deadline, inspection, keymap, medium, memory, modules, mounts, network, push, pushed, reaper,
    rescue, restore, screen, stick, watchdog,
};

/// Disks behind slow controllers come late; nobody waits longer for the first inspection.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// The agent starts without knowing the guest after this.
const INSPECTION_MAX: Duration = Duration::from_secs(120);
/// No event for so long, and the hardware counts as found.
const SETTLED: Duration = Duration::from_millis(1500);

/// Runs until the machine is restarted by its operator. The kernel's filesystems are mounted.
pub fn run() -> ! {
    let status = Arc::new(Status::default());
    log(format!("boot image {} on {}", env!("CARGO_PKG_VERSION"), kernel()));
    log(format!("started from: {}", medium::started_from().unwrap_or("the boot loader does not say")));
    quieten_kernel();
    start(reaper::run);
    let mut configuration = load_configuration(Path::new(configuration::PATH)).unwrap_or_else(|error| {
        log(error.chain());
        Configuration::default()
    });
    if medium::started_from() == Some("push") {
        // One whose configuration is damaged goes back all the same.
        configuration.push.get_or_insert_default();
    }
    if let Some(push) = &configuration.push {
        begin_push(push, &status);
    }
    let settled = Settled::default();
    // Before any driver is loaded, so that a disk is read-only as soon as it is there.
    match Events::open() {
        Ok(events) => {
            let (status, settled) = (Arc::clone(&status), settled.clone());
            start(move || watch_devices(&events, &status, &settled));
        }
        Err(error) => log(error.chain()),
    }
    load_drivers();
    if let Some(seconds) = configuration.push.as_ref().and_then(|push| push.watchdog_seconds) {
        watchdog::arm(seconds);
    }
    protect_disks(&status);
    match keymap::load() {
        Some(Ok(())) => log(format!("keymap: {}", configuration.keymap.as_deref().unwrap_or("of the image"))),
        Some(Err(error)) => log(error.chain()),
        None => {}
    }
    if let Some(key) = configuration.rescue_key.clone().filter(|_| rescue::is_built_in()) {
        start(move || {
            if let Err(error) = rescue::serve(&key) {
                log(error.chain());
            }
        });
    }
    if let Err(error) = mounts::mount_firmware_variables() {
        log(error.chain());
    }
    status.update(|picture| {
        picture.kernel = kernel();
        picture.machine = machine_text();
        picture.guest = "waiting for the disks".into();
    });
    log(format!("machine: {}", status.picture().machine));
    let controller = Arc::new(Controller::default());
    let wanted = Arc::new(Wanted::new(configuration.network.clone()));
    {
        let (wanted, status) = (Arc::clone(&wanted), Arc::clone(&status));
        start(move || network::run(&wanted, &status));
    }
    {
        let (status, serial) = (Arc::clone(&status), Arc::clone(&status));
        start(move || screen::run(&status));
        start(move || screen::run_serial(&serial));
    }
    {
        let (controller, status, push) = (Arc::clone(&controller), Arc::clone(&status), configuration.push.clone());
        start(move || {
            settled.wait();
            protect_disks(&status);
            let disks = status.picture().disks;
            log(format!("disks: {} found, {} read-only", disks.len(), disks.iter().filter(|d| d.read_only).count()));
            // Before anything looks at the disks for longer, and before anything is copied.
            if let Some(push) = push {
                restore::run(&push.task, &status);
                show_disks(&status);
            }
            look_for_guest(&status);
            log(format!("memory: {}, {} of it available", memory::total(), memory::available()));
            {
                let status = Arc::clone(&status);
                start(move || watch_hardware(&settled, &status));
            }
            {
                let status = Arc::clone(&status);
                start(move || pushed::run(&|outcomes| conversation::tell_installed(outcomes, &status)));
            }
            agent::run(&agent::Place::default(), &controller, &status)
        });
    }
    conversation::run(&configuration, &controller, &wanted, &status)
}

/// First of all: whatever hangs from here on, the machine goes back to its own system.
fn begin_push(push: &Push, status: &Arc<Status>) {
    push::restart_on_panic();
    let (contact_seconds, status) = (push.contact_seconds, Arc::clone(status));
    start(move || deadline::run(contact_seconds, &status));
    if let Err(error) = push::take_token(Path::new(push::TOKEN), &agent::Place::default().token()) {
        log(error.chain());
    }
}

fn start<T>(work: impl FnOnce() -> T + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().spawn(move || drop(work())) {
        log(format!("start a thread: {error}"));
    }
}

fn kernel() -> String {
    format!("Linux {}", rustix::system::uname().release().to_string_lossy())
}

/// Kernel messages would go over the screen: from now on only the worst do, and warnings go to the log.
fn quieten_kernel() {
    let write = |path: &str, text: &str| {
        if let Err(error) = fs::write(path, text) {
            log(format!("write {path}: {error}"));
        }
    };
    write("/proc/sys/kernel/printk", "1 4 1 4");
    // All that SysRq may do by Debian's default except to restart, which asks nobody.
    write("/proc/sys/kernel/sysrq", "54");
    start(forward_kernel_warnings);
}

/// At most so many kernel lines a second go to the log: a dying disk says much.
const KERNEL_LINES_MAX: u32 = 20;

/// Copies the kernel's warnings and errors to the log (format of /dev/kmsg: `priority,sequence,…;text`).
fn forward_kernel_warnings() {
    let Ok(mut messages) = fs::File::open("/dev/kmsg") else { return };
    let _ = std::io::Seek::seek(&mut messages, std::io::SeekFrom::End(0));
    let mut buffer = [0; 8192];
    let (mut second, mut lines) = (Instant::now(), 0);
    loop {
        let length = match messages.read(&mut buffer) {
            Ok(length) => length,
            // EPIPE: messages were overwritten before they were read; the next read goes on behind them.
            Err(_) => {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        let Some(text) = kernel_warning(&String::from_utf8_lossy(&buffer[..length])) else { continue };
        if second.elapsed() > Duration::from_secs(1) {
            (second, lines) = (Instant::now(), 0);
        }
        lines += 1;
        if lines <= KERNEL_LINES_MAX {
            log(format!("kernel: {text}"));
        }
    }
}

fn kernel_warning(record: &str) -> Option<String> {
    let (head, text) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    (priority & 7 <= 4).then(|| text.lines().next().unwrap_or_default().to_owned())
}

fn load_drivers() {
    let loaded = modules::load_for_hardware();
    log(format!("drivers: {}", if loaded.names.is_empty() { "none".into() } else { loaded.names.join(" ") }));
    for failure in loaded.failures {
        log(failure.chain());
    }
    // The filesystems that the boot image itself may mount, for its own medium and the firmware's variables.
    if let Err(error) = modules::load(&["efivarfs"]) {
        log(error.chain());
    }
}

/// When the last event about a device came.
#[derive(Clone)]
struct Settled(Arc<std::sync::Mutex<Instant>>);

impl Default for Settled {
    fn default() -> Self {
        Self(Arc::new(std::sync::Mutex::new(Instant::now())))
    }
}

impl Settled {
    fn touch(&self) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn wait(&self) {
        let started = Instant::now();
        while started.elapsed() < SETTLE_MAX {
            if self.last().elapsed() > SETTLED {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Loads drivers for devices that appear and sets disks read-only, for ever.
fn watch_devices(events: &Events, status: &Status, settled: &Settled) {
    loop {
        match events.next() {
            Ok(Some(event)) => see_device(&event, status, settled),
            Ok(None) => {
                log("devices: events were lost, looking at everything anew");
                load_drivers();
                protect_disks(status);
            }
            Err(error) => {
                log(error.chain());
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

fn see_device(event: &Event, status: &Status, settled: &Settled) {
    let get = |name: &str| event.get(name).map(String::as_str).unwrap_or_default();
    let is_new = get("ACTION") == "add";
    if get("SUBSYSTEM") == "block" && is_disk(get("DEVNAME")) {
        settled.touch();
        if is_new && let Err(error) = set_read_only(get("DEVNAME")) {
            // What went away before its event was read needs no protection.
            let gone = error.source.as_ref().is_some_and(|source| source.kind() == std::io::ErrorKind::NotFound);
            if !gone {
                log(error.chain());
            }
        }
        if get("DEVTYPE") == "disk" {
            // `cciss/c0d0` is `cciss!c0d0` in sysfs.
            let name = get("DEVNAME").replace('/', "!");
            if get("ACTION") == "remove" {
                stick::forget(&name)
            } else {
                stick::look_at(&name)
            }
            show_disks(status);
        }
    }
    if matches!(get("ACTION"), "bind" | "unbind" | "remove") {
        settled.touch();
    }
    if is_new && !get("MODALIAS").is_empty() {
        settled.touch();
        let loaded = modules::running().load_alias(get("MODALIAS"));
        if !loaded.names.is_empty() {
            log(format!("drivers: {}", loaded.names.join(" ")));
        }
        for failure in loaded.failures {
            log(failure.chain());
        }
    }
}

/// Looks again at the guest when disks came or went after the start, and has the agent report anew; for ever.
fn watch_hardware(settled: &Settled, status: &Arc<Status>) {
    let identities = || {
        let picture = status.picture();
        // VLANs have the address of their card.
        let nics: std::collections::BTreeSet<_> = picture.nics.values().map(|nic| nic.mac.0).collect();
        (picture.disks, nics)
    };
    let (mut told, mut seen) = (identities(), None);
    loop {
        let last = settled.last();
        if last.elapsed() > SETTLED && seen != Some(last) {
            seen = Some(last);
            show_unclaimed(status);
        }
        let now = identities();
        if now != told && last.elapsed() > SETTLED {
            if now.0 != told.0 {
                look_for_guest(status);
            }
            told = now;
            log("hardware: it changed; the agent reports anew");
            if let Err(error) = agent::Place::default().tell_change() {
                log(error.chain());
            }
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// Shows and logs the devices that no driver claimed.
pub(crate) fn show_unclaimed(status: &Status) {
    let unclaimed = list_unclaimed(&Places::running());
    let known = status.picture().unclaimed;
    for device in unclaimed.iter().filter(|device| !known.contains(device)) {
        log(format!("device {}: {}", device.title(), device.lack));
    }
    status.update(|picture| picture.unclaimed = unclaimed);
}

/// Sets all disks read-only and shows them.
pub(crate) fn protect_disks(status: &Status) {
    for failure in set_all_read_only() {
        log(failure.chain());
    }
    stick::look_at_all();
    show_disks(status);
}

/// Shows the machine's disks, and tells the agent which they are; one at a time, so that the last word is the newest.
fn show_disks(status: &Status) {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let disks: Vec<_> = list_disks().into_iter().filter(|disk| stick::is_of_machine(&disk.name)).collect();
    if let Err(error) = agent::Place::default().tell_disks(disks.iter().map(|disk| disk.name.as_str())) {
        log(error.chain());
    }
    let known = status.picture().disks;
    for disk in disks.iter().filter(|disk| !known.contains(disk)) {
        let protection = if disk.read_only { "read-only" } else { "writable" };
        log(format!(
            "disk {}: {} ({} bytes) {} {} {protection}",
            disk.name, disk.size, disk.size.0, disk.model, disk.serial
        ));
    }
    for disk in known.iter().filter(|disk| !disks.iter().any(|other| other.name == disk.name)) {
        log(format!("disk {}: gone", disk.name));
    }
    status.update(|picture| picture.disks = disks);
}

/// Inspects the guest and writes what was found for the agent. A disk that answers slowly delays the agent only so long.
fn look_for_guest(status: &Arc<Status>) {
    let (found, done) = std::sync::mpsc::channel();
    let picture = Arc::clone(status);
    start(move || {
        let disks = picture.picture().disks;
        let device = |name: &str| Path::new("/dev").join(name.replace('!', "/"));
        let disks: Vec<_> = disks.iter().map(|disk| (device(&disk.name), Some(disk.serial.clone()))).collect();
        picture.update(|picture| picture.guest = "looking at the disks".into());
        let facts = inspection::inspect(&disks);
        let text = inspection::describe(&facts.guest);
        log(format!("guest: {text}"));
        if let Err(error) = inspection::store_facts(&facts, Path::new(agent::GUEST_FACTS)) {
            log(error.chain());
        }
        picture.update(|picture| picture.guest = text);
        let _ = found.send(());
    });
    if done.recv_timeout(INSPECTION_MAX).is_err() {
        log("guest: the disks answer slowly; starting the agent without knowing the guest");
    }
}

/// Maker, product, serial number, memory and firmware in one line.
fn machine_text() -> String {
    let dmi = |name: &str| {
        let text = fs::read_to_string(Path::new("/sys/class/dmi/id").join(name)).unwrap_or_default();
        text.trim().to_owned()
    };
    let product = format!("{} {}", dmi("sys_vendor"), dmi("product_name")).trim().to_owned();
    let serial =
        Some(dmi("product_serial")).filter(|serial| !serial.is_empty()).map(|serial| format!("serial {serial}"));
    let memory = Some(memory::total()).filter(|total| total.0 > 0).map(|total| total.to_string());
    let firmware = if Path::new("/sys/firmware/efi").exists() { "UEFI" } else { "BIOS" };
    let parts = [Some(product).filter(|text| !text.is_empty()), serial, memory, Some(firmware.into())];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_warnings_are_told_from_notices() {
        assert_eq!(kernel_warning("3,120,55,-;ata1: error\n SUBSYSTEM=x\n").as_deref(), Some("ata1: error"));
        assert_eq!(kernel_warning("12,121,55,-;user warning\n").as_deref(), Some("user warning"));
        assert_eq!(kernel_warning("6,122,55,-;usb 1-1: new device\n"), None);
        assert_eq!(kernel_warning("garbage"), None);
    }
}
