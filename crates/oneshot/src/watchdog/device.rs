//! Watchdogs of the chipset (Linux, `Documentation/watchdog/watchdog-api.rst`). To open one starts it, so that sysfs is read to find one.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::system::System;
use crate::{Error, Result};

const CLASS: &str = "/sys/class/watchdog";
/// The kernel's own timer: it hangs with the kernel.
const SOFTWARE: &str = "Software Watchdog";
/// What a driver is set to that does not tell its longest time.
const SECONDS_UNKNOWN: u32 = 60;

/// `_IOWR('W', 6, int)`.
const SET_TIMEOUT: libc::Ioctl = 0xc004_5706;
/// `_IOR('W', 5, int)`.
const KEEP_ALIVE: libc::Ioctl = 0x8004_5705;

/// A watchdog as sysfs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    node: PathBuf,
    /// As its driver calls it.
    pub(super) identity: String,
    /// Longest time in seconds; where an older kernel does not tell it, what it is set to, which is shorter.
    pub(super) seconds_max: u32,
    /// Whether the driver told.
    is_max_known: bool,
    /// Whether somebody started it.
    pub(super) is_counting: bool,
    /// Whether it can be stopped once it counts.
    pub(super) can_be_stopped: bool,
}

/// One that was started.
#[derive(Debug)]
pub(super) struct Open {
    file: File,
    node: PathBuf,
}

/// Watchdogs of this machine, those in software left out. A kernel that does not show them in sysfs (before 4.5) has none for us.
pub(super) fn list(system: &System) -> Vec<Device> {
    system.list(CLASS).iter().filter_map(|name| load(system, name)).filter(|d| d.identity != SOFTWARE).collect()
}

fn load(system: &System, name: &str) -> Option<Device> {
    let read = |file: &str| system.text(Path::new(CLASS).join(name).join(file)).map(|text| text.trim().to_owned());
    let identity = read("identity").filter(|identity| !identity.is_empty())?;
    let number = |file: &str| read(file).and_then(|text| text.parse::<u32>().ok()).filter(|n| *n > 0);
    Some(Device {
        node: system.path(Path::new("/dev").join(name)),
        identity,
        seconds_max: number("max_timeout").or_else(|| number("timeout")).unwrap_or(SECONDS_UNKNOWN),
        is_max_known: number("max_timeout").is_some(),
        is_counting: read("state").is_none_or(|state| state != "inactive"),
        can_be_stopped: read("nowayout").is_some_and(|nowayout| nowayout == "0"),
    })
}

impl Device {
    /// Why it cannot be used on a machine that runs its own system.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        if self.is_counting {
            Some("is run by somebody else (systemd's RuntimeWatchdogSec, or a daemon)")
        } else if !self.can_be_stopped {
            Some("cannot be stopped once it counts (nowayout)")
        } else {
            None
        }
    }

    /// Opens it, which starts it, and sets its time; returns the time that it took. One that does not tell its longest time is
    /// asked for what is wanted, and then for less.
    pub(super) fn start(&self, seconds: u32) -> Result<(Open, u32)> {
        let error = |e| Error::path("open", &self.node, e);
        let file = OpenOptions::new().write(true).open(&self.node).map_err(error)?;
        let open = Open { file, node: self.node.clone() };
        let seconds = if self.is_max_known { seconds.min(self.seconds_max) } else { seconds };
        let mut value = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
        while let Err(e) = request(&open.file, SET_TIMEOUT, &mut value) {
            // A driver that did not tell its longest time refuses longer ones.
            value /= 2;
            if e.raw_os_error() != Some(libc::EINVAL) || value < 1 {
                let error = Error::path("set the time of", &self.node, e);
                // What counts and cannot be set is not left behind.
                let _ = open.stop();
                return Err(error);
            }
        }
        let mut open = open;
        open.feed()?;
        Ok((open, u32::try_from(value).unwrap_or(seconds)))
    }
}

impl Open {
    pub(super) fn feed(&mut self) -> Result<()> {
        request(&self.file, KEEP_ALIVE, &mut 0).map_err(|e| Error::path("feed", &self.node, e))
    }

    /// Stops it: the letter says that the close is meant.
    pub(super) fn stop(mut self) -> Result<()> {
        self.file.write_all(b"V").map_err(|e| Error::path("stop", &self.node, e))
    }
}

fn request(file: &File, request: libc::Ioctl, value: &mut libc::c_int) -> io::Result<()> {
    // SAFETY: both requests read and write one int at the address, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, std::ptr::from_mut(value)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(folder: &Path, watchdogs: &[(&str, &[(&str, &str)])]) -> System {
        for (name, files) in watchdogs {
            let place = folder.join("sys/class/watchdog").join(name);
            std::fs::create_dir_all(&place).unwrap();
            for (file, text) in *files {
                std::fs::write(place.join(file), format!("{text}\n")).unwrap();
            }
        }
        System::with_root(folder, folder.join("state"))
    }

    #[test]
    fn a_chipset_that_nobody_uses_is_found_and_the_kernels_own_timer_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let softdog = [("identity", SOFTWARE), ("state", "inactive"), ("nowayout", "0")];
        let chipset = [("identity", "iTCO_wdt"), ("state", "inactive"), ("nowayout", "0"), ("max_timeout", "613")];
        let system = system(folder.path(), &[("watchdog0", &softdog), ("watchdog1", &chipset)]);
        let found = crate::watchdog::find(&system).unwrap();
        assert_eq!((found.name.as_str(), found.seconds_max, found.survives_reset), ("iTCO_wdt", 613, false));
        assert_eq!(crate::watchdog::refusals(&system), Vec::<String>::new());
    }

    #[test]
    fn one_that_is_used_or_cannot_be_stopped_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let used = [("identity", "iTCO_wdt"), ("state", "active"), ("nowayout", "0")];
        let forever = [("identity", "hpwdt"), ("state", "inactive"), ("nowayout", "1")];
        let old = [("identity", "old")];
        let system = system(folder.path(), &[("watchdog0", &used), ("watchdog1", &forever), ("watchdog2", &old)]);
        assert_eq!(crate::watchdog::find(&system), None);
        let refusals = crate::watchdog::refusals(&system);
        println!("{refusals:?}");
        assert!(refusals[0].contains("RuntimeWatchdogSec") && refusals[1].contains("nowayout"));
    }

    #[test]
    fn a_bmc_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let chipset = [("identity", "iTCO_wdt"), ("state", "inactive"), ("nowayout", "0")];
        let system = system(folder.path(), &[("watchdog0", &chipset)]);
        std::fs::create_dir(folder.path().join("dev")).unwrap();
        std::fs::write(folder.path().join("dev/ipmi0"), "").unwrap();
        assert!(crate::watchdog::find(&system).unwrap().survives_reset);
    }
}
