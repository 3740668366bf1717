//! What Windows guests get of this machine: drivers out of the library, and scripts for their first boot.

use std::fs;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use controller::DataDirectory;
use conversion::{Error, ErrorKind, Hypervisor, WindowsGuests};

use crate::windows_drivers;

/// For Windows guests, in a local conversion.
#[derive(Debug, Args)]
pub(crate) struct WindowsArguments {
    /// SOURCE only: library of drivers for a Windows guest [default: windows-drivers in the data directory]
    #[arg(long, value_name = "FOLDER")]
    library: Option<PathBuf>,
    /// SOURCE only: hypervisors that a Windows guest gets drivers for, with commas between [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    hypervisors: Vec<HypervisorName>,
    /// SOURCE only: program that a Windows guest runs at its first boot (.cmd, .bat, .exe, .ps1); can be given more than once
    /// [default: those in the folder first-boot of the data directory, by name]
    #[arg(long = "first-boot-script", value_name = "FILE")]
    scripts: Vec<PathBuf>,
}

/// Whose hardware a guest gets drivers for; Hyper-V's are in Windows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HypervisorName {
    /// QEMU with KVM: virtio
    Kvm,
    /// VMware: pvscsi, vmxnet3
    Vmware,
    /// Xen
    Xen,
}

impl From<HypervisorName> for Hypervisor {
    fn from(name: HypervisorName) -> Self {
        match name {
            HypervisorName::Kvm => Self::Kvm,
            HypervisorName::Vmware => Self::Vmware,
            HypervisorName::Xen => Self::Xen,
        }
    }
}

impl WindowsArguments {
    /// Whether anything was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.library.is_none() && self.hypervisors.is_empty() && self.scripts.is_empty()
    }

    /// What guests get: what was said, else what the data directory has.
    pub(crate) fn guests(&self, directory: &DataDirectory) -> conversion::Result<WindowsGuests> {
        let WindowsGuests { drivers, scripts, .. } = of_data_directory(directory)?;
        Ok(WindowsGuests {
            drivers: self.library.clone().or(drivers),
            hypervisors: self.hypervisors.iter().copied().map(Into::into).collect(),
            scripts: if self.scripts.is_empty() { scripts } else { self.scripts.clone() },
        })
    }
}

/// What a controller's guests get: drivers for all hypervisors, and the scripts in the folder for them, by name.
pub(crate) fn of_data_directory(directory: &DataDirectory) -> conversion::Result<WindowsGuests> {
    let folder = directory.first_boot_scripts();
    let unread = |e| Error::because(ErrorKind::Refused, format!("scripts for the first boot: {}", folder.display()), e);
    let mut scripts = Vec::new();
    match fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries.map_err(unread)? {
                scripts.push(entry.map_err(unread)?.path());
            }
        }
    }
    scripts.sort();
    let drivers = Some(directory.path().join(windows_drivers::FOLDER));
    Ok(WindowsGuests { drivers, hypervisors: Vec::new(), scripts })
}
