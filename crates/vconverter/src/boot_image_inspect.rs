//! `vconverter boot-image inspect`.

use std::fmt::Write as _;

use bootimage::{Inspection, Support};
use serde_json::json;

use crate::arguments::InspectImage;
use crate::failure::{Code, Failure, Result};

pub(crate) fn inspect(arguments: &InspectImage, json: bool) -> Result<()> {
    let inspection = bootimage::inspect(&arguments.path)?;
    if arguments.supports.is_empty() {
        return if json {
            let secure_boot = inspection.starts_under_secure_boot();
            crate::print_json(&json!({ "boot_image": inspection, "starts_under_secure_boot": secure_boot }))
        } else {
            crate::print(&describe(&inspection, arguments.verbose))
        };
    }
    let answers: Vec<Support> = arguments.supports.iter().map(|id| inspection.supports(*id)).collect();
    if json {
        crate::print_json(&answers.iter().map(support_json).collect::<Vec<_>>())?;
    } else {
        crate::print(&answers.iter().map(describe_support).collect::<Vec<_>>().join("\n"))?;
    }
    if answers.iter().all(Support::is_supported) { Ok(()) } else { Err(Failure::silent(Code::Failed)) }
}

fn describe(inspection: &Inspection, whole: bool) -> String {
    let mut text = format!("kernel         Linux {}\n", inspection.kernel_release);
    let sizes = ["iso", "vmlinuz", "initramfs", "unpacked"].iter().filter_map(|&name| {
        let bytes = inspection.sizes.get(name)?;
        Some(format!("{name} {:.1} MiB", *bytes as f64 / f64::from(1 << 20)))
    });
    let _ = writeln!(text, "sizes          {}", sizes.collect::<Vec<_>>().join(", "));
    let signers: Vec<String> =
        inspection.module_signers.iter().map(|(signer, count)| format!("{count} {signer}")).collect();
    let _ = writeln!(text, "modules        {}; signed by: {}", inspection.modules, signers.join(", "));
    let missing = inspection.missing_firmware.len();
    let _ = writeln!(text, "firmware       {} files in, {missing} missing", inspection.firmware.len());
    for (module, devices) in inspection.broken_modules() {
        let names: Vec<&str> = devices.iter().take(if whole { usize::MAX } else { 2 }).map(|d| d.name).collect();
        let more =
            if names.len() < devices.len() { format!(", {} more", devices.len() - names.len()) } else { String::new() };
        let told = if names.is_empty() { String::new() } else { format!(": {}{more}", names.join(", ")) };
        let _ = writeln!(text, "  without it   {module}{told}");
    }
    if whole {
        for (file, modules) in &inspection.missing_firmware {
            let modules: Vec<&str> = modules.iter().map(String::as_str).collect();
            let _ = writeln!(text, "  missing      {file} ({})", modules.join(", "));
        }
    }
    for signed in &inspection.secure_boot {
        let by = if signed.signers.is_empty() { "not signed".into() } else { signed.signers.join(", ") };
        let _ = writeln!(text, "{:<14} {by}", signed.file);
    }
    let verdict = match inspection.starts_under_secure_boot() {
        Some(true) => "starts",
        Some(false) => "does not start",
        None => "unknown: no ISO here",
    };
    let _ = writeln!(text, "Secure Boot    {verdict}");
    if inspection.rescue_shell {
        text.push_str("rescue shell   in: SSH for the key below, and the Start menu\n");
    }
    match &inspection.configuration {
        None => text.push_str("configuration  none\n"),
        Some(configuration) => {
            for line in configuration.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let _ = writeln!(text, "configuration  {line}");
            }
        }
    }
    text
}

fn describe_support(support: &Support) -> String {
    let name = support.device.map_or_else(
        || "not in the table of devices".to_owned(),
        |device| {
            let since = device.since.map_or_else(String::new, |year| format!(", since about {year}"));
            format!("{} {}{since}", device.maker, device.name)
        },
    );
    let mut text = format!("device    {} {name}\n", support.id);
    for module in &support.modules {
        let _ = writeln!(text, "module    {}: {}", module.module, if module.present { "in" } else { "missing" });
        for firmware in &module.firmware {
            let named_by =
                if firmware.module == module.module { String::new() } else { format!(" ({})", firmware.module) };
            let state = if firmware.present { "in" } else { "missing" };
            let _ = writeln!(text, "firmware  {}{named_by}: {state}", firmware.file);
        }
    }
    let _ = writeln!(text, "answer    {}", verdict(support));
    text
}

fn verdict(support: &Support) -> &'static str {
    if let Some(module) = support.modules.iter().find(|module| module.works()) {
        let mut missing = module.firmware.iter().filter(|firmware| !firmware.present).peekable();
        return match (missing.peek().is_some(), missing.any(|firmware| firmware.vital)) {
            (false, _) => "supported",
            (true, false) => "supported; without its firmware with fewer features at worst",
            (true, true) => "supported; firmware for other versions or devices of the module is missing",
        };
    }
    match support.modules.iter().any(|module| module.present) {
        true => "not supported: it does not work without firmware (boot-image build --firmware-dir)",
        false if support.modules.is_empty() => "not supported: no module serves it (boot-image build --add-driver)",
        false => "not supported: its module is not in this boot image",
    }
}

fn support_json(support: &Support) -> serde_json::Value {
    json!({
        "id": support.id.to_string(),
        "maker": support.device.map(|device| device.maker),
        "name": support.device.map(|device| device.name),
        "since": support.device.and_then(|device| device.since),
        "modules": support.modules.iter().map(|module| json!({
            "module": module.module,
            "present": module.present,
            "works": module.works(),
            "firmware": module.firmware,
        })).collect::<Vec<_>>(),
        "supported": support.is_supported(),
    })
}
