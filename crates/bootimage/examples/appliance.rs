//! Builds the appliance from the programs beside the folder of examples and prints where it is.

fn main() -> Result<(), bootimage::Error> {
    let running = std::env::current_exe().map_err(|e| bootimage::Error::io("find the running program", e))?;
    let folder = running.ancestors().nth(2).unwrap_or(std::path::Path::new("/"));
    let options = bootimage::ApplianceOptions {
        kernel: bootimage::KernelChoice::Cached,
        programs: bootimage::Programs::in_folder(folder),
    };
    let appliance = bootimage::build_appliance(&options, &mut |step| eprintln!("{step}"))?;
    println!("{}\n{}", appliance.kernel.display(), appliance.initramfs.display());
    Ok(())
}
