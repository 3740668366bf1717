//! Drive letters: which volume has which, and how each partition of the plan gets its own back.

use machine::firstboot::{MountRestore, PartitionIdentity};

/// A volume of the running system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSeen {
    /// `\\?\Volume{…}\`.
    pub path: String,
    /// The partition that it is; `None` where it is none, or lies on several.
    pub partition: Option<PartitionIdentity>,
    /// Its letter.
    pub letter: Option<char>,
    /// Whether Windows runs from it: it keeps its letter.
    pub is_boot: bool,
}

/// One change of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterChange {
    /// Nothing has this letter any more.
    Free {
        /// The letter.
        letter: char,
    },
    /// A volume gets this letter.
    Give {
        /// [`VolumeSeen::path`].
        volume: String,
        /// The letter.
        letter: char,
    },
}

/// What to change, and what cannot be, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterPlan {
    /// In this order.
    pub changes: Vec<LetterChange>,
    /// Letters that their partitions do not get.
    pub problems: Vec<String>,
}

/// How the partitions of `wanted` get their letters among `volumes`. What has one of these letters and is none of them, a CD
/// drive as a rule, moves to the first free letter from D on.
pub fn plan_letters(wanted: &[MountRestore], volumes: &[VolumeSeen]) -> LetterPlan {
    let mut plan = LetterPlan::default();
    let (mut free, mut give) = (Vec::new(), Vec::new());
    for mount in wanted {
        let letter = mount.letter;
        let found = volumes.iter().find(|volume| volume.partition.as_ref() == Some(&mount.partition));
        let keeper = volumes.iter().find(|volume| volume.letter == Some(letter) && volume.is_boot);
        match found {
            None => plan.problems.push(format!("{letter}: its partition is not there")),
            Some(volume) if volume.letter == Some(letter) => {}
            Some(volume) if volume.is_boot => plan.problems.push(format!("{letter}: Windows runs from its partition")),
            Some(_) if keeper.is_some() => {
                plan.problems.push(format!("{letter}: Windows runs from the volume that has it"))
            }
            Some(_) if give.iter().any(|(_, taken)| *taken == letter) => {
                plan.problems.push(format!("{letter}: wanted twice"));
            }
            Some(volume) if give.iter().any(|(given, _): &(&VolumeSeen, char)| given.path == volume.path) => {
                plan.problems.push(format!("{letter}: its partition gets another letter"));
            }
            Some(volume) => {
                free.extend(volume.letter);
                give.push((volume, letter));
            }
        }
    }
    let is_moved = |volume: &VolumeSeen| give.iter().any(|(moved, _)| moved.path == volume.path);
    let taken = |letter: char| {
        volumes.iter().any(|volume| volume.letter == Some(letter)) || wanted.iter().any(|mount| mount.letter == letter)
    };
    let mut spare = ('D'..='Z').filter(|letter| !taken(*letter));
    let mut moved_away = Vec::new();
    for (_, letter) in &give {
        if let Some(volume) = volumes.iter().find(|volume| volume.letter == Some(*letter) && !is_moved(volume)) {
            free.push(*letter);
            moved_away.extend(spare.next().map(|letter| (volume, letter)));
        }
    }
    plan.changes.extend(free.into_iter().map(|letter| LetterChange::Free { letter }));
    let give = give.iter().chain(&moved_away);
    plan.changes
        .extend(give.map(|(volume, letter)| LetterChange::Give { volume: volume.path.clone(), letter: *letter }));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::ByteOffset;
    use proptest::prelude::*;

    fn partition(number: u32) -> PartitionIdentity {
        PartitionIdentity::Mbr { signature: number, offset: ByteOffset(1 << 20) }
    }

    fn volume(number: u32, letter: impl Into<Option<char>>) -> VolumeSeen {
        let partition = (number < 100).then(|| partition(number));
        VolumeSeen { path: format!("v{number}"), partition, letter: letter.into(), is_boot: number == 0 }
    }

    fn mount(number: u32, letter: char) -> MountRestore {
        MountRestore { partition: partition(number), letter }
    }

    fn give(number: u32, letter: char) -> LetterChange {
        LetterChange::Give { volume: format!("v{number}"), letter }
    }

    #[test]
    fn a_cd_drive_makes_room() {
        let volumes = [volume(0, 'C'), volume(1, None), volume(100, 'D')];
        let plan = plan_letters(&[mount(0, 'C'), mount(1, 'D')], &volumes);
        assert_eq!(plan.changes, [LetterChange::Free { letter: 'D' }, give(1, 'D'), give(100, 'E')]);
        assert!(plan.problems.is_empty());
    }

    #[test]
    fn letters_are_exchanged() {
        let volumes = [volume(1, 'E'), volume(2, 'D')];
        let plan = plan_letters(&[mount(1, 'D'), mount(2, 'E')], &volumes);
        let freed = ['E', 'D'].map(|letter| LetterChange::Free { letter });
        assert_eq!(plan.changes, [&freed[..], &[give(1, 'D'), give(2, 'E')]].concat());
    }

    #[test]
    fn windows_keeps_its_letter_and_what_is_missing_is_told() {
        let plan = plan_letters(&[mount(1, 'C'), mount(7, 'F')], &[volume(0, 'C'), volume(1, 'D')]);
        assert_eq!(plan.changes, []);
        let expected = ["C: Windows runs from the volume that has it", "F: its partition is not there"];
        assert_eq!(plan.problems, expected);
    }

    proptest! {
        #[test]
        fn no_letter_is_given_twice(
            mut letters in Just(('C'..='H').collect::<Vec<_>>()).prop_shuffle(),
            wanted in proptest::collection::vec((0..8_u32, proptest::char::range('C', 'J')), 0..6),
        ) {
            let volumes: Vec<VolumeSeen> =
                [0, 1, 2, 3, 100].into_iter().map(|number| volume(number, letters.pop())).chain([volume(4, None)]).collect();
            let wanted: Vec<MountRestore> = wanted.into_iter().map(|(number, letter)| mount(number, letter)).collect();
            let mut now: Vec<(String, char)> =
                volumes.iter().filter_map(|volume| Some((volume.path.clone(), volume.letter?))).collect();
            let boot = now.iter().find(|(path, _)| path == "v0").cloned().unwrap();
            for change in plan_letters(&wanted, &volumes).changes {
                match change {
                    LetterChange::Free { letter } => now.retain(|(_, taken)| *taken != letter),
                    LetterChange::Give { volume, letter } => {
                        prop_assert!(now.iter().all(|(_, taken)| *taken != letter), "{} is taken: {:?}", letter, now);
                        now.push((volume, letter));
                    }
                }
            }
            prop_assert!(now.contains(&boot));
        }
    }
}
