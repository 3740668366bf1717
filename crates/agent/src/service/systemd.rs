//! A unit of systemd, from its first releases on: no option in it is newer than version 44.
//!
//! Nothing in it takes anything away from the agent: it reads disks and restarts the machine.

use std::path::Path;

use super::plan::{Step, missing_folders, words};
use super::state::CONFIG;
use super::system::System;

const SERVICE: &str = "vconverter-agent.service";
/// The unit's file.
pub(super) const UNIT: &str = "/etc/systemd/system/vconverter-agent.service";
/// What `systemctl enable` makes.
pub(super) const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/vconverter-agent.service";

/// The unit, and that it starts with the system.
pub(super) fn files(system: &System, program: &Path) -> Vec<Step> {
    let text = format!(
        "# Made by vconverter-agent install; `vconverter-agent remove` takes it away.\n\
         [Unit]\n\
         Description=vconverter agent\n\
         After=network.target\n\
         \n\
         [Service]\n\
         ExecStart={} --config {CONFIG}\n\
         Restart=always\n\
         RestartSec=10\n\
         StandardOutput=null\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        program.display()
    );
    let mut steps = missing_folders(system, Path::new("/etc/systemd/system/multi-user.target.wants"), 0o755);
    steps.push(Step::text(UNIT, 0o644, text));
    steps.push(Step::link(WANTED, UNIT));
    steps
}

/// Starts it, or starts it again where it runs.
pub(super) fn start(is_new: bool) -> Vec<Step> {
    let stop: &[&str] = if is_new { &["systemctl", "stop", SERVICE] } else { &[] };
    vec![
        Step::run(&["systemctl", "daemon-reload"], &[]),
        Step::Run {
            command: words(&["systemctl", "reset-failed", SERVICE]),
            undo: if is_new { words(&["systemctl", "reset-failed", SERVICE]) } else { Vec::new() },
            tolerated: true,
        },
        Step::run(&["systemctl", "restart", SERVICE], stop),
    ]
}

/// After an installation that was undone.
pub(super) fn settle(is_new: bool) -> Vec<Vec<String>> {
    let reload = words(&["systemctl", "daemon-reload"]);
    if is_new { vec![reload] } else { vec![reload, words(&["systemctl", "restart", SERVICE])] }
}

/// Before its files go, and after.
pub(super) fn removal() -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let before = vec![words(&["systemctl", "stop", SERVICE])];
    (before, vec![words(&["systemctl", "daemon-reload"]), words(&["systemctl", "reset-failed", SERVICE])])
}
