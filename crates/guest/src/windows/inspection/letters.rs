//! What drive letters mean for a conversion; they are read by [`drive_letters`](crate::windows::drive_letters).

use machine::firstboot::{MountRestore, PartitionIdentity};

use crate::windows::drive_letters::{DriveLetters, MountedDevice, Target};
use machine::Note;

impl DriveLetters {
    /// The letters of partitions, for the first start: where Windows gave others, they come back.
    pub fn for_first_boot(&self) -> Vec<MountRestore> {
        let restored = self.entries.iter().filter_map(|entry| {
            let partition = match &entry.target {
                Target::Mbr { signature, offset } => PartitionIdentity::Mbr { signature: *signature, offset: *offset },
                Target::Gpt { partition } => PartitionIdentity::Gpt { partition_guid: partition.bare() },
                Target::Device { .. } | Target::Unknown => return None,
            };
            Some(MountRestore { partition, letter: entry.letter()? })
        });
        restored.collect()
    }
}

pub(super) fn notes(letters: &DriveLetters, system_root: &str) -> Vec<Note> {
    let is_disk = |entry: &&MountedDevice| matches!(entry.target, Target::Mbr { .. } | Target::Gpt { .. });
    let mut found: Vec<char> = letters.entries.iter().filter(is_disk).filter_map(MountedDevice::letter).collect();
    found.sort_unstable();
    let mut notes = Vec::new();
    if !found.is_empty() {
        let shown: Vec<String> = found.iter().map(char::to_string).collect();
        notes.push(Note::info(
            format!("volumes with letters: {}", shown.join(" ")),
            "they stay as long as disk signatures, partition offsets and partition GUIDs do",
        ));
    }
    let system = system_root.chars().next().map(|letter| letter.to_ascii_uppercase());
    if let Some(letter) = system.filter(|letter| letter.is_ascii_alphabetic() && !found.contains(letter)) {
        notes.push(Note::warning(
            format!("MountedDevices does not say which volume {letter}: is"),
            "if Windows gives it another letter at its first start, nobody can log on",
        ));
    }
    notes
}
