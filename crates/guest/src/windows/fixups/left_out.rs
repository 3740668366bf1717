//! Volumes and disks that the VM does not have, because the operator left them out of the conversion: nothing waits for them at the
//! first boot. Their letters stay reserved in `MountedDevices`: no other volume gets them, and they are right when a disk comes back.

use machine::{Disk, Machine, VolumePlace};

use crate::windows::Partition;
use crate::windows::drive_letters::{DriveLetters, MountedDevice};

/// What the VM does not have.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut {
    partitions: Vec<Partition>,
    /// Positions of the disks of which nothing is left.
    disks: Vec<usize>,
}

impl LeftOut {
    /// Of a machine's disks.
    pub(super) fn of(machine: &Machine, absent: &[VolumePlace]) -> Self {
        let is_absent = |at: usize, volume: &machine::Volume| {
            absent.contains(&VolumePlace { disk: at, offset: volume.offset, part: None })
        };
        let mut left_out = Self::default();
        for (at, disk) in machine.disks.iter().enumerate() {
            let volumes = &disk.layout.volumes;
            let gone = volumes.iter().filter(|volume| is_absent(at, volume));
            left_out.partitions.extend(gone.clone().filter_map(|volume| Partition::of(disk, volume)));
            if !volumes.is_empty() && gone.count() == volumes.len() {
                left_out.disks.push(at);
            }
        }
        left_out
    }

    /// The disks that the VM has something of.
    pub(super) fn others<'d>(&self, disks: &'d [Disk]) -> impl Iterator<Item = &'d Disk> {
        disks.iter().enumerate().filter(|(at, _)| !self.disks.contains(at)).map(|(_, disk)| disk)
    }

    /// The letters and volume names of what the VM has.
    pub(super) fn without(&self, letters: &DriveLetters) -> DriveLetters {
        DriveLetters { entries: letters.entries.iter().filter(|entry| !self.has(entry)).cloned().collect() }
    }

    /// What it means for the letters.
    pub(super) fn warning(&self, letters: &DriveLetters) -> Option<String> {
        let gone = letters.entries.iter().filter(|entry| self.has(entry));
        let mut gone: Vec<char> = gone.filter_map(MountedDevice::letter).collect();
        gone.sort_unstable();
        let shown: Vec<String> = gone.iter().map(|letter| format!("{letter}:")).collect();
        (!gone.is_empty()).then(|| {
            format!(
                "{} left out of the conversion: programs, page files and shares that are there are missing; no other volume gets \
                 the letter",
                shown.join(" ")
            )
        })
    }

    fn has(&self, entry: &MountedDevice) -> bool {
        self.partitions.iter().any(|partition| entry.target.is(*partition))
    }
}

#[cfg(test)]
mod tests {
    use machine::{ByteOffset, DiskLayout, PartitionTable, SectorSize, Volume};

    use super::*;
    use crate::windows::drive_letters::Target;
    use crate::windows::hive::Data;

    fn disk(signature: &str, offsets: &[u64]) -> Disk {
        let volumes =
            offsets.iter().map(|offset| Volume { offset: ByteOffset(*offset), ..Volume::default() }).collect();
        let layout =
            DiskLayout { partition_table: PartitionTable::Mbr, partition_table_id: Some(signature.into()), volumes };
        Disk {
            path: "/dev/sda".into(),
            format: "raw".into(),
            virtual_size: machine::ByteCount::gib(2),
            logical_sector_size: SectorSize::try_from(512).unwrap(),
            identity: machine::DiskIdentity::default(),
            layout,
        }
    }

    #[test]
    fn letters_of_volumes_that_were_left_out_are_told_and_nobody_waits_for_them() {
        let machine = Machine { disks: vec![disk("0x1", &[63, 1 << 30]), disk("0x2", &[63])], ..Machine::default() };
        let place = |disk, offset| VolumePlace { disk, offset: ByteOffset(offset), part: None };
        let entry = |letter, signature, offset| MountedDevice {
            name: format!("\\DosDevices\\{letter}:"),
            target: Target::Mbr { signature, offset: ByteOffset(offset) },
            data: Data::binary(Vec::new()),
        };
        let letters = DriveLetters { entries: vec![entry('E', 2, 63), entry('C', 1, 63), entry('D', 1, 1 << 30)] };
        let left_out = LeftOut::of(&machine, &[place(0, 1 << 30), place(1, 63)]);
        let warning = left_out.warning(&letters).unwrap();
        println!("{warning}");
        assert!(warning.starts_with("D: E: left out of the conversion"));
        assert_eq!(left_out.without(&letters).entries, letters.entries[1..2]);
        assert_eq!(left_out.others(&machine.disks).count(), 1);
        let nothing = LeftOut::of(&machine, &[]);
        assert_eq!((nothing.warning(&letters), nothing.others(&machine.disks).count()), (None, 2));
    }
}
