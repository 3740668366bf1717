//! Settings that matter on other hardware: clock, time zone, page files, crash dumps, new disks.
//!
//! `RealTimeIsUniversal` says that the hardware's clock is in UTC. `SanPolicy` of partmgr is `VDS_SAN_POLICY` (Vista
//! and later): what happens to disks that were not there before. `CrashDumpEnabled` and `AutoReboot`: Microsoft,
//! "Overview of memory dump file options" (254649). `PagingFiles`: paths with sizes in MB, `?:` for any drive.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fields::{Reader, answer};
use crate::Result;
use machine::Note;

/// `VDS_SAN_POLICY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SanPolicy {
    /// New disks come online.
    Online,
    /// Those on a shared bus stay offline: the default of Server editions.
    OfflineShared,
    /// All stay offline.
    Offline,
    /// Internal ones stay offline.
    OfflineInternal,
}

/// What a crash leaves: `CrashDumpEnabled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrashDump {
    /// Nothing.
    None,
    /// All memory.
    Complete,
    /// The kernel's memory.
    Kernel,
    /// A small dump.
    Small,
    /// The kernel's memory, the page file sized for it.
    Automatic,
}

/// Settings of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Whether the hardware's clock runs in UTC, else in local time.
    pub is_clock_utc: bool,
    /// The time zone's name.
    pub time_zone: Option<String>,
    /// Minutes from local standard time to UTC.
    pub bias_minutes: Option<i32>,
    /// Page files, as they are set.
    pub page_files: Vec<String>,
    /// Page files of the last start.
    pub existing_page_files: Vec<String>,
    /// Crash dumps, where that was set.
    pub crash_dump: Option<CrashDump>,
    /// Whether it restarts after a crash, where that was set.
    pub restarts_after_crash: Option<bool>,
    /// A dump file of its own, which needs its drive.
    pub dedicated_dump_file: Option<String>,
    /// What happens to new disks, where that was set.
    pub san_policy: Option<SanPolicy>,
}

impl Settings {
    pub(super) fn read(reader: &Reader<'_>) -> Result<Self> {
        let zone = reader.control("TimeZoneInformation")?;
        let memory = reader.control("Session Manager\\Memory Management")?;
        let crash = reader.control("CrashControl")?;
        let time_zone = match zone.text("TimeZoneKeyName")? {
            Some(name) => Some(name),
            None => zone.label("StandardName")?,
        };
        Ok(Self {
            is_clock_utc: zone.flag("RealTimeIsUniversal")?.unwrap_or(false),
            time_zone,
            bias_minutes: zone.number("Bias")?.map(u32::cast_signed),
            page_files: memory.texts("PagingFiles")?,
            existing_page_files: memory.texts("ExistingPageFiles")?,
            crash_dump: crash.number("CrashDumpEnabled")?.and_then(crash_dump),
            restarts_after_crash: crash.flag("AutoReboot")?,
            dedicated_dump_file: crash.text("DedicatedDumpFile")?,
            san_policy: reader.service("partmgr\\Parameters")?.number("SanPolicy")?.and_then(san_policy),
        })
    }

    pub(super) fn notes(&self, system_root: &str) -> Vec<Note> {
        let mut notes = Vec::new();
        notes.push(match self.is_clock_utc {
            true => Note::info("the clock runs in utc", "the VM's clock is defined in UTC"),
            false => Note::info("the clock runs in local time", "the VM's clock is defined in local time"),
        });
        let is_elsewhere = |path: &&String| {
            let path = path.strip_prefix("\\??\\").unwrap_or(path).to_ascii_uppercase();
            let drive = path.get(..2).filter(|drive| drive.ends_with(':') && *drive != "?:");
            drive.is_some_and(|drive| !system_root.to_ascii_uppercase().starts_with(drive))
        };
        let mut elsewhere: Vec<&String> = self.page_files.iter().filter(is_elsewhere).collect();
        elsewhere.extend(self.dedicated_dump_file.iter().filter(is_elsewhere));
        for file in elsewhere {
            notes.push(Note::info(
                format!("page or dump file on another drive: {file}"),
                "that drive must be among those that are converted, or Windows makes a small page file of its own",
            ));
        }
        if let Some(policy @ (SanPolicy::OfflineShared | SanPolicy::Offline | SanPolicy::OfflineInternal)) =
            self.san_policy
        {
            notes.push(Note::warning(
                format!("san policy: {policy}"),
                "to Windows the VM's disks are new ones: data disks stay offline until they are brought online",
            ));
        }
        if self.restarts_after_crash == Some(true) {
            notes.push(Note::info(
                "it restarts after a crash",
                "a stop code at the VM's first start is seen only if that is switched off",
            ));
        }
        notes
    }
}

fn crash_dump(number: u32) -> Option<CrashDump> {
    Some(match number {
        0 => CrashDump::None,
        1 => CrashDump::Complete,
        2 => CrashDump::Kernel,
        3 => CrashDump::Small,
        7 => CrashDump::Automatic,
        _ => return None,
    })
}

fn san_policy(number: u32) -> Option<SanPolicy> {
    Some(match number {
        1 => SanPolicy::Online,
        2 => SanPolicy::OfflineShared,
        3 => SanPolicy::Offline,
        4 => SanPolicy::OfflineInternal,
        _ => return None,
    })
}

impl fmt::Display for SanPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "new disks come online",
            Self::OfflineShared => "new disks on a shared bus stay offline",
            Self::Offline => "new disks stay offline",
            Self::OfflineInternal => "new internal disks stay offline",
        })
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "clock: {}", if self.is_clock_utc { "utc" } else { "local time" })?;
        let bias = self.bias_minutes.map(|bias| format!(", utc = local time {bias:+} minutes")).unwrap_or_default();
        writeln!(f, "time zone: {}{bias}", self.time_zone.as_deref().unwrap_or("not told"))?;
        writeln!(f, "page files: {}", self.page_files.join(", "))?;
        if !self.existing_page_files.is_empty() {
            writeln!(f, "page files of the last start: {}", self.existing_page_files.join(", "))?;
        }
        let dump = match self.crash_dump {
            None => "not set",
            Some(CrashDump::None) => "none",
            Some(CrashDump::Complete) => "complete",
            Some(CrashDump::Kernel) => "kernel",
            Some(CrashDump::Small) => "small",
            Some(CrashDump::Automatic) => "automatic",
        };
        writeln!(f, "crash dump: {dump}, restart after a crash: {}", answer(self.restarts_after_crash))?;
        if let Some(file) = &self.dedicated_dump_file {
            writeln!(f, "dedicated dump file: {file}")?;
        }
        match self.san_policy {
            Some(policy) => writeln!(f, "san policy: {policy}"),
            None => writeln!(f, "san policy: not set"),
        }
    }
}
