//! What can be typed about drivers: those of the boot image, and those of Windows guests.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  vconverter drivers add megaraid_sas.ko firmware-bnx2_20230210-5_all.deb
  vconverter drivers list
  vconverter drivers push m-4f9c21ab megaraid_sas.ko
  vconverter drivers remove megaraid_sas.ko
  vconverter drivers add virtio-win-0.1.285.iso
  vconverter drivers add --name vmware-tools /mnt/vmware/drivers
  vconverter drivers list --windows
  vconverter drivers show virtio-win-0.1.285
  vconverter drivers match --windows 10.0.17763 --arch amd64 --id 'PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00'
  vconverter drivers remove --windows virtio-win-0.1.285

There are two libraries. The controller's is for machines in the boot image: a FILE is a kernel module (.ko, .ko.xz,
.ko.zst), a Debian package of modules or firmware (.deb), or a firmware file under the name that its module asks for. The
machine's Device Installer shows which devices have no driver and what they lack; it also takes drivers from a USB stick or
CD (folder vconverter-drivers) and by HTTP. A new disk appears at once, without a restart. What is refused, and why, is told
for each file; the exit code is 4 then.

The one for Windows guests is a folder of this machine (windows-drivers in the data directory, or --library): a FILE is an
image of a medium (.iso), a folder, or an INF file. Releases stand side by side, what they share is kept once. match chooses
as Windows would, by what the INF files and catalogs say and never by folders' names; the exit code is 3 where none fits."
)]
pub(crate) struct Drivers {
    /// Folder of the library for Windows [default: windows-drivers in the data directory]
    #[arg(long, value_name = "FOLDER", global = true)]
    pub(crate) library: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) action: Option<DriversAction>,
}

#[derive(Debug, Args)]
pub(crate) struct MatchDriver {
    /// Release of Windows: 10.0.17763, 6.1, or xp, 2003, vista, 2008, 7, 2008r2, 8, 2012, 8.1, 2012r2, 10, 2016, 2019, 2022,
    /// 11, 2025
    #[arg(long, value_name = "RELEASE")]
    pub(crate) windows: String,
    /// Its architecture: x86, amd64, ia64, arm, arm64
    #[arg(long, default_value = "amd64")]
    pub(crate) arch: guest::windows::Architecture,
    /// It is a server, where the release is given by its version
    #[arg(long)]
    pub(crate) server: bool,
    /// Hardware id of the device; of a PCI device the longest one is enough. More of them in the order of the device
    #[arg(long = "id", value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
    /// Compatible id of the device, in its order
    #[arg(long = "compatible-id", value_name = "ID")]
    pub(crate) compatible_ids: Vec<String>,
    /// Only the drivers of this release
    #[arg(long, value_name = "NAME")]
    pub(crate) release: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DriversAction {
    /// Show the files of the library: what is in them, for which kernel, and who signed it
    List {
        /// The releases of drivers for Windows
        #[arg(long)]
        windows: bool,
    },
    /// Keep drivers in the library that they are for
    Add {
        /// Modules, packages, firmware; or for Windows an image of a medium, a folder, an INF file
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Name of the release of drivers for Windows [default: that of the file]
        #[arg(long)]
        name: Option<String>,
    },
    /// Show the packages of a release of drivers for Windows
    Show {
        /// As the list shows it
        release: String,
    },
    /// Choose the driver for a device on a release of Windows, and say why
    Match(MatchDriver),
    /// Remove drivers from the library
    Remove {
        /// As the list shows them
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Releases of drivers for Windows are meant
        #[arg(long)]
        windows: bool,
    },
    /// Install files on an approved machine that stands in the boot image
    Push {
        /// Id, or host name where only one has it
        machine: String,
        /// As the list shows them [default: all that are for the machine's kernel]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}
