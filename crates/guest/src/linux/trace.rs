//! No trace of the agent: a clone never carries the source's agent, its keys or task files.

use machine::Machine;

use crate::plan::{Change, Fixup};
use crate::tree::FileKind;
use crate::{FileTree, Result};

/// Folders that the agent's installation makes, with everything in them.
const FOLDERS: [&str; 3] = ["/etc/vconverter", "/var/lib/vconverter", "/var/log/vconverter"];

/// Folders in which names starting with `vconverter` are its own.
const PLACES: [&str; 9] = [
    "/etc",
    "/etc/systemd/system",
    "/etc/systemd/system/multi-user.target.wants",
    "/lib/systemd/system",
    "/etc/init.d",
    "/etc/default",
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
];

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
        for entry in tree.list(place)? {
            if entry.name.starts_with("vconverter") && entry.kind != FileKind::Folder {
                paths.push(format!("{place}/{}", entry.name));
            }
        }
    }
    let changes = paths.into_iter().map(|path| Change::Remove { path }).collect();
    let reason =
        "the converted machine must not act as the source: its agent's program, keys and task files stay behind";
    Ok(vec![Fixup::new("agent-traces", "no trace of the agent", reason, changes)])
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
        let clean = plan(&MemoryTree::new(), &Machine::default(), &mut vec![]).unwrap().remove(0);
        assert!(clean.already_so);
    }
}
