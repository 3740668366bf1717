//! An init script of SysV for any shell, with the headers of LSB (insserv, update-rc.d) and of chkconfig.
//!
//! Nothing of a distribution's own is used in it (start-stop-daemon, functions): the program itself goes to the background
//! and is ended. It is not started again if it ends by itself, as nothing is with these scripts.

use std::path::Path;

use super::plan::{Step, missing_folders, words};
use super::state::CONFIG;
use super::system::System;

const NAME: &str = "vconverter-agent";
/// The script. Where `/etc/init.d` is a link, as on older Red Hat systems, it is beside the others.
pub(super) const SCRIPT: &str = "/etc/init.d/vconverter-agent";

/// The links that are made where no tool of the distribution makes them, and in which runlevels.
fn links() -> impl Iterator<Item = String> {
    let start = [2, 3, 4, 5].into_iter().map(|level| format!("rc{level}.d/S98{NAME}"));
    let stop = [0, 1, 6].into_iter().map(|level| format!("rc{level}.d/K02{NAME}"));
    start.chain(stop)
}

/// Folders in which the links of runlevels are; the first that a system has.
const RUNLEVELS: [&str; 2] = ["/etc", "/etc/rc.d"];

/// All places in which a link may have been made.
pub(super) fn all_links() -> Vec<String> {
    RUNLEVELS.iter().flat_map(|folder| links().map(move |link| format!("{folder}/{link}"))).collect()
}

/// The script, and that it starts with the system.
pub(super) fn files(system: &System, program: &Path, is_new: bool) -> Vec<Step> {
    let program = program.display();
    let text = format!(
        "#!/bin/sh\n\
         # vconverter-agent  Made by vconverter-agent install; `vconverter-agent remove` takes it away.\n\
         #\n\
         # chkconfig: 2345 98 02\n\
         # description: vconverter agent\n\
         ### BEGIN INIT INFO\n\
         # Provides:          vconverter-agent\n\
         # Required-Start:    $remote_fs\n\
         # Required-Stop:     $remote_fs\n\
         # Should-Start:      $network\n\
         # Should-Stop:       $network\n\
         # Default-Start:     2 3 4 5\n\
         # Default-Stop:      0 1 6\n\
         # Short-Description: vconverter agent\n\
         ### END INIT INFO\n\
         \n\
         PROGRAM={program}\n\
         CONFIG={CONFIG}\n\
         \n\
         case \"$1\" in\n\
         start) \"$PROGRAM\" background --config \"$CONFIG\" ;;\n\
         stop) \"$PROGRAM\" end --config \"$CONFIG\" ;;\n\
         restart|force-reload) \"$PROGRAM\" end --config \"$CONFIG\" && \"$PROGRAM\" background --config \"$CONFIG\" ;;\n\
         status) \"$PROGRAM\" status ;;\n\
         *) echo \"usage: $0 {{start|stop|restart|force-reload|status}}\" >&2; exit 2 ;;\n\
         esac\n"
    );
    let mut steps = missing_folders(system, Path::new("/etc/init.d"), 0o755);
    steps.push(Step::text(SCRIPT, 0o755, text));
    if let Some((register, unregister)) = registration(system) {
        let undo = if is_new { unregister } else { Vec::new() };
        steps.push(Step::Run { command: register, undo, tolerated: false });
        return steps;
    }
    let folder = RUNLEVELS.iter().find(|folder| system.path(format!("{folder}/rc3.d")).is_dir());
    let folder = folder.unwrap_or(&RUNLEVELS[0]);
    for link in links() {
        // A level that the system does not have is not made up.
        let path = format!("{folder}/{link}");
        if Path::new(&path).parent().is_some_and(|level| system.path(level).is_dir()) {
            steps.push(Step::link(path, SCRIPT));
        }
    }
    steps
}

/// The distribution's own way to have a script started, and its end. With startpar a link alone would not be seen.
fn registration(system: &System) -> Option<(Vec<String>, Vec<String>)> {
    if system.is_offline() {
        return None;
    }
    if system.find("update-rc.d").is_some() {
        return Some((words(&["update-rc.d", NAME, "defaults"]), words(&["update-rc.d", "-f", NAME, "remove"])));
    }
    if system.find("chkconfig").is_some() {
        return Some((words(&["chkconfig", "--add", NAME]), words(&["chkconfig", "--del", NAME])));
    }
    let insserv = system.find("insserv")?.display().to_string();
    Some((words(&[&insserv, NAME]), words(&[&insserv, "-r", NAME])))
}

/// Starts it, or starts it again where it runs.
pub(super) fn start(is_new: bool) -> Vec<Step> {
    let stop: &[&str] = if is_new { &[SCRIPT, "stop"] } else { &[] };
    vec![Step::run(&[SCRIPT, "restart"], stop)]
}

/// After an installation that was undone.
pub(super) fn settle(system: &System, is_new: bool) -> Vec<Vec<String>> {
    match is_new {
        // insserv's files of dependencies are made anew without the script.
        true => registration(system).map(|(_, unregister)| unregister).into_iter().collect(),
        false => vec![words(&[SCRIPT, "restart"])],
    }
}

/// Before its files go, and after.
pub(super) fn removal(system: &System) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let stop = words(&[SCRIPT, "stop"]);
    match registration(system) {
        // chkconfig and insserv want to see the script, update-rc.d wants it gone or to be forced.
        Some((_, unregister)) => (vec![stop, unregister], Vec::new()),
        None => (vec![stop], Vec::new()),
    }
}
