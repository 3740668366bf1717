//! The ways to start the boot image once: whether each can be taken on this machine, where its files go, and what is changed for it.
//!
//! A way that cannot be taken says why, a sentence each; whatever is not known to be so is taken to stand against it.

pub(crate) mod boot_next;
pub(crate) mod grub;
pub(crate) mod kexec;
pub(crate) mod systemd_boot;

use machine::ByteCount;
use machine::push::{PushOrder, Survey, Way, WayFinding};

use crate::efi::{self, Variables};
use crate::located::Located;
use crate::mounts::{self, Mount};
use crate::record::Change;
use crate::system::System;
use crate::{Error, ErrorKind, Result, hardware, network, watchdog};

/// What our entries are called where they need an identifier.
pub(crate) const ENTRY_ID: &str = "vconverter-boot-image";
/// The kernel, as it is staged.
pub(crate) const KERNEL: &str = "vmlinuz";
/// What the kernel unpacks, in this order; the last is made by `place`.
pub(crate) const ARCHIVES: [&str; 3] = ["initramfs.img", "configuration.img", RECORD_ARCHIVE];
/// The record, for the boot image.
pub(crate) const RECORD_ARCHIVE: &str = "record.img";
/// Files that nobody but root may read.
pub(crate) const SECRETS: [&str; 2] = ["configuration.img", RECORD_ARCHIVE];
/// Longest command line of a kernel in bytes (x86: `COMMAND_LINE_SIZE`, its end included).
const COMMAND_LINE_BYTES_MAX: usize = 2047;

/// What all ways ask for.
pub(crate) struct Facts<'a> {
    pub(crate) system: &'a System,
    pub(crate) variables: Variables<'a>,
    pub(crate) mounts: Vec<Mount>,
    /// Whether UEFI firmware started this kernel.
    pub(crate) is_uefi: bool,
    /// Whether the firmware starts only what is signed.
    pub(crate) is_secure_boot: bool,
}

/// A way that was looked at.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub(crate) refused: Vec<String>,
    pub(crate) notes: Vec<String>,
    /// Where its files go; `None` where they go to memory, or where no place was found.
    pub(crate) located: Option<Located>,
}

/// Where the files of a way go, and what is made besides them.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) located: Located,
    /// Folders that are made where they are not there, from the outside in; the last is the files'.
    pub(crate) folders: Vec<String>,
    /// Names of the staged files.
    pub(crate) staged: Vec<&'static str>,
    /// Files that are made: path and content.
    pub(crate) made: Vec<(String, String)>,
    /// A file of others that gets lines.
    pub(crate) lines: Option<(String, String)>,
    /// Folders and files of the boot path that nobody but us would change.
    pub(crate) watched: Vec<String>,
}

impl Layout {
    /// The folder of the files.
    pub(crate) fn folder(&self) -> &str {
        self.folders.last().map_or("", String::as_str)
    }
}

impl<'a> Facts<'a> {
    pub(crate) fn load(system: &'a System) -> Self {
        let variables = Variables::of(system);
        let is_secure_boot = variables.value(&efi::global("SecureBoot")).is_some_and(|value| value.first() == Some(&1));
        let is_uefi = system.path("/sys/firmware/efi").is_dir();
        Self { system, variables, mounts: mounts::load(system), is_uefi, is_secure_boot }
    }

    /// Looks at a way.
    pub(crate) fn look(&self, way: Way) -> Look {
        let mut look = match way {
            Way::BootNext => boot_next::look(self),
            Way::Kexec => kexec::look(self),
            Way::Grub => grub::look(self),
            Way::SystemdBoot => systemd_boot::look(self),
        };
        look.refused.extend(self.other_restart(way));
        look.notes.extend(look.located.as_ref().and_then(Located::openness));
        look.refused.extend(look.located.as_ref().and_then(Located::refusal));
        look.refused.splice(0..0, self.common_refusals());
        look
    }

    /// A sentence if the firmware is told already what it starts next.
    pub(crate) fn other_restart(&self, way: Way) -> Option<String> {
        let is_set = way.resets() && self.is_uefi && self.variables.value(&efi::global("BootNext")).is_some();
        is_set.then(|| "BootNext is set already: the next restart is somebody else's".to_owned())
    }

    /// Where the files of a way go, and what is made besides.
    pub(crate) fn layout(&self, order: &PushOrder, located: Located) -> Result<Layout> {
        check_command_line(&order.command_line)?;
        match order.way {
            Way::BootNext => Ok(boot_next::layout(located, &order.command_line)),
            Way::Grub => Ok(grub::layout(self, located, &order.command_line)),
            Way::SystemdBoot => Ok(systemd_boot::layout(located, &order.command_line)),
            Way::Kexec => Err(Error::new(ErrorKind::Refused, "kexec puts no files on a disk")),
        }
    }

    /// What arming a way changes, as the machine is now.
    ///
    /// # Errors
    /// Something that it needs is not there any more.
    pub(crate) fn arming(&self, way: Way, located: &Located) -> Result<Vec<Change>> {
        match way {
            Way::BootNext => boot_next::arming(self, located),
            Way::Grub => grub::arming(located),
            Way::SystemdBoot => systemd_boot::arming(self),
            Way::Kexec => Ok(Vec::new()),
        }
    }

    fn common_refusals(&self) -> Vec<String> {
        let mut refused = Vec::new();
        if self.system.is_running() && !rustix::process::geteuid().is_root() {
            refused.push("the agent does not run as root".to_owned());
        }
        if let Some(what) = self.container() {
            refused.push(format!("the agent runs in a container ({what}), not on the machine"));
        }
        let architecture = self.system.text("/proc/sys/kernel/arch");
        let is_other = architecture.is_some_and(|text| text.trim() != "x86_64");
        if is_other || !cfg!(target_arch = "x86_64") {
            refused.push("the boot image is for x86_64, this machine is not".to_owned());
        }
        if self.system.text("/sys/hypervisor/type").is_some_and(|text| text.trim() == "xen") && !self.is_xen_hvm() {
            refused.push("the machine runs under Xen without virtual firmware, or is its dom0".to_owned());
        }
        refused
    }

    fn is_xen_hvm(&self) -> bool {
        self.system.text("/sys/hypervisor/guest_type").is_some_and(|text| ["HVM", "PVH"].contains(&text.trim()))
    }

    fn container(&self) -> Option<String> {
        let exists = |path: &str| self.system.path(path).exists();
        if let Some(what) = self.system.text("/run/systemd/container") {
            return Some(what.trim().to_owned());
        }
        let found = ["/.dockerenv", "/run/.containerenv"].into_iter().find(|path| exists(path));
        if let Some(found) = found {
            return Some(found.to_owned());
        }
        let environment = self.system.text("/proc/1/environ").unwrap_or_default();
        if let Some(what) = environment.split('\0').find_map(|line| line.strip_prefix("container=")) {
            return Some(what.to_owned());
        }
        (exists("/proc/vz") && !exists("/proc/bc")).then(|| "OpenVZ".to_owned())
    }
}

/// Finds out how the boot image could be started on this machine. Changes nothing; the driver of a BMC that the firmware tells of is loaded.
pub fn survey(system: &System) -> Survey {
    let facts = Facts::load(system);
    let watchdog = watchdog::find(system);
    let busy_watchdogs = watchdog::refusals(system);
    let ways = Way::ALL.map(|way| {
        let look = facts.look(way);
        let mut notes = look.notes;
        if watchdog.is_none() {
            notes.extend(busy_watchdogs.iter().cloned());
        }
        let room = look.located.and_then(|located| located.free_bytes()).map(ByteCount);
        WayFinding { way, refused: look.refused, notes, room }
    });
    // What only the agent knows is left to it.
    #[allow(clippy::needless_update)]
    Survey {
        // Whoever asks knows it.
        controller: String::new(),
        ways: ways.into(),
        installed: hardware::state_survives_restart(system, &facts.mounts),
        watchdog,
        modaliases: hardware::modaliases(system),
        drivers: hardware::drivers(system, &facts.mounts),
        network: network::load_identity(system),
        ..Survey::default()
    }
}

/// A command line that means the same to every boot loader, whatever its language makes of quotes and the like.
pub(crate) fn check_command_line(text: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" ._,:=/@%+-[]".contains(&byte);
    let wrong = text.bytes().position(|byte| !is_plain(byte));
    let what = match wrong {
        Some(at) => format!("at {at}: expected letters, digits, spaces and ._,:=/@%+-[]"),
        None if text.len() > COMMAND_LINE_BYTES_MAX => {
            format!("expected at most {COMMAND_LINE_BYTES_MAX} bytes, found {}", text.len())
        }
        None => return Ok(()),
    };
    Err(Error::new(ErrorKind::Refused, format!("command line: {what}")))
}

/// A sentence if there is something in our folder already.
fn leftovers(located: &Located, folder: &str) -> Option<String> {
    let names = std::fs::read_dir(located.place(folder)).into_iter().flatten().flatten();
    let name = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).next()?;
    let point = located.mount.point.display();
    Some(format!("{folder} on {point} has files already ({name}): an earlier push left them, and its record is gone"))
}

#[cfg(test)]
mod tests;
