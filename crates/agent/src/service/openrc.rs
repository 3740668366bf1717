//! A service script of OpenRC, as Alpine, Gentoo, Devuan and others have it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::plan::{Step, missing_folders, words};
use super::state::CONFIG;
use super::system::System;

const NAME: &str = "vconverter-agent";
/// What `rc-update add` makes.
pub(super) const LINK: &str = "/etc/runlevels/default/vconverter-agent";
/// The script; in the same place as one of SysV.
pub(super) const SCRIPT: &str = "/etc/init.d/vconverter-agent";

/// Longest first line of a script, in bytes.
const LINE_BYTES_MAX: u64 = 256;

/// The script, and that it starts with the system.
pub(super) fn files(system: &System, program: &Path) -> Vec<Step> {
    // Before OpenRC 0.20 it was called runscript; before 0.35 nothing started a service again that ended.
    let interpreter = system.find("openrc-run").or_else(|| system.find("runscript"));
    let interpreter = interpreter.unwrap_or_else(|| "/sbin/openrc-run".into());
    let supervision = match system.find("supervise-daemon") {
        Some(_) => "supervisor=supervise-daemon\nrespawn_delay=10\nrespawn_max=0\n",
        None => "command_background=yes\npidfile=/run/vconverter-agent.pid\n",
    };
    let text = format!(
        "#!{}\n\
         # Made by vconverter-agent install; `vconverter-agent remove` takes it away.\n\
         description=\"vconverter agent\"\n\
         command={}\n\
         command_args=\"--config {CONFIG}\"\n\
         {supervision}\
         \n\
         depend() {{\n\
         \tafter net\n\
         }}\n",
        interpreter.display(),
        program.display()
    );
    let mut steps = missing_folders(system, Path::new("/etc/init.d"), 0o755);
    steps.push(Step::text(SCRIPT, 0o755, text));
    steps.extend(missing_folders(system, Path::new("/etc/runlevels/default"), 0o755));
    steps.push(Step::link(LINK, SCRIPT));
    steps
}

/// Whether a script is one of OpenRC's, by its first line.
pub(super) fn is_script(path: &Path) -> bool {
    let mut line = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LINE_BYTES_MAX).read_to_end(&mut line));
    let line = String::from_utf8_lossy(&line);
    let first = line.lines().next().unwrap_or_default();
    read.is_ok() && (first.ends_with("openrc-run") || first.ends_with("runscript"))
}

/// Starts it, or starts it again where it runs.
pub(super) fn start(is_new: bool) -> Vec<Step> {
    let stop: &[&str] = if is_new { &["rc-service", NAME, "stop"] } else { &[] };
    vec![Step::run(&["rc-service", NAME, "restart"], stop)]
}

/// After an installation that was undone.
pub(super) fn settle(is_new: bool) -> Vec<Vec<String>> {
    if is_new { Vec::new() } else { vec![words(&["rc-service", NAME, "restart"])] }
}

/// Before its files go, and after.
pub(super) fn removal() -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    (vec![words(&["rc-service", NAME, "stop"])], Vec::new())
}
