//! Starts and watches one QEMU process: what hardware it shows, its serial ports, its screen, and how it ended. A TPM is
//! another process beside it.
//!
//! A [`Hardware`] is a value; [`Hardware::start`] makes a [`Vm`] of it. Dropping the `Vm` kills the process, and the
//! kernel kills it when our process dies. Nothing here knows what runs inside: no guest, no image format, no network
//! besides handing over a tap's name. Everything is synchronous; waits have time limits.

mod accelerator;
mod command;
mod error;
mod firmware;
mod hardware;
mod picture;
mod process;
mod qmp;
mod scratch;
mod serial;
mod tpm;
mod vm;

pub use accelerator::Accelerator;
pub use error::{Error, ErrorKind, Result};
pub use firmware::{Firmware, OvmfFiles, find_ovmf};
pub use hardware::{
    Clock, Confinement, DirectBoot, Disk, DiskBus, FwCfg, Hardware, HbaModel, Image, MachineType, Nic, NicBackend,
    NicModel, OnReset, SerialPort, Smbios, WatchdogModel,
};
pub use picture::Picture;
pub use process::{Exit, ExitKind, die_with_us};
pub use qmp::{Event, Qmp};
pub use serial::{Serial, SerialReader};
pub use tpm::has_tpms;
pub use vm::Vm;
