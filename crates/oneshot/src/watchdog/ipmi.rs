//! The watchdog timer of a BMC (IPMI 2.0, section 27) through the kernel's `/dev/ipmi0` (`include/uapi/linux/ipmi.h`).
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::system::System;
use crate::{Error, ErrorKind, Result};

/// As a watchdog of this kind is called.
pub(super) const NAME: &str = "IPMI";
/// The timer counts tenths of a second in 16 bits.
pub(super) const SECONDS_MAX: u32 = 6553;

const DEVICES: [&str; 3] = ["/dev/ipmi0", "/dev/ipmi/0", "/dev/ipmidev/0"];
/// Time for a device node to appear once its module is loaded.
const NODE_WAIT: Duration = Duration::from_secs(2);
/// Time for an answer of the BMC.
const ANSWER_MS: i32 = 5_000;

const NETFN_APPLICATION: u8 = 0x06;
const RESET_WATCHDOG: u8 = 0x22;
const SET_WATCHDOG: u8 = 0x24;
const GET_WATCHDOG: u8 = 0x25;

const USE_OS_LOAD: u8 = 3;
const USE_SYSTEM: u8 = 4;
const USE_OEM: u8 = 5;
const USE_MASK: u8 = 7;
const DO_NOT_LOG: u8 = 1 << 7;
const IS_COUNTING: u8 = 1 << 6;
const ACTION_NONE: u8 = 0;
const ACTION_HARD_RESET: u8 = 1;
/// Clears the expiration flag of the use "OS load".
const CLEAR_OS_LOAD: u8 = 1 << USE_OS_LOAD;

/// A BMC whose watchdog is free, or ours.
#[derive(Debug)]
pub(super) struct Bmc {
    /// `None` in a picture of a machine.
    device: Option<File>,
}

/// What the BMC says of its timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TimerState {
    timer_use: u8,
    is_counting: bool,
}

impl TimerState {
    /// Whether a running system feeds it. What the firmware's self-test left counting is nobody's any more.
    fn is_of_others(self) -> bool {
        self.is_counting && [USE_SYSTEM, USE_OEM].contains(&self.timer_use)
    }
}

impl Bmc {
    /// Opens the BMC of this machine if its watchdog is free, or ours.
    pub(super) fn open(system: &System) -> Result<Self> {
        let bmc = Self::open_any(system)?;
        if bmc.device.is_some() && bmc.state()?.is_of_others() {
            return Err(Error::new(ErrorKind::Refused, "the watchdog of the BMC is run by somebody else"));
        }
        Ok(bmc)
    }

    /// Opens the BMC of this machine, whoever had its watchdog last; its driver is loaded where the firmware says that there is one.
    pub(super) fn open_any(system: &System) -> Result<Self> {
        let none = || Error::new(ErrorKind::Io, "there is no BMC");
        let mut node = find_node(system);
        if node.is_none() && system.is_running() && firmware_has_bmc(system) {
            node = load_driver(system);
        }
        let node = node.ok_or_else(none)?;
        if !system.is_running() {
            return Ok(Self { device: None });
        }
        let device =
            OpenOptions::new().read(true).write(true).open(&node).map_err(|e| Error::path("open", &node, e))?;
        let bmc = Self { device: Some(device) };
        // One that does not answer is none.
        bmc.state()?;
        Ok(bmc)
    }

    /// Whether our timer counts.
    pub(super) fn is_counting(&self) -> Result<bool> {
        self.state().map(|state| state.is_counting && state.timer_use == USE_OS_LOAD)
    }

    /// Sets the time, and starts it.
    pub(super) fn start(&self, seconds: u32) -> Result<()> {
        self.ask(SET_WATCHDOG, &set_request(ACTION_HARD_RESET, seconds))?;
        self.feed()
    }

    /// Starts the time again.
    pub(super) fn feed(&self) -> Result<()> {
        self.ask(RESET_WATCHDOG, &[]).map(drop)
    }

    /// Stops the timer: to set one does that.
    pub(super) fn stop(&self) -> Result<()> {
        self.ask(SET_WATCHDOG, &set_request(ACTION_NONE, 0)).map(drop)
    }

    fn state(&self) -> Result<TimerState> {
        parse_state(&self.ask(GET_WATCHDOG, &[])?)
    }

    /// Sends a command, and returns what follows the completion code of its answer.
    fn ask(&self, command: u8, data: &[u8]) -> Result<Vec<u8>> {
        let device = self.device.as_ref().ok_or_else(|| Error::new(ErrorKind::Io, "there is no BMC"))?;
        let answer = exchange(device, command, data).map_err(|e| Error {
            kind: ErrorKind::Io,
            context: format!("ask the BMC for command {command:#04x}"),
            source: Some(e),
        })?;
        match answer.split_first() {
            Some((0, rest)) => Ok(rest.to_vec()),
            Some((code, _)) => {
                Err(Error::new(ErrorKind::Io, format!("the BMC answers command {command:#04x} with code {code:#04x}")))
            }
            None => Err(Error::new(ErrorKind::Malformed, format!("the BMC's answer to {command:#04x} is empty"))),
        }
    }
}

/// Set Watchdog Timer (section 27.6): use, action, pre-timeout in seconds, flags to clear, countdown in tenths of a second.
fn set_request(action: u8, seconds: u32) -> [u8; 6] {
    let tenths = u16::try_from(seconds.min(SECONDS_MAX) * 10).unwrap_or(u16::MAX).to_le_bytes();
    [DO_NOT_LOG | USE_OS_LOAD, action, 0, CLEAR_OS_LOAD, tenths[0], tenths[1]]
}

/// Get Watchdog Timer (section 27.7), after the completion code.
fn parse_state(answer: &[u8]) -> Result<TimerState> {
    let Some(first) = answer.first().filter(|_| answer.len() >= 8) else {
        let what = format!("the BMC's watchdog: expected 8 bytes, found {}", answer.len());
        return Err(Error::new(ErrorKind::Malformed, what));
    };
    Ok(TimerState { timer_use: first & USE_MASK, is_counting: first & IS_COUNTING != 0 })
}

fn find_node(system: &System) -> Option<PathBuf> {
    DEVICES.iter().map(|name| system.path(name)).find(|path| path.exists())
}

/// Whether SMBIOS (type 38), ACPI (SPMI, IPI0001) or a driver that is loaded tells of a BMC: without that its driver would look for one at guessed ports.
fn firmware_has_bmc(system: &System) -> bool {
    let exists = |path: &str| system.path(path).exists();
    exists("/sys/firmware/dmi/entries/38-0")
        || exists("/sys/firmware/acpi/tables/SPMI")
        || system.list("/sys/bus/acpi/devices").iter().any(|name| name.starts_with("IPI0001"))
        || system.list("/sys/devices/platform").iter().any(|name| name.starts_with("ipmi_bmc"))
}

fn load_driver(system: &System) -> Option<PathBuf> {
    for module in ["ipmi_si", "ipmi_devintf"] {
        let mut command = Command::new("modprobe");
        let command = command.arg(module).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().ok()?.success().then_some(())?;
    }
    let end = Instant::now() + NODE_WAIT;
    loop {
        let node = find_node(system);
        if node.is_some() || Instant::now() >= end {
            return node;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `struct ipmi_system_interface_addr`.
#[repr(C)]
struct Address {
    kind: i32,
    channel: i16,
    lun: u8,
}

/// `struct ipmi_msg`.
#[repr(C)]
struct Message {
    netfn: u8,
    command: u8,
    data_length: u16,
    data: *mut u8,
}

/// `struct ipmi_req`.
#[repr(C)]
struct Request {
    address: *mut Address,
    address_length: u32,
    id: libc::c_long,
    message: Message,
}

/// `struct ipmi_recv`.
#[repr(C)]
struct Received {
    kind: i32,
    address: *mut u8,
    address_length: u32,
    id: libc::c_long,
    message: Message,
}

/// `_IOR('i', 13, struct ipmi_req)` on 64-bit machines.
const SEND_COMMAND: libc::Ioctl = 0x8028_690d;
/// `_IOWR('i', 11, struct ipmi_recv)`, likewise.
const RECEIVE_TRUNCATED: libc::Ioctl = 0xc030_690b;
const SYSTEM_INTERFACE: i32 = 0x0c;
const BMC_CHANNEL: i16 = 0x0f;
const MESSAGE_BYTES_MAX: u16 = 272;
const ADDRESS_BYTES_MAX: u32 = 40;
/// Answers to others' commands that are passed over.
const ANSWERS_MAX: usize = 16;

fn exchange(device: &File, command: u8, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut data = data.to_vec();
    let mut address = Address { kind: SYSTEM_INTERFACE, channel: BMC_CHANNEL, lun: 0 };
    let id = libc::c_long::from(command);
    let data_length = u16::try_from(data.len()).map_err(io::Error::other)?;
    let address_length = u32::try_from(size_of::<Address>()).map_err(io::Error::other)?;
    let message = Message { netfn: NETFN_APPLICATION, command, data_length, data: data.as_mut_ptr() };
    let mut request = Request { address: &raw mut address, address_length, id, message };
    // SAFETY: the request and what it points to are valid for the call and have the lengths that it says.
    if unsafe { libc::ioctl(device.as_raw_fd(), SEND_COMMAND, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for _ in 0..ANSWERS_MAX {
        wait(device)?;
        let mut sender = [0_u8; ADDRESS_BYTES_MAX as usize];
        let mut answer = [0_u8; MESSAGE_BYTES_MAX as usize];
        let message = Message { netfn: 0, command: 0, data_length: MESSAGE_BYTES_MAX, data: answer.as_mut_ptr() };
        let mut received =
            Received { kind: 0, address: sender.as_mut_ptr(), address_length: ADDRESS_BYTES_MAX, id: 0, message };
        // SAFETY: as above; the kernel writes at most the lengths that are given.
        if unsafe { libc::ioctl(device.as_raw_fd(), RECEIVE_TRUNCATED, &raw mut received) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if received.id == id && received.message.command == command {
            return Ok(answer[..usize::from(received.message.data_length).min(answer.len())].to_vec());
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer among others' answers"))
}

fn wait(device: &File) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid structure.
    match unsafe { libc::poll(&raw mut poll, 1, ANSWER_MS) } {
        1 => Ok(()),
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_is_set_for_os_load_with_a_hard_reset() {
        assert_eq!(set_request(ACTION_HARD_RESET, 600), [0x83, 0x01, 0, 0x08, 0x70, 0x17]);
        assert_eq!(set_request(ACTION_HARD_RESET, u32::MAX), [0x83, 0x01, 0, 0x08, 0xfa, 0xff], "6553 s");
        assert_eq!(set_request(ACTION_NONE, 0), [0x83, 0, 0, 0x08, 0, 0]);
    }

    #[test]
    fn a_timer_that_counts_is_known() {
        let state = |first| parse_state(&[first, 1, 0, 0, 0x70, 0x17, 0x70, 0x17]);
        assert_eq!(state(0x43).unwrap(), TimerState { timer_use: 3, is_counting: true });
        assert_eq!(state(0x84).unwrap(), TimerState { timer_use: 4, is_counting: false });
        assert!(parse_state(&[0x43; 7]).is_err());
        for (first, is_of_others) in [(0x43, false), (0x44, true), (0x04, false), (0xc5, true), (0x42, false)] {
            assert_eq!(state(first).unwrap().is_of_others(), is_of_others, "{first:#x}");
        }
    }

    #[test]
    fn structures_have_the_sizes_that_the_requests_name() {
        assert_eq!(size_of::<Request>() as u64, SEND_COMMAND >> 16 & 0x3fff);
        assert_eq!(size_of::<Received>() as u64, RECEIVE_TRUNCATED >> 16 & 0x3fff);
    }
}
