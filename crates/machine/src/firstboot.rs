//! What a converted Windows does when it first starts: the plan that the converter leaves on its disk, and the report
//! that comes back. `guest` writes the plan, the program `vconverter-firstboot` carries it out.
//!
//! Everything of it lies in one folder and one service, so that it can be taken away whole.

mod network;
mod report;

pub use network::{AdapterSettings, Gateway, IpSettings, NetbiosMode, NetworkSettings, Route};
pub use report::{ReportLine, ReportedAdapter, StepReport, StepResult};

use serde::{Deserialize, Serialize};

use crate::ByteOffset;

/// Folder of everything, from the root of the system volume.
pub const FOLDER: &str = "/Program Files/vconverter/firstboot";
/// The program, in [`FOLDER`]: under one name on every architecture.
pub const PROGRAM: &str = "vconverter-firstboot.exe";
/// The plan, in [`FOLDER`]: [`Plan`] as JSON.
pub const PLAN_FILE: &str = "plan.json";
/// Folder of the staged driver packages, in [`FOLDER`].
pub const DRIVERS_FOLDER: &str = "drivers";
/// Folder of the operator's scripts, in [`FOLDER`].
pub const SCRIPTS_FOLDER: &str = "scripts";
/// How it went, below the system root (`C:\Windows`): [`ReportLine`] as JSON. It stays.
pub const RESULT_FILE: &str = "Temp/vconverter-firstboot-result.json";
/// The log, below the system root. It stays.
pub const LOG_FILE: &str = "Temp/vconverter-firstboot.log";

/// Name of the service: the key below `Services` of every control set.
pub const SERVICE: &str = "vconverter-firstboot";
/// Value `DisplayName` of the service.
pub const SERVICE_DISPLAY_NAME: &str = "vconverter first boot";
/// Value `ImagePath` of the service, of the type REG_EXPAND_SZ. Windows has services of its own that are written with this variable.
pub const SERVICE_IMAGE_PATH: &str = "\"%ProgramFiles%\\vconverter\\firstboot\\vconverter-firstboot.exe\" --service";
/// Value `ObjectName` of the service.
pub const SERVICE_ACCOUNT: &str = "LocalSystem";
/// Value `Type`: SERVICE_WIN32_OWN_PROCESS.
pub const SERVICE_TYPE: u32 = 0x10;
/// Value `Start`: SERVICE_AUTO_START.
pub const SERVICE_START: u32 = 2;
/// Value `ErrorControl`: SERVICE_ERROR_NORMAL.
pub const SERVICE_ERROR_CONTROL: u32 = 1;
/// Value `DependOnService`, of the type REG_MULTI_SZ: without these no driver can be installed, and netsh sets nothing.
pub const SERVICE_NEEDS: [&str; 3] = ["RpcSs", "PlugPlay", "nsi"];

/// Revision of [`Plan`] that this program writes and reads; plan and program come from one build.
pub const PLAN_VERSION: u32 = 1;
/// Largest plan, in bytes.
pub const PLAN_BYTES_MAX: u64 = 4 << 20;
/// Most restarts that a plan may allow.
pub const REBOOTS_MAX: u32 = 10;
/// Longest time that a script may be given, in seconds.
pub const SCRIPT_TIMEOUT_MAX_S: u32 = 24 * 3600;

/// What is to be done at the first start, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// Repeated in the report, so that no older one is taken for it. Letters, digits and `-` only.
    pub nonce: String,
    /// Certificates of drivers' publishers (X.509 in DER, from [`DRIVERS_FOLDER`], with `/`), to be trusted before anything is
    /// installed: of any publisher but Microsoft itself Windows would ask, on a screen that nobody sees. The trust stays.
    #[serde(default)]
    pub publishers: Vec<String>,
    /// Driver packages to install, in this order.
    #[serde(default)]
    pub drivers: Vec<StagedDriver>,
    /// Disks to bring online and to make writable, where Windows left them offline.
    #[serde(default)]
    pub disks: Vec<DiskSignature>,
    /// Drive letters that partitions had.
    #[serde(default)]
    pub mounts: Vec<MountRestore>,
    /// Instance ids of network adapters that are gone, to be removed before their names and addresses are given away:
    /// `PCI\VEN_14E4&DEV_1639&SUBSYS_02361028&REV_20\0024E8FFFE123456`. Only what is not there any more is removed.
    #[serde(default)]
    pub ghosts: Vec<String>,
    /// Network settings of the old adapters, to be given to the new ones.
    #[serde(default)]
    pub network: NetworkSettings,
    /// Programs to run when all of the above is done.
    #[serde(default)]
    pub scripts: Vec<Script>,
    /// Serial port that the report is written to: `COM1`.
    #[serde(default)]
    pub serial_port: Option<String>,
    /// How often the machine may be restarted when drivers or scripts ask for it; at most [`REBOOTS_MAX`].
    #[serde(default)]
    pub reboots_max: u32,
    /// What the converter left in the registry for this start alone.
    #[serde(default)]
    pub scaffolding: Scaffolding,
}

/// A driver package that lies ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedDriver {
    /// Its INF file, from [`DRIVERS_FOLDER`], with `/`: `virtio/netkvm/netkvm.inf`.
    pub inf: String,
}

/// How Windows knows a disk: by its partition table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "lowercase")]
pub enum DiskSignature {
    /// Four bytes at 0x1b8 of the Master Boot Record.
    Mbr {
        /// Little-endian.
        signature: u32,
    },
    /// Of the GPT header.
    Gpt {
        /// Disk GUID, lower case, without braces.
        disk_guid: String,
    },
}

/// How Windows knows a partition, as in `MountedDevices`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "lowercase")]
pub enum PartitionIdentity {
    /// Of a disk with a Master Boot Record.
    Mbr {
        /// Signature of the disk.
        signature: u32,
        /// First byte of the partition, from the start of the disk.
        offset: ByteOffset,
    },
    /// Of a disk with a GPT.
    Gpt {
        /// Unique partition GUID, lower case, without braces.
        partition_guid: String,
    },
}

/// The drive letter of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRestore {
    /// Which one.
    pub partition: PartitionIdentity,
    /// Its drive letter, upper case.
    pub letter: char,
}

/// A program of the operator's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Its name in [`SCRIPTS_FOLDER`]: `10-licence.cmd`. `.cmd`, `.bat`, `.exe` and `.ps1` are run, each in its own way.
    pub file: String,
    /// Seconds after which it and what it started are ended; at most [`SCRIPT_TIMEOUT_MAX_S`].
    pub timeout_s: u32,
}

/// What is in the registry for this start alone and taken away with the program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaffolding {
    /// Keys below `HKEY_LOCAL_MACHINE`, removed with all below them. They have `vconverter` in their last name, or stay.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Folders to be taken out of `DevicePath`, as they are written there.
    #[serde(default)]
    pub device_paths: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_starts_the_program_where_it_lies() {
        let path = format!("{}/{PROGRAM}", FOLDER.trim_start_matches("/Program Files")).replace('/', "\\");
        assert_eq!(SERVICE_IMAGE_PATH, format!("\"%ProgramFiles%{path}\" --service"));
    }

    #[test]
    fn nothing_but_the_defaults_is_needed_of_the_settings() {
        let settings = NetworkSettings::default();
        assert!(settings.adapters.is_empty() && settings.routes.is_empty());
        assert_eq!(NetbiosMode::default(), NetbiosMode::FromDhcp);
    }
}
