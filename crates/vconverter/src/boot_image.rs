//! `vconverter boot-image build`.

use std::collections::{BTreeMap, BTreeSet};

use bootimage::{BootImage, BuildOptions, FirmwareFile, KernelChoice, Network, build_boot_image};
use controller::DataDirectory;
use controller::api::Status;
use serde_json::json;

use crate::arguments::Build;
use crate::client::Client;
use crate::failure::{Code, Failure, Result};
use crate::place::Place;

pub(crate) fn build(arguments: &Build, directory: &DataDirectory, json: bool) -> Result<()> {
    let mut say = |line: &str| eprintln!("{line}");
    let mut options = BuildOptions::new(&arguments.output)?;
    options.controller.clone_from(&arguments.controller);
    options.ca_fingerprint = fingerprint(arguments, directory, &mut say)?;
    options.network = network(arguments)?;
    options.keymap.clone_from(&arguments.keymap);
    options.ssh_key = arguments.ssh_key.as_deref().map(bootimage::load_ssh_key).transpose()?;
    options.kernel = kernel(&arguments.kernel)?;
    options.firmware.folders.clone_from(&arguments.firmware_folders);
    options.drivers.clone_from(&arguments.drivers);
    if let Some(report) = &arguments.for_machine {
        let shown = report.display();
        let text = std::fs::read_to_string(report)
            .map_err(|e| Failure::new(Code::Usage, format!("read the report {shown}: {e}")))?;
        options.devices = Some(bootimage::parse_report(&text)?);
    }
    let made = build_boot_image(&options, &mut say)?;
    for line in missing_firmware(&made, arguments.verbose) {
        say(&line);
    }
    if json {
        let media = made.media.as_ref();
        return crate::print_json(&json!({
            "iso": media.map(|media| &media.iso),
            "netboot": media.map(|media| &media.netboot),
            "vmlinuz": made.vmlinuz,
            "initramfs": made.initramfs,
            "configuration": made.configuration,
            "kernel_release": made.kernel_release,
            "modules": made.modules,
            "firmware": made.firmware.iter().map(firmware_json).collect::<Vec<_>>(),
            "controller": options.controller,
            "ca_fingerprint": options.ca_fingerprint,
        }));
    }
    let asked = "asked on the machine's screen";
    let paired = "none: compare the pairing code";
    let mut text = String::new();
    if let Some(media) = &made.media {
        text = format!("ISO          {}\nnetwork      {}\n", media.iso.display(), media.netboot.display());
    }
    crate::print(&format!(
        "{text}kernel       {}\ninitramfs    {}\ncontroller   {}\nCA           {}\n",
        made.vmlinuz.display(),
        made.initramfs.display(),
        options.controller.as_deref().unwrap_or(asked),
        options.ca_fingerprint.as_deref().unwrap_or(paired),
    ))
}

/// Names of packages and paths of files are told apart by a slash; they do not mix.
fn kernel(given: &[String]) -> Result<KernelChoice> {
    match given {
        [] => Ok(KernelChoice::Newest),
        [name] if !name.contains('/') => Ok(KernelChoice::Package(name.clone())),
        files if files.iter().all(|file| file.contains('/')) => {
            Ok(KernelChoice::Files(files.iter().map(Into::into).collect()))
        }
        _ => Err(Failure::new(Code::Usage, "--kernel: expected one package by name, or files by paths with a slash")),
    }
}

/// Names of devices that are told for one module, where not everything is wanted.
const DEVICES_SHOWN: usize = 2;

/// What is missing, a line for each module; all of it with `whole`.
fn missing_firmware(made: &BootImage, whole: bool) -> Vec<String> {
    let missing: Vec<&FirmwareFile> = made.firmware.iter().filter(|file| file.from.is_none()).collect();
    let mut lines = Vec::new();
    if missing.is_empty() {
        return lines;
    }
    let mut modules: BTreeMap<&str, Vec<&FirmwareFile>> = BTreeMap::new();
    for file in &missing {
        for module in &file.modules {
            modules.entry(module).or_default().push(file);
        }
    }
    let (vital, other): (Vec<_>, Vec<_>) = modules.iter().partition(|(module, _)| bootimage::is_vital(module));
    lines.push(format!("firmware: {} of {} files are missing", missing.len(), made.firmware.len()));
    for (module, files) in &vital {
        let needing: BTreeSet<&String> = files.iter().flat_map(|file| &file.needed_by).collect();
        let mut devices = bootimage::devices_of(module);
        devices.extend(needing.into_iter().flat_map(|module| bootimage::devices_of(module)));
        let shown = if whole { devices.len() } else { DEVICES_SHOWN };
        let names: Vec<&str> = devices.iter().take(shown).map(|device| device.name).collect();
        let more = if devices.len() > shown { format!(" and {} more", devices.len() - shown) } else { String::new() };
        let told = if names.is_empty() { String::new() } else { format!(" ({}{more})", names.join(", ")) };
        lines.push(format!("  devices of {module}{told} do not work"));
        lines.extend(files.iter().filter(|_| whole).map(|file| format!("    {}", file.name)));
    }
    if whole {
        for (module, files) in &other {
            lines.push(format!("  devices of {module} work without, with fewer features at worst"));
            lines.extend(files.iter().map(|file| format!("    {}", file.name)));
        }
    } else if !other.is_empty() {
        let names: Vec<&str> = other.iter().map(|(module, _)| **module).collect();
        lines.push(format!("  devices of {} work without, with fewer features at worst", names.join(", ")));
    }
    let packages = made.unknown_packages.join(", ");
    if !packages.is_empty() {
        lines.push(format!(
            "  the package sources lack {packages}: add Debian's component non-free-firmware and run `apt-get update`,"
        ));
        lines.push("  or give the files with --firmware-dir".into());
    }
    if !whole {
        lines.push("  --verbose names every file".into());
    }
    lines
}

fn firmware_json(file: &FirmwareFile) -> serde_json::Value {
    let devices: Vec<String> = file
        .modules
        .iter()
        .flat_map(|module| bootimage::devices_of(module))
        .map(|device| device.id.to_string())
        .collect();
    json!({
        "file": file.name,
        "modules": file.modules,
        "needed_by": file.needed_by,
        "from": file.from,
        "missing": file.from.is_none(),
        "vital": file.is_vital(),
        "devices": devices,
    })
}

/// What was typed, else what the running controller says, else what lies in the data directory, else none.
fn fingerprint(arguments: &Build, directory: &DataDirectory, say: &mut dyn FnMut(&str)) -> Result<Option<String>> {
    if arguments.no_ca_fingerprint {
        return Ok(None);
    }
    if let Some(typed) = &arguments.ca_fingerprint {
        // Other tools print it with colons.
        return Ok(Some(typed.replace(':', "").to_ascii_lowercase()));
    }
    if let Ok(status) = Client::new(&Place::socket(directory))?.get::<Status>("/status") {
        return Ok(Some(status.ca_fingerprint));
    }
    if directory.has_identity() {
        return Ok(Some(controller::ca_fingerprint(directory)?));
    }
    let shown = directory.path().display();
    say(&format!("no controller in {shown}: the boot image trusts the one that the pairing code shows"));
    Ok(None)
}

fn network(arguments: &Build) -> Result<Network> {
    if let Some(given) = &arguments.network {
        return Ok(Network::from_argument(given)?);
    }
    let word = |name: &str, value: Option<String>| value.map(|value| format!("{name}={value}"));
    let servers: Vec<String> = arguments.dns.iter().map(ToString::to_string).collect();
    let words = [
        word("address", arguments.address.clone()),
        word("gateway", arguments.gateway.map(|gateway| gateway.to_string())),
        word("dns", (!servers.is_empty()).then(|| servers.join("+"))),
        word("interface", arguments.interface.clone()),
        word("mac", arguments.mac.clone()),
    ];
    Ok(Network::parse_words(&words.into_iter().flatten().collect::<Vec<_>>().join(","))?)
}
