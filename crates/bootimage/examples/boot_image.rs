//! Builds a boot image: `boot_image OUTPUT [HOST:PORT [FINGERPRINT [PROGRAMS]]]`; by default with the programs
//! above the folder of examples. An empty HOST:PORT or FINGERPRINT is none.

use std::path::Path;

fn main() -> Result<(), bootimage::Error> {
    let running = std::env::current_exe().map_err(|e| bootimage::Error::io("find the running program", e))?;
    let mut arguments = std::env::args().skip(1);
    let mut options = bootimage::BuildOptions::new(arguments.next().unwrap_or_else(|| "boot-image".into()))?;
    options.controller = arguments.next().filter(|text| !text.is_empty());
    options.ca_fingerprint = arguments.next().filter(|text| !text.is_empty());
    options.kernel = bootimage::KernelChoice::Cached;
    options.firmware.packages = bootimage::Packages::Cached;
    let folder = arguments.next().map(Into::into);
    let folder = folder.unwrap_or_else(|| running.ancestors().nth(2).unwrap_or(Path::new("/")).to_owned());
    options.programs = bootimage::Programs::in_folder(folder);
    bootimage::build_boot_image(&options, &mut |step| eprintln!("{step}")).map(drop)
}
