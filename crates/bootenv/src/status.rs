//! What the machine is doing, as one value that everyone reports to and the screen is drawn from.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use machine::{IpNet, MacAddress};

use crate::agent::AgentLine;
use crate::disks::DiskFacts;
use crate::screens::Shown;
use crate::unclaimed::Unclaimed;

/// What is shown of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicStatus {
    /// Name in this kernel.
    pub name: String,
    /// Kernel driver.
    pub driver: String,
    /// Hardware address.
    pub mac: MacAddress,
    /// Whether there is a link.
    pub link: bool,
    /// Speed and duplex, `1000/full`, where the driver says them.
    pub speed: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// What it does, or what is missing.
    pub note: String,
}

/// Everything that is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// `Linux 6.1.0-25-amd64`
    pub kernel: String,
    /// Maker, product, serial number, memory, firmware.
    pub machine: String,
    /// The operating system found on the disks, or how far looking for it is.
    pub guest: String,
    /// Interfaces by the kernel's number.
    pub nics: BTreeMap<u32, NicStatus>,
    /// Disks by name.
    pub disks: Vec<DiskFacts>,
    /// Devices that no driver claimed.
    pub unclaimed: Vec<Unclaimed>,
    /// What the Device Installer is at.
    pub installing: Option<String>,
    /// What it did last, a line for each file.
    pub installed: Vec<String>,
    /// The controller, or that it is not known.
    pub controller: String,
    /// The agent's last word.
    pub agent: AgentLine,
    /// How the boot path of the machine's own system is, where the boot image was pushed.
    pub boot_path: Option<String>,
    /// When the machine's own system is started again, and why, where the boot image was pushed.
    pub deadline: Option<String>,
    /// What was read of the copy, by disk.
    pub copies: BTreeMap<String, (u64, u64)>,
    /// Whether the controller can be reached, as far as that was tried.
    pub reachability: Option<Reachability>,
    /// What became of saving the settings.
    pub saved: Option<String>,
    /// What is shown instead of the status.
    pub shown: Option<Shown>,
    /// A question to whoever stands there, with what was typed so far.
    pub question: Option<Question>,
}

/// What a test of the way to the controller gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reachability {
    /// Whether something answers there.
    pub reached: bool,
    /// In words.
    pub text: String,
}

/// A question on the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub text: String,
    /// What was wrong with the last answer.
    pub complaint: String,
    /// What was typed so far.
    pub typed: String,
}

/// The shared [`Picture`].
#[derive(Debug, Default)]
pub struct Status {
    state: Mutex<(u64, Picture)>,
    changed: Condvar,
    /// When the main loop last gave a sign of life.
    sign: Mutex<Option<Instant>>,
}

impl Status {
    /// Changes the picture; who waits for a change is woken only if there is one.
    pub fn update(&self, change: impl FnOnce(&mut Picture)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.1.clone();
        change(&mut state.1);
        if state.1 != before {
            state.0 += 1;
            self.changed.notify_all();
        }
    }

    /// Sets or removes an interface.
    pub fn set_nic(&self, index: u32, nic: Option<NicStatus>) {
        self.update(|picture| {
            match nic {
                Some(nic) => picture.nics.insert(index, nic),
                None => picture.nics.remove(&index),
            };
        });
    }

    /// The main loop is alive.
    pub fn sign(&self) {
        *self.sign.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago the main loop gave a sign of life; before its first, how long ago this was asked first.
    pub fn silent(&self) -> Duration {
        self.sign.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now).elapsed()
    }

    /// The picture as it is.
    pub fn picture(&self) -> Picture {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Waits until the picture differs from the one numbered `seen`, at most for `timeout`; number and picture now.
    pub fn wait(&self, seen: u64, timeout: Duration) -> (u64, Picture) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, timeout, |state| state.0 == seen);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (state.0, state.1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_numbered_and_a_repetition_is_not() {
        let status = Status::default();
        status.update(|picture| picture.guest = "x".into());
        let (first, picture) = status.wait(0, Duration::from_secs(5));
        assert_eq!(picture.guest, "x");
        status.update(|picture| picture.guest = "x".into());
        assert_eq!(status.wait(first, Duration::from_millis(1)).0, first);
    }
}
