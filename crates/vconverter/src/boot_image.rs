//! `vconverter boot-image build`.

use bootimage::{BuildOptions, KernelChoice, Network, NetworkMode, build_boot_image};
use controller::DataDirectory;
use controller::api::Status;
use serde_json::json;

use crate::arguments::Build;
use crate::client::Client;
use crate::failure::Result;

pub(crate) fn build(arguments: &Build, directory: &DataDirectory, json: bool) -> Result<()> {
    let mut say = |line: &str| eprintln!("{line}");
    let mut options = BuildOptions::new(&arguments.output)?;
    options.controller.clone_from(&arguments.controller);
    options.ca_fingerprint = fingerprint(arguments, directory, &mut say)?;
    options.network = network(arguments);
    if let Some(kernel) = &arguments.kernel {
        options.kernel = KernelChoice::Package(kernel.clone());
    }
    let made = build_boot_image(&options, &mut say)?;
    if json {
        return crate::print_json(&json!({
            "iso": made.iso,
            "vmlinuz": made.vmlinuz,
            "initramfs": made.initramfs,
            "configuration": made.configuration,
            "kernel_release": made.kernel_release,
            "controller": options.controller,
            "ca_fingerprint": options.ca_fingerprint,
        }));
    }
    let asked = "asked on the machine's screen";
    let paired = "none: compare the pairing code";
    crate::print(&format!(
        "ISO          {}\nkernel       {}\ninitramfs    {}\ncontroller   {}\nCA           {}\n",
        made.iso.display(),
        made.vmlinuz.display(),
        made.initramfs.display(),
        options.controller.as_deref().unwrap_or(asked),
        options.ca_fingerprint.as_deref().unwrap_or(paired),
    ))
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
    if let Ok(status) = Client::new(directory)?.get::<Status>("/status") {
        return Ok(Some(status.ca_fingerprint));
    }
    if directory.has_identity() {
        return Ok(Some(controller::ca_fingerprint(directory)?));
    }
    let shown = directory.path().display();
    say(&format!("no controller in {shown}: the boot image trusts the one that the pairing code shows"));
    Ok(None)
}

fn network(arguments: &Build) -> Network {
    Network {
        mode: if arguments.address.is_some() { NetworkMode::Static } else { NetworkMode::Dhcp },
        address: arguments.address.clone(),
        gateway: arguments.gateway,
        dns: arguments.dns.clone(),
        interface: arguments.interface.clone(),
        mac: arguments.mac.clone(),
    }
}
