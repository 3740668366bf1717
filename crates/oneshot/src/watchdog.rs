//! What resets a machine that hangs: the timer in its BMC, which goes on counting while the machine is reset, or else its chipset's.
//!
//! A chipset's timer helps with kexec and in the boot image only. Most of its drivers stop it when their kernel hands over to another
//! (`watchdog_stop_on_reboot`), so that the first seconds of the boot image are watched by nobody; the boot image arms it again.
//! A timer that somebody else runs (systemd's `RuntimeWatchdogSec`, a daemon, `ipmi_watchdog`) is never taken away.

mod device;
mod ipmi;

use machine::push::Watchdog;

use crate::system::System;
use crate::{Error, ErrorKind, Result};
use device::Device;
use ipmi::Bmc;

/// Shortest time that is of any use, in seconds.
const SECONDS_MIN: u32 = 10;

/// The watchdog of this machine that could be armed; nothing is armed for it.
pub fn find(system: &System) -> Option<Watchdog> {
    if Bmc::open(system).is_ok() {
        let seconds_max = ipmi::SECONDS_MAX;
        return Some(Watchdog { name: ipmi::NAME.to_owned(), seconds_max, survives_reset: true });
    }
    let device = device::list(system).into_iter().find(|device| device.refusal().is_none())?;
    Some(Watchdog { name: device.identity, seconds_max: device.seconds_max, survives_reset: false })
}

/// Why watchdogs of this machine cannot be used, a sentence each.
pub(crate) fn refusals(system: &System) -> Vec<String> {
    let bmc = match Bmc::open(system) {
        Err(e) if e.kind == ErrorKind::Refused => Some(e.chain()),
        _ => None,
    };
    let devices = device::list(system);
    let devices = devices.iter().filter_map(|d| Some(format!("the watchdog {:?} {}", d.identity, d.refusal()?)));
    bmc.into_iter().chain(devices).collect()
}

/// A watchdog that counts, until it is fed or disarmed. Dropped, it goes on counting.
#[derive(Debug)]
pub struct Armed {
    timer: Timer,
    /// Time that it was set to, in seconds.
    seconds: u32,
}

#[derive(Debug)]
enum Timer {
    Bmc(Bmc),
    Device(device::Open),
}

/// Arms the watchdog of the machine in the boot image: it resets the machine after `seconds`, or after its own longest time where that is
/// shorter, if it is not fed.
///
/// # Errors
/// There is none, or it refuses.
pub fn arm(seconds: u32) -> Result<Armed> {
    let system = System::new("/run/vconverter");
    // Whoever ran it before the restart does not feed it any more.
    if let Ok(bmc) = Bmc::open_any(&system) {
        return arm_bmc(bmc, seconds);
    }
    let mut refusals = Vec::new();
    for device in device::list(&system) {
        // Ours may still count from before the restart; nobody else runs in the boot image.
        match arm_device(&device, seconds) {
            Ok(armed) => return Ok(armed),
            Err(e) => refusals.push(format!("{:?}: {}", device.identity, e.chain())),
        }
    }
    let why = if refusals.is_empty() { "there is none".to_owned() } else { refusals.join("; ") };
    Err(Error::new(ErrorKind::Refused, format!("no watchdog could be armed: {why}")))
}

fn arm_bmc(bmc: Bmc, seconds: u32) -> Result<Armed> {
    let seconds = seconds.clamp(SECONDS_MIN, ipmi::SECONDS_MAX);
    bmc.start(seconds)?;
    Ok(Armed { timer: Timer::Bmc(bmc), seconds })
}

fn arm_device(device: &Device, seconds: u32) -> Result<Armed> {
    let (open, seconds) = device.start(seconds.max(SECONDS_MIN))?;
    Ok(Armed { timer: Timer::Device(open), seconds })
}

impl Armed {
    /// Time that it was set to, in seconds; it is to be fed several times within that.
    pub fn seconds(&self) -> u32 {
        self.seconds
    }

    /// Starts its time again.
    ///
    /// # Errors
    /// It does not answer.
    pub fn feed(&mut self) -> Result<()> {
        match &mut self.timer {
            Timer::Bmc(bmc) => bmc.feed(),
            Timer::Device(device) => device.feed(),
        }
    }

    /// Stops it.
    ///
    /// # Errors
    /// It does not answer, or cannot be stopped once it counts.
    pub fn disarm(self) -> Result<()> {
        match self.timer {
            Timer::Bmc(bmc) => bmc.stop(),
            Timer::Device(device) => device.stop(),
        }
    }
}

/// Arms a watchdog on the machine's own system, right before it is restarted, and leaves it counting. `resets` says whether the firmware runs
/// on the way: then only a BMC's is of use. Says what was armed; nothing where there is none.
pub(crate) fn leave_counting(system: &System, seconds: u32, resets: bool) -> Result<Option<String>> {
    if !system.is_running() {
        return Ok(None);
    }
    if let Ok(bmc) = Bmc::open(system) {
        let armed = arm_bmc(bmc, seconds)?;
        return Ok(Some(format!("armed the watchdog of the BMC for {} s", armed.seconds)));
    }
    if resets {
        return Ok(None);
    }
    let Some(device) = device::list(system).into_iter().find(|device| device.refusal().is_none()) else {
        return Ok(None);
    };
    let armed = arm_device(&device, seconds)?;
    Ok(Some(format!("armed the watchdog {:?} for {} s", device.identity, armed.seconds)))
}

/// Stops what [`leave_counting`] left; says what was stopped.
pub(crate) fn stop_counting(system: &System, resets: bool) -> Result<Option<String>> {
    if !system.is_running() {
        return Ok(None);
    }
    if let Ok(bmc) = Bmc::open(system) {
        return Ok(bmc
            .is_counting()?
            .then(|| bmc.stop())
            .transpose()?
            .map(|()| "stopped the watchdog of the BMC".to_owned()));
    }
    if resets {
        return Ok(None);
    }
    // One that does not count is not opened: that would start it. One that cannot be stopped was not armed.
    let Some(device) = device::list(system).into_iter().find(|device| device.is_counting && device.can_be_stopped)
    else {
        return Ok(None);
    };
    match device.start(device.seconds_max) {
        Ok((open, _)) => open.stop().map(|()| Some(format!("stopped the watchdog {:?}", device.identity))),
        // Somebody has it open: it is theirs, and ours was not it.
        Err(e) if e.source.as_ref().and_then(std::io::Error::raw_os_error) == Some(libc::EBUSY) => Ok(None),
        Err(e) => Err(e),
    }
}
