//! What the appliance is told, and what it answers: a job in its initramfs, lines of JSON on its second serial port.

use machine::{Disk, MacAddress, Machine, VolumePlace};
use serde::{Deserialize, Serialize};

use crate::{Outcome, Plan};

/// Where the appliance finds its [`Job`].
pub const JOB_PATH: &str = "/vconverter/job.json";
/// Where it finds the drivers for a Windows guest: a [`Library`](crate::windows::drivers::Library) of those that may fit.
pub const WINDOWS_DRIVERS_PATH: &str = "/vconverter/windows-drivers";
/// Where it finds the programs of the first boot, those of [`FirstBoot::PROGRAMS`](crate::windows::FirstBoot::PROGRAMS) that may fit.
pub const FIRST_BOOT_PATH: &str = "/vconverter/first-boot";
/// Where it finds the operator's scripts for the first boot.
pub const SCRIPTS_PATH: &str = "/vconverter/first-boot/scripts";

/// What to do with the disks that the appliance is started with.
///
/// They are the machine's disks in the order of [`Machine::disks`], on virtio-blk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What is wanted.
    pub mode: Mode,
    /// The machine that the disks come from, with those that it gets.
    pub facts: Machine,
    /// All disks that the source has, where that are more or other ones: names in the guest's tables mean these.
    #[serde(default)]
    pub source_disks: Vec<Disk>,
    /// What of them the VM does not have: positions are those of `source_disks`.
    #[serde(default)]
    pub absent: Vec<VolumePlace>,
    /// Ids of fix-ups that the operator refused.
    #[serde(default)]
    pub refused: Vec<String>,
    /// What a Windows guest gets.
    #[serde(default)]
    pub windows: WindowsJob,
}

/// What a Windows guest gets beside the fix-ups of its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WindowsJob {
    /// Hypervisors whose drivers it gets, out of [`WINDOWS_DRIVERS_PATH`].
    pub hypervisors: Vec<crate::windows::drivers::Hypervisor>,
    /// What runs at its first boot; `None` for nothing.
    pub first_boot: Option<FirstBootJob>,
}

/// What runs at the first boot of a Windows guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstBootJob {
    /// Repeated in its report.
    pub nonce: String,
    /// Names of the files in [`SCRIPTS_PATH`], in the order in which they are run.
    pub scripts: Vec<machine::firstboot::Script>,
}

impl Job {
    /// The machine as its guest knew it, with all disks that it had.
    pub fn source(&self) -> Machine {
        let disks = if self.source_disks.is_empty() { &self.facts.disks } else { &self.source_disks };
        Machine { disks: disks.clone(), ..self.facts.clone() }
    }
}

/// What an appliance does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Mode {
    /// Makes the plan and changes nothing: every filesystem is mounted read-only, journals are not replayed.
    Plan,
    /// Makes the plan and applies it.
    Apply,
    /// Adds the boot proof's probe, for a throw-away overlay only.
    Proof(crate::proof::Probe),
}

/// One line of the appliance's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// What it is doing.
    Log {
        /// For the operator.
        text: String,
    },
    /// The plan, before anything of it is applied.
    Plan {
        /// The plan.
        plan: Plan,
    },
    /// What became of one fix-up.
    Outcome {
        /// The outcome.
        outcome: Outcome,
    },
    /// It could not be done: the overlay must be thrown away.
    Failed {
        /// Why.
        reason: String,
    },
    /// All was done and every filesystem is unmounted.
    Done,
}

/// The probe's own line on the serial port of a machine being proved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeLine {
    /// [`crate::proof::Probe::nonce`].
    pub nonce: String,
    /// Host name of the running system.
    pub hostname: String,
    /// `uname -r`.
    pub kernel: String,
    /// PRETTY_NAME of os-release.
    pub product: String,
    /// SHA-256 of each `ssh_host_*_key.pub`, hexadecimal, by file name.
    pub host_keys: std::collections::BTreeMap<String, String>,
    /// Units that failed.
    pub failed_units: u32,
    /// Device of the root filesystem, as the kernel names it.
    pub root_device: String,
    /// `multi-user` if it was reached, `time` if the probe did not wait longer for it, `emergency` in that case with
    /// systemd's emergency or rescue mode.
    pub reached: String,
    /// MAC addresses by interface name.
    pub interfaces: std::collections::BTreeMap<String, MacAddress>,
}
