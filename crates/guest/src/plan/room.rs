//! Whether a guest has room for a plan, asked before anything is changed.
//!
//! What the plan writes is counted in the order in which it is written ([`tally`]), and compared with what the guest's
//! filesystems have and its hives may become. What does not fit is left out of the plan: first what the guest starts
//! without, then whatever does not fit when its turn comes. What a filesystem needs for its own tables is estimated, so
//! running out of room while a plan is applied is still told from other failures ([`State::NoRoom`](super::State::NoRoom)).

mod tally;

use std::collections::BTreeSet;
use std::fmt;

use machine::ByteCount;
use serde::{Deserialize, Serialize};

use super::Plan;
use crate::{FileTree, Result};
use tally::Tally;

/// What a plan takes of one filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Where the filesystem stands in the guest's tree: `/boot`.
    pub place: String,
    /// What must be free while the plan is applied.
    pub needed: ByteCount,
    /// What is free.
    pub free: ByteCount,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} needed, {} free", self.place.escape_debug(), self.needed, self.free)
    }
}

/// A fix-up that a guest starts without.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Optional {
    /// [`Fixup::id`](super::Fixup::id).
    pub(crate) id: &'static str,
    /// How often its files lie there in the end: the guest may take copies of its own.
    pub(crate) copies: u64,
}

/// How long a hive may become.
#[derive(Clone, Debug)]
pub(crate) struct HiveLimit {
    /// Its file.
    pub(crate) path: String,
    /// Bytes.
    pub(crate) max: ByteCount,
    /// Who says so, for people.
    pub(crate) why: String,
}

/// The plan that `draft` makes without the fix-ups whose ids are given to it, less what `tree` has no room for. Of that,
/// `optional` goes first, in its order.
///
/// # Errors
/// Those of `draft`, and what the tree says.
pub(crate) fn fit(
    tree: &dyn FileTree,
    refused: &[String],
    optional: &[Optional],
    draft: impl Fn(&[String]) -> Result<(Plan, Vec<HiveLimit>)>,
) -> Result<Plan> {
    let mut left_out: Vec<String> = Vec::new();
    let mut lacking = BTreeSet::new();
    loop {
        let without = [refused, &left_out].concat();
        let (mut plan, limits) = draft(&without)?;
        let fitting = Fitting { tree, plan: &plan, optional, limits: &limits };
        // Each turn leaves out more of finitely many.
        let more = fitting.too_much(&without, &mut lacking)?;
        if !more.is_empty() {
            left_out.extend(more);
            continue;
        }
        plan.room = fitting.tally(&without)?.usage();
        for fixup in &mut plan.fixups {
            fixup.no_room = left_out.contains(&fixup.id);
        }
        if !left_out.is_empty() {
            let lacking: Vec<String> = lacking.into_iter().collect();
            plan.warnings.push(format!(
                "the guest has no room for all fix-ups ({}), left out: {}; to have them, make room there on the source and \
                 convert it again",
                lacking.join("; "),
                left_out.join(", ")
            ));
        }
        return Ok(plan);
    }
}

/// A plan, and what it is to fit into.
struct Fitting<'p> {
    tree: &'p dyn FileTree,
    plan: &'p Plan,
    optional: &'p [Optional],
    limits: &'p [HiveLimit],
}

impl Fitting<'_> {
    /// The fix-ups to leave out beside those in `without`; what lacks is told in `lacking`.
    fn too_much(&self, without: &[String], lacking: &mut BTreeSet<String>) -> Result<Vec<String>> {
        let mut more: Vec<String> = Vec::new();
        loop {
            let without = [without, &more].concat();
            let tally = self.tally(&without)?;
            let (id, lack) = match self.dispensable(&without, &tally)?.or(tally.misfit) {
                Some(found) => found,
                None => return Ok(more),
            };
            lacking.insert(lack);
            more.push(id);
        }
    }

    /// The first fix-up in the plan that the guest starts without and that takes of something that is short; and what lacks.
    fn dispensable(&self, without: &[String], tally: &Tally) -> Result<Option<(String, String)>> {
        for optional in self.optional.iter().filter(|optional| !without.iter().any(|id| id == optional.id)) {
            for fixup in self.plan.fixups.iter().filter(|fixup| fixup.id == optional.id) {
                for change in &fixup.changes {
                    if let Some(lack) = tally.lack_at(change, self.tree)? {
                        return Ok(Some((fixup.id.clone(), lack)));
                    }
                }
            }
        }
        Ok(None)
    }

    fn tally(&self, without: &[String]) -> Result<Tally> {
        let included = self.plan.fixups.iter().filter(|fixup| !without.contains(&fixup.id));
        let mut tally = Tally::default();
        for fixup in included.clone() {
            let copies = self.optional.iter().find(|optional| optional.id == fixup.id).map_or(1, |one| one.copies);
            tally.add_files(fixup, copies, self.tree)?;
        }
        tally.add_hives(&included.collect::<Vec<_>>(), self.limits, self.tree)?;
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use machine::{Family, FirmwareKind};

    use super::*;
    use crate::MemoryTree;
    use crate::plan::{Change, Fixup, State, apply};

    const KIB: u64 = 1024;

    /// A fix-up that makes files of so many KiB.
    fn making(id: &str, tree: &MemoryTree, files: &[(&str, usize)]) -> Fixup {
        let changes =
            files.iter().filter_map(|(path, kib)| Change::write(tree, path, &vec![b'x'; kib << 10], 0o644).unwrap());
        Fixup::new(id, "t", "r", changes.collect())
    }

    fn fitted(tree: &MemoryTree, refused: &[String], fixups: &[Fixup]) -> Plan {
        let optional = [Optional { id: "drivers", copies: 2 }, Optional { id: "program", copies: 1 }];
        fit(tree, refused, &optional, |_| {
            Ok((Plan { fixups: fixups.to_vec(), ..Plan::without_fixups(FirmwareKind::Bios, Family::Linux) }, vec![]))
        })
        .unwrap()
    }

    fn left_out(plan: &Plan) -> Vec<&str> {
        plan.fixups.iter().filter(|fixup| fixup.no_room).map(|fixup| fixup.id.as_str()).collect()
    }

    #[test]
    fn what_a_guest_starts_without_goes_first_and_leaves_what_windows_copies() {
        let tree = MemoryTree::new().with("/a/x", "");
        let fixups = [
            making("needed", &tree, &[("/a/n", 100)]),
            making("drivers", &tree, &[("/a/d", 100)]),
            making("program", &tree, &[("/a/p", 100)]),
        ];
        // Three files of 104 KiB with their tables, the drivers' copy, and a hundredth.
        for (kib, expected) in [
            (500, &[][..]),
            (415, &["drivers"][..]),
            (215, &["drivers"][..]),
            (205, &["drivers", "program"][..]),
            (104, &["drivers", "program"][..]),
            (103, &["needed", "drivers", "program"][..]),
        ] {
            let plan = fitted(&tree.clone().with_room(kib * KIB), &[], &fixups);
            println!("{kib} KiB: {:?} {:?}", plan.room, plan.warnings);
            assert_eq!(left_out(&plan), expected, "{kib} KiB: {plan}");
            assert_eq!(plan.room.len(), usize::from(expected.len() < 3), "{kib}");
            assert!(plan.room.iter().all(|usage| usage.needed <= usage.free && usage.place == "/"), "{:?}", plan.room);
        }
        // What the operator refused takes nothing.
        let plan = fitted(&tree.with_room(215 * KIB), &["needed".into(), "drivers".into()], &fixups);
        assert_eq!(left_out(&plan), Vec::<&str>::new());
    }

    #[test]
    fn what_is_left_out_is_told_once_and_not_applied_and_the_rest_is() {
        let mut tree = MemoryTree::new().with_room(150 * KIB);
        let fixups = [making("needed", &tree, &[("/n", 100)]), making("drivers", &tree, &[("/d", 100)])];
        let plan = fitted(&tree, &[], &fixups);
        println!("{plan}");
        assert_eq!(plan.warnings.len(), 2, "its family's and this one: {:?}", plan.warnings);
        let told = plan.warnings.last().unwrap();
        assert!(
            told.contains("/: 309.5 KiB") && told.contains("150.0 KiB free") && told.contains("left out: drivers;")
        );
        assert!(plan.to_string().contains("drivers: t (left out, no room)"));
        assert!(plan.to_string().contains("room in /: 104.0 KiB needed, 150.0 KiB free"));
        let states: Vec<State> = apply(&plan, &[], &mut tree).iter().map(|outcome| outcome.state).collect();
        assert_eq!(states, [State::Done, State::Refused]);
    }

    #[test]
    fn a_full_filesystem_leaves_the_others_alone_and_a_replaced_file_needs_room_twice() {
        let tree = MemoryTree::new()
            .with("/boot/l", vec![0; 60 << 10])
            .with("/other/x", "")
            .with_room_below("/boot", 50 * KIB);
        let fixups = [
            making("loader", &tree, &[("/boot/l", 60)]),
            making("program", &tree, &[("/other/p", 1000)]),
            making("small", &tree, &[("/boot/l", 40)]),
        ];
        let plan = fitted(&tree, &[], &fixups);
        println!("{plan}");
        assert_eq!(left_out(&plan), ["loader"]);
        assert_eq!(plan.room.len(), 1, "of the other one nothing is known: {:?}", plan.room);
        assert_eq!((plan.room[0].place.as_str(), plan.room[0].needed), ("/boot", ByteCount::kib(40)));
    }
}
