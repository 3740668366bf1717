//! The running Windows, as the steps see it: so that their order, their failures and restarts are tested without one.

use std::time::Duration;

use machine::firstboot::{DiskSignature, StepResult};

use crate::Result;
use crate::adapters::Adapter;
use crate::command::CommandLine;
use crate::letters::{LetterChange, VolumeSeen};
use crate::network::RegistryValue;

/// Most of a program's output that is kept, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// How a program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: u32,
    /// What it wrote, at most [`OUTPUT_BYTES_MAX`].
    pub output: String,
}

/// What the report says of the system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// DNS host name.
    pub hostname: String,
    /// `ProductName`.
    pub product: String,
    /// `6.1.7601`.
    pub version: String,
    /// `C:`.
    pub boot_drive: String,
}

/// The running system.
///
/// Of every method: [`crate::ErrorKind::Stopping`] where the service is to stop meanwhile.
pub trait System {
    /// Waits until Windows has found the devices that it starts with, at most `patience`.
    fn wait_for_devices(&mut self, patience: Duration) -> Result<()>;
    /// Runs a program to its end with all that it starts, in the folder of scripts; [`crate::ErrorKind::TimedOut`] past `patience`.
    fn run(&mut self, command: &CommandLine, patience: Duration) -> Result<Ended>;
    /// The command that installs the driver package whose INF file is at `inf`, from the folder of drivers.
    fn driver_command(&self, inf: &str) -> CommandLine;
    /// The command that runs the script `file`.
    fn script_command(&self, file: &str) -> CommandLine;
    /// The adapters that are there.
    fn adapters(&mut self) -> Result<Vec<Adapter>>;
    /// Writes a value of the registry.
    fn set_value(&mut self, value: &RegistryValue) -> Result<()>;
    /// Trusts the publisher whose certificate is at `file`, from the folder of drivers.
    fn trust_publisher(&mut self, file: &str) -> Result<StepResult>;
    /// Brings a disk online and makes it writable.
    fn bring_online(&mut self, disk: &DiskSignature) -> Result<StepResult>;
    /// The volumes that are there.
    fn volumes(&mut self) -> Result<Vec<VolumeSeen>>;
    /// Changes a letter.
    fn change_letter(&mut self, change: &LetterChange) -> Result<()>;
    /// Removes an adapter that is gone; one that is there stays.
    fn remove_ghost(&mut self, instance_id: &str) -> Result<StepResult>;
    /// Facts for the report; what is not known is empty.
    fn facts(&mut self) -> Facts;
    /// Writes `line` to a serial port.
    fn write_serial(&mut self, port: &str, line: &str) -> Result<()>;
    /// Asks for a restart, after which this program is started again.
    fn restart(&mut self) -> Result<()>;
    /// Waits.
    fn sleep(&mut self, time: Duration) -> Result<()>;
    /// Takes away the scaffolding, the service and the folder, as far as it goes; a line for each thing.
    fn remove(&mut self, scaffolding: &machine::firstboot::Scaffolding) -> Vec<String>;
}
