//! The whole way of a cold clone, as an operator walks it: switch the source on with the ISO, compare the pairing code,
//! convert. What it printed on the way is evidence; what it returns can be checked.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qemu::{Hardware, NicBackend};
use serde_json::Value;

use crate::{Boot, Error, Kind, Result, Site, SourceMachine, hash_file};

/// A conversion with its boot proof may take so long on a loaded machine without KVM.
const CONVERSION: Duration = Duration::from_secs(1800);

/// A machine that was cloned, and what became of it.
pub struct ColdClone {
    /// The source.
    pub machine: SourceMachine,
    /// The controller's view of the source when it was ready.
    pub reported: Value,
    /// The code that was compared.
    pub pairing_code: String,
    /// The conversion's outcome.
    pub outcome: Value,
    /// Hash of the source's disk before it was switched on.
    pub before: u128,
    /// And after the conversion, with the source switched off.
    pub after: u128,
    /// The folder of the result.
    pub result: PathBuf,
}

/// Clones a machine of the lab over a network of its own, with everything below `folder`. `say` is told each step.
pub fn cold_clone(kind: Kind, folder: &Path, say: &dyn Fn(&str)) -> Result<ColdClone> {
    cold_clone_on(kind, &|_| {}, folder, say)
}

/// The same with a machine whose hardware is changed before it is switched on.
pub fn cold_clone_on(
    kind: Kind,
    change: &dyn Fn(&mut Hardware),
    folder: &Path,
    say: &dyn Fn(&str),
) -> Result<ColdClone> {
    let machine = SourceMachine::make(kind, folder)?;
    say(&format!("source: {}, disk of {}", machine.hostname, size(machine.disk_size)));
    let before = hash_file(&machine.disk)?;
    let mut site = Site::new(folder)?;
    say(&format!("controller: listening on {} in its own network namespace", site.controller_address()));
    let iso = site.boot_image()?;
    let length = std::fs::metadata(&iso).map_err(|e| Error::file(&iso, e))?.len();
    say(&format!("boot image: {} ({})", iso.display(), size(length)));

    let start = Instant::now();
    let mut hardware = machine.hardware(Boot::Iso(&iso), NicBackend::Unplugged);
    change(&mut hardware);
    let (vm, _cable) = site.switch_on_hardware(hardware)?;
    say("source: switched on with the ISO in its drive; waiting for its pairing code");
    let (pairing_code, id) = site.pair(&vm).inspect_err(|_| {
        say(&format!("last words of the source:\n{}", tail(&vm.serial(0).text())));
    })?;
    let seconds = start.elapsed().as_secs();
    say(&format!(
        "pairing code: {pairing_code} (compared, approved); machine {id} is ready {seconds} s after power-on"
    ));
    let reported = site.json(&["machines", "show", &id])?;
    say(&format!("reported: {}", one_line(&reported["report"]["guest"])));

    let name = machine.hostname.clone();
    let output = site.output().display().to_string();
    let arguments = ["convert", &id, "--name", &name, "--output", &output, "--verify", "--detach"];
    let task = site.json(&arguments)?;
    let id = task["id"].as_str().unwrap_or_default().to_string();
    say(&format!("task: {id}"));
    let task = site.wait_for_task(&id, CONVERSION)?;
    vm.kill();
    if task["state"] != "done" {
        let log = site.vconverter(&["tasks", "log", &id]).map(|(_, log)| log).unwrap_or_default();
        return Err(Error::new(format!("task {id} {}: {}\n{log}", task["state"], task["error"])));
    }
    let outcome = task["outcome"].clone();
    let after = hash_file(&machine.disk)?;
    tell(&outcome, say);
    let same = if before == after { "bit-identical" } else { "CHANGED" };
    say(&format!("source's disk before and after: {same}"));
    let result = site.output().join(&name);
    Ok(ColdClone { machine, reported, pairing_code, outcome, before, after, result })
}

/// Prints what a conversion made.
pub fn tell(outcome: &Value, say: &dyn Fn(&str)) {
    let bytes = |value: &Value| size(value.as_u64().unwrap_or_default());
    for disk in outcome["disks"].as_array().into_iter().flatten() {
        say(&format!(
            "copied: {} of {} used, {} sent, {} written, in {:.1} s",
            bytes(&disk["total"]),
            bytes(&disk["virtual_size"]),
            bytes(&disk["sent"]),
            bytes(&disk["written"]),
            disk["copy_seconds"].as_f64().unwrap_or_default(),
        ));
    }
    say(&format!("verified: {}", outcome["verified"]));
    for fixup in outcome["fixups"].as_array().into_iter().flatten() {
        let text = |key: &str| fixup[key].as_str().unwrap_or_default();
        say(&format!("fix-up: {} ({})", text("title"), text("result")));
    }
    let proof = &outcome["proof"];
    let text = |key: &str| proof[key].as_str().unwrap_or_default();
    say(&format!("boot proof: {}: {}", text("verdict"), text("evidence")));
}

fn size(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn one_line(value: &Value) -> String {
    let text = |key: &str| value[key].as_str().unwrap_or("?").to_string();
    format!("{}, {}, host name {}", text("product"), text("arch"), text("hostname"))
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
