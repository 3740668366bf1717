//! A plan applied to a guest's files: what was shown, or nothing.

use super::{Change, Fixup, Outcome, Plan, RegistryChange, State};
use crate::windows::hive::{self, Filetime, Unfinished};
use crate::{Error, Result, WritableTree};

/// Applies a plan, except for the fix-ups whose ids are in `refused` and those for which there is no room; ends at the first
/// that fails.
///
/// Files are changed first. Then each registry hive that any fix-up changes is read once, changed as all of them say, and
/// written once.
pub fn apply(plan: &Plan, refused: &[String], tree: &mut dyn WritableTree) -> Vec<Outcome> {
    let mut fixups: Vec<Applied<'_>> = Vec::new();
    let mut failed = None;
    for fixup in &plan.fixups {
        let is_refused = refused.contains(&fixup.id) || fixup.no_room;
        fixups.push(Applied { fixup, is_refused, is_done: false });
        let Some(applied) = fixups.last_mut().filter(|_| !is_refused) else { continue };
        let result = fixup.changes.iter().try_for_each(|change| {
            applied.is_done |= change.apply_to_files(tree)?;
            Ok(())
        });
        if let Err(error) = result {
            failed = Some((fixups.len() - 1, error));
            break;
        }
    }
    if failed.is_none() {
        failed = apply_to_hives(&mut fixups, tree).err();
    }
    let at = failed.as_ref().map_or(fixups.len(), |(at, _)| *at);
    let mut outcomes: Vec<Outcome> = fixups[..at].iter().map(Applied::outcome).collect();
    if let Some((at, error)) = failed {
        let state = if error.is_no_room() { State::NoRoom } else { State::Failed };
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        outcomes.push(Outcome { state, detail: format!("{error}{cause}"), ..fixups[at].outcome() });
    }
    outcomes
}

struct Applied<'p> {
    fixup: &'p Fixup,
    is_refused: bool,
    /// Something was left to be done.
    is_done: bool,
}

impl Applied<'_> {
    fn outcome(&self) -> Outcome {
        let state = match (self.is_refused, self.is_done) {
            (true, _) => State::Refused,
            (false, true) => State::Done,
            (false, false) => State::AlreadySo,
        };
        let detail = if self.fixup.no_room { "the guest has no room for it" } else { "" };
        Outcome { id: self.fixup.id.clone(), title: self.fixup.title.clone(), state, detail: detail.to_owned() }
    }

    /// What is to be changed in the hive at `path`.
    fn changes_of(&self, path: &str) -> impl Iterator<Item = &RegistryChange> {
        let wanted = self.fixup.changes.iter().filter(|_| !self.is_refused);
        wanted.flat_map(move |change| match change {
            Change::Registry { path: of, changes, .. } if of == path => changes.as_slice(),
            _ => &[],
        })
    }
}

/// Changes all hives; an error comes with the place of the fix-up that it kept from being made.
fn apply_to_hives(fixups: &mut [Applied<'_>], tree: &mut dyn WritableTree) -> std::result::Result<(), (usize, Error)> {
    let mut paths: Vec<(usize, String)> = Vec::new();
    for (at, applied) in fixups.iter().enumerate().filter(|(_, applied)| !applied.is_refused) {
        for change in &applied.fixup.changes {
            if let Change::Registry { path, .. } = change
                && !paths.iter().any(|(_, known)| known == path)
            {
                paths.push((at, path.clone()));
            }
        }
    }
    for (first, path) in paths {
        apply_to_hive(fixups, first, &path, tree).map_err(|(at, error)| (at, error.at(&path)))?;
    }
    Ok(())
}

fn apply_to_hive(
    fixups: &mut [Applied<'_>],
    first: usize,
    path: &str,
    tree: &mut dyn WritableTree,
) -> std::result::Result<(), (usize, Error)> {
    let now = Filetime::now();
    let mut hive = hive::file::open(tree, path, Unfinished::Refuse).map_err(|error| (first, error))?;
    let mut edit = hive.edit(now).map_err(|error| (first, error))?;
    let mut last = first;
    for (at, applied) in fixups.iter_mut().enumerate() {
        let mut is_changed = false;
        let result: Result<()> = applied.changes_of(path).try_for_each(|change| {
            is_changed |= change.apply(&mut edit)?;
            Ok(())
        });
        result.map_err(|error| (at, error))?;
        if is_changed {
            applied.is_done = true;
            last = at;
        }
    }
    let written = edit.commit().and_then(|is_changed| match is_changed {
        true => hive::file::write(tree, path, &mut hive, now),
        false => Ok(()),
    });
    written.map_err(|error| (last, error))
}

#[cfg(test)]
mod tests {
    use machine::{Family, FirmwareKind};

    use super::*;
    use crate::{FileTree, MemoryTree};

    fn plan(fixups: Vec<Fixup>) -> Plan {
        Plan { fixups, ..Plan::without_fixups(FirmwareKind::Bios, Family::Linux) }
    }

    #[test]
    fn applying_twice_changes_nothing_the_second_time() {
        let mut tree = MemoryTree::new().with("/etc/a", "one\n").with("/boot/i", "1234").with("/boot/device.map", "x");
        let changes = vec![
            Change::write(&tree, "/etc/a", b"two\n", 0o644).unwrap().unwrap(),
            Change::append("/boot/i", 4, b"5678".to_vec(), vec![]),
            Change::Remove { path: "/boot/device.map".into() },
            Change::Link { path: "/etc/systemd/system/mcelog.service".into(), target: "/dev/null".into() },
        ];
        let plan = plan(vec![Fixup::new("x", "t", "r", changes)]);
        assert_eq!(apply(&plan, &[], &mut tree)[0].state, State::Done);
        let after = tree.clone();
        assert_eq!(apply(&plan, &[], &mut tree)[0].state, State::AlreadySo);
        assert_eq!(tree, after);
        assert_eq!(tree.text("/boot/i").unwrap().unwrap(), "12345678");
    }

    #[test]
    fn a_file_that_changed_since_the_plan_is_left_alone() {
        let mut tree = MemoryTree::new().with("/etc/a", "one\n");
        let change = Change::write(&tree, "/etc/a", b"two\n", 0o644).unwrap().unwrap();
        tree.replace("/etc/a", b"three\n", 0o644).unwrap();
        let outcomes = apply(&plan(vec![Fixup::new("x", "t", "r", vec![change])]), &[], &mut tree);
        assert_eq!(outcomes[0].state, State::Failed);
        assert_eq!(tree.text("/etc/a").unwrap().unwrap(), "three\n");
    }

    #[test]
    fn a_full_filesystem_is_told_from_other_failures_and_the_file_stays_as_it_was() {
        let mut tree = MemoryTree::new().with("/etc/a", "one\n").with("/boot/i", "1234").with_room(3);
        let append = Change::append("/boot/i", 4, b"5678".to_vec(), vec![]);
        let write = Change::write(&tree, "/etc/a", b"2\n", 0o644).unwrap().unwrap();
        let fixups = vec![Fixup::new("x", "t", "r", vec![append]), Fixup::new("y", "t", "r", vec![write])];
        let (before, plan) = (tree.clone(), plan(fixups));
        let outcomes = apply(&plan, &[], &mut tree);
        assert_eq!((outcomes.len(), outcomes[0].state), (1, State::NoRoom));
        assert!(outcomes[0].detail.contains("/boot/i"), "{}", outcomes[0].detail);
        assert_eq!(tree, before);
        let states: Vec<State> = apply(&plan, &["x".into()], &mut tree).iter().map(|outcome| outcome.state).collect();
        assert_eq!(states, [State::Refused, State::Done]);
    }

    #[test]
    fn a_stored_plan_is_the_same_plan_and_can_be_refused() {
        let mut tree = MemoryTree::new().with("/etc/a", "one\n");
        let change = Change::write(&tree, "/etc/a", b"two\n", 0o644).unwrap().unwrap();
        let made = plan(vec![Fixup::new("x", "t", "r", vec![change])]);
        let stored: Plan = serde_json::from_str(&serde_json::to_string(&made).unwrap()).unwrap();
        assert_eq!(stored.to_string(), made.to_string());
        assert!(made.to_string().contains("-one") && made.to_string().contains("+two"), "{made}");
        assert_eq!(apply(&made, &["x".into()], &mut tree)[0].state, State::Refused);
        assert_eq!(apply(&stored, &[], &mut tree)[0].state, State::Failed);
        assert_eq!(tree.text("/etc/a").unwrap().unwrap(), "one\n");
    }
}
