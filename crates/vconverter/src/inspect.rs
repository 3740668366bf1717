//! `vconverter inspect`: what is on some disks.

use machine::{Disk, Guest, PartitionTable};

use crate::arguments::Inspect;
use crate::failure::{Failure, Result};
use crate::machines::firmware;
use crate::preflight;
use crate::table::{Table, plain};

pub(crate) fn inspect(arguments: &Inspect, json: bool) -> Result<()> {
    for source in &arguments.sources {
        if let Err(error) = source.metadata() {
            return Err(Failure::file(&source.display().to_string(), &error));
        }
    }
    let inspection = conversion::inspect(&arguments.sources)?;
    if json {
        return crate::print_json(&inspection);
    }
    let mut text = describe_disks(&inspection.disks);
    text.push_str(&format!("firmware  {}\n", firmware(inspection.firmware)));
    text.push_str(&format!("guest     {}\n", plain(&describe_guest(&inspection.guest))));
    for warning in &inspection.warnings {
        text.push_str(&format!("warning: {}\n", plain(warning)));
    }
    if !inspection.findings.is_empty() {
        text.push_str(&format!("\n{}", preflight::lines(&inspection.findings, "")));
    }
    if let Some(windows) = inspection.windows.filter(|_| arguments.details) {
        text.push('\n');
        // What is said twice is left out.
        let facts = guest::windows::inspection::Inspection { notes: Vec::new(), ..windows }.to_string();
        facts.lines().for_each(|line| text.push_str(&format!("{}\n", plain(line))));
    }
    crate::print(&text)
}

/// A table for each disk.
pub(crate) fn describe_disks(disks: &[Disk]) -> String {
    let mut text = String::new();
    for disk in disks {
        let kind = match disk.layout.partition_table {
            PartitionTable::Gpt => "GPT",
            PartitionTable::Mbr => "MBR",
            PartitionTable::None => "no partition table",
        };
        let identity: Vec<&str> =
            [&disk.identity.model, &disk.identity.serial].into_iter().flatten().map(String::as_str).collect();
        let identity = if identity.is_empty() { String::new() } else { format!(" ({})", identity.join(", ")) };
        let heading = format!(
            "{}{identity}: {}, {}, {} byte sectors, {kind}",
            disk.path,
            disk.format,
            disk.virtual_size,
            disk.logical_sector_size.bytes()
        );
        text.push_str(&format!("{}\n", plain(&heading)));
        let table = volumes(disk);
        if !table.is_empty() {
            for line in table.to_string().lines() {
                text.push_str(&format!("  {line}\n"));
            }
        }
        text.push('\n');
    }
    text
}

fn volumes(disk: &Disk) -> Table {
    let mut table = Table::new(&["PART", "OFFSET", "SIZE", "KIND", "USED", "MOUNTED", "LABEL", "UUID"]);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    for volume in &disk.layout.volumes {
        table.row(vec![
            volume.number.map_or_else(|| "-".into(), |number| number.to_string()),
            volume.offset.0.to_string(),
            volume.size.to_string(),
            volume.kind.clone(),
            volume.used_bytes.to_string(),
            volume.mount_points.join(", "),
            text(&volume.label),
            text(&volume.uuid),
        ]);
        for part in &volume.parts {
            table.row(vec![
                format!("  {}", part.name),
                String::new(),
                part.size.to_string(),
                part.kind.clone(),
                part.used_bytes.to_string(),
                part.mount_points.join(", "),
                text(&part.label),
                text(&part.uuid),
            ]);
        }
    }
    table
}

/// `Debian GNU/Linux 12 (bookworm), x86_64, host name phys-a`.
pub(crate) fn describe_guest(guest: &Guest) -> String {
    let hostname = guest.hostname.as_ref().map(|name| format!("host name {name}"));
    let version = guest
        .version
        .clone()
        .filter(|version| guest.product.as_ref().is_none_or(|product| !product.contains(version.as_str())));
    let parts: Vec<String> =
        [guest.product.clone(), version, guest.arch.clone(), hostname].into_iter().flatten().collect();
    if parts.is_empty() { "unknown".into() } else { parts.join(", ") }
}
