//! `vconverter bcd`: what Windows starts, as files.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use guest::windows::bcd::Bcd;

use crate::failure::Result;
use crate::hive_file::{HiveFile, failure};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter bcd show BCD
  vconverter bcd show /mnt/esp/EFI/Microsoft/Boot/BCD --json

A store of boot configuration data tells Windows' boot manager what to start, since Vista. It is the file \\Boot\\BCD of the
active partition of a BIOS disk, or \\EFI\\Microsoft\\Boot\\BCD of the EFI system partition.")]
pub(crate) struct BootConfiguration {
    #[command(subcommand)]
    pub(crate) action: BootConfigurationAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BootConfigurationAction {
    /// Print a store as `bcdedit /enum all /v` does, and change nothing
    Show(ShowStore),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter bcd show BCD
  vconverter bcd show BCD --json

Partitions are shown by what names them in the store (disk signature and offset, or GUIDs): letters are known to a running
Windows only. Logs of the store (BCD.LOG and its like) are found beside it and replayed first.")]
pub(crate) struct ShowStore {
    /// The store's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Read a store whose last write did not end and of which no log is there, if it is not damaged
    #[arg(long)]
    as_it_is: bool,
}

pub(crate) fn bcd(bcd: &BootConfiguration, json: bool) -> Result<()> {
    match &bcd.action {
        BootConfigurationAction::Show(arguments) => show(arguments, json),
    }
}

fn show(arguments: &ShowStore, json: bool) -> Result<()> {
    let place = HiveFile::of(&arguments.file)?;
    let hive = place.open(arguments.as_it_is)?;
    let store = Bcd::read(&hive).map_err(|e| failure(&place.shown, &e))?;
    if json { crate::print_json(&store) } else { crate::print(&store.to_string()) }
}
