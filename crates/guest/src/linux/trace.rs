//! No trace of the agent: a clone never carries the source's agent, its keys or task files.

use machine::Machine;

use crate::plan::{Change, Fixup};
use crate::tree::{Entry, FileKind};
use crate::{FileTree, Result};

/// Folders that the agent's installation makes, and those that a pushed boot image is put into, with everything in them.
const FOLDERS: [&str; 8] = [
    "/etc/vconverter",
    "/opt/vconverter",
    "/var/lib/vconverter",
    "/var/lib/vconverter-agent",
    "/var/log/vconverter",
    "/boot/vconverter",
    "/boot/efi/EFI/vconverter",
    "/efi/EFI/vconverter",
];

/// Folders in which names starting with `vconverter` are its own. Of two names of one folder that which is no link is looked at.
const PLACES: [&str; 12] = [
    "/etc",
    "/etc/systemd/system",
    "/etc/systemd/system/multi-user.target.wants",
    "/lib/systemd/system",
    "/etc/init.d",
    "/etc/rc.d/init.d",
    "/etc/runlevels/default",
    "/etc/default",
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
];

/// Folders with a folder for each runlevel of SysV, `rc3.d`, and the runlevels.
const RUNLEVELS: ([&str; 2], &str) = (["/etc", "/etc/rc.d"], "0123456S");

/// Files looked at in the folders above.
const FILES_MAX: usize = 4096;

/// Depth of the folders above.
const DEPTH_MAX: usize = 8;

/// Plans the fix-up `agent-traces`.
pub(super) fn plan(tree: &dyn FileTree, _: &Machine, _: &mut Vec<String>) -> Result<Vec<Fixup>> {
    let mut paths = Vec::new();
    for folder in FOLDERS {
        files_below(tree, folder, DEPTH_MAX, &mut paths)?;
    }
    for place in PLACES {
        for entry in list_own(tree, place)? {
            if entry.name.starts_with("vconverter") && entry.kind != FileKind::Folder {
                paths.push(format!("{place}/{}", entry.name));
            }
        }
    }
    for folder in RUNLEVELS.0 {
        for level in RUNLEVELS.1.chars() {
            let place = format!("{folder}/rc{level}.d");
            let entries = list_own(tree, &place)?.into_iter().filter(|entry| is_runlevel_link(&entry.name));
            paths.extend(entries.map(|entry| format!("{place}/{}", entry.name)));
        }
    }
    let changes = paths.into_iter().map(|path| Change::Remove { path }).collect();
    let reason =
        "the converted machine must not act as the source: its agent's program, keys and task files stay behind";
    Ok(vec![Fixup::new("agent-traces", "no trace of the agent", reason, changes)])
}

/// What is in a folder that is no link to another.
fn list_own(tree: &dyn FileTree, folder: &str) -> Result<Vec<Entry>> {
    match tree.read_link(folder)? {
        Some(_) => Ok(Vec::new()),
        None => Ok(tree.list(folder)?),
    }
}

/// `S98vconverter-agent`; the number is the distribution's.
fn is_runlevel_link(name: &str) -> bool {
    let number = name.strip_prefix(['S', 'K']).and_then(|rest| rest.strip_suffix("vconverter-agent"));
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn files_below(tree: &dyn FileTree, folder: &str, depth: usize, paths: &mut Vec<String>) -> Result<()> {
    for entry in tree.list(folder)? {
        let path = format!("{folder}/{}", entry.name);
        if entry.kind != FileKind::Folder {
            if paths.len() < FILES_MAX {
                paths.push(path);
            }
        } else if depth > 0 {
            files_below(tree, &path, depth - 1, paths)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryTree;

    #[test]
    fn keys_and_service_are_removed_and_a_clean_guest_is_already_so() {
        let tree = MemoryTree::new()
            .with("/etc/vconverter/agent.key", "secret")
            .with("/var/lib/vconverter/tasks/1.json", "{}")
            .with("/etc/systemd/system/vconverter-agent.service", "[Unit]")
            .with("/etc/hostname", "a");
        let fixup = plan(&tree, &Machine::default(), &mut vec![]).unwrap().remove(0);
        assert_eq!(fixup.changes.len(), 3);
        let paths = |tree: &MemoryTree| {
            let fixup = plan(tree, &Machine::default(), &mut vec![]).unwrap().remove(0);
            let path = |change: &Change| match change {
                Change::Remove { path } => path.clone(),
                other => panic!("{other:?}"),
            };
            fixup.changes.iter().map(path).collect::<std::collections::BTreeSet<_>>()
        };
        // As `vconverter-agent install` leaves it, on any init system.
        let installed = [
            "/usr/local/sbin/vconverter-agent",
            "/opt/vconverter/vconverter-agent",
            "/var/lib/vconverter-agent/agent.json",
            "/var/lib/vconverter-agent/agent/key.pem",
            "/etc/systemd/system/vconverter-agent.service",
            "/etc/init.d/vconverter-agent",
            "/etc/rc3.d/S98vconverter-agent",
            "/etc/rc.d/rc0.d/K02vconverter-agent",
            "/boot/vconverter/configuration.img",
        ];
        let others =
            ["/etc/rc3.d/S20ssh", "/etc/rc3.d/Svconverter-agents", "/usr/local/sbin/backup", "/opt/x/vconverter"];
        let tree = installed.into_iter().chain(others).fold(MemoryTree::new(), |tree, path| tree.with(path, "x"));
        let links = [
            "/etc/systemd/system/multi-user.target.wants/vconverter-agent.service",
            "/etc/runlevels/default/vconverter-agent",
        ];
        let tree = links.into_iter().fold(tree, |tree, link| tree.with_link(link, "/etc/init.d/vconverter-agent"));
        let expected = installed.into_iter().chain(links).map(str::to_owned).collect();
        assert_eq!(paths(&tree), expected);
        // Of a folder with two names, as on Red Hat's systems, the script is removed once.
        let tree =
            MemoryTree::new().with("/etc/rc.d/init.d/vconverter-agent", "x").with_link("/etc/init.d", "rc.d/init.d");
        assert_eq!(paths(&tree).into_iter().collect::<Vec<_>>(), ["/etc/rc.d/init.d/vconverter-agent"]);
        let clean = plan(&MemoryTree::new(), &Machine::default(), &mut vec![]).unwrap().remove(0);
        assert!(clean.already_so);
    }
}
