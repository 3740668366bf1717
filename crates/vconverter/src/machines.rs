//! `vconverter machines`.

use std::cmp::Reverse;

use controller::api::{BootMedium, ForgottenMachine, MachineState, MachineView};
use controller::sessions::Approval;
use controller::store::{Candidate, HistoryEntry};
use machine::ByteCount;
use serde_json::json;

use crate::client::{Client, segment};
use crate::failure::Result;
use crate::inspect::{describe_disks, describe_guest};
use crate::inventory;
use crate::table::{Table, plain};

/// Lines of its history that are shown with a machine.
const HISTORY_LINES: u32 = 10;

pub(crate) fn list(client: &Client, json: bool) -> Result<()> {
    let mut machines: Vec<MachineView> = client.list("/machines")?;
    // Those that wait first, then the last seen.
    machines.sort_by_key(|machine| (machine.id.is_some(), Reverse(machine.last_seen)));
    if json {
        return crate::print_json(&machines);
    }
    if machines.is_empty() {
        return crate::print("no machines: start one from the boot image, or vconverter machines add ADDRESS\n");
    }
    let (ready, others): (Vec<_>, Vec<_>) = machines.iter().partition(|machine| machine.cold_cloning_ready);
    let mut text = String::new();
    if !ready.is_empty() {
        let heading = ["ID", "NAME", "BY", "SINCE", "ANSWERS", "GROUP", "ADDRESS", "DISKS", "USED", "OPERATING SYSTEM"];
        let mut table = Table::new(&heading);
        for machine in ready {
            let (since, answers) = (machine.ready_since.unwrap_or(machine.since), answers(machine));
            let cells = [medium(machine).to_owned(), since.to_string(), answers];
            table.row(row(machine, cells));
        }
        text.push_str(&format!("Cold Cloning Ready\n{table}"));
    }
    if !others.is_empty() {
        let between = if text.is_empty() { "" } else { "\nOther machines\n" };
        let heading = ["ID", "NAME", "STATE", "BOOTED", "GROUP", "ADDRESS", "DISKS", "USED", "OPERATING SYSTEM"];
        let mut table = Table::new(&heading);
        for machine in others {
            table.row(row(machine, [machine.state.to_string(), machine.booted.clone()]));
        }
        text.push_str(&format!("{between}{table}"));
    }
    if machines.iter().any(|machine| machine.state == MachineState::WaitingForApproval) {
        text.push_str("\nvconverter machines approve CODE, with the code on the machine's screen\n");
    }
    crate::print(&text)
}

pub(crate) fn forget(client: &Client, machine: &str, json: bool) -> Result<()> {
    let forgotten: ForgottenMachine = client.delete(&format!("/machines/{}", segment(machine)))?;
    if json {
        return crate::print_json(&forgotten);
    }
    crate::print(&format!("{} is forgotten, {} keys revoked\n", forgotten.machine, forgotten.keys.len()))
}

/// Id and name, the cells that one group has, and what all have.
fn row<const N: usize>(machine: &MachineView, of_the_group: [String; N]) -> Vec<String> {
    let (disks, used, guest) = match &machine.report {
        Some(report) => {
            let size: ByteCount = report.disks.iter().map(|disk| disk.virtual_size).sum();
            let used: ByteCount = report.disks.iter().flat_map(|d| &d.layout.volumes).map(|v| v.used_bytes).sum();
            let product = report.guest.product.clone().unwrap_or_else(|| "unknown".into());
            (format!("{} ({size})", report.disks.len()), used.to_string(), product)
        }
        None => Default::default(),
    };
    let mut cells = vec![machine.id.clone().unwrap_or_else(|| "-".into()), machine.name.clone()];
    cells.extend(of_the_group);
    let address = machine.address.map(|address| address.ip().to_string()).or_else(|| machine.given_address.clone());
    cells.extend([machine.group.clone().unwrap_or_default(), address.unwrap_or_default(), disks, used, guest]);
    cells
}

/// What the boot image was started from.
fn medium(machine: &MachineView) -> &'static str {
    match machine.boot_medium {
        Some(BootMedium::Iso) => "ISO",
        Some(BootMedium::Pxe) => "PXE",
        Some(BootMedium::UefiHttp) => "UEFI HTTP boot",
        Some(BootMedium::Push) => "a push over the network",
        Some(BootMedium::Unknown) | None => "unknown",
    }
}

/// Whether a connected machine says something when it should.
fn answers(machine: &MachineView) -> String {
    match machine.silent_seconds {
        Some(seconds) if !machine.answers => format!("silent for {seconds} s"),
        Some(_) => "yes".into(),
        None => "no".into(),
    }
}

pub(crate) fn approve(client: &Client, code: &str, json: bool) -> Result<()> {
    let approval: Approval = client.post("/machines/approve", &json!({ "code": code }))?;
    if json {
        return crate::print_json(&approval);
    }
    let about = &approval.about;
    let said: Vec<&str> = [&about.hostname, &about.product, &about.serial]
        .into_iter()
        .map(String::as_str)
        .filter(|s| !s.is_empty())
        .collect();
    let said = if said.is_empty() { String::new() } else { format!(" ({})", plain(&said.join(", "))) };
    crate::print(&match approval.machine {
        Some(id) => format!("approved: {id}{said}\n"),
        None => format!(
            "approved the code {}{said}; its report is not here yet, see `vconverter machines`.\n\
             If the machine asks whether the operator sees this code, answer yes there.\n",
            plain(code)
        ),
    })
}

pub(crate) fn show(client: &Client, machine: &str, json: bool) -> Result<()> {
    let machine: MachineView = client.get(&format!("/machines/{}", segment(machine)))?;
    if json {
        return crate::print_json(&machine);
    }
    // One that waits for approval has neither.
    let (mut history, mut candidates): (Vec<HistoryEntry>, Vec<Candidate>) = Default::default();
    if let Some(id) = &machine.id {
        history = inventory::lines_of(client, id, HISTORY_LINES)?;
        candidates = client.get(&format!("/machines/{}/candidates", segment(id)))?;
    }
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<12}{}\n", plain(&value)));
    line("machine", format!("{} {}", machine.id.as_deref().unwrap_or("-"), machine.name));
    line("state", state(&machine));
    if let Some(address) = &machine.given_address {
        line("added", format!("at {address}, reached by: {}", machine.reach));
    }
    if let Some(group) = &machine.group {
        line("group", group.clone());
    }
    if let Some(address) = machine.address {
        line("address", format!("{address}, agent {} ({})", machine.agent_version, machine.booted));
    }
    if machine.cold_cloning_ready {
        let since = machine.ready_since.unwrap_or(machine.since);
        line("started", format!("by {}, ready since {since}; answers: {}", medium(&machine), answers(&machine)));
    }
    line("last seen", machine.last_seen.to_string());
    if let Some(report) = &machine.report {
        let smbios = &report.smbios;
        let product = [&smbios.manufacturer, &smbios.product, &smbios.serial];
        line("hardware", product.into_iter().flatten().cloned().collect::<Vec<_>>().join(", "));
        line("UUID", smbios.uuid.clone().unwrap_or_else(|| "unknown".into()));
        let cpu = &report.cpu;
        let threads = cpu.sockets * cpu.cores_per_socket * cpu.threads_per_core;
        line("processors", format!("{} ({threads} threads)", cpu.model));
        line("memory", report.memory.to_string());
        let secure = match report.firmware.secure_boot {
            Some(true) => ", Secure Boot on",
            Some(false) => ", Secure Boot off",
            None => "",
        };
        line("firmware", format!("{}{secure}", firmware(report.firmware.kind)));
        for nic in &report.nics {
            let addresses: Vec<String> = nic.addresses.iter().map(ToString::to_string).collect();
            let driver = nic.driver.as_deref().unwrap_or("unknown driver");
            let link = if nic.link_up { "" } else { ", no link" };
            line("NIC", format!("{} {}, {driver}{link} {}", nic.name, nic.mac, addresses.join(" ")));
        }
        line("guest", describe_guest(&report.guest));
        text.push('\n');
        text.push_str(&describe_disks(&report.disks));
    }
    if !machine.note.is_empty() {
        let lines = machine.note.lines().map(|line| format!("  {}\n", plain(line)));
        text.push_str(&format!("\nnote\n{}", lines.collect::<String>()));
    }
    if !history.is_empty() {
        text.push_str(&format!("\n{}", inventory::describe_history(&history)));
    }
    for candidate in &candidates {
        let (signs, other, own) =
            (candidate.signs.join(", "), &candidate.machine, machine.id.as_deref().unwrap_or("-"));
        let (added, with_agent) = if machine.report.is_some() { (other.as_str(), own) } else { (own, other.as_str()) };
        text.push_str(&plain(&format!(
            "{other} may be the same machine ({signs}); if it is: vconverter machines join {added} {with_agent}"
        )));
        text.push('\n');
    }
    for warning in &machine.warnings {
        text.push_str(&format!("warning: {}\n", plain(warning)));
    }
    crate::print(&text)
}

fn state(machine: &MachineView) -> String {
    if machine.cold_cloning_ready { "Cold Cloning Ready".into() } else { machine.state.to_string() }
}

pub(crate) fn firmware(kind: machine::FirmwareKind) -> &'static str {
    match kind {
        machine::FirmwareKind::Bios => "BIOS",
        machine::FirmwareKind::Uefi => "UEFI",
        machine::FirmwareKind::Unknown => "unknown",
    }
}
